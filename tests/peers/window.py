"""The desktop window on a real X server without a screen.

usage: window.py [--mirror BINARY] [--out FOLDER]

Checks that the window shows the overlay on black, and leaves window.png for a person to look at. Needs xvfb and ffmpeg.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from running import RELEASE, ROOT, START, Mirror, within

SIZE = (720, 1080)
# Shares of the screen: people cover some of it, and black is the mirror.
LEAST_LIT, MOST_LIT = 0.02, 0.6


def grab(display: str, *output: str) -> bytes:
    """One picture of the X server's screen."""
    source = ["-f", "x11grab", "-draw_mouse", "0", "-video_size", f"{SIZE[0]}x{SIZE[1]}", "-i", display]
    command = ["ffmpeg", "-loglevel", "error", "-y", *source, "-frames:v", "1", *output]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=START).stdout


def lit(pixels: bytes) -> float:
    bright = sum(max(pixels[i : i + 3]) > 24 for i in range(0, len(pixels), 3))
    return bright / (len(pixels) // 3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=RELEASE)
    parser.add_argument("--out", type=Path, default=ROOT / "target/page")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    screen = f"{SIZE[0]}x{SIZE[1]}x24"
    server = subprocess.Popen(
        ["Xvfb", "-displayfd", "1", "-screen", "0", screen, "-nolisten", "tcp"], stdout=subprocess.PIPE, text=True
    )
    try:
        with within(server, "number of the X server's display"):
            number = server.stdout.readline().strip()
        assert number, f"Xvfb ended with {server.wait()}"
        display = f":{number}"
        with Mirror(args.mirror, "--display", "window", DISPLAY=display) as mirror:
            mirror.wait_for_overlays(20)
            share = lit(grab(display, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"))
            grab(display, str(args.out / "window.png"))
    finally:
        server.terminate()
        server.wait(timeout=10)
    print(f"{share:.1%} of the screen is lit, saved {args.out / 'window.png'}")
    assert LEAST_LIT <= share <= MOST_LIT, "the window does not show an overlay on black"
    return 0


if __name__ == "__main__":
    sys.exit(main())

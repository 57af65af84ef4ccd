"""The README's picture, made by the mirror itself.

usage: readme_picture.py [--mirror BINARY] [--out FILE]

One picture of the demo scene, enlarged, is played again and again. Left what the local page's preview shows, right what the
mirror's display shows, not mirrored, so that both can be compared. Needs ffmpeg.
"""

import argparse
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

from running import RELEASE, ROOT, Mirror

CLIP = ROOT / "firmware/mirror/assets/demo.mjpeg"
# Which picture of the clip, counted from nought, and the size of each half.
PICTURE = 30
WIDTH, HEIGHT = 420, 560


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-loglevel", "error", "-y", *arguments], check=True)


def preview(url: str) -> bytes:
    """The first whole JPEG file of the stream."""
    with urllib.request.urlopen(f"{url}/preview.mjpg", timeout=60) as stream:
        data = b""
        while b"\xff\xd9" not in data:
            data += stream.read1(1 << 16)
    return data[data.index(b"\xff\xd8") : data.index(b"\xff\xd9") + 2]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=RELEASE)
    parser.add_argument("--out", type=Path, default=ROOT / "firmware/mirror/assets/overlay.png")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        still, left, right = folder / "still.mjpeg", folder / "left.jpg", folder / "screens/latest.png"
        enlarge = f"select=eq(n\\,{PICTURE}),scale={WIDTH}:{HEIGHT}:flags=lanczos,loop=600:1:0"
        ffmpeg("-f", "mjpeg", "-i", CLIP, "-vf", enlarge, "-frames:v", "600", "-q:v", "2", "-f", "mjpeg", still)
        look = {
            "MIRROR_OVERLAY_MIRRORED": "false",
            "MIRROR_OVERLAY_SHOW_FPS": "false",
            "MIRROR_DISPLAY_WIDTH": str(WIDTH),
            "MIRROR_DISPLAY_HEIGHT": str(HEIGHT),
            "MIRROR_PAGE_PREVIEW_QUALITY": "95",
        }
        with Mirror(args.mirror, "--source", str(still), "--display", f"headless:{folder / 'screens'}", **look) as mirror:
            # Tracks and smoothing settle first.
            mirror.wait_for_overlays(10)
            left.write_bytes(preview(mirror.url))
        beside = f"[0]pad={WIDTH + 12}:{HEIGHT}:0:0:gray[l];[1]format=rgb24[r];[l][r]hstack,split[a][b];"
        palette = "[a]palettegen=max_colors=256:stats_mode=full[p];[b][p]paletteuse=dither=sierra2_4a"
        ffmpeg("-i", left, "-i", right, "-filter_complex", beside + palette, "-frames:v", "1", args.out)
    print(f"{args.out}: {args.out.stat().st_size / 1000:.0f} KB")
    return 0


if __name__ == "__main__":
    sys.exit(main())

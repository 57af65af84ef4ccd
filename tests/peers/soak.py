"""The mirror for a long time: memory stays flat, pictures go on, nothing is started again.

usage: soak.py [--minutes N] [--every SECONDS] [--mirror BINARY]

Memory is flat when its median over the last third is at most 2 MiB above that of the second third; the first third is
warm-up, and the peak is at most 150 MiB. A browser-like reader watches the preview all the time.
"""

import argparse
import http.client
import statistics
import sys
import threading
import time
import urllib.request
from pathlib import Path

from running import RELEASE, Mirror, wait_until

MOST_GROWTH_MIB = 2.0
MOST_PEAK_MIB = 150


def watch(url: str, watched: list) -> None:
    """Reads the preview until the mirror ends; `watched` is the bytes so far."""
    try:
        with urllib.request.urlopen(f"{url}/preview.mjpg", timeout=60) as stream:
            while piece := stream.read1(1 << 16):
                watched[0] += len(piece)
    except (OSError, http.client.HTTPException):
        pass


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--every", type=float, default=10)
    parser.add_argument("--mirror", type=Path, default=RELEASE)
    args = parser.parse_args()
    samples = []
    with Mirror(args.mirror, "--display", "headless") as mirror:
        watched, before = [0], 0
        threading.Thread(target=watch, args=(mirror.url, watched), daemon=True).start()
        mirror.wait_for_overlays(1)
        wait_until(lambda: watched[0] > 0, "preview")
        end = time.monotonic() + 60 * args.minutes
        while time.monotonic() < end:
            time.sleep(args.every)
            state = mirror.state()
            resident = mirror.metric("mirror_resident_memory_bytes") / 2**20
            overlays, restarts = state["counters"]["overlays"], state["counters"]["restarts"]
            assert restarts == 0, f"{restarts} parts were started again"
            assert not samples or overlays > samples[-1][1], "no overlay since the last look"
            assert watched[0] > before, "nothing came of the preview since the last look"
            before = watched[0]
            samples.append((resident, overlays))
            print(f"{state['uptime_s']:5d} s  {resident:6.1f} MiB  {overlays:6d} overlays", flush=True)
        peak = mirror.state()["peak_rss_mib"]
    third = len(samples) // 3
    second, last = (statistics.median(m for m, _ in part) for part in (samples[third : 2 * third], samples[2 * third :]))
    print(f"resident {second:.1f} MiB in the second third, {last:.1f} in the last, {peak:.1f} at most, {samples[-1][1]} overlays")
    return int(last - second > MOST_GROWTH_MIB or peak > MOST_PEAK_MIB)


if __name__ == "__main__":
    sys.exit(main())

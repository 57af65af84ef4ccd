"""Checks `mirror bench --json`: the stable interface, the memory, and the share of time outside the network.

usage: check_bench.py FILE
"""

import json
import sys

STAGES = ("capture", "convert", "infer", "parse", "draw", "flip")
MEMORY_MIB = 150
# A quarter is the most on a quiet machine; a ratio within one run moves a little where others use the machine.
OUTSIDE_SHARE = 0.25
OUTSIDE_SHARE_ON_A_BUSY_MACHINE = 0.30


def main() -> int:
    report = json.load(open(sys.argv[1], encoding="utf-8"))
    median = {}
    for stage in STAGES:
        entry = report["stages"][stage]
        assert 0 <= entry["median_ms"] <= entry["p95_ms"], (stage, entry)
        median[stage] = entry["median_ms"]
    outside = sum(median[s] for s in ("convert", "parse", "draw", "flip"))
    share = outside / (outside + median["infer"])
    print(f"convert + parse + draw + flip: {outside:.2f} ms, {share:.1%} of {outside + median['infer']:.2f} ms a frame")
    print(f"{report['fps']:.1f} frames a second, {report['peak_rss_mib']:.0f} MiB at most, first overlay {report['first_overlay_ms']:.0f} ms")
    assert report["fps"] > 0 and report["first_overlay_ms"] > 0
    if report["peak_rss_mib"] > MEMORY_MIB:
        print(f"more than {MEMORY_MIB} MiB")
        return 1
    if share > OUTSIDE_SHARE:
        print(f"more than the {OUTSIDE_SHARE:.0%} that it should be on a quiet machine")
    return int(share > OUTSIDE_SHARE_ON_A_BUSY_MACHINE)


if __name__ == "__main__":
    sys.exit(main())

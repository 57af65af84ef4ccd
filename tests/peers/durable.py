"""What the mirror puts in a file's place is on the medium before it stands there, and the folder after it.

usage: durable.py [--mirror BINARY]

Every name that strace sees given to a file in the data folder must be given to one that was synchronised before, and the
folder must be synchronised after. Needs strace.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import urllib.request
from pathlib import Path

from running import RELEASE, Mirror, wait_until

SYNCHRONISED = re.compile(r"f(?:data)?sync\(\d+<(?P<path>[^>]+)>\)\s+= 0")
RENAMED = re.compile(r'rename(?:at2?)?\((?:[^"]*, )?"(?P<from>[^"]+)", (?:[^"]*, )?"(?P<to>[^"]+)".*\)\s+= 0')


def traced(mirror: Path, folder: Path) -> tuple[Path, Path]:
    """A program that is the mirror under strace, and the file that strace writes."""
    log, program = folder / "calls", folder / "traced"
    calls = "fsync,fdatasync,rename,renameat,renameat2"
    program.write_text(f'#!/bin/sh\nexec strace -D -f -y -qq -e trace={calls} -o "{log}" "{mirror.resolve()}" "$@"\n')
    program.chmod(0o700)
    return program, log


def change(mirror: Mirror, path: str, body: dict) -> None:
    request = urllib.request.Request(mirror.url + path, json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    request.add_header("X-Mirror-Change", "1")
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status < 300, f"{path}: {answer.status}"


def learning(mirror: Mirror) -> dict:
    with urllib.request.urlopen(f"{mirror.url}/api/learning", timeout=30) as answer:
        return json.load(answer)


def write_what_is_kept(mirror: Mirror) -> None:
    wait_until(lambda: learning(mirror)["state"] == "ready", "learning at home")
    version, _ = learning(mirror)["explanation"]["versions"]
    change(mirror, "/api/learning/consent", {"purpose": "improve_my_mirror", "version": version, "agree": True})
    change(mirror, "/api/camera", {"on": False})


def whole(lines: list[str]) -> list[str]:
    """The calls in the order in which they ended: strace tells one that another thread's interrupts in two pieces."""
    begun, calls = {}, []
    for line in lines:
        thread, _, call = line.partition(" ")
        if call.endswith("<unfinished ...>"):
            begun[thread] = call.removesuffix("<unfinished ...>").rstrip()
        elif " resumed>" in call:
            calls.append(begun.pop(thread) + call.partition(" resumed>")[2])
        else:
            calls.append(call)
    return calls


def check(calls: list[str], data: str) -> set[str]:
    """Names in the data folder that something was put under, each checked."""
    placed, synchronised, waiting = set(), set(), {}
    for call in calls:
        if found := SYNCHRONISED.search(call):
            synchronised.add(found["path"])
            waiting = {name: folder for name, folder in waiting.items() if folder != found["path"]}
        elif found := RENAMED.search(call):
            source, target = found["from"], found["to"]
            if not target.startswith(data):
                continue
            assert source in synchronised, f"{target} was put there before it was synchronised"
            synchronised.discard(source)
            waiting[target] = os.path.dirname(target)
            placed.add(os.path.basename(target))
    assert not waiting, f"folders were not synchronised after: {waiting}"
    return placed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=RELEASE)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="durable-") as folder:
        program, log = traced(args.mirror, Path(folder))
        own = {"MIRROR_PAGE_ACCESS": "paired", "MIRROR_PAGE_NETWORK_LISTEN": "127.0.0.1:0"}
        with Mirror(program, "--display", "headless", **own) as mirror:
            data = mirror.state_folder.name
            write_what_is_kept(mirror)
        placed = check(whole(log.read_text().splitlines()), data)
    print(f"synchronised before and after: {', '.join(sorted(placed))}")
    expected = {"consent.json", "camera-switch"}
    assert expected <= placed, f"not seen: {expected - placed}"
    return 0


if __name__ == "__main__":
    sys.exit(main())

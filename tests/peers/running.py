"""A mirror in a process of its own, playing the demo scene if nothing else is said; for the scripts beside this one."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "target/release/mirror"
# Seconds within which a program that is started says its first words; it takes less than one where nothing else is busy.
START = 60


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def within(process: subprocess.Popen, what: str, seconds: float = START):
    """For a wait for a process's words, which end with it: it is killed where `what` does not come in time, and `AssertionError` names
    that. A process that leads a group is killed with its group: its children may hold the same pipe."""
    late = threading.Event()

    def end() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()

    patience = threading.Timer(seconds, end)
    patience.daemon = True
    patience.start()
    try:
        yield
    finally:
        patience.cancel()
        if late.is_set():
            raise AssertionError(f"no {what} within {seconds:.0f} s")


class Mirror:
    """`with Mirror(binary, "--display", "headless") as mirror`: started on a free port, stopped at the end."""

    def __init__(self, binary: Path, *arguments: str, **environment: str) -> None:
        self.state_folder = tempfile.TemporaryDirectory(prefix="mirror-")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MIRROR_")}
        own = {"MIRROR_BOARD": "pc", "MIRROR_PAGE_LISTEN": "127.0.0.1:0", "XDG_STATE_HOME": self.state_folder.name}
        # Nothing of a mirror that is installed on this machine: neither its fleet nor its data folder.
        own["MIRROR_SYSTEM_FILE"] = "/dev/null"
        self.binary, self.environment = binary, kept | own | environment
        self.command = [binary, "run", *([] if "--source" in arguments else ["--source", "demo"]), *arguments]
        self.start()

    def start(self) -> None:
        """Once more, after the process has ended, on the data that it left."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True, env=self.environment)
        with within(self.process, "page of the mirror"):
            self.url = next(self._addresses(), None)
        if self.url is None:
            raise RuntimeError(f"the mirror named no page; it ended with {self.process.wait()}")

    def _addresses(self):
        for line in self.process.stdout:
            print(line, end="")
            if "http://" in line:
                yield "http://" + line.split("http://")[1].split()[0].rstrip("/")

    def __enter__(self) -> "Mirror":
        return self

    def __exit__(self, kind: type | None = None, *_: object) -> None:
        self.process.terminate()
        try:
            ended = self.process.wait(timeout=30)
        finally:
            self.process.kill()
            self.state_folder.cleanup()
        # What went wrong before is the error to see.
        assert kind is not None or ended == 0, f"the mirror ended with {ended}"

    def state(self) -> dict:
        with urllib.request.urlopen(f"{self.url}/api/state", timeout=30) as answer:
            return json.load(answer)

    def metric(self, name: str) -> float:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return next(float(line.split()[-1]) for line in lines if line.split()[0] == name)

    def wait_for_overlays(self, count: int, seconds: float = 120) -> None:
        wait_until(lambda: self.state()["counters"]["overlays"] >= count, f"{count} overlays", seconds)


def wait_until(condition, what: str, seconds: float = 60) -> None:
    """Asks until the condition holds; names what did not come about."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"no {what} within {seconds:.0f} s")
        time.sleep(0.2)

"""The operators' guide, followed as written: its shell blocks, in their order, against mosquitto and a real mirror.

usage: guide.py [--mirror BINARY] [--aggregator BINARY] [--guide FILE]

Folders of the system and ports are put into a temporary folder, `sudo` and `chown` are dropped, `systemctl restart mosquitto`
restarts a mosquitto of this script, and the broker's name is localhost. With --aggregator that program is installed where the guide
builds one: a whole build in release takes as long as all the rest. Nothing else is changed. Needs the packages mosquitto, mosquitto-clients and openssl.
"""

import argparse
import contextlib
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

from broker import placed, start_mosquitto
from fleet_home import Aggregator
from running import RELEASE, ROOT, Mirror, free_port, wait_until, within

GUIDE = ROOT / "firmware/aggregator/OPERATORS.md"
# Seconds for a block's commands, and for those that build.
BLOCK, BUILD = 300, 7200
# What Debian's package sets before it reads the guide's file; its log and its process file are left out.
DEBIANS = """persistence true
persistence_location /var/lib/mosquitto/
include_dir /etc/mosquitto/conf.d
"""


class Machine:
    """Somebody's server: where the guide's folders are, and what has been started on it."""

    def __init__(self, folder: pathlib.Path, built: pathlib.Path | None) -> None:
        self.built = built
        self.folder, self.page, self.mosquitto = folder, free_port(), None
        self.port, self.servers = free_port(), free_port()
        sample = folder / "broker"
        sample.mkdir()
        for file in (ROOT / "board/broker").iterdir():
            text = placed(self.placed(file.read_text()), self.port, self.servers)
            (sample / file.name).write_text(text)
        # mosquitto gives up root for a user of its own, who may not reach the folder.
        with (sample / "mosquitto.conf").open("a") as file:
            file.write("user root\n" if os.geteuid() == 0 else "")
        for made in ("bin", "store", "etc-mosquitto/conf.d"):
            (folder / made).mkdir(parents=True)
        (folder / "etc-mosquitto/mosquitto.conf").write_text(self.placed(DEBIANS))
        self.aggregator = Aggregator(folder / "bin/aggregator", folder / "fleet/aggregator.toml", self.page)
        self.shell = subprocess.Popen(["bash", "-e"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      start_new_session=True)

    def placed(self, text: str) -> str:
        places = {
            "board/broker": f"{self.folder}/broker", "/srv/fleet": f"{self.folder}/fleet", "/etc/mosquitto": f"{self.folder}/etc-mosquitto",
            "/var/lib/mosquitto/": f"{self.folder}/store/", "/usr/share/mirror": f"{self.folder}/share",
            "/usr/local/bin": f"{self.folder}/bin", "DNS:broker.example": "DNS:localhost",
            "broker.example": "localhost", "port = 8884": f"port = {self.servers}", "-p 8884": f"-p {self.servers}", "8090": str(self.page),
        }
        for place, here in places.items():
            text = text.replace(place, here)
        return text

    def run(self, block: str) -> str:
        """One block in the one shell; the folder it begins in is the source tree where it names no other."""
        said, lines = "", [f"cd {ROOT}; export PATH={self.folder}/bin:$PATH; trap 'echo ENDED' EXIT"]
        for line in self.placed(block).splitlines():
            line = line.removeprefix("sudo ")
            if line == "systemctl restart mosquitto":
                said += self.send(lines)
                lines = []
                self.restart_mosquitto()
            elif self.built and line.startswith("cargo build"):
                print(f"    not built: {self.built} is taken")
            elif not line.startswith("chown"):
                line = line.replace("target/release/aggregator", str(self.built)) if self.built else line
                # The page's port is a setting with a default, which the guide leaves alone.
                lines.append(line.replace("[broker]", f'[page]\nlisten = "127.0.0.1:{self.page}"\n\n[broker]', 1))
        return said + self.send(lines)

    def send(self, lines: list[str]) -> str:
        self.shell.stdin.write("\n".join([*lines, "echo DONE", ""]))
        self.shell.stdin.flush()
        said = []
        builds = any(line.startswith("cargo build") for line in lines)
        with within(self.shell, f"end of the commands {lines}", BUILD if builds else BLOCK):
            for line in self.shell.stdout:
                if line == "DONE\n":
                    return "".join(said)
                if line == "ENDED\n":
                    break
                print("   ", line, end="")
                said.append(line)
        raise AssertionError(f"the guide's commands ended with {self.shell.wait()}")

    def restart_mosquitto(self) -> None:
        self.stop_mosquitto()
        configuration = self.folder / "etc-mosquitto/mosquitto.conf"
        self.mosquitto = start_mosquitto(configuration, self.servers, self.folder / "mosquitto.log")

    def stop_mosquitto(self) -> None:
        if self.mosquitto:
            self.mosquitto.terminate()
            self.mosquitto.wait(10)

    def stop(self) -> None:
        # The shell and what it put into the background are one process group of this script's making.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.shell.pid, signal.SIGTERM)
        self.shell.wait(10)
        self.stop_mosquitto()


def sections(guide: pathlib.Path) -> list[tuple[str, list[str]]]:
    parts = re.split(r"^## ", guide.read_text(), flags=re.MULTILINE)[1:]
    return [(part.splitlines()[0], re.findall(r"^```sh\n(.*?)^```", part, re.MULTILINE | re.DOTALL)) for part in parts]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=pathlib.Path, default=RELEASE)
    parser.add_argument("--aggregator", type=pathlib.Path, help="built already; default: built as the guide says")
    parser.add_argument("--guide", type=pathlib.Path, default=GUIDE)
    args = parser.parse_args()
    os.chdir(ROOT)
    shipped = re.search(r'^version = "(.*)"', (ROOT / "models/student/manifest.toml").read_text(), re.MULTILINE)[1]
    assert args.guide.read_text().count(f"/usr/share/mirror/student-{shipped}") == 2, f"the guide copies student {shipped} under its name"
    sample = (ROOT / "firmware/aggregator/aggregator.toml").read_text()
    assert f"/usr/share/mirror/student-{shipped}" in sample, f"aggregator.toml names student {shipped}"
    with tempfile.TemporaryDirectory(prefix="guide-") as name:
        machine = Machine(pathlib.Path(name), args.aggregator)
        try:
            follow(machine, args)
        finally:
            machine.stop()
    return 0


def follow(machine: Machine, args: argparse.Namespace) -> None:
    said, mirror = {}, None
    try:
        for title, blocks in sections(args.guide):
            if blocks:
                print(title)
            said[title[:2]] = "".join(machine.run(block) for block in blocks)
            if title.startswith("4."):
                wait_until(lambda: has_page(machine), "operators' page")
            if title.startswith("5."):
                assert "mirror-17 enrolled" in said["5."] and "group pilot" in said["5."]
                mirror = start_mirror(machine, args)
                wait_until(lambda: "mirror-17 enrolled, online" in machine.aggregator.command("device", "list"), "mirror online")
        check(said)
        # Section 3 followed once more, as after a change of the sample, lets nobody in again.
        again = next(blocks for title, blocks in sections(args.guide) if title.startswith("3."))
        for block in again:
            machine.run(block)
        # The broker was started with the list of revoked certificates; the mirror cannot come back. "offline" is said by an
        # aggregator that is let in itself.
        devices = lambda: machine.aggregator.command("device", "list").splitlines()
        shut_out = lambda: any("mirror-17 revoked" in line and "offline" in line for line in devices())
        wait_until(shut_out, "the aggregator to say that the revoked mirror is offline", 120)
        time.sleep(5)
        assert shut_out(), "a revoked mirror came back"
        shown = mirror.state()["counters"]["overlays"]
        wait_until(lambda: mirror.state()["counters"]["overlays"] > shown + 5, "overlays after the revocation")
        print("every block did what the guide says; the revoked mirror is shut out, and works on at home")
    finally:
        if mirror:
            mirror.__exit__()


def check(said: dict[str, str]) -> None:
    assert "refused" in said["6."] and "round 1 on version 1: aborted: only to show it" in said["6."], said["6."]
    assert "certificate: ends 20" in said["6."], said["6."]
    assert "version 2 (" in said["7."], said["7."]
    assert said["8."].count("last hash") == 2, said["8."]
    assert "mirror-17 revoked: stolen" in said["9."], said["9."]
    # The names of what the broker gave up; the block before has revoked its mirror, and nothing of it comes anew.
    assert "mirror/v1/mirror-17/status" in said["9."].splitlines(), said["9."]


def has_page(machine: Machine) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{machine.page}/metrics", timeout=5).close()
    except OSError:
        return False
    return True


def start_mirror(machine: Machine, args: argparse.Namespace) -> Mirror:
    settings = machine.folder / "mirror.toml"
    toml = re.search(r"^```toml\n(.*?)^```", args.guide.read_text(), re.MULTILINE | re.DOTALL)[1]
    handover = machine.folder / "fleet/handover/mirror-17"
    settings.write_text(machine.placed(toml) + f'port = {machine.port}\nfolder = "{handover}"\n')
    return Mirror(args.mirror, "--display", "headless", "--config", str(settings))


if __name__ == "__main__":
    sys.exit(main())

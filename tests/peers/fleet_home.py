"""Two whole mirrors, the real aggregator and real brokers: from consent to a counted update and a model that comes back.

On the way the aggregator is killed, and a mirror between its update and the receipt; somebody puts a megabyte where a mirror listens.

usage: fleet_home.py [--mirror BINARY] [--aggregator BINARY] [--messages FILE]

The fleet's broker is the sample configuration with TLS and its access list, the home's broker a second mosquitto that stands
for Home Assistant's; mosquitto's own clients listen at both. The mirrors play the demo scene. FILE gets what the home's broker
heard of one mirror, and of one that belongs to no fleet, for `home_assistant.py`. Needs the packages mosquitto, mosquitto-clients and openssl.
"""

import argparse
import json
import os
import pathlib
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import zlib

from broker import Broker, authority, certificate, listens, start_mosquitto
from running import RELEASE, ROOT, START, Mirror, free_port, wait_until

NAMES = ("mirror-1", "mirror-2")
# Seconds within which a command ends, however busy the machine is.
COMMAND = 300
CHANGE = {"x-mirror-change": "1"}
# Seconds within which a mirror that has an update sends it, at a moment that it draws.
WINDOW = 100
# Bytes of a row of pixels that are looked for in what was heard, and the values that they have at least: an even wall is found anywhere.
PIECE, VALUES = 64, 12
# More than a mirror takes at a time, and unlike any picture.
GIANT = bytes(1 << 20)
# Steps of this size leave the model as good as it was, whatever the noise: what is tried here is the way, not the gain.
RATE = 1e-6


def aggregator_settings(folder: pathlib.Path, port: int, page: int) -> str:
    return f"""
channel = "stable"
data = "{folder}/fleet"
model = "{ROOT}/models/student"
[broker]
host = "127.0.0.1"
port = {port}
client = "aggregator"
workers = 2
[broker.tls]
authority = "{folder}/ca.pem"
certificate = "{folder}/aggregator.pem"
key = "{folder}/aggregator.key"
[page]
listen = "127.0.0.1:{page}"
[rounds]
minimum_cohort = 2
maximum_cohort = 2
lead_seconds = 0
window_seconds = {WINDOW}
rate = {RATE}
tolerance = 0.02
[rollout]
stages = [1000]
stage_seconds = 5
[gate]
holdout = "{ROOT}/models/households/test"
pictures = 1
"""


class Aggregator:
    """The server in a process of its own, and its commands."""

    def __init__(self, binary: pathlib.Path, settings: pathlib.Path, page: int) -> None:
        self.binary, self.settings, self.page = binary, settings, page
        self.process = None

    def command(self, *words: str) -> str:
        # Words of the command first: every command takes --config.
        done = subprocess.run([self.binary, *words, "--config", self.settings], capture_output=True, text=True, timeout=COMMAND)
        if done.returncode:
            raise AssertionError(f"aggregator {' '.join(words)}: {done.stderr}")
        return done.stdout

    def serve(self, processes: list) -> None:
        """Starts it; it is among `processes` before it answers, so that it is ended whatever happens."""
        self.process = subprocess.Popen([self.binary, "serve", "--config", self.settings])
        processes.append(self.process)
        wait_until(lambda: self.answers(), "aggregator")

    def answers(self) -> bool:
        if self.process.poll() is not None:
            raise AssertionError(f"the aggregator ended with {self.process.returncode}")
        # The page and not a command: without a server a command opens the database itself.
        return listens(self.page)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(10)

    def round(self, number: int) -> dict:
        return json.loads(self.command("round", "show", str(number), "--json"))[0]


class Ear:
    """mosquitto_sub, line by line: topic, bytes, payload as hexadecimal digits."""

    def __init__(self, *arguments: object) -> None:
        command = ["mosquitto_sub", "-V", "mqttv5", "-h", "127.0.0.1", "-q", "1", "-F", "%t %l %x", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.heard: list[tuple[str, int, bytes]] = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self) -> None:
        for line in self.process.stdout:
            topic, length, digits = line.rstrip("\n").split(" ")
            self.heard.append((topic, int(length), bytes.fromhex(digits)))

    def last(self, topic: str) -> bytes | None:
        return next((payload for known, _, payload in reversed(self.heard) if known == topic), None)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(5)


def ask(mirror: Mirror, path: str, body: object = None) -> dict:
    payload = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    kind = {"content-type": "application/octet-stream" if isinstance(body, bytes) else "application/json"}
    text = fetch(urllib.request.Request(mirror.url + path, payload, (CHANGE | kind) if payload is not None else {}))
    return json.loads(text) if text else {}


def fetch(request: urllib.request.Request | str) -> bytes:
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def enrol(aggregator: Aggregator, folder: pathlib.Path, name: str) -> pathlib.Path:
    """As the operators' guide says, with the names of files that the mirror's settings say."""
    done = subprocess.run(["openssl", "x509", "-in", folder / f"{name}.pem", "-noout", "-fingerprint", "-sha256"],
                          check=True, capture_output=True, text=True, timeout=START)
    told = aggregator.command("device", "enrol", name, "--fingerprint", done.stdout.strip().split("=")[1])
    words = {line.split(": ")[0]: line.split(": ")[-1].strip() for line in told.splitlines() if ": " in line}
    place = folder / f"enrolled-{name}"
    place.mkdir()
    files = {
        "authority.pem": (folder / "ca.pem").read_text(),
        "device.pem": (folder / f"{name}.pem").read_text(),
        "device.key": (folder / f"{name}.key").read_text(),
        "device.secret": next(value for key, value in words.items() if key.startswith("secret")),
        "fleet.pub": words["public key of the fleet"],
    }
    for file, text in files.items():
        (place / file).write_text(text)
        (place / file).chmod(0o600)
    return place


def mirror_settings(name: str, home_port: int, more: dict) -> dict:
    settings = {
        "HOME_ASSISTANT_ENABLED": "true", "HOME_ASSISTANT_HOST": "127.0.0.1", "HOME_ASSISTANT_PORT": home_port,
        "HOME_ASSISTANT_NAME": name,
        "LEARNING_IDLE_S": 0, "LEARNING_BUSIEST": 1.0, "LEARNING_AFTER_CORRECTIONS": 0, "LEARNING_NIGHT_MINUTES": 0,
        "THERMAL_SENSOR": "",
    }
    return {f"MIRROR_{key}": str(value) for key, value in (settings | more).items()}


def fleet_settings(enrolled: pathlib.Path, port: int) -> dict:
    return {"FLEET_ENABLED": "true", "FLEET_HOST": "127.0.0.1", "FLEET_PORT": port, "FLEET_FOLDER": enrolled, "FLEET_MIN_COHORT": 2}


def fleet_of(mirror: Mirror) -> dict:
    return ask(mirror, "/api/learning").get("fleet", {})


def agree(mirror: Mirror, purpose: str, wanted: bool) -> None:
    explanation = ask(mirror, "/api/learning")["explanation"]
    purposes = [text["purpose"] for text in explanation["purposes"]]
    version = explanation["versions"][purposes.index(purpose)]
    ask(mirror, "/api/learning/consent", {"purpose": purpose, "version": version, "agree": wanted})


def takes_part(mirror: Mirror) -> bool:
    consents = ask(mirror, "/api/learning")["consents"]
    return next(consent["agreed"] for consent in consents if consent["purpose"] == "contribute_to_fleet")


def correct(mirror: Mirror, count: int) -> None:
    """Pictures of the scene, all of it painted as background: a correction that is worth an update."""
    wait_until(lambda: ask(mirror, "/api/learning").get("learns"), "a network to learn with")
    for _ in range(count):
        frozen = ask(mirror, "/api/freeze", {})
        ask(mirror, f"/api/frozen/{frozen['id']}/save", bytes(frozen["width"] * frozen["height"]))
        time.sleep(0.3)


def pixels_of(png: bytes) -> tuple[int, list[bytes]]:
    """Bytes of a pixel, and the rows of an 8-bit picture that is not interlaced."""
    at, packed, head = 8, b"", b""
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        content = png[at + 8:at + 8 + length]
        head, packed = (content if kind == b"IHDR" else head), packed + (content if kind == b"IDAT" else b"")
        at += 12 + length
    width, _, depth, colour = struct.unpack(">IIBB", head[:10])
    assert depth == 8 and colour in (2, 6) and head[12] == 0, head
    step = 3 if colour == 2 else 4
    rows, before = [], bytes(width * step)
    data = zlib.decompress(packed)
    for start in range(0, len(data), width * step + 1):
        before = unfiltered(data[start], data[start + 1:start + 1 + width * step], before, step)
        rows.append(before)
    return step, rows


def unfiltered(kind: int, line: bytes, above: bytes, step: int) -> bytes:
    """A row of a PNG file (PNG specification, 9.2)."""
    row = bytearray(line)
    for at, value in enumerate(row):
        left, up, corner = (row[at - step], above[at], above[at - step]) if at >= step else (0, above[at], 0)
        guess = left + up - corner
        nearest = min((left, up, corner), key=lambda known: abs(guess - known))
        row[at] = (value + (0, left, up, (left + up) // 2, nearest)[kind]) & 255
    return bytes(row)


def pieces_of(mirror: Mirror) -> set[bytes]:
    """Pieces of the stored pictures as they would stand in a message that carried them: pixel after pixel, or one colour after another."""
    pieces = set()
    for correction in ask(mirror, "/api/learning")["corrections"]:
        step, rows = pixels_of(fetch(f"{mirror.url}/api/corrections/{correction['number']}/picture.png"))
        for row in rows:
            forms = [row, *(row[colour::step] for colour in range(3))]
            pieces |= {form[at:at + PIECE] for form in forms for at in range(0, len(form) - PIECE + 1, PIECE)}
    pieces = {piece for piece in pieces if len(set(piece)) >= VALUES}
    assert len(pieces) > 100, f"{len(pieces)} pieces are no search"
    return pieces


def holds_picture(payload: bytes, pieces: set[bytes]) -> bool:
    """Whether a file of pictures begins in it, or one of the pieces stands in it at any place."""
    if any(magic in payload for magic in (b"\xff\xd8\xff\xe0", b"\x89PNG", b"JFIF", b"GIF8", b"WEBP")):
        return True
    return any(payload[at:at + PIECE] in pieces for at in range(len(payload) - PIECE + 1))


def check_pictures(ears: list[Ear], pieces: set[bytes]) -> int:
    """No message on either broker has any of a picture in it. How many were looked at."""
    for piece in list(pieces)[:10]:
        assert holds_picture(b"before" + piece + b"behind", pieces), "the search finds nothing"
    heard = [(topic, payload) for ear in ears for topic, _, payload in ear.heard if payload != GIANT]
    for topic, payload in heard:
        assert not holds_picture(payload, pieces), f"{topic} has some of a picture in it"
    return len(heard)


def check_home_assistant(ear: Ear, mirror: Mirror, home_port: int) -> None:
    """Discovery and states on the home's broker; on only asks, and only the page answers."""
    base = "mirror-home/mirror-1"
    wait_until(lambda: ear.last(f"{base}/state") is not None, "state on the home's broker")
    found = json.loads(ear.last("homeassistant/device/mirror-1/config"))
    assert set(found) >= {"dev", "o", "cmps", "avty"} and found["cmps"]["take_part"]["p"] == "switch", found
    assert ear.last(f"{base}/availability") == b"online"
    # Or a broker that loses its power together with the mirror would say so for ever.
    for topic in ("availability", "state"):
        assert 0 < lasts(home_port, f"{base}/{topic}") <= 1800, topic
    state = lambda: json.loads(ear.last(f"{base}/state"))
    press(home_port, f"{base}/set/take_part", "ON")
    wait_until(lambda: state()["asks"] == "ON", "question")
    assert state()["take_part"] == "OFF" and not takes_part(mirror), "switched on from outside"
    assert any("Home Assistant asks" in notice for notice in mirror.state()["notices"]), mirror.state()["notices"]
    agree(mirror, "contribute_to_fleet", True)
    wait_until(lambda: (state()["take_part"], state()["asks"]) == ("ON", "OFF"), "answer on the home's broker")


def lasts(port: int, topic: str) -> int:
    """For how many seconds more a broker keeps what is retained there."""
    done = subprocess.run(["mosquitto_sub", "-V", "mqttv5", "-h", "127.0.0.1", "-p", str(port), "-t", topic, "-C", "1", "-F", "%E"],
                          check=True, capture_output=True, text=True, timeout=START)
    return int(done.stdout)


def press(port: int, topic: str, payload: str) -> None:
    subprocess.run(["mosquitto_pub", "-V", "mqttv5", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", topic,
                    "-m", payload], check=True, timeout=START)


def check_topics(ear: Ear) -> None:
    """Every message on the fleet's broker is of a known form and no longer than one may be."""
    heard = [topic for topic, _, _ in ear.heard]
    assert sum("/fl/update/" in topic for topic in heard) >= 2 and any(topic.endswith("/fl/receipt") for topic in heard), heard
    known = ("/status", "/round", "/model/manifest", "/jobs/notify", "/fl/receipt", "/fl/wanted", "/model/wanted")
    for topic, length, _ in ear.heard:
        parts = topic.split("/")
        fits = topic.startswith("mirror/v1/") and (
            topic.endswith(known) or parts[3:5] in (["fl", "update"], ["fl", "lane"]) or parts[3] == "jobs"
            or parts[3:5] == ["model", "chunk"])
        assert fits, topic
        assert length <= 65536, f"{topic}: {length} bytes"
        if parts[3:4] == ["fl"]:
            assert not any(name in topic for name in NAMES), f"{topic} names a device"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=pathlib.Path, default=RELEASE)
    parser.add_argument("--aggregator", type=pathlib.Path, default=ROOT / "target/debug/aggregator")
    parser.add_argument("--messages", type=pathlib.Path)
    args = parser.parse_args()
    os.chdir(ROOT)
    with tempfile.TemporaryDirectory(prefix="fleet-") as name:
        folder = pathlib.Path(name)
        authority(folder, "ca")
        for who in ("broker", "aggregator", *NAMES):
            certificate(folder, "ca", who)
        run(args, folder)
    return 0


def run(args: argparse.Namespace, folder: pathlib.Path) -> None:
    broker, home_port, processes = Broker(folder), free_port(), []
    try:
        (folder / "home.conf").write_text(f"listener {home_port} 127.0.0.1\nallow_anonymous true\n")
        processes.append(start_mosquitto(folder / "home.conf", home_port, folder / "home.log"))
        page = free_port()
        (folder / "aggregator.toml").write_text(aggregator_settings(folder, broker.servers, page))
        aggregator = Aggregator(args.aggregator, folder / "aggregator.toml", page)
        aggregator.command("init")
        aggregator.serve(processes)
        places = [enrol(aggregator, folder, who) for who in NAMES]
        own = ["--cafile", folder / "ca.pem", "--cert", folder / "aggregator.pem", "--key", folder / "aggregator.key"]
        fleet = Ear("-p", broker.servers, "-t", "mirror/v1/#", *own)
        home = Ear("-p", home_port, "-t", "#")
        processes += [fleet.process, home.process]
        settings = [mirror_settings(who, home_port, fleet_settings(place, broker.port)) for who, place in zip(NAMES, places)]
        headless = ("--display", "headless")
        with Mirror(args.mirror, *headless, **mirror_settings("alone", home_port, {})):
            wait_until(lambda: home.last("mirror-home/alone/state"), "state of a mirror without a fleet")
        with Mirror(args.mirror, *headless, **settings[0]) as one, Mirror(args.mirror, *headless, **settings[1]) as two:
            whole_way(aggregator, broker, [one, two], fleet, home, home_port, processes)
        check_connections(folder / "home.log")
        if args.messages:
            heard = {"discovery": "homeassistant/device/mirror-1/config", "state": "mirror-home/mirror-1/state",
                     "alone": "homeassistant/device/alone/config"}
            args.messages.write_text(json.dumps({name: json.loads(home.last(topic)) for name, topic in heard.items()}))
    finally:
        for process in processes:
            process.kill()
            process.wait(10)
        broker.stop()


def whole_way(aggregator, broker, mirrors, fleet, home, home_port, processes) -> None:
    for mirror in mirrors:
        mirror.wait_for_overlays(1)
        wait_until(lambda: fleet_of(mirror).get("connected"), "connection to the fleet")
        agree(mirror, "improve_my_mirror", True)
        correct(mirror, 3)
    check_home_assistant(home, mirrors[0], home_port)
    agree(mirrors[1], "contribute_to_fleet", True)
    pieces = set().union(*map(pieces_of, mirrors))
    # Before the round, so that its window is that of sending alone.
    for mirror in mirrors:
        ask(mirror, "/api/camera", {"on": False})
        ask(mirror, "/api/learning/train", {})
    for mirror in mirrors:
        wait_until(lambda: ask(mirror, "/api/learning")["training"]["last"], "a finished run", 480)
    aggregator.command("round", "start", "--force")
    for mirror in mirrors:
        wait_until(lambda: fleet_of(mirror)["round"] == 1, "notice of the round")
    kill_before_the_receipt(aggregator, mirrors, fleet, home_port, processes)
    for mirror in mirrors:
        wait_until(lambda: fleet_of(mirror)["contributions"] == 1, "receipt")
    # What was acknowledged is in the database.
    aggregator.kill()
    aggregator.serve(processes)
    wait_until(lambda: "published" in json.dumps(aggregator.round(1)["phase"]), "publication", 480)
    finished = aggregator.round(1)
    assert finished["tally"]["counted"] == 2 and not finished["tally"]["refused"], finished
    for mirror in mirrors:
        wait_until(lambda: fleet_of(mirror)["model"] == 2, "model of the fleet", 480)
        privacy = ask(mirror, "/api/learning")["privacy"]
        assert (privacy["waiting"], privacy["published"], privacy["burnt"]) == (0, 1, 0), privacy
        ledger = json.loads(subprocess.run([mirror.binary, "privacy", "ledger", "--verify", "--json"], check=True,
                                           capture_output=True, env=mirror.environment, timeout=COMMAND).stdout)
        assert ledger["epsilon"] == privacy["spent"]["epsilon"] > 0, (ledger["epsilon"], privacy["spent"])
        print(f"spent: epsilon {privacy['spent']['epsilon']} at delta {privacy['spent']['delta']}")
    print(aggregator.command("audit", "verify").strip())

    broker.stop()
    wait_until(lambda: not fleet_of(mirrors[0])["connected"], "loss of the broker")
    ask(mirrors[0], "/api/camera", {"on": True})
    mirrors[0].wait_for_overlays(mirrors[0].state()["counters"]["overlays"] + 20)
    broker.start()
    wait_until(lambda: fleet_of(mirrors[0])["connected"], "return to the broker", 120)

    for mirror, name in zip(mirrors, NAMES):
        press(home_port, f"mirror-home/{name}/set/take_part", "OFF")
        wait_until(lambda: not takes_part(mirror), "withdrawal from Home Assistant")
    state = json.loads(home.last("mirror-home/mirror-1/state"))
    assert state["rounds"] == 1 and state["model"] == "2" and state["last_update"], state
    check_topics(fleet)
    searched = check_pictures([fleet, home], pieces)
    print(f"{searched} messages at both brokers: none of {len(pieces)} pieces of pictures, no name in an update's topic")


def updates(ear: Ear) -> list[tuple[str, bytes]]:
    return [(topic, payload) for topic, _, payload in list(ear.heard) if "/fl/update/" in topic]


def kill_before_the_receipt(aggregator, mirrors, fleet, home_port, processes) -> None:
    """The server dies, a mirror sends its update and dies as well, and says the same again when it is back."""
    aggregator.kill()
    wait_until(lambda: len({topic for topic, _ in updates(fleet)}) == 2, "updates of both mirrors", WINDOW + 60)
    one, two = mirrors
    two.process.kill()
    two.process.wait(10)
    # From here on only the other one speaks: nobody can tell whose an update is.
    one.process.send_signal(signal.SIGSTOP)
    try:
        keep_giant(home_port)
        time.sleep(1)
        before = updates(fleet)
        two.start()
        wait_until(lambda: len(updates(fleet)) > len(before), "the update once more", WINDOW + 60)
        assert updates(fleet)[-1] in before, "another update for one round"
    finally:
        one.process.send_signal(signal.SIGCONT)
    aggregator.serve(processes)


def keep_giant(port: int) -> None:
    """Somebody has the home's broker keep more than a mirror takes where it listens: it comes with every subscription."""
    subprocess.run(["mosquitto_pub", "-V", "mqttv5", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-r", "-s",
                    "-t", "mirror-home/mirror-2/set/take_part"], input=GIANT, check=True, timeout=START)


def check_connections(log: pathlib.Path) -> None:
    """Nobody came to the home's broker again and again: once, and once more after a start or a pause."""
    words = log.read_text()
    for name in NAMES:
        came = sum(f" as mirror-home-{name} " in line for line in words.splitlines())
        assert 1 <= came <= 2, f"{name} connected {came} times"


if __name__ == "__main__":
    sys.exit(main())

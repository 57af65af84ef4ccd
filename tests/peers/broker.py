"""The sample broker (board/broker) as it stands: TLS, access list and limits, asked with mosquitto's own clients.

Only the folder of the certificates, the folder of the store and the port are put elsewhere. Needs mosquitto,
mosquitto-clients and openssl; run it from the project's root: python3 tests/peers/broker.py
"""

import contextlib
import os
import pathlib
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time

from running import START, free_port, within

SAMPLE = pathlib.Path("board/broker")
NAME = "00112233445566778899aabbccddeeff"
# Mirrors whose status the broker keeps, as many as may connect; and the longest status that a mirror sends.
MIRRORS, STATUS = 5000, b"s" * 128
# For so long a status is kept here.
SECONDS = 3
# Messages that one mirror has the broker keep in a worker's lane, more than find room in a client's queue.
KEPT = 7000
# Bytes that find room in a client's queue, and a message that has to share it with others.
QUEUE, PART = 2097152, b"p" * 16000


def openssl(*arguments):
    subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, timeout=START)


def authority(folder, name):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem")


def certificate(folder, ca, name):
    extension = folder / "extension"
    extension.write_text("subjectAltName=IP:127.0.0.1\n")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/O=fleet/CN={name}",
            "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.csr")
    openssl("x509", "-req", "-days", "2", "-in", folder / f"{name}.csr", "-CA", folder / f"{ca}.pem",
            "-CAkey", folder / f"{ca}.key", "-CAcreateserial", "-extfile", extension, "-out", folder / f"{name}.pem")


def revoked(folder, ca):
    """The authority's list of revoked certificates, with nothing on it."""
    (folder / "index").write_text("")
    (folder / "revoke").write_text(f"[ca]\ndefault_ca = fleet\n[fleet]\ndatabase = {folder}/index\ndefault_md = sha256\ndefault_crl_days = 2\n")
    openssl("ca", "-config", folder / "revoke", "-gencrl", "-cert", folder / f"{ca}.pem", "-keyfile", folder / f"{ca}.key",
            "-out", folder / "revoked.pem")


def placed(text, port, servers):
    """The sample with its two listeners elsewhere, both on this machine."""
    return text.replace("listener 8883", f"listener {port} 127.0.0.1").replace("listener 8884", f"listener {servers}")


def listens(port):
    """Whether somebody listens at a port of this machine."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def start_mosquitto(configuration, port, log):
    """mosquitto with a configuration, once it listens at `port`; `SystemExit` with its words where it does not."""
    with open(log, "a") as words:
        process = subprocess.Popen(["mosquitto", "-c", configuration], stdout=words, stderr=words)
    deadline = time.monotonic() + START
    while process.poll() is None and time.monotonic() < deadline:
        if listens(port):
            return process
        time.sleep(0.05)
    process.kill()
    process.wait(10)
    raise SystemExit("mosquitto did not start:\n" + log.read_text())


class Broker:
    def __init__(self, folder, connections=10000):
        self.folder, self.port, self.servers = folder, free_port(), free_port()
        text = placed((SAMPLE / "mosquitto.conf").read_text(), self.port, self.servers)
        text = text.replace("/etc/mosquitto/fleet", str(folder)) + f"persistence_location {folder}/store/\n"
        text = text.replace("max_connections 10000", f"max_connections {connections}")
        (folder / "acl").write_text((SAMPLE / "acl").read_text())
        (folder / "store").mkdir(exist_ok=True)
        revoked(folder, "ca")
        # mosquitto gives up root for a user of its own, who must reach the folder.
        user = f"user {'root' if os.geteuid() == 0 else 'mosquitto'}\n"
        (folder / "mosquitto.conf").write_text(text + user)
        self.start()

    def start(self):
        self.process = start_mosquitto(self.folder / "mosquitto.conf", self.servers, self.folder / "log")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)

    def door(self, who):
        """The port that is for whoever has this certificate."""
        return self.servers if who == "aggregator" else self.port

    def client(self, program, who, *arguments, ca="ca", seconds=10):
        command = [program, "-V", "mqttv5", "-h", "127.0.0.1", "-p", self.door(who), "-q", "1",
                   "--cafile", self.folder / f"{ca}.pem"]
        if who:
            command += ["--cert", self.folder / f"{who}.pem", "--key", self.folder / f"{who}.key"]
        command = list(map(str, [*command, *arguments]))
        return subprocess.run(command, capture_output=True, timeout=seconds)

    def reaches(self, sender, topic, reader, payload=b"x", retained=False, seconds=10):
        """Whether what `sender` publishes to `topic` arrives at `reader`, who subscribes to that very topic."""
        # Line by line: into a pipe it would keep its words to itself.
        listen = ["stdbuf", "-oL", "mosquitto_sub", "-V", "mqttv5", "-h", "127.0.0.1", "-p", self.door(reader), "-q", "1", "-t", topic,
                  "-C", "1", "-d", "-F", "heard %l", "--cafile", self.folder / "ca.pem",
                  "--cert", self.folder / f"{reader}.pem", "--key", self.folder / f"{reader}.key"]
        with subprocess.Popen(list(map(str, listen)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as sub:
            # A topic that the reader may not have is answered with a refusal, and then nothing comes.
            with within(sub, f"answer to a subscription of {reader} to {topic}"):
                for line in sub.stdout:
                    if line.startswith("Subscribed"):
                        break
            (self.folder / "payload").write_bytes(payload)
            extra = ["-r"] if retained else []
            self.client("mosquitto_pub", sender, "-t", topic, "-f", self.folder / "payload", *extra)
            try:
                said, _ = sub.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                sub.terminate()
                said, _ = sub.communicate(timeout=10)
        return f"heard {len(payload)}" in said.splitlines()

    @contextlib.contextmanager
    def connection(self, who, name, session=0):
        """A connection with the certificate of `who`, under the client id `name`, that the broker has welcomed. Its session is kept
        for `session` seconds, and goes on with the next one."""
        context = ssl.create_default_context(cafile=self.folder / "ca.pem")
        context.load_cert_chain(self.folder / f"{who}.pem", self.folder / f"{who}.key")
        with socket.create_connection(("127.0.0.1", self.door(who)), timeout=10) as plain, \
                context.wrap_socket(plain, server_hostname="127.0.0.1") as stream:
            flags, properties = (b"\0", b"\x11" + session.to_bytes(4, "big")) if session else (b"\2", b"")
            stream.sendall(packet(0x10, b"\0\4MQTT\5" + flags + b"\0\0" + bytes([len(properties)]) + properties + text(name)))
            welcome = stream.recv(1024)
            if not welcome.startswith(b"\x20") or welcome[3] != 0:
                raise ConnectionError(f"not welcomed: {welcome.hex()}")
            yield stream

    def leave(self, who, topic, session):
        """Subscribes `who` to a topic, and goes without a word; the broker keeps the session for `session` seconds."""
        with self.connection(who, who, session) as stream:
            stream.sendall(packet(0x82, b"\0\1\0" + text(topic) + b"\1"))
            assert stream.recv(1024)[0] == 0x90, "no answer to a subscription"

    def keep(self, who, topics, payload):
        """Has the broker keep a message on each of these topics, over one connection."""
        with self.connection(who, "keeps") as stream:
            for topic in topics:
                # QoS 1 as mirrors send it, retained, no properties; at QoS 0 the broker would queue nothing.
                stream.sendall(packet(0x33, text(topic) + b"\0\1" + b"\0" + payload))
                assert stream.recv(1024)[0] == 0x40, "no acknowledgement"

    def worker_hears(self, filters, silence=5, session=0):
        """The topics of what the broker had kept, for a session that subscribes as the first worker does: to who is there, with
        all that was kept, then to a lane, with nothing of it. Listens until nothing has come for `silence` seconds."""
        topics, rest = [], b""
        with self.connection("aggregator", "worker", session) as stream:
            # Of a subscription's options the lowest bit is QoS 1, and 0x20 keeps back what was kept before.
            for number, (topic, options) in enumerate(filters, 1):
                stream.sendall(packet(0x82, bytes([0, number, 0]) + text(topic) + bytes([options])))
            stream.settimeout(silence)
            with contextlib.suppress(TimeoutError):
                while received := stream.recv(65536):
                    rest += received
                    while whole := first_packet(rest):
                        kind, body, rest = whole
                        if kind >> 4 == 3:
                            length = int.from_bytes(body[:2], "big")
                            topics.append(body[2:2 + length].decode())
                            stream.sendall(packet(0x40, body[2 + length:4 + length]))
            return topics

    def statuses(self, count):
        """How many retained statuses somebody hears who subscribes as the first worker does; waits for `count` of them."""
        heard = self.client("mosquitto_sub", "aggregator", "-t", "mirror/v1/+/status", "-F", "%l", "-C", count, "-W", "15", seconds=30)
        return len(heard.stdout.split())


def text(words):
    return len(words).to_bytes(2, "big") + words.encode()


def packet(kind, body):
    low, high = len(body) % 128, len(body) // 128
    return bytes([kind, low | 128, high] if high else [kind, low]) + body


def first_packet(data):
    """Kind, body and what follows of the first whole packet; None while there is none."""
    length, shift = 0, 0
    for place, byte in enumerate(data[1:5], 1):
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            end = place + 1 + length
            return (data[0], data[place + 1:end], data[end:]) if len(data) >= end else None
    return None


def one_certificate(broker, check):
    """A broker with room for few: who has one certificate has one connection, and the aggregator always gets in."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(broker.connection("mirror-1", f"name-{number}")) for number in range(20)]
        closed = 0
        for stream in held:
            stream.settimeout(0.5)
            try:
                # What ends a connection is said first (DISCONNECT), or it just ends.
                closed += stream.recv(1024)[:1] in (b"", b"\xe0")
            except TimeoutError:
                pass
            except OSError:
                closed += 1
        check(f"of 20 connections of one certificate {20 - closed} holds", closed == 19)
        for name in ("mirror-2", "aggregator", "aggregator"):
            stack.enter_context(broker.connection(name, f"{name}-{len(held)}"))
            held.append(name)
        check("another mirror gets in, and the aggregator with two connections", True)


def main():
    failures = []

    def check(what, holds):
        print(("ok    " if holds else "WRONG ") + what)
        if not holds:
            failures.append(what)

    with tempfile.TemporaryDirectory(prefix="mirror-broker-") as text:
        folder = pathlib.Path(text)
        authority(folder, "ca")
        authority(folder, "stranger")
        for name in ["broker", "aggregator", "mirror-1", "mirror-2"]:
            certificate(folder, "ca", name)
        certificate(folder, "stranger", "mirror-3")
        broker = Broker(folder)
        try:
            update = f"mirror/v1/{NAME}/fl/update/5/0"
            allowed = [
                ("mirror-1", "mirror/v1/mirror-1/status", "aggregator"),
                ("mirror-1", f"mirror/v1/mirror-1/jobs/{NAME}/state", "aggregator"),
                ("mirror-1", "mirror/v1/mirror-1/model/wanted", "aggregator"),
                ("mirror-1", update, "aggregator"),
                ("mirror-1", f"mirror/v1/{NAME}/fl/lane/2/5/1", "aggregator"),
                ("aggregator", f"mirror/v1/{NAME}/fl/receipt", "mirror-1"),
                ("aggregator", f"mirror/v1/{NAME}/fl/wanted", "mirror-1"),
                ("aggregator", "mirror/v1/mirror-1/jobs/notify", "mirror-1"),
                ("aggregator", "mirror/v1/mirror-1/model/chunk/4/0", "mirror-1"),
                ("aggregator", "mirror/v1/fleet/stable/round", "mirror-1"),
                ("aggregator", "mirror/v1/fleet/stable/model/manifest", "mirror-1"),
            ]
            for sender, topic, reader in allowed:
                check(f"{sender} -> {topic} -> {reader}", broker.reaches(sender, topic, reader))
            refused = [
                ("mirror-1", "mirror/v1/mirror-2/status", "aggregator"),
                ("mirror-1", "mirror/v1/fleet/stable/round", "mirror-2"),
                ("mirror-1", "mirror/v1/fleet/stable/model/manifest", "mirror-2"),
                ("mirror-1", f"mirror/v1/{NAME}/fl/receipt", "mirror-2"),
                ("mirror-1", "mirror/v1/mirror-2/jobs/notify", "mirror-2"),
                ("aggregator", "mirror/v1/mirror-1/jobs/notify", "mirror-2"),
                ("mirror-1", update, "mirror-2"),
                ("mirror-1", "anything/else", "mirror-2"),
            ]
            for sender, topic, reader in refused:
                check(f"not {sender} -> {topic} -> {reader}", not broker.reaches(sender, topic, reader, seconds=2))
            largest = b"x" * 65536
            check("64 KiB pass", broker.reaches("mirror-1", update, "aggregator", largest))
            check("68 KiB do not", not broker.reaches("mirror-1", update, "aggregator", b"x" * 69632, seconds=2))
            stranger = broker.client("mosquitto_pub", "mirror-3", "-t", update, "-m", "x")
            check("a certificate of another authority is refused", stranger.returncode != 0)
            nobody = broker.client("mosquitto_pub", None, "-t", update, "-m", "x")
            check("no certificate is refused", nobody.returncode != 0)
            posing = broker.client("mosquitto_pub", "mirror-1", "-t", update, "-m", "x", ca="stranger")
            check("a client that expects another authority turns away", posing.returncode != 0)
            round_topic = "mirror/v1/fleet/stable/round"
            check("a notice is retained", broker.reaches("aggregator", round_topic, "mirror-1", b"notice", True))
            broker.stop()
            broker.start()
            again = broker.client("mosquitto_sub", "mirror-2", "-t", round_topic, "-C", "1", "-W", "9")
            check("and outlives a restart of the broker", again.stdout.strip() == b"notice")
            status = "mirror/v1/mirror-1/status"
            for_a_while = ["-t", status, "-m", "x", "-r", "-D", "publish", "message-expiry-interval", SECONDS]
            broker.client("mosquitto_pub", "mirror-1", *for_a_while)
            broker.stop()
            broker.start()
            time.sleep(SECONDS + 1)
            kept = broker.client("mosquitto_sub", "aggregator", "-t", status, "-C", "1", "-W", "2")
            check("what is retained for a while is gone after it, also where the broker restarts", not kept.stdout)
            everybody = [f"mirror/v1/device-{number}/status" for number in range(MIRRORS)]
            broker.keep("aggregator", everybody, STATUS)
            heard = broker.statuses(MIRRORS)
            check(f"who subscribes hears who is there: {heard} of {MIRRORS}", heard == MIRRORS)
            broker.keep("mirror-1", [f"mirror/v1/{NAME}/fl/lane/0/1/{number}" for number in range(KEPT)], b"x")
            heard = broker.worker_hears([("mirror/v1/+/status", 1), ("mirror/v1/+/fl/lane/0/#", 0x21)])
            statuses = sum(topic.endswith("/status") for topic in heard)
            check(f"also after {KEPT} messages that a mirror had it keep in a lane: {statuses} of {MIRRORS}",
                  statuses == len(heard) == MIRRORS)
            # While the aggregator is away, its session kept, half of the mirrors say once more that they are there.
            subscribed = [("mirror/v1/+/status", 1)]
            broker.worker_hears(subscribed, session=3600)
            broker.keep("aggregator", everybody[::2], STATUS)
            heard = len(set(broker.worker_hears(subscribed, session=3600)))
            check(f"also after half an hour in which it was away: {heard} of {MIRRORS}", heard == MIRRORS)
            # As the guide says it for a mirror that was revoked.
            clear = ["-t", "mirror/v1/mirror-1/#", "-t", "mirror/v1/+/fl/#", "--remove-retained", "--retained-only", "-W", "5"]
            broker.client("mosquitto_sub", "aggregator", *clear, seconds=60)
            broker.client("mosquitto_sub", "aggregator", *clear, seconds=60)
            left = broker.client("mosquitto_sub", "aggregator", "-t", "mirror/v1/+/fl/#", "--retained-only", "-F", "%t", "-W", "2")
            check(f"what it had kept can be cleared: {len(left.stdout.split())} left", not left.stdout)
            # One mirror's session ends while it is away; for another more comes than its session has room for.
            broker.leave("mirror-1", "mirror/v1/mirror-1/jobs/notify", session=1)
            broker.leave("mirror-2", "mirror/v1/mirror-2/jobs/notify", session=3600)
            broker.keep("aggregator", ["mirror/v1/mirror-2/jobs/notify"] * (QUEUE // len(PART) + 2), PART)
            time.sleep(6)
            broker.stop()
            logged = (folder / "log").read_text().splitlines()
            named = [line for line in logged if "mirror-" in line or "127.0.0.1" in line]
            check(f"the log, {len(logged)} lines, names no mirror and no address: {named}", not named)
            broker = Broker(folder, connections=8)
            one_certificate(broker, check)
        finally:
            broker.stop()
    print(f"{len(failures)} wrong")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())

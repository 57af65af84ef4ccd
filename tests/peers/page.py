"""The local page in a real browser: Chromium, driven over the WebDriver protocol.

usage: page.py [--mirror BINARY] [--out FOLDER]

Checks that the preview moves, that states, timings, settings and colours fill, that the camera switch works both ways, that
a double click switches once, that a late answer does not bring back what held before, that what the mirror tells of itself can be read,
that a page left open over a restart or an update shows what holds then, that a browser too many is told so, that an older browser
fills too, that nothing is wider than a phone, on which the camera's switch is in sight, and that the console stays free of errors.
Leaves desktop.png, off.png and phone.png for a person to look at. Needs the packages chromium and chromium-driver.
"""

import argparse
import base64
import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from running import RELEASE, ROOT, Mirror, wait_until, within

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
PHONE = (390, 844)
# Browsers that may watch at once.
VIEWERS = 4
# What the oldest browsers that the README names lack of this one, as far as its driver can do without.
YOUNGER = (
    "AbortSignal.timeout", "Array.prototype.at", "String.prototype.at", "Array.prototype.findLast", "Array.prototype.toSorted",
    "HTMLDialogElement.prototype.show", "HTMLDialogElement.prototype.showModal", "HTMLDialogElement.prototype.close",
    "self.OffscreenCanvas", "self.structuredClone", "self.reportError", "HTMLElement.prototype.showPopover", "Promise.withResolvers",
)
# Whether the camera's switch can be pressed.
PRESSABLE = "document.querySelector('#camera').getAttribute('aria-disabled') === 'false'"


class Browser:
    """One window of a headless Chromium."""

    def __init__(self) -> None:
        self.driver = subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True)
        try:
            self.open_window()
        except BaseException:
            self.driver.kill()
            self.driver.wait(timeout=30)
            raise

    def open_window(self) -> None:
        with within(self.driver, "port of chromedriver"):
            started = next((line for line in self.driver.stdout if "successfully on port" in line), None)
        assert started, f"chromedriver ended with {self.driver.wait()}"
        self.base = f"http://127.0.0.1:{started.split()[-1].rstrip('.')}"
        arguments = ["--headless=new", "--window-size=1280,1100", "--hide-scrollbars", "--disable-gpu"]
        if os.geteuid() == 0:
            # Chromium's sandbox refuses to run for root, as in a container.
            arguments.append("--no-sandbox")
        wanted = {"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}}
        answer = self.ask("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.base += f"/session/{answer['sessionId']}"

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.ask("DELETE", "")
        finally:
            self.driver.terminate()
            self.driver.wait(timeout=30)

    def ask(self, method: str, path: str, body: dict | None = None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data, {"content-type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.read().decode()[:500]}") from None

    def run(self, script: str):
        return self.ask("POST", "/execute/sync", {"script": f"return {script}", "args": []})

    def find(self, selector: str) -> str:
        return self.ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def text(self, selector: str) -> str:
        """As it is seen. Found and read by one script: a list may be made anew at any time."""
        return self.run(f"((one) => one.checkVisibility() ? one.innerText.trim() : '')(document.querySelector({json.dumps(selector)}))")

    def click(self, selector: str) -> None:
        """Once more where it was made anew after it was found."""
        try:
            self.ask("POST", f"/element/{self.find(selector)}/click", {})
        except RuntimeError as error:
            if "stale element" not in str(error):
                raise
            self.ask("POST", f"/element/{self.find(selector)}/click", {})

    def press(self, selector: str, count: int) -> None:
        """The first press of a double click is 1, and the second 2."""
        box = self.run("(({left, top, width, height}) => [left + width / 2, top + height / 2])"
                       f"(document.querySelector('{selector}').getBoundingClientRect())")
        for kind in ("mousePressed", "mouseReleased"):
            self.command("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=count)

    def shot(self, selector: str) -> bytes:
        return base64.b64decode(self.ask("GET", f"/element/{self.find(selector)}/screenshot"))

    def command(self, name: str, **parameters: object):
        return self.ask("POST", "/goog/cdp/execute", {"cmd": name, "params": parameters})

    @contextlib.contextmanager
    def being_older(self):
        """What is loaded meanwhile finds only what an older browser has."""
        source = "".join(f"delete {name};" for name in YOUNGER)
        added = self.command("Page.addScriptToEvaluateOnNewDocument", source=source)
        yield
        self.command("Page.removeScriptToEvaluateOnNewDocument", identifier=added["identifier"])

    def become_phone(self) -> None:
        """Shows the page as a phone does, on which nothing of it may be wider than the screen."""
        width, height = PHONE
        self.command("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2, mobile=True)
        wait_until(lambda: self.run("screen.width") == width, "window of a phone")
        time.sleep(1)
        wait_until(lambda: self.run("document.documentElement.scrollWidth") <= width, f"page as narrow as a phone of {width}")

    def save(self, path: Path) -> None:
        """The whole page, however long."""
        shot = self.command("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))
        print(f"saved {path}")

    def errors(self) -> list:
        """What the console holds since the last time. The page warns of an answer that came late, and asks again; a busy
        machine may be late twice."""
        log = self.ask("POST", "/se/log", {"type": "browser"})
        messages = [entry["message"] for entry in log if entry["level"] in ("SEVERE", "WARNING")]
        late = [message for message in messages if "TimeoutError" in message]
        return messages if len(late) > 2 else [message for message in messages if message not in late]


def pill(browser: Browser, text: str) -> None:
    wait_until(lambda: browser.text("#pill") == text, f"pill {text!r}, it says {browser.text('#pill')!r}")


def settle(browser: Browser) -> None:
    """The preview has its height: what is beneath it has its place."""
    pill(browser, "Running")
    wait_until(lambda: browser.run("preview.naturalWidth > 0 && !preview.hasAttribute('data-empty')"), "preview picture")


def ask_and_hold(browser: Browser, question: str) -> None:
    """The page asks the mirror, and hears what it answers to that only in `hear_late`."""
    browser.run(
        "(({ fetch }) => { window.fetch = async (path) => { const content = await (await fetch(path)).json();"
        f" return new Promise((hear) => {{ window.hear = () => hear(Response.json(content)); }}); }}; window.held = {question}();"
        " window.fetch = fetch; })(window)"
    )
    wait_until(lambda: browser.run("window.hear !== undefined"), f"answer to {question}")


def hear_late(browser: Browser, shown: str):
    """What is shown once the page has heard it."""
    return browser.run(f"(hear(), delete window.hear, held.then(() => {shown}))")


def check_filled(browser: Browser) -> None:
    settle(browser)
    wait_until(lambda: browser.text("#watching") == "Watching now: 1 browser", "number of those who watch")
    first = browser.shot("#preview")
    wait_until(lambda: browser.shot("#preview") != first, "movement in the preview")
    for stage in ("capture", "convert", "infer", "parse", "draw", "flip"):
        # A display that writes nothing flips in less time than the page can show.
        compare = ">=" if stage == "flip" else ">"
        cells = f"[...document.querySelectorAll('#stage-{stage} td.number')]"
        row = f"{cells}.length == 2 && {cells}.every(td => parseFloat(td.textContent) {compare} 0)"
        wait_until(lambda row=row: browser.run(row), f"time of {stage}")
    for what, least in (("#settings tr", 20), ("#parts li", 8), ("#states > div", 5)):
        wait_until(lambda what=what, least=least: browser.run(f"document.querySelectorAll('{what}').length") >= least, f"{least} of {what}")
    wait_until(lambda: browser.text("#fps") not in ("–", "0.0"), "pictures a second")


def check_camera(browser: Browser, mirror: Mirror, out: Path) -> None:
    wait_until(lambda: browser.run(f"preview.alt.startsWith('Camera picture') && {PRESSABLE}"), "the camera's picture and switch")
    browser.click("#camera")
    pill(browser, "Camera is off")
    assert mirror.state()["camera"]["state"] == "off"
    wait_until(lambda: browser.run("document.querySelector('#preview').hasAttribute('data-empty')"), "empty preview")
    wait_until(lambda: browser.text("#message-title") == "Camera is off", "words in place of the preview")
    wait_until(lambda: browser.text("#message-text").endswith("The device is closed."), "word of the closed device")
    assert browser.run("preview.alt === '' && getComputedStyle(preview).visibility === 'hidden'"), "a picture is told of, and there is none"
    browser.save(out / "off.png")
    wait_until(lambda: browser.run(PRESSABLE), "the camera's switch")
    browser.click("#camera")
    settle(browser)
    wait_until(lambda: mirror.state()["camera"]["state"] == "on", "camera that is on again")


def check_double_click(browser: Browser, mirror: Mirror) -> None:
    """It switches once, also where the second press comes when the switch can be pressed again."""
    for wanted in (False, True):
        browser.run("document.querySelector('#camera').scrollIntoView({block: 'center'})")
        wait_until(lambda: browser.run(PRESSABLE), "the camera's switch")
        browser.press("#camera", 1)
        wait_until(lambda wanted=wanted: mirror.state()["camera_wanted"] == wanted, f"camera_wanted {wanted}")
        wait_until(lambda: browser.run(PRESSABLE), "the camera's switch")
        browser.press("#camera", 2)
        time.sleep(1)
        assert mirror.state()["camera_wanted"] == wanted, "a double click switches twice"
    settle(browser)


def check_late(browser: Browser, mirror: Mirror) -> None:
    """What the mirror said before the camera was switched off, and says late, does not show it as on again."""
    wait_until(lambda: browser.run(PRESSABLE), "the camera's switch")
    ask_and_hold(browser, "refresh")
    browser.click("#camera")
    pill(browser, "Camera is off")
    shown = "[document.querySelector('#camera').getAttribute('aria-checked'), document.querySelector('#pill').textContent]"
    assert hear_late(browser, shown) == ["false", "Camera is off"], "an earlier state in place of a later one"
    wait_until(lambda: browser.run(PRESSABLE), "the camera's switch")
    browser.click("#camera")
    wait_until(lambda: mirror.state()["camera"]["state"] == "on", "camera that is on again")
    settle(browser)


def is_on_top(browser: Browser, selector: str) -> bool:
    """Whether it can be seen, and nothing lies over it."""
    return browser.run(
        f"((one) => {{ one.scrollIntoView({{block: 'center'}}); const {{left, top, width, height}} = one.getBoundingClientRect();"
        " return width > 0 && document.elementFromPoint(left + width / 2, top + height / 2) === one; })"
        f"(document.querySelector('{selector}'))"
    )


def check_told(browser: Browser) -> None:
    """What the mirror tells of itself can be read, and that it does not answer. This one has nothing to tell: the page hears it for a while."""
    def told() -> tuple:
        return browser.text("#pill"), browser.text("#message-title"), browser.text("#message-text")

    expected = {
        "closing": ("Camera is off", "Camera is off", "Switched off. The device is being closed."),
        "closed": ("Camera is off", "Camera is off", "Switched off. The device is closed."),
        "lost": ("Camera lost", "No picture from the camera", "It was unplugged"),
        "failed": ("Cannot see", "The mirror cannot see", "Its file is damaged"),
    }
    off, on = {"state": "off", "text": "Switched off"}, {"state": "on", "text": "Open"}
    for name, other in (
        ("closing", {"camera": off, "camera_active": True}),
        ("closed", {"camera": off, "camera_active": False}),
        ("lost", {"camera": {"state": "lost", "text": "It was unplugged"}, "camera_active": False}),
        ("failed", {"camera": on, "camera_active": True, "model": {"state": "failed", "text": "Its file is damaged"}}),
    ):
        answer_otherwise(browser, notices=[f"A notice: {name}"], **other)
        wait_until(lambda name=name: told() == expected[name], f"{expected[name]}, the page says {told()}")
        wait_until(lambda name=name: browser.text("#notices") == f"A notice: {name}", "a notice")
        assert is_on_top(browser, "#notices p"), "nobody sees the notice"
        assert is_on_top(browser, "#badge") == other["camera_active"], f"{name}: the badge says something else than the mirror"
    browser.run("(window.fetch = () => Promise.reject(new TypeError('lost')), 0)")
    wait_until(lambda: told()[:2] == ("No answer", "The mirror does not answer"), "word of a mirror that is away")
    assert "this page keeps asking" in told()[2], told()
    assert not is_on_top(browser, "#badge"), "the badge of a mirror that says nothing"
    assert not browser.run(PRESSABLE), "a switch that nobody hears"
    browser.run("(window.fetch = whole, 0)")
    settle(browser)
    wait_until(lambda: "A notice" not in browser.text("#notices"), "the end of the notice")
    errors = [error for error in browser.errors() if "cannot be reached" not in error]
    assert not errors, errors


def answer_otherwise(browser: Browser, **other: object) -> None:
    """The page hears this of the mirror's state instead."""
    browser.run(
        "(window.whole = window.whole || fetch, window.fetch = (path, options) => whole(path, options).then((answer) =>"
        f" path !== '/api/state' ? answer : answer.json().then((state) => Response.json({{...state, ...{json.dumps(other)}}}))), 0)"
    )


def check_restart(browser: Browser, mirror: Mirror) -> None:
    """Settings are asked for anew from a mirror that started anew; the page of another version is loaded, though not over a question."""
    rows = "document.querySelectorAll('#settings tr').length"
    browser.run("(document.querySelector('#settings').replaceChildren(), 0)")
    time.sleep(3)
    assert browser.run(rows) == 0, "settings are asked for again and again"
    uptime = mirror.state()["uptime_s"]
    answer_otherwise(browser, uptime_s=uptime + 1000)
    wait_until(lambda: browser.run(rows) >= 20, "settings after a restart")
    browser.run("(window.marked = 1, document.querySelector('#delete-sure').showModal(), 0)")
    answer_otherwise(browser, version="another")
    time.sleep(3)
    assert browser.run("window.marked === 1"), "the page goes while somebody answers"
    browser.run("(document.querySelector('#delete-sure').close(), 0)")
    wait_until(lambda: browser.run("window.marked === undefined"), "the other version's page")
    settle(browser)


def watch(mirror: Mirror, streams: list) -> int:
    """Opens one more stream if there is room; how many there are."""
    try:
        streams.append(urllib.request.urlopen(f"{mirror.url}/preview.mjpg", timeout=30))
    except urllib.error.HTTPError as error:
        assert error.code == 503, error
    return len(streams)


def check_one_too_many(browser: Browser, mirror: Mirror) -> None:
    """Where others watch already the page says so, and goes on when there is room again."""
    browser.click("#pause")
    wait_until(lambda: browser.run("!preview.hasAttribute('src')"), "pause")
    others = []
    wait_until(lambda: watch(mirror, others) == VIEWERS, "room for others after the pause")
    browser.click("#pause")
    wait_until(lambda: "watching already" in browser.text("#message-text"), "words on the other browsers")
    wait_until(lambda: browser.text("#watching") == f"Watching now: {VIEWERS} browsers", "number of those who watch")
    for other in others:
        other.close()
    wait_until(lambda: browser.run("preview.naturalWidth > 0"), "preview after the others have left")
    errors = browser.errors()
    assert errors and all("503" in error for error in errors), errors


def check_older(browser: Browser, url: str) -> None:
    with browser.being_older():
        browser.ask("POST", "/url", {"url": url + "/"})
        assert browser.run("[].at === undefined && AbortSignal.timeout === undefined"), "no older browser"
        check_filled(browser)
        shown = browser.run("[...document.querySelectorAll('dialog')].filter((dialog) => dialog.offsetParent !== null).length")
        assert shown == 0, "questions stand in the page"


def check_phone(browser: Browser, url: str, out: Path) -> None:
    browser.become_phone()
    browser.ask("POST", "/url", {"url": url + "/"})
    settle(browser)
    bottom = browser.run("document.querySelector('#camera').getBoundingClientRect().bottom")
    assert bottom < PHONE[1] / 2, f"the camera's switch is {bottom:.0f} pixels down"
    assert not browser.run("[...document.querySelectorAll('.aside details')].some((card) => card.open)"), "figures push the rest down"
    browser.save(out / "phone.png")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=RELEASE)
    parser.add_argument("--out", type=Path, default=ROOT / "target/page")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with Mirror(args.mirror, "--display", "headless") as mirror, Browser() as browser:
        browser.ask("POST", "/url", {"url": mirror.url + "/"})
        check_filled(browser)
        browser.save(args.out / "desktop.png")
        check_camera(browser, mirror, args.out)
        check_double_click(browser, mirror)
        check_late(browser, mirror)
        check_told(browser)
        check_restart(browser, mirror)
        errors = browser.errors()
        check_one_too_many(browser, mirror)
        check_older(browser, mirror.url)
        check_phone(browser, mirror.url, args.out)
        errors += browser.errors()
        assert not errors, errors
    print("the page shows a moving preview, fills, switches the camera, and reports no error")
    return 0


if __name__ == "__main__":
    sys.exit(main())

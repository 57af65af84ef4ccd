"""Learning at home in a real browser: Chromium on the network's door, paired, and what an unpaired one gets.

usage: page_learning.py [--mirror BINARY] [--out FOLDER]

Pairs with the code that `mirror pair` prints, agrees, discards a picture, has one taken away by the mirror, corrects others with mouse,
touch and keyboard, deletes one, trains, reads the epsilon and compares it with `mirror privacy ledger`, withdraws, deletes, signs out,
and removes all browsers. Checks names, contrast and width, that late answers change nothing, and that an older browser
asks and corrects as well. Leaves pictures for a person to look at. Needs the packages chromium and chromium-driver.
"""

import argparse
import json
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from page import PRESSABLE, Browser, ask_and_hold, hear_late, settle
from running import RELEASE, ROOT, Mirror, wait_until

NO_CHECK = ssl._create_unverified_context()
# Everything that a paired browser can ask for.
PATHS = [
    "/preview.mjpg", "/api/state", "/api/settings", "/api/access", "/api/learning", "/metrics", "/page.js", "/learn.js",
    "/learn.css", "/correct.js", "/access.js",
    "/api/frozen/1/picture.png", "/api/frozen/1/parts", "/api/corrections/0/picture.png", "/api/corrections/0/mask.png",
]
# Everything that anybody can ask for.
OPEN = ["/", "/page.css", "/call.js", "/pair.js", "/icon.svg", "/healthz"]
# How JPEG, PNG, GIF and RIFF begin.
PICTURES = [b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF"]


def get(url: str, method: str = "GET") -> tuple[int, bytes, bytes]:
    headers = {"x-mirror-change": "1"}
    body = b"" if method == "POST" else None
    request = urllib.request.Request(url, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30, context=NO_CHECK) as answer:
            return answer.status, answer.read(), str(answer.headers).encode()
    except urllib.error.HTTPError as error:
        return error.code, error.read(), str(error.headers).encode()


def network_door(mirror: Mirror) -> str:
    """It is opened after the device's own: its certificate has to be on the disk first."""
    def asked() -> str | None:
        return json.loads(get(mirror.url + "/api/access")[1])["network"]

    wait_until(lambda: asked() is not None, "door to the home network")
    return asked().rstrip("/")


def check_unpaired(url: str) -> None:
    for path in OPEN:
        status, body, head = get(url + path)
        assert status == 200, f"{path}: {status}"
        assert not any(magic in head + body for magic in PICTURES), f"{path} has picture bytes"
    for path in PATHS + ["/parse", "/api/freeze"]:
        method = "POST" if path in ("/parse", "/api/freeze") else "GET"
        status, body, head = get(url + path, method)
        assert status == 401, f"{path}: {status}"
        assert not any(magic in head + body for magic in PICTURES), f"{path} has picture bytes"
        assert len(body) < 200, f"{path}: {body[:300]}"


def pair(browser: Browser, mirror: Path, environment: dict, out: Path) -> None:
    wait_until(lambda: browser.run("document.querySelector('#begin') !== null"), "pairing page")
    browser.click("#begin")
    wait_until(lambda: "good for" in browser.text("#left"), "code on the screen")
    # A screen reader reads out what changes here: that there is a code, and not every second.
    browser.run("(window.said = 0, new MutationObserver(() => { said += 1; }).observe(document.querySelector('#shown'), {childList: true}))")
    time.sleep(2)
    assert browser.text("#shown") == "The mirror shows a code." and browser.run("said") == 0, browser.run("said")
    browser.save(out / "pairing.png")
    check_contrast(browser)
    shown = json.loads(subprocess.run([mirror, "pair", "--json"], env=environment, check=True, capture_output=True).stdout)
    wrong = "000000" if shown["code"] != "000000" else "000001"
    for code in (wrong, shown["code"]):
        browser.run("(document.querySelector('#code').value = '')")
        browser.type("#code", code)
        if code == wrong:
            browser.type("#name", "Test browser")
        browser.click("#form .primary")
        if code == wrong:
            wait_until(lambda: "not the code" in browser.text("#trouble"), "refusal of a wrong code")
    wait_until(lambda: browser.run("document.querySelector('#pill') !== null"), "the page after pairing")
    settle(browser)


class Window(Browser):
    """With typing, pointers and the learning page's own state."""

    def type(self, selector: str, text: str) -> None:
        self.ask("POST", f"/element/{self.find(selector)}/value", {"text": text})

    def learning(self) -> dict:
        script = "const done = arguments[0]; fetch('/api/learning').then((a) => a.json()).then(done, (e) => done(String(e)))"
        return self.ask("POST", "/execute/async", {"script": script, "args": []})

    def places(self, points: list[tuple[float, float]]) -> list[dict[str, int]]:
        """Where shares of the canvas' width and height are in the window, with the canvas in its middle. A click on
        anything else may scroll it away, so this is asked last."""
        self.run("paint.scrollIntoView({block: 'center'})")
        box = self.run("(({left, top, width, height}) => ({left, top, width, height}))(paint.getBoundingClientRect())")
        return [{"x": round(box["left"] + x * box["width"]), "y": round(box["top"] + y * box["height"])} for x, y in points]

    def drag(self, kind: str, points: list[tuple[float, float]]) -> None:
        """A real pointer over the canvas; points are shares of its width and height."""
        moves = [{"type": "pointerMove", "duration": 40, **place} for place in self.places(points)]
        steps = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        action = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}
        self.ask("POST", "/actions", {"actions": [action]})
        self.ask("DELETE", "/actions")

    def pixels(self, part: int) -> int:
        return self.run(f"editor.labels.filter((label) => label === {part}).length")


def agree(browser: Window, purpose: str, wanted: bool) -> None:
    selector = f"#purpose-{purpose} [role=switch]"
    # A click while the step before is under way is refused.
    wait_until(lambda: browser.run(f"!busy && document.querySelector('{selector}') !== null"), "consent switches")
    browser.run(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
    browser.click(selector)
    state = f"document.querySelector('{selector}').getAttribute('aria-checked')"
    wait_until(lambda: browser.run(state) == str(wanted).lower(), f"{purpose} to be {wanted}")


def check_late(browser: Window) -> None:
    """What the mirror said before a consent was taken back, and says late, does not show it as given again."""
    ask_and_hold(browser, "refreshLearning")
    agree(browser, "improve_my_mirror", False)
    shown = "document.querySelector('#purpose-improve_my_mirror [role=switch]').getAttribute('aria-checked')"
    assert hear_late(browser, f"[{shown}, hasAgreed('improve_my_mirror')]") == ["false", False], "an earlier answer in place of a later one"
    agree(browser, "improve_my_mirror", True)


def check_waiting(browser: Window, mirror: Mirror) -> None:
    """A picture that waits to be corrected is told of where it is not shown."""
    hint = "document.querySelector('#freeze-hint')"
    status, body, _ = get(f"{mirror.url}/api/freeze", "POST")
    assert status == 200, body
    wait_until(lambda: "waits to be corrected" in browser.text("#freeze-hint"), "word of the picture that waits")
    assert get(f"{mirror.url}/api/frozen/{json.loads(body)['id']}/discard", "POST")[0] == 204
    wait_until(lambda: browser.run(f"{hint}.hidden && {hint}.textContent === ''"), "the end of these words")


def check_no_fleet(browser: Window) -> None:
    box = "#purpose-contribute_to_fleet"
    assert browser.run(f"document.querySelector('{box} [role=switch]').disabled"), "there is no fleet to contribute to"
    assert "belongs to no fleet" in browser.text(f"{box} [data-since]"), browser.text(box)


def open_editor(browser: Window, is_well_placed=lambda: True) -> None:
    browser.run("document.querySelector('#freeze').scrollIntoView({block: 'center'})")
    wait_until(lambda: browser.run("!busy && !document.querySelector('#freeze').disabled"), "freeze button")
    browser.click("#freeze")
    wait_until(lambda: browser.run("editor.labels !== null && !document.querySelector('#editor').hidden"), "editor")
    assert is_well_placed(), "the editor opens elsewhere"
    browser.run("paint.scrollIntoView({block: 'center'})")
    time.sleep(0.3)


def correct(browser: Window, kind: str) -> None:
    open_editor(browser)
    browser.click("#palette [data-part='12']")
    before, mask = browser.pixels(12), browser.run("editor.labels.join()")
    browser.drag(kind, [(0.1, 0.1), (0.3, 0.12), (0.3, 0.3)])
    painted, painted_mask = browser.pixels(12), browser.run("editor.labels.join()")
    assert painted > before + 200, f"a {kind} painted {painted - before} pixels"
    share = browser.run("bytesOf(editor.undo) / editor.labels.length")
    assert share < 0.25, f"a stroke over a twentieth of the picture keeps {share} of it"
    browser.click("#undo-stroke")
    assert browser.run("editor.labels.join()") == mask, "undo"
    assert browser.run("document.activeElement.id") == "undo-stroke", "the keyboard's place is lost with the last step"
    browser.click("#redo-stroke")
    assert browser.run("editor.labels.join()") == painted_mask, "redo"


def save(browser: Window, count: int) -> None:
    browser.click("#save")
    stored = "document.querySelectorAll('#corrections li').length"
    wait_until(lambda: browser.run(stored) == count, f"{count} stored corrections")


def check_tools(browser: Window, out: Path) -> None:
    """Eraser, fill and the keyboard; the picture is not saved."""
    correct(browser, "mouse")
    painted = browser.pixels(12)
    browser.click("[data-tool='eraser']")
    browser.drag("pen", [(0.1, 0.1), (0.2, 0.1)])
    assert browser.pixels(12) < painted, "eraser"
    browser.click("[data-tool='fill']")
    browser.click("#palette [data-part='7']")
    before = browser.pixels(7)
    browser.drag("mouse", [(0.3, 0.3)])
    assert browser.pixels(7) > before + 100, "fill"
    browser.click("#palette [data-part='0']")
    filled = browser.pixels(7)
    browser.drag("mouse", [(0.3, 0.3)])
    assert browser.pixels(7) < filled - 100, "an area where nobody is stays somebody's"
    browser.click("#undo-stroke")
    browser.click("[data-tool='brush']")
    browser.click("#palette [data-part='3']")
    browser.run("paint.focus()")
    before = browser.run("editor.labels.join()")
    browser.type("#paint", "\ue012\ue012\ue013\ue00d")
    wait_until(lambda: browser.run("editor.labels.join()") != before, "a stroke of the keyboard")
    browser.run("paint.scrollIntoView({block: 'center'})")
    browser.save(out / "editor.png")


def answer(browser: Browser, question: str, pressed: str) -> None:
    """Waits for a question, and presses this of its buttons."""
    wait_until(lambda: browser.run(f"document.querySelector('{question}').open"), f"question {question}")
    browser.click(f"{question} {pressed}")


def check_discard(browser: Window, mirror: Mirror) -> None:
    """A discarded picture is forgotten by the mirror as well; whoever has painted on it is asked first."""
    for paints in (False, True):
        open_editor(browser)
        picture = f"{mirror.url}/api/frozen/{browser.run('editor.id')}/picture.png"
        assert get(picture)[0] == 200, "no frozen picture"
        if paints:
            browser.click("#palette [data-part='12']")
            browser.drag("mouse", [(0.1, 0.1), (0.3, 0.12)])
            browser.click("#discard")
            answer(browser, "#discard-sure", "[autofocus]")
            assert browser.pixels(12) > 200 and get(picture)[0] == 200, "what was painted is gone"
        browser.click("#discard")
        if paints:
            answer(browser, "#discard-sure", ".danger")
        wait_until(lambda picture=picture: get(picture)[0] == 410, "the end of a discarded picture")
        assert browser.run("document.querySelector('#editor').hidden")
        wait_until(lambda: "Nothing was stored" in browser.text("#learn-message"), "word of the end")


def check_forgotten(browser: Window, mirror: Mirror) -> None:
    """What the mirror has forgotten does not stay on the page, and who works on a picture does not lose it."""
    # Nothing but the opening itself switches the button off.
    browser.run("(window.own = showLearning, window.showLearning = () => {}, 0)")
    open_editor(browser)
    picture = browser.run("editor.id")
    assert browser.run("document.querySelector('#freeze').disabled"), "a second picture in place of an open one"
    browser.run("(window.showLearning = own, 0)")
    status, body, _ = get(f"{mirror.url}/api/freeze", "POST")
    assert status == 409 and b"another page" in body, (status, body)
    assert get(f"{mirror.url}/api/frozen/{picture}/discard", "POST")[0] == 204
    wait_until(lambda: browser.run("document.querySelector('#editor').hidden && editor.picture === null"), "the end of the editor")
    assert "forgotten" in browser.text("#learn-message")
    assert is_in_sight(browser, "#learn-message"), "nobody sees why"


def check_withdrawn(browser: Window) -> None:
    """An open picture goes with the consent, and the answer to that stays on the page."""
    open_editor(browser)
    agree(browser, "improve_my_mirror", False)
    wait_until(lambda: browser.run("!busy && document.querySelector('#editor').hidden"), "the end of the editor")
    time.sleep(3)
    said = browser.text("#learn-message")
    assert said and "does not hold" not in said, said
    agree(browser, "improve_my_mirror", True)


def check_double_click(browser: Window) -> None:
    """On a switch that is on it takes the consent back, and does not give it again."""
    selector = "#purpose-improve_my_mirror [role=switch]"
    is_off = f"!busy && document.querySelector('{selector}').getAttribute('aria-checked') === 'false'"
    browser.run(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
    browser.press(selector, 1)
    wait_until(lambda: browser.run(is_off), "the end of the consent")
    browser.press(selector, 2)
    time.sleep(1)
    assert browser.run(is_off), "a double click agrees again"
    agree(browser, "improve_my_mirror", True)


def save_without_an_answer(browser: Window, count: int) -> None:
    """The mirror stores the picture, and the page hears of that later only."""
    browser.run(
        "(window.answers = 0, window.whole = fetch, window.fetch = (path, options) => whole(path, options).then((answer) => {"
        " if (!path.endsWith('/save') || (answers += 1) > 2) return answer; throw new TypeError('lost'); }), 0)"
    )
    save(browser, count)
    wait_until(lambda: f"Correction {count} was saved" in browser.text("#learn-message"), "word of the saving")
    assert browser.run("document.querySelector('#editor').hidden && answers === 3"), "saved otherwise"
    browser.run("(window.fetch = whole, 0)")


def is_in_sight(browser: Browser, selector: str) -> bool:
    box = f"document.querySelector('{selector}').getBoundingClientRect()"
    return browser.run(f"(({{top, bottom}}) => top >= 0 && bottom <= innerHeight && bottom > top)({box})")


def check_access(browser: Window) -> None:
    """Every control has a name, and every text enough contrast."""
    nameless = browser.run(
        "[...document.querySelectorAll('button, input, canvas, [role=meter]')].filter((e) => e.offsetParent !== null)"
        ".filter((e) => !(e.textContent.trim() || e.getAttribute('aria-label') || (e.labels && e.labels.length))).map((e) => e.id)"
    )
    assert not nameless, f"without a name: {nameless}"
    check_contrast(browser)


def check_contrast(browser: Browser) -> None:
    """In light and in dark."""
    for scheme in ("light", "dark"):
        browser.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        poor = browser.run(CONTRAST)
        assert not poor, f"{scheme}: too little contrast: {poor}"
    browser.command("Emulation.setEmulatedMedia", features=[])


# WCAG 2.2, 1.4.3: 4.5 to 1; the ground is the nearest opaque one.
CONTRAST = """(() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (e) => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] === 1) return c; } return [255, 255, 255]; };
  const poor = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.offsetParent === null || e.closest(':disabled')) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) poor.push(`${e.tagName} ${e.id} ${e.textContent.trim().slice(0, 30)} ${ratio.toFixed(2)}`);
  }
  return poor;
})()"""


def train(browser: Window, out: Path) -> float:
    # The people of the demo scene are not in front of the mirror: it trains while they are shown.
    browser.run("document.querySelector('#train').scrollIntoView({block: 'center'})")
    browser.click("#train")
    wait_until(lambda: browser.learning()["training"]["last"] is not None, "end of the training", 480)
    last = browser.learning()["training"]["last"]
    print(f"trained: {last}")
    # No round of a fleet asked for an update, so no budget is spent; fleet_home.py goes on from there.
    epsilon = browser.learning()["privacy"]["spent"]["epsilon"]
    assert epsilon == 0 and "belongs to no fleet" in browser.text("#fleet"), browser.text("#fleet")
    wait_until(lambda: browser.text("#privacy-spent").startswith(f"{epsilon:.4f}"), "epsilon on the page")
    for word in ("household", "add or remove", "1e-5", "outside the device"):
        assert word in browser.text("#privacy-facts").replace("0.00001", "1e-5"), word
    browser.save(out / "trained.png")
    return epsilon


def check_budget(browser: Window) -> None:
    """What was spent is drawn. This household has spent nothing: what the page knows is set for a call."""
    wait_until(lambda: browser.run("learning !== null"), "what the mirror has learnt, on a page that was loaded anew")
    drawn = browser.run("""(() => {
        const before = learning;
        const { privacy } = before;
        learning = { ...before, privacy: { ...privacy, spent: { ...privacy.spent, epsilon: 3.5487 }, releases_left: 2 } };
        const bar = document.querySelector("#privacy-bar");
        try {
            showPrivacy();
            const texts = ["#privacy-spent", "#privacy-left"].map((id) => document.querySelector(id).textContent);
            return [...texts, bar.getAttribute("aria-valuenow"), bar.getAttribute("aria-valuetext"), bar.firstElementChild.style.width];
        } finally { learning = before; }
    })()""")
    assert drawn == ["3.5487 of 8", "2", "3.5487", "epsilon 3.5487 of 8 spent", "44.4%"], drawn


def check_one_press(browser: Window) -> None:
    """Neither a key that is held nor a double click deletes a correction: what one press does is ask. A deletion leaves the keyboard's
    place at the next one, and on no button."""
    count, question = "document.querySelectorAll('#corrections li').length", "document.querySelector('#correction-sure').open"
    before = browser.run(count)
    browser.run("document.querySelector('#corrections button').scrollIntoView({block: 'center'})")
    browser.run("document.querySelector('#corrections button').focus()")
    enter = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
    for number in range(20):
        browser.command("Input.dispatchKeyEvent", type="keyDown", autoRepeat=number > 0, **enter)
        time.sleep(0.1)
    browser.command("Input.dispatchKeyEvent", type="keyUp", **enter)
    assert browser.run(f"[{count}, {question}]") == [before, True], "a held key answers"
    browser.click("#correction-sure [autofocus]")
    # Where the second click of two meets the question's first button.
    browser.click("#corrections button")
    wait_until(lambda: browser.run(question), "question")
    browser.press("#correction-sure .danger", 2)
    time.sleep(1)
    assert browser.run(f"[{count}, {question}]") == [before, True], "a double click answers"
    answer(browser, "#correction-sure", ".danger")
    wait_until(lambda: browser.run(count) == before - 1, "the end of one correction")
    assert has_focus(browser, "#corrections li"), "the next press would delete one more"


def check_message(browser: Window) -> None:
    """A message that goes from the bar to its own place moves nothing, and what the bar covers can be scrolled from beneath it."""
    # From the card's own beginning: what is above it grows and shrinks as the camera comes back.
    top = "['#freeze', '#learn'].map((one) => document.querySelector(one).getBoundingClientRect().top).reduce((a, b) => a - b)"
    browser.run("(say('Said once, and then in its place.'), 0)")
    room = "parseFloat(document.body.style.paddingBottom) >= document.querySelector('#learn-message').offsetHeight"
    assert browser.run(room), "what the bar covers cannot be reached"
    before = browser.run(top)
    browser.click("#learn-message")
    assert not browser.run("document.querySelector('#learn-message').hasAttribute('data-fresh')")
    assert abs(browser.run(top) - before) < 1, "the page moves when the message goes to its place"


def check_not_ready(browser: Window) -> None:
    """Where there is nothing to show the card says why. Set for a call, as is an answer that does not come."""
    shown = "document.querySelector('#learn-trouble').textContent"
    words = browser.run(f"(showLearning({{state: 'opening', reason: 'learning at home is not ready yet'}}), {shown})")
    assert words == "Learning at home is not ready yet.", words
    # By one script: an answer that is under way comes after it.
    words = browser.run("(learning = null, window.whole = fetch, window.fetch = () => Promise.reject(new TypeError('lost')),"
                        f" refreshLearning().then(() => {{ window.fetch = whole; return {shown}; }}))")
    assert words == "The mirror cannot be reached.", words
    wait_until(lambda: browser.run(f"{shown} === '' && !document.querySelector('#learn-ready').hidden"), "the card as it was")
    hint = browser.run("""((state) => {
        try { showLearning({ ...state, no_freezing: "no camera" }); return [
            document.querySelector("#freeze").disabled, document.querySelector("#freeze-hint").textContent]; } finally { showLearning(state); }
    })(learning)""")
    assert hint == [True, "No camera."], hint
    words = browser.run(f"""((state) => {{
        try {{ showLearning({{ ...state, problems: ["A head is damaged", "no budget"] }}); return {shown}; }} finally {{ showLearning(state); }}
    }})(learning)""")
    assert words == "A head is damaged\nno budget", words
    errors = [error for error in browser.errors() if "cannot be reached" not in error and "/api/pairing" not in error]
    assert not errors, errors


def check_older(browser: Window, url: str) -> None:
    """An older browser, without dialogs, asks all the same, and corrects."""
    with browser.being_older():
        browser.ask("POST", "/url", {"url": url + "/"})
        count = "document.querySelectorAll('#corrections li').length"
        wait_until(lambda: browser.run(count) > 0, "stored corrections in an older browser")
        before = browser.run(count)
        wait_until(lambda: browser.run("document.querySelector('#browsers button') !== null"), "paired browsers in an older browser")
        settle(browser)
        for selector, words in (("#corrections button", "Delete correction"), ("#delete-all", "Delete everything"),
                                ("#browsers button", "Sign this browser out")):
            browser.run(f"document.querySelector('{selector}').scrollIntoView({{block: 'center'}})")
            browser.click(selector)
            asked = browser.ask("GET", "/alert/text")
            browser.ask("POST", "/alert/dismiss", {})
            assert words in asked, asked
        time.sleep(1)
        assert browser.run(count) == before, "what was kept is gone"
        correct(browser, "touch")
        browser.click("#discard")
        browser.ask("POST", "/alert/accept", {})
        wait_until(lambda: browser.run("editor.id === null"), "the end of the editor")
    browser.ask("POST", "/url", {"url": url + "/"})
    settle(browser)


def check_incomplete(browser: Window) -> None:
    """What could not be deleted is named. All of it can be: the page hears otherwise, and the mirror nothing."""
    proof = {"removed": ["consent"], "key_erased": True, "remaining": ["vault/x"], "left": [], "already_sent": 1, "given_up": 2}
    told = json.dumps({"complete": False, "proof": proof})
    browser.run("(window.whole = fetch, window.fetch = (path, options) => path !== '/api/learning/delete' ? whole(path, options)"
                f" : Promise.resolve(Response.json({told})), 0)")
    browser.run("document.querySelector('#delete-all').scrollIntoView({block: 'center'})")
    browser.click("#delete-all")
    answer(browser, "#delete-sure", ".danger")
    wait_until(lambda: browser.text("#learn-message").startswith("Not everything could be deleted."), "word of what is left")
    browser.run("(window.fetch = whole, 0)")
    assert browser.run("document.querySelector('#learn-message').hasAttribute('data-trouble')"), "a trouble that looks like none"
    facts = browser.text("#proof-facts")
    assert "vault/x" in facts and "1 update\n" in facts and "2 updates" in facts, facts


def withdraw_and_delete(browser: Window, out: Path) -> None:
    agree(browser, "improve_my_mirror", False)
    wait_until(lambda: "Training has stopped" in browser.text("#learn-message"), "words on the withdrawal")
    wait_until(lambda: browser.run("document.querySelector('#freeze').disabled"), "freeze to be refused")
    browser.run("document.querySelector('#delete-all').scrollIntoView({block: 'center'})")
    browser.click("#delete-all")
    answer(browser, "#delete-sure", ".danger")
    wait_until(lambda: browser.text("#learn-message") == "Everything was deleted.", "proof of deletion")
    assert not browser.run("document.querySelector('#learn-message').hasAttribute('data-trouble')"), "a deletion that looks like a trouble"
    proof = browser.text("#proof-facts")
    assert "correction-" in proof and "yes" in proof and "remove them below" in proof, proof
    wait_until(lambda: browser.run("document.querySelectorAll('#corrections li').length") == 0, "empty list")
    browser.save(out / "deleted.png")
    # Escape closes the question without an answer; the one of the last time does not count again.
    agree(browser, "improve_my_mirror", True)
    browser.run("document.querySelector('#delete-all').scrollIntoView({block: 'center'})")
    browser.click("#delete-all")
    wait_until(lambda: browser.run("document.querySelector('#delete-sure').open"), "question once more")
    browser.run("document.querySelector('#delete-sure').close()")
    time.sleep(1)
    agreed = {consent["purpose"]: consent["agreed"] for consent in browser.learning()["consents"]}
    assert agreed["improve_my_mirror"], "a closed question deleted everything"
    agree(browser, "improve_my_mirror", False)


def check_fingers(browser: Window) -> None:
    """A second finger that taps beside the first one's stroke neither paints nor ends it."""
    label = "editor.labels[Math.floor({1} * editor.height) * editor.width + Math.floor({0} * editor.width)]"
    browser.click("#palette [data-part='9']")
    places = browser.places([(0.5, 0.5), (0.7, 0.7), (0.2, 0.8)])
    start, end, aside = ({"type": "pointerMove", "duration": 40, **place} for place in places)
    down, up, rest = {"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}, {"type": "pause"}
    steps = {
        "first": [start, down, rest, rest, end, up],
        "second": [aside, rest, down, up, rest, rest],
    }
    touch = {"pointerType": "touch"}
    fingers = [{"type": "pointer", "id": name, "parameters": touch, "actions": actions} for name, actions in steps.items()]
    browser.ask("POST", "/actions", {"actions": fingers})
    browser.ask("DELETE", "/actions")
    assert browser.run(label.format(0.69, 0.69)) == 9, "the first finger's stroke was ended"
    assert browser.run(label.format(0.2, 0.8)) != 9, "the second finger painted"


def check_part_map(browser: Window, mirror: Mirror) -> None:
    """Beside each stored picture its part map is had, under the picture's own number."""
    wait_until(lambda: browser.run("document.querySelectorAll('#corrections a').length") == 1, "the part map's link")
    path = browser.run("document.querySelector('#corrections a').getAttribute('href')")
    name = browser.run("document.querySelector('#corrections a').getAttribute('aria-label')")
    status, body, _ = get(mirror.url + path)
    assert name == "Part map of Correction 1" and status == 200 and body.startswith(b"\x89PNG"), (name, path, status)


def has_focus(browser: Window, selector: str) -> bool:
    """Whether the keyboard's place is there, and not lost to the page's beginning."""
    lost = browser.run("document.activeElement === document.body")
    return not lost and browser.run(f"document.activeElement.matches('{selector}')")


def check_focus(browser: Window) -> None:
    """What a press switches off, or hides, does not lose the keyboard's place."""
    browser.run("document.querySelector('#camera').scrollIntoView({block: 'center'})")
    for wanted in ("false", "true"):
        browser.run("document.querySelector('#camera').focus()")
        # A poll of the state comes while the request runs.
        browser.run("(changing = true, 0)")
        time.sleep(1.5)
        assert has_focus(browser, "#camera"), "a poll takes the switch's place"
        browser.run("(changing = false, 0)")
        wait_until(lambda: browser.run(PRESSABLE), "the camera's switch")
        browser.click("#camera")
        is_so = f"document.querySelector('#camera').getAttribute('aria-checked') === '{wanted}'"
        wait_until(lambda is_so=is_so: browser.run(is_so), f"camera, switched to {wanted}")
        assert has_focus(browser, "#camera"), "the switch's place is lost"
    settle(browser)
    browser.run("(showQuestion(true), document.querySelector('#fleet-decline').focus())")
    browser.run("showQuestion(false)")
    assert has_focus(browser, "#fleet-title"), "the place of whoever declines is lost"
    browser.run("(setDisabled(document.querySelector('#undo'), false), document.querySelector('#undo').focus())")
    browser.run("refreshLearning()")
    wait_until(lambda: browser.run("document.querySelector('#undo').getAttribute('aria-disabled')") == "true", "nothing to undo")
    assert has_focus(browser, "#undo"), "the place of whoever went back is lost"


def check_missing(browser: Window) -> None:
    """Whoever contributes and has nothing to contribute is told so. This mirror has no fleet: what the page knows is set for a call."""
    told = """((member, improves, corrections) => {
        const before = learning;
        const consents = [{ purpose: "improve_my_mirror", agreed: improves }];
        learning = { ...before, consents, fleet: { ...before.fleet, member }, usage: { ...before.usage, corrections } };
        try { return contributionText(true, "Agreed."); } finally { learning = before; }
    })"""
    assert "until a picture is corrected" in browser.run(f"{told}(true, true, 0)")
    assert "is off" in browser.run(f"{told}(true, false, 3)")
    assert browser.run(f"{told}(true, true, 3)") == "Agreed."
    assert "no fleet" in browser.run(f"{told}(false, true, 3)")


def check_words(browser: Window) -> None:
    """Of the last run: in use only while the newest head is that run's. Of refusals: whose they were. Of deleting: that an update goes, where
    one waits."""
    hidden = browser.run("""((before) => [1, 0].map((waiting) => {
        try { showLearning({ ...before, privacy: { ...before.privacy, waiting } });
            return Array.from(document.querySelectorAll("[data-waits]"), (words) => words.hidden); } finally { showLearning(before); }
    }))(learning)""")
    assert hidden == [[False, False], [True, True]], hidden
    rows = browser.run("refusalRows({update: 1, memory: 3, job: 2}).map((row) => row.join(': '))")
    expected = ["Updates that the fleet turned down: 1", "Could not be written on this device: 3", "Refused by this mirror: job: 2"]
    assert rows == expected, rows
    run = "{adopted: true, after: 1, ended_at: 5}"
    for head, wanted in (("{fleet: null, adopted_at: 5}", True), ("{fleet: null, adopted_at: 4}", False),
                         ("{fleet: 2, adopted_at: 5}", False), ("undefined", False)):
        words = browser.run(f"verdict({run}, {head})")
        assert (words == "in use now") == wanted, f"{head}: {words}"
    phone = "{id: 'a', name: 'Phone', paired_at: 0, seen_at: 0, this: false"
    for shut, wanted in (("true", "shut out until the mirror’s next start only; remove it again"), ("false", "last used")):
        words = browser.run(f"browserItem({phone}, shut: {shut}}}).textContent")
        assert wanted in words, words


def check_browsers(browser: Window, mirror: Path, environment: dict, url: str) -> None:
    """A browser that is paired elsewhere comes into the list, and removing it does not lose the keyboard's place."""
    shown = json.loads(subprocess.run([mirror, "pair", "--json"], env=environment, check=True, capture_output=True).stdout)
    headers = {"x-mirror-change": "1", "content-type": "application/json"}
    body = json.dumps({"code": shown["code"], "name": "Another"}).encode()
    request = urllib.request.Request(url + "/api/pairing/finish", body, headers, method="POST")
    urllib.request.urlopen(request, timeout=30, context=NO_CHECK).close()
    count = "document.querySelectorAll('#browsers li').length"
    wait_until(lambda: browser.run(count) == 2, "the other browser in the list")
    ask_and_hold(browser, "refreshAccess")
    browser.run("document.querySelector('#browsers').scrollIntoView({block: 'center'})")
    browser.click("#browsers li:last-child button")
    answer(browser, "#browser-sure", ".danger")
    wait_until(lambda: browser.run(count) == 1, "the end of the other browser")
    assert has_focus(browser, "#browsers li"), "the keyboard's place is lost"
    assert hear_late(browser, count) == 1, "an earlier answer brings a removed browser back"


def remove_all_browsers(browser: Window) -> None:
    """As whoever gives the mirror away does; this browser's own pairing ends as well."""
    browser.run("document.querySelector('#browsers-remove').scrollIntoView({block: 'center'})")
    browser.click("#browsers-remove")
    answer(browser, "#browsers-sure", ".danger")
    wait_until(lambda: browser.run("document.querySelector('#begin') !== null"), "pairing page after the removal")


def check_damaged(browser: Window) -> None:
    """A correction that turns out damaged is shown so. None is: what the page knows is set for a call."""
    shown = "document.querySelector('#corrections .nothing') !== null"
    change = "(showLearning({...learning, corrections: learning.corrections.map((one) => ({...one, damaged: true}))}), %s)"
    assert browser.run(change % shown), "a damaged correction looks like a whole one"
    wait_until(lambda: not browser.run(shown), "the whole one again")


def check_phone(browser: Window, out: Path) -> None:
    browser.become_phone()
    open_editor(browser, lambda: is_in_sight(browser, "#save"))
    browser.click("#discard")
    wait_until(lambda: browser.run("!busy && editor.id === null"), "the end of the editor")
    correct(browser, "touch")
    browser.save(out / "phone-editor.png")
    check_fingers(browser)
    save(browser, 3)
    wait_until(lambda: "was saved" in browser.text("#learn-message"), "word of the saving")
    assert is_in_sight(browser, "#learn-message"), "on a telephone nobody sees that it was saved"
    assert browser.run("document.activeElement.id") == "freeze", "the keyboard's place is lost"
    browser.save(out / "phone-saved.png")
    browser.command("Emulation.clearDeviceMetricsOverride")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=RELEASE)
    parser.add_argument("--out", type=Path, default=ROOT / "target/page-learning")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    own = {
        "MIRROR_PAGE_ACCESS": "paired",
        "MIRROR_PAGE_NETWORK_LISTEN": "127.0.0.1:0",
        "MIRROR_LEARNING_IDLE_S": "0",
        "MIRROR_LEARNING_BUSIEST": "1.0",
        "MIRROR_LEARNING_AFTER_CORRECTIONS": "0",
        "MIRROR_LEARNING_NIGHT_MINUTES": "0",
        "MIRROR_THERMAL_SENSOR": "",
    }
    with Mirror(args.mirror, "--display", f"headless:{args.out / 'screen'}", **own) as mirror, Window() as browser:
        # Commands look for the mirror at this door.
        environment = mirror.environment | {"MIRROR_PAGE_LISTEN": mirror.url.removeprefix("http://")}
        mirror.wait_for_overlays(1)
        url = network_door(mirror)
        check_unpaired(url)
        browser.command("Security.setIgnoreCertificateErrors", ignore=True)
        browser.ask("POST", "/url", {"url": url + "/"})
        pair(browser, args.mirror, environment, args.out)
        check_unpaired(url)
        agree(browser, "improve_my_mirror", True)
        check_late(browser)
        check_no_fleet(browser)
        browser.save(args.out / "consent.png")
        check_missing(browser)
        check_focus(browser)
        check_message(browser)
        check_not_ready(browser)
        check_waiting(browser, mirror)
        check_discard(browser, mirror)
        check_forgotten(browser, mirror)
        check_withdrawn(browser)
        check_double_click(browser)
        check_tools(browser, args.out)
        check_access(browser)
        check_words(browser)
        check_browsers(browser, args.mirror, environment, url)
        save(browser, 1)
        check_part_map(browser, mirror)
        check_damaged(browser)
        correct(browser, "pen")
        save_without_an_answer(browser, 2)
        check_phone(browser, args.out)
        check_one_press(browser)
        check_older(browser, url)
        check_budget(browser)
        epsilon = train(browser, args.out)
        command = [args.mirror, "privacy", "ledger", "--verify", "--json"]
        ledger = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
        assert ledger["epsilon"] == epsilon, f"the ledger says {ledger['epsilon']}, the page {epsilon}"
        check_incomplete(browser)
        withdraw_and_delete(browser, args.out)
        errors = browser.errors()
        browser.run("document.querySelector('#browsers button').scrollIntoView({block: 'center'})")
        browser.click("#browsers button")
        answer(browser, "#browser-sure", ".danger")
        wait_until(lambda: browser.run("document.querySelector('#begin') !== null"), "pairing page after signing out")
        pair(browser, args.mirror, environment, args.out)
        remove_all_browsers(browser)
        check_unpaired(url)
        unexpected = [error for error in errors if "/api/pairing" not in error]
        assert not unexpected, unexpected
    print(f"paired, agreed, corrected, trained, epsilon {epsilon}, withdrawn, deleted, signed out")
    return 0


if __name__ == "__main__":
    sys.exit(main())

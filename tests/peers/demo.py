"""The two commands that show a fleet without one: `aggregator simulate --json` says every figure, and `aggregator demo` is looked at in Chromium.

usage: demo.py [--aggregator BINARY]

The simulation is one round of 84 devices. The demonstration is two mirrors and a round on a port of its own: the operators' page has to fill and draw its
curves, with a console free of errors, and the process has to end when it is told to. Both have the first few of the shipped households alone: an unoptimised
program takes minutes for all. Needs the packages chromium and chromium-driver.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile

from page import Browser
from running import ROOT, wait_until, within

RELEASE = ROOT / "target/release/aggregator"
HOUSEHOLDS = ROOT / "models/households"
# How many of each folder are used.
KEPT = {"train": 4, "test": 2}
# Seconds within which either is done, however busy the machine is.
PATIENCE = 300
FIGURES = {"devices", "trained_households", "judged_households", "parameters", "dimension", "update_bytes", "head_bytes", "noise_multiplier", "base",
           "at_home", "at_home_base", "rounds"}
ROUND = {"round", "candidate", "fleet", "without_noise", "central", "update_cosine", "average_cosine", "expected_cosine", "privacy", "bytes", "seconds"}
SCORES = ("candidate", "fleet", "without_noise", "central")


def few_households(folder: pathlib.Path) -> None:
    for part, kept in KEPT.items():
        (folder / part).mkdir()
        (folder / part / "pictures.pack").symlink_to(HOUSEHOLDS / part / "pictures.pack")
        index = json.loads((HOUSEHOLDS / part / "index.json").read_text())
        index["households"] = index["households"][:kept]
        (folder / part / "index.json").write_text(json.dumps(index))


def simulate(aggregator: pathlib.Path, households: pathlib.Path) -> None:
    command = [aggregator, "simulate", "--devices", "84", "--rounds", "1", "--no-gate", "--json", "--households", households]
    said = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=PATIENCE, check=True).stdout
    figures = json.loads(said)
    assert set(figures) == FIGURES, set(figures) ^ FIGURES
    (only,) = figures["rounds"]
    assert set(only) == ROUND, set(only) ^ ROUND
    known = (figures["devices"], figures["trained_households"], figures["judged_households"], only["round"])
    assert known == (84, KEPT["train"], KEPT["test"], 1), said
    assert only["bytes"] == 84 * figures["update_bytes"], said
    assert all(0 < only[score] < 1 for score in SCORES) and only["fleet"] == only["candidate"], said


def filled(browser: Browser, rounds: int) -> bool:
    return browser.run(f"document.querySelectorAll('#rounds tr').length >= {rounds} && document.querySelectorAll('#accuracy circle').length > {rounds}")


def look(browser: Browser, page: str, rounds: int) -> None:
    browser.ask("POST", "/url", {"url": page})
    wait_until(lambda: filled(browser, rounds), "round with its score on the operators' page", PATIENCE)
    for curve in ("accuracy", "spent"):
        path = browser.run(f"document.querySelector('#{curve} path').getAttribute('d')")
        assert path.count("M") == 1 and "NaN" not in path, f"{curve}: {path}"
    dots = browser.run("document.querySelectorAll('#spent circle').length")
    assert dots == rounds + 1, f"{dots} dots of epsilon after {rounds} rounds"
    # Rounded once more it would be another epsilon, and mostly a smaller one.
    last = "[...document.querySelectorAll('#spent circle title')].at(-1).textContent"
    wait_until(lambda: browser.run(last) == f"{rounds}: {browser.text('#epsilon')}", "the last round's epsilon as it is at a glance")
    wait_until(lambda: browser.text("#enrolled") == "2" and browser.text("#trouble") == "", "two mirrors on a page without trouble")
    wait_until(lambda: "epsilon" in browser.text("#privacy"), "words on the privacy")
    errors = browser.errors()
    assert not errors, errors


def demonstrate(aggregator: pathlib.Path, households: pathlib.Path) -> None:
    command = [aggregator, "demo", "--devices", "2", "--rounds", "1", "--page-port", "0", "--keep-open", "--households", households]
    demo = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        with within(demo, "address of the operators' page", PATIENCE):
            said = next((line for line in demo.stdout if "the operators' page at" in line), None)
        assert said, f"the demonstration named no page; it ended with {demo.wait()}"
        with Browser() as browser:
            look(browser, said.split()[-1], 1)
        demo.terminate()
        assert demo.wait(timeout=60) == 0, f"the demonstration ended with {demo.returncode}"
    finally:
        demo.kill()
        demo.wait(timeout=30)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--aggregator", type=pathlib.Path, default=RELEASE)
    aggregator = parser.parse_args().aggregator.resolve()
    with tempfile.TemporaryDirectory(prefix="households-") as name:
        households = pathlib.Path(name)
        few_households(households)
        simulate(aggregator, households)
        demonstrate(aggregator, households)
    print("the simulation says every figure; the demonstration's page fills, draws its curves and reports no error")
    return 0


if __name__ == "__main__":
    sys.exit(main())

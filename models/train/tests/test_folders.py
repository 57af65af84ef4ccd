"""Folders of rendered pictures: of one kind each, and nothing of somebody else's is taken away."""

import argparse
import sys

import numpy as np
import pytest

from render import __main__ as command
from render.__main__ import TESTSET, positive, replace_testset, settle


def test_a_folder_keeps_the_settings_of_its_pictures(tmp_path):
    folder = tmp_path / "a"
    for _ in range(2):
        settle(folder, scenes="people", seed=1)
    with pytest.raises(ValueError, match=r'settings.json says .*people.* and not .*gowns.*folder of their own'):
        settle(folder, scenes="gowns", seed=1)
    assert [path.name for path in folder.iterdir()] == ["settings.json"]


def names(folder):
    """Every file of a folder, as its path within it."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def made_testset(folder, numbers):
    """A test set of empty files."""
    for name in TESTSET:
        (folder / name).mkdir(parents=True)
        for number in numbers:
            (folder / name / f"{number}.{'jpg' if name == 'images' else 'png'}").touch()
    for name in ("classes.toml", "records.json"):
        (folder / name).write_text(str(numbers))
    return folder


def test_only_a_test_sets_own_pictures_are_taken_away(tmp_path):
    old, new = made_testset(tmp_path / "old", ["0000", "0001"]), made_testset(tmp_path / "new", ["0000"])
    before, wanted = names(old), names(new)
    (old / "LICENSE").touch()
    foreign = old / "images" / "holiday.jpg"
    foreign.touch()
    with pytest.raises(ValueError, match="holiday.jpg is not of a test set"):
        replace_testset(new, old)
    assert names(old) == sorted([*before, "LICENSE", "images/holiday.jpg"])
    foreign.unlink()
    replace_testset(new, old)
    assert names(old) == sorted([*wanted, "LICENSE"]) and (old / "classes.toml").read_text() == "['0000']" and not names(new)
    replace_testset(made_testset(tmp_path / "first", ["0000"]), tmp_path / "none")
    assert names(tmp_path / "none") == wanted


def run(monkeypatch, capsys, *arguments, draw):
    """The exit code and the last line of the command with `draw` in the place of what makes a picture."""
    monkeypatch.setattr(command, "Assets", lambda *_: None)
    monkeypatch.setattr(command, "sample", draw)
    monkeypatch.setattr(sys, "argv", ["render", arguments[0], "--assets", "none", *map(str, arguments[1:])])
    return command.main(), capsys.readouterr().err.strip()


def drawn(*_, **__):
    """A picture of nobody."""
    return np.zeros((8, 6, 3), np.uint8), np.zeros((8, 6), np.uint8), np.zeros((8, 6), np.uint8), {}


def interrupted_at(count):
    """`drawn`, and Ctrl+C at the picture of this number."""
    left = iter(range(count))

    def draw(*_, **__):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return drawn()

    return draw


def test_an_interrupted_test_set_leaves_the_one_before(tmp_path, monkeypatch, capsys):
    folder = made_testset(tmp_path / "set", ["0000", "0001", "0002"])
    before = names(folder)
    assert run(monkeypatch, capsys, "testset", "--out", folder, "--count", 2, draw=interrupted_at(1)) == (130, "interrupted; the same command begins anew")
    assert names(folder) == before and (folder / "classes.toml").read_text().startswith("['0000'")
    assert run(monkeypatch, capsys, "testset", "--out", folder, "--count", 2, draw=drawn) == (0, "")
    assert names(folder) == names(made_testset(tmp_path / "two", ["0000", "0001"])) and len(list(folder.iterdir())) == 5
    assert "[[class]]" in (folder / "classes.toml").read_text()


def test_interrupted_shards_go_on(tmp_path, monkeypatch, capsys):
    values = ("shards", "--out", tmp_path, "--size", 2, "--count", 2)
    code, said = run(monkeypatch, capsys, *values, draw=interrupted_at(3))
    assert code == 130 and said == "interrupted; finished files are whole, and the same command goes on from them"
    assert names(tmp_path) == ["settings.json", "train-00000.npz"]
    assert run(monkeypatch, capsys, *values, draw=interrupted_at(2))[0] == 0
    sheet = run(monkeypatch, capsys, "sheet", "--out", tmp_path / "a.jpg", draw=interrupted_at(3))
    assert sheet == (130, "interrupted; the same command begins anew")


def test_counts_are_above_nought():
    assert positive("3") == 3
    with pytest.raises(argparse.ArgumentTypeError, match="0 is not above 0"):
        positive("0")

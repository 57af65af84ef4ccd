"""Folders of rendered pictures: of one kind each, and nothing of somebody else's is taken away."""

import argparse

import pytest

from render.__main__ import clear_testset, positive, settle


def test_a_folder_keeps_the_settings_of_its_pictures(tmp_path):
    folder = tmp_path / "a"
    for _ in range(2):
        settle(folder, scenes="people", seed=1)
    with pytest.raises(ValueError, match=r'settings.json says .*people.* and not .*gowns.*folder of their own'):
        settle(folder, scenes="gowns", seed=1)
    assert [path.name for path in folder.iterdir()] == ["settings.json"]


def test_only_a_test_sets_own_pictures_are_taken_away(tmp_path):
    clear_testset(tmp_path)
    (tmp_path / "classes.toml").touch()
    for name in ("images/0000.jpg", "labels/0000.png", "person/0001.png"):
        (tmp_path / name).touch()
    foreign = tmp_path / "images" / "holiday.jpg"
    foreign.touch()
    with pytest.raises(ValueError, match="holiday.jpg is not of a test set"):
        clear_testset(tmp_path)
    assert (tmp_path / "labels/0000.png").exists() and (tmp_path / "classes.toml").exists()
    foreign.unlink()
    clear_testset(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["images", "labels", "person"]


def test_counts_are_above_nought():
    assert positive("3") == 3
    with pytest.raises(argparse.ArgumentTypeError, match="0 is not above 0"):
        positive("0")

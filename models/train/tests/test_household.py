"""Households: what is said to stay the same does, and the files are what the index says. Needs $MIRROR_ASSETS in part."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from render.household import Household, read_households, write_households

ASSETS = os.environ.get("MIRROR_ASSETS")
SHIPPED = Path(__file__).resolve().parents[2] / "households"
needs_assets = pytest.mark.skipif(not ASSETS, reason="MIRROR_ASSETS does not name the folder of CC0 assets")


@needs_assets
def test_a_household_keeps_its_room_and_camera_and_differs_from_the_next(assets):
    homes = [Household(assets, [9, 0, k]) for k in (0, 1)]
    first, second = ([home.picture(k, 1.0)[:2] for k in range(4)] for home in homes)
    empty = lambda a, b: (a[1] == 0) & (b[1] == 0)
    difference = lambda a, b: np.abs(a[0].astype(int) - b[0].astype(int))[empty(a, b)].mean()
    within = np.mean([difference(first[0], other) for other in first[1:]])
    assert within < 0.5 * np.mean([difference(first[0], other) for other in second])


@needs_assets
def test_a_picture_is_the_same_whatever_was_rendered_before(assets):
    home = Household(assets, [9, 0, 2])
    home.picture(0, 1.0)
    again = Household(assets, [9, 0, 2]).picture(1, 1.0)
    assert all(np.array_equal(a, b) for a, b in zip(home.picture(1, 1.0), again))


@needs_assets
def test_residents_keep_body_and_hair_in_every_outfit(assets):
    from render.household import HOME, Resident

    still = lambda joints: ({}, {})
    seed = [9, 0, 3, HOME + 2]
    bodies = [Resident(assets, seed, outfit, still) for outfit in (0, 1, 0)]
    assert all(np.array_equal(b.skin_vertices, bodies[0].skin_vertices) and b.record == bodies[0].record for b in bodies)
    same = lambda a, b: len(a.items) == len(b.items) and all(
        x.textures.shape == y.textures.shape and (x.textures == y.textures).all() for x, y in zip(a.items, b.items))
    assert same(bodies[0], bodies[2]) and not same(bodies[0], bodies[1])


@needs_assets
def test_written_households_read_back_and_damage_is_told(assets, tmp_path):
    write_households(assets, tmp_path, [[9, 0, 4]], ["train-0000"], 2, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["index.json", "pictures.pack"]
    (home,) = read_households(tmp_path)["households"]
    parts = Household(assets, [9, 0, 4]).picture(1)[1]
    assert (home["pictures"][1]["labels"] == parts).all() and home["corrections"] == 1
    pack = tmp_path / "pictures.pack"
    pack.write_bytes(pack.read_bytes()[:-1])
    with pytest.raises(ValueError, match="pictures.pack"):
        read_households(tmp_path)


@pytest.mark.parametrize("folder", ["train", "test", "heldback"])
def test_shipped_households_are_whole_and_labelled(folder):
    index = read_households(SHIPPED / folder)
    homes = index["households"]
    assert len({home["name"] for home in homes}) == len(homes) >= 1
    for home in homes:
        assert 0 < home["corrections"] < len(home["pictures"]) and 1 <= len(home["people"]) <= 3
        for picture in home["pictures"]:
            assert picture["image"].shape == (256, 192, 3) and picture["labels"].shape == (256, 192)
            assert picture["labels"].max() < 16
            assert (picture["people"] > 0) == bool((picture["labels"] > 0).any())


def test_every_byte_of_a_pack_belongs_to_one_picture():
    for folder in ("train", "test", "heldback"):
        index = json.loads((SHIPPED / folder / "index.json").read_text())
        places = [p[key] for home in index["households"] for p in home["pictures"] for key in ("image", "labels")]
        ends = [0] + [start + length for start, length in places]
        assert [start for start, _ in places] == ends[:-1] and ends[-1] == index["pack_bytes"]

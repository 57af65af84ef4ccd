"""The renderer: deterministic, labelled everywhere, split in two, and never half-written. Needs $MIRROR_ASSETS."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline.data import read_shard
from render.__main__ import SCENES, learned_seed, write_shard
from render.animals import POSTURES, SPECIES, Animal, animal, draw_species
from render.assets import AssetError, Assets, check_files, held_out
from render.body import Shape
from render.charts import CLOTH_SIDE, TRUNK
from render.classes import INDEX
from render.clip import FIRST, pose_at
from render.gowns import ABOVE_FLOOR, Drape, GownPerson, GownScene
from render.leaps import LeapingPerson, LeapScene, leaping_pose, on_hands
from render.lofts import loft
from render.moves import FLOOR, MoveScene, MovingPerson, close_hands
from render.objects import KINDS, ThingScene, bottle, dish, turned_on_lathe
from render.outfits import OutfitScene
from render.person import DECIMETRES, Person
from render.pose import about, from_directions, skinning
from render.scene import THING, sample, shrink_labels
from render.sensor import movement
from render.things import Room

ASSETS = os.environ.get("MIRROR_ASSETS")
needs_assets = pytest.mark.skipif(not ASSETS, reason="MIRROR_ASSETS does not name the folder of CC0 assets")


@pytest.fixture(scope="module")
def assets():
    return Assets(ASSETS, "train")


def test_a_movement_blurs_about_the_place_where_it_is_labelled():
    for across in range(3, 8):
        for down in range(1 - across, across):
            kernel = movement(across, down).astype(np.float64)
            y, x = np.indices(kernel.shape) - len(kernel) // 2
            assert abs(kernel.sum() - 1) < 1e-6
            assert abs((kernel * x).sum()) < 1e-6 and abs((kernel * y).sum()) < 1e-6
            assert np.ptp(x[kernel > 0]) + 1 >= across and np.ptp(y[kernel > 1e-6]) >= abs(down)


def test_missing_assets_are_one_clear_error(tmp_path):
    with pytest.raises(AssetError, match="base.obj"):
        Assets(tmp_path, "train")


@needs_assets
def test_a_missing_or_changed_asset_is_named(tmp_path):
    for path in Path(ASSETS).iterdir():
        if path.name not in ("MANIFEST.tsv", "makehuman"):
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "makehuman").mkdir()
    for path in (Path(ASSETS) / "makehuman").iterdir():
        (tmp_path / "makehuman" / path.name).symlink_to(path)
    with pytest.raises(AssetError, match="MANIFEST.tsv.*assets.tsv"):
        check_files(tmp_path)
    (tmp_path / "MANIFEST.tsv").write_bytes((Path(ASSETS) / "MANIFEST.tsv").read_bytes())
    check_files(tmp_path)
    mesh = tmp_path / "makehuman" / "base.obj"
    whole = mesh.read_bytes()
    mesh.unlink()
    mesh.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(AssetError, match="makehuman/base.obj: not the file that MANIFEST.tsv lists"):
        check_files(tmp_path)
    mesh.unlink()
    with pytest.raises(AssetError, match="makehuman/base.obj: missing"):
        check_files(tmp_path)


@needs_assets
def test_the_list_in_the_project_is_the_folders():
    """Whoever fetches the assets anew has only the project's copy of the list."""
    digests = lambda path: {tuple(line.split("\t")[:3]) for line in path.read_text().splitlines() if "/" in line.split("\t")[0]}
    assert digests(Path(__file__).parents[1] / "assets.tsv") == digests(Path(ASSETS) / "MANIFEST.tsv")


def test_a_thing_on_a_wall_is_no_wider_than_a_narrow_room():
    room = Room.__new__(Room)
    room.floor, room.back, room.left, room.right = 0.0, -1.0, -0.6, 0.5
    for seed in range(200):
        room.rng = np.random.default_rng(seed)
        centre, half = room.on_wall(1.2, 0.9, 1.2, 1.7)
        assert room.left - 1e-9 <= centre[0] and centre[0] <= room.right + 1e-9
        assert half.max() <= 0.9


def test_a_fixed_sixth_of_the_names_is_held_out():
    share = np.mean([held_out(f"Fabric/{k}") for k in range(6000)])
    assert 0.14 < share < 0.19


@needs_assets
def test_splits_share_no_room_and_no_swatch(assets):
    test = Assets(ASSETS, "test")
    names = [{name for name, _, _ in a.environments} for a in (assets, test)]
    assert names[0] and names[1] and not names[0] & names[1]
    counts = [sum(len(c) for c in a.swatches.values()) for a in (assets, test)]
    assert counts[0] > 3 * counts[1] > 0


@needs_assets
def test_same_seed_same_picture(assets):
    a, b, c = (sample(assets, [1, 0, 0, k]) for k in (4, 4, 5))
    assert all((x == y).all() for x, y in zip(a[:3], b[:3])) and a[3] == b[3]
    assert (a[0] != c[0]).any()


@needs_assets
def test_a_scene_in_another_tone_differs_in_the_skin_alone(assets):
    drawn, light, dark = (sample(assets, [1, 0, 0, 4], tone=tone) for tone in (None, 0.1, 0.9))
    assert np.array_equal(drawn[1], light[1])
    assert np.array_equal(light[1], dark[1]) and np.array_equal(light[2], dark[2])
    assert (light[0] != dark[0]).any()
    assert light[3].pop("tone") < dark[3].pop("tone") and light[3] == dark[3]


@needs_assets
@pytest.mark.parametrize("wide, size", [(False, (256, 192)), (True, (192, 256))])
def test_every_person_pixel_has_a_part_and_only_those(assets, wide, size):
    people = 0
    for k in range(12):
        image, parts, person, record = sample(assets, [2, 0, 0, k], wide=wide)
        assert image.shape == (*size, 3) and parts.shape == person.shape == size
        assert ((parts > 0) == (person > 0)).all() and parts.max() < 16
        assert set(np.unique(person)) == set(range(person.max() + 1))
        people += person.max()
        assert record["people"] <= person.max()
    assert people > 5


def whole_scene(kind, assets, seed):
    """A scene with people in it and its parts; every pixel of a person has a part, and no other has."""
    scene = kind(assets, np.random.default_rng(seed), 160, 120)
    _, parts, who = scene.render()
    assert ((parts > 0) == (who > 0)).all() and len(scene.people) >= 1
    return scene, parts


@needs_assets
def test_dressed_people_are_labelled_whole_and_what_they_carry_is_not(assets):
    people, carried, heads = 0, 0, 0
    for k in range(12):
        scene, parts = whole_scene(OutfitScene, assets, [3, k])
        people += len(scene.people)
        carried += sum(who == THING for _, _, who in scene.placed)
        heads += np.isin(parts, (INDEX["hair"], INDEX["face"])).any()
    assert people > 12 and carried > 12 and heads > 6


@needs_assets
def test_long_clothes_reach_the_floor_widen_and_count_as_the_legs_below(assets):
    hidden = 0
    for k in range(12):
        _, parts = whole_scene(GownScene, assets, [4, k])
        hidden += np.isin(parts, [INDEX[f"lower_leg_{side}"] for side in ("left", "right")]).any()
    assert hidden > 4
    person = GownPerson(assets, np.random.default_rng(5))
    rows = np.unique(assets.skirt[0])
    floor = person.shape.vertices[:13380, 1].min()
    plain, wide = (Drape(person, flare).vertices[rows] for flare in (0.0, 0.8))
    for drape in (plain, wide):
        assert abs(drape[:, 1].min() - floor - ABOVE_FLOOR) < 1e-6
    lowest = plain[:, 1] < plain[:, 1].min() + 0.5
    assert np.ptp(wide[lowest, 0]) > 1.3 * np.ptp(plain[lowest, 0])


@needs_assets
def test_people_who_move_are_labelled_whole_and_stay_before_the_camera(assets):
    limbs = 0
    for k in range(16):
        scene, parts = whole_scene(MoveScene, assets, [5, k])
        first = np.concatenate([world for world, _, who in scene.placed if who == 1])
        assert scene.view == "mirror" or (-(first @ scene.camera.to_world)[:, 2]).min() > 0
        limbs += np.isin(parts, [INDEX[f"lower_{limb}_{side}"] for limb in ("arm", "leg") for side in ("left", "right")]).any()
    assert limbs > 12


@needs_assets
def test_people_who_leap_are_labelled_whole_and_some_are_upside_down_or_in_the_air(assets):
    lifted = 0
    for k in range(16):
        scene, _ = whole_scene(LeapScene, assets, [6, k])
        skin = np.concatenate([world for world, _, who in scene.placed if who == 1])
        lifted += scene.ground < skin[:, 1].min() - 0.09
    assert 2 < lifted < 12
    joints, over = Shape(assets, np.random.default_rng(7)).joints, 0
    for k in range(60):
        world, _ = leaping_pose(assets, np.random.default_rng([6, k]), joints)
        over += world["root"][1, 1] < -0.5
    assert 5 < over < 30


def test_no_two_kinds_of_training_scenes_begin_with_the_same_seed():
    seeds = {tuple(learned_seed(kind, wide)) for kind in SCENES for wide in (False, True)}
    assert len(seeds) == 2 * len(SCENES)


@needs_assets
def test_hands_carry_who_stands_on_them(assets):
    def pose(joints):
        world = from_directions(assets, np.random.default_rng(9), joints, on_hands(np.random.default_rng(9)))
        return {bone: about("X", 180) @ rotation for bone, rotation in world.items()}, {}

    person = LeapingPerson(assets, np.random.default_rng(8), pose)
    head, spine, thigh, *wrists, foot = person.bones[:, 1]
    assert max(wrists) < head < spine < thigh < foot


class Largest:
    """Draws that are always the largest allowed, and noise that is none."""

    uniform, normal = staticmethod(lambda low, high: high), staticmethod(lambda middle, spread: middle)
    choice = staticmethod(lambda values, p: values[-1])


@needs_assets
def test_a_fist_closes_towards_the_palm_on_both_hands(assets):
    joints, relative = Shape(assets, np.random.default_rng(7)).joints, {}
    close_hands(assets, Largest, joints, relative)
    closed = skinning(assets, joints, {}, relative)
    place = lambda bone: joints[assets.rig.index[bone]]
    for side in (".L", ".R"):
        tip = 2 * place("finger3-3" + side) - place("finger3-2" + side)
        bone = closed[assets.rig.index["finger3-3" + side]]
        moved = bone[:, :3] @ tip + bone[:, 3]
        wrist, knuckle, thumb = (place(name + side) for name in ("wrist", "finger3-1", "finger1-3"))
        assert np.linalg.norm(moved - wrist) < 0.75 * np.linalg.norm(tip - wrist)
        # The thumb lies on the palm's side of the line from wrist to knuckle.
        along = (knuckle - wrist) / np.linalg.norm(knuckle - wrist)
        aside = lambda p: (p - wrist) - (p - wrist) @ along * along
        assert aside(moved) @ aside(thumb) > 0


@needs_assets
@pytest.mark.parametrize("exercise", dict.fromkeys(FLOOR))
def test_in_an_exercise_on_the_floor_the_head_is_lower_than_on_the_feet(assets, exercise):
    pose = lambda joints: (from_directions(assets, np.random.default_rng(9), joints, exercise(np.random.default_rng(9), 0.5)), {})
    person = MovingPerson(assets, np.random.default_rng(8), pose)
    shape, lowest = person.shape, lambda vertices: vertices[:13380, 1].min()
    standing = (shape.joints[assets.rig.index["head"], 1] - lowest(shape.vertices)) * DECIMETRES
    assert person.head[1] - lowest(person.skin_vertices) < 0.9 * standing


@needs_assets
@pytest.mark.parametrize("shell, around", [("tights", None), ("skirt", TRUNK)])
def test_cloth_has_one_scale_all_over_a_shell(assets, shell, around):
    fields = Person(assets, np.random.default_rng(6)).fields
    triangles = getattr(assets, shell)[0]
    uvs, corners = fields.charts.lay(triangles, 1.0, around)
    flat, cloth = fields.v[triangles], uvs[corners] * CLOTH_SIDE
    area = np.linalg.norm(np.cross(flat[:, 1] - flat[:, 0], flat[:, 2] - flat[:, 0]), axis=1)
    (a, b), (c, d) = (cloth[:, 1] - cloth[:, 0]).T, (cloth[:, 2] - cloth[:, 0]).T
    ratio = np.abs(a * d - b * c) / area
    # Shoulders, crotch and soles face along the cylinders' axes: cloth is stretched there.
    assert 0.6 < np.median(ratio) < 1.6 and np.quantile(ratio, 0.9) < 3
    assert np.quantile(np.ptp(cloth[..., 0], axis=1), 0.99) < 1, "no triangle at the seam goes round the other way"


@needs_assets
def test_scenes_of_things_are_background_but_for_the_person_in_a_few(assets):
    kinds, people, seen = set(), 0, []
    for k in range(40):
        image, parts, person, record = sample(assets, [2, 0, 0, k], make=ThingScene)
        assert ((parts > 0) == (person > 0)).all() and person.max() <= 1
        kinds.add(record["place"])
        people += person.max()
        seen.append(image)
    assert kinds == set(KINDS) and 1 <= people <= 20
    again = sample(assets, [2, 0, 0, 7], make=ThingScene)
    assert (again[0] == seen[7]).all()
    # Something is in most of them: a picture of nothing has hardly any contrast.
    assert np.median([image.std() for image in seen]) > 20


@pytest.mark.parametrize("larger", [1.3, 3.0])
def test_labels_stay_where_the_picture_is_when_both_are_shrunk(larger):
    width = round(192 * larger)
    columns = np.tile(np.arange(width, dtype=np.uint16), (8, 1))
    # Area by area, a picture's pixel is what lay around its middle.
    off = shrink_labels(columns, 192, 8).astype(float) - ((np.arange(192) + 0.5) * width / 192 - 0.5)
    assert abs(off.mean()) < 0.01 and np.abs(off).max() <= 0.5


@pytest.mark.parametrize("posture", POSTURES)
def test_animals_of_every_kind_have_a_face_and_stand_or_lie_on_the_floor(posture):
    rng = np.random.default_rng(3)
    for species in [one for one in SPECIES * 5 if posture == "standing" or not one.bird]:
        body = Animal(rng, species, posture)
        points = np.concatenate([mesh[0] for mesh, _ in body.parts])
        assert np.isfinite(points).all() and np.ptp(points, axis=0).max() < 5
        # Whoever grazes may reach below the floor by a snout.
        assert -0.6 < points[:, 1].min() < 0.15 and points[:, 1].max() > 0.2, species
        assert sum(texture == "dark" for _, texture in body.parts) >= 2, "eyes"


def test_the_fallen_lie_on_the_floor(monkeypatch):
    monkeypatch.setattr("render.animals.POSTURE_SHARES", tuple(posture == "fallen" for posture in POSTURES))
    for seed, species in enumerate(SPECIES[:-1]):
        items = animal(np.random.default_rng(seed), species, np.array([0.0, -1.5, -3.0]), 1.0)
        points = np.concatenate([entry.vertices for entry in items])
        assert abs(points[:, 1].min() + 1.5) < 1e-6 and np.ptp(points[:, 1]) < 2.2


def test_a_portrait_shows_the_head_where_it_is_wanted():
    place, size = np.array([0.5, -0.2, -3.0]), 0.8
    for seed in range(6):
        items = animal(np.random.default_rng(seed), SPECIES[0], place, size, about("Y", 90), portrait=True)
        eyes = [entry.vertices.mean(0) for entry in items if entry.textures.shape[1] == 4]
        assert np.linalg.norm(np.mean(eyes, axis=0) - place) < 0.25 * size


def test_pets_are_cats_and_dogs():
    rng = np.random.default_rng(5)
    assert {draw_species(rng, pet=True).coats for _ in range(20)} == {SPECIES[0].coats}
    assert len({draw_species(rng).coats for _ in range(60)}) > 4


def test_turned_and_lofted_shapes_are_closed_and_of_the_given_size():
    tube = loft([[0, 0, 0], [1, 0, 0], [2, 1, 0]], [0.2, 0.3, 0.1])[0]
    assert np.isfinite(tube).all() and tube[:, 0].min() > -0.3 and tube[:, 0].max() < 2.3
    ends = tube.reshape(14, 12, 3)[[0, -1]]
    assert np.ptp(ends, axis=1).max() < 0.15
    rng = np.random.default_rng(0)
    for profile in (dish(rng)[0], bottle(rng)):
        vertices = turned_on_lathe(profile)[0]
        assert np.hypot(vertices[:, 0], vertices[:, 2]).max() <= profile[:, 0].max() + 1e-9
        assert vertices[:, 1].min() >= profile[:, 1].min() and vertices[:, 1].max() <= profile[:, 1].max()


def test_shards_are_whole_or_absent(tmp_path):
    entry = (np.zeros((8, 6, 3), np.uint8), np.zeros((8, 6), np.uint8), np.zeros((8, 6), np.uint8), {"seed": [1]})
    write_shard(tmp_path / "a.npz", [entry, entry])
    assert [p.name for p in Path(tmp_path).iterdir()] == ["a.npz"]
    assert read_shard(tmp_path / "a.npz")["image"].shape == (2, 8, 6, 3)


def test_the_clip_loops_without_a_jump():
    total = sum(seconds for _, seconds, _ in FIRST)
    before, after = pose_at(FIRST, total - 1e-6), pose_at(FIRST, total)
    unit = lambda v: np.asarray(v) / np.linalg.norm(v)
    for x, y in zip(before.left + before.right, after.left + after.right):
        assert np.linalg.norm(unit(x) - unit(y)) < 1e-3

"""The renderer: deterministic, labelled everywhere, split in two, and never half-written. Needs $MIRROR_ASSETS."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.config import HEIGHT, OTHER_SIZES, WIDTH
from pipeline.data import input_size, plain_samples, read_shard
from render import __main__ as command
from render.__main__ import SCENES, frame_name, frame_of, learned_seed, parser, write_shard
from render.animals import POSTURES, SPECIES, Animal, animal, draw_species
from render import kernels, scene, seats, sensor
from render.assets import AssetError, Assets, check_files, held_out
from render.body import Shape
from render.charts import CLOTH_SIDE, TRUNK
from render.classes import INDEX
from render.clip import FIRST, pose_at
from render.files import encoded
from render.gowns import ABOVE_FLOOR, Drape, GownPerson, GownScene
from render.leaps import LeapingPerson, LeapScene, leaping_pose, on_hands
from render.lofts import loft
from render.moves import FLOOR, MoveScene, MovingPerson, close_hands, lying
from render.objects import KINDS, ThingScene, bottle, dish, turned_on_lathe
from render.outfits import OutfitScene
from render.person import DECIMETRES, Person
from render.pose import about, from_directions, sit, skinning, squat
from render.scene import THING, Scene, sample, shrink_labels
from render.sensor import movement
from render.things import BALL, BOX, Room, grid, item, plane

ASSETS = os.environ.get("MIRROR_ASSETS")
needs_assets = pytest.mark.skipif(not ASSETS, reason="MIRROR_ASSETS does not name the folder of CC0 assets")


class Largest:
    """Draws that are always the largest allowed, and noise that is none."""

    uniform, normal = staticmethod(lambda low, high: high), staticmethod(lambda middle, spread: middle)
    choice = staticmethod(lambda values, p: values[-1])


def test_a_movement_blurs_about_the_place_where_it_is_labelled():
    for across in range(3, 9):
        for down in range(1 - across, across):
            kernel = movement(across, down).astype(np.float64)
            y, x = np.indices(kernel.shape) - len(kernel) // 2
            assert abs(kernel.sum() - 1) < 1e-6
            assert abs((kernel * x).sum()) < 1e-6 and abs((kernel * y).sum()) < 1e-6
            assert np.ptp(x[kernel > 0]) + 1 >= across and np.ptp(y[kernel > 1e-6]) >= abs(down)


def test_what_moves_is_blurred_where_it_was_and_what_stands_still_is_not():
    ground = np.linspace(0.2, 0.4, 40)[None, :, None] * np.ones((30, 1, 3))
    mask = np.zeros((30, 40), np.float32)
    mask[10:20, 15:25] = 1
    picture = ground.copy()
    picture[mask > 0] = 1
    for seed in range(8):
        blurred = sensor.moved(np.random.default_rng(seed), picture, mask)
        reach = np.zeros((30, 40), bool)
        reach[4:26, 9:31] = True
        assert np.allclose(blurred[~reach], ground[~reach], atol=1e-6), "the background keeps its place and sharpness"
        light = np.clip(blurred - ground, 0, None).sum(2)
        y, x = np.indices(light.shape)
        assert abs((light * y).sum() / light.sum() - 14.5) < 0.2 and abs((light * x).sum() / light.sum() - 19.5) < 0.2
        assert np.abs(blurred - picture)[reach].max() > 0.05


def test_one_person_or_one_limb_moves_in_a_tenth_of_the_pictures_with_people():
    parts, who = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    parts[2:10, 2:10], who[2:10, 2:10] = INDEX["torso"], 1
    parts[4:8, 2:4] = INDEX["hand_left"]
    parts[12:18, 12:18], who[12:18, 12:18] = INDEX["face"], 3
    masks = [scene.moving(np.random.default_rng(k), parts, who) for k in range(600)]
    found = [mask for mask in masks if mask is not None]
    assert 20 < len(found) < 90
    assert all(len(set(who[mask])) == 1 and who[mask].all() for mask in found)
    assert any((parts[mask] == INDEX["hand_left"]).all() for mask in found)
    assert scene.moving(np.random.default_rng(0), 0 * parts, 0 * who) is None


@pytest.mark.parametrize("strength", [sensor.BARREL, -0.05, sensor.PINCUSHION])
def test_a_lens_bends_picture_and_labels_alike_and_shows_nothing_from_beyond_the_frame(strength):
    x, y = sensor.lens(strength, 200, 150)
    assert x.min() > -1e-3 and y.min() > -1e-3 and x.max() < 149 + 1e-3 and y.max() < 199 + 1e-3
    assert np.abs(x - np.arange(150)).max() > 0.5, "something is bent"

    class Always(Largest):
        random = staticmethod(lambda: 0.0)
        uniform = staticmethod(lambda low, high: strength)

    labels = (np.add.outer(np.arange(200) // 40, np.arange(150) // 30) % 2).astype(np.uint8)
    flat = labels[..., None] * np.ones(3, np.float32)
    picture, parts, person = sensor.distorted(Always, flat, labels, labels)
    assert (parts == person).all() and (parts != labels).any()
    # A border of the labels lies where the picture changes from one colour to the other.
    assert ((picture[..., 0] > 0.5) == parts).mean() > 0.998
    columns = np.tile(np.arange(150, dtype=np.uint8), (200, 1))
    picture, parts, _ = sensor.distorted(Always, columns.astype(np.float32), columns, columns)
    assert abs((parts - picture).mean()) < 1e-3 and np.abs(parts - picture).max() <= 0.501


def test_a_picture_is_compressed_in_its_own_colours():
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:, :15], picture[:, 15:] = (230, 20, 20), (20, 20, 230)
    again = cv2.imdecode(np.frombuffer(encoded(".jpg", picture, 60), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    assert (sensor.compressed(picture, 60) == again).all()


def test_tones_are_rounded_to_the_nearest():
    assert (sensor.eight_bits(np.array([-0.1, 0.0, 0.9 / 255, 254.6 / 255, 2.0])) == [0, 0, 1, 255, 255]).all()


def drawn(entry, height=48, width=64, focal=60.0):
    """Layers of one item before a camera at the origin."""
    layers = scene.Layers(height, width)
    kernels.rasterise(entry.vertices, entry.uvs, entry.triangles, entry.uv_triangles, kernels.normals(entry.vertices, entry.triangles), entry.parts,
                      entry.layer, kernels.pyramid(entry.textures, entry.holes), entry.holes, entry.cut, focal, width / 2, height / 2, 1,
                      layers.depth, layers.albedo, layers.normal, layers.label, layers.who)
    return layers


def checkers(side=64, alpha=False):
    """A texture of single black and white texels; with `alpha`, white ones and green holes."""
    white = (np.add.outer(np.arange(side), np.arange(side)) % 2).astype(np.float32)
    texture = np.stack([white] * 3 + [white if alpha else np.ones_like(white)], -1)
    if alpha:
        texture[white == 0, 1] = 1
    return texture[None]


SQUARE = grid(lambda u, v: np.stack([2 * u - 1, 2 * v - 1, 0 * u], 1), 3, 3)


def test_textures_are_grey_from_far_and_soft_from_near():
    far, near = (drawn(item(SQUARE, size, [0, 0, -2.0], checkers(), repeats=repeats)) for size, repeats in ((0.5, 1), (0.5, 0.05)))
    assert np.abs(far.albedo[far.who > 0] - 0.5).max() < 0.05
    shades = near.albedo[near.who > 0][:, 0]
    assert shades.min() < 0.1 and shades.max() > 0.9 and ((shades > 0.2) & (shades < 0.8)).mean() > 0.3


def test_what_is_painted_under_a_hole_is_not_seen_at_its_edge():
    entry = item(SQUARE, 0.5, [0, 0, -2.0], checkers(alpha=True), repeats=0.05)
    entry.holes = True
    layers = drawn(entry)
    found = layers.albedo[layers.who > 0]
    assert 0.2 < (layers.who[14:34, 22:42] > 0).mean() < 0.9 and np.allclose(found, 1, atol=1e-5)


def test_normals_are_smooth_up_to_an_outline_and_both_sides_of_a_sheet_face_the_camera():
    ball = drawn(item(BALL, 0.6, [0.0, 0, -2.5], checkers()))
    inside = ball.who > 0
    for axis in (0, 1):
        both = inside & np.roll(inside, 1, axis)
        steps = (ball.normal * np.roll(ball.normal, 1, axis)).sum(2)[both]
        assert steps.min() > 0.3, "no normal is turned round beside one that is not"
    for degrees in (0, 180):
        sheet = drawn(item(SQUARE, 0.5, [0, 0, -2.0], checkers(), about("Y", degrees)))
        assert np.allclose(sheet.normal[sheet.who > 0], [0, 0, 1], atol=1e-5)


def test_walls_floors_and_windows_shut_out_no_sun():
    assert not plane(np.zeros(3), np.array([5.0, 0, 0]), np.array([0, 3.0, 0]), checkers(), 1.0).throws_shadow
    assert item(BOX, 1.0, 0.0, checkers()).throws_shadow


def lit_share(assets, monkeypatch, seed):
    """Share of the people's pixels in a room that the sun reaches, `None` where there is no sun or nobody."""
    found, shade = [], kernels.shade

    def only_sun(depth, albedo, normal, occlusion, who, *rest):
        *camera, sh, sun, direction, use_sun = rest[:8]
        light = np.zeros((*depth.shape, 3))
        shade(depth, np.ones_like(albedo), normal, np.ones(depth.shape), who, *camera, 0 * sh, np.ones(3), direction, use_sun, *rest[8:-2], 1.0, light)
        people = who > 0
        if use_sun and people.any():
            found.append((light[people, 0] > 0.03).mean())
        shade(depth, albedo, normal, occlusion, who, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(kernels, "shade", only_sun)
        one = Scene(assets, np.random.default_rng(seed), 120, 90, people=1)
        one.inside = True
        one.render()
    return found[0] if found and one.inside else None


@needs_assets
def test_in_rooms_the_sun_reaches_people(assets, monkeypatch):
    shares = [share for k in range(24) if (share := lit_share(assets, monkeypatch, [11, k])) is not None]
    assert len(shares) > 6 and np.median(shares) > 0.2


@needs_assets
def test_a_polished_floor_shows_people_and_labels_none_of_it(assets, monkeypatch):
    def rendered(share):
        monkeypatch.setattr(scene, "POLISHED", share)
        one = Scene(assets, np.random.default_rng(18), 120, 90, people=1, view="mirror")
        one.inside = True
        return one, *one.render()

    (_, plain, parts, _), (one, shining, again, _) = rendered(0.0), rendered(1.0)
    changed = np.abs(plain - shining).max(2) > 1e-9
    assert (parts == again).all() and changed.mean() > 0.02
    assert not changed[~one.floor_seen()].any() and not again[changed].any()


@needs_assets
def test_who_is_too_high_for_a_room_is_not_said_to_be_in_one(assets):
    one = Scene(assets, np.random.default_rng(12), 60, 45, people=1, view="generic")
    one.inside = True
    one.place_people()
    one.ground, before = -0.1, len(one.placed)
    one.place_room()
    assert not one.inside and len(one.placed) == before
    assert one.record(np.zeros((60, 45), np.uint8))["place"] == "panorama"


@needs_assets
def test_soles_stand_on_the_floor_and_not_in_it(assets):
    thick = 0
    for k in range(12):
        one = Scene(assets, np.random.default_rng([13, k]), 60, 45, people=2, view="mirror")
        one.place_people()
        for number in {who for _, _, who in one.placed if who != THING}:
            shoes = [world for world, entry, who in one.placed if who == number and len(entry.triangles) in {len(s.triangles) for s in assets.shoes}]
            lowest = min((world[:, 1].min() for world in shoes), default=one.ground)
            assert lowest > one.ground - 1e-6
            thick += bool(shoes) and lowest < one.ground + 1e-6
    assert thick > 6


@needs_assets
def test_a_mirror_that_hangs_still_does_not_follow_the_person(assets, monkeypatch):
    people = [Person(assets, np.random.default_rng(14), lambda joints, exercise=exercise: (
        from_directions(assets, np.random.default_rng(9), joints, exercise(np.random.default_rng(9), 1.0)), {})) for exercise in (squat, lying)]

    def camera(person):
        one = Scene(assets, np.random.default_rng([14, 1]), 256, 192, people=1, view="mirror")
        one.mirror_offset(person.skin_vertices, person.skin_vertices.min(0), person.skin_vertices.max(0))
        return one.camera.to_world

    monkeypatch.setattr(scene, "LEAST_SEEN", 0.0)
    for fixed in (0.0, 1.0):
        monkeypatch.setattr(scene, "FIXED", fixed)
        assert np.allclose(*(camera(person) for person in people)) == bool(fixed)
    monkeypatch.setattr(scene, "LEAST_SEEN", 1.01)
    assert not np.allclose(*(camera(person) for person in people)), "whoever is not seen is aimed at"


@needs_assets
def test_people_before_a_panorama_are_at_times_as_soft(assets, monkeypatch):
    one = Scene(assets, np.random.default_rng(15), 256, 192)
    sharp = np.zeros((256, 192, 3))
    sharp[20:40, 10:30] = 1
    monkeypatch.setattr(scene, "SOFT", 1.0)
    assert one.soften(sharp) is sharp, "where no panorama is seen nothing is softened"
    one.background()
    assert one.enlargement > 1 and 0 < one.soften(sharp)[20, 20, 0] < 0.999


def posed_person(assets, exercise, depth, seed=8):
    pose = lambda joints: (from_directions(assets, np.random.default_rng(9), joints, exercise(np.random.default_rng(9), depth)), {})
    return Person(assets, np.random.default_rng(seed), pose)


@needs_assets
def test_who_sits_has_a_seat_on_the_floor_and_who_stands_has_none(assets, monkeypatch):
    monkeypatch.setattr(seats, "SEATED", 1.0)
    assert seats.beneath(assets, np.random.default_rng(0), posed_person(assets, squat, 0.2)) == ([], 0.0)
    person = posed_person(assets, sit, 0.2)
    hip = seats.both_sides(person, "upperleg01").mean(0)
    for seed in range(8):
        items, lifted = seats.beneath(assets, np.random.default_rng(seed), person)
        points = np.concatenate([entry.vertices for entry in items])
        assert lifted == 0 and abs(points[:, 1].min() - person.lowest) < 1e-6
        top = items[0].vertices[:, 1].max()
        assert person.lowest + 0.2 < top < hip[1] and np.ptp(items[0].vertices[:, 0]) > 0.3
        assert all((entry.parts == 0).all() for entry in items)


@needs_assets
def test_who_lies_lies_on_the_mat(assets, monkeypatch):
    monkeypatch.setattr(seats, "BEDDED", 1.0)
    person = posed_person(assets, lying, 0.2)
    (mat,), lifted = seats.beneath(assets, np.random.default_rng(1), person)
    assert lifted > 0 and abs(mat.vertices[:, 1].max() - person.lowest) < 1e-6
    assert abs(np.ptp(mat.vertices[:, 1]) - lifted) < 1e-6 and np.ptp(mat.vertices[:, [0, 2]], axis=0).max() > 1.2


@needs_assets
def test_socks_are_the_feet_a_little_thicker_and_in_no_shoe(assets):
    person = Person(assets, np.random.default_rng(16), lambda joints: ({}, {}))
    person.hidden[:] = False
    person.wear_socks(np.random.default_rng(0), 0.06, 0.8)
    sock, skin = person.items[-1], person.posed(person.shape.vertices)
    worn = np.flatnonzero(sock.cut[:13380] > 0)
    gap = np.linalg.norm(sock.vertices[worn] - skin[worn], axis=1)
    assert len(worn) > 200 and np.allclose(gap, 0.006, atol=1e-3)
    feet = [INDEX[f"{part}_{side}"] for part in ("foot", "lower_leg") for side in ("left", "right")]
    assert np.isin(sock.parts[worn].argmax(1), feet).all()
    person.hidden[:] = True
    person.wear_socks(np.random.default_rng(0), 0.06, 0.8)
    assert (person.items[-1].cut < 0).all()


@needs_assets
def test_some_go_in_socks_and_slippers(assets):
    worn = [len(Person(assets, np.random.default_rng([17, k]), lambda joints: ({}, {})).footwear) for k in range(30)]
    assert {0, 1, 2} <= set(worn) and 3 < worn.count(0) + worn.count(2) and np.mean(worn) > 0.9


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
    (tmp_path / "makehuman" / "more.bvh").touch()
    with pytest.raises(AssetError, match="makehuman/more.bvh: not in MANIFEST.tsv"):
        check_files(tmp_path)
    (tmp_path / "makehuman" / "more.bvh").unlink()
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
@pytest.mark.parametrize("size", scene.FRAMES, ids=frame_name)
def test_every_person_pixel_has_a_part_and_only_those(assets, size):
    people = 0
    for k in range(12):
        image, parts, person, record = sample(assets, [2, 0, 0, k], frame=size)
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
    seeds = {tuple(learned_seed(kind, frame)) for kind in SCENES for frame in scene.FRAMES}
    assert len(seeds) == len(scene.FRAMES) * len(SCENES)
    # What was rendered before there were other frames is rendered as then.
    assert learned_seed("people", scene.UPRIGHT) == [] and learned_seed("people", scene.WIDE) == [1]
    assert learned_seed("gowns", scene.UPRIGHT) == [0, 2] and learned_seed("gowns", scene.WIDE) == [1, 2]


def test_bars_are_as_wide_on_the_left_as_on_the_right():
    # What is set behind other people is mirrored after `data.covers` has compared the two pictures' places.
    assert not [size for (_, width), aspects in scene.FRAMES.items() for size, _ in aspects if (width - size[1]) % 2]


def test_every_input_of_the_network_has_a_frame():
    assert set(scene.FRAMES) == {(HEIGHT, WIDTH), *OTHER_SIZES}
    for frame in scene.FRAMES:
        assert frame_of(frame_name(frame)) == frame
    arguments = ["shards", "--assets", "a", "--out", "o"]
    assert parser().parse_args([*arguments, "--wide"]).frame == scene.WIDE and parser().parse_args(arguments).frame == scene.UPRIGHT
    assert parser().parse_args([*arguments, "--frame", "288x160"]).frame == scene.NARROW


@needs_assets
def test_narrow_shards_are_judged_at_a_narrow_input(assets, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "Assets", lambda *_: assets)
    for name in ("288x160", "160x288"):
        arguments = ["shards", "--assets", ASSETS, "--out", str(tmp_path / name), "--frame", name, "--size", "1", "--count", "1", "--supersample", "1"]
        args = parser().parse_args(arguments)
        for _ in range(2):
            args.run(args)
        assert input_size(tmp_path / name) == frame_of(name)
        assert plain_samples(tmp_path / name, 1, frame_of(name))["parts"].shape == (1, *frame_of(name))
        assert json.loads((tmp_path / name / "settings.json").read_text())["frame"] == name


@needs_assets
def test_hands_carry_who_stands_on_them(assets):
    def pose(joints):
        world = from_directions(assets, np.random.default_rng(9), joints, on_hands(np.random.default_rng(9)))
        return {bone: about("X", 180) @ rotation for bone, rotation in world.items()}, {}

    person = LeapingPerson(assets, np.random.default_rng(8), pose)
    head, spine, thigh, *wrists, foot = person.bones[:, 1]
    assert max(wrists) < head < spine < thigh < foot


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
    pets = [draw_species(rng, pet=True) for _ in range(60)]
    assert {pet.coats for pet in pets} == {SPECIES[0].coats} and not any(pet.bird or pet.horns or pet.trunk for pet in pets)
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

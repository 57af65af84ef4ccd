"""Shards, augmentation and bad input."""

import numpy as np
import pytest
import torch

from pipeline.data import (
    BARRED,
    PADDING,
    PEOPLE,
    Batches,
    ShardError,
    Stream,
    augment,
    bars,
    choose_points,
    content,
    content_boxes,
    covers,
    draw_changes,
    flip,
    lies_behind,
    make_batch,
    merge_people,
    plain_affine,
    random_affines,
    plain_samples,
    present_rows,
    read_shard,
    restyle,
    transplant,
    warp,
)


def test_flip_exchanges_left_and_right(shard_folder):
    shard = read_shard(shard_folder / "a.npz")
    sample = shard["image"][0], shard["parts"][0], shard["person"][0]
    image, parts, _ = flip(sample)
    assert np.array_equal(image, sample[0][:, ::-1])
    assert np.array_equal(parts == 9, (sample[1] == 8)[:, ::-1])
    assert np.array_equal(flip(flip(sample))[1], sample[1])


def test_letterboxing_keeps_the_same_size_unchanged(shard_folder):
    shard = read_shard(shard_folder / "a.npz")
    sample = shard["image"][0], shard["parts"][0], shard["person"][0]
    same = warp(sample, plain_affine((256, 192), (256, 192)), (256, 192))
    assert all(np.array_equal(a, b) for a, b in zip(sample, same, strict=True))
    half = warp(sample, plain_affine((256, 192), (128, 96)), (128, 96))
    assert abs(int((half[1] == 3).sum()) * 4 - int((sample[1] == 3).sum())) < 100


def test_image_and_labels_move_together(shard_folder):
    shard = read_shard(shard_folder / "a.npz")
    rng = np.random.default_rng(5)
    picture = np.where(shard["parts"][0][..., None] > 0, 255, 0).astype(np.uint8).repeat(3, 2)
    for _ in range(20):
        state = rng.bit_generator.state
        image, parts, *_ = augment(rng, (picture, shard["parts"][0], shard["person"][0]), (128, 96))
        inside = parts > 0
        if inside.sum() > 500:
            assert image[inside].mean() > image[~inside].mean(), state


def ramps(size):
    """A sample whose picture and labels are fractions: the columns in the first channel and the parts, the rows in the second and the
    people."""
    rows, columns = (grid.astype(np.float32) for grid in np.indices(size))
    return np.stack([columns, rows, columns], -1), columns, rows


def test_picture_and_labels_show_the_same_place():
    source, target = (256, 192), (128, 96)
    maps = [*random_affines(np.random.default_rng(3), 200, source, target), plain_affine(source, (200, 150))]
    away = []
    for matrix in maps:
        image, columns, rows = warp(ramps(source), matrix, target)
        # Well within the source: at its border the picture is mixed with padding.
        inside = (columns > 8) & (columns < source[1] - 8) & (rows > 8) & (rows < source[0] - 8)
        if inside.sum() > 500:
            away.append([(label - image[..., k])[inside].mean() for k, label in enumerate((columns, rows))])
    assert len(away) > 150
    # Labels are those of the nearest pixel, up to half a pixel beside, but in the mean of a picture on no side of it.
    assert np.abs(away).mean(0).max() < 0.05 and np.abs(away).max() < 0.4


def test_bars_leave_the_middle():
    inside = bars(np.ones((256, 192), np.uint8), 0, 0.2)
    assert (inside[51:205] == 1).all() and inside.sum() == 154 * 192
    assert bars(inside, 1, 0.25)[:, 48:144].sum() == 154 * 96 == bars(inside, 1, 0.25).sum()


def test_what_a_picture_shows_ends_at_its_bars(barred_folder):
    shard = read_shard(barred_folder / "a.npz")
    boxes = content_boxes(shard["image"])
    assert boxes[:4].tolist() == [[64, 192, 0, 192], [64, 192, 0, 192], [0, 256, 24, 168], [0, 256, 0, 192]]
    assert np.array_equal(content(shard["image"][0]), (shard["image"][0] != PADDING).any(2))
    grey = np.full((1, 8, 6, 3), PADDING, np.uint8)
    assert content_boxes(grey).tolist() == [[0, 8, 0, 6]], "padding alone is a picture of its own"
    assert covers(boxes[3], boxes).all() and covers(boxes, boxes).all() and not covers(boxes[:3], boxes[3]).any()
    assert not covers(boxes[0], boxes[2]) and not covers(boxes[2], boxes[0])
    assert lies_behind(shard["image"][3], shard["image"][0]) and not lies_behind(shard["image"][0], shard["image"][3])
    assert not lies_behind(grey[0], shard["image"][0])


@pytest.mark.parametrize("mild", [False, True])
def test_padding_keeps_its_colour_whatever_a_camera_does_and_shows_nobody(barred_folder, mild):
    shard, rng, padded = read_shard(barred_folder / "a.npz"), np.random.default_rng(2), 0
    for index in list(range(8)) * 5:
        image, parts, person, inside = augment(rng, (shard["image"][index], shard["parts"][index], shard["person"][index]), (128, 96), mild)
        outside = inside == 0
        assert (image[outside] == PADDING).all() and not parts[outside].any() and not person[outside].any()
        padded += outside.mean() > 0.2
    assert padded > 10


def test_restyled_pictures_differ_in_colour_and_sharpness_only():
    rng = np.random.default_rng(0)
    image = np.zeros((64, 48, 3), np.uint8)
    image[16:48, 12:36] = (200, 120, 60)
    changes = draw_changes(rng, 40, (64, 48), (64, 48))
    changed = [restyle(rng, changes, k, image) for k in range(40)]
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    assert sum((c != image).any() for c in changed) > 15
    # The square stays where it is, and brighter than what surrounds it.
    assert all(c[28:36, 20:28].mean() > c[:8].mean() + 30 for c in changed)


def test_transplanted_people_keep_their_pixels_and_labels():
    parts = np.zeros((64, 48), np.uint8)
    parts[10:50, 10:30] = 3
    image = np.full((64, 48, 3), 200, np.uint8)
    nobody = np.zeros((64, 48), np.uint8)
    empty = (np.full((64, 48, 3), 10, np.uint8), nobody, nobody)
    mixed, mixed_parts, person = transplant(np.random.default_rng(0), (image, parts, (parts > 0).astype(np.uint8)), empty)
    assert (mixed_parts == parts).all() and (person == (parts > 0)).all()
    assert (mixed[16:44, 16:24] == 200).all() and (mixed[:5] == 10).all() and (mixed[:, 40:] == 10).all()


def test_transplanted_people_keep_their_bars(barred_folder):
    shard = read_shard(barred_folder / "a.npz")
    front, crowd = ((shard["image"][k], shard["parts"][k], shard["person"][k]) for k in (0, 3))
    # A seed that mirrors what is behind: it would be covered otherwise.
    image, parts, person = transplant(np.random.default_rng(2), front, crowd)
    inside = content(front[0]) > 0
    assert (image[~inside] == PADDING).all() and not parts[~inside].any() and not person[~inside].any()
    assert (image[inside] != front[0][inside]).any(1).mean() > 0.3 and person.max() == 2


def test_nobody_is_set_before_bars(barred_folder):
    """Pictures of one stream with bars and without: what surrounds people ends where their own picture did."""
    stream, mixed = Stream([barred_folder], 4, np.random.default_rng(0)), 0
    for _ in range(150):
        image, parts, person = stream.draw_mixed()
        inside = content(image) > 0
        assert (image[inside] != PADDING).any(1).all() and not parts[~inside].any() and not person[~inside].any()
        mixed += person.max() > 1
    assert mixed > 5


def test_people_behind_people_are_covered_and_numbered_on():
    front, behind = np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8)
    front[:, :2], behind[1:, 1:3], behind[:, 3] = 2, 1, 7
    parts, person = merge_people(front * 5, front, behind * 2, behind)
    assert (person[:, :2] == 2).all() and (parts[:, :2] == 10).all()
    assert (person[1:, 2] == 3).all() and (parts[1:, 2] == 2).all() and person[0, 2] == 0
    # A ninth person has parts and no number.
    assert (person[:, 3] == 0).all() and (parts[:, 3] == 14).all()


def test_a_stream_transplants_into_surroundings_it_has_seen(shard_folder):
    stream = Stream([shard_folder], 4, np.random.default_rng(0))
    nobody = np.zeros((256, 192), np.uint8)
    stream.empty.append((np.full((256, 192, 3), 255, np.uint8), nobody, nobody))
    white, crowded = 0, 0
    for _ in range(120):
        image, _, person = stream.draw_mixed()
        white += bool(person.any()) and bool((image[person == 0] >= 250).all(-1).mean() > 0.5)
        crowded += person.max() > 1
    assert white >= 1 and crowded >= 1


def test_batches_have_the_shapes_of_the_contract(shard_folder):
    rng = np.random.default_rng(0)
    stream = Stream([shard_folder], 4, rng)
    batch = make_batch(stream, rng, 3, (128, 96), 64)
    assert batch["pixels"].shape == (3, 128, 96, 3) and batch["pixels"].dtype == torch.uint8
    assert batch["points"].shape == (3, 64, 2) and batch["points"].abs().max() <= 1
    assert batch["present"].shape == (3, 16 + PEOPLE)


def test_a_share_of_the_batches_is_wide(shard_folder, wide_folder):
    batches = iter(Batches([shard_folder], 4, 1, 2, (128, 96), 64, [wide_folder], 0.5))
    shapes = [tuple(next(batches)["pixels"].shape) for _ in range(12)]
    assert set(shapes) == {(2, 128, 96, 3), (2, 96, 128, 3)}
    with pytest.raises(ValueError, match="--wide-shards"):
        Batches([shard_folder], 4, 1, 2, (128, 96), 64, [], 0.5)
    with pytest.raises(ValueError, match="wide=0.3"):
        Batches([shard_folder], 4, 1, 2, (128, 96), 64, [wide_folder], 0.0)


def test_points_gather_at_borders():
    parts = np.zeros((64, 48), np.uint8)
    parts[20:30, 20:30] = 3
    points = choose_points(np.random.default_rng(0), parts, parts, np.ones_like(parts), 200)
    y, x = np.divmod(points, 48)
    near = (abs(y - 25) <= 8) & (abs(x - 25) <= 8)
    assert near.mean() > 0.45
    assert present_rows(parts, (parts > 0).astype(np.uint8))[[0, 3, 16]].all()


def test_few_points_lie_on_padding():
    nobody, inside = np.zeros((64, 48), np.uint8), np.ones((64, 48), np.uint8)
    inside[:32] = 0
    points = choose_points(np.random.default_rng(0), nobody, nobody, inside, 8000)
    assert (inside.ravel()[points] == 0).mean() == pytest.approx(BARRED / (1 + BARRED), abs=0.02)


def test_new_shards_are_found(shard_folder):
    rng = np.random.default_rng(0)
    stream = Stream([shard_folder], 4, rng)
    (shard_folder / "b.npz").write_bytes((shard_folder / "a.npz").read_bytes())
    for _ in range(9):
        stream.draw()
    assert {p.name for p, _, _ in stream.open} == {"a.npz", "b.npz"}


def test_unfinished_shards_are_not_listed(shard_folder):
    (shard_folder / "c.npz.tmp").write_bytes(b"half")
    assert [p.name for p in Stream([shard_folder], 4, np.random.default_rng(0)).known()] == ["a.npz"]


def test_bad_shards_say_which_and_what_to_do(shard_folder, tmp_path_factory):
    data = (shard_folder / "a.npz").read_bytes()
    (shard_folder / "a.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(ShardError, match="a.npz.*render it again"):
        read_shard(shard_folder / "a.npz")
    for content in (b"", b"no archive", data[:100] + bytes(8) * 40 + data[420:]):
        (shard_folder / "a.npz").write_bytes(content)
        with pytest.raises(ShardError, match="a.npz.*render it again"):
            read_shard(shard_folder / "a.npz")
    with pytest.raises(ShardError, match="typo is not a folder"):
        Stream([shard_folder, shard_folder / "typo"], 4, np.random.default_rng(0))
    with pytest.raises(ShardError, match="no shards"):
        Stream([tmp_path_factory.mktemp("none")], 4, np.random.default_rng(0))


def test_plain_samples_carry_their_records(shard_folder):
    samples = plain_samples(shard_folder, 5, (256, 192))
    assert samples["image"].shape == (5, 256, 192, 3) and samples["meta"][0] == {"people": 1}
    # A folder of many shards is not read to its end for a few pictures.
    (shard_folder / "b.npz").write_bytes(b"never opened")
    assert len(plain_samples(shard_folder, 8, (256, 192))["image"]) == 8


def test_whoever_is_turned_by_a_quarter_stays_in_the_picture_as_often_as_the_upright():
    """Head and feet, at a tenth and nine tenths of the height."""
    maps = random_affines(np.random.default_rng(0), 60_000, (256, 192), (256, 192))
    turn = np.abs(np.degrees(np.arctan2(-maps[:, 1, 0], maps[:, 1, 1])))
    places = maps @ np.array([[96, 25.6, 1], [96, 230.4, 1]]).T
    seen = ((places >= 0) & (places < np.array([192, 256])[:, None])).all(1)
    upright, quarter = seen[turn < 30], seen[np.abs(turn - 90) < 15]
    assert len(quarter) > 1_500 and (turn > 120).sum() > 200, "some are upside down"
    assert abs(upright.all(1).mean() - quarter.all(1).mean()) < 0.05
    assert abs(upright.any(1).mean() - quarter.any(1).mean()) < 0.05

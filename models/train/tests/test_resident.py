"""Augmentation of whole batches against that of single pictures, and samples that stay in memory."""

import errno
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline import data
from pipeline.data import BARRED, PADDING, PEOPLE, ShardError, content_boxes, covers, draw_changes, plain_affine, without_styles
from pipeline.resident import Resident, apply_changes, choose_points, merge_people, numbers_of, present_rows
from pipeline.transfer import Fetched, send

SOURCE, TARGET = (256, 192), (128, 96)


@pytest.fixture
def pictures():
    """Smooth pictures (N, H, W, 3), some between bars, with labels in blocks: what interpolation does at edges must not decide a test."""
    rng = np.random.default_rng(4)
    smooth = [data.cv2.resize(rng.integers(20, 236, (5, 4, 3)).astype(np.uint8), SOURCE[::-1]) for _ in range(24)]
    parts = rng.integers(0, 16, (24, 8, 6)).astype(np.uint8).repeat(32, 1).repeat(32, 2)
    images = np.stack(smooth)
    images[:6, :32] = images[:6, -32:] = PADDING
    parts[:6, :32] = parts[:6, -32:] = 0
    return images, parts, (parts > 5).astype(np.uint8)


def quiet(changes):
    """The changes without noise, whose draws differ, and without a change of hue, which is another formula."""
    zeros = np.zeros(len(changes.noise))
    return replace(changes, noise=zeros, hue=zeros)


def both(pictures, changes):
    """The same changes applied to single pictures and to the batch."""
    image, parts, person = pictures
    single = [data.change(np.random.default_rng(0), changes, k, (image[k], parts[k], person[k]), TARGET) for k in range(len(image))]
    tensors = (torch.from_numpy(image).permute(0, 3, 1, 2).float(), torch.from_numpy(parts), torch.from_numpy(person))
    sent = send(numbers_of(changes, content_boxes(image), SOURCE, TARGET), torch.device("cpu"))
    batch = apply_changes(*tensors, sent, TARGET, torch.Generator())
    return [np.stack(s) for s in zip(*single, strict=True)], [b.numpy() for b in batch]


def test_a_batch_is_changed_as_single_pictures_are(pictures):
    changes = quiet(draw_changes(np.random.default_rng(1), 24, SOURCE, TARGET))
    single, batch = both(pictures, changes)
    for ours, theirs in zip(batch[1:], single[1:], strict=True):
        assert (ours == theirs).mean() > 0.985
    difference = np.abs(batch[0].transpose(0, 2, 3, 1) * 255 - single[0])
    # OpenCV rounds after every step and reads at thirty-seconds of a pixel.
    assert np.median(difference) < 1 and np.percentile(difference, 98) < 6


def test_padding_keeps_its_colour_in_a_batch_and_shows_nobody(pictures):
    _, (image, parts, person, inside) = both(pictures, draw_changes(np.random.default_rng(3), 24, SOURCE, TARGET))
    assert np.allclose(image.transpose(0, 2, 3, 1)[~inside], PADDING / 255, atol=1e-6) and not (parts | person)[~inside].any()
    assert (~inside).mean() > 0.1


def test_a_turned_hue_keeps_brightness_and_changes_colour(pictures):
    changes = draw_changes(np.random.default_rng(2), 24, SOURCE, TARGET)
    still = quiet(changes)
    turned = replace(still, hue=np.full(24, 12.0))
    _, before = both(pictures, still)
    _, after = both(pictures, turned)
    grey = lambda x: x[0].transpose(0, 2, 3, 1) @ np.array([0.299, 0.587, 0.114])
    coloured = ~changes.grey
    assert np.abs(grey(before) - grey(after)).mean() < 0.01
    assert np.abs(before[0] - after[0])[coloured].mean() > 0.01


def gathered(held, slots):
    """Pictures and labels of some slots, people before others now and then."""
    return held.gather(send(held.draw_behind(slots), held.device))


def test_what_is_sent_arrives_in_its_shape_and_kind():
    rng = np.random.default_rng(0)
    arrays = {
        "rows": np.zeros(0, np.int64),
        "flip": rng.random(5) < 0.5,
        "maps": rng.normal(size=(5, 2, 3)).astype(np.float32)[:, :, ::-1],
        "slots": rng.integers(9, size=7),
        "labels": rng.integers(256, size=(3, 4)).astype(np.uint8),
    }
    sent = send(arrays, torch.device("cpu"))
    assert list(sent) == list(arrays)
    for name, array in arrays.items():
        assert sent[name].numpy().dtype == array.dtype and np.array_equal(sent[name].numpy(), array), name
    fetched = Fetched(*sent.values())
    assert fetched.here() and all(a is b for a, b in zip(fetched.wait(), sent.values(), strict=True))


def test_mild_pictures_look_as_they_were_rendered(shard_folder):
    changes = draw_changes(np.random.default_rng(0), 400, SOURCE, SOURCE, mild=True)
    turn = np.degrees(np.arctan2(-changes.matrix[:, 1, 0], changes.matrix[:, 1, 1]))
    zoom = np.sqrt(np.linalg.det(changes.matrix[:, :, :2]))
    assert np.abs(turn).max() < 40 and zoom.min() > 0.7 and zoom.max() < 1.5
    assert 120 < changes.flip.sum() < 280 and changes.gain.std() > 0.1
    assert (changes.bar_axis == -1).all() and not changes.grey.any() and (changes.colour == 1).all()
    assert not (changes.hue.any() or changes.sharpen.any() or changes.noise.any())
    held = Resident([shard_folder], 8, "cpu", 0)
    held.refill()
    assert not len(held.draw_behind(np.zeros(64, np.int64), mild=True)["moved"])
    batch = held.batch(8, (128, 96), 64, True)
    assert batch["pixels"].shape == (8, 3, 128, 96) and 0 <= batch["pixels"].min() and batch["pixels"].max() <= 1


def test_points_and_rows_are_those_of_single_pictures(pictures):
    _, parts, person = pictures
    parts = parts.copy()
    parts[0], parts[1] = 0, 0
    parts[1, 5, 5] = 3
    rows = present_rows(torch.from_numpy(parts), torch.from_numpy(person)).numpy()
    for k in range(len(parts)):
        assert np.array_equal(rows[k], data.present_rows(parts[k], person[k]))
    inside = torch.ones(parts.shape, dtype=torch.bool)
    points = choose_points(torch.from_numpy(parts), torch.from_numpy(parts), inside, 400, torch.Generator().manual_seed(0))
    assert points.shape == (24, 400) and points.min() >= 0 and points.max() < 256 * 192
    y, x = np.divmod(points[2, 200:].numpy(), 192)
    spread = [len(np.unique(parts[2, max(0, a - 2) : a + 3, max(0, b - 2) : b + 3])) for a, b in zip(y, x, strict=True)]
    assert min(spread) > 1
    # Fewer border pixels than that are no border: the whole picture is drawn from.
    assert len(points[0, 200:].unique()) > 150
    inside[:, :128] = False
    points = choose_points(torch.from_numpy(0 * parts), torch.from_numpy(0 * parts), inside, 400, torch.Generator().manual_seed(0))
    assert (points < 128 * 192).float().mean() == pytest.approx(BARRED / (1 + BARRED), abs=0.02)


def test_shards_are_taken_once_and_late_ones_catch_up(shard_folder):
    held = Resident([shard_folder], 12, "cpu", 0)
    held.refill()
    held.refill()
    assert held.count == 8 and held.empty.sum() == 2
    for _ in range(5):
        batch = held.batch(8, (128, 96), 64)
    assert batch["pixels"].shape == (8, 3, 128, 96) and 0 <= batch["pixels"].min() and batch["pixels"].max() <= 1
    assert batch["points"].shape == (8, 64, 2) and batch["points"].abs().max() <= 1
    assert batch["present"].shape == (8, 16 + PEOPLE) and batch["parts"].dtype == torch.uint8
    (shard_folder / "b.npz").write_bytes((shard_folder / "a.npz").read_bytes())
    held.refill()
    # Twelve places for sixteen samples: the first four made way.
    assert held.count == 12 and held.uses[8:].sum() == 0 and held.uses[:4].sum() == 0
    for _ in range(6):
        held.batch(8, (128, 96), 64)
    assert held.uses[[*range(4), *range(8, 12)]].min() >= 4


def test_a_shard_that_cannot_be_removed_ends_nothing(shard_folder, monkeypatch, capsys):
    shutil.copy(shard_folder / "a.npz", shard_folder / "b.npz")

    def refuse(path, missing_ok=False):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "unlink", refuse)
    held = Resident([shard_folder], 64, "cpu", 0, True)
    held.refill()
    assert held.arrived == 16
    assert "b.npz" in capsys.readouterr().err


@pytest.mark.parametrize("delete", [True, False])
def test_shards_that_were_taken_go_where_that_is_asked_for(shard_folder, wide_folder, delete):
    """All but the first of each folder, and none that is not here yet."""
    whole, other = (shard_folder / "a.npz").read_bytes(), shard_folder / "other"
    other.mkdir()
    held = Resident([shard_folder, other], 64, "cpu", 0, delete)
    for folder, names in ((shard_folder, "bc"), (other, "abc")):
        for name in names:
            (folder / f"{name}.npz").write_bytes(whole)
    held.refill()
    left = ["a.npz"] if delete else ["a.npz", "b.npz", "c.npz"]
    for folder in (shard_folder, other):
        assert sorted(path.name for path in folder.glob("*.npz")) == left
    (other / "d.npz").write_bytes((wide_folder / "a.npz").read_bytes())
    with pytest.raises(ShardError, match="d.npz: pictures of"):
        held.refill()
    assert (other / "d.npz").exists() and held.arrived == 48


def test_people_stand_in_other_surroundings_now_and_then(shard_folder):
    held = Resident([shard_folder], 8, "cpu", 0)
    held.refill()
    held.image[torch.from_numpy(np.flatnonzero(held.empty))] = 255
    images, _, person = gathered(held, np.zeros(64, np.int64))
    white = [(image[:, mask == 0] > 250).float().mean() > 0.5 for image, mask in zip(images, person, strict=True)]
    assert 4 < sum(white) < 32


def test_nobody_is_set_before_bars(barred_folder):
    held = Resident([barred_folder], 8, "cpu", 0)
    held.refill()
    many, slots = np.tile(np.arange(8), 60), np.tile(np.arange(8), 5)
    drawn = held.draw_behind(many)
    front, behind = held.box[many[drawn["moved"]]], held.box[drawn["other"]]
    assert covers(behind, front).all() and (behind != front).any(1).sum() > 10 and len(drawn["moved"]) > 100
    drawn = held.draw_behind(slots)
    changes = without_styles(draw_changes(np.random.default_rng(0), len(slots), SOURCE, SOURCE))
    same, zero = np.ones(len(slots)), np.zeros(len(slots), bool)
    matrix = np.tile(plain_affine(SOURCE, SOURCE), (len(slots), 1, 1))
    changes = replace(changes, matrix=matrix, flip=zero, gain=np.ones((len(slots), 3)), gamma=same, contrast=same)
    sent = send(drawn | numbers_of(changes, held.box[slots], SOURCE, SOURCE), held.device)
    image, parts, person, inside = apply_changes(*held.gather(sent), sent, SOURCE, held.generator)
    assert torch.equal(inside, (image * 255).round().ne(PADDING).any(1)) and not (parts | person)[~inside].any()
    assert any(p.max() > 1 for p in person)


def test_who_fills_the_picture_stays_where_all_others_have_bars(barred_folder):
    held = Resident([barred_folder], 8, "cpu", 0)
    held.refill()
    held.box[:] = held.box[0]
    held.box[3] = (0, 256, 0, 192)
    held.empty[:] = False
    slots = np.full(200, 3)
    assert set(held.draw_behind(slots).get("other", [])) <= {3}
    held.count = 3
    assert not len(held.draw_behind(slots)["moved"])


def test_a_batch_shows_no_picture_twice_where_there_are_enough(shard_folder):
    held = Resident([shard_folder], 8, "cpu", 0)
    held.count, held.uses = 1000, np.zeros(1000, np.int64)
    assert len(set(held.choose(320))) == 320
    held.count = 4
    assert len(held.choose(8)) == 8


def test_people_mingle_without_a_place_that_has_none(shard_folder):
    shard = dict(np.load(shard_folder / "a.npz"))
    crowd = shard_folder / "crowd"
    crowd.mkdir()
    meta = shard.pop("meta")
    np.savez(crowd / "a.npz", meta=str(meta).replace(', {"people": 0}', ""), **{k: v[:6] for k, v in shard.items()})
    held = Resident([crowd, shard_folder], 14, "cpu", 0)
    assert [p.parent.name == "crowd" for p in held.waiting()] == [True, False]
    held = Resident([crowd], 6, "cpu", 0)
    held.refill()
    _, _, person = gathered(held, np.zeros(64, np.int64))
    assert not held.empty.any() and 3 < sum(int(p.max()) > 1 for p in person) < 30


def test_people_are_merged_as_in_single_pictures(pictures):
    rng = np.random.default_rng(8)
    person = rng.integers(0, 6, (12, 8, 6)).astype(np.uint8).repeat(32, 1).repeat(32, 2)
    sides = [pictures[1][:12] * (person > 0), person, pictures[1][12:], pictures[2][12:] * 7]
    merged = merge_people(*(torch.from_numpy(side) for side in sides))
    for k in range(12):
        for ours, theirs in zip(merged, data.merge_people(*(side[k] for side in sides)), strict=True):
            assert np.array_equal(ours[k].numpy(), theirs)


def test_bad_shards_stop_the_run(shard_folder, tmp_path_factory):
    with pytest.raises(ShardError, match="no shards"):
        Resident([tmp_path_factory.mktemp("none")], 4, "cpu", 0).batch(1, (128, 96), 8)
    with pytest.raises(ShardError, match="not a folder"):
        Resident([shard_folder / "typo"], 4, "cpu", 0)
    held = Resident([shard_folder], 8, "cpu", 0)
    held.refill()
    held.watch(0.01)
    (shard_folder / "b.npz").write_bytes(b"no archive")
    with pytest.raises(ShardError, match="b.npz.*render it again"):
        for _ in range(1000):
            held.batch(1, (128, 96), 8)

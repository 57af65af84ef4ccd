"""The model card: every figure in it comes from a log or from measured scores."""

import copy
import json
import tomllib
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline.card import PHOTOGRAPHS, card, comparable, curve, faults_of, headlines, read_log, run_sentence
from pipeline.evaluate import evaluate, group_keys, prediction_sheet, shown_pictures
from render.classes import PARTS


def steps(*scores):
    """A log whose seven-class mIoU goes through `scores`, 10,000 pictures and ten minutes apart."""
    val = lambda miou: {"miou": miou / 2, "ppp_miou": miou, "person_iou": miou + 10}
    return [
        {"event": "step", "seen": 10_000 * (k + 1), "seconds": 600 * (k + 1), "val": val(miou)}
        for k, miou in enumerate(scores)
    ]


def test_a_run_that_still_climbs_is_called_undertrained():
    text = run_sentence(steps(*range(30, 50)))
    assert "200,000 augmented pictures in 200 minutes" in text
    assert "The last tenth of the" in text and "by +2.0 points" in text and "undertrained" in text


def test_scores_that_lie_far_apart_are_not_called_a_tenth():
    assert "The last 25 % of the" in run_sentence(steps(30, 40, 50, 60))


def test_a_run_that_ended_flat_names_its_schedule_and_its_origin():
    origin = {"event": "origin", "weights": "start.pt"}
    log = [origin, *steps(30, 40, *[50] * 18)]
    assert "stopped before its schedule ended" in run_sentence(log)
    log[-1] |= {"event": "stop", "finished": True}
    text = run_sentence(log)
    assert text.startswith("It began from start.pt.") and "schedule had ended" in text and "processor cores" in text
    gpu = {"event": "start", "device": "NVIDIA H200"}
    assert "in 50 minutes on one or two processor cores that other work shared and 150 minutes on an NVIDIA H200." in run_sentence(
        [*log[:6], gpu, *log[6:]]
    )
    assert "too short" in run_sentence(steps(30))
    with pytest.raises(ValueError, match="no score"):
        run_sentence([origin])


def test_scores_on_other_validation_pictures_are_not_compared():
    changed = {"event": "validation", "why": "other scenes"}
    log = [*steps(*range(30, 50)), changed, *steps(*[20 + k / 100 for k in range(20)])]
    for record in log[21:]:
        record["seen"] += 200_000
    text = run_sentence(log)
    assert "last tenth of the part that was scored on the same pictures moved the seven-class mIoU by +0.0 points" in text


def test_the_digest_of_the_validation_pictures_parts_the_log():
    start = lambda digest: {"event": "start", "device": "cpu"} | ({"validation": digest} if digest else {})
    older, later = steps(*range(30, 50)), steps(*[20 + k / 100 for k in range(20)])
    for record in later:
        record["seen"] += 200_000
    for one, other, parted in (("a", "b", True), ("a", "a", False), (None, None, False), (None, "a", True)):
        kept, since, _ = comparable([start(one), *older, start(other), *later])
        assert (len(kept), since) == ((20, 200_000) if parted else (40, 0)), (one, other)
    assert len(comparable([start("a"), start("b"), *older])[0]) == 20, "nothing was scored before"


def test_a_run_from_another_runs_weights_counts_on(tmp_path):
    log = tmp_path / "runs.jsonl"
    origin = {"event": "origin", "weights": "grown.pt", "seen": 30_000}
    log.write_text("\n".join(json.dumps(r) for r in [*steps(30, 40, 45), origin, *steps(46, 47)]) + "\n")
    records = [r for r in read_log(log) if r["event"] == "step"]
    assert [r["seen"] for r in records] == [10_000, 20_000, 30_000, 40_000, 50_000]
    assert [r["seconds"] for r in records] == [600, 1200, 1800, 2400, 3000]


def test_a_run_that_began_twice_or_third_in_a_chain_is_counted_right(tmp_path):
    log = tmp_path / "runs.jsonl"
    origin = lambda seen: {"event": "origin", "weights": "w.pt", "seen": seen}
    rows = [*steps(30, 40), origin(20_000), *steps(41), origin(20_000), *steps(42, 43), origin(40_000), *steps(44)]
    log.write_text("\n".join(json.dumps(r) for r in rows) + "\n")
    records = [r for r in read_log(log) if r["event"] == "step"]
    assert [r["seen"] for r in records] == [10_000, 20_000, 30_000, 30_000, 40_000, 50_000]
    assert [r["seconds"] for r in records] == [600, 1200, 1800, 1800, 2400, 3000]
    log.write_text(json.dumps(rows[0]) + "\n" + json.dumps(rows[1])[:-9] + "\n")
    with pytest.raises(ValueError, match="runs.jsonl, line 2"):
        read_log(log)


def test_groups_do_not_hang_on_the_first_picture():
    meta = [{"view": "mirror"}, {"view": "mirror", "tone": 1}, {"view": "mirror", "tone": 2}, {"view": "mirror", "tone": None}]
    assert group_keys(meta) == ["tone"]


@pytest.fixture
def scores():
    """Scores of a guess that takes a third of the people's pixels for background."""
    rng = np.random.default_rng(0)
    truth = np.repeat(rng.integers(0, len(PARTS), (6, 8, 6)).astype(np.uint8), 4, 1)
    truth[5] = 0
    guess = np.where(rng.random(truth.shape) < 1 / 3, 0, truth).astype(np.uint8)
    lights, distances = ("bright", "dark"), ("over 3 m", "under 1.5 m")
    meta = [
        {"tone": k % 2, "seed": k * 77, "place": "kitchen", "people": (1, 3)[k == 3], "light": lights[k % 2], "distance": distances[k % 2]}
        for k in range(6)
    ]
    image = rng.integers(0, 256, (*truth.shape, 3)).astype(np.uint8)
    samples = {"image": image, "parts": truth, "person": (truth > 0).astype(np.uint8), "meta": meta}
    return evaluate(samples, guess, samples["person"])


INFO = {"name": "student", "version": "9.9", "parameters": 2.4, "macs": 0.68, "trunk": 2_600_000}
INFO |= {"log": "runs/student.jsonl", "recipe": "recipes/student.json"}


@pytest.fixture
def log(tmp_path):
    path = tmp_path / "student.jsonl"
    path.write_text("\n".join(json.dumps(r) for r in steps(30, 40, 45)) + "\n")
    return path


@pytest.fixture
def files(scores):
    """The same scores for every set, and those of photographs."""
    photographs = {"a set": {"pictures": 7, "silhouette IoU": 0.512}} | {name: {"pictures": 9, key: 0.25} for name, key, _ in PHOTOGRAPHS}
    kinds = ("int8", "float", "wide", "wide_upright", "tones", "outfits", "gowns", "moves", "leaps", "things")
    again = {name: {key: 2 * value if isinstance(value, float) else value for key, value in one.items()} for name, one in photographs.items()}
    return {name: scores for name in kinds} | {"photographs": photographs, "photographs_again": again}


def test_the_card_holds_the_scores_and_the_curve_the_log(scores, files, log):
    before = headlines("9.8", files)
    before["scenes"]["int8"]["ppp_miou"] = 12.34
    before["photographs"] = dict.fromkeys(before["photographs"], 0.125)
    text = card(INFO, files, before, log, "sheet.jpg", "- A fault.")
    assert f"| seven-class mIoU, rendered test scenes | 80 | {scores['ppp_miou']:.1f}; 9.8 had 12.3 |" in text
    assert f"| the test scenes (6) | 12.3, {scores['person_iou']:.1f} | {scores['ppp_miou']:.1f}, {scores['person_iou']:.1f} |" in text
    assert "| nobody: false-alarm pixels (9) | 12.5 | 25.0 |" in text and "| trunk file | 3 MB | 2.60 MB |" in text
    assert "- Left and right are exchanged on one limb pixel in " in text and json.loads(json.dumps(before)) == before
    assert f"| mIoU, seven classes | {scores['ppp_miou']:.2f} |" in text
    assert all(f"| {name} | {scores['iou'][name]:.1f} |" in text for name in PARTS)
    assert text.count("| tone |") == 2 and "### Skin tone alone" in text
    assert "| a set | 7 | silhouette IoU | 51.2 % | 102.4 % |" in text
    assert "| 0.5, at most 3 | 50.0 looked at again, at one look 25.0; 9.8 had 12.5 |" in text
    assert f"| 192 x 256 | {scores['miou']:.1f} | {scores['ppp_miou']:.1f} |" in text
    assert "| kitchen | 1 | 0.00 |" in text and "### A richer wardrobe, more poses" in text
    assert f"| long clothes | {scores['images']} | {scores['miou']:.1f} |" in text
    assert all(f"| {kind} | {scores['images']} | {scores['miou']:.1f} |" in text for kind in ("moves", "leaps"))
    alone = scores["groups"]["people"]["1"]["person_iou"]
    assert f"the person IoU is {alone:.1f}, and with all pictures counted {scores['person_iou']:.1f}." in text
    assert "- A fault." in text and "sheet.jpg" in text
    assert curve(log).count("<polyline") == 3
    assert len(read_log(log)) == 3
    assert "On the same rendered scenes," in text and "16 to 9" not in text and "### Looked at again" not in text
    once = {"images": 3, "miou": 0.606, "person_iou": 0.882, "pixel_accuracy": 0.961, "false_alarms": 0.001}
    files |= {"detail_once": once, "detail_again": once | {"miou": 0.648}}
    assert "| mIoU, 16 classes | 60.6 | 64.8 |" in card(INFO, files, before, log, "sheet.jpg", "- A fault.")
    files["detail_again"]["images"] = 2
    with pytest.raises(ValueError, match="3 detailed scenes were looked at once and 2 again"):
        card(INFO, files, before, log, "sheet.jpg", "- A fault.")


def test_versions_are_compared_on_the_same_pictures_only(files, log):
    made = lambda before: card(INFO, files, before, log, "sheet.jpg", "- A fault.")
    kept = headlines("9.8", files)
    assert all(len(one["digest"]) == 64 for one in kept["scenes"].values())
    for path, value, says in (
        (("scenes", "moves", "images"), 7, "moves: 6 scenes are scored, and 7 of 9.8"),
        (("scenes", "gowns", "digest"), 64 * "0", "long clothes: other pictures or labels are scored than of 9.8"),
        (("pictures", "nobody: false-alarm pixels"), 8, "nobody: false-alarm pixels: 9 photographs are scored, and 8 of 9.8"),
    ):
        before = copy.deepcopy(kept)
        place = before
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(ValueError, match=says):
            made(before)
    before = copy.deepcopy(kept)
    for one in before["scenes"].values():
        del one["digest"]
    text = made(before)
    assert "as many rendered scenes of each kind (no digest was kept with 9.8" in text and "On the same rendered scenes," not in text
    del files["photographs_again"]["a set"]
    with pytest.raises(ValueError, match="one look and of more are not the same sets"):
        made(kept)
    files["photographs_again"] = files["photographs_again"] | {"a set": files["photographs"]["a set"]}
    files["float"] = files["float"] | {"digest": 64 * "0"}
    with pytest.raises(ValueError, match="in int8 and in float are of other pictures"):
        made(kept)


def test_scores_know_the_pictures_and_labels_they_are_of(tmp_path):
    samples = {name: np.zeros((2, 4, 3, *rest), np.uint8) for name, rest in (("image", (3,)), ("parts", ()), ("person", ()))} | {"meta": [{}, {}]}
    of = lambda samples: evaluate(samples, samples["parts"], samples["person"])["digest"]
    first = of(samples)
    for name in ("image", "parts", "person"):
        other = samples | {name: samples[name].copy()}
        other[name][1, 2, 1] = 1
        assert of(other) != first == of(samples), name


def test_narrow_inputs_have_rows_where_they_were_scored(scores, files, log):
    before = headlines("9.8", files)
    files |= {"narrow": scores, "narrow_wide": scores}
    text = card(INFO, files, before, log, "sheet.jpg", "- A fault.")
    for title in ("narrow, 288 x 160", "narrow on its side, 160 x 288"):
        assert f"| {title}: the same 6 scenes before a camera of 16 to 9 | {scores['miou']:.1f} | {scores['ppp_miou']:.1f} |" in text
        assert f"| {title} (6) |" not in text, "the version before has none"
    text = card(INFO, files, headlines("9.8", files), log, "sheet.jpg", "- A fault.")
    assert "| narrow, 288 x 160 (6) |" in text and "| narrow on its side, 160 x 288 (6) |" in text


def test_what_was_seen_of_one_version_is_not_said_of_another():
    assert faults_of("version = 9.9\n\n- A fault.\n", "9.9", "f.md") == "- A fault."
    with pytest.raises(ValueError, match="f.md is of 9.8 and not of 9.9; write what was seen of 9.9"):
        faults_of("version = 9.8\n\n- A fault.\n", "9.9", "f.md")
    with pytest.raises(ValueError, match="f.md begins with '- A fault.'; its first line must be `version = 9.9`"):
        faults_of("- A fault.\n", "9.9", "f.md")


def test_what_is_shipped_is_of_one_version():
    train = Path(__file__).resolve().parent.parent
    student = train.parent / "student"
    version = tomllib.loads((student / "manifest.toml").read_text())["version"]
    text = (student / "CARD.md").read_text()
    assert text.startswith(f"# Model card: student {version}\n")
    assert json.loads((train / "runs" / "scores.json").read_text())["version"] == version
    assert faults_of((train / "runs" / "faults.md").read_text(), version, "faults.md") in text


def test_what_photographs_decided_is_told_alike_everywhere():
    root = Path(__file__).resolve().parents[3]
    said = (
        "None of them is in the training or the calibration, and no value of a setting, no bias and no checkpoint was chosen by a score on them; "
        "that the radius of the guide (`firmware/vision/src/guide.rs`) needed a second look was seen on them, and its value was chosen on renders."
    )
    for path in ("models/train/README.md", "models/student/CARD.md", "tests/peers/photographs.py"):
        assert said in " ".join((root / path).read_text().split()), path


def test_pictures_of_nobody_are_not_the_worst_for_a_single_pixel():
    truth = np.zeros((6, 10, 10), np.uint8)
    truth[:3, 2:8, 2:8] = 3
    guess = truth.copy()
    guess[0, 2:4, 2:8], guess[1, 2:7, 2:8], guess[2, 2, 2] = 0, 4, 0  # 12, 30 and 1 of 36
    guess[3, 0, 0], guess[4, :4] = 3, 3  # 1 and 40 of nobody
    random, somebody, nobody = shown_pictures(truth, guess, 2)
    assert len(random) == 2 and list(somebody) == [1, 0] and list(nobody) == [4, 3]
    assert [list(row) for row in shown_pictures(truth[:1], guess[:1], 1)] == [[0], [0]]


def test_the_sheet_has_a_row_of_each_kind(tmp_path):
    parts = np.zeros((5, 8, 6), np.uint8)
    parts[:4, 2:6, 2:4] = 3
    samples = {"image": np.full((5, 8, 6, 3), 90, np.uint8), "parts": parts}
    prediction_sheet(samples, parts, tmp_path / "sheet.png", 3)
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (3 * 3 * 4, 3 * 3, 3)

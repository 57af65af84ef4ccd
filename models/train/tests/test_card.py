"""The model card: every figure in it comes from a log or from measured scores."""

import json

import numpy as np
import pytest

from pipeline.card import PHOTOGRAPHS, card, comparable, curve, headlines, read_log, run_sentence
from pipeline.evaluate import evaluate, group_keys
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
    samples = {"parts": truth, "person": (truth > 0).astype(np.uint8), "meta": meta}
    return evaluate(samples, guess, samples["person"])


def test_the_card_holds_the_scores_and_the_curve_the_log(scores, tmp_path):
    log = tmp_path / "student.jsonl"
    log.write_text("\n".join(json.dumps(r) for r in steps(30, 40, 45)) + "\n")
    info = {"name": "student", "version": "9.9", "parameters": 2.4, "macs": 0.68, "trunk": 2_600_000, "log": "runs/student.jsonl"}
    info["recipe"] = "recipes/student.json"
    photographs = {"a set": {"pictures": 7, "silhouette IoU": 0.512}} | {name: {"pictures": 9, key: 0.25} for name, key, _ in PHOTOGRAPHS}
    kinds = ("int8", "float", "wide", "wide_upright", "tones", "outfits", "gowns", "moves", "leaps", "things")
    files = {name: scores for name in kinds} | {"photographs": photographs}
    before = headlines("9.8", files)
    before["scenes"]["int8"]["ppp_miou"] = 12.34
    before["photographs"] = dict.fromkeys(before["photographs"], 0.125)
    text = card(info, files, before, log, "sheet.jpg", "- A fault.")
    assert f"| seven-class mIoU, rendered test scenes | 80 | {scores['ppp_miou']:.1f}; 9.8 had 12.3 |" in text
    assert f"| the test scenes (6) | 12.3, {scores['person_iou']:.1f} | {scores['ppp_miou']:.1f}, {scores['person_iou']:.1f} |" in text
    assert "| nobody: false-alarm pixels (9) | 12.5 | 25.0 |" in text and "| trunk file | 3 MB | 2.60 MB |" in text
    assert "- Left and right are exchanged on one limb pixel in " in text and json.loads(json.dumps(before)) == before
    assert f"| mIoU, seven classes | {scores['ppp_miou']:.2f} |" in text
    assert all(f"| {name} | {scores['iou'][name]:.1f} |" in text for name in PARTS)
    assert text.count("| tone |") == 2 and "### Skin tone alone" in text
    assert "| a set | 7 | silhouette IoU | 51.2 % |" in text
    assert f"| 192 x 256 | {scores['miou']:.1f} | {scores['ppp_miou']:.1f} |" in text
    assert "| kitchen | 1 | 0.00 |" in text and "### A richer wardrobe, more poses" in text
    assert f"| long clothes | {scores['images']} | {scores['miou']:.1f} |" in text
    assert all(f"| {kind} | {scores['images']} | {scores['miou']:.1f} |" in text for kind in ("moves", "leaps"))
    alone = scores["groups"]["people"]["1"]["person_iou"]
    assert f"the person IoU is {alone:.1f}, and with all pictures counted {scores['person_iou']:.1f}." in text
    assert "- A fault." in text and "sheet.jpg" in text
    assert curve(log).count("<polyline") == 3
    assert len(read_log(log)) == 3
    before["scenes"]["moves"]["images"] = 7
    with pytest.raises(ValueError, match="moves: 6 scenes are scored, and 7 of 9.8"):
        card(info, files, before, log, "sheet.jpg", "- A fault.")

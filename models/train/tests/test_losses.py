"""Matching and losses against cases worked out by hand."""

import itertools

import numpy as np
import torch

from pipeline.config import NO_OBJECT, PERSON, TrainConfig
from pipeline.data import PEOPLE
from pipeline.metrics import IGNORE
from pipeline.losses import (
    Targets,
    build_targets,
    class_loss,
    jaccard_loss,
    jaccard_steps,
    mask_losses,
    match_layers,
    pair_costs,
    point_chances,
    point_scores,
    prior_cost,
    sample_features,
    semantic_loss,
)

CONFIG = TrainConfig()


def made_targets(batch=2, points=64, seed=0):
    rng = np.random.default_rng(seed)
    parts = torch.from_numpy(rng.integers(0, 4, (batch, points)).astype(np.uint8))
    person = (parts > 0).to(torch.uint8)
    present = torch.zeros(batch, 16 + PEOPLE, dtype=torch.bool)
    present[:, :4], present[:, 16] = True, True
    return build_targets(parts, person, present)


def test_targets_have_one_row_per_class_and_person():
    targets = made_targets()
    assert targets.masks.shape == (2, 24, 64)
    assert targets.classes[3] == 3 and targets.classes[16] == PERSON
    assert torch.equal(targets.masks[:, :16].sum(1), torch.ones(2, 64))
    assert torch.equal(targets.masks[:, 16], 1 - targets.masks[:, 0])


def test_a_perfect_prediction_matches_itself_and_costs_nothing():
    targets = made_targets()
    rows = torch.tensor([16, 2, 0, 3, 1])
    points = (targets.masks[:, rows] * 2 - 1) * 30
    logits = torch.full((2, 5, 18), -20.0)
    logits[:, torch.arange(5), targets.classes[rows]] = 20.0
    matches = match_layers([(logits, points)], targets, CONFIG)[0]
    assert torch.equal(matches.target, rows[matches.query])
    assert len(matches.image) == 10
    bce, dice = mask_losses(
        points[matches.image, matches.query], targets.masks[matches.image, matches.target], targets.valid[matches.image]
    )
    assert bce < 1e-6 and dice < 1e-3
    assert class_loss(logits, targets, matches, 0.1) < 1e-6
    assert semantic_loss(point_chances(logits, points), targets) < 0.02


def test_the_matching_is_the_cheapest_of_all():
    torch.manual_seed(1)
    targets = made_targets(batch=1, points=32)
    logits, points = torch.randn(1, 5, 18), torch.randn(1, 5, 32)
    cost = pair_costs(logits, points, targets, CONFIG)[0][:, targets.present[0]]
    best = min(sum(float(cost[q, t]) for t, q in enumerate(order)) for order in itertools.permutations(range(5), 5))
    matches = match_layers([(logits, points)], targets, CONFIG)[0]
    rows = torch.nonzero(targets.present[0])[:, 0].tolist()
    found = sum(float(cost[q, rows.index(int(t))]) for q, t in zip(matches.query, matches.target, strict=True))
    assert abs(found - best) < 1e-4


def test_pair_costs_equal_the_losses_of_each_pair():
    torch.manual_seed(2)
    targets = made_targets(batch=1)
    targets.valid[:, ::3] = 0
    logits, points = torch.randn(1, 3, 18), torch.randn(1, 3, 64)
    cost = pair_costs(logits, points, targets, CONFIG)
    bce, dice = mask_losses(points[0, 1:2], targets.masks[0, 2:3], targets.valid)
    chance = torch.softmax(logits[0, 1], -1)[targets.classes[2]]
    assert torch.allclose(cost[0, 1, 2], -2 * chance + 5 * bce + 5 * dice, atol=1e-4)


def test_ignored_points_change_nothing():
    targets = made_targets(batch=1)
    points = torch.randn(1, 3, 64)
    targets.valid[0, 10] = 0
    before = mask_losses(points[0], targets.masks[0, :3], targets.valid.expand(3, -1))
    points[0, :, 10] = 50.0
    after = mask_losses(points[0], targets.masks[0, :3], targets.valid.expand(3, -1))
    assert torch.allclose(torch.stack(before), torch.stack(after))


def test_no_object_weighs_a_tenth():
    targets = made_targets(batch=1)
    logits = torch.zeros(1, 6, 18)
    logits[0, :, NO_OBJECT] = 3.0
    matches = match_layers([(logits, torch.zeros(1, 6, 64))], targets, CONFIG)[0]
    wrong = -torch.log_softmax(logits[0, 0], -1)[0]
    right = -torch.log_softmax(logits[0, 0], -1)[NO_OBJECT]
    expected = (5 * wrong + 0.1 * right) / 5.1
    assert torch.allclose(class_loss(logits, targets, matches, 0.1), expected, atol=1e-5)


def test_prior_seats_parts_on_their_own_query():
    targets = made_targets()
    matches = match_layers([(torch.zeros(2, 28, 18), torch.zeros(2, 28, 64))], targets, CONFIG, prior=4.0)[0]
    for query, target in zip(matches.query.tolist(), matches.target.tolist(), strict=True):
        assert query == target if target < 16 else query >= 16
    assert prior_cost(28, 24, "cpu")[3, 3] == 0 and prior_cost(28, 24, "cpu")[3, 4] == 1


def test_sampling_features_equals_sampling_logits():
    torch.manual_seed(3)
    features, embeddings = torch.randn(2, 8, 6, 5), torch.randn(2, 4, 8)
    points = torch.rand(2, 20, 2) * 2 - 1
    logits = (embeddings @ features.flatten(2)).reshape(2, 4, 6, 5)
    assert torch.allclose(embeddings @ sample_features(features, points), sample_features(logits, points), atol=1e-5)


def test_point_scores_are_the_sum_over_queries():
    logits, points = torch.randn(1, 3, 18), torch.randn(1, 3, 7)
    expected = sum(torch.softmax(logits[0, q], -1)[5] * torch.sigmoid(points[0, q]) for q in range(3))
    assert torch.allclose(point_scores(logits, points)[0, 5], expected, atol=1e-6)


def test_a_picture_without_targets_still_has_a_loss():
    targets = made_targets(batch=1)
    targets = Targets(targets.masks, torch.zeros_like(targets.present), targets.classes, targets.valid, targets.parts)
    matches = match_layers([(torch.zeros(1, 4, 18), torch.zeros(1, 4, 64))], targets, CONFIG)[0]
    assert len(matches.query) == 0
    assert torch.isfinite(class_loss(torch.zeros(1, 4, 18), targets, matches, 0.1))


def one_hot_chances(parts):
    return torch.nn.functional.one_hot(parts.long(), 16).permute(0, 2, 1).float()


def test_the_jaccard_loss_of_hard_guesses_is_one_minus_their_mean_iou():
    targets = made_targets(batch=3, points=200)
    guess = targets.parts.clone()
    guess[:, ::3] = torch.roll(guess, 1, 0)[:, ::3]
    truth, found = targets.parts[:, :100].flatten(), guess[:, :100].flatten()
    iou = lambda a, b: (a & b).sum() / (a | b).sum()
    wanted = [iou(truth == c, found == c) for c in range(4)] + [iou(truth > 0, found > 0)]
    loss = jaccard_loss(one_hot_chances(guess), targets)
    assert torch.isclose(loss, 1 - torch.stack(wanted).mean(), atol=1e-6)
    assert 0.05 < loss < 0.6
    assert jaccard_loss(one_hot_chances(targets.parts), targets) < 1e-6


def test_the_jaccard_loss_leaves_out_what_is_to_be_ignored_and_falls_with_its_gradient():
    targets = made_targets(batch=2, points=64)
    targets.parts[:, :5] = 255
    guess = targets.parts.clone()
    guess[:, :5] = 1
    assert jaccard_loss(one_hot_chances(guess), targets) < 1e-6
    raw = torch.randn(2, 16, 64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    before = jaccard_loss(raw.softmax(1), targets)
    (slope,) = torch.autograd.grad(before, raw)
    assert torch.isfinite(slope).all() and slope[..., :5].abs().max() == 0 and slope[..., 32:].abs().max() == 0
    assert jaccard_loss((raw - 5 * slope).softmax(1), targets) < before


def chosen_jaccard_loss(chances, targets):
    """The same loss with ignored points and absent classes taken out, as its authors write it."""
    half = chances.shape[-1] // 2
    parts = targets.parts[:, :half].flatten().long()
    seen = parts != IGNORE
    chance = chances[..., :half].transpose(0, 1).flatten(1)[:, seen]
    chance, parts = torch.cat([chance, 1 - chance[:1]]), parts[seen]
    truth = torch.cat([torch.nn.functional.one_hot(parts, 16).T, (parts > 0)[None]]).float()
    shown = truth.any(1)
    errors, order = (truth[shown] - chance[shown]).abs().sort(1, descending=True)
    return (errors * jaccard_steps(truth[shown].gather(1, order))).sum(1).mean()


def test_the_jaccard_loss_weighs_what_it_could_leave_out():
    targets = made_targets(batch=4, points=300)
    torch.manual_seed(5)
    for ignored in (0.0, 0.3):
        targets.parts[torch.rand(targets.parts.shape) < ignored] = IGNORE
        raw = torch.randn(4, 16, 300, requires_grad=True)
        # Some guesses are certain and right: their error is as small as that of an ignored point.
        chances = torch.where(torch.rand(4, 1, 300) < 0.2, one_hot_chances(targets.parts % 16), raw.softmax(1))
        losses = [loss(chances, targets) for loss in (jaccard_loss, chosen_jaccard_loss)]
        assert torch.isclose(*losses, atol=1e-6)
        slopes = [torch.autograd.grad(loss, raw, retain_graph=True)[0] for loss in losses]
        assert torch.allclose(*slopes, atol=1e-7) and slopes[0].abs().max() > 1e-4
    targets.parts[:] = IGNORE
    assert jaccard_loss(chances, targets) == 0


def test_what_no_point_fell_on_is_no_target():
    parts = torch.zeros(2, 32, dtype=torch.uint8)
    parts[0, 5], parts[1, :] = 3, IGNORE
    person = (parts > 0).to(torch.uint8)
    present = torch.zeros(2, 16 + PEOPLE, dtype=torch.bool)
    present[:, [0, 3, 7, 16, 17]] = True
    targets = build_targets(parts, person, present)
    assert torch.nonzero(targets.present).tolist() == [[0, 0], [0, 3], [0, 16]]


def test_the_device_works_on_while_targets_are_paired():
    targets, calls = made_targets(), []
    layers = [(torch.randn(2, 28, 18), torch.randn(2, 28, 64)) for _ in range(2)]
    ours = match_layers(layers, targets, CONFIG, 0.0, lambda: calls.append(1))
    theirs = match_layers(layers, targets, CONFIG)
    assert calls == [1] and len(ours) == 2
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.image, b.image) and torch.equal(a.query, b.query) and torch.equal(a.target, b.target)

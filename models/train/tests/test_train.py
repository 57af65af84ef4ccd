"""Runs, checkpoints, schedules and scores."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.config import NETWORKS, Phase, TrainConfig, train_config
from pipeline.metrics import confusion, false_alarms, intersection_over_union, people_scores, summary, to_ppp
from pipeline.data import Batches, Stream, make_batch
from pipeline.network import MergedConv, Parser
from pipeline.optimiser import Optimiser, orthogonal
from pipeline.states import StateError, load_parser, pictures_seen, read_state, save_state, save_weights
from pipeline.train import LATE, LOG, Average, Run, TrainError, phase_at, rate_at, train


def short(samples=32):
    return TrainConfig(
        network="tiny", phases=(Phase(64, 64, 4, samples), Phase(128, 96, 4, 8)), points=64, warmup=16, val_images=4
    )


def test_a_run_resumes_where_it_stopped(shard_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    first = Run(out, short(), "cpu")
    train(first, [shard_folder], shard_folder, 0, 0.5, 1000, 1000)
    again = Run(out, short(), "cpu")
    assert again.resume() and again.seen == first.seen
    for a, b in zip(first.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(a, b)
    train(again, [shard_folder], shard_folder, 0, 100, 1000, 1000)
    assert again.seen == 40
    records = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    assert records[-1]["event"] == "stop" and records[-1]["finished"]
    save_weights(out / "checkpoint.pt", out / "weights.pt")
    whole, half = again.average.model, load_parser(out / "weights.pt")
    for a, b in zip(whole.parameters(), half.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-2)


def test_a_break_changes_nothing_of_the_steps_after_it(shard_folder, tmp_path):
    """The same three batches with and without a checkpoint after the second: weights, their average and the optimiser's memory."""
    stream, rng = Stream([shard_folder], 4, np.random.default_rng(0)), np.random.default_rng(1)
    batches = [make_batch(stream, rng, 4, (64, 64), 64) for _ in range(3)]
    whole, broken = (Run(tmp_path / name, short(), "cpu") for name in ("whole", "broken"))
    for batch in batches[:2]:
        for run in (whole, broken):
            run.step(run.to_device(batch))
    broken.save()
    again = Run(tmp_path / "broken", short(), "cpu")
    assert again.resume() and again.average.steps == whole.average.steps == 2
    for batch in batches[2:]:
        for run in (whole, again):
            run.step(run.to_device(batch))
    for one, other in zip(tensors(whole.state()), tensors(again.state()), strict=True):
        assert torch.equal(one, other)
    assert whole.average.steps == again.average.steps == 3


@pytest.mark.parametrize("optimiser", ["muon", "adamw"])
def test_a_run_goes_on_with_the_weight_decay_of_its_recipe(tmp_path, optimiser):
    Run(tmp_path, replace(short(), optimiser=optimiser), "cpu").save()
    again = Run(tmp_path, replace(short(), optimiser=optimiser, weight_decay=0.5), "cpu")
    assert again.resume()
    groups = [group for part in again.optimiser.parts for group in part.param_groups]
    assert [group["weight_decay"] for group in groups] == [0.5, 0.5, 0.0]


def tensors(value) -> list:
    """All tensors of nested dictionaries and lists, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ()
    return [tensor for part in parts for tensor in tensors(part)]


def test_a_run_goes_on_with_its_own_optimiser_only(shard_folder, tmp_path):
    train(Run(tmp_path, short(), "cpu"), [shard_folder], shard_folder, 0, 0.5, 1000, 1000)
    with pytest.raises(TrainError, match="another optimiser"):
        Run(tmp_path, replace(short(), optimiser="adamw"), "cpu").resume()


def test_no_processor_takes_the_slow_convolution(tmp_path):
    run = Run(tmp_path, short(), "cpu")
    layer, pictures = torch.nn.Conv2d(32, 32, 3), torch.rand(8, 32, 64, 48).to(memory_format=torch.channels_last)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as steps, run.autocast():
        layer(pictures).float().sum().backward()
    names = {event.key for event in steps.key_averages()}
    assert "aten::convolution_backward" in names
    assert not [name for name in names if "slow_conv" in name]


def test_frozen_norms_keep_their_statistics_and_learn_their_gains(shard_folder, tmp_path):
    train(Run(tmp_path / "first", short(), "cpu"), [shard_folder], shard_folder, 0, 100, 1000, 1000)
    run = Run(tmp_path / "second", replace(short(), frozen_norms=True), "cpu")
    run.start_from(tmp_path / "first" / "checkpoint.pt")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    train(run, [shard_folder], shard_folder, 0, 100, 1000, 1000)
    assert run.seen == 40
    for name, value in run.model.state_dict().items():
        kind = name.rsplit(".", 1)[-1]
        if kind in ("running_mean", "running_var", "num_batches_tracked"):
            assert torch.equal(value, before[name]), name
    gains = [name for name in before if name.endswith("norm.weight")]
    assert gains and all(not torch.equal(run.model.state_dict()[name], before[name]) for name in gains)


def test_auxiliary_classifiers_come_and_go(shard_folder, tmp_path):
    plain = Run(tmp_path / "plain", short(), "cpu")
    train(plain, [shard_folder], shard_folder, 0, 100, 1000, 1000)
    start = tmp_path / "plain" / "checkpoint.pt"
    config = replace(short(), auxiliary=0.4)
    run = Run(tmp_path / "more", config, "cpu")
    run.start_from(start)
    # From zero on they say nothing and shake nothing.
    assert all(p.abs().max() == 0 for p in run.model.auxiliary.parameters())
    train(run, [shard_folder], shard_folder, 0, 100, 0.0, 1000)
    records = [json.loads(line) for line in (tmp_path / "more" / LOG).read_text().splitlines()]
    losses = [r["loss"]["auxiliary"] for r in records if r["event"] == "step"]
    assert losses[0] == pytest.approx(0.4 * 3 * np.log(16), rel=1e-3) and losses[-1] < 0.95 * losses[0]
    assert all(p.abs().max() > 0 for p in run.model.auxiliary.parameters())
    again = Run(tmp_path / "more", config, "cpu")
    assert again.resume() and all(
        torch.equal(a, b) for a, b in zip(again.model.auxiliary.parameters(), run.model.auxiliary.parameters(), strict=True)
    )
    with pytest.raises(TrainError, match="`auxiliary` on or off"):
        Run(tmp_path / "more", short(), "cpu").resume()
    # Nobody but training knows them.
    state = tmp_path / "more" / "checkpoint.pt"
    assert not [name for name, _ in load_parser(state).named_parameters() if "auxiliary" in name]
    Run(tmp_path / "without", short(), "cpu").start_from(state)
    save_weights(state, tmp_path / "half.pt", start, 0.5)
    assert sum("auxiliary" in name for name in read_state(tmp_path / "half.pt")["average"]) == 6


def test_a_run_begins_with_kernels_of_their_first_size_and_the_same_function(tiny, tmp_path):
    model = copy.deepcopy(tiny)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, MergedConv):
                module.square.mul_(3.7)
                module.square_scale.div_(3.7)
        model.backbone.stages[0][0].point.zero_()
    save_state(tmp_path / "w.pt", {"config": {"network": "tiny"}, "average": model.state_dict(), "seen": 9})
    run = Run(tmp_path / "run", replace(short(), rescale=True), "cpu")
    run.start_from(tmp_path / "w.pt")
    x = torch.rand(2, 3, 64, 64)
    for ours in (run.model.eval(), run.average.model):
        with torch.no_grad():
            (mask, memories), (first, others) = ours.features(x), model.features(x)
            for a, b in zip((mask, *memories), (first, *others), strict=True):
                assert torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(b.abs().max()))
        kernels = [m.square for m in ours.modules() if isinstance(m, MergedConv)]
        sizes = [float(k.detach().square().mean() * k[0].numel()) for k in kernels]
        assert sizes == pytest.approx([2.0] * len(kernels), rel=1e-4)
        assert ours.backbone.stages[0][0].point.abs().max() == 0
    # Weights between the end and the beginning are in one form.
    run.save()
    save_weights(tmp_path / "run" / "checkpoint.pt", tmp_path / "mixed.pt", tmp_path / "w.pt", 0.5)
    with torch.no_grad():
        a, b = load_parser(tmp_path / "mixed.pt").features(x)[0], model.features(x)[0]
        assert torch.allclose(a, b, atol=2e-2 * float(b.abs().max()))


def test_the_last_pictures_are_mild(shard_folder, tmp_path, monkeypatch):
    made = []

    def batches(*values):
        made.append(values[-1])
        return Batches(*values)

    monkeypatch.setattr("pipeline.train.Batches", batches)
    run = Run(tmp_path, replace(short(), mild=0.3), "cpu")
    train(run, [shard_folder], shard_folder, 0, 100, 1000, 1000)
    # 28 of 40 pictures at the first size, then mild ones at both.
    assert run.seen == 40 and made == [False, True, True]
    assert TrainConfig().mild_from == TrainConfig().total


def test_a_gpu_that_is_behind_is_not_waited_for(tmp_path):
    class Late:
        """Loss and gradient that have not arrived until somebody waits."""

        def __init__(self, *values):
            self.values, self.waited = torch.tensor(values), False

        def here(self):
            return self.waited

        def wait(self):
            self.waited = True
            return (self.values,)

    run = Run(tmp_path, short(), "cpu")
    steps = [Late(1.0, 2.0), Late(1.0, 2.0), Late(3.0, float("nan")), Late(float("inf"), 1.0)]
    run.unchecked.extend((4 * (k + 1), step) for k, step in enumerate(steps))
    run.check_finite(LATE)
    assert not any(step.waited for step in steps)
    run.check_finite(2)
    assert [step.waited for step in steps] == [True, True, False, False]
    for _ in range(2):
        with pytest.raises(TrainError, match="the loss is 3.0 and its gradient nan after 12 pictures.*lower rate"):
            run.save()
    assert not (tmp_path / "checkpoint.pt").exists()


@pytest.mark.parametrize("shape", [(24, 96), (96, 24), (32, 32)])
def test_the_orthogonal_factors_have_singular_values_near_one(shape):
    torch.manual_seed(0)
    # Gradients of very different sizes are orthogonalised together.
    gradients = torch.randn(3, *shape) * torch.tensor([1e-5, 1e-3, 10.0])[:, None, None]
    for gradient, factor in zip(gradients, orthogonal(list(gradients)), strict=True):
        left, _, right = torch.linalg.svd(gradient, full_matrices=False)
        assert torch.cosine_similarity(factor.flatten(), (left @ right).flatten(), 0) > 0.95
        values = torch.linalg.svdvals(factor)
        # A random square matrix has one direction of almost no size, which five steps do not raise to one.
        assert 0.5 < values[:-1].min() and values.max() < 1.3


def test_the_orthogonal_factor_is_the_iteration_on_the_matrix_itself():
    """The Gram form computes what the published iteration does, also for a matrix of low rank."""
    torch.manual_seed(1)
    gradient = torch.randn(12, 4) @ torch.randn(4, 40)
    x = gradient / gradient.norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * (gram @ gram)) @ x
    assert torch.allclose(orthogonal([gradient])[0], x, atol=2e-4)


@pytest.mark.parametrize("kind", ["muon", "adamw"])
def test_both_optimisers_move_every_parameter_and_lower_a_loss(kind):
    torch.manual_seed(0)
    model = Parser(NETWORKS["tiny"])
    before = [p.detach().clone() for p in model.parameters()]
    optimiser = Optimiser(model, kind, 3e-3, 0.01)
    losses = []
    for _ in range(6):
        optimiser.zero_grad()
        loss = sum((p - 0.1).square().mean() for p in model.parameters())
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    assert all((a != b).any() for a, b in zip(before, model.parameters(), strict=True))


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="sgd"):
        Optimiser(Parser(NETWORKS["tiny"]), "sgd", 1e-3, 0.0)


def test_a_missing_teacher_is_a_clear_error(tmp_path):
    with pytest.raises(StateError, match="does not exist"):
        Run(tmp_path, short(), "cpu", tmp_path / "none.pt")


def test_an_interrupted_run_keeps_what_it_has_seen(shard_folder, tmp_path, monkeypatch):
    run = Run(tmp_path, short(), "cpu")
    steps = iter(range(3))

    def step(batch, soft=None):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return Run.step(run, batch)

    monkeypatch.setattr(run, "step", step)
    with pytest.raises(KeyboardInterrupt):
        train(run, [shard_folder], shard_folder, 0, 100, 1000, 1000)
    again = Run(tmp_path, short(), "cpu")
    assert again.resume() and again.seen == run.seen > 0


def test_a_run_from_weights_counts_what_they_have_seen(shard_folder, tmp_path):
    first = Run(tmp_path / "first", short(), "cpu")
    train(first, [shard_folder], shard_folder, 0, 100, 1000, 1000)
    second = Run(tmp_path / "second", short(), "cpu")
    second.start_from(tmp_path / "first" / "checkpoint.pt")
    for ours, theirs in zip(second.model.parameters(), first.average.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    train(second, [shard_folder], shard_folder, 0, 100, 1000, 1000)
    assert (first.seen, second.seen, pictures_seen(read_state(tmp_path / "second" / "checkpoint.pt"))) == (40, 40, 80)
    again = Run(tmp_path / "second", short(), "cpu")
    assert again.resume() and again.seen_before == 40


def test_unknown_settings_are_refused():
    with pytest.raises(ValueError, match="rat"):
        train_config({"rat": 1})
    with pytest.raises(ValueError, match="network"):
        train_config({"network": "huge"})
    with pytest.raises(ValueError, match="192 x 144.*multiples of 32"):
        train_config({"phases": [[192, 144, 2, 10]]})
    with pytest.raises(ValueError, match="mild is 1.0; a share of the schedule"):
        train_config({"mild": 1.0})
    with pytest.raises(ValueError, match="decay is 1.5; a share"):
        train_config({"decay": 1.5})
    for name in ("ema_images", "decay", "points", "val_images"):
        with pytest.raises(ValueError, match=f"{name} is 0; more than 0"):
            train_config({name: 0})
    for bad in ({"rate": "fast"}, {"network": ["student"]}, {"points": 0.5}, {"warmup": True}, {"frozen_norms": 1}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            train_config(bad)
    for bad in (5, [], [[256, 192, 32]], [[256, 192, 0, 10]], ["256"]):
        with pytest.raises(ValueError, match=r"is wanted, such as \[+256, 192, 24, 200000\]"):
            train_config({"phases": bad})
    assert train_config({"phases": [[64, 64, 2, 10]], "rate": 1}).phases[0].samples == 10


def test_the_rate_warms_up_holds_and_decays():
    config = TrainConfig(phases=(Phase(64, 64, 1, 1000),), warmup=100, decay=0.4, rate=1.0)
    assert rate_at(config, 0) < 0.02
    assert rate_at(config, 300) == rate_at(config, 599) == 1.0
    assert rate_at(config, 700) < 1.0 and rate_at(config, 1000) == pytest.approx(0.01)


def test_a_decay_from_the_first_picture_on_leaves_the_warm_up():
    config = TrainConfig(phases=(Phase(64, 64, 1, 1000),), warmup=100, decay=1.0, rate=1.0)
    assert rate_at(config, 0) == pytest.approx(0.01) and rate_at(config, 1) < 0.02
    rates = [rate_at(config, seen) for seen in range(1001)]
    assert 80 < rates.index(max(rates)) < 100 and rates[250] == pytest.approx(0.5) and rates[-1] == pytest.approx(0.01)


def test_the_average_follows_a_model_that_is_moved_and_filled(tiny):
    model = copy.deepcopy(tiny)
    average = Average(model, 1)
    for fill in (3.0, -2.0):
        model.load_state_dict({k: torch.full_like(v, fill) for k, v in model.state_dict().items()})
        for _ in range(40):
            average.update(model, 100)
        values = [v for v in average.model.state_dict().values() if v.is_floating_point()]
        assert all(torch.allclose(v, torch.full_like(v, fill), atol=0.2) for v in values)


def test_phases_follow_each_other():
    config = short()
    assert phase_at(config, 0)[0].height == 64 and phase_at(config, 31)[1] == 32
    assert phase_at(config, 32)[0].height == 128 and phase_at(config, 40) is None


def test_scores_of_a_hand_made_map():
    truth = np.array([[0, 3, 8, 8, 255]])
    guess = np.array([[0, 3, 8, 9, 3]])
    counts = confusion(truth, guess, 16)
    assert counts.sum() == 4
    iou = intersection_over_union(counts)
    assert iou[8] == 0.5 and iou[9] == 0 and np.isnan(iou[1])
    assert intersection_over_union(to_ppp(counts))[4] == 1.0
    scores = summary(counts)
    assert scores["left_right"] == 50.0 and scores["person_iou"] == 100.0


def test_false_alarms_count_empty_pictures_only():
    truth = np.zeros((2, 2, 2), np.uint8)
    truth[0, 0, 0] = 3
    guess = np.full((2, 2, 2), 3, np.uint8)
    guess[1, 0] = 0
    assert false_alarms(truth, guess) == (2, 4)


def test_people_are_found_when_more_than_half_overlaps():
    truth, guess = np.zeros((1, 20, 20), np.uint8), np.zeros((1, 20, 20), np.uint8)
    truth[0, :, :8], truth[0, :, 12:] = 1, 2
    guess[0, :, :9], guess[0, :10, 15:] = 5, 3
    scores = people_scores(truth, guess, smallest=20)
    assert scores == {"real": 2, "recall": 50.0, "precision": 50.0}


def test_people_are_counted_once_on_both_sides():
    truth, guess = np.zeros((1, 40, 40), np.uint8), np.zeros((1, 40, 40), np.uint8)
    truth[0, :12, :10], truth[0, 20:32, :10] = 1, 2
    guess[0, :9, :10], guess[0, 20:29, :10] = 1, 2  # 90 pixels each: small, but right
    assert people_scores(truth, guess) == {"real": 2, "recall": 100.0, "precision": 100.0}
    guess[0, 20:29, 20:30] = 3  # small and wrong: as little a person as a real one of this size
    assert people_scores(truth, guess)["precision"] == 100.0
    guess[0, 20:32, 20:30] = 3
    assert people_scores(truth, guess)["precision"] == pytest.approx(66.67)

"""A larger network grown from a trained one: the same function, and parts that training can move."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pipeline.config import NETWORKS
from pipeline.grow import GrowError, grow, new_blocks, save_grown
from pipeline.network import Parser
from pipeline.states import load_parser, pictures_seen, read_state


@pytest.fixture
def deeper(monkeypatch):
    """The name of a network with one block more in two stages and in the mask features."""
    shape = replace(NETWORKS["tiny"], depths=(1, 2, 1, 2, 1), mask_depth=2)
    monkeypatch.setitem(NETWORKS, "deeper", shape)
    return "deeper"


@pytest.fixture(scope="module")
def pictures():
    small = np.random.default_rng(1).integers(0, 256, (4, 16, 12, 3)).astype(np.uint8)
    return np.ascontiguousarray(small.repeat(8, 1).repeat(8, 2))


def grown_with_gradients(tiny, network, pictures):
    """The larger network, which must compute the same, with the gradients of a loss of its outputs."""
    large = grow(tiny, network, pictures)
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        for ours, first in zip(large(x), tiny(x), strict=True):
            assert torch.allclose(ours, first, rtol=1e-3, atol=1e-3)
    large.train()
    sum(part.square().mean() for part in large(x)).backward()
    return large


def test_the_function_is_the_same_and_its_gradients_are_not_zero(tiny, deeper, pictures):
    large = grown_with_gradients(tiny, deeper, pictures)
    blocks = new_blocks(tiny, large)
    assert len(blocks) == 3
    assert all(block.square.grad.abs().max() > 0 and block.point.grad.abs().max() > 0 for block in blocks)


def test_training_mode_starts_from_the_same_features(tiny, deeper, pictures):
    """The new batch norms undo their own statistics, so the first step sees what the last step of the small one saw."""
    large = grow(tiny, deeper, pictures)
    for block in new_blocks(tiny, large):
        block.train()
    x = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        ours, first = large.features(x)[0], tiny.features(x)[0]
    assert torch.allclose(ours, first, rtol=1e-2, atol=1e-2)


@pytest.fixture
def wider(monkeypatch):
    """The name of a network with more of everything that may grow."""
    shape = replace(
        NETWORKS["tiny"], widths=(12, 20, 24, 40, 50), depths=(2, 1, 2, 1, 1), mask_width=30, layers=5, hidden=120
    )
    monkeypatch.setitem(NETWORKS, "wider", shape)
    return "wider"


def test_new_channels_and_layers_change_nothing_and_can_be_learned(tiny, wider, pictures):
    large = grown_with_gradients(tiny, wider, pictures)
    # What was there before reads the new channels with weights of zero, which have a gradient.
    reader = large.backbone.stages[1][0].square
    old = NETWORKS["tiny"].widths
    assert (reader[: old[1], old[0] :] == 0).all() and reader.grad[: old[1], old[0] :].abs().max() > 0
    assert large.layers[4].cross.out.weight.grad.abs().max() > 0


def test_what_is_not_larger_is_refused(tiny, monkeypatch, pictures):
    monkeypatch.setitem(NETWORKS, "narrower", replace(NETWORKS["tiny"], widths=(8, 16, 24, 32, 40)))
    monkeypatch.setitem(NETWORKS, "more-queries", replace(NETWORKS["tiny"], queries=30))
    monkeypatch.setitem(NETWORKS, "fewer-layers", replace(NETWORKS["tiny"], layers=2))
    for name, what in (("narrower", r"widths\[4\] 48 -> 40"), ("more-queries", "queries 24 -> 30"), ("fewer-layers", "layers 3 -> 2")):
        with pytest.raises(GrowError, match=f"{name} is not a larger form of these weights' network: {what}"):
            grow(tiny, name, pictures)


def test_the_weights_file_keeps_the_count_of_pictures(tiny, deeper, pictures, tmp_path):
    torch.save({"config": {"network": "tiny"}, "average": tiny.state_dict(), "seen": 4321}, tmp_path / "small.pt")
    save_grown(tmp_path / "small.pt", deeper, pictures, tmp_path / "large.pt")
    assert pictures_seen(read_state(tmp_path / "large.pt")) == 4321
    large = load_parser(tmp_path / "large.pt")
    assert isinstance(large, Parser) and large.config == NETWORKS[deeper]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["large.pt", "small.pt"]

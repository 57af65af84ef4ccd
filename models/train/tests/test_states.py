"""Checkpoints and weights files that are cut off, foreign or of another network are one line that names them."""

from dataclasses import replace

import pytest
import torch

from pipeline.config import NETWORKS
from pipeline.network import Parser
from pipeline.states import StateError, fill, load_parser, pictures_seen, read_state, save_state, save_weights


@pytest.fixture
def weights(tiny, tmp_path):
    path = tmp_path / "weights.pt"
    save_state(path, {"config": {"network": "tiny"}, "average": tiny.state_dict(), "seen": 5, "seen_before": 7})
    return path


def test_what_is_saved_is_read_and_half_precision_is_filled_up(weights, tiny, tmp_path):
    save_weights(weights, tmp_path / "half.pt")
    assert pictures_seen(read_state(weights)) == pictures_seen(read_state(tmp_path / "half.pt")) == 12
    for ours, theirs in zip(load_parser(tmp_path / "half.pt").parameters(), tiny.parameters(), strict=True):
        assert ours.dtype == torch.float32 and torch.allclose(ours, theirs, atol=1e-2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["half.pt", "weights.pt"]


def test_weights_between_two_states_are_theirs_in_the_shares_asked_for(weights, tiny, tmp_path):
    other = tmp_path / "start.pt"
    save_state(other, {"config": {"network": "tiny"}, "average": Parser(NETWORKS["tiny"]).state_dict(), "seen": 1})
    save_weights(weights, tmp_path / "mixed.pt", other, 0.25)
    mixed, ours, theirs = (load_parser(p).state_dict() for p in (tmp_path / "mixed.pt", weights, other))
    for name, value in mixed.items():
        if value.is_floating_point():
            assert torch.allclose(value, 0.75 * ours[name] + 0.25 * theirs[name], atol=1e-2), name
    with pytest.raises(ValueError, match="1.5"):
        save_weights(weights, tmp_path / "mixed.pt", other, 1.5)
    save_state(other, {"config": {"network": "tiny"}, "average": {"query": torch.zeros(3)}, "seen": 1})
    with pytest.raises(StateError, match="start.pt holds another network"):
        save_weights(weights, tmp_path / "mixed.pt", other, 0.5)


def test_the_background_alone_is_raised(weights, tiny, tmp_path):
    save_weights(weights, tmp_path / "raised.pt", background=0.5)
    raised = load_parser(tmp_path / "raised.pt").predictor.class_head.bias - tiny.predictor.class_head.bias
    assert torch.allclose(raised, torch.tensor([0.5] + [0.0] * 17), atol=1e-2)
    assert torch.equal(load_parser(weights).predictor.class_head.bias, tiny.predictor.class_head.bias), "the file it came from"


def test_broken_files_are_named(weights):
    whole = weights.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"network = student\n"):
        weights.write_bytes(content)
        with pytest.raises(StateError, match="weights.pt is not a whole checkpoint") as raised:
            load_parser(weights)
        assert "\n" not in str(raised.value)
    torch.save({"weights": torch.zeros(1)}, weights)
    with pytest.raises(StateError, match="weights.pt is no checkpoint"):
        read_state(weights)
    with pytest.raises(StateError, match="none.pt does not exist"):
        load_parser(weights.with_name("none.pt"))


def test_another_networks_weights_are_named(weights, monkeypatch):
    monkeypatch.setitem(NETWORKS, "tiny", replace(NETWORKS["tiny"], depths=(1, 1, 2, 1, 1)))
    with pytest.raises(StateError, match="weights.pt holds another network") as raised:
        load_parser(weights)
    assert "\n" not in str(raised.value)
    with pytest.raises(StateError, match="weights.pt holds another network"):
        fill(Parser(NETWORKS["student-s"]), read_state(weights)["average"], weights)
    save_state(weights, read_state(weights) | {"config": {"network": "huge"}})
    with pytest.raises(StateError, match="'huge'"):
        load_parser(weights)

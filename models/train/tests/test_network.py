"""Re-parameterisation, deployment and resolution changes leave the network's answer alone."""

import pytest
import torch

from pipeline.config import HEIGHT, NETWORKS, WIDTH
from pipeline.deploy import Head, Trunk, equalise, parameter_group
from pipeline.network import MergedConv, Parser, attention_bias, multiplications, sine_position


@pytest.mark.parametrize("stride", [1, 2])
def test_folding_keeps_the_map(stride):
    torch.manual_seed(0)
    conv = MergedConv(8, 8, stride)
    for _ in range(5):
        conv(torch.randn(4, 8, 12, 12))
    conv.eval()
    x = torch.randn(2, 8, 12, 12)
    assert torch.allclose(conv(x), conv.fold()(x), atol=1e-4)


def test_trunk_and_head_equal_the_whole(tiny):
    x = torch.rand(1, 3, HEIGHT, WIDTH)
    trunk = Trunk(tiny, HEIGHT, WIDTH).eval()
    with torch.no_grad():
        expected = tiny(x)
        plain = Head(tiny, HEIGHT, WIDTH).eval()(*trunk(x))
        equalise(trunk)
        even = Head(tiny, HEIGHT, WIDTH).eval()(*trunk(x))
    for a, b, c in zip(expected, plain, even, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3)
        assert torch.allclose(a, c, rtol=1e-3, atol=1e-2)


def test_equalising_evens_out_the_weights(tiny):
    trunk = Trunk(tiny, HEIGHT, WIDTH)
    conv = trunk.stages[2][0]
    conv.weight.data[0] *= 30
    spread = lambda: conv.weight.abs().amax((1, 2, 3)).max() / conv.weight.abs().amax((1, 2, 3)).median()
    before = spread()
    equalise(trunk)
    assert spread() < before / 2


def test_sizes_are_within_the_limits():
    for name in ("student", "student-m", "student-s"):
        config = NETWORKS[name]
        trunk, head = Trunk(Parser(config), HEIGHT, WIDTH), Head(Parser(config), HEIGHT, WIDTH)
        count = sum(p.numel() for m in (trunk, head) for p in m.parameters())
        assert count <= 2_500_000, name
        assert multiplications(config, HEIGHT, WIDTH) <= 1_000_000_000, name
        assert 24 <= config.queries <= 32 and config.dim == 96


def test_auxiliary_classifiers_are_no_part_of_what_is_deployed():
    plain, more = (Parser(NETWORKS["tiny"], auxiliary) for auxiliary in (False, True))
    assert len(list(more.parameters())) == len(list(plain.parameters())) + 6
    for part in (Trunk, Head):
        names = [set(part(model, HEIGHT, WIDTH).state_dict()) for model in (plain, more)]
        assert names[0] == names[1]


def test_positions_survive_a_change_of_resolution():
    fine, coarse = sine_position(16, 12, 96).reshape(16, 12, 96), sine_position(8, 6, 96).reshape(8, 6, 96)
    low = fine.reshape(8, 2, 6, 2, 96).mean((1, 3))
    assert torch.allclose(low[..., 12:24], coarse[..., 12:24], atol=0.05)
    assert torch.isfinite(sine_position(20, 15, 192)).all()


def test_attention_never_hides_everything():
    embeddings = torch.tensor([[[1.0], [-1.0]]])
    pooled = torch.tensor([[[2.0, 3.0, 1.0]]])
    bias = attention_bias(embeddings, pooled)
    assert torch.equal(bias, torch.zeros(1, 1, 2, 3))
    bias = attention_bias(embeddings, torch.tensor([[[2.0, -3.0, 1.0]]]))
    assert (bias[0, 0, 0] < 0).tolist() == [False, True, False]
    assert (bias[0, 0, 1] < 0).tolist() == [True, False, True]


def test_parameter_groups():
    assert parameter_group("predictor.class_head.bias") == "class_head"
    assert parameter_group("layers.1.norm_own.weight") == "norm"
    assert parameter_group("predictor.norm.bias") == "norm"
    assert parameter_group("layers.1.own.query.bias") == "bias"
    assert parameter_group("layers.2.expand.weight") == "weight"

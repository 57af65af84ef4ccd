"""A trained network into a deeper or wider one that computes the same: training goes on instead of starting again.

New blocks stand at the end of a stage, where everything is positive already. There a block whose kernel is the
identity changes nothing (Chen et al. 2016, Net2Net, arXiv:1511.05641, section 2.3), and our merged convolution has that
branch anyway. New channels begin with random kernels that nobody listens to: the weights that would read them are
zero, and have a gradient at once. New decoder layers add nothing, and a norm without scale after another changes nothing.
"""

from pathlib import Path

import numpy as np
import torch

from .config import NETWORKS, NetworkConfig, TrainConfig, to_dict
from .network import Attention, DecoderLayer, MergedConv, Parser
from .restore import observe_norms
from .states import averaged_parser, pictures_seen, read_state, save_state

# Sizes that queries and mask embeddings have in common with the rest: no step here widens them.
FIXED = ("dim", "queries", "heads")


class GrowError(Exception):
    """Two networks of which one is not the other with more in it; names what differs."""


def check_larger(small: NetworkConfig, large: NetworkConfig, name: str) -> None:
    """Every size of `large` must be at least that of `small`, and those in FIXED the same."""
    rows = {f"widths[{k}]": pair for k, pair in enumerate(zip(small.widths, large.widths, strict=True))}
    rows |= {f"depths[{k}]": pair for k, pair in enumerate(zip(small.depths, large.depths, strict=True))}
    rows |= {key: (getattr(small, key), getattr(large, key)) for key in ("mask_width", "mask_depth", "layers", "hidden")}
    smaller = [f"{key} {a} -> {b}" for key, (a, b) in rows.items() if a > b]
    other = [f"{k} {getattr(small, k)} -> {getattr(large, k)}" for k in FIXED if getattr(small, k) != getattr(large, k)]
    if smaller or other:
        raise GrowError(f"{name} is not a larger form of these weights' network: {', '.join(smaller + other)}")


def new_blocks(small: Parser, large: Parser) -> list:
    """The blocks of `large` that `small` lacks, in the order of the forward pass."""
    stages = list(zip(small.backbone.stages, large.backbone.stages, strict=True))
    stages.append((small.pyramid.mask_smooth, large.pyramid.mask_smooth))
    return [block for mine, theirs in stages for block in list(theirs)[len(mine) :]]


def inputs_axis(name: str, tensor: torch.Tensor) -> int | None:
    """Which axis of a parameter counts what it reads: kernels are (outputs, inputs, h, w), projections (inputs, outputs)."""
    if tensor.ndim == 4 and name.endswith(("square", "point", "weight")):
        return 1
    return 0 if tensor.ndim == 2 and name.endswith("weight") else None


@torch.no_grad()
def widen(name: str, large: torch.Tensor, small: torch.Tensor) -> None:
    """Puts a parameter into the first channels of a larger one; what was there does not read the new channels."""
    corner = large[tuple(slice(n) for n in small.shape)]
    axis = inputs_axis(name, small)
    if axis is not None and large.shape[axis] > small.shape[axis]:
        outputs = 1 - axis
        known = large.narrow(outputs, 0, small.shape[outputs])
        known.narrow(axis, small.shape[axis], large.shape[axis] - small.shape[axis]).zero_()
    corner.copy_(small)


@torch.no_grad()
def make_identity(block: MergedConv) -> None:
    """Only the identity branch is left, and a batch norm that does nothing."""
    block.square.zero_()
    block.point.zero_()
    block.identity_scale.fill_(1)
    norm = block.norm
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
    norm.bias.zero_()


@torch.no_grad()
def make_silent(layer: DecoderLayer) -> None:
    """A decoder layer whose three parts add nothing; its plain norms are undone by the norm that follows them."""
    for part in (layer.cross, layer.own, layer.contract):
        last = part.out if isinstance(part, Attention) else part
        last.weight.zero_()
        last.bias.zero_()


@torch.no_grad()
def settle(large: Parser, block_list: list, pictures: np.ndarray) -> None:
    """Gives new blocks the statistics of what passes through them, and scales that undo them."""
    for block, (mean, variance) in zip(block_list, observe_norms(large, block_list, pictures), strict=True):
        norm = block.norm
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))
        norm.bias.copy_(mean)


def grow(small: Parser, network: str, pictures: np.ndarray) -> Parser:
    """`small` with the blocks, channels and decoder layers that `network` has and it lacks. `pictures` (N, H, W, 3)
    uint8 give the new batch norms their statistics, so that the function is the same in training too."""
    check_larger(small.config, NETWORKS[network], network)
    torch.manual_seed(0)
    large = Parser(NETWORKS[network]).eval()
    theirs = large.state_dict()
    for name, tensor in small.state_dict().items():
        widen(name, theirs[name], tensor)
    blocks = new_blocks(small, large)
    for block in blocks:
        make_identity(block)
    for layer in large.layers[len(small.layers) :]:
        make_silent(layer)
    if blocks:
        settle(large, blocks, pictures)
    return large


def save_grown(checkpoint: Path, network: str, pictures: np.ndarray, out: Path) -> None:
    """Writes the grown network of a checkpoint as a weights file that `train --start` reads."""
    state = read_state(checkpoint)
    weights = grow(averaged_parser(state, checkpoint), network, pictures).state_dict()
    config = to_dict(TrainConfig(network=network))
    save_state(out, {"config": config, "average": weights, "seen": pictures_seen(state)})

"""A trained network into a deeper one that computes the same: training goes on instead of starting again.

The new blocks stand at the end of a stage, where everything is positive already. There a block whose kernel is the
identity changes nothing (Chen et al. 2016, Net2Net, arXiv:1511.05641, section 2.3), and our merged convolution has that
branch anyway.
"""

from pathlib import Path

import numpy as np
import torch

from .config import NETWORKS, TrainConfig, to_dict
from .network import MergedConv, Parser
from .restore import observe_norms
from .states import averaged_parser, pictures_seen, read_state, save_state


class GrowError(Exception):
    """Two networks of which one is not the other with more blocks; names what differs."""


def new_blocks(small: Parser, large: Parser) -> list:
    """The blocks of `large` that `small` lacks, in the order of the forward pass."""
    stages = list(zip(small.backbone.stages, large.backbone.stages, strict=True))
    stages.append((small.pyramid.mask_smooth, large.pyramid.mask_smooth))
    return [block for mine, theirs in stages for block in list(theirs)[len(mine) :]]


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


def grow(small: Parser, network: str, pictures: np.ndarray) -> Parser:
    """`small` with the blocks that `network` has and it lacks. `pictures` (N, H, W, 3) uint8 give the new batch norms
    their statistics, so that the function is the same in training too."""
    large = Parser(NETWORKS[network]).eval()
    try:
        missing = large.load_state_dict(small.state_dict(), strict=False)
    except RuntimeError as error:
        raise GrowError(f"{network} is not a deeper form of these weights' network: {error}") from error
    blocks = new_blocks(small, large)
    fresh = {id(p) for block in blocks for p in block.state_dict(keep_vars=True).values()}
    strange = [n for n in missing.missing_keys if id(large.state_dict(keep_vars=True)[n]) not in fresh]
    if strange or missing.unexpected_keys:
        raise GrowError(f"{network} is not a deeper form: {(strange + missing.unexpected_keys)[:3]} differ")
    for block in blocks:
        make_identity(block)
    with torch.no_grad():
        for block, (mean, variance) in zip(blocks, observe_norms(large, blocks, pictures), strict=True):
            norm = block.norm
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps))
            norm.bias.copy_(mean)
    return large


def save_grown(checkpoint: Path, network: str, pictures: np.ndarray, out: Path) -> None:
    """Writes the grown network of a checkpoint as a weights file that `train --start` reads."""
    state = read_state(checkpoint)
    weights = grow(averaged_parser(state, checkpoint), network, pictures).state_dict()
    config = to_dict(TrainConfig(network=network))
    save_state(out, {"config": config, "average": weights, "seen": pictures_seen(state)})

"""A shipped model folder back to float weights, so that training can go on from what is shipped.

The int8 kernels become the 3x3 branches; the other branches start at zero and grow again. Batch norm is put back with
the statistics of rendered pictures and scales that undo them, so the function is the same and its gradients are sane.
"""

from pathlib import Path

import numpy as np
import onnx
import torch

from .config import HEIGHT, NETWORKS, PERSON, WIDTH, TrainConfig, to_dict
from .network import MergedConv, Parser, sine_position
from .shipped import read_model
from .states import save_state

# What a 3x3 kernel of He's initialisation has for a norm; optimisers expect weights of that size.
KERNEL_NORM = 2**0.5
LEVELS = ((32, "position"), (16, "position_a"), (8, "position_b"))


class RestoreError(Exception):
    """A model folder that is not what a network of this code exports; says what differs."""


def constants(model: onnx.ModelProto) -> dict:
    """Initializers by name."""
    return {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}


def kernels(trunk: onnx.ModelProto) -> dict:
    """Float kernel and bias of every QLinearConv, by the convolution's name in the trunk."""
    values, found = constants(trunk), {}
    for node in trunk.graph.node:
        if node.op_type != "QLinearConv":
            continue
        input_scale, kernel, scale = (values[node.input[k]].astype(np.float64) for k in (1, 3, 4))
        bias = values[node.input[8]].astype(np.float64) * input_scale * scale
        name = node.input[3].removesuffix(".weight.s8")
        found[name] = torch.tensor(kernel * scale).float(), torch.tensor(bias).float()
    return found


def blocks(model: Parser) -> dict:
    """Every convolution with a batch norm, by its name in the trunk."""
    places = {}
    for s, stage in enumerate(model.backbone.stages):
        # Folded, each block is a convolution and a ReLU.
        places |= {f"stages.{s}.{2 * b}": block for b, block in enumerate(stage)}
    pyramid = model.pyramid
    places |= {f"lateral.{k}": block for k, block in enumerate(pyramid.lateral)}
    places |= {f"smooth.{k}.0": block for k, block in enumerate(pyramid.smooth)}
    places |= {f"mask_smooth.{2 * k}": block for k, block in enumerate(pyramid.mask_smooth)}
    return places | {"narrow": pyramid.narrow, "mask_lateral": pyramid.mask_lateral}


def check(places: dict, found: dict) -> None:
    """The graph must hold exactly this network's convolutions."""
    wrong = set(places) | {"mask_out"}
    wrong ^= set(found)
    wrong |= {n for n in set(places) & set(found) if main_kernel(places[n]).shape != found[n][0].shape}
    if wrong:
        raise RestoreError(f"trunk.onnx is not of this network: {sorted(wrong)} differ; give its --network")


def main_kernel(block) -> torch.nn.Parameter:
    """The kernel that takes the restored weights."""
    return block.square if isinstance(block, MergedConv) else block.conv.weight


@torch.no_grad()
def put_kernel(block, kernel: torch.Tensor, bias: torch.Tensor) -> None:
    """Sets one block to a plain convolution: other branches zero, batch norm the identity plus the bias."""
    main_kernel(block).copy_(kernel)
    if isinstance(block, MergedConv):
        block.square_scale.fill_(1)
        block.point_scale.zero_()
        if block.has_identity:
            block.identity_scale.zero_()
    norm = block.norm
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
    norm.bias.copy_(bias)


@torch.no_grad()
def put_decoder(model: Parser, trunk: dict, head: dict) -> None:
    """Queries, level offsets, decoder layers and predictor."""
    model.query.copy_(torch.tensor(trunk["query"]))
    model.query_position.copy_(torch.tensor(trunk["query_position"]))
    for level, (stride, name) in enumerate(LEVELS):
        whole = torch.tensor(trunk[name] if name in trunk else head[name])
        offset = whole - sine_position(HEIGHT // stride, WIDTH // stride, model.config.dim)
        model.level[level].copy_(offset.mean(1).reshape(1, 1, -1))
    own = dict(model.named_parameters())
    named = {"layers.0." + n.removeprefix("layer."): v for n, v in trunk.items() if n.startswith("layer.")}
    named |= {n: v for n, v in head.items() if n.startswith(("layers.", "predictor."))}
    for name, value in named.items():
        own[name].copy_(torch.tensor(value))


@torch.no_grad()
def observe_norms(model: Parser, places: list, pictures: np.ndarray) -> list:
    """Mean and variance per channel of what enters the batch norm of each block, over `pictures` (N, H, W, 3) uint8."""
    sums = [[0, 0.0, 0.0] for _ in places]

    def observer(total):
        def observe(_, inputs):
            x = inputs[0].double()
            total[0] += x.numel() // x.shape[1]
            total[1] = total[1] + x.sum((0, 2, 3))
            total[2] = total[2] + (x * x).sum((0, 2, 3))

        return observe

    hooks = [b.norm.register_forward_pre_hook(observer(t)) for b, t in zip(places, sums, strict=True)]
    for k in range(0, len(pictures), 16):
        model(torch.from_numpy(pictures[k : k + 16]).permute(0, 3, 1, 2).float() / 255)
    for hook in hooks:
        hook.remove()
    means = [first / count for count, first, _ in sums]
    squares = [second / count for count, _, second in sums]
    return [(mean, (square - mean**2).clamp_min(1e-8)) for mean, square in zip(means, squares, strict=True)]


@torch.no_grad()
def settle(model: Parser, pictures: np.ndarray) -> None:
    """Gives every batch norm the statistics of `pictures` (N, H, W, 3) uint8 without changing the function."""
    places = list(blocks(model).values())
    for block, (mean, variance) in zip(places, observe_norms(model, places, pictures), strict=True):
        kernel, norm = main_kernel(block), block.norm
        factor = KERNEL_NORM / kernel.flatten(1).norm(dim=1).clamp_min(1e-6)
        kernel *= factor[:, None, None, None]
        norm.running_mean.copy_(mean * factor)
        norm.running_var.copy_(variance * factor**2)
        norm.weight.copy_(torch.sqrt(norm.running_var + norm.eps) / factor)
        norm.bias.copy_(norm.bias + mean)


def restore(folder: Path, network: str, pictures: np.ndarray) -> Parser:
    """The float network of a shipped folder; `pictures` settle its batch norms. The bias of `person` is the trained one:
    what `export` subtracted from it is added again."""
    trunk, head, manifest = read_model(folder)
    model = Parser(NETWORKS[network]).eval()
    found, places = kernels(trunk), blocks(model)
    check(places, found)
    for name, block in places.items():
        put_kernel(block, *found[name])
    with torch.no_grad():
        model.pyramid.mask_out.weight.copy_(found["mask_out"][0])
        model.pyramid.mask_out.bias.copy_(found["mask_out"][1])
    put_decoder(model, constants(trunk), constants(head))
    with torch.no_grad():
        model.predictor.class_head.bias[PERSON] += float(manifest["person_bias"])
    settle(model, pictures)
    return model


def save_restored(folder: Path, network: str, pictures: np.ndarray, out: Path) -> None:
    """Writes the float network as a weights file that `train --start` reads."""
    weights = restore(folder, network, pictures).state_dict()
    save_state(out, {"config": to_dict(TrainConfig(network=network)), "average": weights, "seen": 0})

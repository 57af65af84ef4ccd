"""From a checkpoint to the shipped folder: fold, equalise, export, quantise, package."""

from pathlib import Path

import numpy as np
import torch

from .config import HEIGHT, NETWORKS, OTHER_SIZES, WIDTH
from .deploy import Head, Trunk, equalise
from .network import Parser
from .onnx_export import float_head, float_trunk
from .package import write_model
from .quantise import observe, quantise


def random_parser(name: str, seed: int) -> Parser:
    """A network with random weights and sane activations, to develop against before a trained one exists."""
    torch.manual_seed(seed)
    model = Parser(NETWORKS[name])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
        model.train()
        for _ in range(40):
            model(torch.nn.functional.interpolate(torch.rand(4, 3, 16, 12), size=(128, 96), mode="bicubic"))
    return model.eval()


def build(model: Parser, calibration: np.ndarray, method: str = "mse") -> tuple:
    """Float trunk, int8 trunk, float head and the two modules, for calibration pictures (N, H, W, 3) uint8."""
    trunk = Trunk(model, HEIGHT, WIDTH).eval()
    head = Head(model, HEIGHT, WIDTH).eval()
    equalise(trunk)
    float_graph = float_trunk(trunk, HEIGHT, WIDTH)
    statistics = observe(float_graph, calibration.transpose(0, 3, 1, 2))
    int8_graph = quantise(float_graph, statistics, method)
    return float_graph, int8_graph, float_head(head, trunk, HEIGHT, WIDTH), trunk, head


def ship(model: Parser, calibration: np.ndarray, fixtures: np.ndarray, out: Path, info: dict, **options) -> None:
    """Builds and writes a model folder."""
    _, int8_graph, head_graph, _, head = build(model, calibration, **options)
    info = {"height": HEIGHT, "width": WIDTH, "other_sizes": OTHER_SIZES, **info}
    write_model(out, int8_graph, head_graph, head, info, fixtures)

"""The deployed form of a network: plain convolutions, split into a frozen trunk and a trainable head."""

import copy

import torch
from torch import nn

from .network import Parser, attention_bias, mask_logits, pool_to, tokens, upsample

TRUNK_OUTPUTS = ("queries", "memory_a", "memory_b", "mask_features")
HEAD_OUTPUTS = ("class_logits", "mask_logits")
TRUNK_LAYERS = 1
# Cross-layer equalisation never moves a channel by more than this factor.
MAX_EQUALISING = 16.0


class Trunk(nn.Module):
    """Backbone, pyramid and first decoder layer. Input (1, 3, H, W) in 0..1."""

    def __init__(self, model: Parser, height: int, width: int):
        super().__init__()
        model = copy.deepcopy(model).eval()
        if model.config.layers != 3:
            raise ValueError(f"only three decoder layers are deployed, this network has {model.config.layers}")
        self.stages = nn.ModuleList([fold_all(stage) for stage in model.backbone.stages])
        pyramid = model.pyramid
        self.lateral = nn.ModuleList([conv.fold() for conv in pyramid.lateral])
        self.smooth = nn.ModuleList([conv.fold() for conv in pyramid.smooth])
        self.narrow = pyramid.narrow.fold()
        self.mask_lateral = pyramid.mask_lateral.fold()
        self.mask_smooth = fold_all(pyramid.mask_smooth)
        self.mask_out = pyramid.mask_out
        self.layer = model.layers[0]
        with torch.no_grad():
            top = torch.zeros(1, model.config.dim, height // 32, width // 32)
            constants = {
                "query": model.query,
                "query_position": model.query_position,
                "embedding": model.predictor(model.query)[1],
                "position": model.position(0, top),
            }
        for name, value in constants.items():
            self.register_buffer(name, value.detach().clone())

    def convolutions(self, pixels: torch.Tensor) -> tuple:
        """Mask features and the memories at strides 32, 16, 8."""
        x, maps = pixels, []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        top = self.lateral[2](maps[4])
        middle = self.smooth[1](self.lateral[1](maps[3]) + upsample(top))
        bottom = self.smooth[0](self.lateral[0](maps[2]) + upsample(middle))
        mask = self.mask_smooth(self.mask_lateral(maps[1]) + upsample(self.narrow(bottom)))
        return self.mask_out(mask), top, middle, bottom

    def forward(self, pixels: torch.Tensor) -> tuple:
        mask_features, top, middle, bottom = self.convolutions(pixels)
        pooled = pool_to(mask_features, mask_features.shape[-1] // top.shape[-1])
        bias = attention_bias(self.embedding, pooled)
        queries = self.layer(self.query, self.query_position, tokens(top), self.position, bias)
        return queries, tokens(middle), tokens(bottom), mask_features


class Head(nn.Module):
    """The last two decoder layers and the predictor; parameter names are those of the whole network."""

    def __init__(self, model: Parser, height: int, width: int):
        super().__init__()
        model = copy.deepcopy(model).eval()
        self.layers = nn.ModuleDict({str(i): model.layers[i] for i in range(TRUNK_LAYERS, model.config.layers)})
        self.predictor = model.predictor
        dim = model.config.dim
        with torch.no_grad():
            position_a = model.position(1, torch.zeros(1, dim, height // 16, width // 16))
            position_b = model.position(2, torch.zeros(1, dim, height // 8, width // 8))
        self.register_buffer("query_position", model.query_position.detach().clone())
        self.register_buffer("position_a", position_a.detach().clone())
        self.register_buffer("position_b", position_b.detach().clone())
        self.factors = (4, 2)

    def forward(self, queries, memory_a, memory_b, mask_features):
        x, (logits, embeddings) = queries, self.predictor(queries)
        memories = ((memory_a, self.position_a), (memory_b, self.position_b))
        for layer, (memory, position), factor in zip(self.layers.values(), memories, self.factors, strict=True):
            bias = attention_bias(embeddings, pool_to(mask_features, factor))
            x = layer(x, self.query_position, memory, position, bias)
            logits, embeddings = self.predictor(x)
        return logits, mask_logits(embeddings, mask_features)


def fold_all(stage: nn.Sequential) -> nn.Sequential:
    """A stage of merged convolutions as plain convolutions and ReLUs in one flat sequence."""
    layers = []
    for block in stage:
        layers.extend(block.fold())
    return nn.Sequential(*layers)


def parameter_group(name: str) -> str:
    """The group of a head parameter, for on-device learning to choose which parts move."""
    if ".class_head." in name:
        return "class_head"
    if ".norm" in name:
        return "norm"
    return "bias" if name.endswith(".bias") else "weight"


def equalise(trunk: Trunk, rounds: int = 8) -> None:
    """Cross-layer equalisation (Nagel et al. 2019, arXiv:1906.04721) of the backbone, in place.

    A ReLU channel may be divided by s if every reader multiplies by s: the map is unchanged, and the weight
    ranges of a per-tensor quantisation even out.
    """
    convs = [m for stage in trunk.stages for m in stage if isinstance(m, nn.Conv2d)]
    readers = {id(conv): [after] for conv, after in zip(convs, convs[1:], strict=False)}
    readers[id(convs[-1])] = []
    for stage, lateral in (
        (1, trunk.mask_lateral),
        (2, trunk.lateral[0]),
        (3, trunk.lateral[1]),
        (4, trunk.lateral[2]),
    ):
        last = [m for m in trunk.stages[stage] if isinstance(m, nn.Conv2d)][-1]
        readers[id(last)].append(lateral)
    masks = [m for m in trunk.mask_smooth if isinstance(m, nn.Conv2d)] + [trunk.mask_out]
    readers |= {id(conv): [after] for conv, after in zip(masks, masks[1:], strict=False)}
    with torch.no_grad():
        for _ in range(rounds):
            for conv in convs + masks[:-1]:
                balance(conv, readers[id(conv)])


def balance(conv: nn.Conv2d, readers: list) -> None:
    """Scales each output channel so that its weights here and in its readers span alike."""
    here = conv.weight.abs().amax((1, 2, 3))
    there = torch.stack([r.weight.abs().amax((0, 2, 3)) for r in readers]).amax(0)
    scale = torch.sqrt((here / here.max()).clamp_min(1e-8) / (there / there.max()).clamp_min(1e-8))
    scale = scale.clamp(1 / MAX_EQUALISING, MAX_EQUALISING)
    # A dead channel has nothing to balance.
    scale[(here < 1e-8) | (there < 1e-8)] = 1.0
    conv.weight /= scale[:, None, None, None]
    conv.bias /= scale
    for reader in readers:
        reader.weight *= scale[None, :, None, None]

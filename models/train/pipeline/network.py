"""The network: plain 3x3 backbone, feature pyramid, masked-attention decoder over whole-picture queries.

Cheng et al. 2022 (Mask2Former, arXiv:2112.01527) describe the decoder; Yang et al. (M2FP) its use for people.
The re-parameterised convolutions follow Ding et al. 2021 (RepVGG, arXiv:2101.03697) with the branches merged
before the convolution, as Hu et al. 2022 (OREPA, arXiv:2204.00826) do, so that training costs one convolution.
"""

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import nn

from .config import PART_CLASSES, QUERY_CLASSES, NetworkConfig

MASKED = -1e4


class MergedConv(nn.Module):
    """3x3 convolution, batch norm and ReLU whose kernel is the sum of a 3x3, a 1x1 and an identity branch.

    Each branch has one scale per output channel. `fold` gives the kernel and bias of the plain convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1):
        super().__init__()
        self.stride = stride
        self.square = nn.Parameter(torch.empty(outputs, inputs, 3, 3))
        self.point = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        nn.init.kaiming_normal_(self.square, mode="fan_in", nonlinearity="relu")
        nn.init.kaiming_normal_(self.point, mode="fan_in", nonlinearity="relu")
        self.square_scale = nn.Parameter(torch.ones(outputs, 1, 1, 1))
        self.point_scale = nn.Parameter(torch.full((outputs, 1, 1, 1), 0.5))
        self.has_identity = inputs == outputs and stride == 1
        if self.has_identity:
            self.identity_scale = nn.Parameter(torch.ones(outputs))
        self.norm = nn.BatchNorm2d(outputs, momentum=0.03)

    @torch.no_grad()
    def rescale(self) -> None:
        """Gives the kernels the size that they began with (He's) and their scales the rest. The merged kernel stays what it
        is, and a step of fixed size moves it as far as it did in the beginning."""
        for kernel, scale in ((self.square, self.square_scale), (self.point, self.point_scale)):
            size = kernel.square().mean().sqrt()
            factor = torch.where(size > 0, math.sqrt(2 / kernel[0].numel()) / size, torch.ones_like(size))
            kernel.mul_(factor)
            scale.div_(factor)

    def kernel(self) -> torch.Tensor:
        """The merged kernel, (outputs, inputs, 3, 3)."""
        centre = self.point * self.point_scale
        if self.has_identity:
            centre = centre + torch.diag(self.identity_scale)[:, :, None, None]
        return self.square * self.square_scale + F.pad(centre, (1, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.conv2d(x, self.kernel(), None, self.stride, 1)
        return F.relu(self.norm(y), inplace=True)

    def fold(self) -> nn.Sequential:
        """The same map with running statistics as one biased convolution and a ReLU."""
        return nn.Sequential(folded(self.kernel(), self.norm, self.stride), nn.ReLU())


class PointConv(nn.Module):
    """1x1 convolution and batch norm, without activation."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs, momentum=0.03)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x))

    def fold(self) -> nn.Conv2d:
        """The same map with running statistics as one biased convolution."""
        return folded(self.conv.weight, self.norm, 1)


def folded(kernel: torch.Tensor, norm: nn.BatchNorm2d, stride: int) -> nn.Conv2d:
    """Batch norm folded into a convolution: w' = w g / s, b' = b - m g / s with s = sqrt(var + eps)."""
    outputs, inputs, size, _ = kernel.shape
    conv = nn.Conv2d(inputs, outputs, size, stride, size // 2)
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    conv.weight.data = (kernel * gain[:, None, None, None]).detach().clone()
    conv.bias.data = (norm.bias - norm.running_mean * gain).detach().clone()
    return conv


class Backbone(nn.Module):
    """Stages of plain convolutions; returns the maps at strides 4, 8, 16 and 32."""

    def __init__(self, widths, depths):
        super().__init__()
        stages, inputs = [], 3
        for width, depth in zip(widths, depths, strict=True):
            blocks = []
            for index in range(depth):
                blocks.append(MergedConv(inputs, width, 2 if index == 0 else 1))
                inputs = width
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: torch.Tensor) -> list:
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[1:]


class Pyramid(nn.Module):
    """Top-down feature pyramid: decoder memories at strides 32, 16, 8 and the mask features at stride 4."""

    def __init__(self, widths, dim: int, mask_width: int, mask_depth: int):
        super().__init__()
        self.lateral = nn.ModuleList([PointConv(width, dim) for width in widths[2:]])
        self.smooth = nn.ModuleList([MergedConv(dim, dim) for _ in range(2)])
        self.narrow = PointConv(dim, mask_width)
        self.mask_lateral = PointConv(widths[1], mask_width)
        self.mask_smooth = nn.Sequential(*[MergedConv(mask_width, mask_width) for _ in range(mask_depth)])
        self.mask_out = nn.Conv2d(mask_width, dim, 1)

    def forward(self, maps: list) -> tuple:
        stride4, stride8, stride16, stride32 = maps
        top = self.lateral[2](stride32)
        middle = self.smooth[1](self.lateral[1](stride16) + upsample(top))
        bottom = self.smooth[0](self.lateral[0](stride8) + upsample(middle))
        mask = self.mask_smooth(self.mask_lateral(stride4) + upsample(self.narrow(bottom)))
        return self.mask_out(mask), (top, middle, bottom)


def upsample(x: torch.Tensor) -> torch.Tensor:
    """Twice the size by repetition: the cheapest form, and the only one that int8 keeps exactly."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Projection(nn.Module):
    """x W + b with W stored (inputs, outputs), so that the exported graph keeps the parameter's own name and layout."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.matmul(x, self.weight)
        return y if self.bias is None else y + self.bias


class Attention(nn.Module):
    """Multi-head attention with an additive bias that broadcasts over heads."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads, self.depth = heads, dim // heads
        self.scale = self.depth**-0.5
        self.query = Projection(dim, dim)
        # A bias on the keys adds the same number to every score of a query, which the softmax removes.
        self.key = Projection(dim, dim, bias=False)
        self.value = Projection(dim, dim)
        self.out = Projection(dim, dim)

    def forward(self, query, key, value, bias=None):
        batch, count, dim = query.shape
        q = self.query(query).reshape(batch, count, self.heads, self.depth).transpose(1, 2) * self.scale
        k = self.key(key).reshape(batch, -1, self.heads, self.depth).permute(0, 2, 3, 1)
        v = self.value(value).reshape(batch, -1, self.heads, self.depth).transpose(1, 2)
        scores = torch.matmul(q, k)
        if bias is not None:
            scores = scores + bias
        mixed = torch.matmul(torch.softmax(scores, -1), v)
        return self.out(mixed.transpose(1, 2).reshape(batch, count, dim))


class DecoderLayer(nn.Module):
    """Masked cross-attention, self-attention, feed-forward; each added and normalised, in Mask2Former's order."""

    def __init__(self, dim: int, heads: int, hidden: int):
        super().__init__()
        self.cross = Attention(dim, heads)
        self.own = Attention(dim, heads)
        self.expand = Projection(dim, hidden)
        self.contract = Projection(hidden, dim)
        self.norm_cross = nn.LayerNorm(dim)
        self.norm_own = nn.LayerNorm(dim)
        self.norm_out = nn.LayerNorm(dim)

    def forward(self, x, query_position, memory, position, bias):
        x = self.norm_cross(x + self.cross(x + query_position, memory + position, memory, bias))
        placed = x + query_position
        x = self.norm_own(x + self.own(placed, placed, x))
        return self.norm_out(x + self.contract(torch.relu(self.expand(x))))


class MaskEmbedding(nn.Module):
    """Three-layer perceptron from a query to its mask embedding."""

    def __init__(self, dim: int):
        super().__init__()
        self.first = Projection(dim, dim)
        self.second = Projection(dim, dim)
        self.third = Projection(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(torch.relu(self.second(torch.relu(self.first(x)))))


class Predictor(nn.Module):
    """Final norm, class head and mask embedding; shared by every decoder layer."""

    def __init__(self, dim: int):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.class_head = Projection(dim, QUERY_CLASSES)
        self.mask_embedding = MaskEmbedding(dim)

    def forward(self, x: torch.Tensor) -> tuple:
        """Queries (B, Q, D) to class logits (B, Q, 18) and mask embeddings (B, Q, D)."""
        y = self.norm(x)
        return self.class_head(y), self.mask_embedding(y)


def attention_bias(embeddings: torch.Tensor, pooled: torch.Tensor) -> torch.Tensor:
    """Bias (B, 1, Q, N) that hides the tokens outside each query's own mask, unless that hides everything.

    `pooled` is the mask features averaged onto the memory's grid, (B, D, N); averaging logits and averaging
    features give the same number because the product is linear.
    """
    logits = torch.matmul(embeddings, pooled)
    hidden = (logits < 0).to(pooled.dtype)
    everything = hidden.amin(-1, keepdim=True)
    batch, queries, _ = logits.shape
    return (hidden * (1 - everything) * MASKED).reshape(batch, 1, queries, -1)


def pool_to(mask_features: torch.Tensor, factor: int) -> torch.Tensor:
    """Mask features (B, D, H, W) averaged over factor x factor cells, (B, D, N)."""
    return flat(F.avg_pool2d(mask_features, factor))


def flat(x: torch.Tensor) -> torch.Tensor:
    """(B, D, H, W) to (B, D, H W). The number of cells is left open, so that a traced graph serves every input size."""
    batch, channels = x.shape[:2]
    return x.reshape(batch, channels, -1)


def tokens(x: torch.Tensor) -> torch.Tensor:
    """(B, D, H, W) to (B, H W, D)."""
    return flat(x).transpose(1, 2)


@lru_cache(maxsize=64)
def sine_position(height: int, width: int, dim: int, device=torch.device("cpu")) -> torch.Tensor:
    """Sine position embedding (1, H W, D) of relative coordinates, so that it survives a change of resolution."""
    bands = dim // 4
    frequency = 2 * math.pi * 10000.0 ** (-torch.arange(bands) / bands)
    y = (torch.arange(height) + 0.5) / height
    x = (torch.arange(width) + 0.5) / width
    wave_y, wave_x = y[:, None] * frequency, x[:, None] * frequency
    parts_y = torch.cat([wave_y.sin(), wave_y.cos()], 1)[:, None].expand(height, width, 2 * bands)
    parts_x = torch.cat([wave_x.sin(), wave_x.cos()], 1)[None].expand(height, width, 2 * bands)
    return torch.cat([parts_y, parts_x], 2).reshape(1, height * width, 4 * bands).to(device)


class Parser(nn.Module):
    """The whole network. Input (B, 3, H, W) in 0..1; H and W are multiples of 32. `auxiliary` gives it a classifier on
    each memory, which only training needs."""

    def __init__(self, config: NetworkConfig, auxiliary: bool = False):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config.widths, config.depths)
        self.pyramid = Pyramid(config.widths, config.dim, config.mask_width, config.mask_depth)
        self.query = nn.Parameter(torch.randn(1, config.queries, config.dim) * 0.5)
        self.query_position = nn.Parameter(torch.randn(1, config.queries, config.dim) * 0.5)
        self.level = nn.Parameter(torch.zeros(3, 1, 1, config.dim))
        self.layers = nn.ModuleList(
            [DecoderLayer(config.dim, config.heads, config.hidden) for _ in range(config.layers)]
        )
        self.predictor = Predictor(config.dim)
        # Per-pixel classifier on the mask features: a direct gradient to the convolutions early in training.
        self.dense = nn.Conv2d(config.dim, PART_CLASSES, 1)
        # The same on the memories, for the backbone's deep stages. From zero on: what a trained backbone gives them is not
        # shaken by the first steps.
        self.auxiliary = nn.ModuleList([nn.Conv2d(config.dim, PART_CLASSES, 1) for _ in range(3 if auxiliary else 0)])
        for classifier in self.auxiliary:
            nn.init.zeros_(classifier.weight)
            nn.init.zeros_(classifier.bias)

    def position(self, level: int, memory: torch.Tensor) -> torch.Tensor:
        """Position embedding (1, N, D) of one memory map (B, D, H, W), with the level's own offset."""
        height, width = memory.shape[-2:]
        return sine_position(height, width, self.config.dim, memory.device) + self.level[level]

    def rescale(self) -> None:
        """`MergedConv.rescale` of all blocks: the same function."""
        for module in self.modules():
            if isinstance(module, MergedConv):
                module.rescale()

    def features(self, pixels: torch.Tensor) -> tuple:
        """Mask features (B, D, H/4, W/4) and the three memories, from stride 32 to stride 8."""
        return self.pyramid(self.backbone(pixels))

    def decode(self, mask_features: torch.Tensor, memories) -> list:
        """Class logits and mask embeddings after the initial queries and after every layer."""
        batch = mask_features.shape[0]
        x = self.query.expand(batch, -1, -1)
        predictions = [self.predictor(x)]
        pooled = [pool_to(mask_features, mask_features.shape[-1] // m.shape[-1]).detach() for m in memories]
        flattened = [tokens(m) for m in memories]
        positions = [self.position(i, m) for i, m in enumerate(memories)]
        for index, layer in enumerate(self.layers):
            level = index % 3
            bias = attention_bias(predictions[-1][1].detach(), pooled[level])
            x = layer(x, self.query_position, flattened[level], positions[level], bias)
            predictions.append(self.predictor(x))
        return predictions

    def forward(self, pixels: torch.Tensor) -> tuple:
        """Class logits (B, Q, 18) and mask logits (B, Q, H/4, W/4)."""
        mask_features, memories = self.features(pixels)
        logits, embeddings = self.decode(mask_features, memories)[-1]
        return logits, mask_logits(embeddings, mask_features)


def mask_logits(embeddings: torch.Tensor, mask_features: torch.Tensor) -> torch.Tensor:
    """(B, Q, D) x (B, D, H, W) to (B, Q, H, W)."""
    batch, _, height, width = mask_features.shape
    return torch.matmul(embeddings, flat(mask_features)).reshape(batch, -1, height, width)


def semantic_scores(logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """Score of each part class at each pixel, (B, 16, H, W): sum over queries of p(class) * sigmoid(mask)."""
    share = torch.softmax(logits, -1)[..., :PART_CLASSES]
    batch, _, height, width = masks.shape
    scores = torch.matmul(share.transpose(1, 2), flat(torch.sigmoid(masks)))
    return scores.reshape(batch, PART_CLASSES, height, width)


def multiplications(config: NetworkConfig, height: int, width: int) -> int:
    """Multiply-accumulates of the deployed network at one input size: convolutions, projections and products."""
    total, inputs = 0, 3
    area = lambda stride: height // stride * (width // stride)
    for index, (channels, depth) in enumerate(zip(config.widths, config.depths, strict=True)):
        first = 9 * inputs * channels
        total += area(2 << index) * (first + (depth - 1) * 9 * channels * channels)
        inputs = channels
    d, m, w = config.dim, config.mask_width, config.widths
    total += area(32) * w[4] * d + area(16) * d * (w[3] + 9 * d) + area(8) * d * (w[2] + 9 * d + m)
    total += area(4) * m * (w[1] + 9 * m * config.mask_depth + d)
    q = config.queries
    for index in range(config.layers):
        n = area((32, 16, 8)[index % 3])
        total += (
            2 * n * d * d + 2 * q * d * d + 3 * q * n * d + 4 * q * d * d + 2 * q * q * d + 2 * q * d * config.hidden
        )
    total += config.layers * 3 * q * d * d + q * d * QUERY_CLASSES + q * area(4) * d
    return total

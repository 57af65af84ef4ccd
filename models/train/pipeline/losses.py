"""Matching and losses over sampled points: class + BCE + dice, as Mask2Former and M2FP do, and distillation.

Targets have a fixed layout: rows 0..15 are the part classes merged over all people (0 is the background), rows
16.. are whole people. `present` says which rows a picture has.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from .assignment import assign
from .config import NO_OBJECT, PART_CLASSES, PERSON, QUERY_CLASSES, TrainConfig
from .metrics import IGNORE
from .transfer import Fetched, send


@dataclass
class Targets:
    """What a batch of pictures shows at K sampled points."""

    masks: torch.Tensor  # (B, T, K) 0 or 1
    present: torch.Tensor  # (B, T) bool: shown, and at a point that counts
    classes: torch.Tensor  # (T,) query class of each row
    valid: torch.Tensor  # (B, K) 0 where the label is to be ignored
    parts: torch.Tensor  # (B, K) part class, 255 = ignore


@dataclass
class Matches:
    """Query-to-target pairs of a batch: three index vectors of one length."""

    image: torch.Tensor
    query: torch.Tensor
    target: torch.Tensor


@dataclass
class Answer:
    """What a network says of a batch in its last layer, and which query it gives to which target."""

    logits: torch.Tensor  # (B, Q, 18)
    points: torch.Tensor  # (B, Q, K) mask logits at the sampled points
    matches: Matches


def build_targets(parts: torch.Tensor, person: torch.Tensor, present: torch.Tensor) -> Targets:
    """Point labels (B, K) to masks. `present` (B, 16 + people) comes from the whole picture; what no point fell on is no
    target, since it would teach that its mask is empty."""
    people = present.shape[1] - PART_CLASSES
    part_rows = torch.arange(PART_CLASSES, device=parts.device)[None, :, None]
    person_rows = torch.arange(1, people + 1, device=parts.device)[None, :, None]
    masks = torch.cat([parts[:, None] == part_rows, person[:, None] == person_rows], 1)
    valid = parts != IGNORE
    present = present & (masks & valid[:, None]).any(2)
    classes = torch.cat([part_rows.flatten(), torch.full((people,), PERSON, device=parts.device)])
    return Targets(masks.float(), present, classes, valid.float(), parts)


def sample_features(mask_features: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Bilinear samples (B, D, K) of (B, D, H, W) at points (B, K, 2) in -1..1.

    The mask logit is linear in the features, so this equals sampling the logits, once for all queries and layers.
    """
    return F.grid_sample(
        mask_features, points[:, :, None], mode="bilinear", padding_mode="border", align_corners=False
    )[..., 0]


def pair_costs(logits, points, targets: Targets, config: TrainConfig) -> torch.Tensor:
    """Cost (B, Q, T) of giving a query to a target: 2 class + 5 BCE + 5 dice."""
    count = targets.valid.sum(1).clamp_min(1)[:, None, None]
    valid = targets.valid[:, None]
    masks = (targets.masks * valid).transpose(1, 2)
    class_cost = -torch.softmax(logits, -1)[..., targets.classes]
    # BCE(x, t) = softplus(x) - x t, so the pairwise sum is one product.
    bce = ((F.softplus(points) * valid).sum(2, keepdim=True) - points @ masks) / count
    share = torch.sigmoid(points) * valid
    dice = 1 - (2 * (share @ masks) + 1) / (share.sum(2, keepdim=True) + masks.sum(1)[:, None] + 1)
    return config.class_weight * class_cost + config.bce_weight * bce + config.dice_weight * dice


def prior_cost(queries: int, targets: int, device) -> torch.Tensor:
    """1 for a pair against the initial seating (query c for part class c, the rest for people), 0 otherwise."""
    cost = torch.ones(queries, targets, device=device)
    cost[:PART_CLASSES, :PART_CLASSES].fill_diagonal_(0)
    cost[PART_CLASSES:, PART_CLASSES:] = 0
    return cost


@torch.no_grad()
def match_layers(layers: list, targets: Targets, config: TrainConfig, prior: float = 0.0, meanwhile=None) -> list:
    """The cheapest one-to-one pairing of each picture's targets with queries (Hungarian algorithm), for each of L
    layers' (class logits, point logits). All costs leave the device together, in one wait; `meanwhile` is called before
    it, and the device does what that asks for while the processor pairs."""
    costs = torch.stack([pair_costs(logits, points, targets, config) for logits, points in layers])
    if prior > 0:
        costs = costs + prior * prior_cost(*costs.shape[-2:], costs.device)
    costs = torch.nan_to_num(costs, nan=1e4, posinf=1e4, neginf=-1e4)
    fetched = Fetched(costs, targets.present)
    if meanwhile is not None:
        meanwhile()
    cost, present = (tensor.numpy() for tensor in fetched.wait())
    count = len(cost)
    paired = assign(cost.reshape(-1, *cost.shape[2:]), np.tile(present, (count, 1))).reshape(count, *present.shape)
    image, target = np.nonzero(present)
    sent = send({"image": image, "query": paired[:, image, target], "target": target}, costs.device)
    return [Matches(sent["image"], query, sent["target"]) for query in sent["query"]]


def class_loss(logits, targets: Targets, matches: Matches, weight: float) -> torch.Tensor:
    """Cross-entropy over all queries; unmatched ones are to say `no object`, at a lower weight."""
    wanted = torch.full(logits.shape[:2], NO_OBJECT, device=logits.device)
    wanted[matches.image, matches.query] = targets.classes[matches.target]
    weights = torch.ones(QUERY_CLASSES, device=logits.device)
    weights[NO_OBJECT] = weight
    return F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), weights)


def mask_losses(x, wanted, valid) -> tuple:
    """BCE and dice of matched masks, (N, K) each, averaged over the N pairs."""
    count = valid.sum(1).clamp_min(1)
    bce = (F.binary_cross_entropy_with_logits(x, wanted, reduction="none") * valid).sum(1) / count
    share, wanted = torch.sigmoid(x) * valid, wanted * valid
    dice = 1 - (2 * (share * wanted).sum(1) + 1) / (share.sum(1) + wanted.sum(1) + 1)
    return bce.mean(), dice.mean()


def point_scores(logits, points) -> torch.Tensor:
    """Semantic scores (B, 16, K), the number that the device takes the argmax of."""
    share = torch.softmax(logits, -1)[..., :PART_CLASSES]
    return share.transpose(1, 2) @ torch.sigmoid(points)


def point_chances(logits, points) -> torch.Tensor:
    """Semantic scores (B, 16, K) as shares of their sum at each point."""
    scores = point_scores(logits, points) + 1e-4
    return scores / scores.sum(1, keepdim=True)


def semantic_loss(chances, targets: Targets) -> torch.Tensor:
    """Cross-entropy of the normalised semantic scores, which is what is judged in the end."""
    return F.nll_loss(torch.log(chances), targets.parts.long(), ignore_index=IGNORE)


def jaccard_steps(truth: torch.Tensor) -> torch.Tensor:
    """By how much the Jaccard loss rises with each further error, for truths (C, N) in the order of falling errors:
    the gradient of its Lovász extension (Berman et al. 2018, arXiv:1705.08790, algorithm 1)."""
    total = truth.sum(1, keepdim=True)
    intersection = total - truth.cumsum(1)
    union = total + (1 - truth).cumsum(1)
    loss = 1 - intersection / union
    return torch.diff(loss, dim=1, prepend=torch.zeros_like(total))


def jaccard_loss(chances, targets: Targets) -> torch.Tensor:
    """Lovász-Softmax over the whole batch: 1 - IoU, made continuous, averaged over the classes that the batch shows and
    the person as a whole. Only the uniform half of the points counts (`choose_points`): IoU is judged on all pixels that show something.

    No shape here hangs on the labels, since a GPU would have to be waited for: points to be ignored have no error, which
    puts them last, and classes that the batch lacks have no weight."""
    half = chances.shape[-1] // 2
    parts = targets.parts[:, :half].flatten()
    seen = parts != IGNORE
    chance = chances[..., :half].transpose(0, 1).flatten(1)
    chance = torch.cat([chance, 1 - chance[:1]])
    truth = parts == torch.arange(PART_CLASSES, device=parts.device)[:, None]
    truth = torch.cat([truth, ((parts > 0) & seen)[None]])
    shown, truth = truth.any(1).to(chance.dtype), truth.to(chance.dtype)
    errors, order = ((truth - chance).abs() * seen).sort(1, descending=True)
    losses = (errors * jaccard_steps(truth.gather(1, order))).sum(1)
    return (losses * shown).sum() / shown.sum().clamp_min(1)


def prediction_loss(logits, points, targets: Targets, matches: Matches, config: TrainConfig) -> dict:
    """The three losses of one layer's prediction, weighted."""
    x = points[matches.image, matches.query]
    bce, dice = mask_losses(x, targets.masks[matches.image, matches.target], targets.valid[matches.image])
    return {
        "class": config.class_weight * class_loss(logits, targets, matches, config.no_object_weight),
        "bce": config.bce_weight * bce,
        "dice": config.dice_weight * dice,
    }


def part_loss(logits, targets: Targets) -> torch.Tensor:
    """Cross-entropy of part logits (B, 16, K) at the points."""
    return F.cross_entropy(logits, targets.parts.long(), ignore_index=IGNORE)


def training_losses(
    predictions, sampled, dense_logits, targets: Targets, config: TrainConfig, prior: float, meanwhile=None
) -> tuple:
    """Every loss of a batch, summed over layers, by name; and the last layer's matches."""
    layers = [(logits, embeddings @ sampled) for logits, embeddings in predictions]
    matches = match_layers(layers, targets, config, prior, meanwhile)
    total = {}
    for (logits, points), pairs in zip(layers, matches, strict=True):
        for name, value in prediction_loss(logits, points, targets, pairs, config).items():
            total[name] = total.get(name, 0.0) + value
    chances = point_chances(*layers[-1])
    total["semantic"] = config.semantic_weight * semantic_loss(chances, targets)
    if config.jaccard_weight > 0:
        total["jaccard"] = config.jaccard_weight * jaccard_loss(chances, targets)
    total["dense"] = config.dense_weight * part_loss(dense_logits, targets)
    return total, matches[-1]


def distillation_losses(student: Answer, teacher: Answer, targets: Targets, config: TrainConfig) -> dict:
    """Soft classes and soft masks of the teacher's query for the same target, and its semantic map."""
    matches, theirs = student.matches, teacher.matches
    slot = torch.full(targets.present.shape, -1, device=student.logits.device)
    slot[theirs.image, theirs.target] = theirs.query
    partner = slot[matches.image, matches.target]
    soft_class = torch.softmax(teacher.logits[matches.image, partner], -1)
    own_class = torch.log_softmax(student.logits[matches.image, matches.query], -1)
    own = student.points[matches.image, matches.query]
    soft_mask = torch.sigmoid(teacher.points[matches.image, partner])
    own_map = torch.log(point_chances(student.logits, student.points))
    soft_map = point_chances(teacher.logits, teacher.points)
    return {
        "distil_class": config.distil_class * F.kl_div(own_class, soft_class, reduction="batchmean"),
        "distil_mask": config.distil_mask * F.binary_cross_entropy_with_logits(own, soft_mask),
        "distil_semantic": config.distil_semantic * F.kl_div(own_map, soft_map, reduction="none").sum(1).mean(),
    }

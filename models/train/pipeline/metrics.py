"""Counts and scores of label maps; nothing here reads a file."""

import numpy as np

from render.classes import FLIPPED, PARTS, PPP, TO_PPP

IGNORE = 255
LIMBS = tuple(i for i, other in enumerate(FLIPPED) if i != other)


def confusion(truth: np.ndarray, guess: np.ndarray, classes: int) -> np.ndarray:
    """Counts (classes, classes): rows are the truth, columns the guess; ignored pixels are left out."""
    keep = truth != IGNORE
    cells = truth[keep].astype(np.int64) * classes + guess[keep]
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def intersection_over_union(counts: np.ndarray) -> np.ndarray:
    """IoU per class; NaN for a class that is neither shown nor guessed."""
    hit = np.diag(counts).astype(np.float64)
    union = counts.sum(0) + counts.sum(1) - hit
    return np.where(union > 0, hit / np.maximum(union, 1), np.nan)


def to_ppp(counts: np.ndarray) -> np.ndarray:
    """A 16-class confusion as a seven-class one."""
    merge = np.zeros((len(PARTS), len(PPP)), np.int64)
    merge[np.arange(len(PARTS)), TO_PPP] = 1
    return merge.T @ counts @ merge


def summary(counts: np.ndarray) -> dict:
    """Scores of a 16-class confusion, in per cent: mIoU over 16 and seven classes, silhouette, pixel accuracy, left/right."""
    fine, coarse = intersection_over_union(counts), to_ppp(counts)
    ppp = intersection_over_union(coarse)
    silhouette = np.array([[counts[0, 0], counts[0, 1:].sum()], [counts[1:, 0].sum(), counts[1:, 1:].sum()]])
    limb_pixels = counts[list(LIMBS)].sum()
    swapped = sum(counts[i, FLIPPED[i]] for i in LIMBS)
    percent = lambda x: round(100 * float(x), 2)
    return {
        "miou": percent(np.nanmean(fine)),
        "ppp_miou": percent(np.nanmean(ppp)),
        "person_iou": percent(intersection_over_union(silhouette)[1]),
        "pixel_accuracy": percent(np.diag(counts).sum() / max(counts.sum(), 1)),
        "left_right": percent(swapped / max(limb_pixels, 1)),
        "iou": {name: percent(v) for name, v in zip(PARTS, fine, strict=True)},
        "ppp_iou": {name: percent(v) for name, v in zip(PPP, ppp, strict=True)},
    }


def false_alarms(truth: np.ndarray, guess: np.ndarray) -> tuple:
    """Pixels called a person, and all pixels, over the pictures (N, H, W) that show nobody."""
    empty = ~(truth != 0).any((1, 2))
    return int((guess[empty] != 0).sum()), int(guess[empty].size)


def people_scores(truth: np.ndarray, guess: np.ndarray, smallest: int = 100) -> dict:
    """Whole people (N, H, W), numbered per picture: how many are found and how many found ones are real.

    A found person counts when its IoU with a real one of at least `smallest` pixels exceeds one half, which makes
    the pairing unique.
    """
    hits, real, found = 0, 0, 0
    for mine, theirs in zip(truth, guess, strict=True):
        overlap = np.bincount(mine.ravel().astype(np.int64) * 256 + theirs.ravel(), minlength=65536).reshape(256, 256)
        sizes, areas = overlap.sum(1)[1:], overlap.sum(0)[1:]
        inner = overlap[1:, 1:]
        iou = inner / np.maximum(sizes[:, None] + areas[None] - inner, 1)
        pairs = (iou > 0.5) & (sizes[:, None] >= smallest)
        hits += int(pairs.sum())
        real += int((sizes >= smallest).sum())
        # A small guess counts if it found somebody; other small ones are no more people than small real ones are.
        found += int(((areas >= smallest) | pairs.any(0)).sum())
    return {
        "real": real,
        "recall": round(100 * hits / max(real, 1), 2),
        "precision": round(100 * hits / max(found, 1), 2),
    }

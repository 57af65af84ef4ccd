"""Scores of a network on labelled samples, by group, and a picture of what it does."""

from pathlib import Path

import cv2
import numpy as np
import torch

from render.classes import COLOURS
from render.files import write_picture

from .config import HEIGHT, PART_CLASSES, PERSON, WIDTH
from .data import digest
from .metrics import confusion, false_alarms, people_scores, summary
from .onnx_export import at_size
from .package import run_both
from .quantise import session
from .shipped import read_model
from .states import load_parser

# A record key whose values are this few is a grouping of the test set (skin tone, light, ...); seeds are not.
MOST_GROUPS = 12
PERSON_SCORE = 0.5
# How many times mask logits are enlarged before they become scores, on the device as here.
FINER = 2
# The device's fit of scores to colours: how far away it looks, among scores, and the variance of colours that is an edge.
GUIDE_RADIUS = 1
GUIDE_FLAT = 1e-3


def softmax(x: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    y = np.exp(x - x.max(-1, keepdims=True))
    return y / y.sum(-1, keepdims=True)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """Logistic function."""
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def enlarge(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear enlargement of (C, h, w) maps, pixel centres aligned as PyTorch's align_corners=False."""
    channels = cv2.resize(
        np.ascontiguousarray(maps.transpose(1, 2, 0)), (width, height), interpolation=cv2.INTER_LINEAR
    )
    # A single channel comes back without its axis.
    return channels.reshape(height, width, len(maps)).transpose(2, 0, 1)


def part_labels(logits: np.ndarray, masks: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Part label of every pixel of `image` (height, width, 3) uint8 from class logits (Q, 18) and mask logits (Q, h, w).

    As the device does it: logits are enlarged twice before they become scores, and the scores follow the picture's edges
    the rest of the way.
    """
    share = softmax(logits)[:, :PART_CLASSES]
    queries, h, w = masks.shape
    finer = enlarge(masks, FINER * h, FINER * w)
    scores = share.T @ sigmoid(finer).reshape(queries, -1)
    return guided(scores.reshape(PART_CLASSES, FINER * h, FINER * w), image).argmax(0).astype(np.uint8)


def guided(scores: np.ndarray, image: np.ndarray) -> np.ndarray:
    """Scores (C, h, w) at the pixels of `image` (height, width, 3) uint8: the fast guided filter, arXiv 1505.00996, with the colours as
    the guide. `firmware/vision/src/guide.rs` is the device's."""
    colours = image.astype(np.float32) / 255
    (height, width), (h, w) = image.shape[:2], scores.shape[1:]
    small = cv2.resize(colours, (w, h), interpolation=cv2.INTER_AREA)
    lines = np.ascontiguousarray(scores.transpose(1, 2, 0), np.float32)
    mean, level = window_means(small), window_means(lines)
    pairs = window_means((small[..., :, None] * small[..., None, :]).reshape(h, w, 9)).reshape(h, w, 3, 3)
    spread = pairs - mean[..., :, None] * mean[..., None, :] + GUIDE_FLAT * np.eye(3, dtype=np.float32)
    both = window_means((small[..., :, None] * lines[..., None, :]).reshape(h, w, -1)).reshape(h, w, 3, -1)
    slope = np.linalg.solve(spread, both - mean[..., :, None] * level[..., None, :])
    rest = level - (slope * mean[..., None]).sum(2)
    slope = window_means(np.ascontiguousarray(slope.reshape(h, w, -1)))
    slope = enlarge(slope.transpose(2, 0, 1), height, width).reshape(3, -1, height, width)
    rest = enlarge(window_means(rest).transpose(2, 0, 1), height, width)
    return (slope * colours.transpose(2, 0, 1)[:, None]).sum(0) + rest


def window_means(maps: np.ndarray) -> np.ndarray:
    """Means of (h, w, C) maps over the squares around each pixel; at the border over the pixels that there are."""
    side = (2 * GUIDE_RADIUS + 1,) * 2
    boxes = [cv2.boxFilter(np.ascontiguousarray(maps[..., k]), -1, side, normalize=False, borderType=cv2.BORDER_CONSTANT)
             for k in range(maps.shape[2])]
    count = cv2.boxFilter(np.ones(maps.shape[:2], np.float32), -1, side, normalize=False, borderType=cv2.BORDER_CONSTANT)
    return np.stack(boxes, -1) / count[..., None]


def person_labels(logits: np.ndarray, masks: np.ndarray, height: int, width: int) -> np.ndarray:
    """Person number of every pixel: whole-human masks above the score, pasted in ascending order of score."""
    scores = softmax(logits)[:, PERSON]
    chosen = [q for q in np.argsort(scores) if scores[q] > PERSON_SCORE]
    out = np.zeros((height, width), np.uint8)
    for number, query in enumerate(chosen, 1):
        out[enlarge(masks[query : query + 1], height, width)[0] > 0] = number
    return out


def predictor(model: Path | None, checkpoint: Path | None, size: tuple, person_bias: float = 0.0):
    """A function from pictures (N, H, W, 3) uint8 of an input size to part labels and person numbers, both (N, H, W).

    It runs a model folder through onnxruntime, or a checkpoint through PyTorch in float, with `person_bias` subtracted
    from the class head's bias of `person` as `export` does.
    """
    answer = onnx_answer(model, size) if checkpoint is None else float_answer(checkpoint, person_bias)

    def run(images: np.ndarray) -> tuple:
        results = [both_labels(*answer(image), image) for image in images]
        return np.stack([r[0] for r in results]), np.stack([r[1] for r in results])

    return run


def both_labels(logits: np.ndarray, masks: np.ndarray, image: np.ndarray) -> tuple:
    """Part labels and person numbers of one picture."""
    return part_labels(logits, masks, image), person_labels(logits, masks, *image.shape[:2])


def onnx_answer(model: Path, size: tuple):
    """A function from one picture of an input size to (class logits, mask logits), through onnxruntime."""
    graphs = read_model(model)[:2]
    graphs = graphs if size == (HEIGHT, WIDTH) else [at_size(graph, (HEIGHT, WIDTH), size) for graph in graphs]
    trunk, head = (session(graph) for graph in graphs)

    def answer(image: np.ndarray) -> tuple:
        values = run_both(trunk, head, image)
        return values["class_logits"][0], values["mask_logits"][0]

    return answer


def float_answer(checkpoint: Path, person_bias: float):
    """The same through PyTorch in float."""
    network = load_parser(checkpoint)
    with torch.no_grad():
        network.predictor.class_head.bias[PERSON] -= person_bias

    def answer(image: np.ndarray) -> tuple:
        pixels = torch.from_numpy(image.transpose(2, 0, 1)[None].copy()).float() / 255
        with torch.no_grad():
            logits, masks = network(pixels)
        return logits[0].numpy(), masks[0].numpy()

    return answer


def evaluate(samples: dict, parts: np.ndarray, person: np.ndarray) -> dict:
    """All scores: overall, whole people, false alarms on empty scenes, and part scores per group of pictures; and the digest of
    what was judged."""
    truth = samples["parts"]
    scores = {"images": len(truth), "digest": digest(samples, ("image", "parts", "person"))} | summary(confusion(truth, parts, PART_CLASSES))
    wrong, pixels = false_alarms(truth, parts)
    scores["empty_scene_pixels"] = pixels
    scores["false_alarms"] = round(100 * wrong / max(pixels, 1), 3)
    scores["people"] = people_scores(samples["person"], person)
    scores["groups"] = {key: group_scores(samples["meta"], key, truth, parts) for key in group_keys(samples["meta"])}
    scores["false_alarms_by_place"] = place_alarms(samples["meta"], truth, parts)
    return scores


def group_keys(meta: list) -> list:
    """Keys of the records that sort the pictures into a few groups. A picture of nobody has no tone, age or build."""
    values = {}
    for record in meta:
        for key, value in record.items():
            if value is not None:
                values.setdefault(key, set()).add(str(value))
    return sorted(key for key, found in values.items() if 1 < len(found) <= MOST_GROUPS)


def group_scores(meta: list, key: str, truth: np.ndarray, guess: np.ndarray) -> dict:
    """Scores of each value of one record key, over the pictures that have it and show somebody.

    Pictures of nobody have no part to score; they are judged by their false alarms.
    """
    shown = [i for i, record in enumerate(meta) if record.get(key) is not None and (truth[i] != 0).any()]
    values = sorted({str(meta[i][key]) for i in shown})
    result = {}
    for value in values:
        rows = [i for i in shown if str(meta[i][key]) == value]
        full = summary(confusion(truth[rows], guess[rows], PART_CLASSES))
        result[value] = {"images": len(rows)} | {k: full[k] for k in ("miou", "ppp_miou", "person_iou", "left_right")}
    return result


def place_alarms(meta: list, truth: np.ndarray, guess: np.ndarray) -> dict:
    """Per place of the records, the pictures of nobody and the percentage of their pixels that were called a person."""
    rows = {}
    for index, record in enumerate(meta):
        if not truth[index].any():
            rows.setdefault(str(record.get("place")), []).append(index)
    alarms = {place: false_alarms(truth[those], guess[those]) for place, those in sorted(rows.items())}
    return {
        place: {"images": len(rows[place]), "false_alarms": round(100 * wrong / pixels, 3)}
        for place, (wrong, pixels) in alarms.items()
    }


def shown_pictures(truth: np.ndarray, guess: np.ndarray, columns: int) -> list:
    """Indices of pictures to show, at most `columns` in a row: drawn at random, then those of somebody and those of nobody with the
    most wrong pixels. A share of the people's pixels would call every false pixel in an empty room as wrong as can be."""
    wrong = (truth != guess).reshape(len(truth), -1).sum(1)
    somebody = truth.reshape(len(truth), -1).any(1)
    random = np.random.default_rng(0).permutation(len(truth))[:columns]
    rows = [np.flatnonzero(kind) for kind in (somebody, ~somebody)]
    return [random, *(row[np.argsort(-wrong[row], kind="stable")][:columns] for row in rows if len(row))]


def prediction_sheet(samples: dict, guess: np.ndarray, path: Path, columns: int = 8) -> None:
    """Writes the rows of `shown_pictures`, each picture above its truth and the prediction, at half their size."""
    palette = np.array(COLOURS, np.uint8)
    columns = min(columns, len(guess))
    rows = []
    for chosen in shown_pictures(samples["parts"], guess, columns):
        tiles = [np.vstack([samples["image"][i], palette[samples["parts"][i]], palette[guess[i]]]) for i in chosen]
        tiles += [np.zeros_like(tiles[0])] * (columns - len(tiles))
        rows.append(np.hstack(tiles))
    sheet = cv2.resize(np.vstack(rows), None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    write_picture(path, sheet)

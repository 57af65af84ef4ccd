"""Shards to batches: streams .npz files that may still be arriving, and applies the cheap augmentations.

The renderer owns everything expensive (light, blur, noise, occluders); here are only affine maps, flips, letterbox
bars, other surroundings and people, colours and sharpness.
"""

import hashlib
import json
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch

from render.classes import FLIPPED, PADDING

from .config import HEIGHT, OTHER_SIZES, PART_CLASSES, WIDTH

PEOPLE = 8
SMALLEST_PART = 6
HALVED_BELOW = 0.75  # zoom at which a picture is halved by area first
FEWEST_BORDER = 16  # fewer pixels near borders are no border to draw points from
KEPT = 64
LYING = 0.06  # share of the pictures that are turned by a quarter, or by any angle
QUARTERS = 0.6  # share of those that are turned by a quarter
TRANSPLANTED = 0.25  # share of the pictures with people that are set before a place without any
MILD_ZOOM = 0.2  # largest zoom of a mild augmentation, in or out, as a logarithm
MINGLED = 0.2  # share of the pictures with people that are set before any other picture
# How often a pixel of the letterbox bars is drawn, beside one of the picture. It is background whatever the picture shows, but masks
# are compared there, too: it must not be left to chance.
BARRED = 0.1
FLIP_TABLE = np.concatenate([np.array(FLIPPED, np.uint8), np.arange(len(FLIPPED), 256).astype(np.uint8)])


class ShardError(Exception):
    """A shard that cannot be read; names the file and what to do."""


def shard_paths(folder: Path) -> list:
    """Finished shards of a folder, sorted by name. Files still being written end in .tmp and are not listed."""
    return sorted(p for p in Path(folder).glob("*.npz") if ".tmp" not in p.name)


def read_shard(path: Path) -> dict:
    """One shard: image (N, H, W, 3), parts and person (N, H, W), all uint8, and meta, a list of N records."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            shard = {key: archive[key] for key in ("image", "parts", "person")}
            shard["meta"] = json.loads(str(archive["meta"]))
    except Exception as error:  # numpy, zipfile and zlib raise many kinds for a damaged archive
        raise ShardError(f"{path}: not a shard ({error}); delete it and render it again") from error
    if shard["image"].shape[:3] != shard["parts"].shape or shard["parts"].shape != shard["person"].shape:
        raise ShardError(
            f"{path}: image {shard['image'].shape}, parts {shard['parts'].shape} and person {shard['person'].shape} disagree"
        )
    if len(shard["meta"]) != len(shard["image"]):
        raise ShardError(f"{path}: {len(shard['meta'])} records for {len(shard['image'])} pictures; render it again")
    return shard


class Stream:
    """Draws samples at random from a few open shards; used-up shards make way for the least-used others.

    New files in the folder are found whenever a shard is used up, so training may start with the first one.
    """

    def __init__(self, folders, buffer_shards: int, rng, part: int = 0, parts: int = 1):
        self.folders = [Path(f) for f in folders]
        self.buffer_shards, self.rng = buffer_shards, rng
        self.part, self.parts = part, parts
        self.uses, self.open = {}, []
        self.empty, self.latest = deque(maxlen=KEPT), deque(maxlen=KEPT)  # people-free samples, and all
        for folder in self.folders:
            if not folder.is_dir():
                raise ShardError(f"{folder} is not a folder of shards; render into it first (see README)")
        self.refill()
        if not self.open:
            raise ShardError(f"no shards in {[str(f) for f in self.folders]}; render some first (see README)")

    def known(self) -> list:
        """Shards of this worker, in name order."""
        paths = [p for folder in self.folders for p in shard_paths(folder)]
        own = paths[self.part :: self.parts]
        return own or paths

    def refill(self) -> None:
        """Opens the least-used shards until the buffer is full."""
        opened = {path for path, _, _ in self.open}
        waiting = [p for p in self.known() if p not in opened]
        self.rng.shuffle(waiting)
        waiting.sort(key=lambda p: self.uses.get(p, 0))
        for path in waiting[: self.buffer_shards - len(self.open)]:
            shard = read_shard(path)
            self.uses[path] = self.uses.get(path, 0) + 1
            self.open.append((path, shard, list(self.rng.permutation(len(shard["image"])))))

    def draw(self) -> tuple:
        """One (image, parts, person)."""
        slot = int(self.rng.integers(len(self.open)))
        path, shard, order = self.open[slot]
        index = order.pop()
        sample = shard["image"][index], shard["parts"][index], shard["person"][index]
        if not order:
            del self.open[slot]
            self.refill()
        self.latest.append(sample)
        if not sample[2].any():
            self.empty.append(sample)
        return sample

    def draw_mixed(self) -> tuple:
        """A sample whose people, now and then, stand in another sample's surroundings: in a place without people, or
        before the people of another picture. That other sample shows something wherever this one does."""
        others, sample, kind = list(self.latest), self.draw(), self.rng.random()
        others = list(self.empty) if kind < TRANSPLANTED else others
        if not sample[2].any() or kind >= TRANSPLANTED + MINGLED:
            return sample
        for index in self.rng.permutation(len(others)):
            if lies_behind(others[index][0], sample[0]):
                return transplant(self.rng, sample, others[index])
        return sample


def content_boxes(images: np.ndarray) -> np.ndarray:
    """(N, 4) top, bottom, left, right of what pictures (N, H, W, 3) show within their letterbox bars: the ends are the first row and
    column of padding. A picture of padding alone counts as whole."""
    count, height, width, _ = images.shape
    shown = (images != PADDING).reshape(count, height, -1)
    ends = []
    for lines in (shown.any(2), shown.any(1).reshape(count, width, -1).any(2)):
        ends += [lines.argmax(1), lines.shape[1] - lines[:, ::-1].argmax(1)]
    return np.stack(ends, 1)


def covers(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Whether boxes (.., 4) of `content_boxes` contain others, (..,)."""
    return (outer[..., ::2] <= inner[..., ::2]).all(-1) & (outer[..., 1::2] >= inner[..., 1::2]).all(-1)


def lies_behind(image: np.ndarray, front: np.ndarray) -> bool:
    """Whether a picture shows something wherever another one does."""
    return image.shape == front.shape and bool(covers(*content_boxes(np.stack([image, front]))))


def content(image: np.ndarray) -> np.ndarray:
    """(H, W) uint8: 1 where a picture (H, W, 3) shows something, 0 on its letterbox bars."""
    top, bottom, left, right = content_boxes(image[None])[0]
    inside = np.zeros(image.shape[:2], np.uint8)
    inside[top:bottom, left:right] = 1
    return inside


@dataclass
class Changes:
    """What is drawn for N augmented pictures, one row each; how it is applied is written twice: for one picture with
    OpenCV (`augment`), and for a batch in a GPU's memory (`resident.py`)."""

    matrix: np.ndarray  # (N, 2, 3) source to target pixels
    flip: np.ndarray  # (N,) bool: afterwards mirrored, left and right exchanged
    bar_axis: np.ndarray  # (N,) 0 bars above and below, 1 at the sides, -1 none
    bar_share: np.ndarray  # (N,) of the picture's length, each bar
    gain: np.ndarray  # (N, 3) per channel, white balance included
    gamma: np.ndarray
    contrast: np.ndarray
    grey: np.ndarray  # (N,) bool
    colour: np.ndarray  # (N,) share of the colour that stays; 1 leaves it
    hue: np.ndarray  # (N,) half degrees, as OpenCV counts them; 0 leaves it
    soft: np.ndarray  # (N,) pixels: radius (sigma) of what sharpening compares with
    sharpen: np.ndarray  # (N,) 0 leaves it, negative softens
    noise: np.ndarray  # (N,) sigma in grey levels


def sometimes(rng, count: int, share: float, values, otherwise):
    """`values` in a share of the rows, `otherwise` in the rest."""
    return np.where(rng.random(count) < share, values, otherwise)


def random_zooms(rng, count: int, mild: bool = False) -> np.ndarray:
    """Mostly a little closer, often farther, now and then so close that only some parts of somebody are left; mild ones
    are near 1."""
    if mild:
        return np.exp(rng.uniform(-MILD_ZOOM, MILD_ZOOM, count))
    kind = rng.random(count)
    low = np.select([kind < 0.55, kind < 0.9], [1.0, 0.5], 1.6)
    high = np.select([kind < 0.55, kind < 0.9], [1.6, 1.0], 2.4)
    return np.exp(rng.uniform(np.log(low), np.log(high)))


def random_affines(rng, count: int, source: tuple, target: tuple, mild: bool = False) -> np.ndarray:
    """(N, 2, 3) from source to target pixels: zoom, small turn, small stretch, shift; unless mild, some lie on their side or
    stand on their head, since few renders show people who do."""
    size = np.array([target[1], target[0]])
    old = np.array([source[1], source[0]])
    lying = sometimes(rng, count, QUARTERS, rng.choice([-90.0, 90.0], count), rng.uniform(-180, 180, count))
    lying = np.radians(sometimes(rng, count, 0.0 if mild else LYING, lying, 0.0))[:, None]
    # What the source covers once it is turned: its sides change places where it lies.
    old_turned = np.abs(np.cos(lying)) * old + np.abs(np.sin(lying)) * old[::-1]
    zoom = (size / old_turned).min(1) * random_zooms(rng, count, mild)
    turn = lying[:, 0] + np.radians(sometimes(rng, count, 0.7, rng.normal(0, 6, count), 0.0))
    stretch = np.exp(rng.normal(0, 0.06, count))
    cosine, sine = zoom * np.cos(turn), zoom * np.sin(turn)
    linear = np.stack([np.stack([cosine * stretch, sine * stretch], 1), np.stack([-sine, cosine], 1)], 1)
    spare = np.abs(zoom[:, None] * old_turned - size) + 0.05 * size
    centre = size / 2 + rng.uniform(-0.5, 0.5, (count, 2)) * spare
    return np.concatenate([linear, (centre - linear @ (old / 2))[:, :, None]], 2)


def draw_changes(rng, count: int, source: tuple, target: tuple, mild: bool = False) -> Changes:
    """The changes of `count` pictures of one size. Mild ones are flips, small zooms and turns, gain, gamma and contrast:
    what a picture of the renderer may look like anyway."""
    brightness = sometimes(rng, count, 0.7, rng.uniform(np.log(0.5), np.log(1.35), count), 0.0)
    changes = Changes(
        matrix=random_affines(rng, count, source, target, mild),
        flip=rng.random(count) < 0.5,
        bar_axis=sometimes(rng, count, 0.15, sometimes(rng, count, 0.8, 0, 1), -1),
        bar_share=rng.uniform(0.05, 0.28, count),
        gain=np.exp(brightness[:, None] + rng.normal(0, 0.07, (count, 3))),
        gamma=np.exp(rng.normal(0, 0.15, count)),
        contrast=np.exp(rng.normal(0, 0.15, count)),
        grey=rng.random(count) < 0.08,
        colour=sometimes(rng, count, 0.4, np.exp(rng.normal(0, 0.4, count)), 1.0),
        hue=sometimes(rng, count, 0.15, np.trunc(rng.normal(0, 10, count)), 0.0),
        soft=rng.uniform(0.7, 2.5, count),
        sharpen=sometimes(rng, count, 0.45, rng.uniform(-0.4, 1.8, count), 0.0),
        noise=sometimes(rng, count, 0.1, rng.uniform(2, 14, count), 0.0),
    )
    return without_styles(changes) if mild else changes


def without_styles(changes: Changes) -> Changes:
    """The changes without bars, and without what `restyle` does: grey, colourfulness, hue, sharpness and noise."""
    zero = np.zeros(len(changes.flip))
    same = {"bar_axis": zero - 1, "grey": zero > 0, "colour": zero + 1, "hue": zero, "sharpen": zero, "noise": zero}
    return replace(changes, **same)


def plain_affine(source: tuple, target: tuple) -> np.ndarray:
    """2 x 3 matrix that letterboxes the source into the target."""
    fit = min(target[0] / source[0], target[1] / source[1])
    # Pixel centres: x' + 0.5 = (x + 0.5) fit + margin.
    shift = lambda t, s: (t - s * fit) / 2 + 0.5 * fit - 0.5
    return np.array([[fit, 0, shift(target[1], source[1])], [0, fit, shift(target[0], source[0])]])


def warp(sample: tuple, matrix: np.ndarray, target: tuple) -> tuple:
    """Applies an affine map to a picture and its maps of labels; the outside is padding, and 0 in the maps."""
    image, *maps = sample
    size = (target[1], target[0])
    zoom = float(np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    picture_matrix = matrix
    if zoom < HALVED_BELOW:
        # Halve by area first: the warp itself takes four source pixels, which would alias.
        image = cv2.resize(image, (image.shape[1] // 2, image.shape[0] // 2), interpolation=cv2.INTER_AREA)
        picture_matrix = matrix @ np.array([[2.0, 0, 0.5], [0, 2.0, 0.5], [0, 0, 1]])
    image = cv2.warpAffine(image, picture_matrix, size, flags=cv2.INTER_LINEAR, borderValue=(PADDING,) * 3)
    return image, *(cv2.warpAffine(labels, matrix, size, flags=cv2.INTER_NEAREST, borderValue=0) for labels in maps)


def flip(sample: tuple) -> tuple:
    """Mirrors a picture and its maps of labels, and exchanges left and right of the parts."""
    image, parts, *maps = sample
    mirrored = lambda values: np.ascontiguousarray(values[:, ::-1])
    return mirrored(image), FLIP_TABLE[parts[:, ::-1]], *map(mirrored, maps)


def bars(inside: np.ndarray, axis: int, share: float) -> np.ndarray:
    """What is left of a picture, (H, W) uint8, between letterbox bars as those of another aspect: each a share of the length."""
    inside = inside.copy()
    length = inside.shape[axis]
    margin = int(length * share)
    for part in (slice(0, margin), slice(length - margin, length)):
        inside[(part, slice(None)) if axis == 0 else (slice(None), part)] = 0
    return inside


def recolour(changes: Changes, index: int, image: np.ndarray) -> np.ndarray:
    """Gain, white balance, contrast and gamma through one table per channel; sometimes grey."""
    x = np.arange(256, dtype=np.float64)[:, None] / 255
    mean = float(image.mean()) / 255
    y = np.clip(x * changes.gain[index], 0, 1) ** changes.gamma[index]
    y = (y - mean) * changes.contrast[index] + mean
    table = (np.clip(y, 0, 1) * 255 + 0.5).astype(np.uint8)
    image = cv2.LUT(image, np.ascontiguousarray(table[:, None, :]))
    if changes.grey[index]:
        image = np.repeat(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    return image


def transplant(rng, sample: tuple, behind: tuple) -> tuple:
    """The people of a sample before another one, within the bars of the first: what surrounds them must not tell that they are there.
    The cut is soft, as a lens would make it."""
    image, parts, person = sample
    behind = flip(behind) if rng.random() < 0.5 else behind
    share = cv2.GaussianBlur((person > 0).astype(np.float32), (0, 0), rng.uniform(0.4, 1.0))[..., None]
    mixed = image * share + behind[0] * (1 - share)
    return within(content(image), mixed.astype(np.uint8), *merge_people(parts, person, behind[1], behind[2]))


def within(inside: np.ndarray, image: np.ndarray, parts: np.ndarray, person: np.ndarray) -> tuple:
    """A sample with padding where `inside` (H, W) is 0."""
    return np.where(inside[..., None] > 0, image, np.uint8(PADDING)), parts * inside, person * inside


def merge_people(parts, person, behind_parts, behind_person) -> tuple:
    """Labels of people before other people. Those behind are numbered on; whoever would be number PEOPLE + 1 keeps the
    parts, and is no person of their own."""
    numbered = behind_person.astype(np.int64) + int(person.max())
    numbered = np.where((behind_person > 0) & (numbered <= PEOPLE), numbered, 0).astype(np.uint8)
    return np.where(person > 0, parts, behind_parts), np.where(person > 0, person, numbered)


def restyle(rng, changes: Changes, index: int, image: np.ndarray) -> np.ndarray:
    """Colourfulness, hue and sharpness as different as cameras make them; renders alone are softer than photographs."""
    share, hue = float(changes.colour[index]), int(changes.hue[index])
    amount, noise = float(changes.sharpen[index]), float(changes.noise[index])
    if share != 1:
        grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        image = cv2.addWeighted(image, share, grey, 1 - share, 0)
    if hue:
        hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(np.int16) + hue) % 180
        image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if amount:
        soft = cv2.GaussianBlur(image, (0, 0), float(changes.soft[index]))
        image = cv2.addWeighted(image, 1 + amount, soft, -amount, 0)
    if noise:
        grain = rng.normal(0, noise, image.shape).astype(np.float32)
        image = np.clip(image + grain + 0.5, 0, 255).astype(np.uint8)
    return image


def augment(rng, sample: tuple, target: tuple, mild: bool = False) -> tuple:
    """A training sample at the target size: image, parts, person, and `inside` (H, W) uint8, 0 on padding."""
    return change(rng, draw_changes(rng, 1, sample[1].shape, target, mild), 0, sample, target)


def change(rng, changes: Changes, index: int, sample: tuple, target: tuple) -> tuple:
    """A sample changed as row `index` of the changes says; see `augment`. Bars are what the mirror puts around a picture that a camera
    has coloured and sharpened, so they come last and keep their colour."""
    image, parts, person, inside = warp((*sample, content(sample[0])), changes.matrix[index], target)
    if changes.flip[index]:
        image, parts, person, inside = flip((image, parts, person, inside))
    if changes.bar_axis[index] >= 0:
        inside = bars(inside, int(changes.bar_axis[index]), changes.bar_share[index])
    image = restyle(rng, changes, index, recolour(changes, index, image))
    return *within(inside, image, parts, person), inside


def choose_points(rng, parts: np.ndarray, person: np.ndarray, inside: np.ndarray, count: int) -> np.ndarray:
    """Flat pixel indices: half from all that the picture shows, with few on its padding (see `BARRED`), half near label borders, where
    masks are decided."""
    weights = np.where(inside.ravel() > 0, 1.0, BARRED).cumsum()
    anywhere = lambda size: np.searchsorted(weights, rng.random(size) * weights[-1], side="right")
    uniform = anywhere(count // 2)
    kernel = np.ones((5, 5), np.uint8)
    mixed = cv2.morphologyEx(parts, cv2.MORPH_GRADIENT, kernel) | cv2.morphologyEx(person, cv2.MORPH_GRADIENT, kernel)
    border = np.flatnonzero(mixed)
    if len(border) < FEWEST_BORDER:
        return np.concatenate([uniform, anywhere(count - len(uniform))])
    return np.concatenate([uniform, border[rng.integers(len(border), size=count - len(uniform))]])


def present_rows(parts: np.ndarray, person: np.ndarray) -> np.ndarray:
    """Which of the 16 parts and PEOPLE people a picture shows, (24,) bool."""
    part_counts = np.bincount(parts.ravel(), minlength=256)[:PART_CLASSES]
    person_counts = np.bincount(person.ravel(), minlength=256)[1 : PEOPLE + 1]
    return np.concatenate([part_counts >= SMALLEST_PART, person_counts >= 4 * SMALLEST_PART])


def make_batch(stream: Stream, rng, size: int, target: tuple, points: int, mild: bool = False) -> dict:
    """A batch as tensors: pixels (B, H, W, 3) uint8, points (B, K, 2), labels at the points, present rows. Where the
    augmentation is mild, people stay where they were rendered."""
    pixels = np.empty((size, *target, 3), np.uint8)
    where = np.empty((size, points), np.int64)
    parts, person = np.empty((size, points), np.uint8), np.empty((size, points), np.uint8)
    present = np.empty((size, PART_CLASSES + PEOPLE), bool)
    for index in range(size):
        sample = stream.draw() if mild else stream.draw_mixed()
        image, part_map, person_map, inside = augment(rng, sample, target, mild)
        chosen = choose_points(rng, part_map, person_map, inside, points)
        pixels[index], where[index] = image, chosen
        parts[index], person[index] = part_map.ravel()[chosen], person_map.ravel()[chosen]
        present[index] = present_rows(part_map, person_map)
    y, x = np.divmod(where, target[1])
    grid = np.stack([(2 * x + 1) / target[1] - 1, (2 * y + 1) / target[0] - 1], -1).astype(np.float32)
    arrays = {"pixels": pixels, "points": grid, "parts": parts, "person": person, "present": present}
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def check_wide(folders, share: float) -> None:
    """Shards of wide pictures and a share of the batches that is made from them come together or not at all."""
    if folders and not share:
        raise ValueError("shards of wide pictures are given and the recipe wants none; set wide=0.3, say")
    if share and not folders:
        raise ValueError(f"the recipe wants {share:.0%} of its batches wide; give --wide-shards (render shards --wide)")


class Batches(torch.utils.data.IterableDataset):
    """Endless batches for a DataLoader; each worker streams its own share of the shards. A share `wide` of the batches
    comes from `wide_folders`, at the target with height and width exchanged."""

    def __init__(
        self,
        folders,
        buffer_shards: int,
        seed: int,
        size: int,
        target: tuple,
        points: int,
        wide_folders=(),
        wide: float = 0.0,
        mild: bool = False,
    ):
        check_wide(wide_folders, wide)
        self.folders, self.buffer_shards = folders, buffer_shards
        self.seed, self.size, self.target, self.points = seed, size, target, points
        self.wide_folders, self.wide, self.mild = wide_folders, wide, mild

    def __iter__(self):
        info = torch.utils.data.get_worker_info()
        part, parts = (info.id, info.num_workers) if info else (0, 1)
        rng = np.random.default_rng([self.seed, part])
        cv2.setNumThreads(1)
        shards = max(2, self.buffer_shards // parts)
        stream = Stream(self.folders, shards, rng, part, parts)
        wide = Stream(self.wide_folders, shards, rng, part, parts) if self.wide else None
        while True:
            if wide and rng.random() < self.wide:
                yield make_batch(wide, rng, self.size, self.target[::-1], self.points, self.mild)
            else:
                yield make_batch(stream, rng, self.size, self.target, self.points, self.mild)


def plain_samples(folder: Path, count: int, target: tuple) -> dict:
    """The first `count` samples of a folder letterboxed to a size, without augmentation, with their meta records."""
    images, parts, people, meta = [], [], [], []
    for path in shard_paths(folder):
        if len(images) >= count:
            break
        shard = read_shard(path)
        for index in range(min(len(shard["image"]), count - len(images))):
            sample = (shard["image"][index], shard["parts"][index], shard["person"][index])
            if sample[1].shape != target:
                sample = warp(sample, plain_affine(sample[1].shape, target), target)
            images.append(sample[0])
            parts.append(sample[1])
            people.append(sample[2])
            meta.append(shard["meta"][index])
    if not images:
        raise ShardError(f"no shards in {folder}; render some first (see README)")
    return {"image": np.stack(images), "parts": np.stack(parts), "person": np.stack(people), "meta": meta}


def digest(samples: dict, names: tuple = ("image", "parts")) -> str:
    """SHA-256 of pictures and their labels: scores on others are not to be compared."""
    content = hashlib.sha256()
    for name in names:
        content.update(np.ascontiguousarray(samples[name]).reshape(-1))
    return content.hexdigest()


def input_size(folder: Path) -> tuple:
    """The input size for the pictures of a folder: their own where the network serves it, else the one it is exported at."""
    sizes = (read_shard(path)["parts"].shape[1:] for path in shard_paths(folder)[:1])
    return next((size for size in sizes if size in OTHER_SIZES), (HEIGHT, WIDTH))

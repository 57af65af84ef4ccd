"""Samples in a GPU's own memory, augmented there a batch at a time.

A GPU trains faster than processes can augment and send. Here every shard is sent once, when it appears, and what
`data.draw_changes` draws is applied to whole batches with PyTorch. All that is drawn for a batch is sent in one copy
(`transfer.send`), and nothing here waits for the device. The largest cost left is that of the network.
"""

import sys
import threading
from functools import lru_cache
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from render.classes import PADDING

from .config import PART_CLASSES
from .data import (
    BARRED,
    FEWEST_BORDER,
    FLIP_TABLE,
    HALVED_BELOW,
    MINGLED,
    PEOPLE,
    SMALLEST_PART,
    TRANSPLANTED,
    Changes,
    ShardError,
    check_wide,
    content_boxes,
    covers,
    draw_changes,
    read_shard,
    shard_paths,
)
from .transfer import send

# Candidates per wanted sample: the least-used of them are taken, so that late shards catch up.
CANDIDATES = 4
# Pictures that are drawn for each whose people are moved: the first that shows something wherever it does is taken. Half of all do.
TRIES = 12
GREY = (0.299, 0.587, 0.114)
# Axes of colour beside brightness (NTSC's I and Q): turning them turns the hue.
YIQ = np.array(((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112)))
BLUR_REACH = 5
CUT_REACH = 3


@lru_cache(maxsize=8)
def tables(device: torch.device) -> tuple:
    """Which label a part has in the mirror, (256,), and the channels' shares in brightness, (3, 1, 1)."""
    return torch.from_numpy(FLIP_TABLE).to(device), torch.tensor(GREY, device=device)[:, None, None]


def remove(path: Path) -> None:
    """A shard that stays takes room, which is no reason to end a run."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        print(f"warning: {error}; the shard stays and the training goes on", file=sys.stderr, flush=True)


def reserve(capacity: int, shape: tuple, device) -> tuple:
    """Memory on the device for the pictures (N, H, W, 3), parts and person (N, H, W) of N = `capacity` samples of `shape` (H, W), all at
    once: a run that would not fit fails at its start."""
    place = lambda *size: torch.empty((capacity, *size), dtype=torch.uint8, device=device)
    try:
        return place(*shape, 3), place(*shape), place(*shape)
    except RuntimeError as error:  # also what CUDA raises when its memory is full
        size = capacity * shape[0] * shape[1] * 5 / 1e9
        raise ShardError(f"{size:.1f} GB for {capacity} pictures do not fit {device}; lower --capacity") from error


class Resident:
    """Up to `capacity` samples of some folders' shards, all of one size; when it is full the oldest make way. With `delete` a shard's
    file goes once its samples are here, but each folder's first one stays: the calibration of `export` wants some. So do all of the
    `ready` folders, with which training may begin before there is anything in the others."""

    def __init__(self, folders, capacity: int, device, seed: int, delete: bool = False, ready=()):
        if capacity < 1:
            raise ValueError(f"a capacity of {capacity} pictures holds nothing; --capacity wants some thousands")
        self.ready = [Path(f) for f in ready]
        self.folders = self.ready + [Path(f) for f in folders]
        self.capacity, self.device, self.delete = capacity, torch.device(device), delete
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.known, self.count, self.arrived = set(), 0, 0
        self.uses = np.zeros(capacity, np.int64)
        self.empty = np.zeros(capacity, bool)
        self.box = np.zeros((capacity, 4), np.int64)  # of `content_boxes`
        self.image = None
        self.lock, self.failure = threading.Lock(), None
        for folder in self.folders:
            if not folder.is_dir():
                raise ShardError(f"{folder} is not a folder of shards; render into it first (see README)")

    def waiting(self) -> list:
        """Shards that are not here yet, of all folders in turn: where there are too many, no kind is left out."""
        rows = [[p for p in shard_paths(folder) if p not in self.known] for folder in self.folders]
        return [p for row in zip_longest(*rows) for p in row if p is not None]

    def take(self, path: Path) -> None:
        """Sends one shard to the device."""
        shard = read_shard(path)
        first = all(other.parent != path.parent for other in self.known)
        self.known.add(path)
        if self.image is None:
            self.image, self.parts, self.person = reserve(self.capacity, shard["parts"].shape[1:], self.device)
        if shard["parts"].shape[1:] != tuple(self.parts.shape[1:]):
            raise ShardError(f"{path}: pictures of {shard['parts'].shape[1:]} among those of {tuple(self.parts.shape[1:])}")
        if len(shard["parts"]) > self.capacity:
            raise ShardError(f"{path}: {len(shard['parts'])} pictures are more than the capacity of {self.capacity}; raise --capacity")
        slots = np.arange(self.arrived, self.arrived + len(shard["parts"])) % self.capacity
        index = torch.from_numpy(slots).to(self.device)
        sent = {name: torch.from_numpy(shard[name]).to(self.device) for name in ("image", "parts", "person")}
        boxes = content_boxes(shard["image"])
        with self.lock:
            for name, tensor in sent.items():
                getattr(self, name)[index] = tensor
            self.uses[slots] = 0
            self.empty[slots], self.box[slots] = ~shard["person"].any((1, 2)), boxes
            self.arrived += len(slots)
            self.count = min(self.arrived, self.capacity)
        if self.delete and not first and path.parent not in self.ready:
            remove(path)

    def refill(self) -> None:
        """Takes all shards that are waiting."""
        for path in self.waiting():
            self.take(path)

    def awaited(self) -> list:
        """Folders without which training does not begin, and of which no shard is here: of the ready ones where there are some, else of all."""
        here = {path.parent for path in self.known}
        return [folder for folder in self.ready or self.folders if folder not in here]

    def begin(self) -> list:
        """Takes waiting shards, but no more than it takes to begin; gives the folders that are still awaited."""
        for path in self.waiting():
            if not self.awaited():
                break
            self.take(path)
        return self.awaited()

    def watch(self, seconds: float = 0.5) -> None:
        """Takes new shards from now on, in a thread of its own; what goes wrong is raised by the next `batch`."""

        def run() -> None:
            pause = threading.Event()
            try:
                while not pause.wait(seconds):
                    self.refill()
            except Exception as error:
                self.failure = error

        threading.Thread(target=run, daemon=True).start()

    def choose(self, size: int) -> np.ndarray:
        """Slots of the next batch: of a random few, those that were used least; none twice where there are enough."""
        drawn = self.rng.integers(self.count, size=CANDIDATES * size)
        alone = np.unique(drawn)
        few = alone if len(alone) >= size else drawn
        order = np.argsort(self.uses[few] + self.rng.random(len(few)), kind="stable")
        slots = few[order[:size]]
        np.add.at(self.uses, slots, 1)
        return slots

    def batch(self, size: int, target: tuple, points: int, mild: bool = False) -> dict:
        """A batch as `data.make_batch` gives it, on the device; pixels are (B, 3, H, W) in 0..1."""
        if self.failure is not None:
            raise self.failure
        if not self.count:
            raise ShardError(f"no shards in {[str(f) for f in self.folders]}; render some first (see README)")
        with self.lock:
            source = tuple(self.parts.shape[1:])
            slots = self.choose(size)
            drawn = self.draw_behind(slots, mild)
            changes = draw_changes(self.rng, size, source, target, mild)
            sent = send(drawn | numbers_of(changes, self.box[slots], source, target), self.device)
            image, parts, person = self.gather(sent)
        image, parts, person, inside = apply_changes(image, parts, person, sent, target, self.generator)
        where = choose_points(parts, person, inside, points, self.generator)
        grid = torch.stack([(2 * (where % target[1]) + 1) / target[1] - 1, (2 * (where // target[1]) + 1) / target[0] - 1], -1)
        return {
            "pixels": image.contiguous(memory_format=torch.channels_last),
            "points": grid,
            "parts": parts.flatten(1).gather(1, where),
            "person": person.flatten(1).gather(1, where),
            "present": present_rows(parts, person),
        }

    def draw_behind(self, slots: np.ndarray, mild: bool = False) -> dict:
        """What `gather` needs for some slots: which of the pictures are set before which others, none where the
        augmentation is mild. Those others show something wherever the first do."""
        drawn = {"slots": slots, "moved": np.zeros(0, np.int64)}
        if mild:
            return drawn
        empty = np.flatnonzero(self.empty[: self.count])
        kind = np.where(self.empty[slots], 1.0, self.rng.random(len(slots)))
        moved = np.flatnonzero((kind < TRANSPLANTED + MINGLED) & ((kind >= TRANSPLANTED) | (len(empty) > 0)))
        tries = (TRIES, len(moved))
        alone = self.rng.choice(empty, tries) if len(empty) else np.zeros(tries, np.int64)
        others = np.where(kind[moved] < TRANSPLANTED, alone, self.rng.integers(self.count, size=tries))
        fits = covers(self.box[others], self.box[slots[moved]])
        other = np.take_along_axis(others, fits.argmax(0)[None], 0)[0]
        moved, other = moved[fits.any(0)], other[fits.any(0)]
        if not len(moved):
            return drawn
        mirrored = self.rng.random(len(moved)) < 0.5
        cut = blur_taps(self.rng.uniform(0.4, 1.0, len(moved)), CUT_REACH)
        return {"slots": slots, "moved": moved, "other": other, "mirrored": mirrored, "cut": cut}

    def gather(self, sent: dict) -> tuple:
        """Images (B, 3, H, W) in 0..255 and labels (B, H, W) of what `draw_behind` drew; people now and then stand
        elsewhere: in a place without people, or before the people of another picture. What that shows on the bars of the first picture
        is still there: `apply_changes` lays them over it."""
        index, rows = sent["slots"], sent["moved"]
        image = self.image[index].permute(0, 3, 1, 2).float()
        parts, person = self.parts[index], self.person[index]
        if not len(rows):
            return image, parts, person
        other, mirrored, flips = sent["other"], sent["mirrored"][:, None, None], tables(self.device)[0]
        turned = lambda x, way: torch.where(way, x.flip(-1), x)
        behind = turned(self.image[other].permute(0, 3, 1, 2).float(), mirrored[:, None])
        share = blur((person[rows] > 0).float()[:, None], sent["cut"])
        image[rows] = image[rows] * share + behind * (1 - share)
        behind_parts = torch.where(mirrored, flips[self.parts[other].flip(-1).long()], self.parts[other])
        merged = merge_people(parts[rows], person[rows], behind_parts, turned(self.person[other], mirrored))
        parts[rows], person[rows] = merged
        return image, parts, person


class Mixed:
    """Upright pictures and wide ones: a share of the batches is wide, at the target with height and width exchanged.
    It is used as a `Resident` is."""

    def __init__(self, upright: Resident, wide: Resident, share: float):
        check_wide(wide.folders, share)
        self.upright, self.wide, self.share = upright, wide, share

    @property
    def arrived(self) -> int:
        """Pictures that came so far."""
        return self.upright.arrived + self.wide.arrived

    def refill(self) -> None:
        """Takes all shards that are waiting."""
        self.upright.refill()
        self.wide.refill()

    def begin(self) -> list:
        """As `Resident.begin`, of both."""
        return self.upright.begin() + self.wide.begin()

    def watch(self) -> None:
        """Takes new shards from now on."""
        self.upright.watch()
        self.wide.watch()

    def batch(self, size: int, target: tuple, points: int, mild: bool = False) -> dict:
        """As `Resident.batch`."""
        if self.upright.rng.random() < self.share:
            return self.wide.batch(size, target[::-1], points, mild)
        return self.upright.batch(size, target, points, mild)


def merge_people(parts, person, behind_parts, behind_person) -> tuple:
    """`data.merge_people` for labels (N, H, W)."""
    most = person.flatten(1).max(1).values[:, None, None]
    numbered = behind_person.int() + most
    numbered = (numbered * ((behind_person > 0) & (numbered <= PEOPLE))).to(torch.uint8)
    front = person > 0
    return torch.where(front, parts, behind_parts), torch.where(front, person, numbered)


def blur_taps(sigmas: np.ndarray, reach: int) -> np.ndarray:
    """Weights (N, 2 reach + 1) of Gaussian blurs of some sigmas in pixels."""
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigmas[:, None]) ** 2)
    return (taps / taps.sum(1, keepdims=True)).astype(np.float32)


def blur(x: torch.Tensor, taps: torch.Tensor) -> torch.Tensor:
    """Blur of (B, C, H, W), each picture with its own taps, (B, 2 reach + 1), along both axes; edges are mirrored."""
    batch, channels, height, width = x.shape
    count = taps.shape[1]
    padded = F.pad(x, (count // 2,) * 4, mode="reflect")
    across = sum(taps[:, k, None, None, None] * padded[..., k : k + width] for k in range(count))
    return sum(taps[:, k, None, None, None] * across[:, :, k : k + height] for k in range(count))


def back_maps(changes: Changes, source: tuple, target: tuple) -> np.ndarray:
    """Maps (B, 2, 3) from target pixels to places in the source in -1..1, flips included."""
    matrix = changes.matrix
    square = np.concatenate([matrix, np.tile([[[0.0, 0.0, 1.0]]], (len(matrix), 1, 1))], 1)
    mirror = np.tile(np.eye(3), (len(matrix), 1, 1))
    mirror[changes.flip, 0, 0], mirror[changes.flip, 0, 2] = -1, target[1] - 1
    back = np.linalg.inv(square) @ mirror
    scale = np.array([[2 / source[1], 0, 1 / source[1] - 1], [0, 2 / source[0], 1 / source[0] - 1], [0, 0, 1]])
    return (scale @ back)[:, :2].astype(np.float32)


def colour_matrices(hue: np.ndarray) -> np.ndarray:
    """One colour matrix (B, 3, 3) a picture; hue counts half degrees."""
    angle = np.radians(2 * hue)
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = np.sin(angle), -np.sin(angle)
    return (np.linalg.inv(YIQ) @ turn @ YIQ).astype(np.float32)


def numbers_of(changes: Changes, boxes: np.ndarray, source: tuple, target: tuple) -> dict:
    """The changes of pictures with these `content_boxes` (B, 4) as the arrays that `apply_changes` works with: a row a picture, or the
    numbers of those pictures that a change is for."""
    zoom = np.sqrt(np.abs(np.linalg.det(changes.matrix[:, :, :2])))
    margins = [(size * changes.bar_share).astype(np.int64) * (changes.bar_axis == axis) for axis, size in enumerate(target)]
    sharpened, grainy = np.flatnonzero(changes.sharpen), np.flatnonzero(changes.noise)
    floats = {
        "gain": changes.gain,
        "gamma": changes.gamma,
        "contrast": changes.contrast,
        "colour": np.where(changes.grey, 0.0, changes.colour),
        "amount": changes.sharpen[sharpened],
        "grain": changes.noise[grainy] / 255,
    }
    return {name: values.astype(np.float32) for name, values in floats.items()} | {
        "back": back_maps(changes, source, target),
        "ends": (2 * boxes / np.repeat(source, 2) - 1).astype(np.float32),
        "flip": changes.flip,
        "halved": np.flatnonzero(zoom < HALVED_BELOW),
        "margins": np.stack(margins),
        "turn": colour_matrices(changes.hue),
        "sharpened": sharpened,
        "soft": blur_taps(changes.soft[sharpened], BLUR_REACH),
        "grainy": grainy,
    }


def sampling_grid(back: torch.Tensor, target: tuple) -> torch.Tensor:
    """Where each target pixel is read in the source, (B, H, W, 2) in -1..1, from the maps of `back_maps`."""
    y, x = torch.meshgrid(
        torch.arange(target[0], device=back.device, dtype=torch.float32),
        torch.arange(target[1], device=back.device, dtype=torch.float32),
        indexing="ij",
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], -1).reshape(1, -1, 3)
    return (pixels @ back.mT).reshape(len(back), *target, 2)


def warp_batch(image, parts, person, grid: torch.Tensor, sent: dict) -> tuple:
    """The affine maps and flips, which `grid` says; the outside is padding, labelled background."""
    rows = sent["halved"]
    sample = lambda x, mode, where: F.grid_sample(x, where, mode=mode, padding_mode="zeros", align_corners=False)
    warped = sample(image - PADDING, "bilinear", grid)
    if len(rows):
        # Halve by area first: four source pixels would alias. Relative coordinates stay what they are.
        warped[rows] = sample(F.avg_pool2d(image[rows] - PADDING, 2), "bilinear", grid[rows])
    labels = sample(torch.stack([parts, person], 1).float(), "nearest", grid).to(torch.uint8)
    parts, person = labels[:, 0], labels[:, 1]
    parts = torch.where(sent["flip"][:, None, None], tables(image.device)[0][parts.long()], parts)
    return warped + PADDING, parts, person


def shown(grid: torch.Tensor, sent: dict, target: tuple) -> torch.Tensor:
    """Which pixels are read within the bars of their source, and lie within those that are to be added, (B, H, W) bool."""
    top, bottom, left, right = sent["ends"].mT[..., None, None]
    x, y = grid.unbind(-1)
    inside = (y >= top) & (y < bottom) & (x >= left) & (x < right)
    for axis in (0, 1):
        margin = sent["margins"][axis][:, None]
        place = torch.arange(target[axis], device=grid.device)[None]
        line = (place >= margin) & (place < target[axis] - margin)
        inside &= line[:, :, None] if axis == 0 else line[:, None, :]
    return inside


def recolour_batch(image: torch.Tensor, sent: dict) -> torch.Tensor:
    """Gain, white balance, contrast, gamma, grey, colourfulness and hue of (B, 3, H, W) in 0..1."""
    place = lambda name: sent[name].reshape(len(image), -1, 1, 1)
    mean = image.mean((1, 2, 3), keepdim=True)
    x = (image * place("gain")).clamp(1e-6, 1) ** place("gamma")
    x = ((x - mean) * place("contrast") + mean).clamp(0, 1)
    brightness = (x * tables(x.device)[1]).sum(1, keepdim=True)
    x = (brightness + (x - brightness) * place("colour")).clamp(0, 1)
    return (sent["turn"] @ x.flatten(2)).reshape(x.shape).clamp(0, 1)


def sharpen_batch(image: torch.Tensor, sent: dict, generator) -> torch.Tensor:
    """Sharpness and noise of (B, 3, H, W) in 0..1."""
    place = lambda name: sent[name][:, None, None, None]
    rows = sent["sharpened"]
    if len(rows):
        chosen = image[rows]
        image[rows] = (chosen + place("amount") * (chosen - blur(chosen, sent["soft"]))).clamp(0, 1)
    rows = sent["grainy"]
    if len(rows):
        grain = torch.randn((len(rows), *image.shape[1:]), device=image.device, generator=generator)
        image[rows] = (image[rows] + grain * place("grain")).clamp(0, 1)
    return image


@torch.no_grad()
def apply_changes(image, parts, person, sent: dict, target: tuple, generator) -> tuple:
    """Training samples at the target size: images (B, 3, H, W) from 0..255 to 0..1, labels (B, H, W) uint8, and which pixels are no
    padding, (B, H, W) bool. Bars come last and keep their colour, see `data.change`. `sent`: what `numbers_of` gives, on the device."""
    grid = sampling_grid(sent["back"], target)
    inside = shown(grid, sent, target)
    image, parts, person = warp_batch(image, parts, person, grid, sent)
    image = sharpen_batch(recolour_batch(image / 255, sent), sent, generator)
    return image.masked_fill(~inside[:, None], PADDING / 255), parts * inside, person * inside, inside


@torch.no_grad()
def choose_points(parts: torch.Tensor, person: torch.Tensor, inside: torch.Tensor, count: int, generator) -> torch.Tensor:
    """Flat pixel indices (B, K), chosen as `data.choose_points` does."""
    labels = torch.stack([parts, person], 1).float()
    both = torch.cat([labels, -labels], 1)
    # Rows, then columns: a fifth of the comparisons of a square window.
    most = F.max_pool2d(F.max_pool2d(both, (5, 1), 1, (2, 0)), (1, 5), 1, (0, 2))
    spread = most[:, :2] + most[:, 2:]
    border = (spread != 0).any(1).flatten(1)
    anywhere = torch.where(inside.flatten(1), 1.0, BARRED)
    near = torch.where(border.sum(1, keepdim=True) < FEWEST_BORDER, anywhere, border.float())
    draw = lambda weights, size: torch.multinomial(weights, size, replacement=True, generator=generator)
    return torch.cat([draw(anywhere, count // 2), draw(near, count - count // 2)], 1)


@torch.no_grad()
def present_rows(parts: torch.Tensor, person: torch.Tensor) -> torch.Tensor:
    """Which of the 16 parts and PEOPLE people each picture shows, (B, 24) bool."""
    counts = lambda labels: torch.zeros(len(labels), 256, device=labels.device).scatter_add_(
        1, labels.flatten(1).long(), torch.ones_like(labels.flatten(1), dtype=torch.float32)
    )
    part_counts, person_counts = counts(parts)[:, :PART_CLASSES], counts(person)[:, 1 : PEOPLE + 1]
    return torch.cat([part_counts >= SMALLEST_PART, person_counts >= 4 * SMALLEST_PART], 1)

"""Samples in a GPU's own memory, augmented there a batch at a time.

A GPU trains faster than processes can augment and send. Here every shard is sent once, when it appears, and what
`data.draw_changes` draws is applied to whole batches with PyTorch. The largest cost left is that of the network.
"""

import threading
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from render.classes import PADDING

from .config import PART_CLASSES
from .data import (
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
    draw_changes,
    read_shard,
    shard_paths,
)

# Candidates per wanted sample: the least-used of them are taken, so that late shards catch up.
CANDIDATES = 4
GREY = (0.299, 0.587, 0.114)
# Axes of colour beside brightness (NTSC's I and Q): turning them turns the hue.
YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))
BLUR_REACH = 5
CUT_REACH = 3


class Resident:
    """Up to `capacity` samples of some folders' shards, all of one size; when it is full the oldest make way."""

    def __init__(self, folders, capacity: int, device, seed: int):
        if capacity < 1:
            raise ValueError(f"a capacity of {capacity} pictures holds nothing; --capacity wants some thousands")
        self.folders = [Path(f) for f in folders]
        self.capacity, self.device = capacity, torch.device(device)
        self.rng = np.random.default_rng(seed)
        self.generator = torch.Generator(self.device).manual_seed(seed)
        self.known, self.count, self.arrived = set(), 0, 0
        self.uses = np.zeros(capacity, np.int64)
        self.empty = np.zeros(capacity, bool)
        self.image = None
        self.flips = torch.from_numpy(FLIP_TABLE).to(self.device)
        self.lock, self.failure = threading.Lock(), None
        for folder in self.folders:
            if not folder.is_dir():
                raise ShardError(f"{folder} is not a folder of shards; render into it first (see README)")

    def waiting(self) -> list:
        """Shards that are not here yet, of all folders in turn: where there are too many, no kind is left out."""
        rows = [[p for p in shard_paths(folder) if p not in self.known] for folder in self.folders]
        return [p for row in zip_longest(*rows) for p in row if p is not None]

    def allocate(self, shape: tuple) -> None:
        """Memory for the samples, all at once: a run that would not fit fails at its start."""
        place = lambda *size: torch.empty((self.capacity, *size), dtype=torch.uint8, device=self.device)
        try:
            self.image, self.parts, self.person = place(*shape, 3), place(*shape), place(*shape)
        except RuntimeError as error:  # also what CUDA raises when its memory is full
            size = self.capacity * shape[0] * shape[1] * 5 / 1e9
            raise ShardError(f"{size:.1f} GB for {self.capacity} pictures do not fit {self.device}; lower --capacity") from error

    def take(self, path: Path) -> None:
        """Sends one shard to the device."""
        shard = read_shard(path)
        self.known.add(path)
        if self.image is None:
            self.allocate(shard["parts"].shape[1:])
        if shard["parts"].shape[1:] != tuple(self.parts.shape[1:]):
            raise ShardError(f"{path}: pictures of {shard['parts'].shape[1:]} among those of {tuple(self.parts.shape[1:])}")
        if len(shard["parts"]) > self.capacity:
            raise ShardError(f"{path}: {len(shard['parts'])} pictures are more than the capacity of {self.capacity}; raise --capacity")
        slots = np.arange(self.arrived, self.arrived + len(shard["parts"])) % self.capacity
        index = torch.from_numpy(slots).to(self.device)
        sent = {name: torch.from_numpy(shard[name]).to(self.device) for name in ("image", "parts", "person")}
        with self.lock:
            for name, tensor in sent.items():
                getattr(self, name)[index] = tensor
            self.uses[slots] = 0
            self.empty[slots] = ~shard["person"].any((1, 2))
            self.arrived += len(slots)
            self.count = min(self.arrived, self.capacity)

    def refill(self) -> None:
        """Takes all shards that are waiting."""
        for path in self.waiting():
            self.take(path)

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
        """Slots of the next batch: of a random few, those that were used least."""
        few = self.rng.integers(self.count, size=CANDIDATES * size)
        order = np.argsort(self.uses[few] + self.rng.random(len(few)), kind="stable")
        slots = few[order[:size]]
        np.add.at(self.uses, slots, 1)
        return slots

    def batch(self, size: int, target: tuple, points: int) -> dict:
        """A batch as `data.make_batch` gives it, on the device; pixels are (B, 3, H, W) in 0..1."""
        if self.failure is not None:
            raise self.failure
        if not self.count:
            raise ShardError(f"no shards in {[str(f) for f in self.folders]}; render some first (see README)")
        with self.lock:
            slots = self.choose(size)
            image, parts, person = self.gather(slots)
        changes = draw_changes(self.rng, size, tuple(parts.shape[1:]), target)
        image, parts, person = augment_batch(image, parts, person, changes, target, self.generator)
        where = choose_points(parts, person, points, self.generator)
        grid = torch.stack([(2 * (where % target[1]) + 1) / target[1] - 1, (2 * (where // target[1]) + 1) / target[0] - 1], -1)
        return {
            "pixels": image.contiguous(memory_format=torch.channels_last),
            "points": grid,
            "parts": parts.flatten(1).gather(1, where),
            "person": person.flatten(1).gather(1, where),
            "present": present_rows(parts, person),
        }

    def gather(self, slots: np.ndarray) -> tuple:
        """Images (B, 3, H, W) in 0..255 and labels (B, H, W) of some slots; people now and then stand elsewhere: in a
        place without people, or before the people of another picture."""
        place = lambda values: torch.from_numpy(values).to(self.device)
        index = place(slots)
        image = self.image[index].permute(0, 3, 1, 2).float()
        parts, person = self.parts[index], self.person[index]
        empty = np.flatnonzero(self.empty[: self.count])
        kind = np.where(self.empty[slots], 1.0, self.rng.random(len(slots)))
        moved = np.flatnonzero((kind < TRANSPLANTED + MINGLED) & ((kind >= TRANSPLANTED) | (len(empty) > 0)))
        if not len(moved):
            return image, parts, person
        alone = self.rng.choice(empty, len(moved)) if len(empty) else np.zeros(len(moved), np.int64)
        other = np.where(kind[moved] < TRANSPLANTED, alone, self.rng.integers(self.count, size=len(moved)))
        other, rows = place(other), place(moved)
        mirrored = place(self.rng.random(len(moved)) < 0.5)[:, None, None]
        turned = lambda x, way: torch.where(way, x.flip(-1), x)
        behind = turned(self.image[other].permute(0, 3, 1, 2).float(), mirrored[:, None])
        share = blur((person[rows] > 0).float()[:, None], self.rng.uniform(0.4, 1.0, len(moved)), CUT_REACH)
        image[rows] = image[rows] * share + behind * (1 - share)
        behind_parts = torch.where(mirrored, self.flips[self.parts[other].flip(-1).long()], self.parts[other])
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

    def watch(self) -> None:
        """Takes new shards from now on."""
        self.upright.watch()
        self.wide.watch()

    def batch(self, size: int, target: tuple, points: int) -> dict:
        """As `Resident.batch`."""
        if self.upright.rng.random() < self.share:
            return self.wide.batch(size, target[::-1], points)
        return self.upright.batch(size, target, points)


def merge_people(parts, person, behind_parts, behind_person) -> tuple:
    """`data.merge_people` for labels (N, H, W)."""
    most = person.flatten(1).max(1).values[:, None, None]
    numbered = behind_person.int() + most
    numbered = torch.where((behind_person > 0) & (numbered <= PEOPLE), numbered, 0).to(torch.uint8)
    front = person > 0
    return torch.where(front, parts, behind_parts), torch.where(front, person, numbered)


def blur(x: torch.Tensor, sigmas: np.ndarray, reach: int) -> torch.Tensor:
    """Gaussian blur of (B, C, H, W), each picture with its own sigma in pixels; 2 reach + 1 taps, edges mirrored."""
    batch, channels, height, width = x.shape
    offsets = np.arange(-reach, reach + 1)
    taps = np.exp(-0.5 * (offsets / sigmas[:, None]) ** 2)
    taps = torch.from_numpy((taps / taps.sum(1, keepdims=True)).astype(np.float32)).to(x.device)
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    across = sum(taps[:, k, None, None, None] * padded[..., k : k + width] for k in range(2 * reach + 1))
    return sum(taps[:, k, None, None, None] * across[:, :, k : k + height] for k in range(2 * reach + 1))


def sampling_grid(matrix: np.ndarray, flips: np.ndarray, source: tuple, target: tuple, device) -> torch.Tensor:
    """Where each target pixel is read in the source, (B, H, W, 2) in -1..1, from matrices (B, 2, 3) to the target."""
    square = np.concatenate([matrix, np.tile([[[0.0, 0.0, 1.0]]], (len(matrix), 1, 1))], 1)
    mirror = np.tile(np.eye(3), (len(matrix), 1, 1))
    mirror[flips, 0, 0], mirror[flips, 0, 2] = -1, target[1] - 1
    back = np.linalg.inv(square) @ mirror
    scale = np.array([[2 / source[1], 0, 1 / source[1] - 1], [0, 2 / source[0], 1 / source[0] - 1], [0, 0, 1]])
    back = torch.from_numpy((scale @ back)[:, :2].astype(np.float32)).to(device)
    y, x = torch.meshgrid(
        torch.arange(target[0], device=device, dtype=torch.float32),
        torch.arange(target[1], device=device, dtype=torch.float32),
        indexing="ij",
    )
    pixels = torch.stack([x, y, torch.ones_like(x)], -1).reshape(1, -1, 3)
    return (pixels @ back.mT).reshape(len(matrix), *target, 2)


def warp_batch(image, parts, person, changes: Changes, target: tuple) -> tuple:
    """The affine maps and flips; the outside is padding, labelled background."""
    source, device = tuple(image.shape[-2:]), image.device
    grid = sampling_grid(changes.matrix, changes.flip, source, target, device)
    sample = lambda x, mode, where: F.grid_sample(x, where, mode=mode, padding_mode="zeros", align_corners=False)
    warped = sample(image - PADDING, "bilinear", grid)
    zoom = np.sqrt(np.abs(np.linalg.det(changes.matrix[:, :, :2])))
    small = np.flatnonzero(zoom < HALVED_BELOW)
    if len(small):
        # Halve by area first: four source pixels would alias. Relative coordinates stay what they are.
        rows = torch.from_numpy(small).to(device)
        warped[rows] = sample(F.avg_pool2d(image[rows] - PADDING, 2), "bilinear", grid[rows])
    labels = sample(torch.stack([parts, person], 1).float(), "nearest", grid).to(torch.uint8)
    parts, person = labels[:, 0], labels[:, 1]
    table = torch.from_numpy(FLIP_TABLE).to(device)
    flips = torch.from_numpy(changes.flip).to(device)[:, None, None]
    return warped + PADDING, torch.where(flips, table[parts.long()], parts), person


def add_bars(image, parts, person, changes: Changes) -> tuple:
    """Letterbox bars where there are to be some."""
    device, size = image.device, image.shape[-2:]
    inside = torch.ones((len(image), *size), dtype=torch.bool, device=device)
    for axis in (0, 1):
        margin = (size[axis] * changes.bar_share).astype(np.int64) * (changes.bar_axis == axis)
        margin = torch.from_numpy(margin).to(device)[:, None]
        place = torch.arange(size[axis], device=device)[None]
        line = (place >= margin) & (place < size[axis] - margin)
        inside &= line[:, :, None] if axis == 0 else line[:, None, :]
    return torch.where(inside[:, None], image, float(PADDING)), parts * inside, person * inside


def recolour_batch(image: torch.Tensor, changes: Changes) -> torch.Tensor:
    """Gain, white balance, contrast, gamma, grey, colourfulness and hue of (B, 3, H, W) in 0..1."""
    place = lambda values: torch.from_numpy(np.asarray(values, np.float32)).to(image.device).reshape(len(image), -1, 1, 1)
    mean = image.mean((1, 2, 3), keepdim=True)
    x = (image * place(changes.gain)).clamp(1e-6, 1) ** place(changes.gamma)
    x = ((x - mean) * place(changes.contrast) + mean).clamp(0, 1)
    brightness = (x * torch.tensor(GREY, device=x.device)[:, None, None]).sum(1, keepdim=True)
    share = place(np.where(changes.grey, 0.0, changes.colour))
    x = (brightness + (x - brightness) * share).clamp(0, 1)
    # One colour matrix a picture; hue counts half degrees.
    angle = np.radians(2 * changes.hue)
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 0, 0] = 1
    turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
    turn[:, 1, 2], turn[:, 2, 1] = np.sin(angle), -np.sin(angle)
    matrix = np.linalg.inv(np.array(YIQ)) @ turn @ np.array(YIQ)
    matrix = torch.from_numpy(matrix.astype(np.float32)).to(x.device)
    return (matrix @ x.flatten(2)).reshape(x.shape).clamp(0, 1)


def sharpen_batch(image: torch.Tensor, changes: Changes, generator) -> torch.Tensor:
    """Sharpness and noise of (B, 3, H, W) in 0..1."""
    place = lambda values: torch.from_numpy(np.asarray(values, np.float32)).to(image.device)[:, None, None, None]
    rows = np.flatnonzero(changes.sharpen)
    if len(rows):
        index, amount = torch.from_numpy(rows).to(image.device), place(changes.sharpen[rows])
        chosen = image[index]
        image[index] = (chosen + amount * (chosen - blur(chosen, changes.soft[rows], BLUR_REACH))).clamp(0, 1)
    rows = np.flatnonzero(changes.noise)
    if len(rows):
        index = torch.from_numpy(rows).to(image.device)
        grain = torch.randn((len(rows), *image.shape[1:]), device=image.device, generator=generator)
        image[index] = (image[index] + grain * place(changes.noise[rows] / 255)).clamp(0, 1)
    return image


@torch.no_grad()
def augment_batch(image, parts, person, changes: Changes, target: tuple, generator) -> tuple:
    """Training samples at the target size: images (B, 3, H, W) from 0..255 to 0..1, labels (B, H, W) uint8."""
    image, parts, person = warp_batch(image, parts, person, changes, target)
    image, parts, person = add_bars(image, parts, person, changes)
    image = recolour_batch(image / 255, changes)
    return sharpen_batch(image, changes, generator), parts, person


@torch.no_grad()
def choose_points(parts: torch.Tensor, person: torch.Tensor, count: int, generator) -> torch.Tensor:
    """Flat pixel indices (B, K): half uniform, the rest near label borders (where masks are decided)."""
    labels = torch.stack([parts, person], 1).float()
    both = torch.cat([labels, -labels], 1)
    # Rows, then columns: a fifth of the comparisons of a square window.
    most = F.max_pool2d(F.max_pool2d(both, (5, 1), 1, (2, 0)), (1, 5), 1, (0, 2))
    spread = most[:, :2] + most[:, 2:]
    border = (spread != 0).any(1).flatten(1)
    border |= border.sum(1, keepdim=True) < FEWEST_BORDER
    pixels = border.shape[1]
    uniform = torch.randint(pixels, (len(parts), count // 2), device=parts.device, generator=generator)
    near = torch.multinomial(border.float(), count - count // 2, replacement=True, generator=generator)
    return torch.cat([uniform, near], 1)


@torch.no_grad()
def present_rows(parts: torch.Tensor, person: torch.Tensor) -> torch.Tensor:
    """Which of the 16 parts and PEOPLE people each picture shows, (B, 24) bool."""
    counts = lambda labels: torch.zeros(len(labels), 256, device=labels.device).scatter_add_(
        1, labels.flatten(1).long(), torch.ones_like(labels.flatten(1), dtype=torch.float32)
    )
    part_counts, person_counts = counts(parts)[:, :PART_CLASSES], counts(person)[:, 1 : PEOPLE + 1]
    return torch.cat([part_counts >= SMALLEST_PART, person_counts >= 4 * SMALLEST_PART], 1)

"""Sizes of the networks and settings of a run, as plain data that is written into every checkpoint and log."""

from dataclasses import asdict, dataclass, fields, replace

PART_CLASSES = 16
PERSON = 16
NO_OBJECT = 17
QUERY_CLASSES = 18
HEIGHT, WIDTH = 256, 192
# Other input sizes (height, width) that the shipped graphs serve at no more work: for pictures of other shapes.
OTHER_SIZES = ((192, 256), (288, 160), (160, 288))


@dataclass(frozen=True)
class NetworkConfig:
    """Shape of one network. Widths and depths go from stride 2 to stride 32; `mask_depth` counts the convolutions that
    smooth the mask features."""

    widths: tuple = (32, 48, 80, 144, 192)
    depths: tuple = (1, 3, 4, 5, 2)
    mask_width: int = 64
    mask_depth: int = 2
    dim: int = 96
    queries: int = 28
    layers: int = 3
    heads: int = 4
    hidden: int = 384


NETWORKS = {
    # 0.93 GMAC and 2.47 M parameters at 256 x 192: what is shipped since 0.6.0.
    "student": NetworkConfig(),
    # 0.71 GMAC and 2.35 M parameters: what was shipped before, and what `student` was grown from.
    "student-m": NetworkConfig(depths=(1, 2, 3, 5, 2), mask_depth=1),
    # Half the work, for boards that cannot hold the frame rate with `student`.
    "student-s": NetworkConfig(widths=(24, 32, 64, 112, 160), depths=(1, 2, 2, 4, 2), mask_width=48, mask_depth=1),
    # Same family, wider and deeper, grown from `student`; never shipped, only distilled.
    "teacher": NetworkConfig(
        widths=(48, 96, 144, 224, 256),
        depths=(2, 4, 6, 8, 2),
        mask_width=96,
        mask_depth=3,
        layers=6,
    ),
    # For the smoke run and the unit tests.
    "tiny": NetworkConfig(
        widths=(8, 16, 24, 32, 48), depths=(1, 1, 1, 1, 1), mask_width=24, mask_depth=1, dim=96, queries=24, layers=3, hidden=96
    ),
    "tiny-teacher": NetworkConfig(
        widths=(12, 24, 32, 48, 64), depths=(1, 1, 1, 2, 1), mask_width=32, mask_depth=1, dim=96, queries=24, layers=4, hidden=96
    ),
}


@dataclass(frozen=True)
class Phase:
    """A stretch of training at one input size. `samples` counts pictures, so it does not depend on the batch size."""

    height: int
    width: int
    batch: int
    samples: int


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a run. The schedule is warm-up, stable, decay over the sum of the phases' samples."""

    network: str = "student"
    phases: tuple = (Phase(128, 96, 32, 200_000), Phase(256, 192, 24, 200_000))
    optimiser: str = "muon"
    rate: float = 1.2e-3
    warmup: int = 12_000
    decay: float = 0.35
    final_rate: float = 0.01
    weight_decay: float = 0.03
    clip: float = 5.0
    ema_images: int = 30_000
    seed: int = 1
    points: int = 1024
    # Statistics of batch norm stay those of the start: for stretches from trained weights whose batches are small.
    frozen_norms: bool = False
    # Share of the batches at the wide input (height and width exchanged), from shards of wide pictures.
    wide: float = 0.0
    # Share of the schedule, at its end, whose pictures look as they were rendered: people stay where they were, no bars,
    # colours or sharpness of other cameras, no large zooms and turns.
    mild: float = 0.0
    # A run that begins from trained weights has its kernels as large as untrained ones and their scales larger instead:
    # the same function, of which a step of the optimiser moves more.
    rescale: bool = False
    class_weight: float = 2.0
    bce_weight: float = 5.0
    dice_weight: float = 5.0
    no_object_weight: float = 0.1
    semantic_weight: float = 2.0
    jaccard_weight: float = 0.0
    dense_weight: float = 1.0
    # Weight of a per-pixel classifier on each of the three memories; 0 leaves them out.
    auxiliary: float = 0.0
    prior: float = 4.0
    prior_images: int = 60_000
    distil_class: float = 1.0
    distil_mask: float = 5.0
    distil_semantic: float = 2.0
    buffer_shards: int = 16
    val_images: int = 256

    @property
    def total(self) -> int:
        """Pictures seen by the whole run."""
        return sum(phase.samples for phase in self.phases)

    @property
    def mild_from(self) -> float:
        """After how many pictures the augmentation is mild."""
        return self.total * (1 - self.mild)


def to_dict(config) -> dict:
    """A configuration as plain lists, numbers and strings, for JSON."""
    return asdict(config)


def check_type(name: str, value, wanted: type) -> None:
    """A setting must be of its default's type; a whole number does for a fraction, and a truth for neither."""
    allowed = (int, float) if wanted is float else wanted
    if not isinstance(value, allowed) or isinstance(value, bool) != (wanted is bool):
        raise ValueError(f"{name} is {value!r}; a {wanted.__name__} is wanted, such as {getattr(TrainConfig(), name)!r}")


def phase(row) -> Phase:
    """One phase from its JSON form, a list or an object."""
    values = [row.get(f.name) for f in fields(Phase)] if isinstance(row, dict) else row
    whole = isinstance(values, (list, tuple)) and len(values) == 4 and all(isinstance(v, int) and v > 0 for v in values)
    if not whole:
        raise ValueError(f"a phase {row!r}: [height, width, batch, samples] is wanted, such as [256, 192, 24, 200000]")
    return Phase(*values)


def train_config(values: dict) -> TrainConfig:
    """Builds a run's settings; an unknown key is an error that names it."""
    known = {f.name for f in fields(TrainConfig)}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown training settings {unknown}; known are {sorted(known)}")
    values = dict(values)
    for field in fields(TrainConfig):
        if field.name in values and field.name != "phases":
            check_type(field.name, values[field.name], type(field.default))
    if "phases" in values:
        if not isinstance(values["phases"], (list, tuple)) or not values["phases"]:
            raise ValueError(f"phases is {values['phases']!r}; a list of phases is wanted, such as [[256, 192, 24, 200000]]")
        values["phases"] = tuple(phase(row) for row in values["phases"])
        for one in values["phases"]:
            if one.height % 32 or one.width % 32:
                raise ValueError(f"a phase of {one.height} x {one.width}: both must be multiples of 32, the last stride")
    if values.get("decay", 1) > 1:
        raise ValueError(f"decay is {values['decay']!r}; a share of the schedule is wanted, above 0 and at most 1")
    for name in ("ema_images", "decay", "rate", "clip", "points", "buffer_shards", "val_images"):
        if values.get(name, 1) <= 0:
            raise ValueError(f"{name} is {values[name]!r}; more than 0 is wanted, such as {getattr(TrainConfig(), name)!r}")
    for name, whole in (("wide", "the batches"), ("mild", "the schedule")):
        if not 0 <= values.get(name, 0) < 1:
            raise ValueError(f"{name} is {values[name]!r}; a share of {whole} is wanted, from 0 to below 1")
    if values.get("network", "student") not in NETWORKS:
        raise ValueError(f"network {values['network']!r} is not one of {sorted(NETWORKS)}")
    return replace(TrainConfig(), **values)

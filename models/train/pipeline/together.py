"""Runs trained on the same pictures at once, on a GPU: a teacher and its students, or one network alone.

Each student with a weight of distillation learns from the labels and from what the teacher says in the same step, so
the teacher's work on a picture is done once and serves both. A student without one is the baseline: it differs in
nothing else. The first run of a recipe is the teacher. Pictures stay in the device's memory (`resident.py`), and the
schedule may be counted in seconds, as a rented machine's time is.
"""

import math
import os
import time
from collections import deque
from pathlib import Path

import torch

from .config import HEIGHT, NETWORKS, WIDTH, TrainConfig, train_config
from .data import ShardError, plain_samples, shard_paths
from .network import Parser
from .resident import Mixed, Resident, reserve
from .states import fill, read_state, save_state, write_weights
from .train import CHECKPOINT, Run, TrainError, rate_at, try_write, validate

WEIGHTS = "weights.pt"
NEXT = "checkpoint.next.pt"  # a checkpoint that waits for those of the other runs
AWAIT = 0.3  # seconds between two looks for the first shards
# What decides which pictures come, how they are judged, and when the schedule moves: one for all runs.
COMMON = ("phases", "points", "wide", "mild", "val_images", "warmup", "seed")


def make_runs(recipe: dict, out: Path, device: str, starts: dict) -> list:
    """The runs of a recipe ({name: settings}, the teacher first), each resumed, or started from `starts[name]`."""
    configs = check_recipe(recipe)
    check_names(configs, starts)
    runs = [Run(Path(out) / name, config, device) for name, config in configs.items()]
    complete_save([run.out for run in runs])
    for name, run in zip(configs, runs, strict=True):
        if not run.resume() and name in starts:
            run.begin(starts[name])
    if len({run.seen for run in runs}) > 1:
        seen = ", ".join(f"{name} {run.seen}" for name, run in zip(configs, runs, strict=True))
        raise TrainError(f"the runs in {out} have seen {seen} pictures; use another --out, and --start from their weights")
    return runs


def check_recipe(recipe) -> dict:
    """The settings of each run by name; those that the runs have in common must be the same."""
    if not isinstance(recipe, dict) or not recipe or not all(isinstance(v, dict) for v in recipe.values()):
        raise ValueError("the recipe must be {name: settings}, as in recipes/together.json; settings alone are for `train`")
    configs = {name: train_config(values) for name, values in recipe.items()}
    for key in COMMON:
        values = {getattr(config, key) for config in configs.values()}
        if len(values) > 1:
            raise ValueError(f"runs that train together have the same {key}, not {sorted(map(str, values))}")
    if len(next(iter(configs.values())).phases) > 1:
        raise ValueError("runs that train together have one phase, not a first one at another size")
    return configs


def check_names(configs: dict, starts: dict) -> None:
    """Weights are for runs of the recipe."""
    unknown = sorted(set(starts) - set(configs))
    if unknown:
        raise ValueError(f"the recipe's runs are {sorted(configs)}; --start names {unknown}")


def check_before(recipe, starts: dict, capacity: int, device: str) -> TrainConfig:
    """What can be wrong before there is any shard: the recipe, the weights `starts[name]` of its runs, and whether the device has room for
    `capacity` pictures. Gives the settings of the first run."""
    configs = check_recipe(recipe)
    check_names(configs, starts)
    first = next(iter(configs.values()))
    places(first, capacity)
    for name, path in starts.items():
        fill(Parser(NETWORKS[configs[name].network], configs[name].auxiliary > 0), read_state(path)["average"], path)
    reserve(capacity, (HEIGHT, WIDTH), device)
    return first


def places(config: TrainConfig, capacity: int) -> tuple:
    """How many upright and how many wide pictures are kept where there is room for `capacity`: the wide ones have their share."""
    wide = int(config.wide * capacity)
    kept, batch = (capacity - wide, wide), config.phases[0].batch
    if min(kept[: 2 if config.wide else 1]) < batch:
        raise ValueError(f"a capacity of {capacity} keeps {kept[0]} upright pictures and {kept[1]} wide ones, and a batch has {batch}; raise --capacity")
    return kept


def await_shards(source: Resident | Mixed, val: Path, seconds: float) -> None:
    """Takes the first shards as they are rendered, until training and its validation can begin; `ShardError` where that takes more than
    `seconds`."""
    end = time.monotonic() + seconds
    while missing := source.begin() + ([] if shard_paths(val) else [val]):
        if time.monotonic() > end:
            raise ShardError(f"no shard in {', '.join(map(str, missing))} within {seconds:.0f} seconds; look at what renders there")
        time.sleep(AWAIT)


def learns(run: Run) -> bool:
    """Whether a run listens to the teacher."""
    return run.config.distil_class + run.config.distil_mask + run.config.distil_semantic > 0


class Position:
    """How far a schedule of `total` pictures is: by those seen, or, where `seconds` has an end, by the seconds alone that a rented
    machine leaves. How many pictures it sees by then nobody knows before."""

    def __init__(self, total: int, seconds: float, seen: int, spent: float):
        self.total, self.seconds, self.spent = total, seconds, spent
        self.began = time.monotonic()
        self.seen = seen

    def elapsed(self) -> float:
        """Seconds since the first start of the runs."""
        return self.spent + time.monotonic() - self.began

    def pictures(self) -> int:
        """The schedule's position as a number of pictures."""
        return self.seen if math.isinf(self.seconds) else int(self.total * self.elapsed() / self.seconds)

    def rated(self, warmup: int) -> int:
        """The position that the rate hangs on. A warm-up is counted in pictures seen, is not shortened by seconds and does not
        come twice."""
        return self.seen if self.seen < warmup else max(self.pictures(), warmup)


def step_all(runs: list, batch: dict, at: int, sums: list, meanwhile) -> None:
    """One step of every run, the teacher's first; losses are added to `sums` on the device. `meanwhile` is called within
    the first run's step."""
    soft = None
    for run, total in zip(runs, sums, strict=True):
        losses, answer = run.step(batch, soft if learns(run) else None, at, meanwhile if run is runs[0] else None)
        soft = soft or answer
        for name, value in losses.items():
            total[name] = total.get(name, 0.0) + value


def report(runs: list, sums: list, steps: int, at: int, held: dict, size: tuple, event: dict) -> None:
    """One record of a kind, `event`, for every run's log; `sums` begin anew, also where a log cannot be written."""
    check_all(runs)
    records = []
    for run, losses in zip(runs, sums, strict=True):
        record = event | {"seen": run.seen, "seconds": round(run.seconds), "size": size, "rate": rate_at(run.config, at)}
        record |= {"loss": {k: round(float(v) / max(steps, 1), 4) for k, v in losses.items()}}
        records.append(record | {"val": validate(run.average.model, held, size)})
        losses.clear()
    for run, record in zip(runs, records, strict=True):
        run.log(record)


def check_all(runs: list) -> None:
    """No run's loss may have stopped being a number: looked at for all before anything of one is written."""
    for run in runs:
        run.check_finite()


def save_all(runs: list) -> None:
    """Checkpoints, and beside them the averaged weights in half precision. All checkpoints are written before the first takes
    the place of the one before: whatever ends this, each run has one of the same position (see `complete_save`)."""
    check_all(runs)
    for run in runs:
        save_state(run.out / NEXT, run.state())
    for run in runs:
        os.replace(run.out / NEXT, run.out / CHECKPOINT)
    for run in runs:
        write_weights(run.state(), run.out / WEIGHTS)


def complete_save(folders: list) -> None:
    """Ends what `save_all` was kept from ending: the newest position that every run has becomes the one of its checkpoint. Where
    there is none, all is left as it is."""
    if not any((folder / NEXT).exists() for folder in folders):
        return
    kept = [{name: seen_at(folder / name) for name in (CHECKPOINT, NEXT)} for folder in folders]
    common = set.intersection(*(set(positions.values()) for positions in kept)) - {None}
    if not common:
        return
    for folder, positions in zip(folders, kept, strict=True):
        if positions[CHECKPOINT] != max(common):
            os.replace(folder / NEXT, folder / CHECKPOINT)
        (folder / NEXT).unlink(missing_ok=True)


def seen_at(checkpoint: Path) -> int | None:
    """How many pictures a run had seen at a checkpoint; 0 at the one that was not written yet, before its first, and `None` for
    a file of `NEXT` that is not there."""
    if checkpoint.exists():
        return read_state(checkpoint)["seen"]
    return 0 if checkpoint.name == CHECKPOINT else None


def train_together(
    runs: list, source: Resident | Mixed, val: Path, seconds: float, max_seconds: float, log_every: float, save_every: float
) -> None:
    """Trains until the pictures of the recipe are used up, or, where `seconds` has an end, until these are, counted over all starts;
    `max_seconds` ends this start earlier. However it ends, checkpoints are left, unless a loss is no number any more: then the last
    ones stay. Raises `OSError` where the last ones cannot be written; one on the way that cannot is warned of."""
    if not seconds > 0:
        raise ValueError(f"a schedule of {seconds} seconds has no room for a step; give --seconds more")
    try:
        run_steps(runs, source, val, seconds, max_seconds, log_every, save_every)
    except TrainError:
        raise
    except BaseException:
        # Interrupted within a step, runs are one apart: the checkpoints of before are the ones to go on from.
        if runs[0].seen and len({run.seen for run in runs}) == 1:
            save_all(runs)
        raise


def run_steps(
    runs: list, source: Resident | Mixed, val: Path, seconds: float, max_seconds: float, log_every: float, save_every: float
) -> None:
    """The loop of `train_together`."""
    teacher = runs[0]
    if teacher.device.type == "cuda":
        # Products in float32 stay exact: the iteration of Muon on Gram matrices diverges with TF32's ten bits.
        torch.backends.cudnn.benchmark = True
    phase = teacher.config.phases[0]
    size, points = (phase.height, phase.width), teacher.config.points
    held = plain_samples(Path(val), teacher.config.val_images, (256, 192))
    position = Position(phase.samples, seconds, teacher.seen, teacher.seconds)
    began = logged = saved = time.monotonic()
    sums, steps = [{} for _ in runs], 0
    for run in runs:
        run.log_start(run is not teacher and learns(run), held)
    source.watch()
    ahead = deque()
    make = lambda: ahead.append(source.batch(phase.batch, size, points, position.pictures() >= teacher.config.mild_from))
    while position.pictures() < phase.samples and time.monotonic() - began < max_seconds:
        at = position.rated(teacher.config.warmup)
        if not ahead:
            make()
        # The next batch is made while this one's targets are paired with queries: the device has something to do.
        step_all(runs, ahead.popleft(), at, sums, make)
        position.seen, steps = teacher.seen, steps + 1
        for run in runs:
            run.seconds = position.elapsed()
        if time.monotonic() - logged >= log_every:
            print(f"{source.arrived} pictures here, {steps} steps since the last record", flush=True)
            try_write(report, runs, sums, steps, at, held, size, {"event": "step"})
            logged, steps = time.monotonic(), 0
        if time.monotonic() - saved >= save_every:
            try_write(save_all, runs)
            saved = time.monotonic()
    finished = position.pictures() >= phase.samples
    save_all(runs)
    report(runs, sums, steps, position.pictures(), held, size, {"event": "stop", "finished": finished})

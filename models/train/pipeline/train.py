"""The training loop: streams shards, resumes from checkpoints, logs one JSON record per line."""

import copy
import json
import math
import subprocess
import sys
import time
from collections import deque
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from render.files import append_line

from .config import NETWORKS, TrainConfig, to_dict
from .data import Batches, ShardError, digest, plain_samples
from .losses import (
    Answer,
    Targets,
    build_targets,
    distillation_losses,
    match_layers,
    part_loss,
    sample_features,
    training_losses,
)
from .metrics import confusion, false_alarms, summary
from .network import Parser, semantic_scores
from .optimiser import Optimiser
from .states import fill, load_parser, pictures_seen, read_state, save_state, sha256
from .transfer import Fetched

CHECKPOINT = "checkpoint.pt"
LOG = "log.jsonl"
LATE = 4  # steps that a GPU may be behind when it is looked whether the loss is a number


def source_commit() -> str:
    """The commit of this code, with "+" where files differ from it; "unknown" outside a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty=+", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return answer.stdout.strip()


class TrainError(Exception):
    """A run that cannot start or go on; says what to do."""


def try_write(write, *values) -> None:
    """Writes a record or a checkpoint on the way. One that cannot be written is warned of, and the next is tried in its turn: there may
    be room again by then, and a run is worth more than what it was to leave meanwhile."""
    try:
        write(*values)
    except OSError as error:
        print(f"warning: {error}; the training goes on and tries it again later", file=sys.stderr, flush=True)


def rate_at(config: TrainConfig, seen: int) -> float:
    """Learning rate after `seen` pictures: linear warm-up, constant, then 1 - sqrt decay over the last part. A decay that begins
    within the warm-up does not end it."""
    warm = min(1.0, (seen + 1) / max(config.warmup, 1))
    start = config.total * (1 - config.decay)
    left = 1 - math.sqrt(min(1.0, max(0.0, seen - start) / (config.total - start)))
    return config.rate * warm * max(left, config.final_rate)


def phase_at(config: TrainConfig, seen: int):
    """The phase that picture number `seen` belongs to, and where that phase ends; None when the run is over."""
    end = 0
    for phase in config.phases:
        end += phase.samples
        if seen < end:
            return phase, end
    return None


def has_bf16(device: torch.device) -> bool:
    """Whether convolutions in bf16 pay. Without AVX-512 PyTorch takes its reference convolution for them: a step of 32 pictures
    then lasts 20 s, in float 2 s."""
    return device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


class Average:
    """Exponential moving average of weights and statistics; its memory is counted in pictures."""

    def __init__(self, model: Parser, images: int):
        self.model, self.images, self.steps = copy.deepcopy(model).eval(), images, 0
        self.followed, self.pairs = None, ()

    def follow(self, model: Parser) -> None:
        """Finds the tensors that move. They stay the same ones in every step, and a GPU would wait while they are listed."""
        mine, theirs = self.model.state_dict(), model.state_dict()
        floats = [k for k, v in mine.items() if v.dtype.is_floating_point]
        self.followed, self.pairs = model, ([mine[k] for k in floats], [theirs[k] for k in floats])

    @torch.no_grad()
    def update(self, model: Parser, batch: int) -> None:
        """Moves the average towards the model; early on it follows faster."""
        self.steps += 1
        keep = min(math.exp(-batch / self.images), (1 + self.steps) / (10 + self.steps))
        if self.followed is not model:
            self.follow(model)
        torch._foreach_lerp_(*self.pairs, 1 - keep)


class Run:
    """One training run in a folder: networks, optimiser, counters, log."""

    def __init__(self, out: Path, config: TrainConfig, device: str, teacher: Path | None = None):
        self.out, self.config, self.device = Path(out), config, torch.device(device)
        self.out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        model = Parser(NETWORKS[config.network], config.auxiliary > 0)
        self.model = model.to(self.device, memory_format=torch.channels_last)
        self.average = Average(self.model, config.ema_images)
        self.optimiser = Optimiser(self.model, config.optimiser, config.rate, config.weight_decay)
        self.seen, self.seconds = 0, 0.0
        self.seen_before = 0
        self.unchecked = deque()  # of (pictures seen, loss and gradient on their way from the device)
        self.teacher = load_parser(teacher, self.device) if teacher else None
        self.forward = self.model.features

    def compile(self) -> None:
        """Lets torch compile the convolutional part; the decoder stays as written."""
        self.forward = torch.compile(self.model.features)

    def save(self) -> None:
        """Writes the checkpoint, whole or not at all."""
        self.check_finite()
        save_state(self.out / CHECKPOINT, self.state())

    def state(self) -> dict:
        """What a checkpoint holds."""
        return {
            "config": to_dict(self.config),
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "average_steps": self.average.steps,
            "optimiser": self.optimiser.state_dict(),
            "seen": self.seen,
            "seen_before": self.seen_before,
            "seconds": self.seconds,
            "rng": torch.get_rng_state(),
        }

    def start_from(self, weights: Path) -> None:
        """Takes the averaged weights of a checkpoint or weights file as the beginning of this run."""
        state = read_state(weights)
        for model in (self.model, self.average.model):
            fill(model, state["average"], weights)
            if self.config.rescale:
                model.rescale()
        self.seen_before = pictures_seen(state)

    def begin(self, weights: Path) -> None:
        """`start_from`, and a record of where the run began."""
        self.start_from(weights)
        self.log({"event": "origin", "weights": weights.name, "sha256": sha256(weights), "seen": self.seen_before})

    def log_start(self, distilled: bool, held: dict) -> None:
        """A record of the settings, the machine, the validation pictures and the code."""
        gpu = self.device.type == "cuda"
        self.log(
            {
                "event": "start",
                "seen": self.seen,
                "config": to_dict(self.config),
                "device": torch.cuda.get_device_name(self.device) if gpu else str(self.device),
                "threads": torch.get_num_threads(),
                "distilled": distilled,
                "validation": digest(held),
                "source": source_commit(),
            }
        )

    def resume(self) -> bool:
        """Continues from the folder's checkpoint if there is one."""
        path = self.out / CHECKPOINT
        if not path.exists():
            return False
        state = read_state(path, self.device)
        if "model" not in state:
            raise TrainError(f"{path} is a weights file, not a run's checkpoint; begin a new run with --start {path}")
        if state["config"]["network"] != self.config.network:
            raise TrainError(
                f"{path} holds a {state['config']['network']}, not a {self.config.network}; use another --out"
            )
        if state["config"].get("optimiser", "adamw") != self.config.optimiser:
            raise TrainError(f"{path} was trained with another optimiser; use another --out and --start {path}")
        if (state["config"].get("auxiliary", 0) > 0) != (self.config.auxiliary > 0):
            raise TrainError(f"{path} was trained with `auxiliary` on or off, not as now; use another --out and --start {path}")
        fill(self.model, state["model"], path)
        fill(self.average.model, state["average"], path)
        self.average.steps = state["average_steps"]
        self.optimiser.load_state_dict(state["optimiser"])
        self.seen, self.seconds = state["seen"], state["seconds"]
        self.seen_before = state.get("seen_before", 0)
        torch.set_rng_state(state["rng"].cpu())
        return True

    def log(self, record: dict) -> None:
        """Appends one record to the log and shows it."""
        line = json.dumps(record)
        append_line(self.out / LOG, line)
        print(line, flush=True)

    def autocast(self):
        """bf16 for the convolutions where the device has it; the decoder and the losses stay in float on the CPU."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=has_bf16(self.device))

    def decoder_autocast(self):
        """bf16 for the decoder where it pays."""
        return torch.autocast("cuda", torch.bfloat16) if self.device.type == "cuda" else nullcontext()

    def losses(self, batch: dict, soft: Answer | None = None, meanwhile=None) -> tuple:
        """All losses of a batch on the device, by name, and what the network said. With the answer of a teacher to the
        same batch, those of distillation are among them. `meanwhile`: see `match_layers`."""
        with self.autocast():
            mask_features, memories = self.forward(batch["pixels"])
        mask_features, memories = mask_features.float(), [m.float() for m in memories]
        with self.decoder_autocast():
            predictions = self.model.decode(mask_features, memories)
        predictions = [(a.float(), b.float()) for a, b in predictions]
        sampled = sample_features(mask_features, batch["points"])
        targets = build_targets(batch["parts"], batch["person"], batch["present"])
        dense = F.conv1d(sampled, self.model.dense.weight[..., 0], self.model.dense.bias)
        prior = self.config.prior * max(0.0, 1 - self.seen / max(self.config.prior_images, 1))
        total, matches = training_losses(predictions, sampled, dense, targets, self.config, prior, meanwhile)
        if self.config.auxiliary > 0:
            total["auxiliary"] = self.config.auxiliary * self.auxiliary_loss(memories, batch["points"], targets)
        logits, embeddings = predictions[-1]
        answer = Answer(logits, embeddings @ sampled, matches)
        if soft is not None:
            total |= distillation_losses(answer, soft, targets, self.config)
        return total, answer

    def auxiliary_loss(self, memories: list, points: torch.Tensor, targets: Targets) -> torch.Tensor:
        """Cross-entropy of each memory's own classifier at the sampled points, added up."""
        logits = [classify(memory) for classify, memory in zip(self.model.auxiliary, memories, strict=True)]
        return sum(part_loss(sample_features(x, points), targets) for x in logits)

    @torch.no_grad()
    def teach(self, batch: dict) -> Answer | None:
        """What the teacher says of a batch, if there is one."""
        if self.teacher is None:
            return None
        with self.autocast():
            features, memories = self.teacher.features(batch["pixels"])
        features, memories = features.float(), [m.float() for m in memories]
        logits, embeddings = self.teacher.decode(features, memories)[-1]
        points = embeddings @ sample_features(features, batch["points"])
        targets = build_targets(batch["parts"], batch["person"], batch["present"])
        return Answer(logits, points, match_layers([(logits, points)], targets, self.config)[0])

    def to_device(self, batch: dict) -> dict:
        """A loader's batch where the network is, its pixels as (B, 3, H, W) in 0..1."""
        batch = {k: v.to(self.device, non_blocking=True) for k, v in batch.items()}
        # The channel axis of the camera's byte order comes last, so this view is channels_last already.
        return batch | {"pixels": batch["pixels"].permute(0, 3, 1, 2).float().div_(255)}

    def step(self, batch: dict, soft: Answer | None = None, at: int | None = None, meanwhile=None) -> tuple:
        """One optimiser step on a batch that is on the device, at the rate after `at` pictures (default: those seen).
        Gives the losses as tensors, `total` among them, and what the network said. The device is waited for once, with the
        step half done; `meanwhile` is called just before."""
        self.check_finite(LATE)
        self.optimiser.set_rate(rate_at(self.config, self.seen if at is None else at))
        self.model.train()
        if self.config.frozen_norms:
            freeze_norms(self.model)
        losses, answer = self.losses(batch, soft, meanwhile)
        total = sum(losses.values())
        self.optimiser.zero_grad()
        total.backward()
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        self.optimiser.step()
        size = len(batch["pixels"])
        self.average.update(self.model, size)
        self.seen += size
        self.unchecked.append((self.seen, Fetched(torch.stack([total.detach(), norm]))))
        losses = {name: value.detach() for name, value in losses.items()} | {"total": total.detach()}
        return losses, Answer(answer.logits.detach(), answer.points.detach(), answer.matches)

    def check_finite(self, late: int = 0) -> None:
        """Loss and gradient of all steps must be numbers. Those of the last `late` ones are looked at if they are here: a GPU
        is not waited for."""
        while self.unchecked and (len(self.unchecked) > late or self.unchecked[0][1].here()):
            seen, fetched = self.unchecked[0]
            loss, gradient = fetched.wait()[0].tolist()
            if not (math.isfinite(loss) and math.isfinite(gradient)):
                raise TrainError(
                    f"the loss is {loss} and its gradient {gradient} after {seen} pictures; run again with a lower rate in the recipe: it goes on from {self.out / CHECKPOINT}"
                )
            self.unchecked.popleft()


def freeze_norms(model: torch.nn.Module) -> None:
    """Batch norm with the statistics that it has, as it is folded for export; its gains and offsets still learn. A few dozen
    pictures have statistics of their own, and weights that were found with hundreds at once pay for them."""
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()


@torch.no_grad()
def predict(model: Parser, images: np.ndarray, size: tuple, batch: int = 16) -> np.ndarray:
    """Part labels (N, H, W) of pictures (N, H, W, 3) uint8, in float, at the pictures' own size."""
    device = next(model.parameters()).device
    guesses = []
    for start in range(0, len(images), batch):
        x = torch.from_numpy(images[start : start + batch]).to(device).permute(0, 3, 1, 2).float() / 255
        if x.shape[-2:] != size:
            x = F.interpolate(x, size=size, mode="area")
        logits, masks = model(x)
        masks = F.interpolate(masks, size=images.shape[1:3], mode="bilinear", align_corners=False)
        guesses.append(semantic_scores(logits, masks).argmax(1).to(torch.uint8).cpu().numpy())
    return np.concatenate(guesses)


def validate(model: Parser, held: dict, size: tuple) -> dict:
    """Scores of the averaged network on held-out samples."""
    guess = predict(model, held["image"], size)
    scores = summary(confusion(held["parts"], guess, 16))
    wrong, pixels = false_alarms(held["parts"], guess)
    keys = ("miou", "ppp_miou", "person_iou", "left_right")
    return {k: scores[k] for k in keys} | {"false_alarms": round(100 * wrong / max(pixels, 1), 3)}


def train(run: Run, folders, val: Path, workers: int, max_seconds: float, log_every: float, save_every: float, wide_folders=()) -> None:
    """Runs phases until the samples or the seconds are used up. However it ends, a checkpoint is left, unless the loss
    is no number any more: then the last one stays. Raises `OSError` where the last one cannot be written; one on the way that
    cannot is warned of."""
    try:
        run_phases(run, folders, val, workers, max_seconds, log_every, save_every, wide_folders)
    except TrainError:
        raise
    except BaseException:
        if run.seen:
            run.save()
        raise


def run_phases(
    run: Run, folders, val: Path, workers: int, max_seconds: float, log_every: float, save_every: float, wide_folders
) -> None:
    """The loop of `train`."""
    config, started = run.config, time.monotonic()
    base = run.seconds
    held = plain_samples(Path(val), config.val_images, (256, 192))
    logged = saved = 0.0
    sums, count = {}, 0
    run.log_start(run.teacher is not None, held)
    size = (config.phases[-1].height, config.phases[-1].width)
    while (current := phase_at(config, run.seen)) is not None:
        phase, end = current
        mild = run.seen >= config.mild_from
        end = end if mild else min(end, config.mild_from)
        size = (phase.height, phase.width)
        seed = config.seed + run.seen
        dataset = Batches(
            folders, config.buffer_shards, seed, phase.batch, size, config.points, wide_folders, config.wide, mild
        )
        loader = torch.utils.data.DataLoader(
            dataset, batch_size=None, num_workers=workers, pin_memory=run.device.type == "cuda"
        )
        for batch in loader:
            elapsed = time.monotonic() - started
            run.seconds = base + elapsed
            if run.seen >= end or elapsed >= max_seconds:
                break
            batch = run.to_device(batch)
            losses, _ = run.step(batch, run.teach(batch))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
            count += 1
            if elapsed - logged >= log_every:
                run.check_finite()
                rate = {
                    "event": "step",
                    "seen": run.seen,
                    "seconds": round(run.seconds),
                    "size": size,
                    "rate": rate_at(config, run.seen),
                }
                record = rate | {
                    "loss": {k: round(float(v) / count, 4) for k, v in sums.items()},
                    "val": validate(run.average.model, held, size),
                }
                try_write(run.log, record)
                logged, sums, count = time.monotonic() - started, {}, 0
            if elapsed - saved >= save_every:
                try_write(run.save)
                saved = elapsed
        if time.monotonic() - started >= max_seconds:
            break
    run.save()
    scores = validate(run.average.model, held, size)
    run.log(
        {
            "event": "stop",
            "seen": run.seen,
            "seconds": round(run.seconds),
            "finished": run.seen >= config.total,
            "val": scores,
        }
    )
    if run.seen == 0:
        raise ShardError("no picture was seen; give the run more seconds")

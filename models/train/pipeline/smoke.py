"""The whole chain on a handful of scenes: render, train, distil, quantise, export, evaluate. Asserts real things."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from .config import HEIGHT, WIDTH, Phase, TrainConfig
from .data import plain_samples, shard_paths
from .evaluate import evaluate, prediction_sheet, predictor
from .export import build, ship
from .package import run_both
from .quantise import session
from .states import load_parser, save_weights
from .train import CHECKPOINT, LOG, Run, TrainError, train

SCENES = 48
PACKAGE = Path(__file__).resolve().parent.parent


def assets_folder(given: Path | None) -> Path:
    """The folder of assets from the option or $MIRROR_ASSETS; a clear error when there is none."""
    folder = given or (Path(os.environ["MIRROR_ASSETS"]) if os.environ.get("MIRROR_ASSETS") else None)
    if folder is None:
        raise TrainError(
            "no assets folder: give --assets DIR or set MIRROR_ASSETS (models/train/README.md says how to get them)"
        )
    if not (folder / "makehuman" / "base.obj").is_file():
        raise TrainError(f"{folder} has no makehuman/base.obj; fetch the assets as models/train/README.md says")
    return folder.resolve()


def render(assets: Path, out: Path, seed: int, count: int) -> None:
    """Renders a few scenes with the project's own renderer."""
    command = [sys.executable, "-m", "render", "shards", "--assets", str(assets), "--out", str(out)]
    command += ["--seed", str(seed), "--count", "1", "--size", str(count)]
    result = subprocess.run(command, cwd=PACKAGE, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise TrainError(f"the renderer failed: {result.stderr.strip()[-800:]}")
    if not shard_paths(out):
        raise TrainError(f"the renderer wrote no shard to {out}")


def settings(network: str, samples: int) -> TrainConfig:
    """A run of a few steps at the lower resolution."""
    return TrainConfig(
        network=network,
        phases=(Phase(128, 96, 8, samples),),
        points=256,
        warmup=64,
        ema_images=64,
        prior_images=4 * samples,
        rate=2e-3,
        val_images=16,
    )


def short_run(out: Path, shards: Path, network: str, samples: int, teacher: Path | None = None) -> list:
    """Trains in two halves, the second resumed from the first's checkpoint; gives the log."""
    first = Run(out, settings(network, samples // 2), "cpu", teacher)
    train(first, [shards], shards, 0, float("inf"), 0.0, float("inf"))
    again = Run(out, settings(network, samples), "cpu", teacher)
    assert again.resume() and 0 < again.seen == first.seen < samples, "the checkpoint did not resume"
    train(again, [shards], shards, 0, float("inf"), 0.0, float("inf"))
    assert again.seen >= samples, f"only {again.seen} of {samples} pictures were seen"
    return [json.loads(line) for line in (out / LOG).read_text().splitlines()]


def check_loss_falls(log: list) -> None:
    """The last records' loss must be well below the first's."""
    totals = [
        sum(v for k, v in r["loss"].items() if k in ("class", "bce", "dice")) for r in log if r["event"] == "step"
    ]
    assert len(totals) >= 2, "too few log records"
    assert totals[-1] < 0.8 * totals[0], f"the loss did not fall: {totals}"


def check_agreement(checkpoint: Path, pictures: np.ndarray) -> dict:
    """The float graph must equal PyTorch, the int8 graph must be near it."""
    model = load_parser(checkpoint)
    float_graph, int8_graph, head_graph, _, _ = build(model, pictures)
    runner, head = session(int8_graph), session(head_graph)
    errors = {"float": 0.0, "int8": 0.0}
    for picture in pictures[:4]:
        x = torch.from_numpy(picture.transpose(2, 0, 1)[None].copy()).float() / 255
        with torch.no_grad():
            features = model.features(x)[0].numpy()
            logits, masks = (t.numpy() for t in model(x))
        names = ["queries", "memory_a", "memory_b", "mask_features"]
        outputs = dict(zip(names, session(float_graph).run(names, {"pixels": x.numpy()}), strict=True))
        ours = head.run(["class_logits", "mask_logits"], outputs)
        relative = lambda a, b: float(np.linalg.norm(a - b) / np.linalg.norm(b))
        errors["float"] = max(errors["float"], relative(ours[0], logits), relative(ours[1], masks))
        errors["int8"] = max(errors["int8"], relative(run_both(runner, head, picture)["mask_features"], features))
    assert errors["float"] < 1e-3, f"onnxruntime and PyTorch disagree: {errors}"
    assert errors["int8"] < 0.4, f"the int8 trunk is far from the float one: {errors}"
    return errors


def smoke(assets: Path | None, out: Path | None) -> None:
    """Runs everything in a folder that is thrown away unless `out` is given."""
    assets = assets_folder(assets)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        chain(assets, out)
        return
    with tempfile.TemporaryDirectory(prefix="mirror-smoke-") as folder:
        chain(assets, Path(folder))


def chain(assets: Path, out: Path) -> None:
    """Every step, with its time."""
    torch.set_num_threads(min(2, torch.get_num_threads()))
    clock = time.monotonic()

    def done(step: str) -> None:
        print(f"smoke: {step} ({time.monotonic() - clock:.0f} s)", flush=True)

    render(assets, out / "shards", 7, SCENES)
    samples = plain_samples(out / "shards", SCENES, (HEIGHT, WIDTH))
    done(f"rendered {len(samples['image'])} scenes")
    check_loss_falls(short_run(out / "teacher", out / "shards", "tiny-teacher", 256))
    done("trained a teacher, resumed once, loss fell")
    log = short_run(out / "student", out / "shards", "tiny", 256, out / "teacher" / CHECKPOINT)
    check_loss_falls(log)
    assert any("distil_mask" in r.get("loss", {}) for r in log), "nothing was distilled"
    done("distilled a student")
    save_weights(out / "student" / CHECKPOINT, out / "weights.pt")
    errors = check_agreement(out / "weights.pt", samples["image"][:16])
    done(f"onnxruntime agrees with PyTorch: {errors}")
    info = {"name": "smoke", "version": "0.0.0", "run": "smoke"}
    ship(load_parser(out / "weights.pt"), samples["image"][:16], samples["image"][:2], out / "model", info)
    done("quantised and exported")
    guess, person = predictor(out / "model", None, samples["parts"].shape[1:])(samples["image"])
    scores = evaluate(samples, guess, person)
    prediction_sheet(samples, guess, out / "sheet.png")
    assert scores["images"] == SCENES and np.isfinite(scores["miou"]), scores
    done(f"evaluated through onnxruntime: mIoU {scores['miou']}")

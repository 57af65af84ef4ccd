"""Command line: python -m pipeline train | export | evaluate | together | check | card | weights | grow | smoke."""

import argparse
import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch

from render.files import write_whole

from .config import HEIGHT, NETWORKS, PERSON, WIDTH, train_config
from .data import ShardError, check_wide, input_size, plain_samples, shard_paths
from .grow import GrowError, save_grown
from .restore import RestoreError, save_restored
from .shipped import ModelError
from .states import StateError, load_parser, save_weights
from .train import Run, TrainError, train

# Scores that a card is made of: of `evaluate --model` on the test scenes, `float` of `evaluate --checkpoint`, of tests/peers/photographs.py
# with and without --once.
SCORES = {
    "int8": "scores.json",
    "float": "float.json",
    "wide": "wide.json",
    "wide_upright": "wide-upright.json",
    "tones": "tones.json",
    "outfits": "outfits.json",
    "gowns": "gowns.json",
    "moves": "moves.json",
    "leaps": "leaps.json",
    "things": "things.json",
    "photographs": "photographs.json",
    "photographs_again": "photographs-again.json",
}
# Those that a card has where they are there.
MORE_SCORES = {"narrow": "narrow.json", "narrow_wide": "narrow-wide.json", "detail_once": "detail-once.json", "detail_again": "detail-again.json"}
DEFAULT_SHARE = 0.5  # of the weights that a run began from, in the mean that is kept


def parser() -> argparse.ArgumentParser:
    """All subcommands and their options."""
    root = argparse.ArgumentParser(
        prog="pipeline", description="Train, distil, quantise, export and judge the parsing network."
    )
    commands = root.add_subparsers(dest="command", required=True)
    add_train(commands)
    add_together(commands)
    add_check(commands)
    add_export(commands)
    add_evaluate(commands)
    add_card(commands)
    add_weights(commands)
    add_grow(commands)
    smoke = commands.add_parser("smoke", help="the whole chain on a handful of scenes, in about two minutes")
    smoke.add_argument("--assets", type=Path, help="folder of the CC0 assets; default: $MIRROR_ASSETS")
    smoke.add_argument("--out", type=Path, help="keep the files here instead of a temporary folder")
    return root


def add_train(commands) -> None:
    """Options of `train`."""
    sub = commands.add_parser("train", help="train or resume a network")
    sub.add_argument("--out", type=Path, required=True, help="run folder: checkpoint.pt and log.jsonl")
    sub.add_argument(
        "--shards", type=Path, nargs="+", required=True, help="folders of training shards; may still be growing"
    )
    sub.add_argument("--wide-shards", type=Path, nargs="*", default=[], help="folders of wide shards, for the recipe's share of wide batches")
    sub.add_argument("--val", type=Path, required=True, help="folder of shards never trained on, for the curve")
    sub.add_argument("--recipe", type=Path, help="JSON file of one run's settings; in recipes/, those of several names are for `together`")
    sub.add_argument(
        "--set", nargs="*", default=[], metavar="KEY=VALUE", help="single settings over the recipe, values in JSON"
    )
    sub.add_argument("--teacher", type=Path, help="checkpoint to distil from")
    sub.add_argument("--start", type=Path, help="weights file to start from, when the run folder is new")
    sub.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    sub.add_argument("--workers", type=int, default=0, help="loader processes; 0 loads in the training process")
    sub.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 leaves its own choice")
    sub.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile the convolutions: 15-30 %% faster on the CPU after a minute",
    )
    sub.add_argument("--max-seconds", type=float, default=float("inf"), help="stop with a checkpoint after this long")
    sub.add_argument("--log-every", type=float, default=120, help="seconds between records")
    sub.add_argument("--save-every", type=float, default=120, help="seconds between checkpoints")


def add_together(commands) -> None:
    """Options of `together`."""
    sub = commands.add_parser("together", help="train a teacher and its students on the same pictures at once, for a GPU")
    add_beginning(sub)
    sub.add_argument("--out", type=Path, required=True, help="folder of run folders, one for each name")
    sub.add_argument("--shards", type=Path, nargs="+", required=True, help="folders of training shards; may still be growing")
    sub.add_argument("--wide-shards", type=Path, nargs="*", default=[], help="folders of wide shards, for the recipe's share of wide batches")
    sub.add_argument("--val", type=Path, required=True, help="folder of shards never trained on, for the curves")
    sub.add_argument("--compile", action="store_true", help="torch.compile the convolutions: faster on the CPU after a minute")
    sub.add_argument("--delete-taken", action="store_true", help="delete every shard that is in the device's memory but the first of each folder and those of --ready: renders of hours fill a disk")
    sub.add_argument("--wait", action="store_true", help="wait for the first shards, of --ready if that is given, else of every folder, and of --val; it counts for --seconds")
    sub.add_argument("--seconds", type=float, default=float("inf"), help="length of the schedule, over all starts, in place of the recipe's pictures")
    sub.add_argument("--max-seconds", type=float, default=float("inf"), help="stop this start with checkpoints after this long")
    sub.add_argument("--log-every", type=float, default=60, help="seconds between records")
    sub.add_argument("--save-every", type=float, default=60, help="seconds between checkpoints")


def add_check(commands) -> None:
    """Options of `check`."""
    sub = commands.add_parser("check", help="whether `together` could begin with these, before anything is rendered; prints the recipe's share of wide batches in thousandths, and how many of the ready folders are upright and how many wide")
    add_beginning(sub)


def add_beginning(sub) -> None:
    """Options of `together` that can be wrong before there is a shard."""
    sub.add_argument("--recipe", type=Path, required=True, help="JSON file: {name: settings}, the teacher first")
    sub.add_argument("--start", nargs="*", default=[], metavar="NAME=FILE", help="weights file that a new run starts from")
    sub.add_argument("--ready", type=Path, nargs="*", default=[], metavar="FOLDER", help="folders of whole shards, upright or wide, to begin with; none of theirs is deleted")
    sub.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    sub.add_argument("--capacity", type=int, default=120_000, help="pictures kept in the device's memory, 0.25 MB each")


def check_device(device: str) -> None:
    """A GPU that is asked for must be there."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"--device {device}: PyTorch of {sys.executable} can use no GPU here; look at nvidia-smi: the driver must be one for the CUDA that README.md names. --device cpu trains slowly"
        )


def beginning(args) -> tuple:
    """The recipe, the weights by name, and the ready folders, upright and wide ones apart, of `add_beginning`'s options."""
    check_device(args.device)
    starts = dict(item.split("=", 1) for item in args.start if "=" in item)
    if len(starts) < len(args.start):
        raise ValueError(f"--start {' '.join(args.start)}: NAME=FILE is wanted, as in student=runs/student.pt")
    recipe = read_json(args.recipe.read_text(), args.recipe)
    ready = [], []
    for folder in args.ready:
        if not shard_paths(folder):
            raise ShardError(f"--ready: no shards in {folder}; render some first (see README)")
        height, width = input_size(folder)
        ready[width > height].append(folder)
    return recipe, {name: Path(file) for name, file in starts.items()}, *ready


def run_check(args) -> None:
    """`check`: what `together` would refuse."""
    from .together import check_before

    recipe, starts, upright, wide = beginning(args)
    config = check_before(recipe, starts, args.capacity, args.device)
    if wide:
        check_wide(wide, config.wide)
    print(round(1000 * config.wide), len(upright), len(wide))


def run_together(args) -> None:
    """`together`: runs, pictures, loop."""
    began = time.monotonic()
    from .resident import Mixed, Resident
    from .together import await_shards, make_runs, places, train_together

    recipe, starts, upright, wide = beginning(args)
    runs = make_runs(recipe, args.out, args.device, starts)
    config, seed = runs[0].config, runs[0].config.seed + runs[0].seen
    check_wide([*args.wide_shards, *wide], config.wide)
    if args.compile:
        for run in runs:
            run.compile()
    kept = places(config, args.capacity)
    source = Resident(args.shards, kept[0], args.device, seed, args.delete_taken, upright)
    if config.wide:
        source = Mixed(source, Resident(args.wide_shards, kept[1], args.device, seed + 1, args.delete_taken, wide), config.wide)
    if args.wait:
        await_shards(source, args.val, args.seconds)
        args.seconds -= time.monotonic() - began
    else:
        source.refill()
    train_together(runs, source, args.val, args.seconds, args.max_seconds, args.log_every, args.save_every)


def add_export(commands) -> None:
    """Options of `export`."""
    sub = commands.add_parser("export", help="write trunk.onnx, head.onnx, manifest.toml and fixtures/")
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path)
    source.add_argument("--random", choices=sorted(NETWORKS), help="random weights of this size, to develop against")
    sub.add_argument("--calibration", type=Path, nargs="+", required=True, help="folders of training shards")
    sub.add_argument("--pictures", type=int, default=96, help="calibration pictures, as many from each folder")
    sub.add_argument(
        "--fixtures", type=Path, help="folder of shards for the fixtures' pictures; default: the calibration's first"
    )
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--name", default="student")
    sub.add_argument("--version", required=True, help="goes into the manifest, as in 0.6.0")
    sub.add_argument(
        "--person-bias", type=float, default=0.0, help="subtracted from the class head's bias of `person`: fewer fragments are people"
    )
    sub.add_argument("--run", default="", help="path of the training log, for the manifest")
    sub.add_argument("--method", default="mse", help="range of activations: minmax, percentile or mse")


def add_evaluate(commands) -> None:
    """Options of `evaluate`."""
    sub = commands.add_parser("evaluate", help="scores on shards, through onnxruntime or in float")
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", type=Path, help="model folder, run through onnxruntime")
    source.add_argument("--checkpoint", type=Path, help="checkpoint, run in float through PyTorch")
    sub.add_argument("--shards", type=Path, required=True)
    sub.add_argument("--images", type=int, default=2000)
    sub.add_argument("--person-bias", type=float, default=0.0, help="with --checkpoint: subtracted as `export` does")
    sub.add_argument("--skip", type=int, default=0, help="leave out the first ones: those that weights up to 0.11.0 were chosen on")
    sub.add_argument("--upright", action="store_true", help="make wide pictures fit the upright input, for comparison")
    sub.add_argument("--json", type=Path, help="write all scores here")
    sub.add_argument("--sheet", type=Path, help="write a picture of predictions here")


def add_card(commands) -> None:
    """Options of `card`."""
    sub = commands.add_parser("card", help="write CARD.md and the curve from scores and a log")
    sub.add_argument("--network", choices=sorted(NETWORKS), default="student")
    sub.add_argument("--scores", type=Path, required=True, help=f"folder with {', '.join(SCORES.values())}, and perhaps {', '.join(MORE_SCORES.values())}; see README.md")
    sub.add_argument("--before", type=Path, required=True, help="JSON that --keep wrote for the version before")
    sub.add_argument("--keep", type=Path, required=True, help="write the headline figures here, for the next version's --before")
    sub.add_argument("--log", type=Path, required=True)
    sub.add_argument("--recipe", type=Path, required=True, help="recipe of the last stretch")
    sub.add_argument("--faults", type=Path, required=True, help="text: what was seen to go wrong; its first line is `version = X`")
    sub.add_argument("--sheet", default="predictions.jpg", help="picture of predictions beside the card")
    sub.add_argument("--name", default="student")
    sub.add_argument("--version", required=True)
    sub.add_argument("--out", type=Path, required=True)
    sub.add_argument("--curve", type=Path, required=True)


def add_weights(commands) -> None:
    """Options of `weights`."""
    sub = commands.add_parser("weights", help="a small weights file for `train --start`, from a checkpoint or a model folder")
    source = sub.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="keep its averaged weights in half precision")
    source.add_argument("--model", type=Path, help="read a shipped int8 model back to float")
    sub.add_argument("--toward", type=Path, help="with --checkpoint: weights file that the run began from")
    sub.add_argument("--share", type=float, help=f"with --toward: how much of it, 0 to 1; default {DEFAULT_SHARE}")
    sub.add_argument("--background-bias", type=float, default=0.0, help="with --checkpoint: added to the class head's bias of the background")
    sub.add_argument("--network", choices=sorted(NETWORKS), default="student", help="with --model: its size")
    sub.add_argument("--calibration", type=Path, help="with --model: folder of training shards, for the batch norms")
    sub.add_argument("--pictures", type=int, default=96, help="with --model: calibration pictures")
    sub.add_argument("--out", type=Path, required=True)


def add_grow(commands) -> None:
    """Options of `grow`."""
    sub = commands.add_parser("grow", help="a deeper or wider network that computes the same, for `train --start`")
    sub.add_argument("--checkpoint", type=Path, required=True, help="checkpoint or weights file of the smaller network")
    sub.add_argument("--network", choices=sorted(NETWORKS), default="student", help="the larger network")
    sub.add_argument("--calibration", type=Path, required=True, help="folder of training shards, for the new batch norms")
    sub.add_argument("--pictures", type=int, default=96, help="calibration pictures")
    sub.add_argument("--out", type=Path, required=True)


def run_grow(args) -> None:
    """`grow`: weights of the deeper network."""
    pictures = plain_samples(args.calibration, args.pictures, (HEIGHT, WIDTH))["image"]
    save_grown(args.checkpoint, args.network, pictures, args.out)


def run_weights(args) -> None:
    """`weights`: from a checkpoint, or back from the shipped form."""
    if args.toward is None and args.share is not None:
        raise ValueError("--share says how far --toward other weights; give both")
    if args.checkpoint:
        share = DEFAULT_SHARE if args.share is None else args.share
        save_weights(args.checkpoint, args.out, args.toward, share, args.background_bias)
        return
    if args.toward is not None:
        raise ValueError("--toward needs --checkpoint: an int8 model's channels are in another order")
    if args.background_bias:
        raise ValueError("--background-bias needs --checkpoint")
    if not args.calibration:
        raise ValueError("--model needs --calibration, a folder of training shards")
    pictures = plain_samples(args.calibration, args.pictures, (HEIGHT, WIDTH))["image"]
    save_restored(args.model, args.network, pictures, args.out)


def run_card(args) -> None:
    """`card`: figures from the given files."""
    from .card import card, curve, faults_of, headlines
    from .deploy import Head, Trunk
    from .network import Parser, multiplications

    config = NETWORKS[args.network]
    whole = Parser(config)
    count = sum(p.numel() for m in (Trunk(whole, HEIGHT, WIDTH), Head(whole, HEIGHT, WIDTH)) for p in m.parameters())
    info = {
        "name": args.name,
        "version": args.version,
        "parameters": count / 1e6,
        "macs": multiplications(config, HEIGHT, WIDTH) / 1e9,
    }
    info |= {"log": f"runs/{args.log.name}", "recipe": f"recipes/{args.recipe.name}", "trunk": args.out.with_name("trunk.onnx").stat().st_size}
    files = SCORES | {name: file for name, file in MORE_SCORES.items() if (args.scores / file).exists()}
    scores = {name: read_json((args.scores / file).read_text(), args.scores / file) for name, file in files.items()}
    before = read_json(args.before.read_text(), args.before)
    if before.get("version") == args.version:
        raise ValueError(f"{args.before} is of {args.version} itself; give --before the file of the version before, as committed with it")
    # All are made before one is written: a card without its curve is no card.
    try:
        faults = faults_of(args.faults.read_text(), args.version, args.faults)
        text = card(info, scores, before, args.log, args.sheet, faults)
        kept = headlines(args.version, scores)
        drawing = curve(args.log)
    except KeyError as error:
        raise ValueError(f"the scores have no {error}; make them again with `evaluate` on the scenes that README.md names") from error
    write_whole(args.out, text.encode())
    write_whole(args.curve, drawing.encode())
    write_whole(args.keep, (json.dumps(kept, indent=1) + "\n").encode())


def read_json(text: str, where) -> object:
    """A value in JSON; an error says where it stands."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{where}: {text[:60]!r} is not JSON ({error}); a text needs its double quotes") from error


def run_train(args) -> None:
    """`train`: settings, run folder, loop."""
    check_device(args.device)
    values = read_json(args.recipe.read_text(), args.recipe) if args.recipe else {}
    for item in args.set:
        key, _, value = item.partition("=")
        values[key] = read_json(value, f"--set {key}")
    if args.threads:
        torch.set_num_threads(args.threads)
    run = Run(args.out, train_config(values), args.device, args.teacher)
    if not run.resume() and args.start:
        run.begin(args.start)
    if args.compile:
        run.compile()
    train(run, args.shards, args.val, args.workers, args.max_seconds, args.log_every, args.save_every, args.wide_shards)


def run_export(args) -> None:
    """`export`: calibrate on rendered pictures and write the model folder."""
    from .export import random_parser, ship

    model = load_parser(args.checkpoint) if args.checkpoint else random_parser(args.random, 0)
    with torch.no_grad():
        model.predictor.class_head.bias[PERSON] -= args.person_bias
    share = -(-args.pictures // len(args.calibration))
    calibration = np.concatenate([plain_samples(f, share, (HEIGHT, WIDTH))["image"] for f in args.calibration])
    fixtures = plain_samples(args.fixtures or args.calibration[0], 64, (HEIGHT, WIDTH))
    fullest = np.argsort([-(p != 0).sum() for p in fixtures["parts"]], kind="stable")
    chosen = fullest[[len(fullest) // 8, 3 * len(fullest) // 8]]
    info = {"name": args.name, "version": args.version, "run": args.run or "none (random weights)"}
    info["person_bias"] = args.person_bias
    ship(model, calibration, fixtures["image"][chosen], args.out, info, method=args.method)
    print(f"wrote {args.out}")


def run_evaluate(args) -> None:
    """`evaluate`: predictions, scores by group, sheet."""
    from .evaluate import evaluate, prediction_sheet, predictor

    if args.model and args.person_bias:
        raise ValueError("--person-bias is for --checkpoint: a model folder has its own already, see its manifest")

    for path in filter(None, (args.json, args.sheet)):
        # Now, and not after minutes of work.
        if not path.parent.is_dir():
            raise ValueError(f"there is no folder {path.parent} to write {path.name} into; make it first")
    size = (HEIGHT, WIDTH) if args.upright else input_size(args.shards)
    samples = plain_samples(args.shards, args.skip + args.images, size)
    samples = {key: values[args.skip :] for key, values in samples.items()}
    if not len(samples["image"]):
        raise ShardError(f"{args.shards} has no more than the {args.skip} pictures that --skip leaves out; render more")
    guess, person = predictor(args.model, args.checkpoint, size, args.person_bias)(samples["image"])
    scores = evaluate(samples, guess, person)
    print(json.dumps({k: v for k, v in scores.items() if k != "groups"}, indent=1))
    if args.json:
        write_whole(args.json, (json.dumps(scores, indent=1) + "\n").encode())
    if args.sheet:
        prediction_sheet(samples, guess, args.sheet)


def end_on_signals() -> None:
    """SIGTERM and SIGHUP (a connection that drops; not under `nohup`) end a run as Ctrl+C does, with a checkpoint; and all end one
    that a script started in its background, which shells let ignore SIGINT. `gpu.sh` sends SIGTERM after either of the others: once
    a run is ending, only another Ctrl+C interrupts its saving."""
    once = [signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        once.append(signal.SIGHUP)

    def end(*_) -> None:
        for number in once:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in (signal.SIGINT, *once):
        signal.signal(number, end)


def main() -> int:
    """Runs one subcommand; known errors are one line, not a traceback."""
    args = parser().parse_args()
    end_on_signals()
    try:
        if args.command == "train":
            run_train(args)
        elif args.command == "together":
            run_together(args)
        elif args.command == "check":
            run_check(args)
        elif args.command == "export":
            run_export(args)
        elif args.command == "evaluate":
            run_evaluate(args)
        elif args.command == "card":
            run_card(args)
        elif args.command == "weights":
            run_weights(args)
        elif args.command == "grow":
            run_grow(args)
        else:
            from .smoke import smoke

            smoke(args.assets, args.out)
    except (TrainError, ShardError, StateError, RestoreError, ModelError, GrowError, ValueError, OSError) as error:
        # A loader process sends its whole traceback along; the last line is what happened.
        print(f"error: {str(error).strip().splitlines()[-1] if str(error).strip() else repr(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        goes_on = args.command in ("train", "together")
        print("interrupted; the same command " + ("goes on from the last checkpoint" if goes_on else "begins anew"), file=sys.stderr)
        return 130
    return 0


sys.exit(main())

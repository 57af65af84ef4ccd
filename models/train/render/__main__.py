"""Command line of the renderer: shards, tones, sheet, clip, testset, households."""

import argparse
import io
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from .assets import AssetError, Assets
from .body import TONE_GROUPS
from .classes import COLOURS, PARTS
from .clip import clip
from .files import write_picture, write_whole
from .gowns import GownScene
from .household import write_households
from .leaps import LeapScene
from .moves import MoveScene
from .objects import ThingScene
from .outfits import OutfitScene
from .scene import FRAMES, NARROW, NARROW_WIDE, UPRIGHT, WIDE, Scene, sample


def write_shard(path, samples, save=np.savez_compressed):
    """Written whole or not at all: a reader never sees half a shard."""
    image, parts, person = (np.stack([s[k] for s in samples]) for k in range(3))
    file = io.BytesIO()
    save(file, image=image, parts=parts, person=person, meta=json.dumps([s[3] for s in samples]))
    write_whole(path, file.getvalue())


SETTINGS = "settings.json"


def settle(folder, **settings):
    """Makes a folder for pictures of one kind, whose settings stand in it: what is there already was made with the same."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / SETTINGS
    text = json.dumps(settings) + "\n"
    if not path.exists():
        write_whole(path, text.encode())
    elif path.read_text() != text:
        raise ValueError(f"{path} says {path.read_text().strip()} and not {text.strip()}; give these pictures a folder of their own")


SCENES = {"people": Scene, "outfits": OutfitScene, "gowns": GownScene, "moves": MoveScene, "leaps": LeapScene, "things": ThingScene}


def shards(args):
    """Renders shard after shard; numbers that exist are skipped, so several processes and restarts work together."""
    frame = args.frame
    # The settings of folders with the older frames are as they were written before there were others.
    others = {} if frame in (UPRIGHT, WIDE) else {"frame": frame_name(frame)}
    settle(args.out, scenes=args.scenes, wide=frame[1] > frame[0], split=args.split, seed=args.seed, supersample=args.supersample, **others)
    assets = Assets(args.assets, args.split)
    began, made, there = time.monotonic(), 0, 0
    for number in range(args.first, args.first + args.count * args.step, args.step):
        path = args.out / f"{args.split}-{number:05d}.npz"
        if path.exists():
            there += 1
            continue
        split = 0 if args.split == "train" else 1
        more = learned_seed(args.scenes, frame) if split == 0 else []
        samples = [sample(assets, [args.seed, split, number, k, *more], supersample=args.supersample, make=SCENES[args.scenes], frame=frame)
                   for k in range(args.size)]
        write_shard(path, samples, np.savez if args.plain else np.savez_compressed)
        made += len(samples)
        print(f"{args.out.name}/{path.name}: {made / (time.monotonic() - began):.2f} pictures a second", flush=True)
        if args.max_seconds and time.monotonic() - began > args.max_seconds:
            break
    if there:
        print(f"{there} shards were there already", flush=True)


def learned_seed(scenes, frame):
    """What a training scene's seed has beside its number, so that no kind shows the people and rooms of another. Test scenes
    have nothing: kinds and frames are compared on the same people."""
    kind, wide = list(SCENES).index(scenes), int(frame[1] > frame[0])
    if frame in (NARROW, NARROW_WIDE):
        return [wide, kind, 1]
    return [wide, kind] if kind else [1] if wide else []


def frame_name(frame):
    """A frame (height, width) as --frame names it."""
    return f"{frame[0]}x{frame[1]}"


def frame_of(text):
    """The frame (height, width) of a name."""
    names = {frame_name(frame): frame for frame in FRAMES}
    if text not in names:
        raise argparse.ArgumentTypeError(f"{text} is none of {', '.join(names)}")
    return names[text]


def tones(args):
    """The same test scenes once with every skin tone, shard k in tone group k: the groups differ in nothing else."""
    settle(args.out, seed=args.seed, count=args.count, supersample=args.supersample)
    assets = Assets(args.assets, "test")
    for group in range(TONE_GROUPS):
        path = args.out / f"tone-{group}.npz"
        if path.exists():
            continue
        tone = (group + 0.5) / TONE_GROUPS
        seeds = ([args.seed, 4, 0, k] for k in range(args.count))
        samples = [sample(assets, seed, supersample=args.supersample, tone=tone) for seed in seeds]
        write_shard(path, samples)


def sheet(args):
    """A picture of many samples with their labels, for people to look at."""
    assets = Assets(args.assets, args.split)
    tiles, began = [], time.monotonic()
    for k in range(args.rows * args.columns):
        image, parts, _, _ = sample(assets, [args.seed, 2, 0, k], supersample=args.supersample, make=SCENES[args.scenes])
        tiles.append(np.hstack([image, np.array(COLOURS, np.uint8)[parts]]) if args.labels else image)
        if k == 0:
            began = time.monotonic()  # the first one compiles the kernels
    print(f"{(len(tiles) - 1) / max(1e-9, time.monotonic() - began):.2f} pictures a second")
    rows = [np.hstack(tiles[i:i + args.columns]) for i in range(0, len(tiles), args.columns)]
    write_picture(args.out, np.vstack(rows))


def make_clip(args):
    """The demo clip with its labels."""
    clip(Assets(args.assets, "train"), args.seed, args.out, args.labels)


CLASSES_HEAD = "# Classes of the label pictures; each is one part of the network, so both ways of merging them stay open.\n"


TESTSET = ("images", "labels", "person")
CLASSES = "classes.toml"


def old_testset(folder):
    """The pictures of an older test set; `ValueError` for a folder with anything else in their places."""
    old = [path for name in TESTSET for path in (folder / name).glob("*")]
    if strange := [path for path in old if not re.fullmatch(r"\d{4}\.(jpg|png)", path.name)]:
        raise ValueError(f"{strange[0]} is not of a test set; name another folder, or take it away")
    return old


def replace_testset(new, folder):
    """Moves a whole test set from one folder to another of the same disk, in the place of an older one. classes.toml goes first and
    comes last: without it no half-made folder is taken for a test set."""
    old = old_testset(folder)
    (folder / CLASSES).unlink(missing_ok=True)
    for path in old:
        path.unlink()
    for name in TESTSET:
        (folder / name).mkdir(parents=True, exist_ok=True)
    files = sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file())
    for name in sorted(files, key=lambda name: name.name == CLASSES):
        os.replace(new / name, folder / name)


def testset(args):
    """A folder that `mirror eval` reads: pictures, part labels, silhouettes, records.json and classes.toml. An older test set there
    stays until the new one is whole."""
    assets = Assets(args.assets, "test")
    old_testset(args.out)
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.out, prefix=".new-") as folder:
        make_testset(assets, args.seed, args.count, args.detail, Path(folder))
        replace_testset(Path(folder), args.out)


def make_testset(assets, seed, count, detail, folder):
    """The files of a test set in an empty folder."""
    supersample = 3.0 if detail == 1 else 1.3
    for name in TESTSET:
        (folder / name).mkdir()
    records = {}
    for k in range(count):
        image, parts, person, record = sample(assets, [seed, 3, 0, k], supersample=supersample, detail=detail)
        name = f"{k:04d}"
        write_picture(folder / "images" / f"{name}.jpg", image, 90)
        write_picture(folder / "labels" / f"{name}.png", parts)
        write_picture(folder / "person" / f"{name}.png", (person > 0).astype(np.uint8))
        records[name] = record
    write_whole(folder / "records.json", (json.dumps(records, indent=0) + "\n").encode())
    lines = [f'[[class]]\nindex = {i}\nname = "{name}"\nmaps = ["{name}"]\n' for i, name in enumerate(PARTS)]
    write_whole(folder / CLASSES, (CLASSES_HEAD + "\n".join(lines)).encode())


# (folder, split, seed of the folder, number of its first household): households of different folders never share a
# person or a room. The first held-back one was chosen by eye: two people, a low and tilted camera, a dim room.
HOUSEHOLDS = (("train", "train", 4, 0), ("test", "test", 5, 0), ("heldback", "test", 6, 7))


def households(args):
    """Folders that on-device learning and fleet simulations read; models/households/README.md is the format."""
    sizes = {"train": (args.train, args.pictures, args.corrections), "test": (args.test, args.pictures, args.corrections),
             "heldback": (args.heldback_homes, args.heldback, args.heldback // 3)}
    for folder, split, kind, first in HOUSEHOLDS:
        homes, count, corrections = sizes[folder]
        seeds = [[args.seed, kind, first + k] for k in range(homes)]
        names = [f"{folder}-{k:04d}" for k in range(homes)]
        write_households(Assets(args.assets, split), args.out / folder, seeds, names, count, corrections)


def positive(text):
    """A whole number above nought."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


def parser():
    top = argparse.ArgumentParser(prog="render", description="Pictures of synthetic people with the class of every pixel.")
    commands = top.add_subparsers(required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--assets", type=Path, required=True, help="folder of the CC0 assets (MANIFEST.tsv says where they come from)")
    common.add_argument("--seed", type=int, default=1)
    finer = argparse.ArgumentParser(add_help=False)
    finer.add_argument("--supersample", type=float, default=1.3, help="render this many times larger, then shrink; no even number, whose pixels have no middle one")
    chosen = argparse.ArgumentParser(add_help=False, parents=[common])
    chosen.add_argument("--split", choices=("train", "test"), default="train", help="test: rooms, panoramas, cloth and seeds never trained on")
    chosen.add_argument("--scenes", choices=tuple(SCENES), default="people", help="outfits: a richer wardrobe; gowns: long clothes; moves: people who do something; leaps: sports, dance and gymnastics; things: what is no person fills the picture")
    one = commands.add_parser("shards", parents=[chosen, finer], help="render training or test shards until --count or --max-seconds")
    one.add_argument("--out", type=Path, required=True)
    one.add_argument("--size", type=positive, default=256, help="pictures in one shard")
    one.add_argument("--count", type=positive, default=10**6)
    one.add_argument("--first", type=int, default=0, help="number of the first shard; with --step, processes share the work")
    one.add_argument("--step", type=positive, default=1)
    one.add_argument("--max-seconds", type=float, default=0)
    frame = one.add_mutually_exclusive_group()
    frame.add_argument("--frame", type=frame_of, default=UPRIGHT, help=f"height x width of the pictures, {', '.join(map(frame_name, FRAMES))}; folders hold one kind")
    frame.add_argument("--wide", dest="frame", action="store_const", const=WIDE, help=f"pictures of a camera on its side, --frame {frame_name(WIDE)}")
    one.add_argument("--plain", action="store_true", help="uncompressed: three times the space, written and read faster")
    one.set_defaults(run=shards)
    tone = commands.add_parser("tones", parents=[common, finer], help="test scenes that differ in the people's skin tone alone")
    tone.add_argument("--out", type=Path, required=True)
    tone.add_argument("--count", type=positive, default=128, help="scenes, each rendered once for every tone")
    tone.set_defaults(run=tones)
    two = commands.add_parser("sheet", parents=[chosen, finer], help="one picture of many samples")
    two.add_argument("--out", type=Path, required=True)
    two.add_argument("--rows", type=positive, default=4)
    two.add_argument("--columns", type=positive, default=8)
    two.add_argument("--labels", action="store_true")
    two.set_defaults(run=sheet)
    three = commands.add_parser("clip", parents=[common], help="the demo clip: concatenated JPEGs and label pictures")
    three.add_argument("--out", type=Path, required=True)
    three.add_argument("--labels", type=Path, required=True, help="folder for one label PNG a frame")
    three.set_defaults(run=make_clip)
    four = commands.add_parser("testset", parents=[common], help="a folder for `mirror eval`, from the test split")
    four.add_argument("--out", type=Path, required=True)
    four.add_argument("--count", type=positive, default=48)
    four.add_argument("--detail", type=positive, default=1, help="so many times as many pixels along each side as the network has")
    four.set_defaults(run=testset)
    five = commands.add_parser("households", parents=[common], help="rooms and people that stay the same, for learning")
    five.add_argument("--out", type=Path, required=True)
    five.add_argument("--train", type=int, default=84, help="households from the train split")
    five.add_argument("--test", type=int, default=20, help="households from the test split")
    five.add_argument("--pictures", type=int, default=6, help="pictures of each of these")
    five.add_argument("--corrections", type=int, default=4, help="how many of them are meant to be learned from")
    five.add_argument("--heldback", type=int, default=60, help="pictures of a held-back household; a third are corrections")
    five.add_argument("--heldback-homes", type=int, default=3, help="how many of them, for a mean over households")
    five.set_defaults(run=households)
    return top


def main():
    cv2.setNumThreads(1)
    args = parser().parse_args()
    try:
        args.run(args)
    except (AssetError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        goes_on = args.run in (shards, tones)
        print("interrupted; " + ("finished files are whole, and the same command goes on from them" if goes_on else "the same command begins anew"), file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

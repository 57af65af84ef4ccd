"""The shipped network through tract against onnxruntime, one thread each, alternating in one run.

usage: network.py [--rounds N] [--frames N] [--threads] [--mirror BINARY]

Measured twice: int8 as it ships, and the same network in float, which `float_twin` makes from the shipped file (dequantised
weights, no quantising steps). Prints milliseconds a frame and ratios; fails if the outputs disagree, at the exported input size
or at any other that the manifest names: there onnxruntime is given graphs that models/train made for the size. --threads also
times two threads. Before that the labels of `models/train/pipeline/evaluate.py`, which versions are compared by, are compared with those of
`mirror parse`.
"""

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper
from running import RELEASE

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/student"
FLOAT = ROOT / "target/float-student"
sys.path.insert(0, str(ROOT / "models/train"))
from pipeline.evaluate import onnx_answer, part_labels  # noqa: E402
from pipeline.onnx_export import at_size  # noqa: E402

HANDED_ON = ["queries", "memory_a", "memory_b", "mask_features"]
# Largest difference of a class logit between the engines. Int8 may round a tie the other way; float may not.
TOLERANCE = {"int8": 0.25, "float": 1e-3}
# Seconds for a run of the crate's example or of the mirror; it takes a few.
RUN = 300
# Least share of a picture's pixels that evaluate.py must label as the mirror does at one look, by the mirror's `priority_margin`. It lacks two things:
# the priority of small parts, which a margin of 1 leaves out, and the taking away of specks.
LEAST_EQUAL = {1.0: 0.999, 0.9: 0.98}
LABELLED = 12  # pictures of the test set


def float_twin() -> None:
    """Writes the shipped network in float to FLOAT, with a manifest that the engine accepts."""
    model = onnx.load(MODEL / "trunk.onnx")
    constants = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    nodes, alias, made = [], {}, []
    for node in model.graph.node:
        node.input[:] = [alias.get(name, name) for name in node.input]
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            alias[node.output[0]] = node.input[0]
        elif node.op_type == "QLinearConv":
            nodes += float_convolution(node, constants, made)
        else:
            nodes.append(node)
    restore = {value: key for key, value in alias.items() if key in HANDED_ON}
    for node in nodes:
        node.output[:] = [restore.get(name, name) for name in node.output]
        node.input[:] = [restore.get(name, name) for name in node.input]
    # The pixels stay bytes, so that both forms are fed alike.
    nodes.insert(0, helper.make_node("Cast", ["pixels"], ["pixels.float"], to=onnx.TensorProto.FLOAT))
    used = {name for node in nodes for name in node.input}
    kept = [i for i in model.graph.initializer if i.name in used] + made
    del model.graph.node[:], model.graph.initializer[:], model.graph.value_info[:]
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(kept)
    onnx.checker.check_model(model)
    FLOAT.mkdir(parents=True, exist_ok=True)
    onnx.save(model, FLOAT / "trunk.onnx")
    (FLOAT / "head.onnx").write_bytes((MODEL / "head.onnx").read_bytes())
    text = (MODEL / "manifest.toml").read_text()
    trunk = tomllib.loads(text)["trunk"]
    digest = hashlib.sha256((FLOAT / "trunk.onnx").read_bytes()).hexdigest()
    text = text.replace(trunk["sha256"], digest).replace('"QLinearConv"', '"Conv"', 1)
    (FLOAT / "manifest.toml").write_text(text)


def float_convolution(node: onnx.NodeProto, constants: dict, made: list) -> list:
    """Conv with the values that the quantised one stands for, and Relu where its range begins at zero."""
    pixels, scale, zero, weight, weight_scale, weight_zero, _, out_zero, *bias = node.input
    assert not constants[weight_zero].any(), "weights are symmetric"
    weights = constants[weight].astype(np.float32) * constants[weight_scale]
    inputs = [pixels, f"{weight}.float"]
    if pixels == "pixels":
        # Bytes mean scale x (byte - zero).
        assert constants[zero] == 0
        weights, inputs[0] = weights * constants[scale], "pixels.float"
    made.append(numpy_helper.from_array(weights.astype(np.float32), f"{weight}.float"))
    if bias:
        values = constants[bias[0]].astype(np.float64) * constants[scale] * constants[weight_scale]
        made.append(numpy_helper.from_array(values.astype(np.float32), f"{bias[0]}.float"))
        inputs.append(f"{bias[0]}.float")
    result = node.output[0]
    rectified = constants[out_zero] == 0
    convolution = helper.make_node("Conv", inputs, [f"{result}.linear" if rectified else result], node.name)
    convolution.attribute.extend(node.attribute)
    return [convolution] + ([helper.make_node("Relu", [f"{result}.linear"], [result])] if rectified else [])


def session_of(model) -> onnxruntime.InferenceSession:
    """One thread; `model` is a path or bytes."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    # Without it, sums of int8 products saturate on x86 processors without VNNI.
    options.add_session_config_entry("session.x64quantprecision", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def sessions(folder: Path) -> list:
    return [session_of(folder / name) for name in ("trunk.onnx", "head.onnx")]


def peer(form: list, pixels: np.ndarray, frames: int) -> tuple:
    """Median milliseconds a frame and the class logits."""
    trunk, head = form
    times = []
    for _ in range(frames):
        began = time.perf_counter()
        values = dict(zip(HANDED_ON, trunk.run(HANDED_ON, {"pixels": pixels})))
        logits = head.run(["class_logits"], values)[0]
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times), logits


def ours(folder: Path, frames: int, picture: str, threads: int = 1) -> dict:
    """Median milliseconds a frame, the pixels and the class logits, from the crate's example."""
    binary = ROOT / "target/release/examples/network"
    command = [binary, folder, str(frames), picture, str(threads)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True, timeout=RUN).stdout)


def compare(args: argparse.Namespace) -> bool:
    forms = {"int8": (MODEL, sessions(MODEL)), "float": (FLOAT, sessions(FLOAT))}
    times = {(engine, form): [] for form in forms for engine in ("tract", "onnxruntime")}
    wrong = dict.fromkeys(forms, 0.0)
    picture = MODEL / "fixtures/scene0.png"
    for _ in range(args.rounds):
        for name, (folder, form) in forms.items():
            mine = ours(folder, args.frames, str(picture))
            pixels = np.array(mine["pixels"], np.uint8).reshape(1, 3, 256, 192)
            theirs, logits = peer(form, pixels, args.frames)
            times["tract", name].append(mine["median_ms"])
            times["onnxruntime", name].append(theirs)
            wrong[name] = max(wrong[name], largest_difference(mine, logits))
    for (engine, name), values in times.items():
        print(f"{engine} {name}: {min(values):.1f} ms a frame at best, {statistics.median(values):.1f} in the median")
    base = times["onnxruntime", "float"]
    for key in (("tract", "float"), ("tract", "int8"), ("onnxruntime", "int8")):
        ratio = statistics.median(a / b for a, b in zip(times[key], base))
        print(f"ratio {key[0]} {key[1]} : onnxruntime float, median of {args.rounds} alternating rounds: {ratio:.2f}")
    same = statistics.median(a / b for a, b in zip(times["tract", "int8"], times["onnxruntime", "int8"]))
    print(f"ratio tract int8 : onnxruntime int8: {same:.2f}")
    for name, (folder, _) in forms.items():
        wrong[name] = max(wrong[name], other_sizes(folder))
    for name, difference in wrong.items():
        print(f"largest difference of a class logit at any input size, {name}: {difference:.6f} (at most {TOLERANCE[name]})")
    return all(wrong[name] < TOLERANCE[name] for name in forms)


def largest_difference(mine: dict, logits: np.ndarray) -> float:
    """Between the class logits of both engines. What is no number compares as no difference, so nothing of that kind may be there."""
    own = np.array(mine["class_logits"], np.float64).reshape(logits.shape)
    assert np.isfinite(own).all() and np.isfinite(logits).all(), "a class logit is no number"
    return float(np.abs(own - logits).max())


def other_sizes(folder: Path) -> float:
    """Largest difference of a class logit over the other input sizes, of a picture that fills each."""
    graphs = [onnx.load(folder / name) for name in ("trunk.onnx", "head.onnx")]
    given = tomllib.loads((folder / "manifest.toml").read_text())["input"]
    own = (given["height"], given["width"])
    scene = cv2.imread(str(MODEL / "fixtures/pair.png"))
    worst = 0.0
    for size in map(tuple, given["other_sizes"]):
        picture = ROOT / f"target/network-{size[0]}x{size[1]}.png"
        cv2.imwrite(str(picture), cv2.resize(scene, size[::-1], interpolation=cv2.INTER_AREA))
        form = [session_of(at_size(graph, own, size).SerializeToString()) for graph in graphs]
        mine = ours(folder, 1, str(picture))
        _, logits = peer(form, np.array(mine["pixels"], np.uint8).reshape(1, 3, *size), 1)
        worst = max(worst, largest_difference(mine, logits))
    return worst


def same_labels(mirror: Path) -> bool:
    """Whether evaluate.py labels pictures of the test set as the mirror does."""
    if not mirror.exists():
        sys.exit(f"error: there is no {mirror}; build it first (cargo build --release), or name another with --mirror")
    answer, agree = onnx_answer(MODEL, (256, 192)), True
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MIRROR_")} | {"MIRROR_SYSTEM_FILE": "/dev/null"}
    with tempfile.TemporaryDirectory() as folder:
        work, pictures = Path(folder), {}
        for path in sorted((ROOT / "models/testset/images").glob("*.jpg"))[:LABELLED]:
            # As PNG: decoders of JPEG differ by a level here and there.
            pixels, picture = cv2.imread(str(path)), work / f"{path.stem}.png"
            cv2.imwrite(str(picture), pixels)
            pictures[picture] = np.ascontiguousarray(pixels[..., ::-1])
        labels = [part_labels(*answer(pixels), pixels) for pixels in pictures.values()]
        for margin, least in LEAST_EQUAL.items():
            (work / "mirror.toml").write_text(f"[vision]\npriority_margin = {margin}\n")
            command = [mirror, "parse", "--once", "--config", work / "mirror.toml", "--out", work / "labels", *pictures]
            subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True, timeout=RUN)
            theirs = [cv2.imread(str(work / "labels" / picture.name), cv2.IMREAD_UNCHANGED) for picture in pictures]
            equal = min((a == b).mean() for a, b in zip(labels, theirs, strict=True))
            print(f"labels equal to the mirror's with a priority margin of {margin}, least of {len(labels)} pictures: {equal:.4f} (at least {least})")
            agree &= bool(equal >= least)
    return agree


def time_threads(args: argparse.Namespace) -> None:
    """One thread and two, alternating."""
    picture = str(MODEL / "fixtures/scene0.png")
    times = {(threads, form): [] for form in ("int8", "float") for threads in (1, 2)}
    for _ in range(args.rounds):
        for form, folder in (("int8", MODEL), ("float", FLOAT)):
            for threads in (1, 2):
                times[threads, form].append(ours(folder, args.frames, picture, threads)["median_ms"])
    for (threads, form), values in times.items():
        print(f"tract {form}, threads {threads}: {min(values):.1f} ms at best, {statistics.median(values):.1f} in the median")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--threads", action="store_true", help="also time two threads")
    parser.add_argument("--mirror", type=Path, default=RELEASE)
    args = parser.parse_args()
    labelled = same_labels(args.mirror)
    # With the mirror, so that its optimised dependencies are used and not built once more with other features.
    build = ["cargo", "build", "--release", "--locked", "-p", "mirror", "-p", "vision", "--example", "network"]
    subprocess.run(build, cwd=ROOT, check=True)
    float_twin()
    print(f"onnxruntime {onnxruntime.__version__}, one thread")
    agree = compare(args)
    if args.threads:
        time_threads(args)
    return 0 if agree and labelled else 1


if __name__ == "__main__":
    sys.exit(main())

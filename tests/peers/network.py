"""The shipped network through tract against onnxruntime, one thread, alternating in one run.

usage: network.py [--rounds N]

Peers: the same two graphs in onnxruntime (int8 as shipped), and the float original's time is not claimed. Prints
milliseconds a frame and the ratio, and fails only if the outputs disagree.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/student"
HANDED_ON = ["queries", "memory_a", "memory_b", "mask_features"]


def session(name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(MODEL / name, options, providers=["CPUExecutionProvider"])


def peer(pixels: np.ndarray, frames: int) -> tuple:
    """Median milliseconds a frame and the class logits."""
    trunk, head = PEER
    times = []
    for _ in range(frames):
        began = time.perf_counter()
        values = dict(zip(HANDED_ON, trunk.run(HANDED_ON, {"pixels": pixels})))
        logits = head.run(["class_logits"], values)[0]
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times), logits


def ours(binary: Path, frames: int) -> dict:
    """Median milliseconds a frame and the class logits of the first fixture, from the crate's example."""
    result = subprocess.run([binary, str(MODEL), str(frames)], capture_output=True, text=True, check=True)
    return json.loads(result.stdout)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--frames", type=int, default=20)
    args = arguments.parse_args()
    build = ["cargo", "build", "--release", "-p", "vision", "--example", "network"]
    subprocess.run(build, cwd=ROOT, check=True)
    binary = ROOT / "target/release/examples/network"
    rounds = []
    for _ in range(args.rounds):
        mine = ours(binary, args.frames)
        pixels = np.array(mine["pixels"], np.uint8).reshape(1, 3, 256, 192)
        theirs, logits = peer(pixels, args.frames)
        rounds.append((mine["median_ms"], theirs))
        wrong = float(np.abs(np.array(mine["class_logits"]).reshape(logits.shape) - logits).max())
    ratio = statistics.median(a / b for a, b in rounds)
    print(f"tract {min(a for a, _ in rounds):.1f} ms, onnxruntime {onnxruntime.__version__} {min(b for _, b in rounds):.1f} ms a frame")
    print(f"ratio tract : onnxruntime, median of {len(rounds)} alternating rounds: {ratio:.2f}")
    print(f"largest difference of a class logit: {wrong:.4f}")
    return 0 if wrong < 0.25 else 1


if __name__ == "__main__":
    PEER = session("trunk.onnx"), session("head.onnx")
    sys.exit(main())

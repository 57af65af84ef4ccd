"""Shared fixtures: a small network, the renderer's assets, and folders with one made-up shard."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


@pytest.fixture(scope="session")
def tiny():
    """A small network with settled batch statistics."""
    from pipeline.export import random_parser

    torch.set_num_threads(1)
    return random_parser("tiny", 3)


@pytest.fixture(scope="session")
def assets():
    """The training split of the assets; only for tests that are skipped without $MIRROR_ASSETS. Reading them takes seconds."""
    from render.assets import Assets

    return Assets(os.environ["MIRROR_ASSETS"], "train")


@pytest.fixture
def shard_folder(tmp_path):
    """Eight pictures of a blob with a head and two hands on a plain ground; two of them show nobody."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 60, (8, 256, 192, 3)).astype(np.uint8)
    parts, person = np.zeros((8, 256, 192), np.uint8), np.zeros((8, 256, 192), np.uint8)
    for index in range(6):
        for part, (y, x) in {2: (40, 80), 3: (90, 80), 8: (120, 130), 9: (120, 30)}.items():
            parts[index, y : y + 40, x : x + 30] = part
    person[parts > 0] = 1
    image[parts > 0] += 120
    meta = [{"people": int(index < 6)} for index in range(8)]
    np.savez(tmp_path / "a.npz", image=image, parts=parts, person=person, meta=json.dumps(meta))
    return tmp_path


@pytest.fixture
def barred_folder(shard_folder, tmp_path_factory):
    """The same pictures, the first two and the last between letterbox bars of 64 rows, the third between bars of 24 columns; no pixel
    that shows something has the bars' colour."""
    from pipeline.data import PADDING, read_shard

    folder, shard = tmp_path_factory.mktemp("barred"), read_shard(shard_folder / "a.npz")
    shard["image"][shard["image"] == PADDING] += 1
    for index, (rows, columns) in {0: (64, 0), 1: (64, 0), 2: (0, 24), 7: (64, 0)}.items():
        outside = np.ones((256, 192), bool)
        outside[rows : 256 - rows, columns : 192 - columns] = False
        shard["image"][index, outside] = PADDING
        shard["parts"][index, outside] = shard["person"][index, outside] = 0
    np.savez(folder / "a.npz", meta=json.dumps(shard["meta"]), **{key: shard[key] for key in ("image", "parts", "person")})
    return folder


@pytest.fixture
def wide_folder(shard_folder, tmp_path_factory):
    """The same pictures lying on their side, 192 x 256."""
    from pipeline.data import read_shard

    folder, shard = tmp_path_factory.mktemp("wide"), read_shard(shard_folder / "a.npz")
    turned = {key: np.swapaxes(shard[key], 1, 2) for key in ("image", "parts", "person")}
    np.savez(folder / "a.npz", meta=json.dumps(shard["meta"]), **turned)
    return folder

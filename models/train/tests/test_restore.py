"""A shipped model folder read back to float: the same function, and weights that training can go on from."""

import copy

import numpy as np
import onnx
import pytest
import torch

from pipeline.config import HEIGHT, NETWORKS, PERSON, WIDTH
from pipeline.evaluate import predictor
from pipeline.export import ship
from pipeline.quantise import session
from pipeline.restore import KERNEL_NORM, RestoreError, blocks, main_kernel, restore, save_restored
from pipeline.shipped import ModelError
from pipeline.states import load_parser
from render.files import write_whole

BIAS = 3.0


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (6, 16, 12, 3)).astype(np.uint8)
    return np.ascontiguousarray(small.repeat(16, 1).repeat(16, 2))


@pytest.fixture(scope="module")
def shipped(tiny, pictures, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    biased = copy.deepcopy(tiny)
    with torch.no_grad():
        biased.predictor.class_head.bias[PERSON] -= BIAS
    ship(biased, pictures, pictures[:1], folder, {"name": "tiny", "version": "0.0.1", "run": "none", "person_bias": BIAS})
    return folder


def test_the_function_is_the_shipped_one(tiny, shipped, pictures):
    again = restore(shipped, "tiny", pictures)
    x = torch.from_numpy(pictures[2].transpose(2, 0, 1)[None].copy())
    with torch.no_grad():
        ours = again.features(x.float() / 255)[0].numpy()
        first = tiny.features(x.float() / 255)[0].numpy()
    trunk = session((shipped / "trunk.onnx").read_bytes())
    int8 = trunk.run(["mask_features"], {"pixels": x.numpy()})[0]
    apart = lambda a, b: np.linalg.norm(a - b) / np.linalg.norm(b)
    assert apart(ours, int8) < 0.3 and apart(ours, first) < 0.3
    assert torch.equal(again.predictor.class_head.weight, tiny.predictor.class_head.weight)
    assert torch.allclose(again.level, tiny.level, atol=1e-5)
    assert torch.allclose(again.predictor.class_head.bias, tiny.predictor.class_head.bias, atol=1e-5)


def test_every_convolution_is_normalised_and_of_usual_size(shipped, pictures):
    again = restore(shipped, "tiny", pictures)
    for block in blocks(again).values():
        norms = main_kernel(block).flatten(1).norm(dim=1)
        assert torch.allclose(norms, torch.full_like(norms, KERNEL_NORM), rtol=1e-3)
        assert (block.norm.weight > 0).all() and torch.isfinite(block.norm.running_var).all()


def test_weights_file_is_what_training_starts_from(shipped, pictures, tmp_path):
    save_restored(shipped, "tiny", pictures, tmp_path / "weights.pt")
    model = load_parser(tmp_path / "weights.pt")
    assert model.config == NETWORKS["tiny"]
    assert [p.name for p in tmp_path.iterdir()] == ["weights.pt"]


def test_another_network_is_refused(shipped, pictures):
    with pytest.raises(RestoreError, match="--network"):
        restore(shipped, "student", pictures)


def test_a_broken_model_is_not_taken(shipped, pictures, tmp_path):
    for name in ("trunk.onnx", "head.onnx"):
        write_whole(tmp_path / name, (shipped / name).read_bytes()[:-200])
    with pytest.raises(ModelError, match="manifest.toml does not exist"):
        restore(tmp_path, "tiny", pictures)
    write_whole(tmp_path / "manifest.toml", (shipped / "manifest.toml").read_bytes())
    with pytest.raises(ModelError, match="trunk.onnx is not the file"):
        restore(tmp_path, "tiny", pictures)


def test_two_exports_are_not_mixed(shipped, pictures, tmp_path):
    """As an interruption between two files of an export over an older one leaves them."""
    for name in ("trunk.onnx", "manifest.toml"):
        write_whole(tmp_path / name, (shipped / name).read_bytes())
    head = onnx.load(shipped / "head.onnx")
    head.graph.initializer[0].name += "x"
    write_whole(tmp_path / "head.onnx", head.SerializeToString())
    for use in (lambda: restore(tmp_path, "tiny", pictures), lambda: predictor(tmp_path, None, (HEIGHT, WIDTH))):
        with pytest.raises(ModelError, match="head.onnx is not the file that manifest.toml names"):
            use()

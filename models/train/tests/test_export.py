"""The shipped files: int8 form, names, limits, fixtures."""

import copy
import re
import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from pipeline import evaluate
from pipeline.config import HEIGHT, OTHER_SIZES, WIDTH
from pipeline.data import input_size
from pipeline.evaluate import predictor
from pipeline.export import build, ship
from pipeline.onnx_export import at_size, check_ops, op_types
from pipeline.package import run_both
from pipeline.quantise import Range, choose_range, clear_of_ties, session, weight_scale, without_ties
from pipeline.states import sha256


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (6, 16, 12, 3)).astype(np.uint8)
    return np.ascontiguousarray(small.repeat(16, 1).repeat(16, 2))


@pytest.fixture(scope="module")
def built(tiny, pictures):
    return build(tiny, pictures)


def test_onnxruntime_equals_pytorch(tiny, built, pictures):
    float_graph, _, head_graph, _, _ = built
    trunk, head = session(float_graph), session(head_graph)
    x = torch.from_numpy(pictures[0].transpose(2, 0, 1)[None].copy()).float() / 255
    values = dict(zip([o.name for o in trunk.get_outputs()], trunk.run(None, {"pixels": x.numpy()}), strict=True))
    with torch.no_grad():
        expected = tiny(x)
    for ours, theirs in zip(head.run(None, values), expected, strict=True):
        assert np.linalg.norm(ours - theirs.numpy()) < 1e-3 * np.linalg.norm(theirs.numpy())


def test_int8_is_near_float(built, pictures):
    float_graph, int8_graph, head_graph, _, _ = built
    values = run_both(session(int8_graph), session(head_graph), pictures[1])
    x = pictures[1].transpose(2, 0, 1)[None].astype(np.float32) / 255
    expected = session(float_graph).run(["mask_features"], {"pixels": x})[0]
    assert np.linalg.norm(values["mask_features"] - expected) < 0.35 * np.linalg.norm(expected)


def test_int8_graph_takes_bytes_and_holds_only_per_tensor_convolutions(built):
    graph = built[1].graph
    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in graph.initializer}
    convs = [n for n in graph.node if n.op_type == "QLinearConv"]
    assert not any(n.op_type == "Conv" for n in graph.node)
    first = convs[0]
    assert first.input[0] == "pixels"
    assert constants[first.input[1]] == np.float32(1) / np.float32(255) and constants[first.input[2]] == 0
    for conv in convs:
        assert constants[conv.input[3]].dtype == np.int8 and constants[conv.input[4]].shape == ()
        assert constants[conv.input[5]] == 0 and constants[conv.input[8]].dtype == np.int32


def test_softmax_is_never_between_quantised_nodes(built):
    graph = built[1].graph
    writer = {o: n for n in graph.node for o in n.output}
    for node in graph.node:
        if node.op_type == "Softmax":
            assert writer[node.input[0]].op_type not in ("DequantizeLinear", "QLinearConv")


@pytest.mark.parametrize("size", OTHER_SIZES)
def test_a_graph_at_another_size_equals_pytorch_there(tiny, built, size):
    assert size[0] * size[1] <= HEIGHT * WIDTH
    graphs = [at_size(graph, (HEIGHT, WIDTH), size) for graph in (built[0], built[2])]
    trunk, head = (session(graph.SerializeToString(), False) for graph in graphs)
    pixels = np.random.default_rng(2).random((1, 3, *size)).astype(np.float32)
    handed_on = dict(zip([o.name for o in trunk.get_outputs()], trunk.run(None, {"pixels": pixels}), strict=True))
    logits, masks = head.run(["class_logits", "mask_logits"], handed_on)
    with torch.no_grad():
        wanted = [t.numpy() for t in tiny(torch.from_numpy(pixels))]
    assert masks.shape[-2:] == (size[0] // 4, size[1] // 4)
    for got, want in zip((logits, masks), wanted, strict=True):
        assert np.abs(got - want).max() < 2e-3 * np.abs(want).max()


def test_shipped_folder(tiny, built, pictures, tmp_path):
    ship(tiny, pictures, pictures[:2], tmp_path, {"name": "t", "version": "0", "run": "none"})
    manifest = tomllib.loads((tmp_path / "manifest.toml").read_text())
    assert manifest["format_version"] == 1
    assert manifest["input"]["other_sizes"] == [list(size) for size in OTHER_SIZES]
    assert [c["index"] for c in manifest["class"]] == list(range(17))
    for part in ("trunk", "head"):
        assert manifest[part]["sha256"] == sha256(tmp_path / manifest[part]["file"])
    head = onnx.load(tmp_path / "head.onnx")
    shapes = {i.name: list(i.dims) for i in head.graph.initializer}
    for parameter in manifest["head"]["parameter"]:
        assert shapes[parameter["name"]] == parameter["shape"]
        assert parameter["trainable"] == ("group" in parameter)
    sizes = sum(p.stat().st_size for p in (tmp_path / "fixtures").iterdir())
    assert sizes < 2_500_000
    fixtures = tomllib.loads((tmp_path / "fixtures" / "fixtures.toml").read_text())
    values = run_both(session(built[1], optimise=False), session(built[2], optimise=False), pictures[0])
    assert fixtures["fixture"][2]["size"] == list(OTHER_SIZES[0])
    entry = fixtures["fixture"][0]["memory_a"]
    codes = np.fromfile(tmp_path / "fixtures" / entry["file"], np.uint8).reshape(entry["shape"])
    restored = (codes.astype(np.float32) - entry["zero"]) * np.float32(entry["scale"])
    assert np.array_equal(restored, values["memory_a"])


def test_another_trunk_under_the_same_head_is_refused(tiny, pictures, tmp_path):
    info = {"name": "t", "version": "0", "run": "none"}
    ship(tiny, pictures, pictures[:2], tmp_path, info)
    before = (tmp_path / "manifest.toml").read_bytes()
    with pytest.raises(ValueError, match="--person-bias"):
        ship(tiny, pictures // 2, pictures[:2], tmp_path, info)
    assert (tmp_path / "manifest.toml").read_bytes() == before
    other = copy.deepcopy(tiny)
    with torch.no_grad():
        other.predictor.class_head.bias += 1e-4
    ship(other, pictures // 2, pictures[:2], tmp_path, info)
    ship(other, pictures // 2, pictures[:2], tmp_path, info)


def test_an_unknown_op_is_refused(built):
    model = onnx.ModelProto()
    model.CopyFrom(built[2])
    model.graph.node.append(onnx.helper.make_node("Einsum", ["queries"], ["x"], equation="bqd->bd"))
    with pytest.raises(ValueError, match="Einsum"):
        check_ops(model, "head")
    assert "Einsum" not in op_types(built[2])


@pytest.mark.parametrize("optimise", [True, False])
def test_large_products_do_not_saturate(optimise):
    values = {
        "x_scale": np.float32(1), "x_zero": np.uint8(0), "w": np.full((1, 64, 3, 3), 127, np.int8), "w_scale": np.float32(1),
        "w_zero": np.int8(0), "y_scale": np.float32(255 * 127 * 64 * 9 / 200), "y_zero": np.uint8(0),
    }
    node = onnx.helper.make_node("QLinearConv", ["x", *values], ["y"])
    tensor = lambda name, shape: onnx.helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, shape)
    graph = onnx.helper.make_graph(
        [node], "one", [tensor("x", [1, 64, 3, 3])], [tensor("y", [1, 1, 1, 1])],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in values.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    answer = session(model, optimise=optimise).run(["y"], {"x": np.full((1, 64, 3, 3), 255, np.uint8)})[0]
    assert answer.item() == 200
    assert model.graph.initializer[2].data_type == onnx.TensorProto.INT8, "the graph itself stays as it is"


def test_ranges_hold_zero_and_clip_outliers():
    counts = np.zeros(2048, np.int64)
    counts[:200], counts[-1] = 1000, 1
    wide, tight = choose_range(counts, 0.0, 10.0, "minmax"), choose_range(counts, 0.0, 10.0, "mse")
    assert wide.zero == 0 and abs(wide.scale * 255 - 10) < 1e-4
    assert tight.scale < wide.scale
    signed = choose_range(counts, -3.0, 5.0, "minmax")
    assert abs((0 - signed.zero) * signed.scale - -3.0) < signed.scale
    with pytest.raises(ValueError, match="calibration"):
        choose_range(counts, 0.0, 1.0, "guess")


def test_weight_scale_covers_a_uniform_kernel():
    kernel = np.linspace(-1, 1, 999).astype(np.float32)
    assert abs(weight_scale(kernel) * 127 - 1) < 0.05

def test_no_sum_of_a_convolution_is_left_to_the_rounding_of_an_engine():
    scale, product = np.float32(0.0371), 0.0371 * 41.5 / 16776
    assert not clear_of_ties(product / np.float64(scale)), "16,776 is forty-one and a half codes"
    moved = without_ties(Range(scale, 3), product)
    assert moved.zero == 3 and 0 < abs(float(moved.scale) / float(scale) - 1) < 1e-3
    sums = np.arange(1, int(255 * float(moved.scale) / product))
    in_float = np.rint(sums.astype(np.float32) * (np.float32(product) / moved.scale))
    assert (in_float == np.rint(sums * (product / np.float64(moved.scale)))).all()


def test_input_size_of_the_contract():
    assert (HEIGHT, WIDTH) == (256, 192)


@pytest.mark.parametrize("ours, file, theirs", [
    ("FINER", "postprocess.rs", r"const FINER: usize = (\S+);"),
    ("GUIDE_RADIUS", "guide.rs", r"const RADIUS: usize = (\S+);"),
    ("GUIDE_FLAT", "guide.rs", r"const FLAT: f32 = (\S+);"),
    ("PERSON_SCORE", "parser.rs", r"person_score: ([\d.]+),"),
])
def test_pictures_are_judged_by_the_numbers_of_the_device(ours, file, theirs):
    source = Path(__file__).resolve().parents[3] / "firmware/vision/src" / file
    assert [float(value) for value in re.findall(theirs, source.read_text())] == [getattr(evaluate, ours)]


def test_labels_follow_scores_and_person_masks_paste_in_order():
    from pipeline.evaluate import part_labels, person_labels

    logits, masks = np.full((3, 18), -9.0), np.full((3, 4, 4), -9.0)
    logits[0, 0], logits[1, 16], logits[2, 16] = 9.0, 9.0, 1.0
    masks[0, :, :2], masks[1, :, 1:], masks[2, :, :] = 9.0, 9.0, 9.0
    logits[2, 17] = 0.5
    image = np.zeros((8, 8, 3), np.uint8)
    image[:, 4:] = 200
    assert (part_labels(logits, masks, image)[:, :3] == 0).all()
    person = person_labels(logits, masks, 8, 8)
    assert (person[:, 6] == 2).all() and (person[:, 0] == 1).all()


def test_scores_follow_the_edges_of_the_picture():
    from pipeline.evaluate import guided

    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (32, 24, 3)).astype(np.uint8)
    image[:, :11] //= 4
    image[:, 11:] = 128 + image[:, 11:] // 4
    # Of the scores, two pixels wide, the sixth is half of one part, half of the other.
    right = np.repeat(np.clip(np.arange(12) - 4.5, 0, 1)[None], 16, 0)
    scores = guided(np.stack([1 - right, right]).astype(np.float32), image)
    assert (scores.argmax(0) == (np.arange(24) >= 11)).mean() > 0.99
    assert np.allclose(scores.sum(0), 1, atol=1e-4)


def test_wide_pictures_are_judged_at_a_wide_input(shard_folder, wide_folder):
    assert input_size(shard_folder) == (HEIGHT, WIDTH) and input_size(wide_folder) == (WIDTH, HEIGHT)


def test_onnxruntime_answers_at_the_size_of_the_picture(tiny, pictures, tmp_path):
    ship(tiny, pictures, pictures[:2], tmp_path, {"name": "t", "version": "0", "run": "none"})
    wide = np.ascontiguousarray(pictures[:1].swapaxes(1, 2))
    parts, person = predictor(tmp_path, None, (WIDTH, HEIGHT))(wide)
    assert parts.shape == person.shape == (1, WIDTH, HEIGHT)

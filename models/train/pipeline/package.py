"""Writes the shipped folder: trunk.onnx, head.onnx, manifest.toml and fixtures/."""

from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime

from render.classes import PADDING, PARTS, PPP, TO_PPP
from render.files import write_picture, write_whole

from .config import PERSON
from .deploy import Head, parameter_group
from .onnx_export import at_size, check_ops, op_types
from .quantise import session
from .shipped import MANIFEST
from .states import sha256

MAX_TRUNK_BYTES = 3_000_000
DTYPES = {onnx.TensorProto.FLOAT: "f32", onnx.TensorProto.UINT8: "u8"}
PROVENANCE = (
    "Trained from random weights on pictures rendered by models/train/render from MakeHuman meshes, textures and "
    "panoramas under CC0 and motions under CC0 or the CMU motion capture terms. No photograph of a person was used."
)


def write_model(out: Path, trunk: onnx.ModelProto, head: onnx.ModelProto, module: Head, info: dict, pictures) -> None:
    """Writes all files of a model folder. `info`: name, version, run, person_bias (0 without), height, width, and other_sizes
    as (height, width). `pictures`: (N, H, W, 3) uint8."""
    out.mkdir(parents=True, exist_ok=True)
    check_ops(trunk, "trunk")
    check_ops(head, "head")
    data = trunk.SerializeToString()
    if len(data) > MAX_TRUNK_BYTES:
        raise ValueError(
            f"trunk.onnx would have {len(data)} bytes, more than {MAX_TRUNK_BYTES}; choose a smaller network"
        )
    refuse_same_head(out, data, head, module)
    # The manifest goes first and comes last: without it no mixture of two exports is taken for a model.
    (out / MANIFEST).unlink(missing_ok=True)
    write_whole(out / "trunk.onnx", data)
    write_whole(out / "head.onnx", head.SerializeToString())
    write_fixtures(out, pictures, info["other_sizes"][0])
    text = manifest(out, trunk, head, module, info)
    write_whole(out / MANIFEST, text.encode())


def refuse_same_head(out: Path, trunk: bytes, head: onnx.ModelProto, module: Head) -> None:
    """Mirrors and the fleet tell networks apart by the head's trainable numbers alone: under the same ones another trunk would pass
    for the network before, with heads that households trained on its features."""
    before = [out / "trunk.onnx", out / "head.onnx"]
    if not all(path.is_file() for path in before) or before[0].read_bytes() == trunk:
        return
    if trainable(onnx.load(before[1]), module) == trainable(head, module):
        raise ValueError(
            f"the trunk differs from that in {out} and the head's numbers do not, so mirrors would take the two networks for one; give "
            "--person-bias another last digit, such as 3.0001 for 3"
        )


def trainable(head: onnx.ModelProto, module: Head) -> dict:
    """The head's trainable numbers, as bytes by name."""
    names = {name for name, _ in module.named_parameters()}
    return {i.name: onnx.numpy_helper.to_array(i).tobytes() for i in head.graph.initializer if i.name in names}


def manifest(out: Path, trunk: onnx.ModelProto, head: onnx.ModelProto, module: Head, info: dict) -> str:
    """The text of manifest.toml."""
    lines = [
        "format_version = 1",
        f'name = "{info["name"]}"',
        f'version = "{info["version"]}"',
        'licence = "MIT OR Apache-2.0"',
        f'provenance = "{PROVENANCE}"',
        f'training_run = "{info["run"]}"',
        f"person_bias = {info.get('person_bias', 0.0)}",
        "",
        "[input]",
        f"height = {info['height']}",
        f"width = {info['width']}",
        f"padding = {PADDING}",
        "# The graphs serve these sizes (height, width) too, with the position embeddings of the size.",
        f"other_sizes = {[list(size) for size in info['other_sizes']]}",
    ]
    for index, name in enumerate(PARTS):
        lines += ["", "[[class]]", f"index = {index}", f'name = "{name}"', f'ppp = "{PPP[TO_PPP[index]]}"']
    lines += ["", "[[class]]", f"index = {PERSON}", 'name = "person"']
    for name, model in (("trunk", trunk), ("head", head)):
        lines += graph_section(name, out / f"{name}.onnx", model)
    lines += parameter_sections(head, module)
    return "\n".join(lines) + "\n"


def graph_section(name: str, path: Path, model: onnx.ModelProto) -> list:
    """[trunk] or [head]: file, digest, op types, inputs and outputs."""
    ops = ", ".join(f'"{op}"' for op in op_types(model))
    lines = ["", f"[{name}]", f'file = "{path.name}"', f'sha256 = "{sha256(path)}"', f"ops = [{ops}]"]
    for kind, values in (("input", model.graph.input), ("output", model.graph.output)):
        for value in values:
            tensor = value.type.tensor_type
            shape = ", ".join(str(d.dim_value) for d in tensor.shape.dim)
            lines += [
                "",
                f"[[{name}.{kind}]]",
                f'name = "{value.name}"',
                f"shape = [{shape}]",
                f'dtype = "{DTYPES[tensor.elem_type]}"',
            ]
    return lines


def parameter_sections(head: onnx.ModelProto, module: Head) -> list:
    """[[head.parameter]] in the order of the flat vector: state_dict order, constants last."""
    trainable = [name for name, _ in module.named_parameters()]
    constants = [name for name, _ in module.named_buffers()]
    shapes = {i.name: list(i.dims) for i in head.graph.initializer}
    lines = []
    for name in trainable + constants:
        lines += ["", "[[head.parameter]]", f'name = "{name}"', f"shape = {shapes[name]}"]
        lines += [f"trainable = {str(name in trainable).lower()}"]
        if name in trainable:
            lines += [f'group = "{parameter_group(name)}"']
    return lines


def write_fixtures(out: Path, pictures, other_size: tuple) -> None:
    """Pictures as PNG and onnxruntime's outputs of both graphs, every node run as written: each picture, and the first
    two side by side at another size.

    Outputs are raw little-endian f32; those that a DequantizeLinear makes are kept as their u8 codes instead,
    exactly (code - zero) * scale in f32, at a quarter of the size.
    """
    folder = out / "fixtures"
    folder.mkdir(exist_ok=True)
    graphs = [onnx.load(out / name) for name in ("trunk.onnx", "head.onnx")]
    codes = output_codes(graphs[0])
    lines = [f'onnxruntime = "{onnxruntime.__version__}"', 'optimisation = "none"']
    other = [at_size(graph, pictures[0].shape[:2], other_size) for graph in graphs]
    cases = [(f"scene{index}", graphs, picture) for index, picture in enumerate(pictures)]
    cases.append(("pair", other, side_by_side(pictures[:2], *other_size)))
    for name, form, picture in cases:
        write_picture(folder / f"{name}.png", picture)
        lines += ["", "[[fixture]]", f'picture = "{name}.png"', f"size = {list(picture.shape[:2])}"]
        trunk, head = (session(graph, optimise=False) for graph in form)
        for key, value in run_both(trunk, head, picture).items():
            lines += [
                "",
                f"[fixture.{key}]",
                f"shape = {list(value.shape)}",
                *write_tensor(folder, f"{name}.{key}", value, codes.get(key)),
            ]
    write_whole(folder / "fixtures.toml", ("\n".join(lines) + "\n").encode())


def side_by_side(pictures, height: int, width: int) -> np.ndarray:
    """Upright pictures next to each other, again and again where they are too few, as one picture of `height` x `width`; its
    outer edges are cut."""
    shrunk = [cv2.resize(p, (p.shape[1] * height // p.shape[0], height), interpolation=cv2.INTER_AREA) for p in pictures]
    row = np.concatenate(shrunk, 1)
    wide = np.tile(row, (1, -(-width // row.shape[1]), 1))
    left = (wide.shape[1] - width) // 2
    return np.ascontiguousarray(wide[:, left : left + width])


def output_codes(model: onnx.ModelProto) -> dict:
    """Scale and zero point behind each trunk output that is a rearranged DequantizeLinear."""
    writer = {name: node for node in model.graph.node for name in node.output}
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    found = {}
    for output in model.graph.output:
        node = writer[output.name]
        while node.op_type in ("Transpose", "Reshape"):
            node = writer[node.input[0]]
        if node.op_type == "DequantizeLinear":
            found[output.name] = (constants[node.input[1]], constants[node.input[2]])
    return found


def write_tensor(folder: Path, stem: str, value: np.ndarray, codes) -> list:
    """Writes one tensor; gives its lines for fixtures.toml."""
    if codes is None:
        write_whole(folder / f"{stem}.f32", value.astype("<f4").tobytes())
        return [f'file = "{stem}.f32"', 'dtype = "f32"']
    scale, zero = codes
    whole = np.round(value / scale).astype(np.int32)
    if not np.array_equal(whole.astype(np.float32) * scale, value):
        raise ValueError(f"{stem} is not a dequantised tensor of scale {scale}")
    write_whole(folder / f"{stem}.u8", (whole + int(zero)).astype(np.uint8).tobytes())
    return [f'file = "{stem}.u8"', 'dtype = "u8"', f"scale = {float(scale)!r}", f"zero = {int(zero)}"]


def run_both(trunk, head, picture: np.ndarray) -> dict:
    """Outputs of trunk and head for one picture (H, W, 3) uint8, by name."""
    pixels = np.ascontiguousarray(picture.transpose(2, 0, 1)[None])
    names = [o.name for o in trunk.get_outputs()]
    values = dict(zip(names, trunk.run(names, {"pixels": pixels}), strict=True))
    result = [o.name for o in head.get_outputs()]
    values.update(zip(result, head.run(result, values), strict=True))
    return values

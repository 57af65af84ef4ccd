"""Float graphs of the trunk and the head, with the parameters' own names."""

import warnings

import numpy as np
import onnx
import torch

from .deploy import HEAD_OUTPUTS, TRUNK_OUTPUTS, Head, Trunk
from .network import sine_position

OPSET = 17

# Input pixels that one token of a memory spans, by the name of the memory's position embedding.
POSITION_STRIDES = {"position": 32, "position_a": 16, "position_b": 8}

# What the device's engine runs. Anything else in a graph is a build error, not a surprise on the mirror.
ALLOWED_OPS = {
    "Add",
    "AveragePool",
    "Cast",
    "Constant",
    "DequantizeLinear",
    "LayerNormalization",
    "Less",
    "MatMul",
    "Mul",
    "QLinearConv",
    "QuantizeLinear",
    "ReduceMin",
    "Relu",
    "Reshape",
    "Resize",
    "Softmax",
    "Sub",
    "Transpose",
}


def to_onnx(module, inputs: tuple, input_names, output_names) -> onnx.ModelProto:
    """Traces a module into an ONNX graph with static shapes."""
    import io

    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(),
            inputs,
            buffer,
            input_names=list(input_names),
            output_names=list(output_names),
            opset_version=OPSET,
            dynamo=False,
            do_constant_folding=True,
        )
    model = onnx.load_from_string(buffer.getvalue())
    model.producer_name, model.producer_version = "mirror-train", ""
    model.ir_version = 8
    for node in model.graph.node:
        node.ClearField("doc_string")
    onnx.checker.check_model(model)
    return model


def float_trunk(trunk: Trunk, height: int, width: int) -> onnx.ModelProto:
    """The trunk as a float graph; input `pixels` (1, 3, H, W) in 0..1."""
    return to_onnx(trunk, (torch.rand(1, 3, height, width),), ("pixels",), TRUNK_OUTPUTS)


def float_head(head: Head, trunk: Trunk, height: int, width: int) -> onnx.ModelProto:
    """The head as a float graph."""
    with torch.no_grad():
        inputs = trunk(torch.rand(1, 3, height, width))
    model = to_onnx(head, inputs, TRUNK_OUTPUTS, HEAD_OUTPUTS)
    check_names(model, head)
    return model


def shapes_at(height: int, width: int, dim: int) -> dict:
    """Sizes of the tensors that depend on the input's, by name, without batch and channels."""
    tokens = {name: ((height // stride) * (width // stride), dim) for name, stride in (("memory_a", 16), ("memory_b", 8))}
    masks = (height // 4, width // 4)
    return tokens | {"pixels": (height, width), "mask_features": masks, "mask_logits": masks}


def moved_position(stored: np.ndarray, stride: int, own: tuple, size: tuple) -> np.ndarray:
    """A position embedding (1, N, D) at another input size: the sines of the place change, the memory's offset stays."""
    before, after = (sine_position(h // stride, w // stride, stored.shape[-1]).numpy() for h, w in (own, size))
    return after + (stored - before)[:, :1]


def at_size(model: onnx.ModelProto, own: tuple, size: tuple) -> onnx.ModelProto:
    """A graph that was exported for the input size `own` (height, width), for another size. Only position embeddings,
    declared shapes and the last reshape say a size; everything else is left open by the export."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    dim = 0
    for tensor in model.graph.initializer:
        if stride := POSITION_STRIDES.get(tensor.name):
            moved = moved_position(onnx.numpy_helper.to_array(tensor), stride, own, size)
            dim = moved.shape[-1]
            tensor.CopyFrom(onnx.numpy_helper.from_array(moved, tensor.name))
    shapes = shapes_at(*size, dim)
    for value in [*model.graph.input, *model.graph.output]:
        for place, length in zip(value.type.tensor_type.shape.dim[-2:], shapes.get(value.name, ()), strict=False):
            place.dim_value = length
    constants = {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    for node in model.graph.node:
        if "mask_logits" in node.output:
            shape = constants[node.input[1]]
            sizes = onnx.numpy_helper.to_array(shape)
            changed = np.array([*sizes[:-2], *shapes["mask_logits"]], sizes.dtype)
            shape.CopyFrom(onnx.numpy_helper.from_array(changed, shape.name))
    return model


def check_names(model: onnx.ModelProto, head: Head) -> None:
    """Every parameter and buffer of the head must be an initializer of the same name and values."""
    present = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer}
    for name, value in head.state_dict().items():
        if name not in present or not np.array_equal(present[name], value.detach().numpy()):
            raise ValueError(f"{name} {tuple(value.shape)} is not an initializer of the exported head with the same values")


def op_types(model: onnx.ModelProto) -> list:
    """Sorted op types of a graph."""
    return sorted({node.op_type for node in model.graph.node})


def check_ops(model: onnx.ModelProto, what: str) -> None:
    """Refuses a graph with an op outside the allow-list or outside the standard domain."""
    strange = sorted({n.op_type for n in model.graph.node if n.op_type not in ALLOWED_OPS or n.domain})
    if strange:
        raise ValueError(f"{what}: ops {strange} are not on the allow-list; change the network or extend ALLOWED_OPS")

"""Int8 form of the trunk: QLinearConv with u8 activations and symmetric s8 weights, one scale per tensor.

Everything that is not a convolution stays in float, between a DequantizeLinear and a QuantizeLinear. The graph's
input is the camera's own bytes: pixel / 255 is the first convolution's input scale, so no node does it.
"""

from dataclasses import dataclass

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

INPUT_SCALE = np.float32(1.0) / np.float32(255.0)
BINS = 2048
METHODS = ("minmax", "percentile", "mse")
# Scales are multiplied and divided in float32, and so is a sum by the result: three roundings of 6e-8 at most.
TIE_MARGIN = 1.8e-7
TIE_STEP = 1.2e-7
TIE_STEPS = 5000


@dataclass(frozen=True)
class Range:
    """Quantisation of one activation: real = (code - zero) * scale, code in 0..255."""

    scale: np.float32
    zero: int


def session(model, threads: int = 1, optimise: bool = True) -> onnxruntime.InferenceSession:
    """An onnxruntime session for a graph or its bytes. Without optimisation every node runs as written, which is what fixtures
    need, but for the sign of int8 weights."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    graph = unsigned_weights(onnx.load_from_string(model) if isinstance(model, bytes) else model)
    return onnxruntime.InferenceSession(graph.SerializeToString(), options, providers=["CPUExecutionProvider"])


def unsigned_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same function with weights and their zero points 128 higher, as bytes without a sign. Sums of products with signed ones
    saturate on x86 processors without VNNI, and whole people go missing; onnxruntime's own cure, `session.x64quantprecision`,
    is an optimisation and so does nothing for fixtures."""
    shifted = onnx.ModelProto()
    shifted.CopyFrom(model)
    convs = [node for node in shifted.graph.node if node.op_type == "QLinearConv"]
    names = {name for node in convs for name in (node.input[3], node.input[5])}
    for tensor in shifted.graph.initializer:
        if tensor.name in names and tensor.data_type == TensorProto.INT8:
            values = (numpy_helper.to_array(tensor).astype(np.int16) + 128).astype(np.uint8)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return shifted


class Plan:
    """Which tensors of a float graph become u8, and how convolutions and ReLUs pair up."""

    def __init__(self, model: onnx.ModelProto):
        graph = model.graph
        self.readers = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.writer = {name: node for node in graph.node for name in node.output}
        self.outputs = {o.name for o in graph.output}
        self.convs = [n for n in graph.node if n.op_type == "Conv"]
        self.relu = {conv.output[0]: self.fused_relu(conv) for conv in self.convs}
        self.result = {conv.output[0]: self.final_name(conv) for conv in self.convs}
        self.quantised = set(self.result.values()) | {conv.input[0] for conv in self.convs}

    def fused_relu(self, conv):
        """The ReLU that is the convolution's only reader, if it is."""
        readers = self.readers.get(conv.output[0], [])
        if len(readers) == 1 and readers[0].op_type == "Relu" and conv.output[0] not in self.outputs:
            return readers[0]
        return None

    def final_name(self, conv) -> str:
        """The tensor that the quantised convolution stands for: after its ReLU where there is one."""
        relu = self.relu[conv.output[0]]
        return relu.output[0] if relu is not None else conv.output[0]


def observe(model: onnx.ModelProto, pictures) -> dict:
    """Histogram of every tensor to be quantised, over pictures (3, H, W) uint8: name to (counts, low, high)."""
    names = sorted(Plan(model).quantised - {"pixels"})
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    shown = {o.name for o in probe.graph.output}
    probe.graph.output.extend(helper.make_empty_tensor_value_info(n) for n in names if n not in shown)
    runner = session(probe, threads=0)
    inputs = [(p[None].astype(np.float32) * INPUT_SCALE) for p in pictures]
    low, high = dict.fromkeys(names, 0.0), dict.fromkeys(names, 0.0)
    for x in inputs:
        for name, value in zip(names, runner.run(names, {"pixels": x}), strict=True):
            low[name] = min(low[name], float(value.min()))
            high[name] = max(high[name], float(value.max()))
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    for x in inputs:
        for name, value in zip(names, runner.run(names, {"pixels": x}), strict=True):
            span = max(high[name] - low[name], 1e-12)
            cells = ((value.ravel() - low[name]) * (BINS / span)).astype(np.int64).clip(0, BINS - 1)
            counts[name] += np.bincount(cells, minlength=BINS)
    return {name: (counts[name], low[name], high[name]) for name in names}


def choose_range(counts: np.ndarray, low: float, high: float, method: str) -> Range:
    """Range of one tensor from its histogram; zero is always representable."""
    if method not in METHODS:
        raise ValueError(f"calibration {method!r} is not one of {METHODS}")
    if method == "percentile":
        low, high = percentile(counts, low, high, 1e-5)
    if method == "mse":
        low, high = least_error(counts, low, high)
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max(high - low, 1e-8) / 255.0)
    return Range(scale, int(np.clip(round(-low / scale), 0, 255)))


def percentile(counts: np.ndarray, low: float, high: float, tail: float) -> tuple:
    """The interval that leaves a share of `tail` on each side."""
    share = np.cumsum(counts) / counts.sum()
    edges = np.linspace(low, high, BINS + 1)
    first = int(np.searchsorted(share, tail))
    last = int(np.searchsorted(share, 1 - tail))
    return float(edges[first]), float(edges[min(last + 1, BINS)])


def least_error(counts: np.ndarray, low: float, high: float) -> tuple:
    """The shrunken interval whose rounding and clipping error, squared, is least."""
    centres = low + (np.arange(BINS) + 0.5) * (high - low) / BINS
    best = (np.inf, low, high)
    for keep in np.linspace(0.3, 1.0, 36):
        a, b = low * keep, high * keep
        scale = max(b - a, 1e-8) / 255.0
        codes = np.clip(np.round((centres - a) / scale), 0, 255)
        error = float((counts * (codes * scale + a - centres) ** 2).sum())
        best = min(best, (error, a, b))
    return best[1], best[2]


def weight_scale(weight: np.ndarray) -> np.float32:
    """Symmetric scale of a kernel: the one of least squared error among slightly clipped ones."""
    peak = max(float(np.abs(weight).max()), 1e-8)
    best = (np.inf, peak)
    for keep in np.linspace(0.5, 1.0, 26):
        scale = peak * keep / 127.0
        codes = np.clip(np.round(weight / scale), -127, 127)
        best = min(best, (float(((codes * scale - weight) ** 2).sum()), peak * keep))
    return np.float32(best[1] / 127.0)


def clear_of_ties(ratio: float) -> bool:
    """Whether no whole number times `ratio` lies so near the middle of two codes, up to 255, that float32 could round it to either."""
    values = np.arange(1, int(256 / ratio) + 1) * ratio
    return bool((np.abs(values - np.floor(values) - 0.5) > TIE_MARGIN * values).all())


def without_ties(wanted: Range, product: float) -> Range:
    """The range with its scale moved by a few millionths, so that every engine rounds a convolution's sums to the same codes.

    `product` is input scale times weight scale: a sum of n stands for n * product. One code that engines round differently
    in an early layer changes a third of the codes behind it.
    """
    for step in range(TIE_STEPS):
        scale = np.float32(np.float64(wanted.scale) * (1 + step * TIE_STEP))
        if clear_of_ties(product / np.float64(scale)):
            return Range(scale, wanted.zero)
    raise ValueError(f"no scale near {wanted.scale} keeps sums of {product} away from ties; calibrate with other pictures")


class Rewriter:
    """Builds the quantised graph node by node in the float graph's order."""

    def __init__(self, model: onnx.ModelProto, ranges: dict):
        self.plan = Plan(model)
        self.ranges = ranges
        self.constants = {i.name: i for i in model.graph.initializer}
        self.source = model
        self.nodes, self.new_constants = [], []
        self.coded = {"pixels"}
        self.made = set()

    def constant(self, name: str, value: np.ndarray) -> str:
        """Adds an initializer once and gives its name."""
        if name not in self.made:
            self.made.add(name)
            self.new_constants.append(numpy_helper.from_array(value, name))
        return name

    def scale_and_zero(self, tensor: str) -> list:
        """Names of the two constants of a u8 tensor."""
        r = self.ranges[tensor]
        return [
            self.constant(f"{tensor}.scale", np.array(r.scale, np.float32)),
            self.constant(f"{tensor}.zero", np.array(r.zero, np.uint8)),
        ]

    def codes(self, tensor: str) -> str:
        """Name of a tensor's u8 form; quantises a float one on first use."""
        name = tensor if tensor == "pixels" else f"{tensor}.u8"
        if tensor not in self.coded:
            self.coded.add(tensor)
            self.nodes.append(helper.make_node("QuantizeLinear", [tensor, *self.scale_and_zero(tensor)], [name]))
        return name

    def convolution(self, conv) -> None:
        """Emits a QLinearConv, and a DequantizeLinear where something other than a convolution reads the result."""
        source, result = conv.input[0], self.plan.result[conv.output[0]]
        weight = numpy_helper.to_array(self.constants[conv.input[1]])
        bias = numpy_helper.to_array(self.constants[conv.input[2]])
        scale = weight_scale(weight)
        product = np.float64(self.ranges[source].scale) * np.float64(scale)
        self.ranges[result] = without_ties(self.ranges[result], product)
        stem = conv.input[1].removesuffix(".weight")
        codes = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
        bias_codes = np.clip(np.round(bias / product), -(2**31) + 1, 2**31 - 1).astype(np.int32)
        inputs = [
            self.codes(source),
            *self.scale_and_zero(source),
            self.constant(f"{stem}.weight.s8", codes),
            self.constant(f"{stem}.weight.scale", np.array(scale, np.float32)),
            self.constant(f"{stem}.weight.zero", np.array(0, np.int8)),
            *self.scale_and_zero(result),
            self.constant(f"{stem}.bias.s32", bias_codes),
        ]
        node = helper.make_node("QLinearConv", inputs, [f"{result}.u8"], name=conv.name)
        node.attribute.extend(conv.attribute)
        self.nodes.append(node)
        self.coded.add(result)
        if self.read_as_float(result):
            self.nodes.append(
                helper.make_node("DequantizeLinear", [f"{result}.u8", *self.scale_and_zero(result)], [result])
            )

    def read_as_float(self, tensor: str) -> bool:
        """Whether anything but a convolution reads a tensor."""
        return tensor in self.plan.outputs or any(n.op_type != "Conv" for n in self.plan.readers.get(tensor, []))

    def build(self) -> onnx.ModelProto:
        """The whole quantised graph."""
        absorbed = {relu.output[0] for relu in self.plan.relu.values() if relu is not None}
        for node in self.source.graph.node:
            if node.op_type == "Conv":
                self.convolution(node)
            elif node.output[0] not in absorbed:
                self.nodes.append(node)
        graph = self.source.graph
        used = {name for node in self.nodes for name in node.input}
        kept = [i for i in graph.initializer if i.name in used]
        shape = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim]
        pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)
        result = helper.make_graph(self.nodes, "trunk", [pixels], list(graph.output), kept + self.new_constants)
        model = helper.make_model(
            result, opset_imports=list(self.source.opset_import), ir_version=self.source.ir_version
        )
        model.producer_name = self.source.producer_name
        onnx.checker.check_model(model)
        return model


def quantise(model: onnx.ModelProto, statistics: dict, method: str) -> onnx.ModelProto:
    """Int8 form of a float trunk, with ranges chosen from `observe`'s histograms."""
    ranges = {name: choose_range(*histogram, method) for name, histogram in statistics.items()}
    ranges["pixels"] = Range(INPUT_SCALE, 0)
    for conv in Plan(model).convs:
        if not any(a.name == "group" and a.i != 1 for a in conv.attribute):
            continue
        raise ValueError(f"{conv.name}: grouped convolutions have no int8 kernel on the device")
    return Rewriter(model, ranges).build()

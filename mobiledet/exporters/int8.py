"""Post-training static INT8 quantisation of an exported graph, by ONNX Runtime's quantiser.

Weights are int8 with a scale for each output channel, activations uint8 with the range seen on real images. Three
things are done beyond the quantiser's defaults, each of which is worth more than the choice of its method (the figures
are in docs/deploy.md):

- The last layers keep float results. A logit cut to 256 steps makes ties of scores that rank differently.
- They are written as matrix products, which ONNX Runtime computes in int8 with a float result; of a convolution it
  can't, and would fall back to float.
- Pixels are int8 already: they are taken as they are, with the mean as zero point, instead of being made float,
  normalised and quantised again. That is exact where mean and deviation are the same for all colours and whole.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from mobiledet.errors import ModelFileError
from mobiledet.exporters.base import Method, quiet
from mobiledet.models.quantization import Range, range_steps
from mobiledet.runtime.base import THRESHOLDS, graph_inputs
from mobiledet.structures import ImageArray

PERCENTILE = 99.99
"""Share of an activation's values, in percent, inside its range; what lies beyond is cut off."""

QUANTISED = ("Conv", "Gemm", "MatMul", "Clip", "Relu", "Resize", "Add")
FLOAT_RESULTS = ("Gemm", "MatMul")
PIXELS = "pixels"


def quantise(
    graph: onnx.ModelProto,
    images: Sequence[ImageArray],
    *,
    ranges: Mapping[str, Range] | None = None,
    method: Method = "minmax",
    keep_float: Sequence[str] = (),
) -> onnx.ModelProto:
    """An INT8 graph of a float one.

    Args:
        graph: As :func:`mobiledet.exporters.onnx.trace_onnx` gives it.
        images: Real images in the network's size, batches ``(B, H, W, 3)`` uint8; 50 to 100 do.
        ranges: Of the results of each layer, in the order they run, where they are known; no images are needed then.
        method: How the range of an activation is chosen from what was seen.
        keep_float: Names of layers (see :func:`layer_names`) that stay as they are.

    Raises:
        ModelFileError: No images, or no such layer.
    """
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    if ranges is not None:
        shape = [dimension.dim_value or 1 for dimension in graph.graph.input[0].type.tensor_type.shape.dim]
        images = [np.zeros(shape, np.uint8)]  # what is measured on it, isn't used
    if not images:
        raise ModelFileError("INT8 needs images to measure ranges on; name some with --calibration")
    known = layer_names(graph)
    for name in keep_float:
        if name not in known:
            raise ModelFileError(f"no layer {name!r} to keep in float; there are {', '.join(known)}")
    prepared = pixels_as_they_are(last_layers_as_products(graph))
    values = constants(prepared)
    overrides = {}
    if f"{PIXELS}_scale" in values:
        overrides[PIXELS] = [{"scale": values[f"{PIXELS}_scale"], "zero_point": values[f"{PIXELS}_zero"]}]
    if ranges is not None:
        overrides |= _known_steps(prepared, ranges)
    kept = _kept_nodes(prepared, keep_float)
    with tempfile.TemporaryDirectory() as folder, quiet(""):
        source, target = (str(Path(folder) / name) for name in ("float.onnx", "int8.onnx"))
        onnx.save(onnx.shape_inference.infer_shapes(prepared), source)
        quantize_static(
            source,
            target,
            _Calibration(images, suppressed=any(value.name in THRESHOLDS for value in graph.graph.input)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(QUANTISED),
            nodes_to_exclude=kept,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax if method == "minmax" else CalibrationMethod.Percentile,
            extra_options={
                "CalibPercentile": PERCENTILE,
                "OpTypesToExcludeOutputQuantization": list(FLOAT_RESULTS),
                "QDQOpTypePerChannelSupportToAxis": {"MatMul": 1},
                "TensorQuantOverrides": overrides,
            },
        )
        quantised = onnx.load(target)
    return _without_double_steps(quantised)


def layer_names(graph: onnx.ModelProto) -> list[str]:
    """Names of the layers with weights, in the order they run, such as ``backbone.layers.conv0.conv``."""
    return [name for node in graph.graph.node if (name := layer_of(node)) is not None]


def layer_of(node: onnx.NodeProto) -> str | None:
    """The layer whose weights a node uses; None without weights."""
    if node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    weight: str = node.input[1]
    return weight.removeprefix("model.").split(".weight")[0]


def last_layers_as_products(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, its 1x1 convolutions whose result is turned to channels last written as matrix products."""
    changed = copy.deepcopy(graph)
    weights, readers = constants(changed), _readers(changed)
    nodes: list[onnx.NodeProto] = []
    turned: dict[str, str] = {}
    replaced, added = set(), set()
    for node in changed.graph.node:
        following = readers.get(node.output[0], [])
        if node.name in replaced:
            continue
        if not _is_predictor(node, following, weights):
            nodes.append(node)
            continue
        turn = following[0]
        replaced.add(turn.name)
        source = node.input[0]
        if source not in turned:
            turned[source] = f"{source}_channels_last"
            nodes.append(
                helper.make_node("Transpose", [source], [turned[source]], name=turned[source], perm=[0, 2, 3, 1])
            )
        weight, bias, product = f"{node.input[1]}.T", f"{node.input[2]}.4d", f"{turn.output[0]}_product"
        matrix = np.ascontiguousarray(weights[node.input[1]][:, :, 0, 0].T)
        # With a bias of one dimension product and sum would be fused to a Gemm, which is computed in float.
        shift = weights[node.input[2]].reshape(1, 1, 1, -1)
        # Predictors with equal weights, as fresh ones have, share them in the graph.
        for name, values in ((weight, matrix), (bias, shift)):
            if name not in added:
                changed.graph.initializer.append(numpy_helper.from_array(values, name))
                added.add(name)
        nodes.append(helper.make_node("MatMul", [turned[source], weight], [product], name=product))
        nodes.append(helper.make_node("Add", [product, bias], [turn.output[0]], name=f"{product}_bias"))
    return with_nodes(changed, nodes)


def pixels_as_they_are(graph: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph, cast and normalisation of the pixels written as one dequantisation, where that is possible.

    A mean that isn't whole is rounded, and the rest goes into the first layer's bias; that is exact but for the
    image's outermost pixels, where the padding sees the rest, too: half a step of 255.
    """
    changed = copy.deepcopy(graph)
    readers, weights = _readers(changed), constants(changed)
    # Where any number of images is taken, their shape is read, too.
    chain = [node for node in readers["images"] if node.op_type != "Shape"][:1]
    for kind in ("Transpose", "Cast", "Sub", "Mul", "Conv"):
        following = readers.get(chain[-1].output[0], [])
        if chain[-1].op_type != kind or (kind != "Conv" and len(following) != 1):
            return graph
        if kind != "Conv":
            chain.append(following[0])
    turn, cast, sub, mul, conv = chain
    mean, inverse = weights[sub.input[1]].ravel(), weights[mul.input[1]].ravel()
    if np.ptp(mean) or np.ptp(inverse) or not 0 <= mean[0] <= 255:
        return graph
    zero = round(float(mean[0]))
    bias = weights[conv.input[2]] + weights[conv.input[1]].sum(axis=(1, 2, 3)) * (zero - mean[0]) * inverse[0]
    changed.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(inverse[0], np.float32), f"{PIXELS}_scale"),
            numpy_helper.from_array(np.array(zero, np.uint8), f"{PIXELS}_zero"),
            numpy_helper.from_array(bias.astype(np.float32), f"{conv.input[2]}.shifted"),
        ]
    )
    inputs = [turn.output[0], f"{PIXELS}_scale", f"{PIXELS}_zero"]
    step = helper.make_node("DequantizeLinear", inputs, [PIXELS], name=PIXELS)
    nodes: list[onnx.NodeProto] = []
    for node in changed.graph.node:
        if node.name in (cast.name, sub.name, mul.name):
            continue
        if node.name == conv.name:
            nodes.append(step)
            node.input[0], node.input[2] = PIXELS, f"{conv.input[2]}.shifted"
        nodes.append(node)
    return with_nodes(changed, nodes)


class _Calibration:
    """Images as ONNX Runtime's calibration asks for them."""

    def __init__(self, images: Sequence[ImageArray], *, suppressed: bool) -> None:
        self._left = iter(images)
        # Nothing passes a threshold of 1, so that suppression takes no time.
        self._thresholds = (1.0, 1.0) if suppressed else ()

    def get_next(self) -> dict[str, Any] | None:
        images = next(self._left, None)
        return None if images is None else graph_inputs(images, *self._thresholds)

    def __len__(self) -> int:
        return 0  # asked only by calibrations in strides, which isn't used


def constants(graph: onnx.ModelProto) -> dict[str, Any]:
    """Name to array of every stored tensor."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}


def _known_steps(graph: onnx.ModelProto, ranges: Mapping[str, Range]) -> dict[str, list[dict[str, Any]]]:
    """The quantiser's settings of every result of a layer, and of the same behind its activation or turned.

    Layers are known by the order they run in: a weight of which only a part is used, as on a map of one cell, has lost
    its name.
    """
    readers, sums = _readers(graph), _sums(graph)
    layers = [node for node in graph.graph.node if layer_of(node) is not None or node.name in sums]
    found: dict[str, list[dict[str, Any]]] = {}
    for node, bounds in zip(layers, ranges.values(), strict=True):
        scale, zero = range_steps(bounds)
        names = [node.output[0]]
        for result in names:
            found[result] = [{"scale": np.array(scale, np.float32), "zero_point": np.array(zero + 128, np.uint8)}]
            names += [n.output[0] for n in readers.get(result, []) if n.op_type in ("Clip", "Relu", "Transpose")]
    return found


def _kept_nodes(graph: onnx.ModelProto, keep_float: Sequence[str]) -> list[str]:
    """Names of the nodes of some layers, and of activations and sums that follow no quantised layer, as in decoding."""
    activations = {node.name: node.input[0] for node in graph.graph.node if node.op_type in ("Clip", "Relu")}
    layers = {node.name: node.output[0] for node in graph.graph.node if layer_of(node) is not None}
    kept = [node.name for node in graph.graph.node if layer_of(node) in keep_float]
    quantised = {result for name, result in layers.items() if name not in kept}
    sums = _sums(graph)
    kept += [node.name for node in graph.graph.node if node.op_type == "Add" and node.name not in sums]
    return kept + [name for name, given in activations.items() if given not in quantised]


def _sums(graph: onnx.ModelProto) -> set[str]:
    """Names of the nodes that add an enlarged map to another, as a pyramid does."""
    enlarged = {node.output[0] for node in graph.graph.node if node.op_type == "Resize"}
    return {node.name for node in graph.graph.node if node.op_type == "Add" and enlarged & set(node.input)}


def _without_double_steps(graph: onnx.ModelProto) -> onnx.ModelProto:
    """Pixels that are dequantised, quantised and dequantised with the same scale are dequantised once."""
    readers = _readers(graph)
    for quantise_step in readers.get(PIXELS, []):
        if quantise_step.op_type != "QuantizeLinear":
            continue
        for again in readers.get(quantise_step.output[0], []):
            for reader in readers.get(again.output[0], []):
                for index, name in enumerate(reader.input):
                    if name == again.output[0]:
                        reader.input[index] = PIXELS
            graph.graph.node.remove(again)
        graph.graph.node.remove(quantise_step)
    return graph


def _is_predictor(node: onnx.NodeProto, following: Sequence[onnx.NodeProto], weights: dict[str, Any]) -> bool:
    if node.op_type != "Conv" or len(following) != 1 or following[0].op_type != "Transpose":
        return False
    turned = [list(attribute.ints) for attribute in following[0].attribute if attribute.name == "perm"]
    weight = weights.get(node.input[1])
    return turned == [[0, 2, 3, 1]] and weight is not None and weight.shape[2:] == (1, 1) and len(node.input) == 3


def _readers(graph: onnx.ModelProto) -> dict[str, list[onnx.NodeProto]]:
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return readers


def with_nodes(graph: onnx.ModelProto, nodes: Sequence[onnx.NodeProto]) -> onnx.ModelProto:
    """The graph with other nodes, and without the stored tensors that no node reads any more."""
    kept = copy.deepcopy(list(nodes))
    del graph.graph.node[:]
    graph.graph.node.extend(kept)
    read = {name for node in kept for name in node.input} | {output.name for output in graph.graph.output}
    tensors = [copy.deepcopy(tensor) for tensor in graph.graph.initializer if tensor.name in read]
    del graph.graph.initializer[:]
    graph.graph.initializer.extend(tensors)
    return graph

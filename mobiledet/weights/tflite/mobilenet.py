"""MobileNetV1's layers found in a TensorFlow Lite graph, by their shapes and connections rather than their names."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mobiledet.config import BackboneConfig
from mobiledet.errors import CheckpointError
from mobiledet.models.mobilenet_v1 import TABLE_1, scale_channels
from mobiledet.weights.tflite.contents import Normalisation
from mobiledet.weights.tflite.graph import TFLiteGraph, TFLiteOp

MIN_CHANNELS = (8, 16)
"""The reference code keeps at least 8 channels a layer; the Object Detection API's configs ask for 16."""

RELU6_TOLERANCE = 0.05
"""A quantised output that ends this close to 6 was clipped at 6: converters drop a ReLU6 that the range implies."""


@dataclass(frozen=True)
class FoldedConv:
    """A convolution with its batch-norm folded in.

    Attributes:
        weight: ``(out, in / groups, height, width)`` float32.
        bias: ``(out,)`` float32.
        output: Index of the tensor it computes.
    """

    weight: Tensor
    bias: Tensor
    output: int


@dataclass(frozen=True)
class FoundBackbone:
    """A MobileNetV1 in a graph.

    Attributes:
        config: Its width and padding.
        layers: Name below ``backbone.`` -> convolution, from the image on: ``layers.conv0``,
            ``layers.conv1.depthwise``, ``layers.conv1.pointwise``, ...
        input_size: ``(height, width)``.
        normalisation: Of pixels 0..255.
    """

    config: BackboneConfig
    layers: dict[str, FoldedConv]
    input_size: tuple[int, int]
    normalisation: Normalisation

    def output(self, name: str) -> int:
        """Index of the tensor that layer ``name`` (``"conv11"``) ends in."""
        return self.layers[f"layers.{name}.pointwise"].output


def find_backbone(graph: TFLiteGraph) -> FoundBackbone:
    """The 27 convolutions of Table 1, checked one by one.

    Raises:
        CheckpointError: The graph is another network; says where it differs.
    """
    size, normalisation = _image_input(graph)
    tensor = graph.inputs[0]
    layers: dict[str, FoldedConv] = {}
    for index, (kind, stride, _) in enumerate(TABLE_1):
        parts = [("", "CONV_2D", 3, stride)]
        if kind == "separable":
            parts = [(".depthwise", "DEPTHWISE_CONV_2D", 3, stride), (".pointwise", "CONV_2D", 1, 1)]
        for suffix, wanted, kernel, step in parts:
            name = f"layers.conv{index}{suffix}"
            op = _next_conv(graph, tensor, wanted, kernel, step, name)
            layers[name] = folded_conv(graph, op, name)
            tensor = layers[name].output
    channels = [len(layers[name].bias) for name in layers if not name.endswith("depthwise")]
    return FoundBackbone(tensorflow_config(channels, graph.describe()), layers, size, normalisation)


def folded_conv(graph: TFLiteGraph, op: TFLiteOp, name: str, *, relu6: bool = True) -> FoldedConv:
    """The real weights and biases of a convolution, in PyTorch's order of dimensions.

    With ``relu6`` a ReLU6 must follow, without it no activation may; ``name`` is for messages.

    Raises:
        CheckpointError: Something about it is not as in MobileNetV1 or SSD.
    """
    layer = stored_conv(graph, op, name)
    if not op.same or op.dilation != (1, 1):
        raise CheckpointError(f"{name}: its padding or dilation is not that of TensorFlow's SAME convolution")
    follows = _activation(graph, op)
    if follows != ("RELU6" if relu6 else "NONE"):
        raise CheckpointError(f"{name}: is followed by {follows}, MobileNetV1 has {'ReLU6' if relu6 else 'nothing'}")
    return layer


def stored_conv(graph: TFLiteGraph, op: TFLiteOp, name: str) -> FoldedConv:
    """The same, whatever its padding and activation."""
    weight, bias = graph.constant(op, 1), graph.constant(op, 2)
    if weight is None or (bias is None and len(op.inputs) > 2 and op.inputs[2] >= 0):
        raise CheckpointError(f"{name}: its weights are computed, not stored; convert the model after freezing it")
    # Stored as (out, height, width, in); depthwise as (1, height, width, channels).
    order = (3, 0, 1, 2) if op.kind == "DEPTHWISE_CONV_2D" else (0, 3, 1, 2)
    with np.errstate(all="ignore"):  # in damaged files; checked below
        kernel = np.ascontiguousarray(weight.transpose(order), np.float32)
        offsets = (bias if bias is not None else np.zeros(len(kernel))).astype(np.float32)
    if offsets.shape != kernel.shape[:1] or not (np.isfinite(kernel).all() and np.isfinite(offsets).all()):
        raise CheckpointError(f"{name}: weights {kernel.shape} and biases {offsets.shape} don't fit, or aren't finite")
    return FoldedConv(torch.from_numpy(kernel), torch.from_numpy(offsets), op.outputs[0])


def find_classifier(graph: TFLiteGraph, features: int) -> dict[str, Tensor] | None:
    """The one linear layer after global pooling, written as a 1x1 convolution or as FULLY_CONNECTED.

    ``features`` is the index of the tensor that the backbone ends in.

    Returns:
        ``weight`` ``(classes, channels)`` and ``bias`` ``(classes,)``; None if the file has features only.

    Raises:
        CheckpointError: The backbone is followed by something else.
    """
    pools = [op for op in graph.consumers(features) if op.kind in ("AVERAGE_POOL_2D", "MEAN")]
    if not pools:
        if graph.consumers(features):
            detector = any(op.kind == "CONCATENATION" for op in graph.ops)
            remedy = "; a detector must be exported with TFLite_Detection_PostProcess" if detector else ""
            raise CheckpointError(
                f"not a MobileNetV1 classifier: Conv13 isn't followed by pooling{remedy} ({graph.describe()})"
            )
        return None
    shape = graph.tensors[pools[0].outputs[0]].shape
    if len(shape) == 4 and shape[1:3] != (1, 1):
        raise CheckpointError(f"not a MobileNetV1 classifier: pooling leaves {shape[1]}x{shape[2]} places, not one")
    users = graph.consumers(pools[0].outputs[0])
    while users and users[0].kind in ("RESHAPE", "SQUEEZE"):
        users = graph.consumers(users[0].outputs[0])
    if not users:
        return None
    if users[0].kind == "CONV_2D":
        layer = folded_conv(graph, users[0], "the classifier", relu6=False)
        return {"weight": layer.weight.flatten(1), "bias": layer.bias}
    weight = graph.constant(users[0], 1) if users[0].kind == "FULLY_CONNECTED" else None
    if weight is None or weight.ndim != 2:
        raise CheckpointError(f"not a MobileNetV1 classifier: pooling is followed by {users[0].kind}")
    bias = graph.constant(users[0], 2)
    offsets = bias if bias is not None else np.zeros(len(weight))
    if offsets.shape != weight.shape[:1] or not (np.isfinite(weight).all() and np.isfinite(offsets).all()):
        raise CheckpointError("the classifier's weights and biases don't fit, or aren't finite")
    return {"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(offsets).float()}


def folded_state(prefix: str, layer: FoldedConv, epsilon: float) -> dict[str, Tensor]:
    """State of one of our layers (convolution without bias, then batch-norm) that computes what ``layer`` does.

    The norm does nothing: mean 0, variance 1, ``gamma = sqrt(1 + epsilon)``. That is exact in evaluation mode and
    useless for training; see :mod:`mobiledet.weights.folded_norms`.
    """
    channels = len(layer.bias)
    return {
        f"{prefix}.conv.weight": layer.weight,
        f"{prefix}.norm.weight": torch.full((channels,), (1.0 + epsilon) ** 0.5),
        f"{prefix}.norm.bias": layer.bias,
        f"{prefix}.norm.running_mean": torch.zeros(channels),
        f"{prefix}.norm.running_var": torch.ones(channels),
        f"{prefix}.norm.num_batches_tracked": torch.tensor(0),
    }


def _image_input(graph: TFLiteGraph) -> tuple[tuple[int, int], Normalisation]:
    if len(graph.inputs) != 1:
        raise CheckpointError(f"has {len(graph.inputs)} inputs, a detector or classifier has one image")
    tensor = graph.tensors[graph.inputs[0]]
    if len(tensor.shape) != 4 or tensor.shape[3] != 3 or min(tensor.shape[1:3]) < 1:
        raise CheckpointError(f"takes {tensor.shape}, not images (1, height, width, 3)")
    size = (tensor.shape[1], tensor.shape[2])
    if tensor.dtype == "FLOAT32":
        return size, graph.about.normalisation
    if tensor.range is None or not (tensor.scale[0] > 0 and np.isfinite(tensor.range).all()):
        raise CheckpointError(f"takes {tensor.dtype} images of unknown scale")
    darkest = 0 if tensor.dtype == "UINT8" else -128
    mean, std = float(tensor.zero_point[0]) - darkest, 1.0 / float(tensor.scale[0])
    return size, Normalisation((mean, mean, mean), (std, std, std))


def _next_conv(graph: TFLiteGraph, tensor: int, kind: str, kernel: int, stride: int, name: str) -> TFLiteOp:
    users = graph.consumers(tensor)
    for op in users:
        if op.kind == kind and op.stride == (stride, stride) and graph.weight_shape(op)[1:3] == (kernel, kernel):
            return op
    shapes = ["x".join(map(str, graph.weight_shape(op))) for op in users[:3]]
    found = ", ".join(f"{op.kind} {shape} stride {op.stride[0]}" for op, shape in zip(users, shapes, strict=False))
    raise CheckpointError(
        f"not a MobileNetV1: at {name} it should have a {kernel}x{kernel} {kind} of stride {stride}, "
        f"but has {found or 'the end'} ({graph.describe()})"
    )


def _activation(graph: TFLiteGraph, op: TFLiteOp) -> str:
    """What follows a convolution: fused into it, implied by where its quantised output ends, or a step of its own."""
    if op.activation != "NONE":
        return op.activation
    limits = graph.tensors[op.outputs[0]].range
    if limits is not None and abs(limits[0]) < 1e-6 and abs(limits[1] - 6.0) < RELU6_TOLERANCE:
        return "RELU6"
    after = [other.kind for other in graph.consumers(op.outputs[0]) if other.kind in ("RELU", "RELU6", "RELU_N1_TO_1")]
    if after:
        return f"{after[0]} as a step of its own"
    if limits is not None and abs(limits[0]) < 1e-6:
        return f"a range of 0 to {limits[1]:.3g}"
    return "NONE"


def tensorflow_config(channels: list[int], network: str) -> BackboneConfig:
    """The width multiplier and smallest width with which Table 1 gives exactly these channels of its 14 layers.

    Raises:
        CheckpointError: There is none; says so of ``network``.
    """
    fraction = channels[-1] / TABLE_1[-1][2]
    for minimum in MIN_CHANNELS:
        for alpha in (round(fraction, 2), round(fraction, 3), fraction, (channels[-1] + 0.5) / TABLE_1[-1][2]):
            if alpha > 0 and channels == [scale_channels(c, alpha, minimum) for _, _, c in TABLE_1]:
                return BackboneConfig(alpha=alpha, min_channels=minimum, padding="tensorflow")
    raise CheckpointError(
        f"not a MobileNetV1: no width multiplier gives channels {', '.join(map(str, channels))} ({network})"
    )

"""The networks in generated files: layers in order, random weights that keep activations alive, how they are stored.

They are computed in floating point by torch alone; what TensorFlow Lite makes of the same file is held against this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from tflite_builder import Quantization
from torch import Tensor

BLOCKS = ((1, 64), (2, 128), (1, 128), (2, 256), (1, 256), (2, 512), *[(1, 512)] * 5, (2, 1024), (1, 1024))
"""Stride and channels of the separable layers 1..13."""

EXTRA = ((256, 512), (128, 256), (128, 256), (64, 128))
MAPS = ("conv11", "conv13", "extra0", "extra1", "extra2", "extra3")

WEIGHTLESS = ("add", "pool")

TRAINED_END = 5.9997616
"""Where the ranges of hidden ReLU6 end in files whose ranges were learned: near 6, not at 6."""


@dataclass(frozen=True)
class Layer:
    """A layer as it is stored.

    Attributes:
        kind: ``"conv"``, ``"depthwise"``, ``"add"``, or ``"pool"`` over the whole map.
        sources: Names of the layers it is applied to; ``"input"`` is the image.
        stride: In both directions.
        activation: ``"RELU6"``, ``"RELU"`` or ``"NONE"``.
        weight: ``(out, height, width, in)``, depthwise ``(1, height, width, channels)``, float32.
        bias: ``(out,)`` float32.
        limit: Where a quantised output ends, if that clips it: 6 stands for a ReLU6 that isn't written.
    """

    kind: str
    sources: tuple[str, ...]
    stride: int = 1
    activation: str = "RELU6"
    weight: np.ndarray | None = None
    bias: np.ndarray | None = None
    limit: float | None = None


def make_images(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Random images with coarse and fine structure, ``(count, height, width, 3)`` uint8."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, *size)
    for cells, strength in ((2, 1.0), (6, 0.7), (20, 0.4)):
        noise = torch.randn(count, 3, cells, cells, generator=generator) * strength
        total += F.interpolate(noise, size=size, mode="bilinear", align_corners=False)
    total += 0.2 * torch.randn(count, 3, *size, generator=generator)
    return (torch.sigmoid(1.3 * total) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def forward(layers: Mapping[str, Layer], images: np.ndarray) -> dict[str, np.ndarray]:
    """Output of every layer.

    Args:
        layers: In order of execution.
        images: ``(B, height, width, 3)`` real values, as the first layer takes them.

    Returns:
        Name -> ``(B, height, width, channels)`` float32.
    """
    values = {"input": torch.from_numpy(np.ascontiguousarray(images, np.float32)).permute(0, 3, 1, 2)}
    for name, layer in layers.items():
        values[name] = apply(layer, [values[source] for source in layer.sources])
    return {name: value.permute(0, 2, 3, 1).numpy() for name, value in values.items() if name != "input"}


def apply(layer: Layer, inputs: list[Tensor]) -> Tensor:
    """One layer on ``(B, C, H, W)``."""
    out = linear(layer, inputs)
    if layer.activation != "NONE" or layer.limit is not None:
        highest = 6.0 if layer.activation == "RELU6" else float("inf")
        out = out.clamp(0.0, min(highest, layer.limit if layer.limit is not None else float("inf")))
    return out


def linear(layer: Layer, inputs: list[Tensor]) -> Tensor:
    """A layer before its activation."""
    if layer.kind == "add":
        return inputs[0] + inputs[1]
    if layer.kind == "pool":
        return inputs[0].mean(dim=(2, 3), keepdim=True)
    assert layer.weight is not None
    assert layer.bias is not None
    weight = torch.from_numpy(layer.weight).permute(*((3, 0, 1, 2) if layer.kind == "depthwise" else (0, 3, 1, 2)))
    groups = len(weight) if layer.kind == "depthwise" else 1
    padded = pad_same(inputs[0], weight.shape[2], layer.stride)
    return F.conv2d(padded, weight, torch.from_numpy(layer.bias), layer.stride, groups=groups)


def pad_same(x: Tensor, kernel: int, stride: int) -> Tensor:
    """TensorFlow's SAME padding: what is odd about it goes below and to the right."""
    before_after = []
    for length in (x.shape[3], x.shape[2]):
        total = max(0, (-(-length // stride) - 1) * stride + kernel - length)
        before_after += [total // 2, total - total // 2]
    return F.pad(x, before_after)


@dataclass(frozen=True)
class Planned:
    """A layer before it has weights: ``role`` says how its outputs are to be distributed."""

    name: str
    kind: str
    sources: tuple[str, ...]
    channels: int = 0
    kernel: int = 1
    stride: int = 1
    role: str = "hidden"


ROLES = {"hidden": (1.5, 1.0, 2.0), "linear": (0.0, 0.5, 1.5), "boxes": (0.0, 0.3, 1.0), "classes": (-1.5, 1.0, 1.5)}
"""Mean over channels and its spread, and the spread within a channel, of what a layer gives before its activation."""


def plan_backbone(alpha: float) -> list[Planned]:
    """MobileNetV1: ``conv0``, ``conv1_depthwise``, ``conv1_pointwise``, ... ``conv13_pointwise``."""
    plan = [Planned("conv0", "conv", ("input",), _scaled(32, alpha), 3, 2)]
    for index, (stride, channels) in enumerate(BLOCKS, 1):
        before, name = plan[-1], f"conv{index}"
        plan.append(Planned(f"{name}_depthwise", "depthwise", (before.name,), before.channels, 3, stride))
        plan.append(Planned(f"{name}_pointwise", "conv", (plan[-1].name,), _scaled(channels, alpha)))
    return plan


def plan_inverted(alpha: float) -> list[Planned]:
    """As :func:`plan_backbone`, but in MobileNetV2's blocks, which widen, filter, narrow, and add their input."""
    plan = [Planned("conv0", "conv", ("input",), _scaled(32, alpha), 3, 2)]
    for index, (stride, channels) in enumerate(BLOCKS, 1):
        before, name, out = plan[-1], f"conv{index}", _scaled(channels, alpha)
        wide = 2 * before.channels
        plan.append(Planned(f"{name}_expand", "conv", (before.name,), wide))
        plan.append(Planned(f"{name}_depthwise", "depthwise", (plan[-1].name,), wide, 3, stride))
        residual = stride == 1 and before.channels == out
        end = f"{name}_project" if residual else f"{name}_pointwise"
        plan.append(Planned(end, "conv", (plan[-1].name,), out, role="linear"))
        if residual:
            plan.append(Planned(f"{name}_pointwise", "add", (before.name, end), out, role="sum"))
    return plan


def plan_ssd(backbone: list[Planned], alpha: float, num_classes: int) -> list[Planned]:
    """The backbone, ``extra0_1x1``, ``extra0_3x3``, ..., ``box_predictor0``, ``class_predictor0``, ..."""
    plan = list(backbone)
    for index, (reduced, out) in enumerate(EXTRA):
        plan.append(Planned(f"extra{index}_1x1", "conv", (plan[-1].name,), _scaled(reduced, alpha, 16)))
        plan.append(Planned(f"extra{index}_3x3", "conv", (plan[-1].name,), _scaled(out, alpha, 16), 3, 2))
    for index, name in enumerate(MAPS):
        source = (f"{name}_3x3" if name.startswith("extra") else f"{name}_pointwise",)
        shapes = 3 if index == 0 else 6
        plan.append(Planned(f"box_predictor{index}", "conv", source, shapes * 4, role="boxes"))
        plan.append(Planned(f"class_predictor{index}", "conv", source, shapes * (num_classes + 1), role="classes"))
    return plan


def plan_classifier(backbone: list[Planned], num_classes: int | None) -> list[Planned]:
    """The backbone, ``pool`` and ``classifier``."""
    plan = [*backbone, Planned("pool", "pool", (backbone[-1].name,), backbone[-1].channels, role="sum")]
    if num_classes is not None:
        plan.append(Planned("classifier", "conv", ("pool",), num_classes, role="linear"))
    return plan


@lru_cache(maxsize=16)
def draw(plan: tuple[Planned, ...], size: tuple[int, int], activation: str) -> dict[str, Layer]:
    """Random weights. Cached, as most tests write the same network: change nothing in it.

    He's scale alone lets a random MobileNet forget its image after a few layers, for every channel ends up at a level
    of its own. So each channel is put where a trained batch-norm would put it, measured on random images.
    """
    rng = np.random.default_rng(0)
    values = {"input": _images(size, 127.5, 127.5)}
    layers: dict[str, Layer] = {}
    for planned in plan:
        inputs = [values[source] for source in planned.sources]
        layer = Layer(planned.kind, planned.sources, planned.stride, activation if planned.role == "hidden" else "NONE")
        if planned.kind not in WEIGHTLESS:
            layer = _weighted(layer, planned, inputs, rng)
        layers[planned.name] = layer
        values[planned.name] = apply(layer, inputs)
    return layers


def _weighted(layer: Layer, planned: Planned, inputs: list[torch.Tensor], rng: np.random.Generator) -> Layer:
    kernel, channels = (planned.kernel, planned.kernel), inputs[0].shape[1]
    depthwise = planned.kind == "depthwise"
    shape = (1, *kernel, channels) if depthwise else (planned.channels, *kernel, channels)
    fan_in = planned.kernel**2 * (1 if depthwise else channels)
    weight = rng.normal(0, math.sqrt(2 / fan_in), shape)
    raw = replace(layer, weight=weight.astype(np.float32), bias=np.zeros(planned.channels, np.float32))
    found = linear(raw, inputs).double().transpose(0, 1).flatten(1).numpy()
    mean, spread, inside = ROLES[planned.role]
    # A channel that hardly varies would need huge weights, which no trained network has.
    gain = inside / np.maximum(found.std(axis=1), 0.25 * found.std(axis=1).mean() + 1e-3)
    bias = rng.normal(mean, spread, planned.channels) - gain * found.mean(axis=1)
    weight *= gain if depthwise else gain[:, None, None, None]
    return replace(raw, weight=weight.astype(np.float32), bias=bias.astype(np.float32))


@dataclass(frozen=True)
class Constant:
    """Numbers as a file stores them."""

    stored: np.ndarray
    dtype: str
    quantization: Quantization | None = None

    @property
    def real(self) -> np.ndarray:
        """What they stand for, float32."""
        if self.quantization is not None:
            return self.quantization.real(self.stored)
        return self.stored.astype(np.float32)


@dataclass(frozen=True)
class Stored:
    """A layer's numbers as a file stores them, and the scale of what it computes."""

    weight: Constant | None = None
    bias: Constant | None = None
    output: Quantization | None = None


def store(
    layers: dict[str, Layer], size: tuple[int, int], kind: str, *, hidden_relu6: bool, range_end: float | None
) -> tuple[dict[str, Layer], dict[str, Stored]]:
    """Round a network to what a kind of file can hold.

    Args:
        layers: From :func:`draw`.
        size: ``(height, width)`` of the images.
        kind: ``"float32"``, ``"float16"``, ``"uint8"`` or ``"int8"``.
        hidden_relu6: Leave the backbone's ReLU6 out, where a quantised output that ends at 6 implies it.
        range_end: Where the output of ``conv5_pointwise`` ends instead.

    Returns:
        The network that the file computes, and its numbers. Name -> layer in both.
    """
    if kind in ("float32", "float16"):
        dtype = kind.upper()
        held = {name: _stored_float(layer, dtype) for name, layer in layers.items()}
        return {name: _as_stored(layer, held[name]) for name, layer in layers.items()}, held
    dtype, out, held = kind.upper(), {}, {}
    mean, std = input_scale(kind)
    values, scales = {"input": _images(size, mean, std)}, {"input": input_quantization(kind)}
    for name, layer in layers.items():
        inputs = [values[source] for source in layer.sources]
        stored = Stored()
        if layer.kind not in WEIGHTLESS:
            stored = _stored_quantized(layer, dtype, float(scales[layer.sources[0]].scale[0]))
        out[name] = _as_stored(layer, stored)
        backbone = name.startswith("conv")
        if layer.kind == "pool":
            scales[name] = scales[layer.sources[0]]
        elif layer.activation == "RELU6" and (dtype == "INT8" or backbone):
            end = TRAINED_END if hidden_relu6 else 6.0
            if backbone and (hidden_relu6 or (range_end is not None and name == "conv5_pointwise")):
                end = range_end if range_end is not None and name == "conv5_pointwise" else end
                out[name] = replace(out[name], activation="NONE", limit=end)
            scales[name] = Quantization.spanning(0.0, end, dtype)
        else:
            # With learned ranges it was measured before the activation, hence below 0 for a fused ReLU6, too.
            found = apply(out[name], inputs) if layer.activation == "RELU" else linear(out[name], inputs)
            scales[name] = Quantization.spanning(1.2 * float(found.min()), 1.2 * float(found.max()), dtype)
        values[name] = apply(out[name], inputs)
        held[name] = replace(stored, output=scales[name])
    if dtype == "INT8":
        held |= _same_scale(held, "box_predictor") | _same_scale(held, "class_predictor")
    return out, held


def input_scale(kind: str) -> tuple[float, float]:
    """What a pixel 0..255 is reduced by, then divided by, to be what the first layer takes."""
    return {"uint8": (128.0, 128.0), "int8": (127.0, 127.5)}.get(kind, (127.5, 127.5))


def input_quantization(kind: str) -> Quantization:
    """Scale of a quantised network's images."""
    mean, std = input_scale(kind)
    return Quantization.of(1.0 / std, int(mean) - (128 if kind == "int8" else 0))


def _stored_float(layer: Layer, dtype: str) -> Stored:
    if layer.weight is None or layer.bias is None:
        return Stored()
    as_type = np.dtype(dtype.lower())
    return Stored(Constant(layer.weight.astype(as_type), dtype), Constant(layer.bias.astype(as_type), dtype))


def _stored_quantized(layer: Layer, dtype: str, input_step: float) -> Stored:
    assert layer.weight is not None
    assert layer.bias is not None
    if dtype == "UINT8":
        scale = Quantization.spanning(layer.weight.min(), layer.weight.max(), dtype)
    else:
        axis = 3 if layer.kind == "depthwise" else 0
        largest = np.abs(layer.weight).max(axis=tuple(a for a in range(4) if a != axis))
        scale = Quantization((largest / 127).astype(np.float32), np.zeros(len(largest), np.int64), axis)
    steps = (np.float32(input_step) * scale.scale).astype(np.float32)
    bias_scale = Quantization(steps, np.zeros(len(steps), np.int64), 0)
    return Stored(
        Constant(scale.store(layer.weight, dtype), dtype, scale),
        Constant(bias_scale.store(layer.bias, "INT32"), "INT32", bias_scale),
    )


def _as_stored(layer: Layer, stored: Stored) -> Layer:
    if stored.weight is None or stored.bias is None:
        return layer
    return replace(layer, weight=stored.weight.real, bias=stored.bias.real)


def _same_scale(held: dict[str, Stored], prefix: str) -> dict[str, Stored]:
    """One scale for outputs that are put together: TensorFlow Lite's int8 CONCATENATION doesn't rescale."""
    outputs = {name: stored.output for name, stored in held.items() if name.startswith(prefix)}
    ends = [stored.real(np.array([-128, 127])) for stored in outputs.values() if stored is not None]
    if not ends:
        return {}
    whole = Quantization.spanning(min(low for low, _ in ends), max(high for _, high in ends), "INT8")
    return {name: replace(held[name], output=whole) for name in outputs}


def _images(size: tuple[int, int], mean: float, std: float) -> torch.Tensor:
    # Maps of one cell give a channel one value a image, so small images must be many.
    count = max(4, min(16, 16 * 96 * 128 // (size[0] * size[1])))
    pixels = _pixels(count, size)
    return torch.from_numpy((pixels - np.float32(mean)) / np.float32(std)).permute(0, 3, 1, 2).contiguous()


@lru_cache(maxsize=16)
def _pixels(count: int, size: tuple[int, int]) -> np.ndarray:
    return make_images(count, size, seed=99).astype(np.float32)


def _scaled(channels: int, alpha: float, least: int = 8) -> int:
    return max(least, int(channels * alpha))


def ssd_anchors(
    map_sizes: Sequence[tuple[int, int]], input_size: tuple[int, int], scale_min: float, scale_max: float
) -> np.ndarray:
    """The Object Detection API's anchors ``(N, 4)``: centre y, centre x, height, width as fractions of the image.

    Its lowest map begins with a fixed 0.1, whatever ``scale_min`` is. Sizes are relative to the shorter side.
    """
    last = len(map_sizes) - 1
    scales = [scale_min + (scale_max - scale_min) * k / last for k in range(last + 1)] + [1.0]
    share = min(input_size) / np.array(input_size, np.float64)
    anchors = []
    for k, (rows, columns) in enumerate(map_sizes):
        shapes = [(scales[k], ratio) for ratio in (1.0, 2.0, 1 / 2, 3.0, 1 / 3)]
        shapes.append((math.sqrt(scales[k] * scales[k + 1]), 1.0))
        if k == 0:
            shapes = [(0.1, 1.0), (scales[0], 2.0), (scales[0], 0.5)]
        for row in range(rows):
            for column in range(columns):
                centre = ((row + 0.5) / rows, (column + 0.5) / columns)
                for scale, ratio in shapes:
                    size = (scale / math.sqrt(ratio) * share[0], scale * math.sqrt(ratio) * share[1])
                    anchors.append((*centre, *size))
    return np.array(anchors)

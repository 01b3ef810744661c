"""MobileNetV1 and SSD computed from the weights of a generated file, in floating point, by torch alone.

What TensorFlow Lite makes of the same file is held against this.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Layer:
    """A layer as it is stored.

    Attributes:
        kind: ``"conv"``, ``"depthwise"``, ``"add"``, or ``"pool"`` over the whole map.
        sources: Names of the layers it is applied to; ``"input"`` is the picture.
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


def make_pictures(count: int, size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Random pictures with coarse and fine structure, ``(count, height, width, 3)`` uint8."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.zeros(count, 3, *size)
    for cells, strength in ((2, 1.0), (6, 0.7), (20, 0.4)):
        noise = torch.randn(count, 3, cells, cells, generator=generator) * strength
        total += F.interpolate(noise, size=size, mode="bilinear", align_corners=False)
    total += 0.2 * torch.randn(count, 3, *size, generator=generator)
    return (torch.sigmoid(1.3 * total) * 255).round().byte().permute(0, 2, 3, 1).contiguous().numpy()


def forward(layers: Mapping[str, Layer], pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Output of every layer.

    Args:
        layers: In order of execution.
        pictures: ``(B, height, width, 3)`` real values, as the first layer takes them.

    Returns:
        Name -> ``(B, height, width, channels)`` float32.
    """
    values = {"input": torch.from_numpy(np.ascontiguousarray(pictures, np.float32)).permute(0, 3, 1, 2)}
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

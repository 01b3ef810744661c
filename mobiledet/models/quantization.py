"""The rounding of INT8 files imitated in float, so that a detector can learn to live with it.

The scheme is that of the exporters (Jacob et al. 2018, arXiv 1712.05877): of the weights, batch-norm folded into them,
every output channel has a step of its own, and the results of every convolution and every sum of two maps lie on 256
steps of a range that holds 0.
Gradients pass rounding as if it weren't there; results beyond the range are cut off, and have none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mobiledet.models.detection_model import DetectionModel
from mobiledet.models.layers import ConvNormAct, UpsampleAdd

Range = tuple[float, float]
"""Smallest and largest result of a layer; 0, the padding, lies between."""

_RAREST_LOGIT = -7.0
"""Logits below it (scores under 0.001) needn't be distinguished; without them the steps of the others are finer."""


def range_steps(bounds: Range) -> tuple[float, int]:
    """Scale and zero point, -128..127, of 256 steps over a range, one of them 0."""
    low, high = bounds
    scale = max(high - low, 1e-6) / 255
    return scale, min(max(round(-128 - low / scale), -128), 127)


class Int8ConvNormAct(ConvNormAct):
    """A layer that rounds as INT8 does. Batch-norm, folded, uses its running statistics, which stand still."""

    bounds: Range

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H', W')``, float32."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        with torch.autocast(input.device.type, enabled=False):
            scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
            folded = {
                "weight": _rounded_weight(self.conv.weight * scale[:, None, None, None]),
                "bias": norm.bias - norm.running_mean * scale,
            }
            return _rounded(self.act(functional_call(self.conv, folded, input)), self.bounds)


class Int8Conv2d(nn.Conv2d):
    """A predictor that rounds as INT8 does."""

    bounds: Range

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', H', W')``, float32."""
        with torch.autocast(input.device.type, enabled=False):
            weight = _rounded_weight(self.weight)
            result = F.conv2d(input, weight, self.bias, self.stride, self.padding, self.dilation, self.groups)
            return _rounded(result, self.bounds)


class Int8UpsampleAdd(UpsampleAdd):
    """A sum of two maps that rounds as INT8 does."""

    bounds: Range

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """``(B, C, H, W)`` and ``(B, C, ceil(H / 2), ceil(W / 2))`` to ``(B, C, H, W)``, float32."""
        return _rounded(super().forward(fine, coarse), self.bounds)


_IMITATIONS: dict[type[nn.Module], type[nn.Module]] = {
    ConvNormAct: Int8ConvNormAct,
    UpsampleAdd: Int8UpsampleAdd,
    nn.Conv2d: Int8Conv2d,
}
_ROUNDED = (Int8ConvNormAct, Int8UpsampleAdd, Int8Conv2d)


def imitate_int8(model: nn.Module, ranges: Mapping[str, Range] | None) -> None:
    """Have a detector round as the INT8 file with these ranges does, in place; None ends it.

    Layers only change their class: parameters, buffers and names stay, and with them optimiser and averages.

    Raises:
        ValueError: The ranges aren't those of the model's layers, or can't be.
        LookupError: It has layers of other kinds.
    """
    layers = _layers(model)
    for layer in layers.values():
        if isinstance(layer, _ROUNDED):
            layer.__class__ = type(layer).__bases__[0]
            del layer.bounds
    if ranges is None:
        return
    if layers.keys() != ranges.keys():
        raise ValueError(f"ranges of {len(ranges)} layers, not of these {len(layers)}")
    for name, layer in layers.items():
        low, high = ranges[name]
        if not (-math.inf < low <= 0 <= high < math.inf):
            raise ValueError(f"the range of {name} is {low} to {high}")
        layer.__class__ = _IMITATIONS[type(layer)]
        layer.bounds = float(low), float(high)  # type: ignore[assignment]


def trained_ranges(model: nn.Module) -> dict[str, Range] | None:
    """The ranges that a detector rounds with, by the name of each convolution; None where it computes in float."""
    found = {n: layer.bounds for n, layer in _layers(model).items() if isinstance(layer, _ROUNDED)}
    return found or None


def measure_ranges(model: DetectionModel, batches: Iterable[Tensor]) -> dict[str, Range]:
    """Smallest and largest result of each convolution and sum, after its ReLU6 if it has one, in a detector in float.

    Args:
        model: The detector; it computes in evaluation mode.
        batches: RGB pixels 0..255 ``(B, 3, H, W)``.
    """
    layers = _layers(model)
    ranges = dict.fromkeys(layers, (0.0, 0.0))

    def watch(name: str, result: Tensor) -> None:
        (low, high), (least, most) = ranges[name], (end.item() for end in result.aminmax())
        ranges[name] = min(low, least), max(high, most)

    hooks = [
        layer.register_forward_hook(lambda _layer, _inputs, result, name=name: watch(name, result))
        for name, layer in layers.items()
    ]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                model.candidates(batch)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    for name in {f"head.{name.rpartition('.')[0]}" for name in model.head.class_rows()}:
        low, high = ranges[name]
        ranges[name] = max(low, min(_RAREST_LOGIT, high - 1)), high
    return ranges


def _layers(model: nn.Module) -> dict[str, nn.Module]:
    """By the name of each convolution: it, or the block that it shares with norm and ReLU6; and sums by their own."""
    layers: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        if isinstance(module, ConvNormAct):
            layers[f"{name}.conv"] = module
        elif isinstance(module, nn.Conv2d | UpsampleAdd):
            layers.setdefault(name, module)
    return layers


def _rounded(result: Tensor, bounds: Range) -> Tensor:
    scale, zero = range_steps(bounds)
    return torch.fake_quantize_per_tensor_affine(result, scale, zero, -128, 127)


def _rounded_weight(weight: Tensor) -> Tensor:
    scale = weight.detach().abs().amax(dim=(1, 2, 3)).clamp(min=1e-9 * 127) / 127
    zero = torch.zeros(len(scale), dtype=torch.int32, device=weight.device)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -127, 127)

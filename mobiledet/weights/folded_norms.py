"""Batch-norm layers restored in weights that they were folded into, so that they can be trained.

A folded layer computes ``conv(x) + bias``; its norm stands still at mean 0 and variance 1 (see
:func:`mobiledet.weights.tflite.mobilenet.folded_state`). That is exact in evaluation mode, but in training mode the
norm would suddenly use the batch's statistics. With each channel's mean and variance measured on real images,
``gamma = sqrt(variance + epsilon)`` and ``beta = bias + mean`` compute the same as before, and training mode starts
from almost the same, too.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from mobiledet.models.detection_model import DetectionModel
from mobiledet.models.layers import ConvNormAct


class _Statistics:
    """Mean and variance per channel over everything a layer's convolution gives."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self.norm = norm
        self.count = 0
        self.mean = torch.zeros(norm.num_features, dtype=torch.float64)
        self.squares = torch.zeros(norm.num_features, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Take in a batch ``(B, C, H, W)``: Chan's update, which doesn't lose digits as sums of squares do."""
        flat = values.detach().transpose(0, 1).flatten(1).double().cpu()
        count, mean = flat.shape[1], flat.mean(dim=1)
        squares = ((flat - mean[:, None]) ** 2).sum(dim=1)
        total = self.count + count
        delta = mean - self.mean
        self.squares += squares + delta**2 * (self.count * count / total)
        self.mean += delta * (count / total)
        self.count = total

    @torch.no_grad()
    def insert(self) -> None:
        """Give the norm these statistics, and the scale and shift that cancel them out."""
        variance = self.squares / max(1, self.count)
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        bias = norm.bias.double().cpu()
        norm.running_mean.copy_(self.mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(torch.sqrt(variance + norm.eps))
        norm.bias.copy_(bias + self.mean)


def reinsert_norms(model: DetectionModel, batches: Iterable[Tensor | list[Tensor]], loaded: set[str]) -> int:
    """Measure every folded layer on images and restore its batch-norm.

    Args:
        model: Holds folded weights in the layers named by ``loaded``.
        batches: uint8 RGB images as the model takes them.
        loaded: Names of tensors that came from folded weights; other layers keep their fresh norms.

    Returns:
        How many layers were restored; 0 when there were no images.
    """
    measured = {
        name: _Statistics(module.norm)
        for name, module in model.named_modules()
        if isinstance(module, ConvNormAct) and f"{name}.norm.running_mean" in loaded
    }
    hooks = [
        model.get_submodule(name).conv.register_forward_hook(  # type: ignore[union-attr]
            lambda _module, _inputs, output, statistics=statistics: statistics.add(output)
        )
        for name, statistics in measured.items()
    ]
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)
    put_back = [statistics for statistics in measured.values() if statistics.count]
    for statistics in put_back:
        statistics.insert()
    return len(put_back)

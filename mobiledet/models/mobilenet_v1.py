"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861): the paper's Table 1, at any width and any input size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from mobiledet.models.layers import DEFAULT_STYLE, ConvNormAct, DepthwiseSeparable, LayerStyle

# Table 1, a depthwise and the pointwise row after it written as one "separable" row: (type, stride, channels).
# The table prints s2 for the last depthwise layer, but its sizes (7x7 in and out) and the reference code say 1.
TABLE_1: tuple[tuple[Literal["conv", "separable"], int, int], ...] = (
    ("conv", 2, 32),  # Conv0: 224x224x3 -> 112x112x32
    ("separable", 1, 64),  # Conv1
    ("separable", 2, 128),  # Conv2: -> 56x56
    ("separable", 1, 128),  # Conv3
    ("separable", 2, 256),  # Conv4: -> 28x28
    ("separable", 1, 256),  # Conv5
    ("separable", 2, 512),  # Conv6: -> 14x14
    ("separable", 1, 512),  # Conv7
    ("separable", 1, 512),  # Conv8
    ("separable", 1, 512),  # Conv9
    ("separable", 1, 512),  # Conv10
    ("separable", 1, 512),  # Conv11: what SSD and the RPN look at, stride 16
    ("separable", 2, 1024),  # Conv12: -> 7x7
    ("separable", 1, 1024),  # Conv13: stride 32
)

MIN_CHANNELS = 8


def scale_channels(channels: int, alpha: float, minimum: int = MIN_CHANNELS) -> int:
    """Channels at width multiplier ``alpha``, rounded down as the paper's code does, at least ``minimum``."""
    return max(int(channels * alpha), minimum)


@dataclass(frozen=True)
class FeatureInfo:
    """One feature map: its name, channels, and how many picture pixels one step covers."""

    name: str
    channels: int
    stride: int


class MobileNetV1(nn.Module):
    """The feature extractor, or a stretch of it: Faster R-CNN runs the last layers on each proposal.

    Args:
        alpha: Width multiplier, any number above 0.
        min_channels: Least channels of a layer.
        first: Name of the first layer, ``"conv0"`` to ``"conv13"``.
        outputs: Names of the layers whose maps are returned, in their order; there are no layers after the last.
        style: Padding (symmetric, or TensorFlow's SAME) and batch-norm settings.

    Raises:
        ValueError: ``alpha`` isn't positive or a layer has no such name.
    """

    def __init__(
        self,
        *,
        alpha: float = 1.0,
        min_channels: int = MIN_CHANNELS,
        first: str = "conv0",
        outputs: Sequence[str] = ("conv11", "conv13"),
        style: LayerStyle = DEFAULT_STYLE,
    ) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, not {alpha}")
        names = [f"conv{index}" for index in range(len(TABLE_1))]
        if first not in names or not outputs or any(name not in names[names.index(first) :] for name in outputs):
            raise ValueError(f"first {first!r} and outputs {tuple(outputs)} must name layers conv0 to conv13, in order")
        self.alpha = alpha
        self.outputs = tuple(outputs)
        self.first_index = names.index(first)
        self.layers = nn.ModuleDict()
        info: dict[str, FeatureInfo] = {}
        in_channels, total_stride = 3, 1
        for index, (name, (kind, stride, channels)) in enumerate(zip(names, TABLE_1, strict=True)):
            out_channels = scale_channels(channels, alpha, min_channels)
            total_stride *= stride
            info[name] = FeatureInfo(name, out_channels, total_stride)
            if index >= self.first_index:
                if kind == "conv":
                    self.layers[name] = ConvNormAct(
                        in_channels, out_channels, kernel_size=3, stride=stride, style=style
                    )
                else:
                    self.layers[name] = DepthwiseSeparable(in_channels, out_channels, stride=stride, style=style)
            in_channels = out_channels
            if set(self.outputs) <= set(info):
                break
        self.feature_info = [info[name] for name in self.outputs]
        self.frozen_stages = 0
        self.frozen_norm = False

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps of a batch.

        Args:
            images: ``(B, 3, H, W)`` float, normalised; or what the layer before ``first`` gives.

        Returns:
            Name to ``(B, channels, ceil(H / stride), ceil(W / stride))``, in the order of ``outputs``.
        """
        features: dict[str, Tensor] = {}
        x = images
        for name, layer in self.layers.items():
            x = layer(x)
            if name in self.outputs:
                features[name] = x
        return features

    def freeze(self, *, stages: int = 0, norm: bool = False) -> None:
        """Stop training the layers before ``conv<stages>``, and with ``norm`` every batch-norm.

        Frozen norms also stop following the batch: they run on their stored statistics.
        """
        self.frozen_stages, self.frozen_norm = stages, norm
        for module in self._frozen_modules():
            for parameter in module.parameters():
                parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> MobileNetV1:
        """Like :meth:`torch.nn.Module.train`, but frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    def _frozen_modules(self) -> list[nn.Module]:
        layers = list(self.layers.values())
        frozen: list[nn.Module] = layers[: max(0, self.frozen_stages - self.first_index)]
        if self.frozen_norm:
            frozen += [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        return frozen


class MobileNetV1Classifier(nn.Module):
    """The whole network of Table 1: features, global average pooling, one linear layer.

    Args:
        backbone: Must return ``"conv13"``.
        num_classes: 1000 in the paper.
    """

    def __init__(self, *, backbone: MobileNetV1, num_classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.feature_info[-1].channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of normalised pictures ``(B, 3, H, W)``."""
        features = self.backbone(images)[self.backbone.outputs[-1]]
        logits: Tensor = self.classifier(torch.mean(features, dim=(2, 3)))
        return logits

"""MobileNetV1 (Howard et al. 2017, arXiv 1704.04861): the paper's Table 1, at any width and any input size."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mobiledet.errors import ConfigError
from mobiledet.models.base import Backbone, BaseBackboneConfig, FeatureInfo
from mobiledet.models.layers import DEFAULT_STYLE, ConvNormAct, DepthwiseSeparable, LayerStyle
from mobiledet.utils.settings import PositiveFloat, PositiveInt

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

LAYERS = tuple(f"conv{index}" for index in range(len(TABLE_1)))
"""Names of the layers, ``"conv0"`` to ``"conv13"``."""

MIN_CHANNELS = 8


def scale_channels(channels: int, alpha: float, minimum: int = MIN_CHANNELS) -> int:
    """Channels at width multiplier ``alpha``, rounded down as the paper's code does, at least ``minimum``."""
    return max(int(channels * alpha), minimum)


def layer_of_stride(stride: int) -> str:
    """Name of the deepest layer whose map has this stride: ``"conv11"`` for 16, ``"conv13"`` for 32.

    Raises:
        ConfigError: There is none.
    """
    total, found = 1, {}
    for name, (_, step, _) in zip(LAYERS, TABLE_1, strict=True):
        total *= step
        found[total] = name
    if stride not in found:
        raise ConfigError(f"MobileNetV1 has no map of stride {stride}; it has {', '.join(map(str, found))}")
    return found[stride]


class BackboneConfig(BaseBackboneConfig):
    """MobileNetV1 (Howard et al. 2017)."""

    kind_name: ClassVar[str] = "mobilenet_v1"
    dictated: ClassVar[tuple[str, ...]] = ("alpha", "min_channels", "padding", "norm_epsilon")
    quantizable: ClassVar[bool] = True

    alpha: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Width multiplier: every layer has ``max(min_channels, int(alpha * channels))`` channels."""
    min_channels: PositiveInt = 8
    """Fewest channels of a layer; the paper's code has 8, TensorFlow's detection configs 16."""
    padding: Literal["symmetric", "tensorflow"] = "symmetric"
    """How strided convolutions pad: one pixel on each side, or TensorFlow's SAME (asymmetric on even sizes)."""
    norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Weight of the newest batch in batch-norm's running statistics (PyTorch's convention)."""
    norm_epsilon: PositiveFloat = 1e-3

    @property
    def summary(self) -> str:
        """A few words for the log."""
        return f"alpha {self.alpha:g}"

    @property
    def style(self) -> LayerStyle:
        """Padding and batch-norm settings of all layers."""
        return LayerStyle(self.padding, self.norm_epsilon, self.norm_momentum)

    def build(self, strides: Sequence[int]) -> MobileNetV1:
        """The backbone up to the deepest of the maps with these strides; see `BaseBackboneConfig.build`."""
        return self.build_part(outputs=[layer_of_stride(stride) for stride in strides])

    def build_after(self, stride: int) -> MobileNetV1:
        """The layers behind the map of a stride: Conv12 and Conv13 for 16."""
        start = LAYERS.index(layer_of_stride(stride)) + 1
        if start == len(LAYERS):
            raise ConfigError(f"MobileNetV1 ends at stride {stride}: there are no layers behind it")
        return self.build_part(first=LAYERS[start])

    def build_part(self, *, outputs: Sequence[str] = LAYERS[-1:], first: str = LAYERS[0]) -> MobileNetV1:
        """The layers from ``first`` on, returning the maps of the layers ``outputs``."""
        return MobileNetV1(
            alpha=self.alpha, min_channels=self.min_channels, first=first, outputs=outputs, style=self.style
        )

    def scaled(self, channels: int, minimum: int) -> int:
        """Channels of a head's extra layer at this width."""
        return scale_channels(channels, self.alpha, minimum)


class MobileNetV1(Backbone):
    """The feature extractor, or a stretch of it: Faster R-CNN runs the last layers on each proposal.

    Args:
        alpha: Width multiplier, any number above 0.
        min_channels: Least channels of a layer.
        first: Name of the first layer, of ``LAYERS``.
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
        first: str = LAYERS[0],
        outputs: Sequence[str] = (layer_of_stride(16), layer_of_stride(32)),
        style: LayerStyle = DEFAULT_STYLE,
    ) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha must be above 0, not {alpha}")
        if first not in LAYERS or not outputs or any(name not in LAYERS[LAYERS.index(first) :] for name in outputs):
            raise ValueError(f"first {first!r} and outputs {tuple(outputs)} must name layers of {', '.join(LAYERS)}")
        self.alpha = alpha
        self.outputs = tuple(outputs)
        self.first_index = LAYERS.index(first)
        self.layers = nn.ModuleDict()
        info: dict[str, FeatureInfo] = {}
        in_channels, total_stride = 3, 1
        for index, (name, (kind, stride, channels)) in enumerate(zip(LAYERS, TABLE_1, strict=True)):
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

    def stages(self) -> Sequence[nn.Module]:
        """The layers, those before ``first``, which aren't here, as empty ones."""
        return [*(nn.Identity() for _ in range(self.first_index)), *self.layers.values()]


class MobileNetV1Classifier(nn.Module):
    """The whole network of Table 1: features, global average pooling, one linear layer.

    Args:
        backbone: Whole, up to its last layer.
        num_classes: 1000 in the paper.
    """

    def __init__(self, *, backbone: MobileNetV1, num_classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.classifier = nn.Linear(backbone.feature_info[-1].channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits ``(B, num_classes)`` of normalised images ``(B, 3, H, W)``."""
        features = self.backbone(images)[self.backbone.outputs[-1]]
        logits: Tensor = self.classifier(torch.mean(features, dim=(2, 3)))
        return logits

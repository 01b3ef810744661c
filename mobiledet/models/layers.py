"""Convolution blocks shared by the backbone and the heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

Padding = Literal["symmetric", "tensorflow"]


@dataclass(frozen=True)
class LayerStyle:
    """What all layers of one network have in common.

    Attributes:
        padding: One pixel on each side of a 3x3 kernel, or TensorFlow's SAME.
        norm_epsilon: Added to batch-norm's variance.
        norm_momentum: Weight of the newest batch in batch-norm's running statistics (PyTorch's convention).
    """

    padding: Padding = "symmetric"
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.03


DEFAULT_STYLE = LayerStyle()


class Conv2dSame(nn.Conv2d):
    """Convolution padded as TensorFlow's SAME does it: to ``ceil(size / stride)``, the odd pixel below and right.

    At stride 2 an even side gets 0 pixels before and 1 after, an odd side 1 and 1.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', ceil(H / stride), ceil(W / stride))``."""
        pads: list[int] = []
        for size, kernel, stride in zip(input.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1], strict=True):
            total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return super().forward(F.pad(input, pads) if any(pads) else input)


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch-norm, ReLU6: the paper's layer (Howard et al. 2017, figure 3).

    Args:
        in_channels: Channels in.
        out_channels: Channels out.
        kernel_size: Side of the square kernel.
        stride: Step of the kernel.
        groups: ``in_channels`` makes it depthwise.
        style: Padding and batch-norm settings.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel_size: int,
        stride: int = 1,
        groups: int = 1,
        style: LayerStyle = DEFAULT_STYLE,
    ) -> None:
        conv: nn.Conv2d
        if style.padding == "tensorflow":
            conv = Conv2dSame(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)
        else:
            conv = nn.Conv2d(in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False)
        # fan_out of a depthwise filter counts every channel; divided by groups it is what one filter really has.
        fan_out = kernel_size * kernel_size * out_channels // groups
        nn.init.normal_(conv.weight, 0.0, (2.0 / fan_out) ** 0.5)
        norm = nn.BatchNorm2d(out_channels, eps=style.norm_epsilon, momentum=style.norm_momentum)
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.act = nn.ReLU6(inplace=True)


class DepthwiseSeparable(nn.Sequential):
    """3x3 depthwise, then 1x1 pointwise convolution, each with batch-norm and ReLU6 (figure 3, right)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int = 1,
        style: LayerStyle = DEFAULT_STYLE,
    ) -> None:
        super().__init__()
        self.depthwise = ConvNormAct(
            in_channels, in_channels, kernel_size=3, stride=stride, groups=in_channels, style=style
        )
        self.pointwise = ConvNormAct(in_channels, out_channels, kernel_size=1, style=style)

"""Convolution blocks shared by the backbone and the heads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
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


class PaddedConv2d(nn.Conv2d):
    """Convolution to ``ceil(size / stride)``, padded evenly or as TensorFlow's SAME does it.

    SAME puts the odd pixel below and right: at stride 2 an even side gets 0 pixels before and 1 after, an odd side
    1 and 1.

    On a side of one pixel, only the kernel's middle ever meets it, so only that is used. This is not just faster:
    PyTorch's bfloat16 gradient of a stride-2 convolution over a map one pixel wide leaves the other taps
    uninitialised on a CPU (seen with 2.15), which is random memory, now and then NaN.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int, groups: int, same: bool
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, stride, groups=groups, bias=False)
        self.same = same

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to ``(B, C', ceil(H / stride), ceil(W / stride))``."""
        weight, kernel, stride = self.weight, self.kernel_size[0], self.stride[0]
        before_after: list[tuple[int, int]] = []
        for dim in (2, 3):
            size = input.shape[dim]
            if size == 1:
                weight = weight.narrow(dim, kernel // 2, 1)
                before_after.append((0, 0))
            elif self.same:
                total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
                before_after.append((total // 2, total - total // 2))
            else:
                before_after.append((kernel // 2, kernel // 2))
        (top, bottom), (left, right) = before_after
        padding = (top, left)
        if top != bottom or left != right:
            input, padding = F.pad(input, (left, right, top, bottom)), (0, 0)
        if self._slow_in_bfloat16(input):
            with torch.autocast("cpu", enabled=False):
                return F.conv2d(input.float(), weight, self.bias, self.stride, padding, self.dilation, self.groups)
        return F.conv2d(input, weight, self.bias, self.stride, padding, self.dilation, self.groups)

    def _slow_in_bfloat16(self, input: Tensor) -> bool:
        """Strided depthwise layers: on a CPU their bfloat16 gradient takes 3 to 20 times as long as in float32."""
        return (
            self.groups > 1 and self.stride[0] > 1 and input.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        )


class BatchNorm(nn.BatchNorm2d):
    """Batch-norm that can train on a single value.

    One image of 300x300 ends in a map of 1x1, whose batch has no variance: it is normalised, as in evaluation, by the
    running statistics, which stay as they are.
    """

    def forward(self, input: Tensor) -> Tensor:
        """``(B, C, H, W)`` to the same."""
        if self.training and input.shape[0] * input.shape[2] * input.shape[3] == 1:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


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
        conv = PaddedConv2d(
            in_channels, out_channels, kernel_size, stride=stride, groups=groups, same=style.padding == "tensorflow"
        )
        norm = BatchNorm(out_channels, eps=style.norm_epsilon, momentum=style.norm_momentum)
        _start_near_linear(conv, norm)
        super().__init__()
        self.conv = conv
        self.norm = norm
        self.act = nn.ReLU6(inplace=True)


def _start_near_linear(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    """Fresh weights with which a deep stack still tells similar images from different ones.

    With random filters and unshifted norms every ReLU6 cuts off half of its input, and through 27 layers without
    shortcuts the gradient grows 50-fold on its way back: such a network overfits single images before it
    learns anything general. So depthwise filters start close to passing images on, and norms are shifted to where
    ReLU6 is straight. On generated shapes, 300 steps of 16 images bring the box loss to 1.8 instead of 2.5.
    """
    fan_out = conv.weight[0, 0].numel() * conv.out_channels // conv.groups
    std = (2.0 / fan_out) ** 0.5
    if conv.groups > 1:
        nn.init.normal_(conv.weight, 0.0, 0.3 * std)
        with torch.no_grad():
            conv.weight[:, :, conv.kernel_size[0] // 2, conv.kernel_size[1] // 2] += 1.0
        nn.init.constant_(norm.bias, 2.0)
    else:
        nn.init.normal_(conv.weight, 0.0, std)
        nn.init.constant_(norm.bias, 1.0)


class UpsampleAdd(nn.Module):
    """A map plus a coarser one, each of whose values is doubled in both directions: a feature pyramid's way down."""

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """``(B, C, H, W)`` and ``(B, C, ceil(H / 2), ceil(W / 2))`` to ``(B, C, H, W)``."""
        # Nearest neighbours for an odd side are the doubled map without its last line.
        return fine + F.interpolate(coarse, size=fine.shape[2:], mode="nearest")


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

"""The extra feature maps that SSD adds after the backbone (Liu et al. 2016, figure 2)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mobiledet.models.layers import DEFAULT_STYLE, ConvNormAct, DepthwiseSeparable, LayerStyle


class ExtraLayers(nn.Module):
    """Pairs of a 1x1 and a 3x3 stride-2 convolution; each halves the map before it.

    Args:
        in_channels: Channels of the backbone's last map.
        channels: (1x1, 3x3) channels of each pair.
        depthwise: The 3x3 becomes depthwise-separable (SSDLite).
        style: As in the backbone.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        channels: Sequence[tuple[int, int]],
        depthwise: bool = False,
        style: LayerStyle = DEFAULT_STYLE,
    ) -> None:
        super().__init__()
        self.pairs = nn.ModuleList()
        for squeeze, expand in channels:
            reduce = ConvNormAct(in_channels, squeeze, kernel_size=1, style=style)
            halve: nn.Module
            if depthwise:
                halve = DepthwiseSeparable(squeeze, expand, stride=2, style=style)
            else:
                halve = ConvNormAct(squeeze, expand, kernel_size=3, stride=2, style=style)
            self.pairs.append(nn.Sequential(reduce, halve))
            in_channels = expand
        self.out_channels = [expand for _, expand in channels]

    def forward(self, features: Tensor) -> list[Tensor]:
        """``(B, C, H, W)`` to one map per pair, ``(B, C_i, ceil(H / 2^i), ceil(W / 2^i))``."""
        maps = []
        for pair in self.pairs:
            features = pair(features)
            maps.append(features)
        return maps

"""Layers between backbone and predictors: SSD's extra maps, a feature pyramid, a finer map beside the former."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from mobiledet.models.layers import ConvNormAct, DepthwiseSeparable, LayerStyle, UpsampleAdd


class MapLayers(nn.Module):
    """What turns the backbone's maps into those that predictors look at.

    Attributes:
        out_channels: Of the maps that `forward` returns.
    """

    out_channels: list[int]

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's maps ``(B, C_i, H_i, W_i)`` to the head's; the former highest resolution first."""
        raise NotImplementedError


class Pyramid(MapLayers):
    """Lateral 1x1 convolutions, a way from the coarsest map to the finest, and further maps behind the coarsest.

    A map on the way down is the lateral one plus the coarser result, nearest neighbours doubled, smoothed by a
    depthwise-separable layer. Modules stand in the order they run, which the INT8 exporters rely on.

    Args:
        in_channels: Of the backbone's maps, highest resolution first, each half as large as the one before.
        channels: Of every map of the pyramid.
        num_maps: Maps returned.
        style: Padding and batch-norm settings.
    """

    def __init__(self, *, in_channels: Sequence[int], channels: int, num_maps: int, style: LayerStyle) -> None:
        super().__init__()
        self.out_channels = [channels] * num_maps
        self.laterals = nn.ModuleList(ConvNormAct(c, channels, kernel_size=1, style=style) for c in in_channels)
        self.merges = nn.ModuleList(Merge(channels, style=style) for _ in in_channels[1:])
        self.further = nn.ModuleList(
            DepthwiseSeparable(channels, channels, stride=2, style=style) for _ in range(num_maps - len(in_channels))
        )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps ``(B, C_i, H_i, W_i)`` to ``num_maps`` of ``(B, channels, ...)``, highest resolution first."""
        *finer, coarsest = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        pyramid = [coarsest]
        for merge, fine in zip(self.merges, reversed(finer), strict=True):
            pyramid.insert(0, merge(fine, pyramid[0]))
        for halve in self.further:
            pyramid.append(halve(pyramid[-1]))
        return pyramid


class Merge(nn.Module):
    """A finer map and a coarser one as one of the finer's size."""

    def __init__(self, channels: int, *, style: LayerStyle) -> None:
        super().__init__()
        self.add = UpsampleAdd()
        self.smooth = DepthwiseSeparable(channels, channels, style=style)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """``(B, C, H, W)`` and ``(B, C, ceil(H / 2), ceil(W / 2))`` to ``(B, C, H, W)``."""
        merged: Tensor = self.smooth(self.add(fine, coarse))
        return merged


class ExtraLayers(MapLayers):
    """SSD's extra maps: pairs of a 1x1 and a 3x3 stride-2 convolution, each halving the map before it (figure 2).

    Args:
        in_channels: Of the backbone's maps, the first of which is for ``fine`` alone.
        channels: Of the 1x1 and the 3x3 convolution of each pair; in SSDLite the 3x3 is depthwise-separable.
        depthwise: Whether it is SSDLite.
        style: Padding and batch-norm settings.
        fine_channels: Of one more map, behind the others: the backbone's first that takes up its second; None for none.
    """

    def __init__(
        self,
        *,
        in_channels: Sequence[int],
        channels: Sequence[tuple[int, int]],
        depthwise: bool,
        style: LayerStyle,
        fine_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.pairs = nn.ModuleList()
        self.out_channels = list(in_channels) if fine_channels is None else list(in_channels[1:])
        for squeeze, expand in channels:
            reduce = ConvNormAct(self.out_channels[-1], squeeze, kernel_size=1, style=style)
            halve: nn.Module
            if depthwise:
                halve = DepthwiseSeparable(squeeze, expand, stride=2, style=style)
            else:
                halve = ConvNormAct(squeeze, expand, kernel_size=3, stride=2, style=style)
            self.pairs.append(nn.Sequential(reduce, halve))
            self.out_channels.append(expand)
        self.fine: Pyramid | None = None
        if fine_channels is not None:
            self.fine = Pyramid(in_channels=in_channels[:2], channels=fine_channels, num_maps=2, style=style)
            self.out_channels.append(fine_channels)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The maps, from the last ``(B, C, H, W)`` one per pair, ``(B, C_i, ceil(H / 2^i), ...)``, and the fine one."""
        grown = list(maps if self.fine is None else maps[1:])
        for pair in self.pairs:
            grown.append(pair(grown[-1]))
        return grown if self.fine is None else [*grown, self.fine(maps[:2])[0]]

"""Anchor boxes: SSD's (Liu et al. 2016, section 2.2; TensorFlow's variant of the largest map) and the RPN's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mobiledet.structures import Size

AnchorShape = tuple[float, float]
"""``(scale, aspect ratio)``: ``scale * sqrt(ratio)`` wide, ``scale / sqrt(ratio)`` high, times the shorter side."""


@dataclass(frozen=True)
class AnchorSetting:
    """What decides over SSD's anchors, apart from the input's size.

    Attributes:
        num_maps: Feature maps.
        scale_min: Size of the highest-resolution map's anchors, as a share of the input's shorter side.
        scale_max: Size of the lowest-resolution map's.
        aspect_ratios: Widths over heights.
        reduce_lowest: Three anchors instead of all on the highest-resolution map.
        lowest_scale: Size of the square among those three; None for half of ``scale_min``.
        fine_map: Whether a map finer than all comes behind them, for what is smaller.
    """

    num_maps: int = 6
    scale_min: float = 0.2
    scale_max: float = 0.95
    aspect_ratios: tuple[float, ...] = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
    reduce_lowest: bool = True
    lowest_scale: float | None = None
    fine_map: bool = False

    def shapes(self) -> list[list[AnchorShape]]:
        """Shapes ``(scale, aspect ratio)`` of the anchors at each location, a list per map.

        Map ``k`` of ``m`` has scale ``s_k = scale_min + (scale_max - scale_min) * k / (m - 1)`` (SSD equation 4), every
        aspect ratio at ``s_k``, and one square at ``sqrt(s_k * s_{k+1})``, where ``s_m`` is 1. With ``reduce_lowest``
        the first map has three: a square of ``lowest_scale`` (half of ``s_0`` if None), 2:1 and 1:2. The fine map has
        three squares, each of half the area of the one before, the first of half the smallest of all others.
        """
        steps = max(1, self.num_maps - 1)
        scales = [self.scale_min + (self.scale_max - self.scale_min) * k / steps for k in range(self.num_maps)] + [1.0]
        shapes: list[list[AnchorShape]] = []
        for k, scale in enumerate(scales[:-1]):
            if k == 0 and self.reduce_lowest:
                lowest = scale / 2 if self.lowest_scale is None else self.lowest_scale
                shapes.append([(lowest, 1.0), (scale, 2.0), (scale, 0.5)])
            else:
                square = (math.sqrt(scale * scales[k + 1]), 1.0)
                shapes.append([(scale, ratio) for ratio in self.aspect_ratios] + [square])
        if self.fine_map:
            least = min(scale for scale, _ in shapes[0])
            shapes.append([(least * 0.5 ** (k / 2), 1.0) for k in (1, 2, 3)])
        return shapes


def feature_map_sizes(strides: Sequence[int], num_maps: int, image_size: Size) -> list[Size]:
    """``(height, width)`` of the feature maps, highest resolution first.

    Args:
        strides: Of the backbone's maps; every further map halves the one before.
        num_maps: Both together.
        image_size: ``(height, width)`` of the network's input, in pixels.
    """
    sizes = [(math.ceil(image_size[0] / stride), math.ceil(image_size[1] / stride)) for stride in strides]
    while len(sizes) < num_maps:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes[:num_maps]


def grid_anchors(shapes: Sequence[AnchorShape], map_size: Size, image_size: Size) -> Tensor:
    """Anchors of one feature map.

    Centres lie at ``(i + 0.5) / f`` of each side; sizes are shares of the shorter side, so that a square anchor is
    square on a non-square image.

    Args:
        shapes: ``(scale, aspect ratio)`` of each of the ``n`` anchors of a location.
        map_size: ``(height, width)`` of the feature map.
        image_size: ``(height, width)`` of the network's input, in pixels.

    Returns:
        ``(map_height * map_width * n, 4)`` float32 xyxy in pixels: row by row, then column, then shape. Not clipped.
    """
    height, width = image_size
    shorter = min(height, width)
    sizes = torch.tensor([(s * math.sqrt(r) * shorter, s / math.sqrt(r) * shorter) for s, r in shapes])
    centre_y = (torch.arange(map_size[0], dtype=torch.float32) + 0.5) * (height / map_size[0])
    centre_x = (torch.arange(map_size[1], dtype=torch.float32) + 0.5) * (width / map_size[1])
    return _place(sizes, centre_y, centre_x)


def rpn_anchor_sizes(scales: Sequence[float], aspect_ratios: Sequence[float], shorter_side: int) -> list[Size]:
    """Whole-pixel ``(height, width)`` of the anchors at each location (Ren et al. 2015, section 3.1.1).

    Args:
        scales: Square root of an anchor's area, as a share of ``shorter_side``.
        aspect_ratios: Width over height, each at every scale.
        shorter_side: Of the network's input, in pixels.
    """
    return [
        (max(1, round(scale * shorter_side / math.sqrt(ratio))), max(1, round(scale * shorter_side * math.sqrt(ratio))))
        for scale in scales
        for ratio in aspect_ratios
    ]


def rpn_anchors(sizes: Sequence[Size], map_size: Size, stride: int) -> Tensor:
    """Anchors of a feature map whose cells lie ``stride`` pixels apart, whatever the image's size.

    Args:
        sizes: ``(height, width)`` in pixels of each of the ``n`` anchors of a location.
        map_size: ``(height, width)`` of the feature map.
        stride: Pixels from one cell to the next.

    Returns:
        ``(map_height * map_width * n, 4)`` float32 xyxy in pixels: row by row, then column, then size. Not clipped.
    """
    centre_y = (torch.arange(map_size[0], dtype=torch.float32) + 0.5) * stride
    centre_x = (torch.arange(map_size[1], dtype=torch.float32) + 0.5) * stride
    return _place(torch.tensor([(width, height) for height, width in sizes], dtype=torch.float32), centre_y, centre_x)


def _place(sizes: Tensor, centre_y: Tensor, centre_x: Tensor) -> Tensor:
    """Boxes of each of ``(n, 2)`` widths and heights around every grid point."""
    grid_y, grid_x = torch.meshgrid(centre_y, centre_x, indexing="ij")
    centres = torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 1, 2)
    return torch.cat([centres - sizes / 2, centres + sizes / 2], dim=-1).reshape(-1, 4)

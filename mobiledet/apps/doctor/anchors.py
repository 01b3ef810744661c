"""How well an SSD's anchors cover boxes, without building the network.

A box overlaps the anchors of one shape best at the grid point nearest to its centre, since the overlap falls with the
distance along either axis. So the best of some thousand anchors is found among one per map and shape, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobiledet.config.schema import ModelConfig
from mobiledet.errors import ConfigError
from mobiledet.structures import FloatArray, Size

BACKBONE_STRIDES = (16, 32)
"""Strides of the backbone's two maps that SSD uses; every extra map has half the size of the one before."""


@dataclass(frozen=True)
class AnchorSetting:
    """What determines the anchors, apart from the input's size.

    Attributes:
        num_maps: feature maps.
        scale_min: size of the anchors on the highest-resolution map, as a share of the input's shorter side.
        scale_max: size of those on the lowest-resolution map.
        aspect_ratios: widths over heights.
        reduce_lowest: three anchors instead of all on the highest-resolution map.
        match_iou: smallest overlap at which an anchor is trained to detect an object.
        lowest_scale: size of the square among the three anchors, None for half of ``scale_min``.
    """

    num_maps: int
    scale_min: float
    scale_max: float
    aspect_ratios: tuple[float, ...]
    reduce_lowest: bool
    match_iou: float
    lowest_scale: float | None = None

    @classmethod
    def of(cls, model: ModelConfig) -> AnchorSetting:
        """The setting of a model.

        Raises:
            ConfigError: its head has no anchors of SSD's kind.
        """
        head = model.head
        if head.kind not in ("ssd", "ssdlite"):
            raise ConfigError(f"model.head.kind is {head.kind!r}, but anchors are checked for 'ssd' and 'ssdlite'")
        return cls(
            num_maps=len(BACKBONE_STRIDES) + len(head.extra_channels),
            scale_min=head.scale_min,
            scale_max=head.scale_max,
            aspect_ratios=head.aspect_ratios,
            reduce_lowest=head.reduce_lowest,
            lowest_scale=head.lowest_scale,
            match_iou=head.match_iou,
        )

    def overrides(self, usual: AnchorSetting) -> str:
        """The settings ``key=value`` that change ``usual`` into this; empty when they are the same."""
        words = []
        if self.aspect_ratios != usual.aspect_ratios:
            words.append(f"model.head.aspect_ratios={','.join(f'{ratio:.4g}' for ratio in self.aspect_ratios)}")
        if self.scale_min != usual.scale_min:
            words.append(f"model.head.scale_min={self.scale_min:g}")
        if self.reduce_lowest != usual.reduce_lowest:
            words.append(f"model.head.reduce_lowest={str(self.reduce_lowest).lower()}")
        return " ".join(words)


@dataclass(frozen=True)
class AnchorGrid:
    """The anchors of one map: every shape at every grid point.

    Attributes:
        centre_x: ``(columns,)`` network pixels, evenly spaced.
        centre_y: ``(rows,)``.
        widths: ``(shapes,)`` network pixels.
        heights: ``(shapes,)``.
    """

    centre_x: FloatArray
    centre_y: FloatArray
    widths: FloatArray
    heights: FloatArray


def map_sizes(network_size: Size, num_maps: int) -> list[Size]:
    """``(height, width)`` of the detector's feature maps, the highest resolution first."""
    height, width = network_size
    sizes = [(math.ceil(height / stride), math.ceil(width / stride)) for stride in BACKBONE_STRIDES]
    while len(sizes) < num_maps:
        sizes.append((math.ceil(sizes[-1][0] / 2), math.ceil(sizes[-1][1] / 2)))
    return sizes[:num_maps]


def anchor_grids(setting: AnchorSetting, network_size: Size) -> list[AnchorGrid]:
    """The anchors of each map, as `mobiledet.ops.anchors` makes them."""
    from mobiledet.ops.anchors import grid_anchors, ssd_anchor_shapes

    shapes_of_maps = ssd_anchor_shapes(
        setting.num_maps,
        scale_min=setting.scale_min,
        scale_max=setting.scale_max,
        aspect_ratios=setting.aspect_ratios,
        reduce_lowest=setting.reduce_lowest,
        lowest_scale=setting.lowest_scale,
    )
    grids = []
    for shapes, (rows, columns) in zip(shapes_of_maps, map_sizes(network_size, setting.num_maps), strict=True):
        anchors = grid_anchors(shapes, (rows, columns), network_size).numpy().reshape(rows, columns, len(shapes), 4)
        corner = anchors[0, 0]
        grids.append(
            AnchorGrid(
                centre_x=(anchors[0, :, 0, 0] + anchors[0, :, 0, 2]) / 2,
                centre_y=(anchors[:, 0, 0, 1] + anchors[:, 0, 0, 3]) / 2,
                widths=corner[:, 2] - corner[:, 0],
                heights=corner[:, 3] - corner[:, 1],
            )
        )
    return grids


def best_overlaps(boxes: FloatArray, grids: Sequence[AnchorGrid]) -> FloatArray:
    """For each box ``(M, 4)`` in network pixels its highest IoU with any anchor: ``(M,)`` in ``[0, 1]``."""
    best = np.zeros(len(boxes), np.float32)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for grid in grids:
        x = _nearest(grid.centre_x, (boxes[:, 0] + boxes[:, 2]) / np.float32(2))
        y = _nearest(grid.centre_y, (boxes[:, 1] + boxes[:, 3]) / np.float32(2))
        for width, height in zip(grid.widths, grid.heights, strict=True):
            shared_x = np.minimum(boxes[:, 2], x + width / 2) - np.maximum(boxes[:, 0], x - width / 2)
            shared_y = np.minimum(boxes[:, 3], y + height / 2) - np.maximum(boxes[:, 1], y - height / 2)
            shared = np.maximum(shared_x, 0) * np.maximum(shared_y, 0)
            np.maximum(best, shared / (areas + width * height - shared), out=best)
    return best


def best_shape_overlaps(boxes: FloatArray, grids: Sequence[AnchorGrid]) -> FloatArray:
    """As `best_overlaps` if there were a grid point in the centre of every box: no finer grid can do better."""
    best = np.zeros(len(boxes), np.float32)
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    for grid in grids:
        for width, height in zip(grid.widths, grid.heights, strict=True):
            shared = np.minimum(wide, width) * np.minimum(high, height)
            np.maximum(best, shared / (wide * high + width * height - shared), out=best)
    return best


def _nearest(centres: FloatArray, values: FloatArray) -> FloatArray:
    """The entry of ascending, evenly spaced ``centres`` nearest to each value."""
    if len(centres) == 1:
        return np.broadcast_to(centres, values.shape)
    step = (centres[-1] - centres[0]) / (len(centres) - 1)
    index = np.clip(np.rint((values - centres[0]) / step), 0, len(centres) - 1).astype(np.int64)
    nearest: FloatArray = centres[index]
    return nearest

"""How well an SSD's anchors cover boxes, without building the network.

A box overlaps the anchors of one shape best at the grid point nearest to its centre, since the overlap falls with the
distance along either axis. So the best of some thousand anchors is found among one per map and shape, exactly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobiledet.config import ModelConfig
from mobiledet.errors import ConfigError
from mobiledet.ops.anchors import AnchorSetting, grid_anchors
from mobiledet.structures import FloatArray, Size


def setting_of(model: ModelConfig) -> AnchorSetting:
    """What decides over the anchors of a model.

    Raises:
        ConfigError: its head has no anchors that can be checked.
    """
    setting = model.head.anchor_setting()
    if setting is None:
        raise ConfigError(f"model.head.kind is {model.head.kind!r}, whose anchors can't be checked; name an SSD recipe")
    return setting


def overrides(setting: AnchorSetting, usual: AnchorSetting) -> str:
    """The ``key=value`` words that turn ``usual`` into ``setting``; empty when they are the same."""
    words = []
    if setting.aspect_ratios != usual.aspect_ratios:
        words.append(f"model.head.aspect_ratios={','.join(f'{ratio:.4g}' for ratio in setting.aspect_ratios)}")
    if setting.scale_min != usual.scale_min:
        words.append(f"model.head.scale_min={setting.scale_min:g}")
    if setting.reduce_lowest != usual.reduce_lowest:
        words.append(f"model.head.reduce_lowest={str(setting.reduce_lowest).lower()}")
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


def anchor_grids(setting: AnchorSetting, network_size: Size) -> list[AnchorGrid]:
    """The anchors of each map, as `mobiledet.ops.anchors` makes them."""
    grids = []
    for shapes, (rows, columns) in zip(setting.shapes(), setting.map_sizes(network_size), strict=True):
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
    """As `best_overlaps`, were there a grid point in the middle of every box: what no finer grid can better."""
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

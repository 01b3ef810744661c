"""Box arithmetic on tensors: xyxy, absolute pixels, float32 unless a name says otherwise."""

from __future__ import annotations

import math

import torch
from torch import Tensor

CODER_WEIGHTS = (10.0, 10.0, 5.0, 5.0)
"""Scale of the offsets ``dx, dy, dw, dh``: the inverse of SSD's variances 0.1 and 0.2."""

MAX_LOG_SCALE = math.log(1000.0 / 16)
"""A decoded box is at most 62.5 times its anchor, so that an untrained network can't overflow ``exp``."""


CROWD_COVERAGE = 0.5
"""An anchor or proposal that lies this much inside a crowd region is neither object nor background."""


def box_area(boxes: Tensor) -> Tensor:
    """Area ``(..., )`` in square pixels of boxes ``(..., 4)``."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def pairwise_intersection(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Area that each of ``(..., N, 4)`` shares with each of ``(..., M, 4)``: ``(..., N, M)``."""
    # Corner by corner: (N, M, 2) tensors take twice as long on a CPU.
    a_x1, a_y1, a_x2, a_y2 = boxes_a[..., None].unbind(-2)
    b_x1, b_y1, b_x2, b_y2 = boxes_b.mT.contiguous()[..., None, :].unbind(-3)
    width = (torch.minimum(a_x2, b_x2) - torch.maximum(a_x1, b_x1)).clamp_(min=0)
    height = (torch.minimum(a_y2, b_y2) - torch.maximum(a_y1, b_y1)).clamp_(min=0)
    return width * height


def pairwise_iou(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Intersection over union of ``(..., N, 4)`` and ``(..., M, 4)``: ``(..., N, M)`` in 0..1; 0 for empty boxes."""
    intersection = pairwise_intersection(boxes_a, boxes_b)
    union = (box_area(boxes_a)[..., :, None] + box_area(boxes_b)[..., None, :]).sub_(intersection)
    return intersection / union.clamp_(min=1e-9)


def pairwise_coverage(boxes_a: Tensor, boxes_b: Tensor) -> Tensor:
    """Share of each of ``(M, 4)`` that lies inside each of ``(N, 4)``: ``(N, M)`` in ``[0, 1]``."""
    return pairwise_intersection(boxes_a, boxes_b) / box_area(boxes_b).clamp(min=1e-9)


def xyxy_to_cxcywh(boxes: Tensor) -> Tensor:
    """Corners ``(..., 4)`` to centre, width and height."""
    size = boxes[..., 2:] - boxes[..., :2]
    return torch.cat([boxes[..., :2] + 0.5 * size, size], dim=-1)


def cxcywh_to_xyxy(boxes_cxcywh: Tensor) -> Tensor:
    """Centre, width and height ``(..., 4)`` to corners."""
    centre, half = boxes_cxcywh[..., :2], 0.5 * boxes_cxcywh[..., 2:]
    return torch.cat([centre - half, centre + half], dim=-1)


def encode_boxes(boxes: Tensor, anchors: Tensor, weights: tuple[float, float, float, float] = CODER_WEIGHTS) -> Tensor:
    """Offsets that turn each anchor into its box (SSD section 2.2, equation 2).

    Args:
        boxes: ``(N, 4)`` xyxy, each at least a fraction of a pixel wide and high.
        anchors: ``(N, 4)`` xyxy.
        weights: Factors of ``dx, dy, dw, dh``.

    Returns:
        ``(N, 4)`` offsets ``dx, dy, dw, dh``.
    """
    box, anchor = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(anchors)
    shift = (box[..., :2] - anchor[..., :2]) / anchor[..., 2:]
    scale = torch.log(box[..., 2:].clamp(min=1e-3) / anchor[..., 2:])
    return torch.cat([shift, scale], dim=-1) * boxes.new_tensor(weights)


def decode_boxes(
    bbox_deltas: Tensor, anchors: Tensor, weights: tuple[float, float, float, float] = CODER_WEIGHTS
) -> Tensor:
    """Undo :func:`encode_boxes`.

    Args:
        bbox_deltas: ``(..., A, 4)`` offsets.
        anchors: ``(A, 4)`` xyxy.
        weights: As given to :func:`encode_boxes`.

    Returns:
        ``(..., A, 4)`` xyxy.
    """
    anchor = xyxy_to_cxcywh(anchors)
    deltas = bbox_deltas / bbox_deltas.new_tensor(weights)
    centre = deltas[..., :2] * anchor[..., 2:] + anchor[..., :2]
    size = torch.exp(deltas[..., 2:].clamp(max=MAX_LOG_SCALE)) * anchor[..., 2:]
    return cxcywh_to_xyxy(torch.cat([centre, size], dim=-1))


def clip_boxes(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes ``(..., 4)`` cut off at the edges of an image of ``size`` (height, width)."""
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(-1)
    return torch.stack([x1.clamp(0, width), y1.clamp(0, height), x2.clamp(0, width), y2.clamp(0, height)], dim=-1)

"""Non-maximum suppression of a batch, with results of fixed shape, so that the very same code can be exported."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchvision.ops import nms


@torch.library.custom_op("mobiledet::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou_threshold: Tensor, limit: int) -> Tensor:
    """Which boxes of each image stay: best first, and none that overlaps a better one too much.

    One operator, because what torchvision's returns varies in length.

    Args:
        boxes: ``(B, N, 4)`` xyxy.
        scores: ``(B, N)``; a score of 0 means that there is no box.
        iou_threshold: Scalar; boxes that overlap more are one object.
        limit: Most boxes that stay in an image.

    Returns:
        ``(B, N)`` bool.
    """
    keep = torch.zeros_like(scores, dtype=torch.bool)
    for image in range(len(boxes)):
        kept = nms(boxes[image], scores[image], float(iou_threshold))
        kept = kept[scores[image, kept] > 0]
        keep[image, kept[:limit]] = True
    return keep


@suppress.register_fake
def _(boxes: Tensor, scores: Tensor, iou_threshold: Tensor, limit: int) -> Tensor:  # noqa: ARG001
    return torch.empty_like(scores, dtype=torch.bool)


def best_boxes(boxes: Tensor, scores: Tensor, iou_threshold: Tensor | float, limit: int) -> tuple[Tensor, Tensor]:
    """The best boxes of each image after suppression.

    Args:
        boxes: ``(B, N, 4)`` xyxy.
        scores: ``(B, N)``; a score of 0 means that there is no box.
        iou_threshold: Boxes that overlap more are one object.
        limit: Most boxes of an image.

    Returns:
        Scores ``(B, min(limit, N))``, best first and 0 where an image has fewer, and where they stand in ``(B, N)``.
    """
    if not isinstance(iou_threshold, Tensor):
        iou_threshold = torch.tensor(iou_threshold)
    operator = _suppress_by_onnx if torch.onnx.is_in_onnx_export() else torch.ops.mobiledet.suppress
    keep = operator(boxes, scores, iou_threshold, limit)
    best, index = torch.where(keep, scores, 0.0).topk(min(limit, scores.shape[1]), dim=1)
    return best, index


def _suppress_by_onnx(boxes: Tensor, scores: Tensor, iou_threshold: Tensor, limit: int) -> Tensor:
    """:func:`suppress` in ONNX's own operators, whoever calls ``torch.onnx.export``."""
    count: Any = scores.count_nonzero().item()  # for the number of boxes kept, of which the trace must not know more
    limits = torch.tensor([limit]), iou_threshold.reshape(1), torch.tensor([0.0])
    everything = boxes, scores[:, None], *limits
    selected = torch.onnx.ops.symbolic("NonMaxSuppression", everything, dtype=torch.int64, shape=(count, 3))
    # Rows of (image, class, box); everything is of class 0 here.
    ones = torch.zeros_like(scores), selected[:, ::2], selected[:, 1].float() + 1
    kept: Tensor = torch.onnx.ops.symbolic("ScatterND", ones, dtype=torch.float32, shape=scores.shape)
    return kept > 0.5

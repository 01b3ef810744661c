"""Non-maximum suppression of a batch, with results of fixed shape, so that the very same code can be exported."""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import nms


@torch.library.custom_op("mobiledet::suppress", mutates_args=())
def suppress(boxes: Tensor, scores: Tensor, iou_threshold: Tensor, limit: int) -> Tensor:
    """Which boxes of each image stay: best first, and none that overlaps a better one too much.

    One operator, because what torchvision's returns varies in length; an exporter maps it to its own.

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
    keep = torch.ops.mobiledet.suppress(boxes, scores, iou_threshold, limit)
    best, index = torch.where(keep, scores, 0.0).topk(min(limit, scores.shape[1]), dim=1)
    return best, index

"""The one place where candidates become detections: evaluation, prediction, webcam and export all come here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import batched_nms

from mobiledet.structures import Candidates


@dataclass(frozen=True)
class Postprocess:
    """Threshold, per-class non-maximum suppression, best detections first.

    Attributes:
        score_threshold: Least score of a detection.
        iou_threshold: Two boxes of one class that overlap more are one object.
        candidates: Best (box, class) pairs of a picture that enter suppression.
        max_detections: Most detections of a picture.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.6
    candidates: int = 1000
    max_detections: int = 100

    def __call__(self, candidates: Candidates) -> list[dict[str, Tensor]]:
        """Detections of each picture, in network pixels.

        Returns:
            Per picture ``boxes`` ``(N, 4)`` xyxy, ``scores`` ``(N,)`` in falling order and ``labels`` ``(N,)``
            int64 in ``1..K``.
        """
        return [
            self._one_picture(boxes, scores) for boxes, scores in zip(candidates.boxes, candidates.scores, strict=True)
        ]

    def _one_picture(self, boxes: Tensor, scores: Tensor) -> dict[str, Tensor]:
        num_classes = scores.shape[1]
        flat = scores.flatten()
        top_scores, top = flat.topk(min(self.candidates, flat.numel()))
        above = top_scores >= self.score_threshold
        top_scores, top = top_scores[above], top[above]
        anchor, label = top // num_classes, top % num_classes
        top_boxes = boxes[anchor] if boxes.dim() == 2 else boxes[anchor, label]
        keep = batched_nms(top_boxes, top_scores, label, self.iou_threshold)[: self.max_detections]
        return {"boxes": top_boxes[keep], "scores": top_scores[keep], "labels": (label[keep] + 1).to(torch.int64)}

"""The one place where candidates become detections: evaluation, prediction, webcam and export all come here."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mobiledet.ops.boxes import pairwise_iou
from mobiledet.ops.nms import best_boxes
from mobiledet.structures import Candidates


@dataclass(frozen=True)
class Postprocess:
    """Threshold, non-maximum suppression, a vote on boxes, best detections first.

    Attributes:
        score_threshold: Minimum score of a detection.
        iou_threshold: Two boxes of one class that overlap more are one object.
        candidates: Best (box, class) pairs of an image that enter suppression.
        max_detections: Most detections of an image.
        class_agnostic: Whether boxes of two classes are one object, too, where they overlap more.
        vote_iou: Candidates of a detection's class that overlap it more have a vote on its box; None: none has. Votes
            grow from 0 at this overlap, so that a box doesn't jump where runtimes round differently.
    """

    score_threshold: float = 0.01
    iou_threshold: float = 0.6
    candidates: int = 500
    max_detections: int = 100
    class_agnostic: bool = False
    vote_iou: float | None = None

    def __call__(self, candidates: Candidates) -> list[dict[str, Tensor]]:
        """Detections of each image, in network pixels.

        Returns:
            Per image ``boxes`` ``(N, 4)`` xyxy, ``scores`` ``(N,)`` in falling order and ``labels`` ``(N,)``
            int64 in ``1..K``.
        """
        boxes, scores, labels = self.fixed(candidates, self.score_threshold, self.iou_threshold)
        return [
            {"boxes": boxes[image, found], "scores": scores[image, found], "labels": labels[image, found]}
            for image, found in enumerate(scores > 0)
        ]

    def fixed(
        self, candidates: Candidates, score_threshold: Tensor | float, iou_threshold: Tensor | float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Detections of a batch in tensors of fixed shape, which is what an exported graph returns.

        Args:
            candidates: What the head found.
            score_threshold: Minimum score; a scalar tensor can still be changed in an exported graph.
            iou_threshold: Largest overlap; likewise.

        Returns:
            Boxes ``(B, N, 4)`` xyxy in network pixels, scores ``(B, N)``, best first, and labels ``(B, N)`` int64 in
            ``1..K``. Where an image has fewer than N detections the rest scores 0.
        """
        boxes, scores = self._best_anchors(candidates)
        batch, _, num_classes = scores.shape
        rows = torch.arange(batch, device=boxes.device)[:, None]
        flat = scores.reshape(batch, -1)
        scores, pair = flat.topk(min(self.candidates, flat.shape[1]), dim=1)
        scores = torch.where(scores >= score_threshold, scores, 0.0)
        # Not //, which ONNX exporters write with comparisons that OpenCV can't run.
        anchor, label = pair.div(num_classes, rounding_mode="floor"), pair % num_classes
        boxes = boxes[rows, anchor] if boxes.dim() == 3 else boxes[rows, anchor, label]
        apart = boxes
        if not self.class_agnostic:  # classes are moved apart, so that boxes of different ones never overlap
            apart = boxes + (label * (boxes.amax(dim=(1, 2))[:, None] + 1))[..., None]
        best, index = best_boxes(apart, scores, iou_threshold, self.max_detections)
        found = boxes[rows, index]
        if self.vote_iou is not None:
            votes = scores[:, None] * (pairwise_iou(apart[rows, index], apart) - self.vote_iou).clamp(min=0)
            # Not @, which INT8 exporters take for a layer, and no sums, which ONNX of opset 12 writes otherwise.
            share = votes.mean(dim=2, keepdim=True)
            voted = (votes[..., None] * boxes[:, None]).mean(dim=2)
            found = torch.where(share > 0, voted / share.clamp(min=1e-12), found)
        return found, best, label.gather(1, index) + 1

    def _best_anchors(self, candidates: Candidates) -> tuple[Tensor, Tensor]:
        """Boxes and scores of the anchors that can have one of the best pairs at all.

        The best n pairs lie on the n anchors whose best class scores highest. Looking there only halves the time of
        the search among all pairs, which are 150,000 with 80 classes.
        """
        boxes, scores = candidates.boxes, candidates.scores
        if scores.shape[1] <= self.candidates:
            return boxes, scores
        _, index = scores.amax(dim=2).topk(self.candidates, dim=1, sorted=False)
        rows = torch.arange(scores.shape[0], device=scores.device)[:, None]
        return boxes[rows, index], scores[rows, index]

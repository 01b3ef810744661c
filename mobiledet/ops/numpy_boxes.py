"""Boxes in NumPy, xyxy: overlap, and non-maximum suppression for runtimes that have none of their own."""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from mobiledet.structures import BoolArray, DoubleArray, FloatArray, IntArray

Boxes = TypeVar("Boxes", FloatArray, DoubleArray)

BLOCK = 64
"""Candidates that are compared at once: more compute needless overlaps, fewer need more calls."""

SMALLEST = np.finfo(np.float32).tiny
"""A score of 0 is never a detection, even with a threshold of 0."""


def best_detections(
    boxes: FloatArray,
    scores: FloatArray,
    *,
    score_threshold: float,
    iou_threshold: float,
    candidates: int,
    max_detections: int,
    class_agnostic: bool = False,
    vote_iou: float | None = None,
) -> tuple[FloatArray, FloatArray, IntArray]:
    """The detections of one image, the same ones as :meth:`mobiledet.models.postprocess.Postprocess.fixed` finds.

    Equal scores may come in another order: PyTorch doesn't define which of them it takes first.

    Args:
        boxes: ``(A, 4)`` xyxy in network pixels.
        scores: ``(A, K)`` in ``[0, 1]``.
        score_threshold: Minimum score; a score of 0 is never a detection.
        iou_threshold: Two boxes of one class that overlap more are one object.
        candidates: Best (box, class) pairs that enter suppression.
        max_detections: Most detections.
        class_agnostic: Whether boxes of two classes are one object, too, where they overlap more.
        vote_iou: Candidates of a detection's class that overlap it more have a vote on its box.

    Returns:
        Boxes ``(N, 4)``, scores ``(N,)``, best first, and labels ``(N,)`` in ``1..K``. N is ``max_detections``, or less
        where there are fewer pairs; beyond what was found, scores are 0.
    """
    flat = scores.ravel()
    order = _best(flat, max(np.float32(score_threshold), SMALLEST), candidates)
    anchor, label = np.divmod(order, scores.shape[1])
    # Classes are moved apart, so that boxes of different ones never overlap; by as much as PyTorch does it wherever a
    # candidate reaches as far as any box, because another distance rounds differently.
    distance = boxes.max(initial=0) + np.float32(1)
    apart = boxes[anchor] + (label.astype(np.float32) * (0 if class_agnostic else distance))[:, None]
    kept = _suppress(apart, np.float32(iou_threshold), max_detections)

    size = min(max_detections, candidates, len(flat))
    found_boxes, found_scores = np.zeros((size, 4), np.float32), np.zeros(size, np.float32)
    labels = np.ones(size, np.int64)
    found_boxes[: len(kept)] = boxes[anchor[kept]]
    if vote_iou is not None:
        votes = flat[order] * np.maximum(pairwise_iou(apart[kept], apart) - np.float32(vote_iou), 0)
        total = votes.sum(axis=1, keepdims=True)
        np.divide(votes @ boxes[anchor], total, out=found_boxes[: len(kept)], where=total > 0)
    found_scores[: len(kept)] = flat[order[kept]]
    labels[: len(kept)] = label[kept] + 1
    return found_boxes, found_scores, labels


def _best(flat: FloatArray, minimum: np.float32, count: int) -> IntArray:
    """Indices of the ``count`` highest scores that are at least ``minimum``, best first."""
    above: IntArray = np.flatnonzero(flat >= minimum)
    if len(above) > count:
        values = flat[above]
        above = above[values >= np.partition(values, -count)[-count]]  # twice as fast as argpartition
    return above[np.argsort(-flat[above], kind="stable")][:count]


def _suppress(boxes: FloatArray, iou_threshold: np.float32, limit: int) -> IntArray:
    """Indices of the boxes ``(N, 4)`` to keep, best first in and out: at most ``limit``, none overlapping a better one.

    Block by block: most images have their ``limit`` of detections, or no candidates left, after two or three.
    """
    kept: IntArray = np.zeros(0, np.int64)
    for start in range(0, len(boxes), BLOCK):
        rest: IntArray = np.arange(start, min(start + BLOCK, len(boxes)))
        rest = rest[~(pairwise_iou(boxes[kept], boxes[rest]) > iou_threshold).any(axis=0)]
        stays = best_of_each(pairwise_iou(boxes[rest], boxes[rest]) > iou_threshold)
        kept = np.concatenate([kept, rest[stays]])[:limit]
        if len(kept) == limit:
            break
    return kept


def best_of_each(overlaps: BoolArray) -> BoolArray:
    """Which of N boxes, best first, stay where none may overlap a better one that stays: ``(N,)`` from ``(N, N)``."""
    overlapped = np.tril(overlaps, -1)  # row: which better ones overlap it
    stays = np.ones(len(overlaps), np.bool_)
    for index in np.flatnonzero(overlapped.any(axis=1)):
        stays[index] = not (overlapped[index] & stays).any()
    return stays


def pairwise_iou(boxes_a: Boxes, boxes_b: Boxes) -> Boxes:
    """Intersection over union of ``(N, 4)`` with ``(M, 4)`` xyxy boxes: ``(N, M)`` in 0..1, 0 where both are empty."""
    shared = pairwise_intersection(boxes_a, boxes_b)
    union = box_area(boxes_a)[:, None] + box_area(boxes_b)[None, :] - shared
    iou: Boxes = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return iou


def pairwise_intersection(boxes_a: Boxes, boxes_b: Boxes) -> Boxes:
    """Area in common of ``(N, 4)`` with ``(M, 4)`` xyxy boxes: ``(N, M)``."""
    a, b = boxes_a.T[:, :, None], boxes_b.T[:, None, :]
    width = np.minimum(a[2], b[2]) - np.maximum(a[0], b[0])
    height = np.minimum(a[3], b[3]) - np.maximum(a[1], b[1])
    shared: Boxes = np.maximum(width, 0) * np.maximum(height, 0)
    return shared


def box_area(boxes: Boxes) -> Boxes:
    """Areas of ``(N, 4)`` xyxy boxes: ``(N,)``."""
    area: Boxes = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return area

"""Choosing the display threshold: the score where F1 is best."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mobiledet.data.annotation_checks import is_ignored
from mobiledet.ops.numpy_boxes import pairwise_iou
from mobiledet.structures import FloatArray

DEFAULT_THRESHOLD = 0.5
"""For models without a measured one, such as imported ones: what TensorFlow's demos show from."""

LOWEST = 0.05
"""Detections below this are ignored: they are the most, and no threshold would be that low."""


def best_threshold(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, iou: float = 0.5) -> float | None:
    """The score threshold with the best F1 (harmonic mean of precision and recall) over all classes together.

    Args:
        truth: Ground truth as a COCO dict. Detections in crowds and on ignored objects count neither way.
        results: ``image_id, category_id, bbox (xywh), score`` of every detection.
        iou: Overlap from which a detection of the right class is right.

    Returns:
        The threshold, rounded down to two digits; None without objects or without a single right detection.
    """
    boxes: dict[tuple[int, int], list[Any]] = defaultdict(list)
    ignored: dict[tuple[int, int], list[Any]] = defaultdict(list)
    crowds: dict[tuple[int, int], list[Any]] = defaultdict(list)
    for annotation in truth["annotations"]:
        kind = crowds if annotation.get("iscrowd") else ignored if is_ignored(annotation) else boxes
        kind[annotation["image_id"], annotation["category_id"]].append(annotation["bbox"])
    objects = sum(map(len, boxes.values()))
    scores: list[float] = []
    right: list[bool] = []
    taken: dict[tuple[int, int], set[int]] = defaultdict(set)
    for found in sorted((r for r in results if r["score"] >= LOWEST), key=lambda result: -float(result["score"])):
        key = (found["image_id"], found["category_id"])
        overlaps = xywh_ious(found["bbox"], boxes[key])
        free = [i for i in np.argsort(-overlaps) if overlaps[i] >= iou and i not in taken[key]]
        if free:
            taken[key].add(int(free[0]))
        elif (xywh_ious(found["bbox"], ignored[key]) >= iou).any() or _inside(found["bbox"], crowds[key], iou):
            continue
        scores.append(float(found["score"]))
        right.append(bool(free))
    if not objects or not any(right):
        return None
    hits = np.cumsum(right)
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + objects)
    return float(np.floor(scores[int(f1.argmax())] * 100) / 100)


def _inside(box: Sequence[float], crowds: Sequence[Sequence[float]], share: float) -> bool:
    """Whether at least that share of an xywh box lies in one of some crowds, which is COCO's overlap with a crowd."""
    x, y, width, height = box
    return any(
        max(0.0, min(x + width, left + wide) - max(x, left)) * max(0.0, min(y + height, top + high) - max(y, top))
        >= share * width * height
        for left, top, wide, high in crowds
    )


def xywh_ious(box: Sequence[float], others: Sequence[Sequence[float]]) -> FloatArray:
    """Overlap ``(N,)`` of one xywh box with others."""
    a, b = (np.asarray(boxes, np.float64).reshape(-1, 4) for boxes in ([box], others))
    for boxes in (a, b):
        boxes[:, 2:] += boxes[:, :2]
    return np.asarray(pairwise_iou(a, b)[0], np.float32)

"""Which detection matches which object: one pass over a data set, for all figures that are made of it.

The rules are COCO's, as in `mobiledet.evaluation.metrics`: detections choose by falling score, each takes the free
object of its class that it overlaps most. Crowds, and objects marked ``ignore``, are neither to be found nor false when
hit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledet.data.annotation_checks import is_ignored
from mobiledet.evaluation.metrics import COCO_MAX_DETECTIONS
from mobiledet.ops.numpy_boxes import pairwise_iou
from mobiledet.structures import BoolArray, DoubleArray, IntArray

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
"""COCO's; the first, 0.5, is that of everything that is counted object by object."""

AREA_RANGES = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
"""Square pixels of all, small, medium and large objects."""

UNMATCHED, IGNORED = -1, -2
"""Instead of the object's number: a false detection, and one that counts neither way."""


@dataclass(frozen=True)
class Objects:
    """The M boxes of the ground truth.

    Attributes:
        images: ``(M,)`` row of the image.
        classes: ``(M,)`` row of the class.
        boxes: ``(M, 4)`` float64 xyxy in pixels.
        areas: ``(M,)`` their own area, in COCO that of the outline.
        counted: ``(M,)`` to be found: neither a crowd nor marked ``ignore``.
        ids: ``(M,)`` annotation ids; -1 where there is none.
    """

    images: IntArray
    classes: IntArray
    boxes: DoubleArray
    areas: DoubleArray
    counted: BoolArray
    ids: IntArray

    def within(self, area: int) -> BoolArray:
        """``(M,)`` whether each is to be found and in that one of `AREA_RANGES`."""
        low, high = AREA_RANGES[area]
        return self.counted & (self.areas >= low) & (self.areas <= high)


@dataclass(frozen=True)
class Matching:
    """N detections, ordered by image and falling score, and what each of them matches.

    Attributes:
        image_ids: ``(I,)`` ids of the images, ascending.
        sizes: ``(I, 2)`` height and width of the images; 0 where the ground truth doesn't say.
        category_ids: ``(K,)`` ids of the classes, ascending.
        names: Their K names.
        objects: The ground truth.
        images: ``(N,)`` row of the image of each detection.
        classes: ``(N,)`` row of its class.
        scores: ``(N,)``.
        boxes: ``(N, 4)`` float64 xyxy in pixels.
        ranks: ``(N,)`` place among the detections of its class in its image; 0 is the best.
        matched: ``(4, 10, N)`` for each of `AREA_RANGES` and `IOU_THRESHOLDS` the object, `UNMATCHED` or `IGNORED`.
        near: ``(2, N)`` the counted object of its own class, and of another class, that it overlaps most; -1 without.
        near_iou: ``(2, N)`` these overlaps.
    """

    image_ids: IntArray
    sizes: IntArray
    category_ids: IntArray
    names: tuple[str, ...]
    objects: Objects
    images: IntArray
    classes: IntArray
    scores: DoubleArray
    boxes: DoubleArray
    ranks: IntArray
    matched: NDArray[np.int32]
    near: IntArray
    near_iou: DoubleArray

    @property
    def first(self) -> IntArray:
        """``(N,)`` what each detection matches at IoU 0.5: an object, `UNMATCHED` or `IGNORED`."""
        found: IntArray = self.matched[0, 0].astype(np.int64)
        return found

    @property
    def finder(self) -> IntArray:
        """``(M,)`` the detection that matches each object at IoU 0.5; -1 where none does."""
        found = np.full(len(self.objects.ids), -1, np.int64)
        rows = np.flatnonzero(self.first >= 0)
        found[self.first[rows]] = rows
        return found


def match_detections(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, max_detections: int = COCO_MAX_DETECTIONS
) -> Matching:
    """Match all detections of a data set.

    Args:
        truth: Ground truth as a COCO dict.
        results: ``image_id, category_id, bbox (xywh), score`` of every detection, of the truth's images and classes.
        max_detections: How many detections per image and class count, the best ones.
    """
    images = sorted(truth["images"], key=lambda image: int(image["id"]))
    categories = sorted(truth["categories"], key=lambda category: int(category["id"]))
    image_ids = np.array([int(image["id"]) for image in images], np.int64)
    category_ids = np.array([int(category["id"]) for category in categories], np.int64)
    rows = truth["annotations"]
    crowd = np.array([bool(row.get("iscrowd")) for row in rows], np.bool_)
    counted = ~crowd & ~np.array([is_ignored(row) for row in rows], np.bool_)
    areas = [float(np.prod(row["bbox"][2:]) if row.get("area") is None else row["area"]) for row in rows]
    objects = Objects(
        np.searchsorted(image_ids, _column(rows, "image_id")),
        np.searchsorted(category_ids, _column(rows, "category_id")),
        _xyxy(rows),
        np.array(areas, np.float64),
        counted,
        np.array([int(row.get("id", -1)) for row in rows], np.int64),
    )
    image = np.searchsorted(image_ids, _column(results, "image_id"))
    label = np.searchsorted(category_ids, _column(results, "category_id"))
    scores = np.array([float(row["score"]) for row in results], np.float64)
    # Stable sorts, as in COCO: among equal scores the order of the results decides.
    order = np.lexsort((-scores, label, image))
    group = image[order] * len(category_ids) + label[order]
    place = np.arange(len(order)) - np.searchsorted(group, group)
    order, place = order[place < max_detections], place[place < max_detections]
    by_score = np.lexsort((order, -scores[order], image[order]))
    order, ranks = order[by_score], place[by_score]
    image, label, boxes = image[order], label[order], _xyxy([results[row] for row in order.tolist()])
    matched = np.full((len(AREA_RANGES), len(IOU_THRESHOLDS), len(order)), UNMATCHED, np.int32)
    near, near_iou = np.full((2, len(order)), -1, np.int64), np.zeros((2, len(order)))
    outside = ~np.array([objects.within(area) for area in range(len(AREA_RANGES))])
    by_image = np.argsort(objects.images, kind="stable")
    object_ends = np.searchsorted(objects.images[by_image], np.arange(len(images) + 1))
    ends = np.searchsorted(image, np.arange(len(images) + 1))
    for row in np.flatnonzero((np.diff(object_ends) > 0) & (np.diff(ends) > 0)).tolist():
        there = by_image[object_ends[row] : object_ends[row + 1]]
        here = np.arange(ends[row], ends[row + 1])
        overlap = pairwise_iou(boxes[here], objects.boxes[there])
        if crowd[there].any():
            overlap[:, crowd[there]] = _covered(boxes[here], objects.boxes[there[crowd[there]]])
        same = label[here, None] == objects.classes[there][None]
        for side, mask in enumerate((same, ~same)):
            masked = np.where(mask & counted[there], overlap, 0)
            best = masked.argmax(axis=1)
            near_iou[side, here] = masked[np.arange(len(here)), best]
            near[side, here] = np.where(near_iou[side, here] > 0, there[best], -1)
        close = (overlap >= IOU_THRESHOLDS[0]) & same
        for kind in np.unique(label[here[close.any(axis=1)]]).tolist():
            chosen = here[close.any(axis=1) & (label[here] == kind)]
            rivals = objects.classes[there] == kind
            mine = there[rivals]
            found = _match(overlap[chosen - ends[row]][:, rivals], outside[:, mine], ~counted[mine])
            matched[:, :, chosen] = np.where(found >= 0, mine[found], UNMATCHED)
    for number, row in enumerate(matched):
        hits = np.nonzero(row >= 0)
        row[hits] = np.where(outside[number][row[hits]], IGNORED, row[hits])
    own = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for number, (low, high) in enumerate(AREA_RANGES):
        matched[number][(matched[number] == UNMATCHED) & ((own < low) | (own > high))] = IGNORED
    sizes = np.array([(int(i.get("height") or 0), int(i.get("width") or 0)) for i in images], np.int64).reshape(-1, 2)
    names = tuple(str(category["name"]) for category in categories)
    return Matching(
        image_ids,
        sizes,
        category_ids,
        names,
        objects,
        image,
        label,
        scores[order],
        boxes,
        ranks,
        matched,
        near,
        near_iou,
    )


def _match(overlap: DoubleArray, outside: BoolArray, repeatable: BoolArray) -> IntArray:
    """The object of each of D detections, best first, for R ranges and T thresholds: ``(R, T, D)``; -1 for none.

    Args:
        overlap: ``(D, G)``.
        outside: ``(R, G)`` objects that don't count in a range, taken only where no other is left.
        repeatable: ``(G,)`` objects that any number of detections may match.
    """
    taken = np.zeros((len(outside), len(IOU_THRESHOLDS), overlap.shape[1]), np.bool_)
    found = np.full((*taken.shape[:2], len(overlap)), -1, np.int64)
    prefer = 2.0 * ~outside[:, None]
    ranges, thresholds = np.indices(taken.shape[:2])
    for row, ious in enumerate(overlap):
        open_ = (ious >= IOU_THRESHOLDS[:, None]) & ~(taken & ~repeatable)
        value = np.where(open_, ious + prefer, -1)[..., ::-1]  # of equal ones COCO takes the last
        best = value.argmax(axis=-1)
        right = np.take_along_axis(value, best[..., None], axis=-1)[..., 0] >= 0
        best = overlap.shape[1] - 1 - best
        taken[ranges[right], thresholds[right], best[right]] = True
        found[..., row] = np.where(right, best, -1)
    return found


def _covered(boxes: DoubleArray, crowds: DoubleArray) -> DoubleArray:
    """Share of each box ``(N, 4)`` that lies in each crowd ``(M, 4)``, COCO's overlap with a crowd: ``(N, M)``."""
    low = np.maximum(boxes[:, None, :2], crowds[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)[:, None]
    covered: DoubleArray = np.clip(high - low, 0, None).prod(axis=2) / np.maximum(area, 1e-12)
    return covered


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> IntArray:
    return np.array([int(row[key]) for row in rows], np.int64)


def _xyxy(rows: Sequence[Mapping[str, Any]]) -> DoubleArray:
    boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    return boxes

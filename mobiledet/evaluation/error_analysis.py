"""What the lost average precision is lost to: TIDE's kinds of errors, and shares of the loss by kinds of objects.

Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors" (arXiv 2008.08115): how much AP50
would rise if all errors of one kind were corrected. Detections on crowds and ignored objects are no errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np

from mobiledet.evaluation.intervals import AveragePrecision, Interval, interval, mean_known, precision_of
from mobiledet.evaluation.matching import IGNORED, UNMATCHED, Matching
from mobiledet.ops.numpy_boxes import pairwise_iou
from mobiledet.structures import BoolArray, DoubleArray, IntArray, ResizeRule

FOREGROUND, BACKGROUND = 0.5, 0.1
"""TIDE's overlaps: from the first on a detection is on an object, up to the second it is on background."""


class ErrorKind(Enum):
    """TIDE's main kinds of errors, each with its name and a description, and its two special ones."""

    CLASSIFICATION = "classification", "on an object, with the wrong class"
    LOCALISATION = "localisation", "right class, box too far off (IoU 0.1 to 0.5)"
    BOTH = "both", "wrong class, and box too far off"
    DUPLICATE = "duplicate", "a second detection of an object that is found"
    BACKGROUND = "background", "a detection where no object is labelled"
    MISSED = "missed", "an object that no detection comes near"
    FALSE_POSITIVES = "all false positives", "no wrong detection at all"
    FALSE_NEGATIVES = "all false negatives", "no object missed at all"

    def __init__(self, label: str, description: str) -> None:
        self.label = label
        self.description = description


KINDS = tuple(ErrorKind)
RIGHT = -1
"""Instead of the kind of a detection's error."""


class ErrorAnalysis:
    """The errors of a matching.

    Attributes:
        kinds: ``(N,)`` row of `KINDS` for each detection; `RIGHT` where it is right or counts neither way.
        missed: ``(M,)`` objects that count as missed: unmatched, and without a classification or localisation error.
        losses: ``(M,)`` of each object, what its class loses on it, 0..1: one less the precision at which it is found
            (COCO's, the best at its recall or a higher one), averaged over IoU 0.50:0.95; 1 where it is never found.
            Their mean over the objects of a class is the class's lost AP but for COCO's rounding to 101 recalls.
        shares: ``(M,)`` share of each object in the lost AP of all classes together; they sum up to 1.
    """

    def __init__(self, matching: Matching) -> None:
        self._matching = matching
        objects, first = matching.objects, matching.first
        same, other = matching.near_iou
        wrong, count = first < 0, len(first)
        kinds = np.full(count, RIGHT, np.int8)
        for kind, mask in (
            (ErrorKind.LOCALISATION, (same >= BACKGROUND) & (same <= FOREGROUND)),
            (ErrorKind.CLASSIFICATION, other >= FOREGROUND),
            (ErrorKind.DUPLICATE, same >= FOREGROUND),
            (ErrorKind.BACKGROUND, np.maximum(same, other) <= BACKGROUND),
            (ErrorKind.BOTH, np.ones(count, np.bool_)),
        ):
            kinds[wrong & (kinds == RIGHT) & mask] = KINDS.index(kind)
        self._kinds = kinds
        self.kinds = np.where(first == UNMATCHED, kinds, RIGHT)
        # The object that an error would find if it were corrected; of several errors the best one does. As in TIDE's
        # own program, a detection on a crowd, which is no error, may come near an object beside it, too.
        target = np.full(count, -1, np.int64)
        for side, kind in enumerate((ErrorKind.LOCALISATION, ErrorKind.CLASSIFICATION)):
            rows = np.flatnonzero(kinds == KINDS.index(kind))
            target[rows] = matching.near[side, rows]
        unfound = objects.counted & (matching.finder < 0)
        candidates = np.flatnonzero(np.append(unfound, False)[target])  # -1, no target, is the one appended
        candidates = candidates[np.argsort(-matching.scores[candidates], kind="stable")]
        targets, best = np.unique(target[candidates], return_index=True)
        self._fixers = np.full(count, -1, np.int64)
        self._fixers[candidates[best]] = targets
        self.missed = unfound.copy()
        self.missed[targets] = False
        self._base = self._precision()
        self._fixed = [self._fix(kind, unfound) for kind in KINDS]
        self.losses = self._losses()
        positives = np.bincount(objects.classes[objects.counted], minlength=len(matching.names))
        lost = np.where(objects.counted, self.losses, 0) / np.maximum(positives, 1)[objects.classes]
        self.shares = lost / lost.sum() if lost.sum() > 0 else lost

    def costs(self, weights: IntArray | None = None) -> DoubleArray:
        """AP50 that each of `KINDS` costs, in their order, 0..1; never below 0.

        Args:
            weights: ``(I,)`` how often each image counts.
        """
        base = self._base.by_class(weights)[0]
        known = np.isfinite(base)
        if not known.any():
            return np.zeros(len(KINDS), np.float64)
        fixed = []
        for one in self._fixed:
            values = one.by_class(weights)[0]
            # As in TIDE a class that has lost all its objects counts as 0 if it has detections.
            fixed.append(mean_known(np.where(np.isnan(values) & one.detected, 0, values)[known]))
        costs: DoubleArray = np.maximum(np.nan_to_num(fixed) - base[known].mean(), 0)
        return costs

    def cost_intervals(self, draws: IntArray) -> list[Interval | None]:
        """How sure the costs are, by resampled images ``(B, I)``."""
        samples = np.array([self.costs(weights) for weights in draws])
        return [interval(column, value) for column, value in zip(samples.T, self.costs().tolist(), strict=True)]

    def _precision(
        self,
        *,
        classes: IntArray | None = None,
        scores: DoubleArray | None = None,
        right: BoolArray | None = None,
        ignored: BoolArray | None = None,
        objects: BoolArray | None = None,
    ) -> AveragePrecision:
        m = self._matching
        there = m.objects.counted if objects is None else m.objects.counted & objects
        return AveragePrecision(
            m.classes if classes is None else classes,
            m.scores if scores is None else scores,
            m.images,
            (m.first >= 0 if right is None else right)[None],
            (m.first == IGNORED if ignored is None else ignored)[None],
            m.objects.classes[there],
            m.objects.images[there],
            len(m.names),
        )

    def _fix(self, kind: ErrorKind, unfound: BoolArray) -> AveragePrecision:
        """Average precision with the errors of one kind corrected: made right, or removed where they can't be."""
        m = self._matching
        right = m.first >= 0
        if kind is ErrorKind.MISSED:
            return self._precision(objects=~self.missed)
        if kind is ErrorKind.FALSE_NEGATIVES:
            return self._precision(objects=~unfound)
        if kind is ErrorKind.FALSE_POSITIVES:
            return self._precision(scores=right.astype(np.float64))
        errors = self._kinds == KINDS.index(kind)
        mended = errors & (self._fixers >= 0)
        classes = np.where(mended, m.objects.classes[np.maximum(self._fixers, 0)], m.classes) if mended.any() else None
        ignored = ((m.first == IGNORED) | errors) & ~mended
        return self._precision(classes=classes, right=right | mended, ignored=ignored)

    def _losses(self) -> DoubleArray:
        matching, precision = self._matching, precision_of(self._matching)
        gained = np.zeros(len(matching.objects.ids))
        for number, (at, _, _, best) in enumerate(precision.curves()):
            gained[matching.matched[0, number][precision.order[at]]] += best
        losses: DoubleArray = 1 - gained / len(matching.matched[0])
        return losses


@dataclass(frozen=True)
class Group:
    """Objects that have something in common.

    Attributes:
        text: What, such as "under 16 px".
        mask: ``(M,)`` which of all objects they are.
        objects: How many.
        found: Share of them that is found at the confidence threshold.
        loss: Mean of their `ErrorAnalysis.losses`.
        share: Of the lost AP, that is lost on them.
        sure: How sure that share is.
        beyond: How sure it is how much more is lost on one of them than on one of the others: the ratio.
    """

    text: str
    mask: BoolArray
    objects: int
    found: float
    loss: float
    share: float
    sure: Interval | None
    beyond: Interval | None


SMALL_SIDES = (16, 32)
"""Pixels of the network's input below which an object is hardly more than one or two cells of the first feature map."""

_LEAST_LOSS = 0.01
"""A mean loss below this counts as this when others are compared with it."""

_BINS: dict[str, tuple[tuple[float, ...], tuple[str, ...]]] = {
    "size": (
        (*SMALL_SIDES, 64, 128),
        ("under 16 px", "16 to 32 px", "32 to 64 px", "64 to 128 px", "128 px and more"),
    ),
    "shape": ((0.5, 2), ("tall, under 1:2", "between", "wide, over 2:1")),
    "overlap": ((0.05, 0.3), ("alone", "overlap up to IoU 0.3", "overlap over IoU 0.3")),
    "crowd": ((4, 11), ("1 to 3 objects", "4 to 10 objects", "more than 10 objects")),
    "border": ((0.01, 0.1), ("at the border", "within 10 % of it", "inside")),
    "brightness": ((60, 120, 180), ("under 60 (dark)", "60 to 120", "120 to 180", "180 and more (bright)")),
}
PROPERTIES = {
    "size": "Size in the network's input (root of the area)",
    "shape": "Shape (width to height)",
    "overlap": "Crowding: overlap with another object",
    "crowd": "Crowding: objects in the image",
    "border": "Distance from the image's border, of its side",
    "brightness": "Mean brightness of the image (0 to 255)",
}
"""What objects are grouped by."""


def group_text(name: str, number: int) -> str:
    """What the group at that place is called, among all groups of one of `PROPERTIES`."""
    return _BINS[name][1][number]


def object_properties(
    matching: Matching, resize: ResizeRule, brightness: Mapping[int, float]
) -> dict[str, DoubleArray]:
    """Each of `PROPERTIES` of all objects ``(M,)``; NaN where it isn't known.

    Args:
        matching: The objects.
        resize: How the network's input is made.
        brightness: Mean grey level of images by id.
    """
    objects = matching.objects
    height, width = np.maximum(matching.sizes[objects.images], 1).T.astype(np.float64)
    unknown = matching.sizes[objects.images].min(axis=1, initial=1) < 1
    inputs = np.array([resize((int(h), int(w))) for h, w in np.maximum(matching.sizes, 1)]).reshape(-1, 2)
    scale = np.sqrt(inputs[objects.images].prod(axis=1) / (height * width))
    x1, y1, x2, y2 = objects.boxes.T
    distance = np.min([x1 / width, y1 / height, 1 - x2 / width, 1 - y2 / height], axis=0)
    levels = np.array([brightness.get(int(key), np.nan) for key in matching.image_ids], np.float64)
    overlap, counted = np.zeros(len(x1)), np.flatnonzero(objects.counted)
    counts = np.bincount(objects.images[counted], minlength=len(matching.image_ids))
    for rows in np.split(counted[np.argsort(objects.images[counted], kind="stable")], np.cumsum(counts)[:-1]):
        if len(rows) > 1:
            ious = pairwise_iou(objects.boxes[rows], objects.boxes[rows])
            np.fill_diagonal(ious, 0)
            overlap[rows] = ious.max(axis=1)
    found = {
        "size": np.sqrt(np.maximum((x2 - x1) * (y2 - y1), 0)) * scale,
        "shape": (x2 - x1) / np.maximum(y2 - y1, 1e-9),
        "overlap": overlap,
        "crowd": counts[objects.images].astype(np.float64),
        "border": distance,
        "brightness": levels[objects.images],
    }
    for name in ("size", "border"):
        found[name][unknown] = np.nan
    return found


def group_objects(
    analysis: ErrorAnalysis,
    matching: Matching,
    properties: Mapping[str, DoubleArray],
    *,
    threshold: float,
    draws: IntArray,
) -> dict[str, list[Group]]:
    """Objects in groups by each of `PROPERTIES`, and what is lost on them; empty groups are omitted.

    Args:
        analysis: Of the matching.
        matching: The objects and what finds them.
        properties: See `object_properties`.
        threshold: The score from which a detection finds an object.
        draws: ``(B, I)`` resampled images, for the intervals.
    """
    finder, counted = matching.finder, matching.objects.counted
    is_found = (finder >= 0) & (matching.scores[finder] >= threshold) if len(matching.scores) else finder >= 0
    images, count = matching.objects.images, len(matching.image_ids)
    groups: dict[str, list[Group]] = {}
    for name, values in properties.items():
        edges, texts = _BINS[name]
        bins = np.searchsorted(edges, values, side="right")
        bins[~np.isfinite(values) | ~counted] = -1
        known, groups[name] = bins >= 0, []
        for number, text in enumerate(texts):
            mask = bins == number
            if not mask.any():
                continue
            inside, outside = (_samples(analysis, images, draws, count, rows) for rows in (mask, known & ~mask))
            with np.errstate(divide="ignore", invalid="ignore"):
                share = inside[0] / (inside[0] + outside[0])
                ratio = (inside[1] / inside[2]) / np.maximum(outside[1] / outside[2], _LEAST_LOSS)
            whole = float(analysis.shares[known].sum())
            groups[name].append(
                Group(
                    text,
                    mask,
                    int(mask.sum()),
                    float(is_found[mask].mean()),
                    float(analysis.losses[mask].mean()),
                    float(analysis.shares[mask].sum()) / whole if whole else 0.0,
                    interval(share),
                    interval(ratio),
                )
            )
    return groups


def _samples(
    analysis: ErrorAnalysis, images: IntArray, draws: IntArray, count: int, rows: BoolArray
) -> Sequence[DoubleArray]:
    """Over resamples ``(B,)``: the share of the loss on some objects, the sum of their losses, and their number."""
    sums = (np.bincount(images[rows], values[rows], count) for values in (analysis.shares, analysis.losses))
    return [draws @ values for values in (*sums, np.bincount(images[rows], minlength=count))]

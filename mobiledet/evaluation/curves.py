"""Precision, recall and F1 over the confidence threshold, the confusion matrix, and how far scores can be believed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mobiledet.evaluation.matching import IGNORED, UNMATCHED, Matching
from mobiledet.structures import BoolArray, DoubleArray, IntArray

THRESHOLDS = np.linspace(0, 1, 101)
_BINS = 10


@dataclass(frozen=True)
class ThresholdCurves:
    """At each of `THRESHOLDS`, at IoU 0.5, all classes together: precision (NaN without detections), recall, F1."""

    precision: DoubleArray
    recall: DoubleArray
    f1: DoubleArray


def threshold_curves(matching: Matching, chosen: BoolArray | None = None) -> ThresholdCurves:
    """The curves; with ``chosen`` ``(K,)`` those of some classes."""
    classes = np.ones(len(matching.names), np.bool_) if chosen is None else chosen
    counts = (matching.first != IGNORED) & classes[matching.classes]
    right = counts & (matching.first >= 0)
    objects = int((matching.objects.counted & classes[matching.objects.classes]).sum())
    shown, hits = (_at_least(matching.scores[rows]) for rows in (counts, right))
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = hits / shown, hits / objects
        f1 = 2 * hits / (shown + objects)
    return ThresholdCurves(precision, recall, f1)


def _at_least(scores: DoubleArray) -> DoubleArray:
    ordered = np.sort(scores)
    return (len(ordered) - np.searchsorted(ordered, THRESHOLDS - 1e-9)).astype(np.float64)


@dataclass(frozen=True)
class ClassCounts:
    """At one confidence threshold, for each class ``(K,)``: right and false detections, and objects."""

    right: IntArray
    false: IntArray
    objects: IntArray


def class_counts(matching: Matching, threshold: float) -> ClassCounts:
    """Right and false detections of each class that score at least ``threshold``."""
    shown, number = matching.scores >= threshold, len(matching.names)
    right = np.bincount(matching.classes[shown & (matching.first >= 0)], minlength=number)
    false = np.bincount(matching.classes[shown & (matching.first == UNMATCHED)], minlength=number)
    objects = matching.objects.classes[matching.objects.counted]
    return ClassCounts(right, false, np.bincount(objects, minlength=number))


def confusion_matrix(matching: Matching, threshold: float) -> IntArray:
    """``(K + 1, K + 1)`` objects by true class (row) and detected class (column); the last of each is background.

    Detections of the right class choose first. Of the others, best first, each takes the object of another class that
    it overlaps most, by IoU 0.5 or more, if nothing else has found it. What remains is a false detection (last row) or
    a missed object (last column).
    """
    background = len(matching.names)
    matrix = np.zeros((background + 1, background + 1), np.int64)
    shown = np.flatnonzero((matching.scores >= threshold) & (matching.first != IGNORED))
    right = shown[matching.first[shown] >= 0]
    found = np.zeros(len(matching.objects.ids), np.bool_)
    found[matching.first[right]] = True
    np.add.at(matrix, (matching.classes[right], matching.classes[right]), 1)
    false = shown[matching.first[shown] < 0]
    for row in false[np.argsort(-matching.scores[false], kind="stable")].tolist():
        near, truth = int(matching.near[1, row]), background
        if matching.near_iou[1, row] >= 0.5 and not found[near]:
            truth, found[near] = int(matching.objects.classes[near]), True
        matrix[truth, matching.classes[row]] += 1
    missed = matching.objects.classes[matching.objects.counted & ~found]
    matrix[:background, background] = np.bincount(missed, minlength=background)
    return matrix


@dataclass(frozen=True)
class Calibration:
    """How often detections of a score are right, in ten ranges of scores.

    Attributes:
        scores: ``(B,)`` mean score of the detections in each range that has some.
        right: ``(B,)`` share of them that is right at IoU 0.5.
        counts: ``(B,)`` how many they are.
        error: Expected calibration error (Naeini et al. 2015): the mean distance of the two, weighted by the counts.
    """

    scores: DoubleArray
    right: DoubleArray
    counts: IntArray
    error: float


def calibration(matching: Matching, *, minimum: float = 0.05) -> Calibration:
    """Of the detections that score at least ``minimum``; those below are many, and nobody looks at them."""
    rows = (matching.scores >= minimum) & (matching.first != IGNORED)
    scores, right = matching.scores[rows], matching.first[rows] >= 0
    bins = np.minimum((scores * _BINS).astype(np.int64), _BINS - 1)
    counts = np.bincount(bins, minlength=_BINS)
    used = counts > 0
    mean, share = (np.bincount(bins, values, _BINS)[used] / counts[used] for values in (scores, right))
    error = float((np.abs(mean - share) * counts[used]).sum() / max(1, counts.sum()))
    return Calibration(mean, share, counts[used], error)

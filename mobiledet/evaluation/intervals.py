"""How sure a score is: average precision of resampled images, from one matching, and its bootstrap interval."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mobiledet.evaluation.matching import AREA_RANGES, IGNORED, Matching
from mobiledet.structures import BoolArray, DoubleArray, IntArray

RECALLS = np.linspace(0, 1, 101)
_MANY = 50_000  # detections from which on fewer resamples must do
FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve, by their names in `Metrics`."""

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """Where a figure lies in 95 % of the resamples: how far other images of the same kind would move it."""

    low: float
    high: float

    @property
    def half(self) -> float:
        """Half the width."""
        return (self.high - self.low) / 2


def interval(samples: DoubleArray, value: float | None = None) -> Interval | None:
    """The bootstrap interval of a figure; None where hardly any resample defines it.

    Args:
        samples: ``(B,)`` its values of resampled images; NaN where not defined.
        value: That of all images. The quantiles of the samples are moved so that their mean lies there: images that are
            drawn twice flatter average precision. None leaves them where they are.
    """
    known = samples[np.isfinite(samples)]
    if len(known) < max(2, len(samples) / 2):
        return None
    low, high = np.quantile(known, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]) + (
        0.0 if value is None else value - known.mean()
    )
    return Interval(float(low), float(high))


def resample_images(images: int, detections: int, *, resamples: int | None = None, seed: int = 0) -> IntArray:
    """``(B, images)`` how often each image is drawn, with replacement, in each of B resamples of the data set.

    B is ``resamples``; by default 500, and 200 of data sets with very many detections. The same images and seed give
    the same resamples, which makes a comparison of two models a paired one.
    """
    random = np.random.default_rng(seed)
    resamples = resamples or (500 if detections < _MANY else 200)
    draws = (np.bincount(random.integers(images, size=images), minlength=images) for _ in range(resamples))
    return np.array(list(draws), np.int64).reshape(resamples, images)


class AveragePrecision:
    """Average precision by class of some detections, whatever weight each image is given.

    Args:
        classes: ``(N,)`` row of the class of each detection, 0..K-1.
        scores: ``(N,)``; among equal ones the order given decides.
        images: ``(N,)`` row of its image.
        right: ``(T, N)`` whether it is right, for each of T thresholds.
        ignored: ``(T, N)`` whether it counts neither way.
        object_classes: ``(M,)`` row of the class of each object to be found.
        object_images: ``(M,)`` row of its image.
        num_classes: K.

    Attributes:
        order: ``(N,)`` rows of the detections, ranked class by class.
        detected: ``(K,)`` whether a class has detections that count.
    """

    def __init__(
        self,
        classes: IntArray,
        scores: DoubleArray,
        images: IntArray,
        right: BoolArray,
        ignored: BoolArray,
        object_classes: IntArray,
        object_images: IntArray,
        num_classes: int,
    ) -> None:
        order = np.lexsort((-scores, classes))
        self._images, self._object_images = images[order], object_images
        self._object_classes, self._num_classes = object_classes, num_classes
        ordered = classes[order]
        self._starts = np.searchsorted(ordered, np.arange(num_classes))
        self.order = order
        self.detected = np.bincount(classes[~ignored.all(axis=0)], minlength=num_classes) > 0
        self._right = [np.flatnonzero(row[order]) for row in right]
        self._ignored = [np.flatnonzero(row[order]) for row in ignored]
        self._classes = [ordered[rows] for rows in self._right]

    def positives(self, weights: IntArray | None = None) -> IntArray:
        """``(K,)`` objects of each class, an object of an image of weight 2 being two."""
        values = None if weights is None else weights[self._object_images]
        return np.bincount(self._object_classes, values, self._num_classes).astype(np.int64)

    def curves(self, weights: IntArray | None = None) -> Iterator[tuple[IntArray, IntArray, IntArray, DoubleArray]]:
        """For each threshold, of its right detections: their rows in `order`, class, number so far and precision.

        The precision is COCO's: the best at this recall or a higher one.
        """
        own = np.ones(len(self._images), np.int64) if weights is None else weights[self._images]
        total = np.concatenate([[0], np.cumsum(own)])
        for at, ignored, classes in zip(self._right, self._ignored, self._classes, strict=True):
            left_out = np.concatenate([[0], np.cumsum(own[ignored])])
            seen = total[at + 1] - left_out[np.searchsorted(ignored, at)]
            seen -= (total[self._starts] - left_out[np.searchsorted(ignored, self._starts)])[classes]
            right = np.concatenate([[0], np.cumsum(own[at])])
            number = right[1:] - right[np.searchsorted(classes, np.arange(self._num_classes))][classes]
            precision = number / np.maximum(seen, 1)
            # A running maximum from the end, class by class: a class further on never reaches this one's values.
            lifted = precision + 2.0 * (self._num_classes - classes)
            best = np.maximum.accumulate(lifted[::-1])[::-1] - 2.0 * (self._num_classes - classes)
            yield at, classes, number, best

    def interpolated(self, weights: IntArray | None = None) -> DoubleArray:
        """``(T, K, 101)`` precision at recall 0, 0.01 .. 1; NaN for classes without objects."""
        positives = self.positives(weights)
        # The number of right detections that reaches a recall, in whole numbers.
        needed = np.ceil(RECALLS * positives[:, None] - 1e-6).astype(np.int64)
        needed += needed / np.maximum(positives[:, None], 1) < RECALLS
        far, rows = int(positives.max(initial=0)) + 2, np.arange(self._num_classes)
        found = np.full((len(self._right), self._num_classes, len(RECALLS)), np.nan)
        for number, (_, classes, right, precision) in enumerate(self.curves(weights)):
            places = np.searchsorted(classes * far + right, (rows[:, None] * far + np.minimum(needed, far - 1)).ravel())
            places = places.reshape(needed.shape)
            inside = places < np.searchsorted(classes, rows, side="right")[:, None]
            values = np.append(precision, 0.0)[np.where(inside, places, len(precision))]
            found[number] = np.where(positives[:, None] > 0, values, np.nan)
        return found

    def by_class(self, weights: IntArray | None = None) -> DoubleArray:
        """``(T, K)`` average precision; NaN for classes without objects."""
        values: DoubleArray = self.interpolated(weights).mean(axis=2)
        return values


def precision_of(matching: Matching, area: int = 0) -> AveragePrecision:
    """Average precision at all of `IOU_THRESHOLDS` of the objects in one of `AREA_RANGES`."""
    there, objects = matching.objects.within(area), matching.objects
    return AveragePrecision(
        matching.classes,
        matching.scores,
        matching.images,
        matching.matched[area] >= 0,
        matching.matched[area] == IGNORED,
        objects.classes[there],
        objects.images[there],
        len(matching.names),
    )


@dataclass(frozen=True)
class Sampled:
    """COCO's figures of B resamples, NaN where not defined.

    Attributes:
        figures: ``(B,)`` by the names in `FIGURES`.
        classes: ``(B, K)`` AP of each class.
    """

    figures: dict[str, DoubleArray]
    classes: DoubleArray


def sample_figures(matching: Matching, draws: IntArray) -> Sampled:
    """The twelve figures, and AP by class, of resampled images.

    Args:
        matching: Of the whole data set.
        draws: ``(B, I)`` how often each image counts; see `resample_images`.
    """
    areas = [precision_of(matching, area) for area in range(len(AREA_RANGES))]
    recalls = {"AR1": _Recall(matching, 0, 1), "AR10": _Recall(matching, 0, 10)}
    recalls |= {name: _Recall(matching, area) for area, name in enumerate(("AR100", "ARs", "ARm", "ARl"))}
    figures, classes = {name: np.empty(len(draws)) for name in FIGURES}, np.empty((len(draws), len(matching.names)))
    for row, weights in enumerate(draws):
        whole = areas[0].by_class(weights)
        classes[row] = whole.mean(axis=0)
        figures["AP"][row], figures["AP50"][row], figures["AP75"][row] = map(mean_known, (whole, whole[0], whole[5]))
        for name, area in zip(("APs", "APm", "APl"), areas[1:], strict=True):
            figures[name][row] = mean_known(area.by_class(weights))
        for name, recall in recalls.items():
            figures[name][row] = mean_known(recall(weights))
    return Sampled(figures, classes)


def mean_known(values: DoubleArray) -> float:
    """The mean of what is finite; NaN where nothing is."""
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else np.nan


class _Recall:
    """Recall ``(T, K)`` of the best ``limit`` detections per image and class."""

    def __init__(self, matching: Matching, area: int, limit: int | None = None) -> None:
        there, objects = matching.objects.within(area), matching.objects
        right = matching.matched[area] >= 0
        if limit is not None:
            right &= matching.ranks < limit
        threshold, rows = np.nonzero(right)
        self._shape = (len(right), len(matching.names))
        self._cells = threshold * self._shape[1] + matching.classes[rows]
        self._images, self._objects = matching.images[rows], (objects.classes[there], objects.images[there])

    def __call__(self, weights: IntArray) -> DoubleArray:
        found = np.bincount(self._cells, weights[self._images], self._shape[0] * self._shape[1]).reshape(self._shape)
        total = np.bincount(self._objects[0], weights[self._objects[1]], self._shape[1])
        recall: DoubleArray = np.where(total > 0, found / np.maximum(total, 1), np.nan)
        return recall

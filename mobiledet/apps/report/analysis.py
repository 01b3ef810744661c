"""Everything that the report says about one model, as figures: computed once, from one matching of its detections."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from mobiledet.evaluation.curves import ClassCounts, ThresholdCurves, class_counts, threshold_curves
from mobiledet.evaluation.error_analysis import (
    KINDS,
    RIGHT,
    ErrorAnalysis,
    ErrorKind,
    Group,
    group_objects,
    object_properties,
)
from mobiledet.evaluation.intervals import FIGURES, Interval, Sampled, interval, resample_images, sample_figures
from mobiledet.evaluation.matching import Matching, match_detections
from mobiledet.evaluation.scoring import Score
from mobiledet.evaluation.thresholds import DEFAULT_THRESHOLD
from mobiledet.structures import DoubleArray, IntArray
from mobiledet.utils.text import listing

LEAST_IMAGES = 5
"""Images with a class below which nothing can be said about how sure its AP is."""


@dataclass(frozen=True)
class Analysis:
    """One model on one data set.

    Attributes:
        model: What the user called the model.
        name: What the page calls it.
        score: Its detections and COCO figures.
        matching: Which detection matches which object.
        threshold: The confidence threshold of all that isn't AP: the one with the best F1, else the usual one.
        sampled: The figures of resampled images.
        intervals: Of each of COCO's twelve figures.
        class_intervals: Of each class's AP.
        errors: What is wrong with each detection, and what is lost on each object.
        costs: ``(8,)`` AP50 that each of `KINDS` costs.
        cost_intervals: How sure that is.
        groups: Objects by what they have in common.
        curves: Precision, recall and F1 over the confidence threshold.
        counts: Right and false detections by class, at the threshold.
    """

    model: str
    name: str
    score: Score
    matching: Matching
    threshold: float
    sampled: Sampled
    intervals: dict[str, Interval | None]
    class_intervals: list[Interval | None]
    errors: ErrorAnalysis
    costs: DoubleArray
    cost_intervals: list[Interval | None]
    groups: dict[str, list[Group]]
    curves: ThresholdCurves
    counts: ClassCounts

    @property
    def objects(self) -> int:
        """How many objects are to be found."""
        return int(self.matching.objects.counted.sum())

    def cost(self, kind: ErrorKind) -> tuple[float, Interval]:
        """AP50 that a kind of errors costs, and how sure that is."""
        row = KINDS.index(kind)
        return float(self.costs[row]), self.cost_intervals[row] or Interval(0.0, 1.0)

    def wrong(self) -> IntArray:
        """Rows of the wrong detections at the threshold, the best first."""
        rows = np.flatnonzero((self.errors.kinds != RIGHT) & (self.matching.scores >= self.threshold))
        ordered: IntArray = rows[np.argsort(-self.matching.scores[rows], kind="stable")]
        return ordered

    def missed(self) -> IntArray:
        """Rows of the objects that are not found at the threshold."""
        finder = self.matching.finder
        scores = np.append(self.matching.scores, -1.0)[finder]  # -1, without a finder, is the one appended
        rows: IntArray = np.flatnonzero(self.matching.objects.counted & (scores < self.threshold))
        return rows

    def percent_sure(self, name: str) -> str:
        """A figure of COCO's with its interval, such as ``"0.202 (0.171 to 0.233)"``."""
        value, sure = getattr(self.score.metrics, name), self.intervals[name]
        if value is None:
            return "-"
        return (
            f"{value:.3f}" if sure is None else f"{value:.3f} ({max(0.0, sure.low):.3f} to {min(1.0, sure.high):.3f})"
        )


def analyse(score: Score, model: str, *, name: str | None = None, resamples: int | None = None) -> Analysis:
    """Compute everything about a model that has been scored.

    Args:
        score: Of the model.
        model: What the user called it.
        name: What the page calls it, if something else.
        resamples: As in `resample_images`.
    """
    truth, most = score.dataset.coco_json(), score.metrics.max_detections
    matching = match_detections(truth, score.results, max_detections=most)
    threshold = DEFAULT_THRESHOLD if score.threshold is None else score.threshold
    draws = resample_images(len(matching.image_ids), len(matching.scores), resamples=resamples)
    sampled, errors = sample_figures(matching, draws), ErrorAnalysis(matching)
    properties = object_properties(matching, score.card.resize, score.brightness)
    objects = matching.objects
    there = np.unique(np.stack([objects.classes, objects.images])[:, objects.counted], axis=1)[0]
    images_of = np.bincount(there, minlength=len(matching.names))
    return Analysis(
        model=model,
        name=name or model,
        score=score,
        matching=matching,
        threshold=threshold,
        sampled=sampled,
        intervals={key: interval(sampled.figures[key], getattr(score.metrics, key)) for key in FIGURES},
        class_intervals=[
            interval(samples, row["AP"]) if images_of[number] >= LEAST_IMAGES else None
            for number, (row, samples) in enumerate(zip(score.metrics.per_class, sampled.classes.T, strict=True))
        ],
        errors=errors,
        costs=errors.costs(),
        cost_intervals=errors.cost_intervals(draws),
        groups=group_objects(errors, matching, properties, threshold=threshold, draws=draws),
        curves=threshold_curves(matching),
        counts=class_counts(matching, threshold),
    )


def worst_images(analysis: Analysis, most: int = 24) -> list[int]:
    """Rows of the images with the most mistakes at the threshold, weighed by the share that mistakes have in each."""
    matching, images = analysis.matching, len(analysis.matching.image_ids)
    wrong = np.bincount(matching.images[analysis.wrong()], minlength=images)
    wrong = wrong + np.bincount(matching.objects.images[analysis.missed()], minlength=images)
    right = np.bincount(
        matching.images[(matching.first >= 0) & (matching.scores >= analysis.threshold)], minlength=images
    )
    badness = wrong * wrong / np.maximum(wrong + right, 1)
    order = np.argsort(-badness, kind="stable")[:most]
    return [row for row in order.tolist() if wrong[row]]


def what_went_wrong(analysis: Analysis, image: int) -> str:
    """The mistakes in one image, in a few words: ``"missed: 3 person, 1 cup; background: dog 0.71"``."""
    matching, names = analysis.matching, analysis.matching.names
    missed, wrong = analysis.missed(), analysis.wrong()
    missed, wrong = missed[matching.objects.images[missed] == image], wrong[matching.images[wrong] == image]
    parts = []
    if len(missed):
        counts = Counter(names[row] for row in matching.objects.classes[missed].tolist())
        parts.append("missed: " + listing(f"{number} {name}" for name, number in counts.most_common()))
    for number, kind in enumerate(KINDS):
        rows = wrong[analysis.errors.kinds[wrong] == number].tolist()
        if rows:
            parts.append(f"{kind.label}: " + listing((_detection(analysis, row) for row in rows), 3))
    return "; ".join(parts)


def _detection(analysis: Analysis, row: int) -> str:
    matching = analysis.matching
    text = f"{matching.names[matching.classes[row]]} {matching.scores[row]:.2f}"
    if analysis.errors.kinds[row] == KINDS.index(ErrorKind.CLASSIFICATION):
        text += f" on a {matching.names[matching.objects.classes[matching.near[1, row]]]}"
    return text


def percent(share: float) -> str:
    """A share for people: "41 %", and "0.4 %" or "99.6 %" where it would look like none or all."""
    return f"{100 * share:.0f} %" if share in (0, 1) or 0.01 <= share <= 0.99 else f"{100 * share:.1f} %"

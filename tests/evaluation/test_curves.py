"""Curves, confusion and calibration on hand-made tables."""

import numpy as np
import pytest
from made_up_scores import results_of, truth_of

from mobiledet.evaluation.curves import THRESHOLDS, calibration, class_counts, confusion_matrix, threshold_curves
from mobiledet.evaluation.intervals import precision_of
from mobiledet.evaluation.matching import match_detections

A, B, C, FAR = (10, 20, 40, 60), (150, 30, 90, 50), (40, 150, 70, 40), (240, 180, 30, 20)


def matching_of(annotations, detections):
    return match_detections(truth_of(annotations), results_of(detections))


def at(values, threshold):
    return values[int(np.argmin(np.abs(THRESHOLDS - threshold)))]


def test_precision_recall_and_f1_over_the_threshold():
    """Four objects; right at 0.9, false at 0.8, right at 0.6, right at 0.3: the table is worked out by hand."""
    curves = threshold_curves(
        matching_of(
            [(1, 1, A), (1, 1, B), (1, 2, C), (1, 2, (250, 5, 30, 30))],
            [(1, 1, A, 0.9), (1, 1, FAR, 0.8), (1, 1, B, 0.6), (1, 2, C, 0.3)],
        )
    )
    table = {0.95: (np.nan, 0, 0), 0.9: (1, 1 / 4, 2 / 5), 0.7: (1 / 2, 1 / 4, 1 / 3)}
    table |= {0.6: (2 / 3, 1 / 2, 4 / 7), 0.3: (3 / 4, 3 / 4, 3 / 4), 0: (3 / 4, 3 / 4, 3 / 4)}
    for threshold, (precision, recall, f1) in table.items():
        assert at(curves.precision, threshold) == pytest.approx(precision, nan_ok=True), threshold
        assert at(curves.recall, threshold) == pytest.approx(recall), threshold
        assert at(curves.f1, threshold) == pytest.approx(f1), threshold


def test_precision_over_recall():
    """Right, false, right of three objects: precision 1 up to recall 1/3, 2/3 up to recall 2/3, then nothing."""
    matching = matching_of([(1, 1, A), (1, 1, B), (1, 1, C)], [(1, 1, A, 0.9), (1, 1, FAR, 0.8), (1, 1, B, 0.7)])
    precision = precision_of(matching).interpolated()[0, 0]
    np.testing.assert_allclose(precision[:34], 1)
    np.testing.assert_allclose(precision[34:67], 2 / 3)
    np.testing.assert_allclose(precision[67:], 0)


def test_counts_of_classes_at_the_threshold():
    counts = class_counts(
        matching_of(
            [(1, 1, A), (1, 2, B), (1, 3, C, {"ignore": 1})],
            [(1, 1, A, 0.9), (1, 1, FAR, 0.6), (1, 2, B, 0.4), (1, 3, C, 0.9)],
        ),
        0.5,
    )
    assert (counts.right.tolist(), counts.false.tolist(), counts.objects.tolist()) == ([1, 0, 0], [1, 0, 0], [1, 1, 0])


def test_confusion_by_hand():
    """A found, B taken for class 1, C missed, one detection of nothing; the one below the threshold doesn't count."""
    matrix = confusion_matrix(
        matching_of(
            [(1, 1, A), (1, 2, B), (1, 2, C), (1, 3, (250, 5, 30, 30), {"iscrowd": 1})],
            [(1, 1, A, 0.9), (1, 1, B, 0.8), (1, 2, FAR, 0.7), (1, 2, C, 0.4), (1, 3, (250, 5, 30, 30), 0.9)],
        ),
        0.5,
    )
    assert matrix.tolist() == [[1, 0, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_an_object_that_is_found_is_confused_with_nothing():
    matrix = confusion_matrix(matching_of([(1, 1, A)], [(1, 2, A, 0.9), (1, 1, A, 0.6)]), 0.5)
    assert matrix.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


def test_calibration_by_hand():
    """Of two at 0.92 and 0.94 one is right, of two at 0.25 none: errors 0.43 and 0.25, mean 0.34."""
    found = calibration(
        matching_of(
            [(1, 1, A)], [(1, 1, A, 0.92), (1, 1, FAR, 0.94), (1, 2, FAR, 0.25), (1, 2, B, 0.25), (1, 2, C, 0.01)]
        )
    )
    assert found.scores.tolist() == pytest.approx([0.25, 0.93])
    assert found.right.tolist() == [0, 0.5]
    assert found.counts.tolist() == [2, 2]
    assert found.error == pytest.approx(0.34)


def test_without_detections_or_objects_there_are_no_figures():
    nothing = matching_of([], [])
    assert np.isnan(threshold_curves(nothing).recall).all()
    assert confusion_matrix(nothing, 0.5).sum() == 0
    assert len(calibration(nothing).counts) == 0
    assert threshold_curves(matching_of([(1, 1, A)], [])).recall.tolist() == [0] * 101

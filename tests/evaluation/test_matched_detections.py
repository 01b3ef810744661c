"""One matching for all figures: the same as COCO's own, by hand and on made-up data."""

import numpy as np
import pytest
from made_up_scores import random_data, results_of, truth_of

from mobiledet.evaluation.intervals import FIGURES, sample_figures
from mobiledet.evaluation.matching import IGNORED, UNMATCHED, match_detections
from mobiledet.evaluation.metrics import score_detections

A, B = (10, 20, 40, 60), (150, 30, 90, 50)


def matched(annotations, detections, **options):
    """What the detections of one image match at IoU 0.5, best first."""
    return match_detections(truth_of(annotations), results_of(detections), **options).first.tolist()


@pytest.mark.parametrize("seed", range(4))
def test_all_twelve_figures_are_those_of_coco(seed):
    truth, results = random_data(seed)
    metrics = score_detections(truth, results)
    matching = match_detections(truth, results)
    sampled = sample_figures(matching, np.ones((1, len(matching.image_ids)), np.int64))
    for name in FIGURES:
        value = getattr(metrics, name)
        assert sampled.figures[name][0] == pytest.approx(np.nan if value is None else value, abs=1e-9, nan_ok=True), (
            name
        )
    by_class = [np.nan if row["AP"] is None else row["AP"] for row in metrics.per_class]
    np.testing.assert_allclose(sampled.classes[0], by_class, atol=1e-9)


def test_at_most_the_best_detections_of_an_image_and_class_count():
    truth, results = random_data(5, images=3)
    crowded = results_of([(1, 1, (k, 2 * k, 30, 20), k / 100) for k in range(40)])
    metrics = score_detections(truth, results + crowded, max_detections=10)
    matching = match_detections(truth, results + crowded, max_detections=10)
    sampled = sample_figures(matching, np.ones((1, 3), np.int64))
    assert sampled.figures["AP"][0] == pytest.approx(metrics.AP, abs=1e-9)
    assert np.bincount(matching.classes[matching.images == 0]).max() == 10


def test_the_better_score_takes_the_object_and_the_other_is_false():
    assert matched([(1, 1, A)], [(1, 1, A, 0.5), (1, 1, A, 0.9)]) == [0, UNMATCHED]
    assert matched([(1, 1, A), (1, 1, B)], [(1, 1, B, 0.9), (1, 1, A, 0.5)]) == [1, 0]


def test_another_class_or_image_matches_nothing():
    assert matched([(1, 1, A)], [(1, 2, A, 0.9)]) == [UNMATCHED]
    truth, results = truth_of([(1, 1, A)], images=2), results_of([(2, 1, A, 0.9)])
    assert match_detections(truth, results).first.tolist() == [UNMATCHED]


@pytest.mark.parametrize("flag", ["iscrowd", "ignore", "difficult"])
def test_any_number_of_detections_on_what_is_neither_object_nor_background_are_ignored(flag):
    assert matched([(1, 1, A, {flag: 1})], [(1, 1, A, 0.9), (1, 1, A, 0.8)]) == [IGNORED, IGNORED]
    assert match_detections(truth_of([(1, 1, A, {flag: 1})]), []).objects.counted.tolist() == [False]


def test_nearest_objects_of_its_own_and_of_other_classes():
    matching = match_detections(
        truth_of([(1, 1, A), (1, 2, B)]), results_of([(1, 1, B, 0.9), (1, 2, (0, 200, 9, 9), 0.1)])
    )
    assert matching.near.tolist() == [[-1, -1], [1, -1]]
    np.testing.assert_allclose(matching.near_iou, [[0, 0], [1, 0]])


def test_nothing_at_all():
    matching = match_detections(truth_of([]), [])
    assert matching.first.shape == (0,)
    assert matching.finder.shape == (0,)

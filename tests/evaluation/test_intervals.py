"""How sure a figure is, checked on data whose spread is known."""

import copy

import numpy as np
import pytest
from made_up_scores import random_data, results_of, truth_of

from mobiledet.evaluation.intervals import interval, precision_of, resample_images, sample_figures
from mobiledet.evaluation.matching import match_detections

BOX = (10, 20, 40, 60)


def test_the_interval_is_as_wide_as_the_known_spread():
    """One object an image, found with probability 0.6 and nothing else: AP is the share that is found."""
    images, chance = 400, 0.6
    hit = np.random.default_rng(1).random(images) < chance
    truth = truth_of([(image, 1, BOX) for image in range(1, images + 1)], images, names=("cat",))
    results = results_of([(image, 1, BOX, 0.9) for image in (np.flatnonzero(hit) + 1).tolist()])
    matching = match_detections(truth, results)
    sampled = sample_figures(matching, resample_images(images, len(results)))
    sure = interval(sampled.figures["AP"], float(hit.mean()))
    spread = np.sqrt(hit.mean() * (1 - hit.mean()) / images)
    assert sure.half == pytest.approx(1.96 * spread, rel=0.1)
    assert (sure.low + sure.high) / 2 == pytest.approx(hit.mean(), abs=0.2 * spread)


def test_nineteen_of_twenty_intervals_hold_the_truth():
    covered = []
    for seed in range(40):
        hit = np.random.default_rng(seed).random(80) < 0.5
        truth = truth_of([(image, 1, BOX) for image in range(1, 81)], 80, names=("cat",))
        results = results_of([(image, 1, BOX, 0.9) for image in (np.flatnonzero(hit) + 1).tolist()])
        sampled = sample_figures(match_detections(truth, results), resample_images(80, 80, resamples=100, seed=seed))
        sure = interval(sampled.figures["AP50"], float(hit.mean()))
        covered.append(sure.low <= 0.5 <= sure.high)
    assert 0.82 <= np.mean(covered) <= 1


def test_an_image_drawn_twice_counts_like_two_equal_images():
    truth, results = random_data(3, images=6)
    weights = np.array([0, 1, 2, 1, 3, 0])
    drawn, found = copy.deepcopy({**truth, "images": [], "annotations": []}), []
    for place, times in enumerate(weights.tolist(), 1):
        for copy_number in range(times):
            new = 10 * place + copy_number
            drawn["images"].append({**truth["images"][place - 1], "id": new})
            drawn["annotations"] += [{**r, "image_id": new} for r in truth["annotations"] if r["image_id"] == place]
            found += [{**row, "image_id": new} for row in results if row["image_id"] == place]
    one = precision_of(match_detections(truth, results)).by_class(weights)
    other = precision_of(match_detections(drawn, found)).by_class()
    # Copies have equal scores: COCO ranks them one after the other, a drawn image has them at once.
    np.testing.assert_allclose(one, other, atol=0.03)
    assert np.isfinite(one).any()


def test_resamples_are_the_same_for_the_same_images():
    first, second = resample_images(7, 10), resample_images(7, 99)
    assert (first == second).all()
    assert (first.sum(axis=1) == 7).all()
    assert len(np.unique(first, axis=0)) > 100
    assert len(resample_images(7, 10**6)) < len(first)
    assert (resample_images(7, 10, resamples=9) == first[:9]).all()


def test_a_figure_that_is_hardly_ever_defined_has_no_interval():
    assert interval(np.array([np.nan, np.nan, 0.5])) is None
    assert interval(np.array([])) is None
    sure = interval(np.linspace(0.2, 0.4, 101), 0.5)
    assert (sure.low, sure.high) == pytest.approx((0.405, 0.595))

"""What the lost AP is lost to: TIDE's kinds by hand and against its own program, and shares by kinds of objects."""

import numpy as np
import pytest
from made_up_scores import random_data, results_of, truth_of

from mobiledet.evaluation.error_analysis import KINDS, RIGHT, ErrorAnalysis, ErrorKind, group_objects, object_properties
from mobiledet.evaluation.intervals import precision_of, resample_images
from mobiledet.evaluation.matching import match_detections
from mobiledet.structures import ResizeRule

A, B, FAR = (10, 20, 40, 60), (150, 30, 90, 50), (10, 180, 30, 20)
HALF_OFF = (30, 20, 40, 60)  # IoU 1/3 with A


def analysed(annotations, detections, images=1):
    matching = match_detections(truth_of(annotations, images), results_of(detections))
    return ErrorAnalysis(matching), matching


@pytest.mark.parametrize(
    ("detection", "kind"),
    [
        ((1, 1, A, 0.5), RIGHT),
        ((1, 1, HALF_OFF, 0.5), ErrorKind.LOCALISATION),
        ((1, 2, A, 0.5), ErrorKind.CLASSIFICATION),
        ((1, 2, HALF_OFF, 0.5), ErrorKind.BOTH),
        ((1, 1, FAR, 0.5), ErrorKind.BACKGROUND),
        ((1, 3, B, 0.5), RIGHT),  # on a crowd
    ],
)
def test_the_kind_of_one_detection(detection, kind):
    errors, _ = analysed([(1, 1, A), (1, 3, B, {"iscrowd": 1})], [detection])
    assert errors.kinds.tolist() == [kind if kind == RIGHT else KINDS.index(kind)]
    assert errors.missed.tolist() == [kind in (ErrorKind.BOTH, ErrorKind.BACKGROUND) or detection[1] == 3, False]


def test_a_second_detection_of_a_found_object_is_a_duplicate():
    errors, _ = analysed([(1, 1, A)], [(1, 1, A, 0.9), (1, 1, A, 0.5)])
    assert errors.kinds.tolist() == [RIGHT, KINDS.index(ErrorKind.DUPLICATE)]


def test_costs_by_hand():
    """Class 1: the right detection ranks behind a background error, AP50 1/2, and 1 without that. Class 2: missed."""
    errors, _ = analysed([(1, 1, A), (1, 2, B)], [(1, 1, FAR, 0.9), (1, 1, A, 0.5), (1, 2, FAR, 0.1)])
    costs = dict(zip(KINDS, errors.costs().tolist(), strict=True))
    assert costs[ErrorKind.BACKGROUND] == pytest.approx(0.25)
    assert costs[ErrorKind.FALSE_POSITIVES] == pytest.approx(0.25)
    assert costs[ErrorKind.LOCALISATION] == costs[ErrorKind.CLASSIFICATION] == costs[ErrorKind.DUPLICATE] == 0


@pytest.mark.parametrize(
    ("seed", "costs", "counts"),
    [
        (11, [2.0737, 15.0825, 0.8187, 2.8770, 5.9301, 12.0779, 26.6490, 20.5414], [15, 39, 13, 42, 29, 30]),
    ],
)
def test_the_breakdown_is_that_of_tide(seed, costs, counts):
    """The numbers are those of TIDE's own program (tidecv 1.0.1) for the same detections."""
    truth, results = random_data(seed, images=40, flags=False)
    errors = ErrorAnalysis(match_detections(truth, results))
    np.testing.assert_allclose(100 * errors.costs(), costs, atol=2e-4)
    found = [int((errors.kinds == number).sum()) for number in range(5)]
    assert [*found, int(errors.missed.sum())] == counts


def test_losses_add_up_to_the_lost_ap():
    """Found at every IoU with precision 1, found with precision 1/2, never found: 0, 1/2 and 1."""
    errors, matching = analysed([(1, 1, A), (1, 2, A), (1, 2, B)], [(1, 1, A, 0.9), (1, 2, FAR, 0.9), (1, 2, B, 0.8)])
    assert errors.losses.tolist() == pytest.approx([0, 1, 0.5])
    assert errors.shares.tolist() == pytest.approx([0, 2 / 3, 1 / 3])
    by_class = precision_of(matching).by_class().mean(axis=0)
    assert 1 - by_class[1] == pytest.approx(errors.losses[1:].mean(), abs=0.01)


def test_what_is_neither_object_nor_mistake_has_no_share():
    errors, _ = analysed([(1, 1, A), (1, 1, B, {"ignore": 1})], [(1, 1, B, 0.9)])
    assert errors.shares.tolist() == [1, 0]
    assert errors.kinds.tolist() == [RIGHT]


def test_properties_of_objects():
    """The network sees everything at half the size: A is 40x60, 20x30 there; B is wide, and A is at the border."""
    a, b, inside = (0, 20, 40, 60), (100, 80, 90, 40), (110, 80, 90, 40)
    matching = match_detections(truth_of([(1, 1, a), (1, 2, b), (1, 2, inside)]), [])
    found = object_properties(matching, ResizeRule((120, 160)), {1: 33.0})
    assert found["size"].tolist() == pytest.approx([600**0.5, 30, 30], abs=0.01)
    assert found["shape"].tolist() == pytest.approx([2 / 3, 2.25, 2.25])
    assert found["overlap"].tolist() == pytest.approx([0, 0.8, 0.8])
    assert found["crowd"].tolist() == [3, 3, 3]
    assert found["border"].tolist() == pytest.approx([0, 100 / 320, 80 / 240])
    assert found["brightness"].tolist() == [33, 33, 33]
    assert np.isnan(object_properties(matching, ResizeRule((120, 160)), {})["brightness"]).all()


def test_groups_and_their_shares():
    """Large objects are always found, small ones never: all that is lost is lost on these."""
    annotations, detections = [], []
    for image in range(1, 31):
        annotations += [(image, 1, A), (image, 1, (200, 100, 9, 9))]
        detections.append((image, 1, A, 0.9))
    errors, matching = analysed(annotations, detections, images=30)
    properties = object_properties(matching, ResizeRule((240, 320)), dict.fromkeys(range(1, 31), 90.0))
    groups = group_objects(errors, matching, properties, threshold=0.5, draws=resample_images(30, 30))
    small, large = groups["size"]
    assert (small.text, small.objects, small.found, small.loss) == ("under 16 px", 30, 0, 1)
    assert (large.objects, large.found, large.loss) == (30, 1, 0)
    assert (small.share, large.share) == pytest.approx((1, 0))
    assert (small.sure.low, small.sure.high) == pytest.approx((1, 1))
    assert [group.objects for group in groups["brightness"]] == [60]

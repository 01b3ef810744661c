import numpy as np
import pytest
import torch

from mobiledet.models.postprocess import Postprocess
from mobiledet.ops.numpy_boxes import BLOCK, best_detections
from mobiledet.structures import Candidates

HEIGHT, WIDTH = 64, 96


def random_candidates(seed, *, anchors, classes):
    """Boxes in heaps, as anchors around an object are, and scores of which few are high."""
    rng = np.random.default_rng(seed)
    heaps = rng.uniform(0, 1, (max(2, anchors // 20), 2)) * [WIDTH, HEIGHT]
    centre = heaps[rng.integers(0, len(heaps), anchors)] + rng.normal(0, 3, (anchors, 2))
    half = np.exp(rng.normal(2.5, 0.8, (anchors, 2)))
    boxes = np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, [WIDTH, HEIGHT, WIDTH, HEIGHT])
    scores = rng.uniform(0, 1, (anchors, classes)) ** rng.uniform(1, 20)
    return boxes.astype(np.float32), scores.astype(np.float32)


def run(boxes, scores, **settings):
    settings = {"score_threshold": 0.1, "iou_threshold": 0.5, "candidates": 1000, "max_detections": 100, **settings}
    return best_detections(np.asarray(boxes, np.float32), np.asarray(scores, np.float32), **settings)


def reference(boxes, scores, *, score_threshold, iou_threshold, **settings):
    postprocess = Postprocess(**settings)
    parts = Candidates(torch.from_numpy(boxes)[None], torch.from_numpy(scores)[None])
    return [part[0].numpy() for part in postprocess.fixed(parts, score_threshold, iou_threshold)]


@pytest.mark.parametrize("seed", range(60))
def test_it_finds_exactly_what_pytorch_finds(seed):
    rng = np.random.default_rng(seed)
    boxes, scores = random_candidates(seed, anchors=int(rng.integers(1, 600)), classes=int(rng.integers(1, 12)))
    settings = {
        "score_threshold": float(rng.choice([0.0, 0.01, 0.3])),
        "iou_threshold": float(rng.choice([0.1, 0.5, 0.6, 0.9, 1.0])),
        "candidates": int(rng.integers(1, 1500)),
        "max_detections": int(rng.integers(1, 150)),
        "class_agnostic": seed % 3 == 0,
    }
    found = best_detections(boxes, scores, **settings)
    wanted = reference(boxes, scores, **settings)
    count = int((wanted[1] > 0).sum())
    np.testing.assert_array_equal(found[1], wanted[1])
    for one, other in zip(found, wanted, strict=True):
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one[:count], other[:count])


@pytest.mark.parametrize("seed", range(10))
def test_boxes_are_voted_on_as_in_pytorch(seed):
    boxes, scores = random_candidates(seed, anchors=300, classes=4)
    settings = {"score_threshold": 0.01, "iou_threshold": 0.6, "candidates": 200, "max_detections": 60}
    found, wanted = (function(boxes, scores, **settings, vote_iou=0.5) for function in (best_detections, reference))
    alone = reference(boxes, scores, **settings)
    np.testing.assert_array_equal(found[1], alone[1])
    np.testing.assert_allclose(found[0], wanted[0], atol=1e-4)
    assert np.abs(found[0] - alone[0]).max() > 0.1


def test_the_comparison_goes_beyond_one_block():
    boxes, scores = random_candidates(3, anchors=600, classes=10)
    settings = {"score_threshold": 0.01, "iou_threshold": 0.3, "candidates": 1000, "max_detections": 100}
    found, wanted = best_detections(boxes, scores, **settings), reference(boxes, scores, **settings)
    assert (scores >= 0.01).sum() > 3 * BLOCK
    assert (wanted[1] > 0).all()
    np.testing.assert_array_equal(found[0], wanted[0])


BOXES = [[0, 0, 90, 50], [2, 0, 92, 50], [10, 10, 20, 60]]


def test_suppression_is_per_class():
    boxes, scores, labels = run(BOXES, [[0.9, 0.0], [0.8, 0.7], [0.3, 0.0]])
    # The second box is suppressed as class 1 (0.8 under 0.9) and kept as class 2.
    assert labels[:3].tolist() == [1, 2, 1]
    np.testing.assert_allclose(scores, [0.9, 0.7, 0.3, 0, 0, 0])
    assert boxes[:3].tolist() == [BOXES[0], BOXES[1], BOXES[2]]


def test_a_suppressed_box_suppresses_nothing():
    row = [[0, 0, 30, 10], [12, 0, 42, 10], [24, 0, 54, 10]]  # each overlaps the next by 18/42 only
    assert run(row, [[0.9], [0.8], [0.7]], iou_threshold=0.4)[1].tolist() == pytest.approx([0.9, 0.7, 0])


def test_an_overlap_of_just_the_threshold_is_allowed():
    half = [[0, 0, 20, 10], [0, 0, 10, 10]]
    assert (run(half, [[0.9], [0.8]], iou_threshold=0.5)[1] > 0).sum() == 2
    assert (run(half, [[0.9], [0.8]], iou_threshold=0.499)[1] > 0).sum() == 1


def test_threshold_and_limits():
    assert (run(BOXES, [[0.9], [0.05], [0.3]])[1] > 0).sum() == 2
    assert run(BOXES, [[0.9], [0.1], [0.3]], iou_threshold=1)[1].tolist() == pytest.approx([0.9, 0.3, 0.1])
    assert run(BOXES, [[0.9], [0.05], [0.3]], max_detections=1)[1].tolist() == pytest.approx([0.9])
    assert run(BOXES, [[0.2], [0.9], [0.3]], candidates=1)[0].tolist() == [BOXES[1]]


def test_nothing_is_no_detection_even_at_threshold_0():
    boxes, scores, labels = run(BOXES, [[0.0], [0.0], [0.0]], score_threshold=0)
    assert boxes.shape == (3, 4)
    assert scores.tolist() == [0, 0, 0]
    assert labels.dtype == np.int64


def test_what_is_no_number_is_no_detection():
    assert run(BOXES, [[np.nan], [0.5], [np.nan]])[1].tolist() == [0.5, 0, 0]


def test_empty_boxes_stay_apart():
    # Two boxes without area share nothing, whatever their place.
    assert (run([[5, 5, 5, 9], [5, 5, 5, 9]], [[0.9], [0.8]])[1] > 0).all()


def test_equal_scores_give_one_of_them():
    boxes, scores, _ = run([BOXES[0]] * 4 + [BOXES[2]], [[0.5]] * 5)
    assert scores.tolist() == [0.5, 0.5, 0, 0, 0]
    assert sorted(map(tuple, boxes[:2].tolist())) == sorted([tuple(BOXES[0]), tuple(BOXES[2])])

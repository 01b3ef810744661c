import pytest

from mobiledet.evaluation.thresholds import best_threshold


def truth(*boxes, **flags):
    return {"annotations": [{"image_id": 1, "category_id": 7, "bbox": list(box), **flags} for box in boxes]}


def found(score, box, category=7, image=1):
    return {"image_id": image, "category_id": category, "bbox": list(box), "score": score}


A, B, FAR = (10, 20, 40, 30), (100, 20, 30, 60), (200, 200, 10, 20)


def test_the_threshold_lets_all_right_ones_through_and_the_wrong_ones_below_not():
    results = [found(0.9, A), found(0.647, B), found(0.3, FAR), found(0.2, FAR)]
    assert best_threshold(truth(A, B), results) == 0.64


def test_a_miss_is_weighed_against_errors():
    """The second object isn't worth the four errors before it: F1 2/3 with one detection, 4/8 with six."""
    errors = [found(0.8 - i / 100, (300 + 20 * i, 5, 9, 9)) for i in range(4)]
    assert best_threshold(truth(A, B), [found(0.9, A), *errors, found(0.5, B)]) == 0.9


def test_a_second_box_on_the_same_object_is_wrong():
    assert best_threshold(truth(A), [found(0.9, A), found(0.8, A)]) == 0.9
    assert best_threshold(truth(A, A), [found(0.9, A), found(0.8, A)]) == 0.8


@pytest.mark.parametrize("other", [{"category": 8}, {"image": 2}])
def test_class_and_image_must_be_right(other):
    assert best_threshold(truth(A), [found(0.9, A, **other)]) is None


def test_crowds_count_neither_way():
    both = truth(A)
    both["annotations"] += truth(FAR, iscrowd=1)["annotations"]
    assert best_threshold(both, [found(0.9, FAR), found(0.8, A)]) == 0.8
    assert best_threshold(truth(FAR, iscrowd=1), [found(0.9, FAR)]) is None


def test_nothing_gives_no_threshold():
    assert best_threshold(truth(A), []) is None
    assert best_threshold(truth(), [found(0.9, A)]) is None


@pytest.mark.parametrize(
    ("flag", "box", "threshold"),
    [
        ({"ignore": 1}, FAR, 0.8),
        ({"difficult": True}, FAR, 0.8),
        ({"ignore": 1}, (200, 200, 5, 10), 0.9),  # a part of an ignored object is something else,
        ({"iscrowd": 1}, (200, 200, 5, 10), 0.8),  # a part of a crowd isn't
    ],
)
def test_detections_on_ignored_objects_count_neither_way(flag, box, threshold):
    """F1 at 0.8 is 2/3 with the four counted as false, 1 without; at 0.9 it is 2/3."""
    both = truth(A, B)
    both["annotations"] += truth(FAR, **flag)["annotations"]
    results = [found(0.9, A), *[found(0.85, box)] * 4, found(0.8, B)]
    assert best_threshold(both, results) == threshold

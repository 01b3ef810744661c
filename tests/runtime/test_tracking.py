"""Ids of objects that move, hide and come back."""

import numpy as np
import pytest

from mobiledet.detections import Detections
from mobiledet.runtime.tracking import LOST_S, Tracker


def seen(*objects):
    """Detections of (box, label, score)."""
    boxes, labels, scores = zip(*objects, strict=True) if objects else ((), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        ("cat", "dog"),
    )


def walk(tracker, times, *, start=(10, 40, 50, 120), speed=60.0, label=1, score=0.9):
    """The ids of one object that moves to the right, ``speed`` pixels a second, at each of the times."""
    ids = []
    for time in times:
        box = np.array(start) + [speed * time, 0] * 2
        ids.append(tracker.update(seen((box, label, score)), time).track_ids[0])
    return ids


def test_an_object_keeps_its_id_however_frames_come():
    regular, dropped = walk(Tracker(), np.arange(0, 5, 1 / 30)), walk(Tracker(), np.cumsum([0, *([0.03, 0.2] * 20)]))
    for ids in (regular, dropped):
        assert ids[0] == 0, "one frame may be a mistake"
        assert set(ids[3:]) == {1}


def test_objects_that_cross_keep_their_ids():
    tracker, last = Tracker(), None
    for time in np.arange(0, 4, 0.1):
        left, right = (20 + 100 * time, 40, 60 + 100 * time, 90), (420 - 100 * time, 60, 470 - 100 * time, 120)
        last = tracker.update(seen((left, 1, 0.9), (right, 1, 0.8)), time)
    assert sorted(last.track_ids) == [1, 2]
    assert last.track_ids[0] == tracker.update(seen((left, 1, 0.9)), time + 0.1).track_ids[0]


@pytest.mark.parametrize(("gap", "same"), [(0.5 * LOST_S, True), (LOST_S + 0.5, False)])
def test_an_object_that_is_away_for_long_gets_another_id(gap, same):
    tracker = Tracker()
    walk(tracker, np.arange(0, 1, 0.1), speed=0)
    ids = walk(tracker, 1 + gap + np.arange(0, 1, 0.1), speed=0)
    assert set(ids[3:]) == ({1} if same else {2})


def test_classes_have_ids_of_their_own():
    tracker = Tracker()
    walk(tracker, np.arange(0, 1, 0.1), speed=0)
    ids = walk(tracker, np.arange(1, 2, 0.1), speed=0, label=2)
    assert set(ids[3:]) == {2}


def test_a_part_of_an_object_is_not_another():
    tracker, whole, half = Tracker(), (10, 10, 60, 210), (12, 10, 58, 110)
    for time in np.arange(0, 1, 0.1):
        last = tracker.update(seen((whole, 1, 0.9), (half, 1, 0.8), (half, 2, 0.7)), time)
    assert last.track_ids[1] == 0
    assert sorted(last.track_ids[[0, 2]]) == [1, 2], "a cat in a dog's arms"


def test_low_scores_carry_an_id_on_but_start_none():
    tracker = Tracker(0.5)
    assert set(walk(tracker, np.arange(0, 1, 0.1), speed=0, score=0.3)) == {0}
    walk(tracker, np.arange(1, 2, 0.1), speed=0)
    low = walk(tracker, np.arange(2, 6, 0.1), speed=0, score=0.3)
    assert low[:10] == [1] * 10
    assert low[-10:] == [0] * 10, "not for ever"
    assert walk(tracker, np.arange(6, 6.5, 0.1), speed=0)[-1] == 1


def test_a_higher_threshold_counts_at_once():
    tracker = Tracker(0.5)
    walk(tracker, np.arange(0, 1, 0.1), speed=0, score=0.6)
    tracker.threshold = 0.7
    assert walk(tracker, [1.0], speed=0, score=0.6) == [0]


def test_only_some_classes_are_tracked():
    tracker = Tracker()
    for time in np.arange(0, 1, 0.1):
        both = seen(((0, 0, 20, 20), 1, 0.9), ((50, 50, 80, 80), 2, 0.8))
        last = tracker.update(both, time, labels={2})
    assert last.track_ids.tolist() == [0, 1]


def test_a_video_that_starts_again():
    tracker = Tracker()
    walk(tracker, np.arange(5, 6, 0.1))
    ids = walk(tracker, np.arange(0, 1, 0.1))
    assert set(ids[3:]) == {2}, "never the same id for another object"


def test_boxes_tremble_less():
    rng, tracker, given, followed = np.random.default_rng(0), Tracker(), [], []
    for time in np.arange(0, 10, 0.1):
        box = np.array([100, 100, 180, 300]) + rng.normal(0, 3, 4)
        given.append(box)
        followed.append(tracker.update(seen((box, 1, 0.9)), time).boxes[0])
    assert np.diff(followed[20:], axis=0).std() < 0.8 * np.diff(given[20:], axis=0).std()
    assert np.abs(np.mean(followed[20:], axis=0) - [100, 100, 180, 300]).max() < 2


def test_an_empty_view():
    tracker = Tracker()
    assert tracker.update(seen(), 0.0).track_ids.tolist() == []
    assert walk(tracker, [0.1, 0.1, 0.1, 0.2])[-1] == 1, "the same moment twice is no error"


def test_ids_are_in_what_is_handed_on():
    tracker = Tracker()
    walk(tracker, np.arange(0, 1, 0.1), speed=0)
    both = tracker.update(seen(((10, 40, 50, 120), 1, 0.9), ((200, 40, 260, 120), 2, 0.3)), 1.0)
    assert [one["track_id"] for one in both.to_json()] == [1, None]
    assert both.title(0) == "#1 cat 0.90"
    assert both.title(1) == "dog 0.30"
    assert both.above(0.5).track_ids.tolist() == [1]
    assert both.to_supervision().tracker_id.tolist() == [1, -1]
    assert "track_id" not in seen(((0, 0, 9, 9), 1, 0.9)).to_json()[0]

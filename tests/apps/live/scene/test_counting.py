"""Crossings and visits of made-up tracks."""

import numpy as np
import pytest

from mobiledet.apps.live.scene.counting import SceneCounter
from mobiledet.apps.live.scene.shapes import Scene
from mobiledet.detections import Detections

SIZE = (400, 600)
GATE = Scene({"gate": ((0.1, 0.5), (0.9, 0.5))})  # y 200, from x 60 to 540; "in" is downwards
PORCH = Scene(zones={"porch": ((0.5, 0.5), (1, 0.5), (1, 1), (0.5, 1))})
WIDE, HIGH = 40, 100


def standing(*feet, labels=None, scores=None, first=1):
    """Objects whose boxes' lower edges have their middle at ``feet``, with ids from ``first`` on."""
    count = len(feet)
    boxes = [[x - WIDE / 2, y - HIGH, x + WIDE / 2, y] for x, y in feet]
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, 0.9, np.float32) if scores is None else np.array(scores, np.float32),
        np.ones(count, np.int64) if labels is None else np.array(labels),
        ("cat", "dog"),
        track_ids=np.arange(first, first + count),
    )


def counted(events):
    """Events without those that tell of every object."""
    return [event for event in events if event["event"] not in ("appeared", "disappeared")]


def run(counter, path, *, start=0.0, step=0.1, first=1):
    """All events of one object that stands at each point of a path in turn."""
    events = []
    for index, foot in enumerate(path):
        events += counter.update(standing(foot, first=first), SIZE, start + step * index, 0.5)
    return counted(events)


def between(start, end, steps=20):
    return list(zip(np.linspace(start[0], end[0], steps), np.linspace(start[1], end[1], steps), strict=True))


def test_a_line_is_crossed_in_both_directions():
    counter = SceneCounter(GATE)
    there = run(counter, between((300, 100), (300, 300)))
    back = run(counter, between((300, 300), (300, 100)), start=2)
    assert [(event["event"], event["line"], event["direction"]) for event in there] == [("line_crossed", "gate", "in")]
    assert [event["direction"] for event in back] == ["out"]
    assert there[0]["class"] == "cat"
    assert there[0]["track_id"] == 1
    assert counter.counts()["lines"] == {"gate": {"in": {"cat": 1}, "out": {"cat": 1}}}


@pytest.mark.parametrize("x", [20, 580])
def test_who_passes_beside_the_ends_does_not_cross(x):
    counter = SceneCounter(GATE)
    assert run(counter, between((x, 100), (x, 300))) == []
    assert run(counter, between((x, 300), (300, 300)), start=2) == [], "the other side was reached elsewhere"
    assert [event["direction"] for event in run(counter, between((300, 300), (300, 100)), start=4)] == ["out"]


def test_who_comes_into_being_on_the_other_side_has_not_crossed():
    assert run(SceneCounter(GATE), between((300, 250), (300, 300))) == []


def test_a_jump_over_the_line_between_two_frames():
    assert len(run(SceneCounter(GATE), [(300, 100), (300, 300)])) == 1


@pytest.mark.parametrize("noise", [0.01, 0.02])
@pytest.mark.parametrize("steps", [10, 60, 300])
def test_a_thousand_noisy_crossings_are_counted_once_each(noise, steps):
    rng, counter, crossings = np.random.default_rng(0), SceneCounter(GATE), 1000 if steps < 100 else 100
    for number in range(crossings):
        path = np.array(between((rng.uniform(100, 500), 140), (rng.uniform(100, 500), 260), steps))
        path += rng.normal(0, noise * (WIDE + HIGH), path.shape)
        path = path if number % 2 else path[::-1]
        assert len(run(counter, path, start=100.0 * number, first=number + 1)) == 1
    counts = counter.counts()["lines"]["gate"]
    assert counts == {"in": {"cat": crossings // 2}, "out": {"cat": crossings // 2}}


def test_standing_on_the_line_counts_nothing():
    rng = np.random.default_rng(0)
    assert run(SceneCounter(GATE), np.array([300, 200]) + rng.normal(0, 2, (3000, 2))) == []


def test_a_visit():
    counter = SceneCounter(PORCH)
    events = run(counter, [*between((200, 300), (450, 300)), *between((450, 300), (450, 100))])
    assert [event["event"] for event in events] == ["zone_entered", "zone_left"]
    assert [event["occupancy"] for event in events] == [1, 0]
    assert 1.5 < events[1]["dwell_s"] < 3
    assert counter.counts()["zones"]["porch"] == {
        "now": {},
        "entered": 1,
        "mean_dwell_s": pytest.approx(events[1]["dwell_s"], abs=0.1),
    }


def test_every_object_appears_and_disappears_once():
    counter, events = SceneCounter(Scene()), []
    for index in range(100):
        there = standing((300, 100), (400, 200)) if 10 <= index < 50 else standing()
        events += counter.update(there, SIZE, index / 10, 0.5)
    assert [(event["event"], event["track_id"]) for event in events] == [
        ("appeared", 1),
        ("appeared", 2),
        ("disappeared", 1),
        ("disappeared", 2),
    ]
    assert [event.get("seen_s") for event in events] == [None, None, pytest.approx(3.9), pytest.approx(3.9)]


def test_who_is_in_a_zone_by_class():
    counter = SceneCounter(PORCH)
    inside = standing((400, 300), (450, 350), (500, 390), (100, 300), labels=[1, 1, 2, 1])
    counter.update(inside, SIZE, 0.0, 0.5)
    assert counter.counts()["zones"]["porch"]["now"] == {"cat": 2, "dog": 1}


def test_trembling_at_the_edge_of_a_zone():
    rng, counter = np.random.default_rng(0), SceneCounter(PORCH)
    events = run(counter, np.array([301, 300]) + rng.normal(0, 1, (1000, 2)))
    assert len(events) <= 1


def test_who_vanishes_in_a_zone_leaves_it():
    counter = SceneCounter(PORCH)
    run(counter, [(450, 300)] * 10)
    nobody = standing()
    assert counter.update(nobody, SIZE, 2.0, 0.5) == [], "it may come back"
    event, gone = counter.update(nobody, SIZE, 4.0, 0.5)
    assert gone["event"] == "disappeared"
    assert gone["seen_s"] == pytest.approx(0.9)
    assert event["event"] == "zone_left"
    assert event["dwell_s"] == pytest.approx(0.9), "until it was last seen"


def test_an_unsure_box_moves_nobody():
    counter = SceneCounter(GATE)
    run(counter, between((300, 100), (300, 150)))
    assert counter.update(standing((300, 300), scores=[0.3]), SIZE, 2.0, 0.5) == []
    assert run(counter, [(300, 150)], start=2.1) == []


def test_who_has_no_id_is_not_counted():
    counter, cat = SceneCounter(PORCH), standing((450, 300))
    cat.track_ids[0] = 0
    assert counter.update(cat, SIZE, 0.0, 0.5) == []


def test_a_changed_scene_keeps_its_counts():
    counter = SceneCounter(GATE)
    run(counter, between((300, 100), (300, 300)))
    counter.change_scene(Scene({"gate": ((0.1, 0.9), (0.9, 0.9)), "other": ((0, 0), (1, 1))}))
    assert counter.counts()["lines"] == {"gate": {"in": {"cat": 1}, "out": {}}, "other": {"in": {}, "out": {}}}
    assert run(counter, [(300, 300)], start=3) == [], "moving the line crosses nobody"
    counter.change_scene(PORCH)
    assert counter.counts()["lines"] == {}

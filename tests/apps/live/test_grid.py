"""Several cameras: taking turns at the model, and one image of all."""

import threading
import time

import numpy as np
import pytest
from live_parts import NAMES, result

from mobiledet.apps.live.frames import Newest
from mobiledet.apps.live.grid import Turns, grid_view
from mobiledet.apps.live.measure.meter import LiveNumbers
from mobiledet.apps.live.sources.base import SourceState
from mobiledet.apps.live.view import Painter, View, ViewSettings


def view(name, **numbers):
    made = LiveNumbers(**{"fps": 10.0, "age_ms": 5.0, "source": SourceState(connected=True), **numbers})
    return View(Newest(), Painter(ViewSettings(names=NAMES)), lambda: made, f"m.onnx on {name}")


def test_everybody_has_a_turn():
    turns, counts, stop, inside = Turns(), [0, 0, 0], threading.Event(), []
    together = threading.Barrier(3)

    def use(number):
        together.wait()
        while not stop.is_set():
            with turns:
                inside.append(number)
                assert len(inside) == 1
                time.sleep(0.001)
                inside.pop()
            counts[number] += 1

    threads = [threading.Thread(target=use, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    stop.set()
    for thread in threads:
        thread.join()
    assert min(counts) > 10
    assert max(counts) - min(counts) <= 0.1 * max(counts) + 3


def test_a_turn_is_given_back_after_an_error():
    turns = Turns()
    with pytest.raises(ValueError, match="x"), turns:
        raise ValueError("x")
    with turns:
        pass


def test_all_frames_in_one():
    views = [view("a.mp4"), view("b.mp4"), view("c.mp4")]
    grid = grid_view(views)
    assert grid.title == "m.onnx on 3 cameras"
    assert grid.results.get() is None
    views[1].results.put(result(25))
    number, one = grid.results.get()
    assert grid.results.get(number) is None
    image = grid.painter.paint(one)
    assert image.shape == (2 * 384, 2 * 640, 3)
    assert len(one.detections) == 0
    tile = image[:384, 640:]
    assert (tile == 200).all(axis=2).mean() > 0.3, "the second camera's frame, grey"
    views[0].results.put(result(1))
    assert grid.results.get(number)[0] > number
    for each in views:
        assert not grid.results.closed
        each.results.close()
    assert grid.results.closed


def test_settings_are_those_of_all():
    views = [view("a.mp4"), view("b.mp4")]
    grid = grid_view(views)
    before = grid.settings.revision
    grid.settings.threshold += 0.25
    grid.settings.paused = True
    assert [each.settings.threshold for each in views] == [0.75, 0.75]
    assert all(each.settings.paused for each in views)
    assert grid.settings.revision > before
    assert len(grid.settings.select(result(items=((1, 0.9), (2, 0.5))).detections)) == 1


def test_numbers_of_all():
    lost = SourceState(message="lost", captured=7, dropped=2, size=(48, 64))
    numbers = grid_view([view("a.mp4"), view("b.mp4", age_ms=50.0, fps=None, source=lost)]).numbers()
    assert numbers.fps == 10
    assert numbers.age_ms == 50
    assert numbers.source == SourceState(message="lost", captured=7, dropped=2), "each has its own size"


def test_a_camera_without_frames_is_black():
    views = [view("a.mp4"), view("b.mp4")]
    views[0].results.put(result(25))
    image = grid_view(views).results.get()[1].frame.image
    assert np.median(image[:300, 700:1200]) == 0

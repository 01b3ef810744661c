import time
from dataclasses import replace

import numpy as np
import pytest
from live_parts import ListedSource, ScriptedDetector, TickingSource, frame, result

from mobiledet.apps.live.deadline import Deadline
from mobiledet.apps.live.frames import Frame
from mobiledet.apps.live.measure.meter import Meter
from mobiledet.apps.live.pacing import Motion, Pacing, Rate
from mobiledet.apps.live.pipeline import Pipeline
from mobiledet.apps.live.view import ViewSettings
from mobiledet.errors import MobiledetError
from mobiledet.runtime.card import ModelCard
from mobiledet.structures import ResizeRule


def run(source, detector=None, **more):
    """A run to its end, and the results it gave."""
    kept = []
    meter = Meter(started=time.monotonic(), source=source.state)
    made = Pipeline(
        source, detector or ScriptedDetector(), settings=ViewSettings(), meter=meter, recorders=[kept.append], **more
    )
    made.start()
    assert made.ended.wait(30)
    made.join()
    return made, kept


def due(fps, positions):
    """The positions, in seconds, at which frames are looked at."""
    rate = Rate(fps)
    return [position for position in positions if rate.due(frame(position=position))]


@pytest.mark.parametrize("fps", [3, 7, 10, 29, 30, 60])
def test_no_more_than_so_many_a_second(fps):
    found = due(fps, np.arange(3000) / 30)
    assert len(found) == pytest.approx(100 * min(fps, 30), rel=0.01)
    assert np.diff(found).max() <= 1 / min(fps, 30) + 1 / 30


def test_a_camera_that_trembles_loses_no_frame():
    positions = np.arange(600) / 15 + np.random.default_rng(0).uniform(-0.01, 0.01, 600)
    assert len(due(15, positions)) >= 595


def test_no_burst_after_a_stall():
    found = due(10, [*np.arange(30) / 30, *(20 + np.arange(30) / 30)])
    assert np.diff(found).min() > 0.06
    assert len(found) == 20


def test_frames_of_a_file_whose_time_has_not_come_are_counted():
    made, kept = run(ListedSource(60), rate=Rate(10))
    assert [result.frame.index for result in kept] == list(range(0, 60, 3))
    assert (made.meter.processed, made.meter.not_due) == (20, 40)
    frames = made.meter.figures()["frames"]
    assert (frames["processed"], frames["not_due"], frames["dropped"]) == (20, 40, 0)


def test_a_saved_video_has_the_rate_that_is_left():
    assert Pacing().fps(30) == 30
    assert Pacing(target_fps=10).fps(30) == 10
    assert Pacing(target_fps=40).fps(30) == 30
    assert Pacing(target_fps=10).fps(None) == 10


def scene(shift=0, *, noise=0.0, light=0, size=(240, 320), seed=0):
    """A grey image with a square of 32 pixels, moved to the right, with noise, lighter or darker."""
    image = np.full((*size, 3), 100.0)
    image[100:132, 40 + shift : 72 + shift] = 180
    image += np.random.default_rng(seed).normal(0, noise, image.shape) + light
    return image.clip(0, 255).astype(np.uint8)


def looked(images, fps=30):
    """Which of the images are looked at."""
    motion = Motion()
    return [motion.moved(Frame(image, index, 0.0, index / fps)) for index, image in enumerate(images)]


def test_what_stands_still_is_looked_at_once_a_second():
    assert np.flatnonzero(looked([scene()] * 75)).tolist() == [0, 30, 60]


def test_noise_and_light_are_no_movement():
    images = [scene(noise=10, light=index % 40, seed=index) for index in range(30)]
    assert sum(looked(images)) == 1


@pytest.mark.parametrize("size", [(240, 320), (432, 768), (720, 1280), (1080, 1920), (243, 322)])
def test_what_moves_is_seen_in_images_of_any_size(size):
    assert looked([scene(0, size=size), scene(0, size=size), scene(24, size=size)]) == [True, False, True]


def test_slow_movement_adds_up():
    seen = np.flatnonzero(looked([scene(index) for index in range(30)], fps=100))
    assert 3 < len(seen) < 29
    assert np.diff(seen).max() <= 6


def test_an_image_of_another_size_is_looked_at():
    assert looked([scene(), scene(size=(432, 768)), scene()]) == [True, True, True]


def test_a_still_frame_keeps_the_detections():
    class Still(ListedSource):
        def take(self, timeout):
            return replace(super().take(timeout), image=scene())

    detector, followed = ScriptedDetector(), []
    made, kept = run(Still(45), detector, motion=Motion(), follow=lambda found: followed.append(found) or found)
    assert len(detector.seen) == 1 + 2, "the first call, and the frames at 0 and 1 s"
    assert made.meter.still == made.meter.figures()["frames"]["still"] == 43
    assert len(followed) == len(kept) == 45, "ids go on"
    assert all(np.array_equal(found.detections.boxes, kept[0].detections.boxes) for found in kept)
    assert [found.frame.index for found in kept] == list(range(45))
    assert ["network" in found.stages_ms for found in kept] == [index in (0, 30) for index in range(45)]
    numbers = made.meter.numbers().stages_ms
    assert {"motion", "network"} <= numbers.keys(), "also where the last frames were still"


class Sized(ScriptedDetector):
    """A detector whose calls take some milliseconds, as it says; it doesn't wait."""

    def __init__(self, side, milliseconds, names=("cat", "dog", "hat")):
        super().__init__()
        self.milliseconds = milliseconds
        self.names = names
        self.card = ModelCard(names, (1, 5, 9), ResizeRule((side, side)))

    def detect_timed(self, image):
        found, _ = super().detect_timed(image)
        return found, {"network": self.milliseconds}


class Camera:
    """A scripted clock: frames of 30 a second, each looked at with whatever detector runs."""

    def __init__(self, detectors, limit):
        self.deadline, self.now, self.ran = Deadline(detectors, limit), time.monotonic(), []

    def go(self, seconds, slower=1.0, extra=lambda index: 0.0):
        """Let time pass; calls take ``slower`` times as long. The sides of the networks that ran."""
        ran = []
        for index in range(round(30 * seconds)):
            detector = self.deadline.detector
            took = slower * detector.milliseconds
            self.now += 1 / 30
            made = result(grabbed=self.now, ready=self.now + (took + extra(index)) / 1e3)
            self.deadline.note(replace(made, stages_ms={"network": took}))
            ran.append(detector.card.resize.size[0])
        self.ran += ran
        return ran


def sizes():
    return [Sized(192, 10), Sized(300, 24), Sized(256, 17)]  # in any order


def test_it_begins_with_the_largest_that_is_fast_enough():
    assert Deadline(sizes(), 50).detector.card.resize.size == (300, 300)
    assert Deadline(sizes(), 22).detector.card.resize.size == (256, 256)
    assert Deadline(sizes(), 3).detector.card.resize.size == (192, 192)


def test_it_goes_down_within_two_seconds_and_up_again_after():
    camera = Camera(sizes(), 40)
    assert set(camera.go(20)) == {300}
    assert camera.go(4, slower=3)[60:] == [192] * 60, "two sizes smaller"
    assert set(camera.go(20, slower=3)) == {192}, "no tries that must fail"
    again = camera.go(40)
    assert again[-1] == 300
    assert again == sorted(again), "up, and never down"


def test_single_late_frames_change_nothing():
    camera = Camera(sizes(), 40)
    assert set(camera.go(60, extra=lambda index: 100.0 * (index % 30 == 7))) == {300}


def test_it_does_not_oscillate():
    """Where expectations are too good, tries become rare."""
    camera = Camera(sizes(), 40)
    slow = camera.deadline

    def extra(index):
        return 30.0 if slow.detector.milliseconds == 24 else 0.0

    camera.go(600, extra=extra)
    changes = np.count_nonzero(np.diff(camera.ran))
    assert 3 <= changes <= 20
    figures = camera.deadline.figures()
    assert figures["in_time"] >= 0.95
    assert figures["sizes"][1]["share"] > 0.95


def test_which_one_ran_is_reported():
    camera = Camera(sizes(), 40)
    camera.go(10)
    camera.go(10, slower=3)
    figures = camera.deadline.figures()
    assert [size["input_size"] for size in figures["sizes"]] == [[300, 300], [256, 256], [192, 192]]
    assert [size["share"] for size in figures["sizes"]] == pytest.approx(
        [camera.ran.count(side) / 600 for side in (300, 256, 192)], abs=1e-4
    )
    assert 0.5 < figures["in_time"] < 1


def test_even_the_smallest_too_slow_is_reported_once(caplog):
    camera = Camera(sizes(), 5)
    with caplog.at_level("WARNING", logger="mobiledet"):
        camera.go(60)
    (record,) = caplog.records
    assert "--deadline 5" in record.getMessage()
    assert set(camera.ran) == {192}


def test_models_of_other_classes_are_refused():
    with pytest.raises(MobiledetError, match="cow"):
        Deadline([Sized(300, 1), Sized(192, 1, names=("cow", "dog", "hat"))], 50)


def test_the_pipeline_runs_what_the_deadline_chooses():
    large, small = Sized(300, 90), Sized(192, 1)
    source = TickingSource()
    source.start()
    made, kept = run(source, large, deadline=Deadline([large, small], 50), max_frames=10)
    source.close()
    assert len(kept) == 10
    assert len(large.seen) == 5, "tried out, then never run"
    assert made.deadline.figures()["sizes"][1]["share"] == 1

"""A scripted source and a scripted detector."""

import threading
import time

import cv2
import numpy as np

from mobiledet.apps.live.frames import Frame, Handover, Result
from mobiledet.apps.live.sources.base import EndOfSource, Source, SourceState
from mobiledet.detections import Detections
from mobiledet.runtime.card import ModelCard
from mobiledet.structures import ResizeRule

SIZE = (48, 64)
NAMES = ("cat", "dog", "hat")


def found(*items, names=NAMES):
    """Detections of (label, score), each with its own box."""
    boxes = np.array([[4 * i, 2 * i, 4 * i + 20, 2 * i + 10] for i in range(len(items))], np.float32).reshape(-1, 4)
    return Detections(
        boxes,
        np.array([score for _, score in items], np.float32),
        np.array([label for label, _ in items], np.int64),
        names,
    )


def frame(index=0, *, grabbed=None, size=SIZE, position=None, grab_ms=1.0, name=""):
    """A frame whose brightness is eight times its number."""
    image = np.full((*size, 3), 8 * index % 256, np.uint8)
    moment = time.monotonic() if grabbed is None else grabbed
    return Frame(image, index, moment, index / 30 if position is None else position, grab_ms, name)


def result(index=0, *, items=((1, 0.9),), names=NAMES, grabbed=0.0, ready=None, **more):
    """A result whose stages took 1, 2 and 0.5 ms."""
    stages = {"resize": 1.0, "network": 2.0, "read": 0.5}
    made = frame(index, grabbed=grabbed, **more)
    return Result(made, found(*items, names=names), made.grabbed + 0.01 if ready is None else ready, stages)


def wait_until(condition, seconds=20.0):
    """The condition's value, once it holds."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)
    return value


def write_video(path, images, fps):
    """A Motion JPEG file of RGB images of one size."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, images[0].shape[1::-1])
    for image in images:
        writer.write(image[:, :, ::-1].copy())
    writer.release()
    return path


def read_video(path):
    """All frames of a video, RGB, and its rate."""
    capture, images = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        images.append(read[1][:, :, ::-1])
    fps = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    return images, fps


class ListedSource(Source):
    """Every one of ``count`` frames, as from a file."""

    name, live = "listed", False

    def __init__(self, count, error=None):
        self.count, self.error, self.given, self.closed, self.pauses = count, error, 0, False, []

    def start(self):
        pass

    def take(self, timeout):
        if self.given == self.count:
            if self.error is not None:
                raise self.error
            raise EndOfSource
        self.given += 1
        return frame(self.given - 1)

    def state(self):
        return SourceState(connected=True, captured=self.given, size=SIZE, fps=30.0, frames=self.count)

    def pause(self, paused):
        self.pauses.append(paused)

    def close(self):
        self.closed = True


class TickingSource(Source):
    """A camera that gives a frame every ``interval`` seconds."""

    name, live = "ticking", True

    def __init__(self, interval=0.005):
        self.interval = interval
        self.box = Handover(newest=True)
        self.captured = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)  # for a test that fails before it closes this

    def start(self):
        self.thread.start()

    def _run(self):
        while not self.over.wait(self.interval):
            self.box.put(frame(self.captured))
            self.captured += 1

    def take(self, timeout):
        return self.box.take(timeout)

    def state(self):
        return SourceState(connected=True, captured=self.captured, dropped=self.box.dropped, size=SIZE)

    def close(self):
        self.over.set()
        self.thread.join()


class ScriptedDetector:
    """Finds one cat in everything, after ``seconds``."""

    def __init__(self, seconds=0.0, error=None):
        self.seconds, self.error, self.seen = seconds, error, []
        self.card = ModelCard(NAMES, (1, 5, 9), ResizeRule((32, 40)))

    def detect_timed(self, image):
        time.sleep(self.seconds)
        self.seen.append(int(image[0, 0, 0]))
        if self.error is not None and len(self.seen) > 1:
            raise self.error
        return found((1, 0.9), (2, 0.1)), {"resize": 0.1, "network": self.seconds * 1e3, "read": 0.1}

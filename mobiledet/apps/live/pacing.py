"""Which frames are looked at: at most so many a second, and only those in which something moves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mobiledet.apps.live.deadline import Deadline
from mobiledet.apps.live.frames import Frame
from mobiledet.preprocess import resize_image
from mobiledet.runtime.detector import Detector
from mobiledet.structures import ImageArray

_EARLY = 0.25
"""Share of the interval by which a frame may come early, so that a camera that trembles loses none."""

_CELLS_ACROSS = 120
"""Width, roughly, of the small version in which movement is looked for."""

_LEVELS, _CELLS = 10, 4
"""Something moves where so many cells of the small version differ by more than so many of 256 levels of grey.

Chosen on three clips, see docs/webcam.md; noise of 10 levels in every pixel gives differences of 1 to 5.
"""

_LONGEST_STILL_S = 1.0
"""Seconds after which a frame is looked at though nothing moves: what is hidden in noise is found late, not never."""


@dataclass(frozen=True)
class Pacing:
    """How a live run saves power or keeps time.

    Attributes:
        target_fps: Most frames a second that are looked at; None for all.
        motion: Whether frames without movement keep the detections of the one before.
        deadline_ms: Age by which 95 % of the frames should be ready, which chooses among detectors; None for no choice.
    """

    target_fps: float | None = None
    motion: bool = False
    deadline_ms: float | None = None

    def rate(self) -> Rate | None:
        """What keeps to ``target_fps``, for one source."""
        return None if self.target_fps is None else Rate(self.target_fps)

    def deadline(self, detectors: Sequence[Detector]) -> Deadline | None:
        """What chooses among detectors to keep ``deadline_ms``, for one source."""
        return None if self.deadline_ms is None else Deadline(detectors, self.deadline_ms)

    def fps(self, source: float | None) -> float | None:
        """Frames a second that are left of those of a source, where that is known."""
        return source if self.target_fps is None else min(source or math.inf, self.target_fps)


class Rate:
    """Says which frames are due, by their position: evenly spaced, without drift, and without a burst after a stall."""

    def __init__(self, fps: float) -> None:
        self._interval = 1 / fps
        self._due = -math.inf

    def due(self, frame: Frame) -> bool:
        """Whether this frame is looked at."""
        late = frame.position - self._due
        if late < -_EARLY * self._interval:
            return False
        # After a gap the spacing starts anew; within an interval it goes on as it was, so delays don't add up.
        self._due = self._due + self._interval if late < self._interval else frame.position + self._interval
        return True


class Motion:
    """Says in which frames something has moved since the last that was looked at, so slow movement adds up.

    Brightness of the whole image, and noise, don't count. It takes 0.2 to 0.5 ms a frame.
    """

    def __init__(self) -> None:
        self._small: ImageArray | None = None
        self._position = -math.inf

    def moved(self, frame: Frame) -> bool:
        """Whether this frame is to be looked at; the first is, and one a second."""
        small = _small(frame.image)
        still = (
            self._small is not None
            and self._small.shape == small.shape
            and 0 <= frame.position - self._position < _LONGEST_STILL_S
            and not _differ(small, self._small)
        )
        if not still:
            self._small, self._position = small, frame.position
        return not still


def _small(image: ImageArray) -> ImageArray:
    """A blurred grey version ``(h, w)`` of an image, 80 to 160 wide for usual cameras."""
    import cv2

    # Whole factors, and of large images only some rows, since anything else takes OpenCV ten times as long.
    factor = 4 * max(1, round(image.shape[1] / (4 * _CELLS_ACROSS)))
    rows = image[:: factor // 4]
    height, width = max(1, rows.shape[0] // 4), max(1, rows.shape[1] // factor)
    small = resize_image(rows[: 4 * height, : factor * width], (height, width), averaged=1)
    blurred: ImageArray = cv2.GaussianBlur(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), (3, 3), 0)
    return blurred


def _differ(one: ImageArray, other: ImageArray) -> bool:
    difference = one.astype(np.int16) - other
    return int(np.count_nonzero(np.abs(difference - np.median(difference)) > _LEVELS)) >= _CELLS

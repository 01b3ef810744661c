"""What window, browser and files of a live run share: the settings, the painter, and all that is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np

from mobiledet.apps.live.frames import Newest, Result
from mobiledet.apps.live.measure.meter import LiveNumbers
from mobiledet.draw.boxes import draw_detections
from mobiledet.evaluate.thresholds import DEFAULT_THRESHOLD, LOWEST
from mobiledet.structures import Detections, ImageArray


class ViewSettings:
    """Settings shared by window, browser and files; safe to read and change from any thread.

    Args:
        threshold: Minimum score shown, ``0.05..1``; the detector gives none below 0.05.
        names: The model's class names.
        classes: Labels ``1..K`` that are shown; None shows all.
        labels: Whether names and scores are written at the boxes.
    """

    def __init__(
        self,
        *,
        threshold: float = DEFAULT_THRESHOLD,
        names: tuple[str, ...] = (),
        classes: Collection[int] | None = None,
        labels: bool = True,
    ) -> None:
        self._lock = threading.Lock()
        self.names = names
        self._threshold = threshold
        self._classes = None if classes is None else frozenset(classes)
        self._labels = labels
        self._paused = False
        self._revision = 0

    @property
    def revision(self) -> int:
        """Grows with every change, so that who drew with older settings draws again."""
        return self._revision

    @property
    def threshold(self) -> float:
        """Minimum score shown."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if not value == value:  # not a number
            raise ValueError("threshold is not a number; give one between 0.05 and 1")
        with self._lock:
            self._threshold = round(min(1.0, max(LOWEST, value)), 4)
            self._revision += 1

    @property
    def classes(self) -> frozenset[int] | None:
        """Labels that are shown; None for all."""
        return self._classes

    @classes.setter
    def classes(self, value: Collection[int] | None) -> None:
        with self._lock:
            self._classes = None if value is None else frozenset(value)
            self._revision += 1

    @property
    def labels(self) -> bool:
        """Whether names and scores are written at the boxes."""
        return self._labels

    @labels.setter
    def labels(self, value: bool) -> None:
        with self._lock:
            self._labels = value
            self._revision += 1

    @property
    def paused(self) -> bool:
        """Whether no new frames are processed."""
        return self._paused

    @paused.setter
    def paused(self, value: bool) -> None:
        with self._lock:
            self._paused = value
            self._revision += 1

    def select(self, detections: Detections) -> Detections:
        """The detections that are shown."""
        mask = detections.scores >= self._threshold
        classes = self._classes
        if classes is not None:
            mask = mask & np.isin(detections.labels, list(classes))
        return detections.keep(mask)


class Painter:
    """Draws boxes on frames by the current settings, once for all who show or save the frame; safe in any thread.

    Args:
        settings: What is shown.
        on_draw: Called with the milliseconds that each drawing took.
    """

    def __init__(self, settings: ViewSettings, on_draw: Callable[[float], None] | None = None) -> None:
        self.settings = settings
        self._on_draw = on_draw
        self._lock = threading.Lock()
        self._last: tuple[Result, int, ImageArray] | None = None

    def paint(self, result: Result) -> ImageArray:
        """The frame with its boxes ``(H, W, 3)`` uint8 RGB, of the source's size; shared, so copy before writing."""
        with self._lock:
            revision = self.settings.revision
            if self._last is not None and self._last[0] is result and self._last[1] == revision:
                return self._last[2]
            start = time.monotonic()
            shown = self.settings.select(result.detections)
            image = draw_detections(result.frame.image, shown, labels=self.settings.labels)
            if self._on_draw is not None:
                self._on_draw((time.monotonic() - start) * 1e3)
            self._last = result, revision, image
            return image


@dataclass(frozen=True)
class View:
    """What there is to show of a live run; the window and the browser view are made of it.

    Attributes:
        results: Gives the newest result.
        painter: Draws its boxes, as its settings ask for.
        numbers: Gives the current numbers, at once; called from any thread.
        title: The model and its source, for people.
    """

    results: Newest[Result]
    painter: Painter
    numbers: Callable[[], LiveNumbers]
    title: str

    @property
    def settings(self) -> ViewSettings:
        """What viewers may change, the same for all of them."""
        return self.painter.settings

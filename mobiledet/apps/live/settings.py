"""What a viewer may change while it runs: threshold, classes, labels, pause."""

from __future__ import annotations

import threading
from collections.abc import Collection

import numpy as np

from mobiledet.evaluate.thresholds import DEFAULT_THRESHOLD, LOWEST
from mobiledet.structures import Detections


class ViewSettings:
    """Settings shared by window, browser and files; safe to read and change from any thread.

    Args:
        threshold: Least score shown, ``0.05..1``; the detector itself looks no deeper.
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
        """Grows with every change, so that whoever drew with older settings draws again."""
        return self._revision

    @property
    def threshold(self) -> float:
        """Least score shown."""
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
        """Whether no new pictures are looked at."""
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

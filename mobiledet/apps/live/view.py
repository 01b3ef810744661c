"""What window, browser and files of a live run share: the settings, the painter, and all that is shown."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from mobiledet.apps.live.frames import Newest, Result
from mobiledet.apps.live.measure.history import History
from mobiledet.apps.live.measure.meter import LiveNumbers
from mobiledet.apps.live.scene.drawing import draw_scene
from mobiledet.apps.live.scene.shapes import Scene
from mobiledet.detections import Detections
from mobiledet.draw.boxes import draw_detections
from mobiledet.evaluation.thresholds import DEFAULT_THRESHOLD, LOWEST
from mobiledet.structures import ImageArray

SNAPSHOT_QUALITY = 95
"""JPEG quality of a single frame."""


@dataclass
class ViewSettings:
    """Settings shared by window, browser and files; safe to read and change from any thread.

    Attributes:
        threshold: Minimum score shown, ``0.05..1``; the detector gives none below 0.05, and values outside are clipped.
        names: The model's class names.
        classes: Labels ``1..K`` that are shown; None shows all.
        labels: Whether names and scores are written at the boxes.
        paused: Whether no new frames are processed.
        scene: Lines and zones at which tracked objects are counted.
        revision: Grows with every change, so that who drew with older settings draws again.
    """

    threshold: float = DEFAULT_THRESHOLD
    names: tuple[str, ...] = ()
    classes: Collection[int] | None = None
    labels: bool = True
    paused: bool = False
    scene: Scene = field(default_factory=Scene)
    revision: int = field(default=0, init=False)
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __post_init__(self) -> None:
        self.revision = 0

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "threshold":
            value = round(min(1.0, max(LOWEST, value)), 4)
        elif name == "classes" and value is not None:
            value = frozenset(value)
        with self._lock:
            object.__setattr__(self, name, value)
            if name != "revision":
                object.__setattr__(self, "revision", self.revision + 1)

    def select(self, detections: Detections) -> Detections:
        """The detections that are shown."""
        shown, classes = detections.above(self.threshold), self.classes
        return shown if classes is None else shown.keep(np.isin(shown.labels, list(classes)))


class Painter:
    """Draws boxes on frames by the current settings, once for all who show or save the frame; safe in any thread.

    ``on_draw`` is called with the milliseconds that each drawing took.
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
            if result.scene:
                draw_scene(image, result.scene, result.counts)
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
        tracked: Whether objects have ids, so that lines and zones can count them.
        save_scene: Writes the file of lines and zones; None where there is none.
        history: What happened at them over the last day; None without tracking.
    """

    results: Newest[Result]
    painter: Painter
    numbers: Callable[[], LiveNumbers]
    title: str
    tracked: bool = False
    save_scene: Callable[[Scene], None] | None = None
    history: History | None = None

    @property
    def settings(self) -> ViewSettings:
        """What viewers may change, the same for all of them."""
        return self.painter.settings

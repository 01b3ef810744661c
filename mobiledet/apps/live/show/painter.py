"""Draws a result once for all who show or keep it at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.settings import ViewSettings
from mobiledet.draw.boxes import draw_detections
from mobiledet.structures import ImageArray


class Painter:
    """Boxes on pictures, as the settings of the moment ask for; safe to call from any thread.

    Args:
        settings: What is shown.
        on_draw: Told how many milliseconds each drawing took.
    """

    def __init__(self, settings: ViewSettings, on_draw: Callable[[float], None] | None = None) -> None:
        self.settings = settings
        self._on_draw = on_draw
        self._lock = threading.Lock()
        self._last: tuple[Result, int, ImageArray] | None = None

    def paint(self, result: Result) -> ImageArray:
        """The picture with its boxes ``(H, W, 3)`` uint8 RGB, of the source's size; shared, so copy before writing."""
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

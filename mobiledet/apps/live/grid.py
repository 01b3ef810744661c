"""Several cameras with one model: whose turn it is, and all of them in one image."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mobiledet.apps.live.frames import Frame, Newest, Result
from mobiledet.apps.live.measure.meter import LiveNumbers
from mobiledet.apps.live.view import Painter, View, ViewSettings
from mobiledet.detections import Detections
from mobiledet.draw.boxes import image_grid
from mobiledet.utils.text import short_names

_CELL = (384, 640)
"""``(height, width)`` of a camera in the grid, with its caption."""

_LOOK = 0.01


class Turns:
    """A lock that whoever has waited longest gets, so that no camera takes the model from another for ever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    def __enter__(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def __exit__(self, *_: object) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False


class _AllSettings(ViewSettings):
    """Settings of several cameras: reads those of the first, and changes all."""

    def __init__(self, each: Sequence[ViewSettings]) -> None:
        object.__setattr__(self, "_each", each)

    def __getattribute__(self, name: str) -> Any:
        each = object.__getattribute__(self, "_each")
        if name == "revision":
            return sum(settings.revision for settings in each)
        return object.__getattribute__(self, name) if name == "_each" else getattr(each[0], name)

    def __setattr__(self, name: str, value: Any) -> None:
        for settings in self._each:
            setattr(settings, name, value)


class _Grid(Newest[Result]):
    """The newest results of several cameras as one: a frame of their frames, whose boxes are drawn already."""

    def __init__(self, views: Sequence[View]) -> None:
        super().__init__()
        self._views = views
        self._joined: tuple[tuple[int, int], Result] | None = None
        self._names = short_names([view.title.partition(" on ")[2] or view.title for view in views])

    @property
    def closed(self) -> bool:
        """Whether nothing more will come of any."""
        return all(view.results.closed for view in self._views)

    def get(self, after: int = 0, timeout: float = 0.0) -> tuple[int, Result] | None:
        """As `Newest.get`; the number is that of all results together."""
        end = time.monotonic() + timeout
        while True:
            newest = [view.results.get() for view in self._views]
            number = sum(one[0] for one in newest if one is not None)
            if number > after:
                # Several look at the same one: the page, its numbers, a snapshot.
                key = number, sum(view.settings.revision for view in self._views)
                if self._joined is None or self._joined[0] != key:
                    self._joined = key, self._join(number, [None if one is None else one[1] for one in newest])
                return number, self._joined[1]
            if self.closed or time.monotonic() >= end:
                return None
            time.sleep(_LOOK)

    def _join(self, number: int, results: Sequence[Result | None]) -> Result:
        images = [
            np.zeros((90, 160, 3), np.uint8) if result is None else view.painter.paint(result)
            for view, result in zip(self._views, results, strict=True)
        ]
        columns = math.ceil(math.sqrt(len(images)))
        grid = image_grid(images, columns=columns, cell=_CELL, captions=self._names)
        there = [result for result in results if result is not None]
        nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
        grabbed, ready = min(one.frame.grabbed for one in there), max(one.ready for one in there)
        return Result(Frame(grid, number, grabbed, max(one.frame.position for one in there)), nothing, ready)


def grid_view(views: Sequence[View]) -> View:
    """All cameras as one view, whose settings are those of all."""

    def numbers() -> LiveNumbers:
        each = [view.numbers() for view in views]
        first, ages = each[0], [one.age_ms for one in each if one.age_ms is not None]
        late = [one.age_p95_ms for one in each if one.age_p95_ms is not None]
        lost = next((one.source for one in each if not one.source.connected), first.source)
        counted = {
            name: sum(getattr(one.source, name) for one in each)
            for name in ("captured", "dropped", "skipped", "reconnects")
        }
        return replace(
            first,
            fps=sum(one.fps for one in each if one.fps is not None),
            age_ms=max(ages, default=None),
            age_p95_ms=max(late, default=None),
            processed=sum(one.processed for one in each),
            source=replace(lost, **counted, size=None, fps=None),
        )

    settings = _AllSettings([view.settings for view in views])
    model = views[0].title.partition(" on ")[0]
    return View(_Grid(views), Painter(settings), numbers, f"{model} on {len(views)} cameras")

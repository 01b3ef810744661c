"""Chooses among several sizes of a detector, so that frames are ready in time."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from mobiledet.apps.live.frames import Result
from mobiledet.errors import MobiledetError
from mobiledet.runtime.detector import Detector

logger = logging.getLogger(__name__)

_LATE = 0.05
"""Share of frames that may be late."""

_WINDOW_S = 10.0
"""Seconds that are judged. Going down needs more late frames than chance gives there: a second of them, or less."""

_FEWEST = 3
"""Late frames without which it never goes down."""

_ROOM = 0.85
"""Share of the deadline that a larger size must be expected to keep before it is tried."""

_HOLD_S, _LONGEST_HOLD_S = 5.0, 320.0
"""Seconds before a larger size is tried; twice as long after each try that failed."""

_WARM_UP = 5


class Deadline:
    """Runs the largest of some detectors with which 95 % of frames are ready in time. For one thread.

    How long another size would take is expected from the fastest call of each, whose ratio stays the same when the
    machine gets slower.

    Args:
        detectors: They must know the same classes; tried out at once, a few calls each.
        limit_ms: The age, from grab to boxes, that frames should keep.

    Raises:
        MobiledetError: They know different classes.
    """

    def __init__(self, detectors: Sequence[Detector], limit_ms: float) -> None:
        for detector in detectors[1:]:
            if detector.names != detectors[0].names:
                raise MobiledetError(
                    "--deadline chooses among sizes of one detector, and these models know different classes: "
                    f"{', '.join(detectors[0].names[:4])}... and {', '.join(detector.names[:4])}..."
                )
        self._detectors = sorted(detectors, key=lambda one: -math.prod(one.card.resize.size))
        self._limit = limit_ms
        self._fastest = [math.inf] * len(detectors)
        self._counts = [0] * len(detectors)
        self._in_time = 0
        self._hold, self._climbed = _HOLD_S, False
        self._warned = False
        for place, detector in enumerate(self._detectors):
            image = np.zeros((*detector.card.resize.size, 3), np.uint8)
            for _ in range(_WARM_UP):
                self._note_call(place, sum(detector.detect_timed(image)[1].values()))
        self._now = next(
            (place for place, ms in enumerate(self._fastest) if ms < _ROOM * limit_ms), len(self._detectors) - 1
        )
        self._start(time.monotonic())

    @property
    def detector(self) -> Detector:
        """The one that runs now."""
        return self._detectors[self._now]

    def note(self, result: Result) -> None:
        """A frame was looked at; another detector may run from now on."""
        call = sum(result.stages_ms.get(stage, 0.0) for stage in ("resize", "network", "read"))
        self._note_call(self._now, call)
        self._counts[self._now] += 1
        self._in_time += result.age_ms <= self._limit
        self._recent.append((result.ready, result.age_ms, call))
        while self._recent[0][0] < result.ready - _WINDOW_S:
            self._recent.popleft()
        count = len(self._recent)
        late = sum(age > self._limit for _, age, _ in self._recent)
        chance = _LATE * count + 2 * math.sqrt(_LATE * (1 - _LATE) * count)
        if late >= _FEWEST and late > chance:
            self._go_down(result.ready)
        elif result.ready - self._since >= self._hold and late <= _LATE * count:
            if result.ready - self._since >= 4 * self._hold:  # the last try has held
                self._hold, self._climbed = _HOLD_S, False
            if self._now > 0 and self._expected() < _ROOM * self._limit:
                self._climbed = True
                self._go_to(self._now - 1, result.ready)

    def figures(self) -> dict[str, Any]:
        """For the report: the limit, the share of frames that kept it, and the share that each size had."""
        count = max(1, sum(self._counts))
        sizes = [
            {"input_size": list(detector.card.resize.size), "share": round(part / count, 4)}
            for detector, part in zip(self._detectors, self._counts, strict=True)
        ]
        return {"limit_ms": self._limit, "in_time": round(self._in_time / count, 4), "sizes": sizes}

    def _expected(self) -> float:
        """Milliseconds of age that 95 % of frames would keep with the next larger size."""
        _, ages, calls = np.array(self._recent).T
        slower = self._fastest[self._now - 1] / self._fastest[self._now] - 1
        return float(np.quantile(ages, 1 - _LATE) + slower * np.quantile(calls, 1 - _LATE))

    def _go_down(self, moment: float) -> None:
        if self._now == len(self._detectors) - 1:
            if not self._warned:
                self._warned = True
                logger.warning("even the smallest model is too slow for --deadline %g", self._limit)
            return
        if self._climbed:
            self._hold = min(2 * self._hold, _LONGEST_HOLD_S)
        self._climbed = False
        self._go_to(self._now + 1, moment)

    def _go_to(self, place: int, moment: float) -> None:
        self._now = place
        self._start(moment)
        logger.info("from now on %dx%d, to be ready within %g ms", *self.detector.card.resize.size, self._limit)

    def _start(self, moment: float) -> None:
        self._since = moment
        self._recent: deque[tuple[float, float, float]] = deque()

    def _note_call(self, place: int, milliseconds: float) -> None:
        self._fastest[place] = min(self._fastest[place], milliseconds)

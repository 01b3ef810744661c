"""Summaries of a run of any length in constant memory: percentiles, and a timeline second by second."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

MINUTE = 60
"""Seconds."""

_MOST = 600
"""Rows kept; beyond it each two become one, so that a run of any length takes the same memory."""

_STEP = math.log(1.01)
_LEAST = 1e-3
_BINS = 2315
"""From a microsecond to three hours, in milliseconds."""


class Percentiles:
    """Counts values in bins that are 1 % wide, so a percentile is right to half a percent."""

    def __init__(self) -> None:
        self._counts = [0] * _BINS
        self.count = 0
        self.max = self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value; those below a thousandth count as that."""
        place = int(math.log(max(value, _LEAST) / _LEAST) / _STEP)
        self._counts[min(place, _BINS - 1)] += 1
        self.count += 1
        self.total += value
        self.max = max(self.max, value)

    def at(self, share: float) -> float | None:
        """The smallest value that a ``share`` in 0..1 of all values doesn't exceed; None without values."""
        if self.count == 0:
            return None
        wanted = max(1, math.ceil(share * self.count - 1e-9))
        place = int(np.searchsorted(np.cumsum(self._counts), wanted))
        return min(self.max, _LEAST * math.exp((place + 0.5) * _STEP))

    def summary(self) -> dict[str, float] | None:
        """``p50`` and ``p95``, rounded to microseconds; None without values."""
        low, high = self.at(0.5), self.at(0.95)
        return None if low is None or high is None else {"p50": round(low, 3), "p95": round(high, 3)}


@dataclass(slots=True)
class _Row:
    """One step of the timeline."""

    count: int = 0
    ages: float = 0.0
    memory: float | None = None
    temperature: float | None = None

    def join(self, later: _Row) -> None:
        self.count += later.count
        self.ages += later.ages
        self.memory = later.memory if later.memory is not None else self.memory
        self.temperature = later.temperature if later.temperature is not None else self.temperature


class Timeline:
    """Counts frames by the second since the first boxes; time while paused isn't passed in."""

    def __init__(self) -> None:
        self._rows: list[_Row] = []
        self._step = 1
        self._second = 0
        self._now = _Row()
        self._first: list[_Row] = []
        self._last: deque[_Row] = deque(maxlen=MINUTE)
        self._worst: int | None = None
        self._whole = 0

    def add(self, second: float, age_ms: float) -> None:
        """A frame was processed, ``second`` seconds after the first."""
        self.advance(second)
        self._now.count += 1
        self._now.ages += age_ms

    def note(self, memory_mib: float | None, temperature_c: float | None) -> None:
        """Memory and temperature of the machine just now."""
        self._now.memory, self._now.temperature = memory_mib, temperature_c

    def advance(self, second: float) -> None:
        """Let time pass; seconds in which nothing was processed count as well."""
        while self._second < int(second):
            self._finish()

    def figures(self) -> dict[str, float | None]:
        """FPS of the first and of the last minute, and of the worst whole second; None for runs too short for it."""
        worst = None if self._worst is None else float(self._worst)
        return {**self._minutes(_rate), "worst_second": worst}

    def memory(self) -> dict[str, float | None]:
        """Mean MiB of the first and of the last minute; None for runs too short for it."""
        return self._minutes(_mean_memory)

    def _minutes(self, figure: Callable[[Sequence[_Row]], float | None]) -> dict[str, float | None]:
        long = self._whole >= 2 * MINUTE
        return {
            "first_minute": figure(self._first) if long else None,
            "last_minute": figure(self._last) if long else None,
        }

    def plain(self) -> dict[str, Any]:
        """Equal steps over the whole run, for charts."""
        rows = self._rows
        last = self._whole - (len(rows) - 1) * self._step  # seconds in the last row, which may not be full yet
        steps = [self._step] * (len(rows) - 1) + [last]
        temperatures = [_rounded(row.temperature) for row in rows]
        return {
            "step_s": float(self._step),
            "fps": [round(row.count / step, 2) for row, step in zip(rows, steps, strict=False)],
            "age_ms": [round(row.ages / row.count, 2) if row.count else None for row in rows],
            "memory_mib": [_rounded(row.memory) for row in rows],
            "temperature_c": temperatures if any(value is not None for value in temperatures) else None,
        }

    def _finish(self) -> None:
        """Close the second that has passed."""
        row, self._now = self._now, _Row()
        if len(self._first) < MINUTE:
            self._first.append(replace(row))
        self._last.append(replace(row))
        # The very first second holds the start.
        if self._second > 0:
            self._worst = row.count if self._worst is None else min(self._worst, row.count)
        if self._whole % self._step == 0:
            self._rows.append(row)
        else:
            self._rows[-1].join(row)
        self._whole += 1
        self._second += 1
        if len(self._rows) > _MOST:
            for even, odd in zip(self._rows[::2], self._rows[1::2], strict=False):
                even.join(odd)
            self._rows = self._rows[::2]
            self._step *= 2


def _rate(rows: Sequence[_Row]) -> float | None:
    return round(sum(row.count for row in rows) / len(rows), 2)


def _mean_memory(rows: Sequence[_Row]) -> float | None:
    known = [row.memory for row in rows if row.memory is not None]
    return round(sum(known) / len(known), 1) if known else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 1)

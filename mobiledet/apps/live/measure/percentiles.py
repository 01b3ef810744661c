"""Percentiles of a stream of any length in constant memory."""

from __future__ import annotations

import math

import numpy as np

_STEP = math.log(1.01)
_LEAST = 1e-3
_BINS = 2315
"""From a microsecond to three hours, in milliseconds."""


class Percentiles:
    """Counts values in bins that are 1 % wide, so a percentile is right to half a percent."""

    def __init__(self) -> None:
        self._counts = [0] * _BINS
        self.count = 0
        self.max = 0.0

    def add(self, value: float) -> None:
        """Count a value; those below a thousandth count as that."""
        place = int(math.log(max(value, _LEAST) / _LEAST) / _STEP)
        self._counts[min(place, _BINS - 1)] += 1
        self.count += 1
        self.max = max(self.max, value)

    def at(self, share: float) -> float | None:
        """The value that ``share`` in 0..1 of all values don't exceed; None without values."""
        if self.count == 0:
            return None
        wanted = max(1, math.ceil(share * self.count - 1e-9))
        place = int(np.searchsorted(np.cumsum(self._counts), wanted))
        return min(self.max, _LEAST * math.exp((place + 0.5) * _STEP))

    def summary(self) -> dict[str, float] | None:
        """``p50`` and ``p95``, rounded to microseconds; None without values."""
        low, high = self.at(0.5), self.at(0.95)
        return None if low is None or high is None else {"p50": round(low, 3), "p95": round(high, 3)}

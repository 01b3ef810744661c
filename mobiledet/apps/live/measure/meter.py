"""What a live view measures about itself: rates, ages, stages and counts, for the screen and for the report.

FPS and seconds are counted from the first boxes on, without the time it was paused. A frame's age runs from the
moment it reached this program to the moment its boxes were ready, or on the screen.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.measure.board import BoardReading
from mobiledet.apps.live.sources.base import SourceState

WINDOW_S = 2.0
"""Seconds over which the current numbers are taken."""

_FRESH_S = 0.1
"""Seconds for which the current numbers are returned again instead of being computed anew."""

STAGES = ("grab", "motion", "resize", "network", "read", "track", "draw")

MINUTE = 60
"""Seconds."""

_MOST = 600
"""Rows kept; beyond it each two become one, so that a run of any length takes the same memory."""

_STEP = math.log(1.01)
_LEAST = 1e-3
_BINS = 2315
"""From a microsecond to three hours, in milliseconds."""


@dataclass(frozen=True)
class LiveNumbers:
    """Numbers over the last two seconds, and counts since the start. None where nothing is known.

    Attributes:
        fps: Frames processed per second.
        age_ms: Median age of a frame when its boxes were ready.
        age_p95_ms: 95th percentile of it.
        stages_ms: Median milliseconds of ``grab``, ``resize``, ``network`` (with decoding and suppression), ``draw``.
        processed: Frames processed so far.
        seconds: Since the first boxes.
        cpu_percent, memory_mib, temperature_c, throttled: As in `BoardReading`.
        source: State of the source.
    """

    fps: float | None = None
    age_ms: float | None = None
    age_p95_ms: float | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    processed: int = 0
    seconds: float = 0.0
    cpu_percent: float | None = None
    memory_mib: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    source: SourceState = field(default_factory=SourceState)


class _Sample(NamedTuple):
    ready: float
    age_ms: float
    stages_ms: dict[str, float]


class Meter:
    """Measures a run; safe to call from any thread.

    ``started`` is when the program was; ``source`` and ``board`` give the states of these.
    """

    def __init__(
        self,
        *,
        started: float,
        source: Callable[[], SourceState] = SourceState,
        board: Callable[[], BoardReading] = BoardReading,
    ) -> None:
        self._lock = threading.Lock()
        self._source, self._board = source, board
        self._started = started
        self._first: float | None = None
        self._seconds = 0.0
        self._paused_at: float | None = None
        self._paused_s = self._resumed = 0.0
        self._lost_at: float | None = None
        self._lost_s = 0.0
        self._recent: deque[_Sample] = deque()
        self._drawn: deque[float] = deque(maxlen=20)
        self._stages = {name: Percentiles() for name in STAGES}
        self._age, self._shown_age = Percentiles(), Percentiles()
        self._timeline = Timeline()
        self._numbers: tuple[float, LiveNumbers] | None = None
        self._cpu = Percentiles()
        self._temperature: dict[str, float] = {}
        self._before = 0
        self._final: tuple[float, SourceState] | None = None
        self.processed = 0
        self.passed_over = 0
        """Frames that came while paused."""
        self.not_due = 0
        """Frames that came before their time, where only so many a second are looked at."""
        self.still = 0
        """Of those processed: without movement, so they keep the detections of the one before."""

    def begin(self) -> None:
        """Count from now on; frames dropped before, while a model was loaded, count apart."""
        self._before = self._source().dropped

    def end(self) -> None:
        """Count no more; frames that the source gives from now on don't matter."""
        self._final = time.monotonic(), self._state()

    def record(self, result: Result) -> None:
        """A frame has its boxes."""
        stages = {"grab": result.frame.grab_ms, **result.stages_ms}
        with self._lock:
            if self._first is None:
                # Pauses before it aren't in the time that is counted.
                self._first, self._paused_s = result.ready, 0.0
            self._seconds = self._second(result.ready)
            self.processed += 1
            for name, value in stages.items():
                self._stages[name].add(value)
            self._age.add(result.age_ms)
            self._recent.append(_Sample(result.ready, result.age_ms, stages))
            self._forget(result.ready)
            self._timeline.add(self._seconds, result.age_ms)

    def drawn(self, milliseconds: float) -> None:
        """A frame was drawn."""
        with self._lock:
            self._stages["draw"].add(milliseconds)
            self._drawn.append(milliseconds)

    def shown(self, result: Result, moment: float) -> None:
        """A frame's boxes were on the screen."""
        with self._lock:
            if result.frame.grabbed < self._resumed:
                return  # it was on the screen through a pause
            self._shown_age.add((moment - result.frame.grabbed) * 1e3)

    def pause(self, paused: bool) -> None:
        """Stop the clock, or start it again."""
        now = time.monotonic()
        with self._lock:
            if paused and self._paused_at is None:
                self._paused_at = now
            elif not paused and self._paused_at is not None:
                self._paused_s += now - self._paused_at
                self._paused_at = None
                self._resumed = now
                self._recent.clear()

    def tick(self) -> None:
        """Let time pass and read source and machine; to be called a few times a second, frames or not."""
        state, reading, now = self._state(), self._board(), time.monotonic()
        with self._lock:
            # Before the first boxes nothing was lost yet.
            if not state.connected and self._lost_at is None and self._first is not None:
                self._lost_at = self._second(now)
            elif state.connected and self._lost_at is not None:
                self._lost_s += self._second(now) - self._lost_at
                self._lost_at = None
            self._note(reading)
            if self._first is not None and self._paused_at is None:
                self._timeline.advance(self._second(now))

    def numbers(self) -> LiveNumbers:
        """The current numbers."""
        now = time.monotonic()
        with self._lock:
            if self._numbers is not None and now - self._numbers[0] < _FRESH_S:
                return self._numbers[1]
        state, reading = self._state(), self._board()
        with self._lock:
            if self._paused_at is None:
                self._forget(now)
            ages = sorted(sample.age_ms for sample in self._recent)
            times = {name: [s.stages_ms[name] for s in self._recent if name in s.stages_ms] for name in STAGES}
            stages = {name: statistics.median(values) for name, values in times.items() if values}
            if self._drawn:
                stages["draw"] = statistics.median(self._drawn)
            numbers = LiveNumbers(
                fps=self._rate(now),
                age_ms=statistics.median(ages) if ages else None,
                age_p95_ms=ages[min(len(ages) - 1, int(0.95 * len(ages)))] if ages else None,
                stages_ms=stages,
                processed=self.processed,
                seconds=self._second(now) if self._first is not None else 0.0,
                cpu_percent=reading.cpu_percent,
                memory_mib=reading.memory_mib,
                temperature_c=reading.temperature_c,
                throttled=reading.throttled,
                source=state,
            )
            self._numbers = now, numbers
            return numbers

    def figures(self) -> dict[str, Any]:
        """All measurements, as plain types: the parts of the report that are about speed."""
        state, reading = self._state(), self._board()
        now = time.monotonic() if self._final is None else self._final[0]
        with self._lock:
            lost = self._lost_s + (self._second(now) - self._lost_at if self._lost_at is not None else 0.0)
            # A source that is lost and doesn't come back counts: there were no frames.
            seconds = self._second(now) if self._lost_at is not None else self._seconds
            overall = round((self.processed - 1) / seconds, 2) if self.processed > 1 and seconds > 0 else None
            started = None if self._first is None else round((self._first - self._started) * 1e3, 1)
            cpu = {"mean": round(self._cpu.total / self._cpu.count, 1)} if self._cpu.count else None
            return {
                "seconds": round(seconds, 3),
                "start_to_first_boxes_ms": started,
                "frames": {
                    "captured": state.captured,
                    "processed": self.processed,
                    "dropped": state.dropped,
                    "before_start": self._before,
                    "skipped": state.skipped,
                    "paused": self.passed_over,
                    "not_due": self.not_due,
                    "still": self.still,
                    "shown": self._shown_age.count,
                    "reconnects": state.reconnects,
                    "lost_seconds": round(lost, 1),
                },
                "fps": {"overall": overall, **self._timeline.figures()},
                "age_ms": self._age.summary(most=True),
                "shown_age_ms": self._shown_age.summary(most=True),
                "stages_ms": {name: found for name in STAGES if (found := self._stages[name].summary())},
                "cpu_percent": None if cpu is None else {**cpu, "max": round(self._cpu.max, 1)},
                "memory_mib": {**self._timeline.memory(), "peak": reading.peak_memory_mib},
                "temperature_c": dict(self._temperature) or None,
                "throttled": list(reading.throttled_since_start),
                "timeline": self._timeline.plain(),
            }

    def _state(self) -> SourceState:
        """The state of the source, with counts since `begin`."""
        if self._final is not None:
            return self._final[1]
        state = self._source()
        return replace(state, captured=state.captured - self._before, dropped=state.dropped - self._before)

    def _note(self, reading: BoardReading) -> None:
        if reading.cpu_percent is not None:
            self._cpu.add(reading.cpu_percent)
        if reading.temperature_c is not None:
            known = self._temperature
            known.setdefault("start", reading.temperature_c)
            known["end"] = reading.temperature_c
            known["max"] = max(known.get("max", reading.temperature_c), reading.temperature_c)
        self._timeline.note(reading.memory_mib, reading.temperature_c)

    def _second(self, moment: float) -> float:
        """Seconds since the first boxes, without pauses."""
        assert self._first is not None
        paused = self._paused_s + (moment - self._paused_at if self._paused_at is not None else 0.0)
        return max(0.0, moment - self._first - paused)

    def _rate(self, now: float) -> float | None:
        """Frames per second over the window; the last two are kept for sources slower than that."""
        if len(self._recent) < 2:
            return None
        if self._paused_at is not None:
            now = self._recent[-1].ready
        # From one frame to the last, unless the last is long ago: then the rate goes down while none come.
        end = max(self._recent[-1].ready, now - 1 / 4)
        return (len(self._recent) - 1) / max(end - self._recent[0].ready, 1e-6)

    def _forget(self, now: float) -> None:
        while len(self._recent) > 2 and self._recent[0].ready < now - WINDOW_S:
            self._recent.popleft()


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

    def summary(self, *, most: bool = False) -> dict[str, float] | None:
        """``p50`` and ``p95``, and ``max`` too for ``most``, rounded to microseconds; None without values."""
        low, high = self.at(0.5), self.at(0.95)
        if low is None or high is None:
            return None
        return {"p50": round(low, 3), "p95": round(high, 3), **({"max": round(self.max, 3)} if most else {})}


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

"""How long a run will still take, from what was measured of it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

from mobiledet.config import ScheduleConfig
from mobiledet.training.progress import Progress
from mobiledet.utils.text import count

FIRST_STEPS = 10
"""Steps of an epoch after which their median says something."""


class TimeLeft:
    """The steps that are left times the median step, and the scorings that are left times the last one.

    Args:
        schedule: With ``epochs`` chosen.
        batches_per_epoch: Of a whole epoch.
        scored: Whether there is something to score on.
        clock: Gives the time in seconds.
    """

    def __init__(
        self,
        schedule: ScheduleConfig,
        *,
        batches_per_epoch: int,
        scored: bool,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._schedule, self._batches, self._scored, self._clock = schedule, batches_per_epoch, scored, clock
        self._last = clock()
        self._steps: list[float] = []
        self._scoring: float | None = None

    def start_epoch(self) -> None:
        """What is measured from now on is another epoch's."""
        self._steps, self._last = [], self._clock()

    def step(self) -> int:
        """A step is done; gives how many of this epoch were measured."""
        self._steps.append(self._since_last())
        return len(self._steps)

    def trained(self) -> None:
        """The last step of an epoch is done, and everything belonging to it."""
        self._since_last()

    def scoring(self) -> None:
        """A scoring, begun when the epoch was trained, is done."""
        self._scoring = self._since_last()

    @property
    def median_step(self) -> float:
        """Seconds, with the wait for data."""
        return statistics.median(self._steps)

    def steps_left(self, progress: Progress) -> int:
        """Of the whole run, should it train to its end."""
        accumulate = self._schedule.accumulate
        per_epoch, done = (-(-batches // accumulate) for batches in (self._batches, progress.batch))
        return per_epoch * (self._schedule.num_epochs - progress.epoch) - done

    def scorings_left(self, progress: Progress) -> int:
        """Likewise, that of the epoch being trained included."""
        epochs, every = self._schedule.num_epochs, self._schedule.val_every
        left = range(progress.epoch + 1, epochs + 1)
        return sum(epoch % every == 0 or epoch == epochs for epoch in left) if self._scored else 0

    def text(self, progress: Progress) -> str:
        """Such as ``"7 min 12 s left"``; says which part of it can't be known yet. Empty before the first step."""
        if not self._steps:
            return ""
        scorings = self.scorings_left(progress)
        seconds = self.median_step * self.steps_left(progress) + scorings * (self._scoring or 0)
        most = "at most " if self._schedule.patience is not None else ""
        unknown = f", and {count(scorings, 'scoring')} not timed yet" if scorings and self._scoring is None else ""
        return f"{most}{duration(seconds)} left{unknown}"

    def _since_last(self) -> float:
        now = self._clock()
        seconds, self._last = now - self._last, now
        return seconds


def duration(seconds: float) -> str:
    """For people: ``"2 min 05 s"``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"

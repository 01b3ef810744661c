"""Where a run stands: everything, beside tensors, that an exact resume needs; and how long it will still take."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch

from mobiledet.config import ScheduleConfig
from mobiledet.errors import CheckpointError
from mobiledet.utils.text import count

Row = dict[str, Any]
"""One line of results.csv."""

FIRST_STEPS = 10
"""Steps of an epoch after which their median says something."""


@dataclass
class Progress:
    """Position and tallies.

    Attributes:
        epoch: Epochs finished.
        batch: Batches of the next epoch that are done already.
        step: Optimiser steps done, skipped ones included; the learning rate follows it.
        loss_sums: Sum of each loss over the epoch's good steps.
        good_steps: How many those are.
        skipped_steps: Steps of the whole run that weren't finite.
        skipped_in_a_row: How many of them came last.
        best_ap: Best validation AP so far; None before the first.
        best_epoch: When it was reached, counted from 1.
        scorings_since_best: For early stopping.
        history: results.csv so far.
        finished: Nothing is left to do.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sums: dict[str, float] = field(default_factory=dict)
    good_steps: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    best_ap: float | None = None
    best_epoch: int = 0
    scorings_since_best: int = 0
    history: list[Row] = field(default_factory=list)
    finished: bool = False

    def plain(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Progress:
        """Undo :meth:`plain`.

        Raises:
            CheckpointError: the data has other keys.
        """
        if set(plain) != {f.name for f in fields(cls)}:
            raise CheckpointError("the checkpoint's progress record is not one this version writes")
        return cls(**plain)

    def add_losses(self, losses: dict[str, float]) -> None:
        """Count the losses of a good step."""
        for name, value in losses.items():
            self.loss_sums[name] = self.loss_sums.get(name, 0.0) + value
        self.good_steps += 1
        self.skipped_in_a_row = 0

    def mean_losses(self) -> dict[str, float | None]:
        """The epoch's mean losses so far; None where every step was skipped."""
        return {name: total / self.good_steps for name, total in self.loss_sums.items() if self.good_steps}

    def next_epoch(self, row: Row) -> None:
        """Close the epoch with its line of results."""
        self.history.append(row)
        self.epoch += 1
        self.batch = 0
        self.loss_sums = {}
        self.good_steps = 0


def random_states() -> dict[str, Any]:
    """The states of all random generators, as plain data and tensors."""
    version, internal, gauss = random.getstate()
    _, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    assert isinstance(keys, np.ndarray)
    return {
        "python": [version, list(internal), gauss],
        "numpy": [torch.from_numpy(keys.astype(np.int64)), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_random_states(states: dict[str, Any]) -> None:
    """Undo :func:`random_states`."""
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    keys, position, has_gauss, cached = states["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"]:
        torch.cuda.set_rng_state_all(states["cuda"])


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

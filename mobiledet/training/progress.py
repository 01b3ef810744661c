"""Where a run stands, random generators included: everything, beside tensors, that an exact resume needs."""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np
import torch

from mobiledet.errors import CheckpointError

Row = dict[str, Any]
"""One line of results.csv."""


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

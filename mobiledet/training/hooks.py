"""What a program can put into training that a recipe can't say: its own callbacks, augmentation and optimiser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer

from mobiledet.data.transforms import Augment
from mobiledet.evaluation.scoring import Score

Callback = Callable[[Mapping[str, Any]], object]


@dataclass(frozen=True)
class Hooks:
    """All are optional.

    Attributes:
        on_step: Called after every optimiser step with ``epoch`` (from 1), ``step``, ``images`` and the losses
            ``loss/...``; returning False saves and stops.
        on_epoch: Called after every epoch with its line of results.csv; returning False saves and stops.
        augment: In place of the recipe's augmentation, see `TrainTransform`.
        optimizer: ``optimizer(groups, lr)`` in place of the recipe's; ``groups`` are dicts with ``params``,
            ``weight_decay`` and ``lr_scale``.
        schedule: ``schedule(step, steps)`` in place of the recipe's: the learning rate of a step, as a share of the
            peak.
        on_best: Called with the score of each best weights so far; of several processes only in the first.
    """

    on_step: Callback | None = None
    on_epoch: Callback | None = None
    augment: Augment | None = None
    optimizer: Callable[[list[dict[str, Any]], float], Optimizer] | None = None
    schedule: Callable[[int, int], float] | None = None
    on_best: Callable[[Score], object] | None = None

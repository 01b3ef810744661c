"""One epoch of training: the part to read first."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from mobiledet.data.loader import Batch
from mobiledet.errors import TrainingError
from mobiledet.models.detection_model import DetectionModel
from mobiledet.training.distributed import ProcessGroup
from mobiledet.training.optim import NormGuard, WeightAverage, set_lr
from mobiledet.training.precision import Precision
from mobiledet.training.progress import Progress

logger = logging.getLogger(__name__)


@dataclass
class Trainer:
    """What a step needs; built by :mod:`mobiledet.training.run`.

    Attributes:
        model: The network, in training mode.
        call: What is called with images and targets: ``model``, or its wrapper for several processes.
        optimizer: Moves the weights.
        average: Follows them; None without averaging.
        precision: How numbers are computed.
        learning_rate: Rate of a step, counted from 0.
        clip_norm: Largest gradient norm; None for no clipping.
        accumulate: Batches per step.
        max_bad_steps: Non-finite steps in a row before giving up.
        device: Where it happens.
        processes: Those that train together.
    """

    model: DetectionModel
    call: Callable[..., dict[str, Tensor]]
    optimizer: Optimizer
    average: WeightAverage | None
    precision: Precision
    learning_rate: Callable[[int], float]
    clip_norm: float | None
    accumulate: int
    max_bad_steps: int
    device: torch.device
    processes: ProcessGroup = field(default_factory=ProcessGroup)

    def __post_init__(self) -> None:
        self.guard = NormGuard(self.model)
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]


def train_one_epoch(
    trainer: Trainer,
    batches: Iterable[Batch],
    progress: Progress,
    *,
    batches_per_epoch: int,
    after_step: Callable[[dict[str, float], int], bool],
    waiting: Callable[[], AbstractContextManager[None]],
) -> bool:
    """Train on the rest of an epoch.

    Args:
        trainer: Model, optimiser and settings.
        batches: From ``progress.batch`` of the epoch on.
        progress: Moved along with every step.
        batches_per_epoch: Of a whole epoch.
        after_step: Called with the step's losses and number of images; returning False stops here.
        waiting: A context that the wait for data runs in, to be timed.

    Returns:
        Whether the epoch was finished.

    Raises:
        TrainingError: too many steps in a row weren't finite.
    """
    trainer.model.train()
    iterator = iter(batches)
    while progress.batch < batches_per_epoch:
        group_size = min(trainer.accumulate, batches_per_epoch - progress.batch)
        with waiting():
            group = [next(iterator) for _ in range(group_size)]
        set_lr(trainer.optimizer, trainer.learning_rate(progress.step))
        losses = train_step(trainer, group)
        progress.batch += group_size
        progress.step += 1
        if losses is None:
            _count_skipped(trainer, progress, group)
        else:
            progress.add_losses(losses)
        if not after_step(losses or {}, sum(len(batch.image_ids) for batch in group)):
            return progress.batch >= batches_per_epoch
    return True


def train_step(trainer: Trainer, group: list[Batch]) -> dict[str, float] | None:
    """One optimiser step; None, with nothing changed, when a loss or the gradient isn't finite."""
    trainer.guard.remember()
    totals: dict[str, float] = {}
    finite = True
    for batch in group:
        images = batch.images_on(trainer.device)
        targets = batch.target_tensors(trainer.device)
        with trainer.processes.exchanging(trainer.call, batch is group[-1]):
            with trainer.precision.autocast():
                losses = trainer.call(images, targets)
            loss = torch.stack(list(losses.values())).sum() / len(group)
            finite = math.isfinite(loss.item())
            if not finite and trainer.processes.size == 1:  # other processes wait for this one's gradients
                break
            trainer.precision.backward(loss)
        for name, value in losses.items():
            totals[name] = totals.get(name, 0.0) + value.item() / len(group)
    totals = trainer.processes.mean(totals)
    if finite := finite and all(map(math.isfinite, totals.values())):
        trainer.precision.unscale(trainer.optimizer)
        norm = clip_grad_norm_(trainer.parameters, trainer.clip_norm or math.inf, foreach=True)
        finite = math.isfinite(norm.item())
    if finite:
        trainer.precision.step(trainer.optimizer)
        if trainer.average is not None:
            trainer.average.update()
    else:
        trainer.precision.reduce_scale()
        trainer.guard.restore()
    trainer.optimizer.zero_grad(set_to_none=True)
    return totals if finite else None


def _count_skipped(trainer: Trainer, progress: Progress, group: list[Batch]) -> None:
    progress.skipped_steps += 1
    progress.skipped_in_a_row += 1
    ids = [image_id for batch in group for image_id in batch.image_ids]
    logger.warning(
        "epoch %d, batch %d: loss or gradient is not finite, step skipped; image ids %s",
        progress.epoch + 1,
        progress.batch,
        ids,
    )
    if progress.skipped_in_a_row >= trainer.max_bad_steps:
        raise TrainingError(
            f"{progress.skipped_in_a_row} steps in a row were not finite (last image ids: {ids}); "
            "lower optimizer.lr, or try train.precision=float32"
        )

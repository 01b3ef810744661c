"""Where the figures of each epoch go besides results.csv. Each package is imported only when it is asked for."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from mobiledet.errors import MissingDependencyError

logger = logging.getLogger(__name__)

Log = Callable[[int, Mapping[str, float]], None]
"""Takes an optimiser step and figures by name."""


class Loggers:
    """TensorBoard, MLflow and Weights & Biases, as far as they are asked for.

    They fail loudly here, at the start; later an error is reported once and the logger is left out from then on, since
    hours of training are worth more than its curves. Nothing leaves the machine unless the user has set it up:
    MLflow writes into the run folder unless ``MLFLOW_TRACKING_URI`` is set, Weights & Biases is offline unless
    ``WANDB_MODE`` says otherwise.

    Args:
        names: Which.
        folder: The run folder.
        config: The recipe as plain data, kept with the figures.

    Raises:
        MissingDependencyError: A package isn't installed.
    """

    def __init__(self, names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> None:
        self._open: dict[str, tuple[Log, Callable[[], object]]] = {}
        for name in dict.fromkeys(names):
            try:
                self._open[name] = _LOGGERS[name](folder, config)
            except ImportError as error:
                raise MissingDependencyError(
                    f"train.loggers={name} needs the package {name}: pip install {name}"
                ) from error

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Hand figures on to all of them."""
        for name, (log, _) in list(self._open.items()):
            try:
                log(step, figures)
            except Exception as error:  # whatever such a package raises, training goes on
                del self._open[name]
                logger.warning("%s failed and is left out from now on: %s: %s", name, type(error).__name__, error)

    def close(self) -> None:
        """Finish their files."""
        for _, end in self._open.values():
            with suppress(Exception):
                end()


def _tensorboard(folder: Path, config: Mapping[str, Any]) -> tuple[Log, Callable[[], object]]:  # noqa: ARG001
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"))

    def log(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return log, writer.close


def _mlflow(folder: Path, config: Mapping[str, Any]) -> tuple[Log, Callable[[], object]]:
    import mlflow

    store = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{(folder / 'mlflow.db').absolute()}"
    client = mlflow.tracking.MlflowClient(tracking_uri=store)
    experiment = client.get_experiment_by_name(str(config["name"]))
    number = client.create_experiment(str(config["name"])) if experiment is None else experiment.experiment_id
    run = client.create_run(number, run_name=str(folder)).info.run_id
    for key, value in flatten(config):
        client.log_param(run, key, str(value)[:500])

    def log(step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            client.log_metric(run, name, value, step=step)

    return log, lambda: client.set_terminated(run)


def _wandb(folder: Path, config: Mapping[str, Any]) -> tuple[Log, Callable[[], object]]:
    os.environ.setdefault("WANDB_MODE", "offline")
    os.environ.setdefault("WANDB_SILENT", "true")
    import wandb

    run = wandb.init(project="mobiledet", name=str(folder), dir=str(folder), config=dict(config))
    return lambda step, figures: run.log(dict(figures), step=step), run.finish


def flatten(plain: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Every setting with its dotted name."""
    rows: list[tuple[str, Any]] = []
    for key, value in plain.items():
        rows += flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return rows


_LOGGERS = {"tensorboard": _tensorboard, "mlflow": _mlflow, "wandb": _wandb}

"""Starting and resuming runs: data checked first, then the folder, then training."""

from __future__ import annotations

import json
import logging
import shlex
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from mobiledet.config import Config, apply_overrides, config_from_plain
from mobiledet.data.opening import Splits, open_data
from mobiledet.errors import CheckpointError, ConfigError, DataError
from mobiledet.models.cost import detector_cost
from mobiledet.training.complete import check_quantizable, complete, follow_weights, initial_weights
from mobiledet.training.distributed import ProcessGroup
from mobiledet.training.hooks import Hooks
from mobiledet.training.precision import choose_precision
from mobiledet.training.run import RESUMABLE_SETTINGS, Run
from mobiledet.training.stopping import StopRequest
from mobiledet.training.teacher import TEACHER_FILE, ask_teacher, check_augmentation
from mobiledet.utils.files import create_run_folder, lock_run_folder, write_bytes, write_json
from mobiledet.utils.processes import keep_socket_paths_short
from mobiledet.weights.transfer import InitialWeights

logger = logging.getLogger(__name__)

AGENTS = ".torchrun"
"""File of a run folder: the torchrun processes that began the run, which is theirs when they start lost ones again."""


def start_run(
    config: Config, *, data: Splits | None = None, hooks: Hooks | None = None, stop: StopRequest | None = None
) -> tuple[Path, int]:
    """Train a recipe from the beginning in a new run folder.

    Args:
        config: The recipe.
        data: What to train and score on; None opens what the recipe names.
        hooks: A program's own parts.
        stop: Asked after every step; None for one that listens to Ctrl-C and SIGTERM.

    Returns:
        The folder, and the exit status: 0, or 128 + signal after a stop.

    Raises:
        MobiledetError: the data, the config or the folder can't be used.
    """
    processes = ProcessGroup()
    processes.check(config)  # these fail, if they must, before a run folder is made
    choose_precision(config.train.precision, processes.device(config.train.device))
    check_augmentation(config, hooks)
    if config.data.workers:
        keep_socket_paths_short()
    with processes.connected():
        agents = processes.agents()
        with processes.together():
            begun = _begun_by(agents, Path(config.train.output) / config.name) if processes.is_first else None
        if (folder := processes.share(begun)) is not None:
            logger.info("the processes were started again: going on with %s", folder)
            return folder, _resume(folder, (), data, hooks, stop, processes)
        with processes.together():
            weights = initial_weights(config.model)
            # A contradiction is reported before all images are checked.
            model = config.model if weights is None else follow_weights(config.model, weights)
            if config.train.quantize:
                check_quantizable(model)
        with processes.together():
            splits = data or (open_data(config.data, seed=config.seed) if processes.is_first else None)
        splits = splits if data is not None else processes.share(splits)
        assert splits is not None
        with processes.together(), ExitStack() as stack:
            config = complete(config, splits.train, weights)
            height, width = config.model.input_size
            logger.info("input: %dx%d pixels (height x width)", height, width)
            if processes.is_first:
                taught = ask_teacher(config, splits.train) if config.train.teacher else None
                folder = create_run_folder(Path(config.train.output), config.name)
                stack.enter_context(lock_run_folder(folder))
                write_json(folder / "config.json", config.plain())
                if taught is not None:
                    write_bytes(folder / TEACHER_FILE, taught)
                if agents:
                    write_json(folder / AGENTS, agents)
            held = stack.pop_all()
        folder = processes.share(folder)
        assert folder is not None
        with held:
            return folder, _run(config, folder, splits, hooks, stop, processes, weights=weights)


def resume_run(
    folder: Path,
    overrides: Sequence[str] | Mapping[str, Any] = (),
    *,
    data: Splits | None = None,
    hooks: Hooks | None = None,
    stop: StopRequest | None = None,
) -> int:
    """Continue an interrupted run, exactly; the other arguments are those of `start_run`.

    Returns:
        The exit status: 0, or 128 + signal after a stop.

    Raises:
        MobiledetError: the folder holds no run, or its data isn't what it was.
    """
    processes = ProcessGroup()
    with processes.connected():
        return _resume(folder, overrides, data, hooks, stop, processes)


def _resume(
    folder: Path,
    overrides: Sequence[str] | Mapping[str, Any],
    data: Splits | None,
    hooks: Hooks | None,
    stop: StopRequest | None,
    processes: ProcessGroup,
) -> int:
    with processes.together():
        config = recorded_config(folder) if processes.is_first else None
    config = processes.share(config)
    assert config is not None
    with processes.together():
        for word in overrides:
            if word.partition("=")[0] not in RESUMABLE_SETTINGS:
                raise ConfigError(
                    f"{word!r} would change a run that has begun; with --resume only these can change: "
                    f"{', '.join(RESUMABLE_SETTINGS)}"
                )
        config = apply_overrides(config, overrides)
        processes.check(config)
        choose_precision(config.train.precision, processes.device(config.train.device))
        check_augmentation(config, hooks)
    with processes.together(), ExitStack() as stack:
        splits = data
        if processes.is_first:
            stack.enter_context(lock_run_folder(folder))
            splits = data or _reopened(config, folder)
        held = stack.pop_all()
    splits = splits if data is not None else processes.share(splits)
    assert splits is not None
    with held:
        return _run(config, folder, splits, hooks, stop, processes, resume=True)


def _reopened(config: Config, folder: Path) -> Splits:
    try:
        splits = open_data(config.data, seed=config.seed)
    except DataError as error:
        if Path(config.data.root).exists():
            raise
        raise DataError(f"{error}; if it was moved, add data.root=FOLDER to --resume {folder}") from None
    if config.model.num_classes != splits.train.num_classes:
        raise CheckpointError(
            f"the run has {config.model.num_classes} classes, {splits.train.annotation_file} has "
            f"{splits.train.num_classes}; start a new run, or restore the old file"
        )
    return splits


def _begun_by(agents: list[str], runs: Path) -> Path | None:
    """The unfinished run that the same torchrun began, which has lost a process since then."""
    for file in sorted(runs.glob(f"*/{AGENTS}")) if agents else ():
        if set(agents) & set(json.loads(file.read_text(encoding="utf-8"))):
            return file.parent
    return None


def _run(
    config: Config,
    folder: Path,
    data: Splits,
    hooks: Hooks | None,
    stop: StopRequest | None,
    processes: ProcessGroup,
    *,
    weights: InitialWeights | None = None,
    resume: bool = False,
) -> int:
    with StopRequest() if stop is None else stop as stop:
        train, val = data
        run = Run(config=config, folder=folder, train=train, val=val, stop=stop, hooks=hooks, processes=processes)
        cost = detector_cost(run.model)
        height, width = cost.input_size
        logger.info(
            "model: %s, %s, %dx%d pixels, %d classes: %.3f GMACs, %.2f M parameters",
            config.model.head.kind,
            config.model.backbone.summary,
            height,
            width,
            train.num_classes,
            cost.gmacs,
            cost.params_m,
        )
        logger.info(
            "run: %s, on %s%s in %s, %d threads, %d workers",
            folder,
            f"{processes.size} processes on " if processes.size > 1 else "",
            run.trainer.device,
            run.precision.name,
            run.threads,
            config.data.workers,
        )
        if weights is not None:
            logger.info("%s", run.start_from(weights).table())
        if resume:
            run.resume()
            if run.progress.finished:
                logger.info("this run is finished: %d epochs, best AP %s", run.progress.epoch, run.progress.best_ap)
                return 0
        if run.fit():
            return 0
        logger.info("stopped and saved; continue with: mobiledet train --resume %s", shlex.quote(str(folder)))
        return stop.exit_status


def recorded_config(folder: Path) -> Config:
    """The settings of a run, complete.

    Raises:
        CheckpointError: it isn't a run folder, or its config.json can't be read.
    """
    file = folder / "config.json"
    if folder.is_file():
        raise CheckpointError(f"--resume takes a run folder, not a file: try --resume {str(folder.parent)!r}")
    if not file.is_file():
        what = "it holds no config.json" if folder.is_dir() else "there is no such folder"
        near = _runs_below(folder) or _runs_below(folder.parent)
        hint = f"there are {', '.join(near)}" if near else "name one, such as runs/ssd_mobilenet_a1/1"
        raise CheckpointError(f"{str(folder)!r} is not a run folder: {what}; {hint}")
    try:
        plain = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(plain, dict):
            raise ValueError(f"it holds a {type(plain).__name__}, not settings")
        return config_from_plain(plain)
    except (OSError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"{file}: can't be read: {error}; restore the file as training wrote it, or start a new run"
        ) from None


def _runs_below(folder: Path) -> list[str]:
    return sorted(str(path.parent) for path in folder.glob("*/config.json"))

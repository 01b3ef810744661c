"""Train a detector, or resume an interrupted run.

    mobiledet train ssd_mobilenet_a1
    mobiledet train ssd_mobilenet_a1 data.root=path/to/coco schedule.epochs=2
    mobiledet train ssd_mobilenet_a1 train.devices=4            # four processes, or GPUs, of this machine
    mobiledet train --resume runs/ssd_mobilenet_a1/1

Exit status: 0 trained to the end; 1 something is wrong with the input; 130 or 143 stopped by Ctrl-C or SIGTERM,
saved, ready for --resume.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledet.cli.common import UsageError, existing, print_lines, recipe
from mobiledet.errors import MobiledetError
from mobiledet.utils.machine import share_cores
from mobiledet.utils.processes import process_rank

if TYPE_CHECKING:
    from mobiledet.evaluation.scoring import Score

logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("config", nargs="?", help="recipe by name, such as finetune_ssd, or a config file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    parser.add_argument("--resume", metavar="RUN", type=existing, help="run folder to resume")


def run(arguments: argparse.Namespace) -> int:
    """Train and print the result."""
    words = [word for word in [arguments.config, *arguments.overrides] if word is not None]
    if arguments.resume is None and not words:
        raise UsageError("name a recipe, or --resume a run folder")
    if arguments.resume is None:
        recipe(words[0])

    rank, size = process_rank()
    share_cores()
    from mobiledet.config import apply_overrides, load_config
    from mobiledet.training.hooks import Hooks
    from mobiledet.training.launch import launch
    from mobiledet.training.start import recorded_config, resume_run, start_run

    resumed: Path | None = arguments.resume
    devices = 1
    if resumed is None:
        config = apply_overrides(load_config(words[0]), words[1:])
        devices = config.train.devices
    elif size == 1:  # of several processes only the first needs to see the folder
        asked = [word for word in words if word.startswith("train.devices=")]
        devices = apply_overrides(recorded_config(resumed), asked).train.devices
    if size == 1 and devices > 1:
        return launch(devices, words if resumed is None else [*words, "--resume", str(resumed)])
    best: list[Score] = []

    def keep(score: Score) -> None:
        best[:] = [score]

    hooks = Hooks(on_best=keep)
    if resumed is None:
        folder, status = start_run(config, hooks=hooks)
    else:
        folder, status = resumed, resume_run(resumed, words, hooks=hooks)
    if status == 0 and rank == 0:
        for score in best:  # none where the best weights are older than this process
            _write_report(score, folder)
        print_lines(_result(folder))
    return status


def _write_report(score: Score, folder: Path) -> None:
    """Write report.html into the run folder; a run that is finished stays so where that fails."""
    from mobiledet.apps.report.write import write_report

    try:
        write_report(score, str(folder), page=folder / "report.html")
    except (MobiledetError, KeyboardInterrupt) as error:
        logger.warning("no report is written: %s", str(error) or "stopped")


def _result(folder: Path) -> Iterator[str]:
    """What a finished run is worth, as eval prints it, and what to do with it."""
    from mobiledet.evaluation.metrics import Metrics, format_metrics

    with suppress(FileNotFoundError):  # nothing to score on
        record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        yield f"\nthe best weights on the validation images: {format_metrics(Metrics.from_json_dict(record))}"
        if record["best_f1_threshold"] is not None:
            yield f"objects are shown from a score of {record['best_f1_threshold']:.2f}, where F1 is best\n"
    shown = shlex.quote(str(folder))
    yield f"run folder: {folder}"
    yield f"next: mobiledet predict {shown} image.jpg"
    yield f"      mobiledet export {shown} -o model.onnx"

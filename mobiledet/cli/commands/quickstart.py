"""From nothing to a detector: generate images, train, score, draw. What `make quickstart` runs.

    mobiledet quickstart
    mobiledet quickstart schedule.epochs=2       # only to see that it works

Every step is one of the other commands, called as you would call it; what is called is printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from mobiledet.utils.processes import EXIT_SIGNAL, handling, unignored

SHOWN = 24
"""Validation images that are drawn at the end."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "--data", type=Path, default=Path("data/shapes"), help="folder for the generated images (default: %(default)s)"
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, as for train")


def run(arguments: argparse.Namespace) -> int:
    """Run the steps up to the first that fails; gives its exit status."""
    from mobiledet.config import apply_overrides, load_config

    overrides = [f"data.root={arguments.data}", *arguments.overrides]
    config = apply_overrides(load_config("quickstart"), overrides)
    runs = Path(config.train.output) / config.name
    before = set(runs.glob("*"))
    status = _call("make-shapes", str(arguments.data)) or _call("train", "quickstart", *overrides)
    if status:
        return status
    (run,) = set(runs.glob("*")) - before
    images = sorted((arguments.data / "val").iterdir())[:SHOWN]
    metrics, drawn = run / "metrics.json", run / "pictures"
    status = _call("eval", str(run / "best.pt"), "--data", str(arguments.data))
    status = status or _call("predict", str(run / "best.pt"), *map(str, images), "-o", str(drawn))
    if status == 0:
        print(f"\nscores:      {metrics}\ndetections:  {drawn}/\noverview:    {run / 'val_predictions.jpg'}")
        print(f"curves:      {run / 'curves.png'}\nfirst batch: {run / 'train_batch.jpg'}")
        ap = json.loads(metrics.read_text(encoding="utf-8"))["AP"]
        print(f"\nmAP on {config.data.val_split} images, which it was not trained on: {ap:.3f}")
    return status


def _call(*words: str) -> int:
    shown = words if len(words) < 8 else (*words[:3], "...", *words[-2:])
    print(f"\n$ mobiledet {' '.join(shown)}", flush=True)
    return run_step(sys.executable, "-m", "mobiledet", *words)


def run_step(*command: str) -> int:
    """Run a program, passing Ctrl-C and SIGTERM on to it, and wait until it ends.

    Returns:
        Its exit status; ``128 + n`` if signal ``n`` ended it.
    """
    # In a session of its own the program gets Ctrl-C from here only, and once: training needs time to save then.
    with (
        subprocess.Popen(command, start_new_session=True) as process,
        handling(unignored("SIGINT", "SIGTERM"), lambda number, _: process.send_signal(number)),
    ):
        status = process.wait()
    return EXIT_SIGNAL - status if status < 0 else status

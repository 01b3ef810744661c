"""From nothing to a detector: generate pictures, train, score, draw. What `make quickstart` runs.

Every step is one of the other tools, called as you would call it; the commands are printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from mobiledet.utils.processes import EXIT_SIGNAL, handling, unignored

HERE = Path(__file__).resolve().parent.parent
SHOWN = 24
"""Validation pictures that are drawn at the end."""


def main() -> int:
    """Run the steps; the first that fails ends it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/shapes"), help="where the pictures go (%(default)s)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change, as for tools/train.py")
    arguments = parser.parse_args()

    from mobiledet.config import apply_overrides, load_config

    recipe = HERE / "configs" / "quickstart.py"
    overrides = [f"data.root={arguments.data}", *arguments.overrides]
    config = apply_overrides(load_config(recipe), overrides)
    runs = Path(config.train.output) / config.name
    before = set(runs.glob("*"))
    status = _call("make_shapes.py", str(arguments.data)) or _call("train.py", str(recipe), *overrides)
    if status:
        return status
    (run,) = set(runs.glob("*")) - before
    pictures = sorted((arguments.data / "val").iterdir())[:SHOWN]
    metrics, drawn = run / "metrics.json", run / "pictures"
    status = _call("eval.py", str(run / "best.pt"), "--data", str(arguments.data))
    status = status or _call("predict.py", str(run / "best.pt"), *map(str, pictures), "-o", str(drawn))
    if status == 0:
        print(f"\nscores:      {metrics}\ndetections:  {drawn}/\noverview:    {run / 'val_predictions.jpg'}")
        print(f"curves:      {run / 'curves.png'}\nfirst batch: {run / 'train_batch.jpg'}")
        ap = json.loads(metrics.read_text(encoding="utf-8"))["AP"]
        print(f"\nmAP on {config.data.val_split} pictures it never saw: {ap:.3f}")
    return status


def _call(tool: str, *words: str) -> int:
    shown = words if len(words) < 8 else (*words[:2], "...", *words[-2:])
    print(f"\n$ python tools/{tool} {' '.join(shown)}", flush=True)
    # In a session of its own a tool hears of Ctrl-C from here only, and once; training takes its time to save then.
    with (
        subprocess.Popen([sys.executable, str(HERE / "tools" / tool), *words], start_new_session=True) as process,
        handling(unignored("SIGINT", "SIGTERM"), lambda number, _: process.send_signal(number)),
    ):
        status = process.wait()
    return EXIT_SIGNAL - status if status < 0 else status

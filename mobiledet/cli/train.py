"""Train a detector, or resume an interrupted run.

    python tools/train.py configs/ssd_mobilenet_a1.py
    python tools/train.py configs/ssd_mobilenet_a1.py data.root=path/to/coco schedule.epochs=2
    python tools/train.py --resume runs/ssd_mobilenet_a1/1

Exit status: 0 trained to the end; 1 something is wrong with the input; 130 or 143 stopped by Ctrl-C or SIGTERM,
saved, ready for --resume.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> int:
    """Parse arguments, train, print the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", help="config file, such as configs/ssd_mobilenet_a1.py")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings to change")
    parser.add_argument("--resume", metavar="RUN", type=Path, help="run folder to resume")
    arguments = parser.parse_intermixed_args()
    words = [word for word in [arguments.config, *arguments.overrides] if word is not None]
    if arguments.resume is None and not words:
        parser.error("name a config file, or --resume a run folder")

    from mobiledet.config import apply_overrides, load_config
    from mobiledet.train.start import resume_run, start_run

    if arguments.resume is not None:
        folder, status = arguments.resume, resume_run(arguments.resume, words)
    else:
        folder, status = start_run(apply_overrides(load_config(words[0]), words[1:]))
    if status == 0:
        print(f"run folder: {folder}")
    return status

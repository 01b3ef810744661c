"""Image classification: make a data set of crops, and score a classifier. Training is that of detectors.

    mobiledet train classify data.root=photos          # a folder of images for each class, or a csv
    tools/classify.py score runs/classify/1 --data photos --split test
    tools/classify.py crops "my detection data" -o crops   # every labelled object, as an image of its class

A classifier runs, exports and teaches as detectors do: it finds one box, around the whole image.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mobiledet.cli.common import Parser, add_reading, existing, fraction, model, print_lines, reading_of, run_and_exit
from mobiledet.errors import need_extra


def main() -> None:
    """Read the arguments, run what they name."""
    parser = Parser(description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="command")
    crops = commands.add_parser("crops", help="cut out the objects of a detection data set")
    crops.add_argument("root", type=existing, help="its folder, in any format that is read")
    crops.add_argument("-o", "--output", type=Path, required=True, help="folder to make")
    crops.add_argument("--margin", type=fraction, default=0.1, help="beyond the box, as a share of it (%(default)s)")
    add_reading(crops)
    crops.set_defaults(run=cut)
    scores = commands.add_parser("score", help="top-1, and average precision of each class")
    scores.add_argument("model", type=model, help="best.pt, a run folder, or an exported file")
    scores.add_argument("--data", type=existing, metavar="ROOT", help="other data than what it was trained with")
    scores.add_argument("--split", default="val", help="split to score (default: val)")
    scores.set_defaults(run=score)
    arguments = parser.parse(sys.argv[1:])
    need_extra("train")
    arguments.run(arguments)


def cut(arguments: argparse.Namespace) -> None:
    """Write the crops."""
    from mobiledet.data.crops import write_crops

    counts = write_crops(arguments.root, arguments.output, margin=arguments.margin, reading=reading_of(arguments))
    print_lines(f"{arguments.output / split}: {number} crops" for split, number in counts.items())


def score(arguments: argparse.Namespace) -> None:
    """Score and print."""
    from mobiledet.data.opening import open_recorded_split, open_split
    from mobiledet.evaluation.scoring import score_model, top_one
    from mobiledet.utils.machine import share_cores
    from mobiledet.utils.settings import ReadingConfig

    share_cores()
    result = score_model(
        arguments.model,
        lambda settings: (
            open_recorded_split(settings, arguments.split)
            if arguments.data is None
            else open_split(arguments.data, arguments.split, reading=ReadingConfig(classes_of="images"))
        ),
    )
    top = top_one(result.results, result.dataset)
    lines = [
        f"{result.metrics.images} images",
        f"top-1 {'-' if top is None else f'{top:.3f}'}",
        f"mean average precision {result.metrics.AP or 0:.3f}",
    ]
    rows = sorted(result.metrics.per_class, key=lambda row: row["name"])
    lines += [f"  {row['name']}: {row['AP']:.3f}, {row['boxes']} images" for row in rows if row["AP"] is not None]
    print_lines(lines)


if __name__ == "__main__":
    run_and_exit(main, extra="train")

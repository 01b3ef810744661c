"""Make a small detection data set of generated shapes, to try training without downloading anything.

    mobiledet make-shapes data/shapes
    mobiledet make-shapes data/shapes --train 2000 --val 200 --size 160x200 --seed 0

The same arguments give the same images; a data set that is there already is used as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mobiledet.cli.common import at_least, image_size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("root", type=Path, help="folder to make, for example data/shapes")
    parser.add_argument("--train", type=at_least(0), default=2000, help="training images (default: %(default)s)")
    parser.add_argument("--val", type=at_least(0), default=200, help="validation images (default: %(default)s)")
    parser.add_argument(
        "--size",
        type=image_size,
        default="160x200",
        metavar="HxW",
        help="height x width they vary around (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other images (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Make the data set and say where it is."""
    from mobiledet.data.shapes import generate_shapes

    root = generate_shapes(
        arguments.root, train=arguments.train, val=arguments.val, size=arguments.size, seed=arguments.seed
    )
    print(f"{root}: {arguments.train} training and {arguments.val} validation images, in COCO's layout")

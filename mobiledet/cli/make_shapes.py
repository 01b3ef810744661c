"""Make a small detection data set of generated shapes, to try training without downloading anything.

    python tools/make_shapes.py data/shapes --train 2000 --val 200 --size 160x200 --seed 0

The same arguments give the same images; a data set that is there already is used as it is.
"""

from __future__ import annotations

import argparse
from pathlib import Path


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.partition("x")
    try:
        return int(height), int(width)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH, for example 160x200") from None


def main() -> None:
    """Read the arguments, make the data set and say where it is."""
    parser = argparse.ArgumentParser(description="Make a detection data set of generated shapes, in COCO's format.")
    parser.add_argument("root", type=Path, help="folder to make, for example data/shapes")
    parser.add_argument("--train", type=int, default=2000, help="training images (default: %(default)s)")
    parser.add_argument("--val", type=int, default=200, help="validation images (default: %(default)s)")
    parser.add_argument(
        "--size", type=_size, default="160x200", metavar="HxW", help="height x width they vary around (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, other images (default: %(default)s)")
    args = parser.parse_args()

    from mobiledet.data.shapes import generate_shapes

    root = generate_shapes(args.root, train=args.train, val=args.val, size=args.size, seed=args.seed)
    print(f"{root}: {args.train} training and {args.val} validation images, annotations in {root / 'annotations'}")

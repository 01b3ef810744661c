"""Write a data set in Pascal VOC, YOLO or unusual COCO format as a COCO folder that training reads.

    python tools/convert_dataset.py path/to/voc_or_yolo_or_odd_coco -o path/to/coco

Prints what was dropped, repaired and noted; all of it is in conversion.json in the output. Exit status 0 when the
result can be trained on, 1 with one line when not.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from mobiledet.cli.common import data_format


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a fraction between 0 and 1; give 0.15, say, or 0 for no validation split"
        )
    return share


def main() -> None:
    """Read the arguments, read the data set, write it, tell what happened."""
    parser = argparse.ArgumentParser(
        description="Convert a data set in Pascal VOC, YOLO or any COCO layout to the COCO layout that training reads."
    )
    parser.add_argument("root", type=Path, help="its folder; or the one data.yaml or COCO json to go by")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--format", type=data_format, help="format of the data, such as yolo (default: recognised)")
    parser.add_argument(
        "--val-share", type=_share, default=0.15, help="held out for validation if there is no such split (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another choice (default: %(default)s)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--copy", dest="mode", action="store_const", const="copy", help="copy the images (default)")
    mode.add_argument("--link", dest="mode", action="store_const", const="link", help="make hard links where possible")
    args = parser.parse_args()

    from mobiledet.data.formats.choose import read_dataset
    from mobiledet.data.formats.write import RECORD, check_output, write_coco

    check_output(args.output, args.root)
    imported = read_dataset(args.root, format=args.format, progress=True)
    for line in imported.log.lines():
        print(line)
    splits = write_coco(imported, args.output, mode=args.mode or "copy", val_share=args.val_share, seed=args.seed)
    names = next(iter(splits.values())).names
    shown = ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
    print(f"{imported.root}: {imported.format}, {len(names)} classes: {shown}")
    for split, dataset in splits.items():
        held = "" if split in imported.splits and "val" in imported.splits else _held(split, imported.splits)
        print(f"{split}: {len(dataset)} images, {len(dataset.labels())} boxes{held}")
    print(f"{args.output}: written; every finding is in {args.output / RECORD}")


def _held(split: str, read: Mapping[str, object]) -> str:
    return "" if split in read else " (held out of train)"

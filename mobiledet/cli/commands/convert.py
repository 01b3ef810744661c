"""Write a data set in Pascal VOC, YOLO or unusual COCO format as a COCO folder that training reads.

    mobiledet convert path/to/voc_or_yolo_or_odd_coco -o path/to/coco
    mobiledet convert labels/data.yaml -o path/to/coco --link --val-share 0.2
    mobiledet convert path/to/dataset -o crops --crops        # each object as an image of its class, for classification

Prints what was dropped, repaired and noted; all of it is in conversion.json in the output. Exit status 0 when the
result can be trained on, 1 with one line when not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mobiledet.cli.common import UsageError, add_reading, data_format, existing, fraction, reading_of
from mobiledet.utils.text import count, listing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("root", type=existing, help="its folder; or the one data.yaml or COCO json to go by")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to make")
    parser.add_argument("--format", type=data_format, help="format of the data, such as yolo (default: recognised)")
    add_reading(parser)
    parser.add_argument(
        "--val-share",
        type=fraction,
        default=0.15,
        help="held out for validation if there is no such split (%(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="another seed, another choice (default: %(default)s)")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--copy", dest="mode", action="store_const", const="copy", help="copy the images (default)")
    mode.add_argument("--link", dest="mode", action="store_const", const="link", help="make hard links where possible")
    mode.add_argument(
        "--crops", dest="mode", action="store_const", const="crops", help="cut out the objects, into folders by class"
    )


def run(arguments: argparse.Namespace) -> None:
    """Read the data set, write it, say what happened."""
    if arguments.val_share == 1:
        raise UsageError("--val-share 1 leaves nothing to train on")
    from mobiledet.data.formats.choose import read_dataset, recognise
    from mobiledet.data.formats.write import RECORD, check_output, write_coco

    found = recognise(arguments.root, arguments.format, reading_of(arguments))
    check_output(arguments.output, found.tree.root)
    imported = read_dataset(found, progress=True)
    for line in imported.log.lines():
        print(line)
    if arguments.mode == "crops":
        from mobiledet.data.crops import write_crops

        for split, number in write_crops(imported, arguments.output).items():
            print(f"{arguments.output / split}: {count(number, 'crop')}")
        return
    splits = write_coco(
        imported, arguments.output, mode=arguments.mode or "copy", val_share=arguments.val_share, seed=arguments.seed
    )
    names = next(iter(splits.values())).names
    print(f"{imported.root}: {imported.format}, {len(names)} classes: {listing(names, 20)}")
    for split, dataset in splits.items():
        held = "" if split in imported.splits else " (held out of train)"
        print(f"{split}: {len(dataset)} images, {len(dataset.labels())} boxes{held}")
    print(f"{arguments.output}: written; every finding is in {arguments.output / RECORD}")

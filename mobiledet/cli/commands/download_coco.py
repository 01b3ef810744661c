"""Fetch COCO 2017 (train 118,287 and val 5,000 images, 20 GB) into the layout that training reads.

    mobiledet download-coco data/coco               # both splits: 40 GB while unpacking, 20 GB after it
    mobiledet download-coco data/coco --split val   # enough for scoring: 2 GB, then 1 GB

Everything is checked: checksums of the archives, of each image, and that no image is missing. Interrupted, it continues
where it was; run again on a complete folder it does nothing. What else lies in the folder is left alone.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

BOTH = ("val", "train")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("root", type=Path, help="folder to put it in, for example data/coco")
    parser.add_argument("--split", choices=("train", "val", "both"), default="both", help="(default: %(default)s)")
    parser.add_argument(
        "--base-url", metavar="URL", help="a mirror of http://images.cocodataset.org; its files must be the same"
    )
    parser.add_argument(
        "--keep-archives", action="store_true", help="don't delete the zip files (those you put there are always kept)"
    )


def run(arguments: argparse.Namespace) -> None:
    """Fetch what is missing and say what to do with it."""
    from mobiledet.download.coco import COCO_2017, download_coco

    release = COCO_2017
    if arguments.base_url:
        release = release.at(arguments.base_url)
    splits = BOTH if arguments.split == "both" else (arguments.split,)
    changed = download_coco(arguments.root, splits, release=release, keep_archives=arguments.keep_archives)

    counts = " and ".join(f"{split.count} {split.name}" for split in release.splits if split.name in splits)
    state = "complete" if changed else "complete already, nothing to do"
    root = shlex.quote(str(arguments.root))
    command = f"mobiledet train ssd_mobilenet_a1 data.root={root}"
    if "train" not in splits:
        command = f"mobiledet eval runs/ssd_mobilenet_a1/1/best.pt --data {root}"
    print(f"{arguments.root}: {counts} images, {state}; next: {command}")

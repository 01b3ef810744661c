"""Fetch COCO 2017 (train 118,287 and val 5,000 images, 20 GB) into the layout that training reads.

    python tools/download_coco.py data/coco               # both splits: 40 GB while unpacking, 20 GB after it
    python tools/download_coco.py data/coco --split val   # enough for scoring: 2 GB, then 1 GB

Everything is checked: checksums of the archives, of each image, and that no image is missing. Interrupted, it continues
where it was; run again on a complete folder it does nothing. What else lies in the folder is left alone.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

BOTH = ("val", "train")


def main() -> None:
    """Read the arguments, fetch what is missing and say what to do with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder to put it in, for example data/coco")
    parser.add_argument("--split", choices=("train", "val", "both"), default="both", help="(default: %(default)s)")
    parser.add_argument(
        "--base-url", metavar="URL", help="a mirror of http://images.cocodataset.org; its files must be the same"
    )
    parser.add_argument(
        "--keep-archives", action="store_true", help="don't delete the zip files (those you put there are always kept)"
    )
    args = parser.parse_args()

    from mobiledet.download.coco import COCO_2017, download_coco

    release = COCO_2017
    if args.base_url:
        release = release.at(args.base_url)
    splits = BOTH if args.split == "both" else (args.split,)
    changed = download_coco(args.root, splits, release=release, keep_archives=args.keep_archives)

    counts = " and ".join(f"{split.count} {split.name}" for split in release.splits if split.name in splits)
    state = "complete" if changed else "complete already, nothing to do"
    root = shlex.quote(str(args.root))
    command = f"python tools/train.py configs/ssd_mobilenet_a1.py data.root={root}"
    if "train" not in splits:
        command = f"python tools/eval.py runs/ssd_mobilenet_a1/1/best.pt --data {root}"
    print(f"{args.root}: {counts} images, {state}; next: {command}")

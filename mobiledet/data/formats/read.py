"""Reading a data set in Pascal VOC, YOLO or COCO format, however it is laid out.

    imported = read_dataset(Path("chess"))
    imported.splits["train"], imported.account.lines()

The result is what `mobiledet.data.coco.load_coco` gives for a clean COCO folder, with the pictures where they are.
What the checks of `mobiledet.data.checks` would refuse is dropped here, picture by picture and box by box, and taken
down in the account.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobiledet.data.coco import CocoDataset
from mobiledet.data.formats.assemble import assemble
from mobiledet.data.formats.base import Account, Format
from mobiledet.data.formats.choose import FORMATS, detect_in
from mobiledet.data.formats.coco import read_coco
from mobiledet.data.formats.tree import Tree, there
from mobiledet.data.formats.voc import read_voc
from mobiledet.data.formats.yolo import read_yolo
from mobiledet.data.holdout import hold_out
from mobiledet.errors import DataError

__all__ = ["Account", "ImportedDataset", "hold_out", "read_dataset"]

_FILES: dict[str, Format] = {".yaml": "yolo", ".yml": "yolo", ".json": "coco"}


@dataclass(frozen=True)
class ImportedDataset:
    """A data set that was read.

    Attributes:
        format: "voc", "yolo" or "coco".
        root: its folder.
        splits: "train", "val", "test", those that there are -> the data. All have the same categories.
        account: what was dropped, repaired and noted.
    """

    format: str
    root: Path
    splits: dict[str, CocoDataset]
    account: Account


def read_dataset(
    root: Path,
    *,
    format: Literal["voc", "yolo", "coco"] | None = None,
    check_images: bool = True,
    progress: bool = False,
) -> ImportedDataset:
    """Read a data set where it lies.

    Args:
        root: its folder; or the one yaml of a YOLO, the one json of a COCO data set.
        format: the format; found out when None.
        check_images: decode every picture now, once; broken ones are dropped. Otherwise they are met in training.
        progress: show a bar on a terminal while decoding.

    Raises:
        DataError: it isn't there, its format can't be told, or nothing usable is left of it.
    """
    root = Path(os.path.expanduser(root))  # noqa: PTH111 -- Path.expanduser raises where there is no home
    if format is not None and format not in FORMATS:
        raise DataError(f"format {format!r} isn't known; there are {', '.join(FORMATS)}")
    only = None
    if there(root) and root.is_file():
        of_file = _FILES.get(root.suffix.lower())
        if of_file is None or (format is not None and format != of_file):
            raise DataError(f"{root} is no {format or 'YOLO yaml or COCO json'}; name the data set's folder")
        format, file = of_file, root.absolute()
        # COCO's own layout has the pictures beside the folder of the annotations.
        root = file.parent.parent if file.parent.name == "annotations" else file.parent
        only = file.relative_to(root).as_posix()
    tree = Tree(root)
    format = format or detect_in(tree)
    account = Account()
    if format == "voc":
        source = read_voc(tree, account)
    elif format == "yolo":
        source = read_yolo(tree, account, only)
    else:
        source = read_coco(tree, account, only)
    splits = assemble(source, root, account, check_images=check_images, progress=progress)
    return ImportedDataset(format, root, splits, account)

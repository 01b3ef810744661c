"""The folder that a data set begins at, where a part of it was named, such as ``train`` or ``train/images``."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

from mobiledet.data.coco import split_names
from mobiledet.data.formats.tree import split_name, there
from mobiledet.data.formats.yolo_names import NAME_FILES
from mobiledet.data.formats.yolo_yaml import SUFFIXES, names_classes
from mobiledet.errors import DataError

logger = logging.getLogger(__name__)

_IMAGES = frozenset({"images", "image", "imgs", "img", "pictures", "photos", "jpegimages"})
_LABELS = frozenset({"labels", "label", "annotations", "annotation", "xml", "xmls"})
_PARTS = _IMAGES | _LABELS | {"imagesets", "main"}
_LEVELS = 3
"""How far up a data set begins at most: ``ImageSets/Main/train``."""


def find_root(named: Path, splits: Collection[str | None] = ()) -> Path:
    """The data set's folder, where a part of it was named; else what was named.

    A part is a folder called like a split, or like images or labels, or a file in one; and a folder above it has what
    a data set begins with: a yaml with class names, COCO's layout, other splits, or images beside labels.

    Args:
        named: What the user named; a ``~`` at its beginning is the home folder.
        splits: Those wanted; a part of another one is refused. None or empty: any.

    Raises:
        DataError: The part belongs to another split than those wanted.
    """
    named = Path(os.path.expanduser(named))  # noqa: PTH111 -- Path.expanduser raises where there is no home
    if not there(named):
        return named
    folder, split = Path(os.path.abspath(named)), None  # noqa: PTH100 -- without following links
    if folder.is_file():
        if folder.suffix.lower() in SUFFIXES:  # says itself where everything is
            return named
        split, folder = split_name(folder.stem, loose=True), folder.parent
    elif _begins_a_data_set(folder):
        return named
    root = None
    for _ in range(_LEVELS):
        own = split_name(folder.name)
        if own is None and folder.name.casefold() not in _PARTS:
            break
        split, folder = split or own, folder.parent
        if _begins_a_data_set(folder):
            root = folder
            break
        if _holds_parts(folder):
            root = folder
    if root is None:
        return named
    wanted = {split_name(name) or name for name in splits if name is not None}
    if split is not None and wanted and split not in wanted:
        raise DataError(
            f"{named} is the split {split!r} of the data set {root}, and {' and '.join(sorted(wanted))} is asked for; "
            f"name the folder {root}, and the split {split!r} if it is meant"
        )
    logger.info("%s is a part of the data set %s, which is taken", named, root)
    return root


def _begins_a_data_set(folder: Path) -> bool:
    """Whether a folder has a file by which only the beginning of a data set can be meant."""
    names = _listed(folder)
    yamls = (folder / name for name in names if Path(name).suffix.lower() in SUFFIXES)
    return bool(split_names(folder)) or any(name in names for name in NAME_FILES) or any(map(names_classes, yamls))


def _holds_parts(folder: Path) -> bool:
    """Whether a folder holds several splits, or images beside labels."""
    names = {name.casefold() for name in _listed(folder) if (folder / name).is_dir()}
    splits = {split_name(name) for name in names} - {None}
    return len(splits) > 1 or bool(names & _IMAGES and names & _LABELS)


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)  # noqa: PTH208 -- names are enough
    except OSError:
        return []

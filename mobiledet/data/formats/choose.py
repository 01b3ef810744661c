"""Reading a data set in any of the formats, however it is laid out.

    imported = read_dataset(Path("chess"))
    imported.splits["train"], imported.log.lines()

The result is what `mobiledet.data.coco.load_coco` gives for a clean COCO folder, with the images where they are.
What the checks of `mobiledet.data.checks` would refuse is dropped here, image by image and box by box, and recorded.
"""

from __future__ import annotations

import os
from copy import copy
from dataclasses import dataclass
from pathlib import Path

from mobiledet.data.checks import collector_paused
from mobiledet.data.coco import CocoDataset
from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.assemble import assemble
from mobiledet.data.formats.base import Format, head
from mobiledet.data.formats.coco import COCO
from mobiledet.data.formats.labelling_tools import CVAT, VIA, CreateML, LabelMe, LabelStudio
from mobiledet.data.formats.root import find_root
from mobiledet.data.formats.tables import Headerless, OpenImages
from mobiledet.data.formats.tree import Tree, suffix, there
from mobiledet.data.formats.voc import VOC
from mobiledet.data.formats.whole_images import WholeImages
from mobiledet.data.formats.yolo import YOLO
from mobiledet.data.image_headers import UNREAD_EXTENSIONS
from mobiledet.errors import DataError
from mobiledet.utils.settings import ReadingConfig

FORMATS: tuple[Format, ...] = (
    VOC(), YOLO(), COCO(), LabelMe(), CVAT(), LabelStudio(), VIA(), CreateML(), Headerless(), OpenImages()
)  # fmt: skip
"""Every format. Another one is added here."""

_UNREAD = (
    ("TFRecord", (".tfrecord", ".tfrec", ".record"), b"", "write Pascal VOC or COCO from what they were made of"),
    ("Parquet", (".parquet", ".arrow"), b"", "load them with the package datasets, and write COCO"),
    ("Supervisely's", (".json",), b'"classTitle"', "export COCO there"),
    ("VGG Image Annotator 3's", (".json",), b'"vid_list"', "export COCO there"),
    ("Labelbox's", (".json", ".ndjson", ".jsonl"), b'"data_row"', "export COCO there"),
    ("SageMaker's", (".manifest", ".jsonl"), b'"source-ref"', "convert them to COCO"),
    ("V7 Darwin's", (".json",), b'"bounding_box"', "export COCO there"),
    ("BDD100K's", (".json",), b'"box2d"', "convert them to COCO with its toolkit"),
    ("Datumaro's", (".json",), b'"label_categories"', "convert them: datum convert -f coco"),
    ("Cityscapes'", (".json",), b'"imgHeight"', "convert them to COCO with its scripts"),
    ("CVAT's for video", (".xml",), b"<track ", "export the task as CVAT for images"),
    ("MATLAB's", (".mat",), b"", "convert them to COCO"),
)
"""Formats that aren't read: whose files, their endings, what their beginning holds, and what to do."""


@dataclass(frozen=True)
class Recognised:
    """A folder whose format is known.

    Attributes:
        format: what it is in.
        tree: its files.
        only: the file that was named instead of the folder, if one was.
    """

    format: Format
    tree: Tree
    only: str | None = None


@dataclass(frozen=True)
class ImportedDataset:
    """A data set that was read.

    Attributes:
        format: name of the format, such as "voc".
        root: its folder.
        splits: "train", "val", "test", those that there are -> the data. All have the same categories.
        log: what was dropped, repaired and noted.
    """

    format: str
    root: Path
    splits: dict[str, CocoDataset]
    log: ImportLog


def format_names() -> list[str]:
    """What users can call the formats."""
    return [member.name for member in FORMATS]


def recognise(root: Path, format: str | None = None, reading: ReadingConfig | None = None) -> Recognised:
    """Which format a folder is in, recognised once: `read_dataset` takes what this gives.

    Args:
        root: the folder, or a part of it such as ``train``, see `find_root`; or the one file of it that names the
            rest, such as a YOLO yaml or a COCO json.
        format: name of the format, where that is known.
        reading: what was decided about its labels.

    Raises:
        DataError: it isn't there, or in none of the formats, or in more than one; says what was looked for and found.
    """
    root = Path(os.path.expanduser(root))  # noqa: PTH111 -- Path.expanduser raises where there is no home
    if format is not None and format not in format_names():
        raise DataError(f"format {format!r} isn't known; there are {', '.join(format_names())}")
    if reading is not None and reading.classes_of == "images":
        only = root.name if there(root) and root.is_file() else None
        return Recognised(WholeImages(), Tree(root.parent if only else root, reading), only)
    if there(root) and root.is_file():
        return _of_file(root, format, reading)
    tree = Tree(find_root(root), reading)
    if format is not None:
        return Recognised(next(member for member in FORMATS if member.name == format), tree)
    found = [(member, evidence) for member in FORMATS if (evidence := member.recognises(tree))]
    if not found:
        looked_for = "; ".join(f"{member.looked_for} ({member.name})" for member in FORMATS)
        raise DataError(
            f"{root} is not a data set that can be read: looked for {looked_for}; there is {_listing(tree)}"
        )
    strongest = max(evidence.strength for _, evidence in found)
    found = [(member, evidence) for member, evidence in found if evidence.strength == strongest]
    if len(found) > 1:
        shown = ", ".join(f"{member.name} ({evidence.file})" for member, evidence in found)
        raise DataError(
            f"{root} can be read as {' and as '.join(member.name for member, _ in found)}: there is {shown}; "
            "name the format (--format), or a folder with one of them alone"
        )
    return Recognised(found[0][0], tree)


def read_dataset(
    source: Path | Recognised,
    *,
    format: str | None = None,
    reading: ReadingConfig | None = None,
    progress: bool = False,
) -> ImportedDataset:
    """Read a data set where it lies.

    Args:
        source: its folder, a file that names the rest of it, or what `recognise` gave for either.
        format: name of the format; recognised when None.
        reading: what was decided about its labels; for `recognise`, where that wasn't called.
        progress: show a bar on a terminal while every image is decoded.

    Raises:
        DataError: it isn't there, its format can't be recognised, or nothing usable is left of it; with
            ``reading.strict``, anything that can't be used.
    """
    found = source if isinstance(source, Recognised) else recognise(source, format, reading)
    log = ImportLog()
    for file in found.tree.with_suffix(*UNREAD_EXTENSIONS):
        log.add(Fault.IMAGE_KIND, file)
    for special in found.tree.special:
        log.add(Fault.LEFT_ASIDE, special, "neither a file nor a folder")
    strict = bool(found.tree.reading.strict)
    try:
        with collector_paused():  # until what was read is no more than arrays
            splits = assemble(found.format.read(found.tree, log, found.only), found.tree, log, progress=progress)
    except DataError:
        log.raise_if_refused(str(found.tree.root), strict)  # which says more
        raise
    log.raise_if_refused(str(found.tree.root), strict)
    return ImportedDataset(found.format.name, found.tree.root, splits, log)


def _of_file(file: Path, format: str | None, reading: ReadingConfig | None) -> Recognised:
    """A data set of which one file was named."""
    members = [member for member in FORMATS if suffix(file.name) in member.single_files]
    if format is not None:
        members = [member for member in members if member.name == format]
    if not members:
        kinds = [
            f"a {member.name} file ({', '.join(member.single_files)})" for member in FORMATS if member.single_files
        ]
        raise DataError(f"{file} is not {' or '.join(kinds)}; name the data set's folder")
    file = file.absolute()
    # COCO's own layout has the images beside the folder of the annotations.
    root = file.parent.parent if file.parent.name == "annotations" else file.parent
    tree, only = Tree(root, reading), file.relative_to(root).as_posix()
    if len(members) > 1:
        alone = copy(tree)
        alone.files = [only]
        members = [member for member in members if member.recognises(alone)]
    if not members:
        raise DataError(f"{file} is in none of the formats that are read{_unread(tree)}; name the data set's folder")
    return Recognised(members[0], tree, only)


def _listing(tree: Tree) -> str:
    if not tree.files:
        return "nothing"
    counts: dict[str, int] = {}
    for file in tree.files:
        counts[suffix(file) or "(no ending)"] = counts.get(suffix(file) or "(no ending)", 0) + 1
    most = sorted(counts.items(), key=lambda item: -item[1])[:6]
    text = ", ".join(f"{n} {ending}" for ending, n in most)
    return text + _unread(tree)


def _unread(tree: Tree) -> str:
    """What files of a known format that isn't read are, and what to do; empty where there are none."""
    for whose, endings, mark, remedy in _UNREAD:
        file = next(iter(tree.with_suffix(*endings)), None)
        if file is not None and mark in head(tree.root / file, 1 << 16):
            return f"; the {suffix(file)} files are {whose}: {remedy}"
    return ""

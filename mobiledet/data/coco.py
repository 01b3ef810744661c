"""COCO annotation files as data sets in memory: images by path, boxes in flat arrays.

Images are read when they are needed, by `CocoDataset.read`. COCO's category ids, with their gaps, stay in here:
a label ``k`` in ``1..K`` is ``categories[k - 1]``.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.data.checks import CocoColumns, check_coco, collector_paused, read_json
from mobiledet.data.faults import CheckReport
from mobiledet.data.images import read_image
from mobiledet.errors import DataError
from mobiledet.structures import ImageArray, IntArray, Target
from mobiledet.utils.files import file_digest
from mobiledet.utils.settings import ReadingConfig
from mobiledet.utils.text import count, did_you_mean, listing

SAMPLED_IMAGES = 500
"""Images whose content is compared when a run is resumed; of the others the size of the file is."""

OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


@dataclass(frozen=True)
class Category:
    """A class of objects under its COCO id."""

    id: int
    name: str


@dataclass(frozen=True)
class ImageRecord:
    """One image and what is to be found in it.

    Attributes:
        image_id: its COCO id.
        path: its file.
        height: rows of the image, read as said by ``apply_orientation``.
        width: columns, likewise.
        target: boxes in the pixels of that image. Crowds and objects marked ``ignore`` have ``iscrowd`` set.
        apply_orientation: whether to turn the image upright by its EXIF data when reading it: boxes were drawn on
            one or the other (see `mobiledet.data.checks`).
    """

    image_id: int
    path: Path
    height: int
    width: int
    target: Target
    apply_orientation: bool


class CocoDataset:
    """A checked split of a COCO data set; make one with `load_coco`, or `read_dataset` for other formats.

    Attributes:
        categories: K classes by ascending id; label ``k`` is ``categories[k - 1]``.
        annotation_file: where it was read from.
        image_dir: the folder that file names are relative to.
        report: what the checks found and repaired.
    """

    def __init__(
        self,
        columns: CocoColumns,
        *,
        annotation_file: Path,
        image_dir: Path,
        report: CheckReport,
        reader: Callable[[str], ImageArray] | None = None,
    ) -> None:
        self.categories = tuple(
            Category(int(id_), name) for id_, name in zip(columns.category_ids, columns.names, strict=True)
        )
        self.annotation_file = annotation_file
        self.image_dir = image_dir
        self.report = report
        self._columns = columns
        self._reader = reader  # gives an image by its file name, where it isn't a file

    @property
    def names(self) -> tuple[str, ...]:
        """K class names; ``names[label - 1]`` is the name of a label."""
        return self._columns.names

    @property
    def num_classes(self) -> int:
        """K, the number of object classes without background."""
        return len(self.categories)

    def __len__(self) -> int:
        return len(self._columns.image_ids)

    def image_id(self, index: int) -> int:
        """COCO id of the image at ``index``."""
        return int(self._columns.image_ids[index])

    def file_name(self, index: int) -> str:
        """File name of the image at ``index``, relative to ``image_dir``."""
        return self._columns.file_names[index]

    def labels(self, index: int | None = None) -> IntArray:
        """``(M,)`` labels of the boxes of the image at ``index``, or of all; crowds and ignored boxes included."""
        rows = slice(None)
        if index is not None:
            index = range(len(self))[index]
            rows = slice(*self._columns.offsets[index : index + 2].tolist())
        found: IntArray = self._columns.labels[rows].copy()
        return found

    def objects(self) -> IntArray:
        """``(M,)`` labels of the boxes that are to be found: without crowds and ignored ones."""
        found: IntArray = self._columns.labels[~(self._columns.iscrowd | self._columns.ignore)]
        return found

    def __getitem__(self, index: int) -> ImageRecord:
        """The image at ``index``; not read, only described."""
        columns = self._columns
        index = range(len(self))[index]  # refuses what is out of range, counts negatives from the end
        height, width = map(int, columns.sizes[index])
        path = self.image_dir / columns.file_names[index]
        rows = slice(columns.offsets[index], columns.offsets[index + 1])
        boxes = columns.boxes_xywh[rows].copy()
        boxes[:, 2:] += boxes[:, :2]
        target = Target(
            np.clip(boxes, 0, (width, height, width, height)).astype(np.float32),
            columns.labels[rows].copy(),
            columns.iscrowd[rows] | columns.ignore[rows],
        )
        upright = bool(columns.upright[index])
        return ImageRecord(self.image_id(index), path, height, width, target, apply_orientation=upright)

    def read(self, index: int) -> ImageArray:
        """The image at ``index``, ``(height, width, 3)`` uint8 RGB.

        Raises:
            ImageError: it can't be read any more.
        """
        if self._reader is not None:
            return self._reader(self.file_name(index))
        return read_image(self.image_dir / self.file_name(index), apply_orientation=bool(self._columns.upright[index]))

    def first(self, count: int) -> CocoDataset:
        """The first ``count`` images alone, in the file's order, with all classes; for trying things out."""
        return self.subset(range(len(self))[:count])

    def subset(self, indices: Sequence[int]) -> CocoDataset:
        """Some images alone, in the order given, with all classes and their ids; name each at most once."""
        rows = np.array([range(len(self))[index] for index in indices], np.int64)
        return CocoDataset(
            self._columns.take(rows),
            annotation_file=self.annotation_file,
            image_dir=self.image_dir,
            report=self.report,
            reader=self._reader,
        )

    def describe(self, name: str) -> str:
        """A line for the log: how much there is under that name, and of how many images where these are only some."""
        whole = self.report.images
        images = f"{len(self):,} of {whole:,} images" if len(self) < whole else count(whole, "image")
        boxes, classes = count(len(self.labels()), "box", "boxes"), count(self.num_classes, "class", "classes")
        return f"{name}: {images}, {boxes}, {classes} ({self.annotation_file})"

    def fingerprint(self) -> str:
        """SHA-256 over everything training depends on but the pixels: the same data, the same fingerprint."""
        columns = self._columns
        text = [[[c.id, c.name] for c in self.categories], columns.file_names]
        digest = hashlib.sha256(json.dumps(text).encode())
        flags = columns.iscrowd + 2 * columns.ignore
        for array in (columns.image_ids, columns.sizes, columns.offsets, columns.labels, flags):
            digest.update(np.ascontiguousarray(array, "<i8").tobytes())
        digest.update(np.ascontiguousarray(columns.boxes_xywh, "<f8").tobytes())
        return digest.hexdigest()

    def image_fingerprint(self) -> str | None:
        """SHA-256 over the sizes of all image files and the content of some; None where images aren't files.

        Raises:
            DataError: An image can't be read.
        """
        if self._reader is not None:
            return None
        digest, step = hashlib.sha256(), -(-len(self) // SAMPLED_IMAGES)
        for index, name in enumerate(self._columns.file_names):
            path = self.image_dir / name
            try:
                content = file_digest(path) if index % step == 0 else ""
                digest.update(f"{path.stat().st_size} {content}\n".encode())
            except OSError as error:
                raise DataError(f"{path}: can't be read: {error.strerror}") from None
        return digest.hexdigest()

    def coco_json(self) -> dict[str, Any]:
        """The ground truth as a COCO dict, repairs included, under the original ids; fit for pycocotools."""
        columns = self._columns
        image_row = np.repeat(np.arange(len(self)), np.diff(columns.offsets))
        annotations = zip(
            columns.annotation_ids.tolist(),
            columns.image_ids[image_row].tolist(),
            columns.category_ids[columns.labels - 1].tolist(),
            columns.boxes_xywh.tolist(),
            columns.areas.tolist(),
            columns.iscrowd.astype(int).tolist(),
            columns.ignore.astype(int).tolist(),
            strict=True,
        )
        keys = ("id", "image_id", "category_id", "bbox", "area", "iscrowd", "ignore")
        images = zip(columns.image_ids.tolist(), columns.file_names, columns.sizes.tolist(), strict=True)
        with collector_paused():
            return {
                "info": {"description": f"{self.annotation_file.name} as checked and repaired by mobiledet"},
                "images": [{"id": i, "file_name": name, "height": h, "width": w} for i, name, (h, w) in images],
                "annotations": [dict(zip(keys, values, strict=True)) for values in annotations],
                "categories": [{"id": c.id, "name": c.name} for c in self.categories],
            }


def load_coco(
    root: Path | None,
    split: str,
    *,
    annotations: str | Path | None = None,
    images: str | Path | None = None,
    progress: bool = False,
    require_boxes: bool = False,
    reading: ReadingConfig | None = None,
) -> CocoDataset:
    """Read a split and check it by the rules of `mobiledet.data.checks`; its ``report`` says what was repaired.

    Args:
        root: folder in COCO layout; may be None when ``annotations`` and ``images`` are given.
        split: name of the split, "train" for instance; unused when ``annotations`` and ``images`` are given.
        annotations: the annotation file, instead of the one in the layout; relative to ``root`` if it exists there,
            else to the working directory.
        images: the folder of images, likewise.
        progress: show a progress bar on a terminal.
        require_boxes: refuse a split without a single box.
        reading: what was decided about the labels.

    Raises:
        DataError: something isn't there, or has faults that aren't repaired; lists all of them.
    """
    annotation_file = _explicit(annotations, root, "annotation file") if annotations else None
    image_dir = _explicit(images, root, "folder of images") if images else None
    if annotation_file is None or image_dir is None:
        if root is None:
            raise DataError("no data set named; give its root, or an annotation file and a folder of images")
        annotation_file = annotation_file or _find_annotations(root, split)
        image_dir = image_dir or _find_images(root, split, annotation_file)
    if not image_dir.is_dir():
        raise DataError(f"{image_dir} is not a folder; name the folder that holds the images")
    report = CheckReport(annotation_file.name)
    with collector_paused():  # until the json's millions of objects are gone again
        columns = check_coco(
            read_json(annotation_file),
            image_dir,
            report,
            require_boxes=require_boxes,
            progress=progress,
            reading=reading,
        )
    report.raise_if_errors()
    if not len(columns.image_ids):
        raise DataError(f"{annotation_file}: {report.summary()}; no image is left")
    return CocoDataset(columns, annotation_file=annotation_file, image_dir=image_dir, report=report)


def locate_split(root: Path, split: str) -> tuple[Path, Path]:
    """Where a split lies in a folder of COCO's, Roboflow's or a similar layout.

    Annotations are looked for as ``annotations/instances_<split>2017.json`` (2017 first, then without a year, then
    the latest year), ``annotations/<split>.json`` (likewise) and ``<split>/_annotations.coco.json``; images in
    ``<split>2017/``, ``<split>/``, ``images/<split>2017/``, ``images/<split>/`` and ``images/``. For "val", "valid"
    is looked for as well.

    Returns:
        The annotation file and the folder of images.

    Raises:
        DataError: one of them isn't there; says what was looked for and which splits there are.
    """
    annotation_file = _find_annotations(root, split)
    return annotation_file, _find_images(root, split, annotation_file)


def split_names(root: Path) -> list[str]:
    """Splits that a folder in one of these layouts has, with their years."""
    return sorted(_splits(root))


def _explicit(path: str | Path, root: Path | None, what: str) -> Path:
    path = Path(path).expanduser()
    tried = [root / path, path] if root is not None and not path.is_absolute() else [path]
    for candidate in tried:
        if candidate.exists():
            return candidate
    raise DataError(f"{what} {path} doesn't exist; looked for {' and '.join(map(str, tried))}; correct the path")


def _aliases(split: str) -> tuple[str, ...]:
    return ("val", "valid") if split == "val" else (split,)


def _find_annotations(root: Path, split: str) -> Path:
    if not root.is_dir():
        raise DataError(f"{root} is not a folder; name the folder that holds annotations/ and the images")
    present = _splits(root)
    for name in _aliases(split):
        years = sorted((key for key in present if re.fullmatch(re.escape(name) + r"\d{4}", key)), reverse=True)
        for key in (f"{name}2017", name, *years):
            if key in present:
                return present[key]
    known = sorted({re.sub(r"(?<=[a-z])\d{4}$", "", key) for key in present})
    guess = did_you_mean(split, known)
    there = f"there is only {_listing(root)}" if any(root.iterdir()) else "the folder is empty"
    if known:
        there = f"there is {', '.join(map(repr, known))}"
    raise DataError(
        f"{root} has no annotations for split {split!r}: looked for annotations/instances_{split}2017.json, "
        f"annotations/instances_{split}.json, annotations/{split}.json and {split}/_annotations.coco.json; "
        f"{there}{guess and '; ' + guess}"
    )


def _splits(root: Path) -> dict[str, Path]:
    """Name of each split, with its year if it carries one -> annotation file."""
    found = {file.parent.name: file for file in sorted(root.glob("*/_annotations.coco.json"))}
    files = [f for f in sorted(root.glob("annotations/*.json")) if not f.name.startswith(OTHER_TASKS)]
    instances = [file for file in files if file.name.startswith("instances_")]
    found |= {file.stem: file for file in files if file not in instances}
    return found | {file.stem.removeprefix("instances_"): file for file in instances}


def _find_images(root: Path, split: str, annotation_file: Path) -> Path:
    stem = annotation_file.stem.removeprefix("instances_")
    names = dict.fromkeys([stem, f"{split}2017", *_aliases(split)])
    candidates = [*(root / name for name in names), *(root / "images" / name for name in names), root / "images"]
    if annotation_file.name == "_annotations.coco.json":
        candidates.insert(0, annotation_file.parent)
    for folder in candidates:
        if folder.is_dir():
            return folder
    looked = ", ".join(f"{folder.relative_to(root)}/" for folder in candidates if folder.is_relative_to(root))
    raise DataError(
        f"{root} has no images for split {split!r}: looked for {looked}; there is {_listing(root)}; "
        "name the folder that holds the images"
    )


def _listing(root: Path) -> str:
    return listing(sorted(entry.name + "/" * entry.is_dir() for entry in root.iterdir()), 12)

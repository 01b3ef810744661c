"""Every fault of a COCO file, found before the first step and reported together.

What can be put right without guessing is repaired and counted; what would train on the wrong thing is refused.

==========================================================  =======================================================
Refused (`ERRORS`)                                          Repaired and counted (`REPAIRS`)
==========================================================  =======================================================
not JSON, not a COCO dict, entries of the wrong type        annotation ids missing, doubled or below 1: renumbered
no images; no boxes, where boxes are required               ids given as text or as 1.0: read as whole numbers
image or category ids missing, doubled, not whole numbers   category names given as numbers: read as text
category names missing or doubled                           image sizes missing or 0: taken from the file, upright
file names missing, or leading out of the image folder      ``iscrowd`` missing: 0
pictures missing, unreadable or cut short                   ``area`` missing or not positive: computed from the box
pictures of another size than the json says                 boxes with zero or negative width or height: dropped
annotations of unknown images or categories                 boxes partly outside their image: clipped
bbox not four numbers, not numeric, NaN or infinite         boxes too small after clipping: dropped
boxes fully outside their image                             exact duplicate boxes: dropped
``iscrowd`` neither 0 nor 1
==========================================================  =======================================================

Legal and only noted: images without boxes (background), classes without boxes, pictures listed twice. Category id 0
is legal. Boxes that stick out by `CLIP_TOLERANCE` or less are rounding: they stay as they are, so that scores agree
with the original file to the last digit, and are clipped when a picture's target is made. An annotation id of 0
matters to pycocotools alone, which takes a detection matched to it for unmatched and silently lowers AP.

EXIF: labelling tools show a picture either as stored or turned upright, and the size in the json tells which. Boxes
are right only on the picture the labeller saw, so a json of the stored size means reading without rotation and one
of the upright size reading with it. Where both sizes are equal (turned by 180 degrees, mirrored, square) those
pictures of the set whose size does tell decide, if they agree; otherwise it is read as stored, and noted.
"""

from __future__ import annotations

import gc
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mobiledet.data.images import ImageInfo, verify_images
from mobiledet.errors import DataError, ImageError
from mobiledet.structures import BoolArray, IntArray

CLIP_TOLERANCE = 1.0
"""Pixels by which a box may stick out of its image before clipping it counts as a repair."""

EXAMPLES = 5
"""Faults of one kind that are described one by one; all are counted."""

ERRORS = {
    "images in all": "a data set needs pictures; check that this is the right file",
    "categories in all": "a data set needs at least one class",
    "boxes in all": "training needs boxes; check that this is the right file",
    "image ids missing, doubled or not whole numbers": "give every image its own whole number",
    "image sizes that are not whole numbers": "write height and width in pixels",
    "category ids missing, doubled or not whole numbers": "give every category its own whole number",
    "category names missing or doubled": "give every category its own name",
    "file names missing or not text": "write the picture's file name",
    "file names leading out of the image folder": "put the pictures (not links to them) into the folder and name "
    "them relative to it; linking the whole folder is fine",
    "missing pictures": "put them there, correct file_name, or name another folder of images",
    "unreadable pictures": "replace the files or take them out of the json",
    "pictures of another size than the json says": "write the real size, or fetch the picture that was labelled",
    "annotations of an unknown image": "correct image_id or drop them",
    "annotations of an unknown category": "correct category_id or add the category",
    "bboxes that are not four numbers": "write [x, y, width, height] in pixels",
    "bboxes with values that are not finite numbers": "write [x, y, width, height] in pixels",
    "boxes fully outside their image": "correct bbox (is it [x, y, width, height] in pixels?) or drop them",
    "values of iscrowd other than 0 and 1": "write 0 for an object, 1 for a crowd",
}
"""Kind of fault -> remedy."""

REPAIRS = (
    "annotation ids renumbered (missing, doubled or below 1)",
    "ids read as whole numbers",
    "category names read as text",
    "image sizes taken from the file",
    "missing iscrowd set to 0",
    "areas computed from the box",
    "boxes without width or height dropped",
    "boxes clipped to their image",
    "boxes dropped as too small",
    "exact duplicate boxes dropped",
)

Entry: TypeAlias = dict[str, Any]
Rows: TypeAlias = IntArray | list[int]
Floats: TypeAlias = NDArray[np.float64]
Describe: TypeAlias = Callable[[int], tuple[str, str]]
"""Row -> ``(place, value)`` of its fault."""


@dataclass(frozen=True)
class Fault:
    """One example of a fault: what kind, where, the value found and what to do about it."""

    kind: str
    place: str
    value: str
    remedy: str


@dataclass
class CheckReport:
    """What was found in one annotation file.

    Attributes:
        source: the file's name.
        errors: faults that training must not start with, at most `EXAMPLES` of a kind.
        repairs: faults that were put right, at most `EXAMPLES` of a kind.
        counts: kind -> how many there are of it, errors and repairs.
        notes: things that are legal and still worth knowing -> how many.
        images: pictures in the data set.
        boxes: boxes left after repairs.
        classes: object classes.
    """

    source: str
    errors: list[Fault] = field(default_factory=list)
    repairs: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    notes: dict[str, int] = field(default_factory=dict)
    images: int = 0
    boxes: int = 0
    classes: int = 0

    def add(self, kind: str, rows: Rows, describe: Describe) -> None:
        """Count a fault of some rows and describe the first of them as ``(place, value)``."""
        if kind not in ERRORS and kind not in REPAIRS:
            raise KeyError(kind)
        if not len(rows):
            return
        faults = self.errors if kind in ERRORS else self.repairs
        remedy = ERRORS.get(kind, "repaired")
        known = sum(fault.kind == kind for fault in faults)
        for row in rows[: max(0, EXAMPLES - known)]:
            faults.append(Fault(kind, *describe(int(row)), remedy))
        self.counts[kind] += len(rows)

    def summary(self) -> str:
        """A few lines for the log."""
        lines = [f"{self.source}: {self.images} images, {self.boxes} boxes, {self.classes} classes"]
        for kind, examples in _by_kind(self.repairs).items():
            lines.append(f"repaired: {self.counts[kind]} {kind} (first: {examples[0].place}, {examples[0].value})")
        return "\n".join([*lines, *(f"note: {count} {what}" for what, count in self.notes.items() if count)])

    def raise_if_errors(self) -> None:
        """Refuse the data with one line for each kind of fault.

        Raises:
            DataError: there are errors.
        """
        if not self.errors:
            return
        lines = []
        for kind, examples in _by_kind(self.errors).items():
            found = "; ".join(": ".join(filter(None, (fault.place, fault.value))) for fault in examples)
            more = self.counts[kind] - len(examples)
            rest = f"; and {more} more" if more else ""
            lines.append(f"- {self.counts[kind]} {kind}: {found}{rest}. Remedy: {ERRORS[kind]}")
        raise DataError("\n".join([f"{self.source} can't be used:", *lines]))


@dataclass(frozen=True)
class CocoColumns:
    """A checked and repaired COCO file as columns: N images, M boxes sorted by image, K classes sorted by id.

    Attributes:
        category_ids: ``(K,)``.
        names: K class names.
        image_ids: ``(N,)``.
        file_names: N names relative to the image folder.
        sizes: ``(N, 2)`` heights and widths of the pictures as they are to be read.
        upright: ``(N,)`` int8: 1 read with EXIF rotation, 0 read as stored, -1 not looked at.
        offsets: ``(N + 1,)``; image ``i`` has the boxes ``offsets[i]:offsets[i + 1]``.
        boxes_xywh: ``(M, 4)`` float64, absolute pixels.
        labels: ``(M,)`` in ``1..K``.
        iscrowd: ``(M,)``.
        ignore: ``(M,)``.
        areas: ``(M,)`` float64, pixels.
        annotation_ids: ``(M,)``, each 1 or more.
    """

    category_ids: IntArray
    names: tuple[str, ...]
    image_ids: IntArray
    file_names: list[str]
    sizes: IntArray
    upright: NDArray[np.int8]
    offsets: IntArray
    boxes_xywh: Floats
    labels: IntArray
    iscrowd: BoolArray
    ignore: BoolArray
    areas: Floats
    annotation_ids: IntArray


@contextmanager
def collector_paused() -> Iterator[None]:
    """Keep the garbage collector from walking millions of new dicts over and over: COCO parses in half the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def read_json(path: Path) -> object:
    """Parse a JSON file.

    Raises:
        DataError: the file can't be read or isn't JSON.
    """
    try:
        with collector_paused():
            return json.loads(path.read_text("utf-8-sig"))
    except OSError as error:
        raise DataError(f"{path} can't be read: {error.strerror}; name a COCO annotation file") from error
    except (ValueError, RecursionError) as error:  # ValueError: bad UTF-8 as well as bad JSON
        raise DataError(f"{path} is not JSON: {error}; export or download it again") from error


def coco_sections(parsed: object, source: str) -> tuple[list[Entry], list[Entry], list[Entry]]:
    """The images, annotations and categories of a parsed COCO file.

    Raises:
        DataError: it isn't one; says what was found instead.
    """
    if isinstance(parsed, list):
        is_results = bool(parsed) and isinstance(parsed[0], dict) and "score" in parsed[0]
        hint = "is it a predictions file? it holds scores" if is_results else "is it a predictions file?"
        raise DataError(f"{source} is a list of {len(parsed)} entries, not a COCO dict; {hint}; name the ground truth")
    if not isinstance(parsed, dict):
        raise DataError(f"{source} is a {type(parsed).__name__}, not a COCO dict; name a COCO annotation file")
    sections: list[list[Entry]] = []
    for key in ("images", "annotations", "categories"):
        entries = parsed.get(key)
        if key not in parsed:
            present = ", ".join(map(repr, list(parsed)[:8])) or "nothing"
            raise DataError(f"{source} has no key '{key}' but {present}; name a COCO annotation file")
        if not isinstance(entries, list):
            raise DataError(f"{source}: '{key}' is a {type(entries).__name__}; COCO has a list of dicts there")
        wrong = next((i for i, entry in enumerate(entries) if not isinstance(entry, dict)), None)
        if wrong is not None:
            raise DataError(f"{source}: {key}[{wrong}] is {entries[wrong]!r:.60}; COCO has a dict there")
        sections.append(entries)
    return sections[0], sections[1], sections[2]


def check_coco(
    parsed: object,
    image_dir: Path,
    report: CheckReport,
    *,
    check_images: bool = True,
    min_box_size: float = 1.0,
    require_boxes: bool = False,
    progress: bool = False,
) -> CocoColumns:
    """Check a parsed COCO file and its pictures; faults go to the report, what is sound into columns.

    The columns are fit for use once ``report.raise_if_errors()`` has passed.

    Raises:
        DataError: the file isn't COCO at all, so that nothing more can be said.
    """
    images, annotations, categories = coco_sections(parsed, report.source)
    category_ids, names = _check_categories(categories, report)
    image_ids = _check_ids(images, "image", report)
    file_names = _check_file_names(images, image_dir, report)
    sizes, upright = _check_pictures(images, file_names, image_dir, report, check_images, progress)
    image_row, category_row = _check_references(annotations, images, image_ids, category_ids, report)

    def describe(row: int) -> tuple[str, str]:
        return _annotation_place(row, annotations, images, image_row), f"bbox is {annotations[row].get('bbox')!r:.100}"

    boxes, sound = _check_numbers([entry.get("bbox") for entry in annotations], report, describe)
    sound &= (image_row >= 0) & (category_row >= 0)
    iscrowd = _check_crowds(annotations, report, describe)
    ids = _check_annotation_ids(annotations, report, describe)
    size_of = sizes[np.maximum(image_row, 0)] if len(sizes) else np.zeros((len(boxes), 2), np.int64)
    keep, clipped = _check_geometry(boxes, size_of, sound, min_box_size, report, describe)
    keep = _drop_duplicates(keep, image_row, category_row, boxes, iscrowd, report, describe)
    areas = _check_areas([entry.get("area") for entry in annotations], boxes, keep, clipped, report, describe)
    ignore = np.array([bool(entry.get("ignore", 0)) for entry in annotations], np.bool_)

    kept = np.flatnonzero(keep)
    kept = kept[np.argsort(image_row[kept], kind="stable")]
    per_image = np.bincount(image_row[kept], minlength=len(images))
    offsets = np.concatenate([[0], np.cumsum(per_image)]).astype(np.int64)
    labels = category_row[kept] + 1
    if not images:
        report.add("images in all", [0], lambda _: ("", "the json's list of images is empty"))
    if require_boxes and not len(kept):
        report.add("boxes in all", [0], lambda _: ("", f"{len(annotations)} annotations, none of them usable"))
    report.images, report.boxes, report.classes = len(images), len(kept), len(names)
    report.notes["images without boxes (background)"] = int((per_image == 0).sum())
    report.notes["classes without a box"] = len(names) - len(np.unique(labels))
    return CocoColumns(
        category_ids, names, image_ids, file_names, sizes, upright, offsets,
        boxes[kept], labels, iscrowd[kept], ignore[kept], areas[kept], ids[kept],
    )  # fmt: skip


def _by_kind(faults: Iterable[Fault]) -> dict[str, list[Fault]]:
    grouped: dict[str, list[Fault]] = {}
    for fault in faults:
        grouped.setdefault(fault.kind, []).append(fault)
    return grouped


def _annotation_place(row: int, annotations: list[Entry], images: list[Entry], image_row: IntArray) -> str:
    image = int(image_row[row])
    name = f", {images[image].get('file_name')!r}" if image >= 0 else ""
    return f"annotations[{row}] (image {annotations[row].get('image_id')!r:.40}{name})"


def whole_numbers(values: list[Any]) -> tuple[IntArray, BoolArray, BoolArray]:
    """Each value as a whole number (0 where it is none), whether it is one, and whether it had to be converted."""
    if set(map(type, values)) <= {int}:
        with suppress(OverflowError):
            return np.array(values, np.int64), np.ones(len(values), np.bool_), np.zeros(len(values), np.bool_)
    numbers = [_whole_number(value) for value in values]
    good = np.array([number is not None for number in numbers], np.bool_)
    converted = good & np.array([type(value) is not int for value in values], np.bool_)
    return np.array([number or 0 for number in numbers], np.int64), good, converted


def _whole_number(value: object) -> int | None:
    number = value if type(value) is int else None
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
        number = int(value)
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    return number if number is not None and abs(number) < 2**63 else None


def _repeats(values: IntArray) -> BoolArray:
    """Which values have already occurred further up."""
    repeated = np.ones(len(values), np.bool_)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated


def _check_ids(entries: list[Entry], what: Literal["image", "category"], report: CheckReport) -> IntArray:
    section = "images" if what == "image" else "categories"
    ids, good, converted = whole_numbers([entry.get("id") for entry in entries])
    name = "file_name" if what == "image" else "name"

    def describe(row: int) -> tuple[str, str]:
        return f"{section}[{row}] ({entries[row].get(name)!r:.60})", f"id is {entries[row].get('id')!r:.40}"

    doubled = np.zeros(len(ids), np.bool_)
    doubled[good] = _repeats(ids[good])
    report.add(f"{what} ids missing, doubled or not whole numbers", np.flatnonzero(~good | doubled), describe)
    report.add("ids read as whole numbers", np.flatnonzero(converted), describe)
    return ids


def _check_categories(categories: list[Entry], report: CheckReport) -> tuple[IntArray, tuple[str, ...]]:
    ids = _check_ids(categories, "category", report)
    raw = [entry.get("name") for entry in categories]
    names = [str(name) if isinstance(name, str) or type(name) is int else "" for name in raw]

    def describe(row: int) -> tuple[str, str]:
        return f"categories[{row}] (id {categories[row].get('id')!r:.40})", f"name is {raw[row]!r:.60}"

    wrong = [row for row, name in enumerate(names) if not name.strip() or name in names[:row]]
    report.add("category names missing or doubled", wrong, describe)
    report.add("category names read as text", [row for row, name in enumerate(raw) if type(name) is int], describe)
    if not categories:
        report.add("categories in all", [0], lambda _: ("", "the json's list of categories is empty"))
    order = np.argsort(ids, kind="stable")
    return ids[order], tuple(names[row] for row in order)


def _check_file_names(images: list[Entry], image_dir: Path, report: CheckReport) -> list[str]:
    """File names; empty where one can't be used."""
    raw = [image.get("file_name") for image in images]
    names = [name if isinstance(name, str) and name.strip() and "\0" not in name else "" for name in raw]
    root = os.path.realpath(image_dir)
    escaping = [row for row, name in enumerate(names) if name and _leads_out(name, root)]

    def describe(row: int) -> tuple[str, str]:
        return f"images[{row}] (id {images[row].get('id')!r:.40})", f"file_name is {raw[row]!r:.120}"

    report.add("file names missing or not text", [row for row, name in enumerate(names) if not name], describe)
    report.add("file names leading out of the image folder", escaping, describe)
    for row in escaping:
        names[row] = ""
    named = Counter(filter(None, names))
    report.notes["pictures listed more than once"] = sum(count > 1 for count in named.values())
    return names


def _leads_out(name: str, root: str) -> bool:
    if name[0] in "/\\" or name[1:2] == ":" or ".." in re.split(r"[/\\]", name):
        return True
    path = os.path.join(root, name)  # noqa: PTH118 -- 118,000 of them
    if "/" not in name and not os.path.islink(path):  # noqa: PTH114
        return False
    return not os.path.realpath(path).startswith(os.path.join(root, ""))  # noqa: PTH118


def _check_pictures(
    images: list[Entry], names: list[str], folder: Path, report: CheckReport, check_all: bool, progress: bool
) -> tuple[IntArray, NDArray[np.int8]]:
    """Sizes ``(N, 2)`` as the pictures are to be read, and whether that is upright (-1: not looked at)."""
    columns = [[image.get(key) or 0 for image in images] for key in ("height", "width")]
    parsed = [whole_numbers(column) for column in columns]
    sizes = np.stack([numbers for numbers, _, _ in parsed], axis=1)
    sound = parsed[0][1] & parsed[1][1] & (sizes >= 0).all(axis=1)
    absent = sound & (sizes == 0).any(axis=1)
    upright = np.full(len(images), -1, np.int8)

    def describe(row: int) -> tuple[str, str]:
        size = f"height {images[row].get('height')!r:.30}, width {images[row].get('width')!r:.30}"
        return f"images[{row}] (id {images[row].get('id')!r:.40}, {names[row]!r})", size

    report.add("image sizes that are not whole numbers", np.flatnonzero(~sound), describe)
    rows = [row for row, name in enumerate(names) if name and (check_all or absent[row])]
    found = dict(
        zip(rows, verify_images([folder / names[row] for row in rows], folder, progress=progress), strict=True)
    )
    failed = {row: result for row, result in found.items() if isinstance(result, ImageError)}
    missing = [row for row in failed if not (folder / names[row]).exists()]
    report.add("missing pictures", missing, lambda row: (describe(row)[0], _where_else(folder, names[row])))
    damaged = [row for row in failed if (folder / names[row]).exists()]
    report.add("unreadable pictures", damaged, lambda row: (describe(row)[0], str(failed[row])))

    infos = {row: info for row, info in found.items() if isinstance(info, ImageInfo) and sound[row]}
    seen = np.array(list(infos), np.int64)
    stored = np.array([(info.height, info.width) for info in infos.values()], np.int64).reshape(-1, 2)
    turned = np.array([info.upright_size for info in infos.values()], np.int64).reshape(-1, 2)
    rotated = np.array([info.orientation > 1 for info in infos.values()], np.bool_)
    is_stored, is_turned = (sizes[seen] == stored).all(axis=1), (sizes[seen] == turned).all(axis=1)
    unclear = is_stored & is_turned & rotated
    labelled_upright = bool((is_turned & ~is_stored).any() and not (is_stored & ~is_turned).any())
    if not labelled_upright and not (is_stored & ~is_turned).any():
        report.notes["pictures whose EXIF rotation their size can't confirm, read as stored"] = int(unclear.sum())
    upright[seen] = absent[seen] | (is_turned & ~is_stored) | (unclear & labelled_upright)
    taken = seen[absent[seen]]
    sizes[taken] = turned[absent[seen]]
    report.add("image sizes taken from the file", taken, describe)
    other = ~is_stored & ~is_turned & ~absent[seen]
    actual = {int(row): info for row, info in zip(seen[other], stored[other], strict=True)}
    report.add(
        "pictures of another size than the json says",
        seen[other],
        lambda row: (describe(row)[0], f"{describe(row)[1]}, but the file has {actual[row][0]} x {actual[row][1]}"),
    )
    return sizes, upright


def _where_else(folder: Path, name: str) -> str:
    for other in (folder.parent / name, folder / Path(name).name):
        if other.is_file():
            return f"not in {folder}, but there is {other}"
    return f"not in {folder}"


def _check_references(
    annotations: list[Entry], images: list[Entry], image_ids: IntArray, category_ids: IntArray, report: CheckReport
) -> tuple[IntArray, IntArray]:
    """For each annotation the row of its image and of its category; -1 where there is none."""
    image_row, image_text = _look_up([entry.get("image_id") for entry in annotations], image_ids)
    category_row, category_text = _look_up([entry.get("category_id") for entry in annotations], category_ids)

    def describe_with(key: str) -> Describe:
        return lambda row: (
            _annotation_place(row, annotations, images, image_row),
            f"{key} is {annotations[row].get(key)!r:.40}",
        )

    report.add("annotations of an unknown image", np.flatnonzero(image_row < 0), describe_with("image_id"))
    report.add("annotations of an unknown category", np.flatnonzero(category_row < 0), describe_with("category_id"))
    report.add("ids read as whole numbers", np.flatnonzero(image_text), describe_with("image_id"))
    report.add("ids read as whole numbers", np.flatnonzero(category_text), describe_with("category_id"))
    return image_row, category_row


def _look_up(values: list[Any], ids: IntArray) -> tuple[IntArray, BoolArray]:
    wanted, good, converted = whole_numbers(values)
    if not len(ids):
        return np.full(len(wanted), -1, np.int64), converted
    order = np.argsort(ids, kind="stable")
    row = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
    return np.where(good & (ids[row] == wanted), row, -1), converted


def _check_numbers(values: list[Any], report: CheckReport, describe: Describe) -> tuple[Floats, BoolArray]:
    """Boxes ``(M, 4)``, zero where they can't be used, and which can."""
    four = np.array([isinstance(value, list) and len(value) == 4 for value in values], np.bool_)
    if four.all() and set(map(type, chain.from_iterable(values))) <= {int, float}:
        try:
            boxes = np.array(values, np.float64).reshape(-1, 4)
        except OverflowError:  # a whole number beyond 1e308
            boxes = np.array([_four_floats(value) for value in values], np.float64)
    else:
        rows = [_four_floats(value) if fits else [0.0] * 4 for value, fits in zip(values, four, strict=True)]
        boxes = np.array(rows, np.float64).reshape(-1, 4)
    finite = np.isfinite(boxes).all(axis=1)
    report.add("bboxes that are not four numbers", np.flatnonzero(~four), describe)
    report.add("bboxes with values that are not finite numbers", np.flatnonzero(~finite), describe)
    boxes[~finite] = 0
    return boxes, four & finite


def _four_floats(values: list[Any]) -> list[float]:
    def number(value: object) -> float:
        try:
            return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan
        except OverflowError:
            return np.inf

    return [number(value) for value in values]


def _check_crowds(annotations: list[Entry], report: CheckReport, describe: Describe) -> BoolArray:
    raw = [entry.get("iscrowd") for entry in annotations]
    absent = [row for row, value in enumerate(raw) if value is None]
    numbers, good, _ = whole_numbers([int(value) if isinstance(value, bool) else value or 0 for value in raw])
    wrong = np.flatnonzero(~good | (numbers < 0) | (numbers > 1))
    kind = "values of iscrowd other than 0 and 1"
    report.add(kind, wrong, lambda row: (describe(row)[0], f"iscrowd is {raw[row]!r:.40}"))
    report.add("missing iscrowd set to 0", absent, describe)
    iscrowd: BoolArray = numbers == 1
    return iscrowd


def _check_annotation_ids(annotations: list[Entry], report: CheckReport, describe: Describe) -> IntArray:
    ids, _, converted = whole_numbers([entry.get("id") for entry in annotations])
    bad = np.flatnonzero((ids < 1) | _repeats(ids))

    def describe_id(row: int) -> tuple[str, str]:
        return describe(row)[0], f"id is {annotations[row].get('id')!r:.40}"

    report.add("ids read as whole numbers", np.flatnonzero(converted), describe_id)
    report.add("annotation ids renumbered (missing, doubled or below 1)", bad, describe_id)
    return np.arange(1, len(ids) + 1) if len(bad) else ids


def _check_geometry(
    boxes: Floats, sizes: IntArray, sound: BoolArray, min_box_size: float, report: CheckReport, describe: Describe
) -> tuple[BoolArray, BoolArray]:
    """Clips ``boxes`` in place; returns which boxes to keep and which were clipped."""
    limits = sizes[:, ::-1].astype(np.float64)  # (M, 2) width, height
    low, extent = boxes[:, :2], boxes[:, 2:]
    high = low + extent
    flat = sound & (extent <= 0).any(axis=1)
    sound = sound & ~flat & (limits > 0).all(axis=1)  # the size of a missing picture may be unknown
    outside = sound & ((low >= limits) | (high <= 0)).any(axis=1)
    inner_low, inner_high = np.clip(low, 0, limits), np.clip(high, 0, limits)
    keep = sound & ~outside
    small = keep & (inner_high - inner_low < min_box_size).any(axis=1)
    keep &= ~small
    clipped = keep & (np.maximum(-low, high - limits) > CLIP_TOLERANCE).any(axis=1)

    def describe_size(row: int) -> tuple[str, str]:
        place, value = describe(row)
        return place, f"{value} in {sizes[row][1]} x {sizes[row][0]} (width x height)"

    report.add("boxes without width or height dropped", np.flatnonzero(flat), describe)
    report.add("boxes fully outside their image", np.flatnonzero(outside), describe_size)
    report.add("boxes clipped to their image", np.flatnonzero(clipped), describe_size)
    report.add("boxes dropped as too small", np.flatnonzero(small), describe_size)
    boxes[clipped] = np.concatenate([inner_low, inner_high - inner_low], axis=1)[clipped]
    return keep, clipped


def _drop_duplicates(
    keep: BoolArray, image_row: IntArray, category_row: IntArray, boxes: Floats, iscrowd: BoolArray,
    report: CheckReport, describe: Describe,
) -> BoolArray:  # fmt: skip
    """Of boxes that agree in image, class, place and crowd flag only the first is kept."""
    rows = np.flatnonzero(keep)
    keys = [boxes[rows, 3], boxes[rows, 2], boxes[rows, 1], boxes[rows, 0], iscrowd[rows], category_row[rows]]
    order = np.lexsort([*keys, image_row[rows]])  # stable, so the first of equals comes first
    same = np.ones(max(0, len(rows) - 1), np.bool_)
    for key in (*keys, image_row[rows]):
        same &= key[order[1:]] == key[order[:-1]]
    doubled = np.sort(rows[order[1:][same]])
    report.add("exact duplicate boxes dropped", doubled, describe)
    keep = keep.copy()
    keep[doubled] = False
    return keep


def _check_areas(
    values: list[Any], boxes: Floats, keep: BoolArray, clipped: BoolArray, report: CheckReport, describe: Describe
) -> Floats:
    """Areas as given (of the mask, often), at most that of a box which had to be clipped."""
    good = [type(value) in (int, float) and 0 < value < 1e300 for value in values]
    box_areas = boxes[:, 2] * boxes[:, 3]
    given = np.array([value if fits else 0 for value, fits in zip(values, good, strict=True)], np.float64)
    computed = keep & ~np.array(good, np.bool_)

    def describe_area(row: int) -> tuple[str, str]:
        return describe(row)[0], f"area is {values[row]!r:.40}"

    report.add("areas computed from the box", np.flatnonzero(computed), describe_area)
    return np.where(computed, box_areas, np.where(clipped, np.minimum(given, box_areas), given))

"""Every fault of a COCO file, found before the first step and reported together.

What can be corrected without guessing is repaired and counted; what would train on the wrong thing is refused.

==========================================================  =======================================================
Refused                                                     Repaired and counted
==========================================================  =======================================================
not JSON, not a COCO dict, entries of the wrong type        annotation ids missing, duplicate or below 1: renumbered
no images; no boxes, where boxes are required               ids given as text or as 1.0: read as whole numbers
image or category ids missing, duplicate, of mixed kinds      category names given as numbers: read as text
category names missing or duplicate                         image sizes missing or 0: taken from the file, upright
file names missing, or leading out of the image folder      ``iscrowd`` missing: 0
images missing, unreadable or truncated                   ``area`` missing or not positive: computed from the box
images of another size than the json says                 boxes with zero or negative width or height: dropped
annotations of unknown images or categories                 boxes partly outside their image: clipped
bbox not four numbers, not numeric, NaN or infinite         boxes too small after clipping: dropped
boxes fully outside their image                             exact duplicate boxes: dropped
most boxes outside, all inside as corners, centres or shares
``iscrowd`` neither 0 nor 1
==========================================================  =======================================================

Several entries of one image count as one with all their boxes; a category without boxes that is the super-category of
another (Roboflow's first) isn't a class. Legal, only noted: images without boxes (background), classes without boxes.
Category id 0 is legal. Boxes that stick out by a pixel (`annotation_checks.CLIP_TOLERANCE`) or less are rounding: they
stay as they are, so that scores agree with the original file to the last digit, and are clipped when an image's target
is made.
An annotation id of 0 matters to pycocotools alone, which takes a detection matched to it for unmatched and silently
lowers AP.

EXIF: labelling tools show an image either as stored or turned upright, and the size in the json tells which. Boxes
are right only on the image the labeller saw, so a json of the stored size means reading without rotation and one
of the upright size reading with it. Where both sizes are equal (turned by 180 degrees, mirrored, square) those
images of the set whose size does tell decide, if they agree; otherwise it is read upright, as nearly all tools show
it, and noted; ``data.reading.orientation`` decides otherwise.
"""

from __future__ import annotations

import codecs
import gc
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic_core import from_json

from mobiledet.data.annotation_checks import AnnotationColumns, Entry, check_annotations, repeats, whole_numbers
from mobiledet.data.faults import CheckReport, Describe, Fault
from mobiledet.data.images import ImageInfo, verify_images
from mobiledet.errors import DataError, ImageError
from mobiledet.structures import BoolArray, IntArray
from mobiledet.utils.settings import ReadingConfig
from mobiledet.utils.text import clean_name


@dataclass(frozen=True)
class CocoColumns(AnnotationColumns):
    """A checked and repaired COCO file as columns: N images, M boxes sorted by image, K classes sorted by id.

    Attributes:
        category_ids: ``(K,)``.
        names: K class names.
        image_ids: ``(N,)``.
        file_names: N names relative to the image folder.
        sizes: ``(N, 2)`` heights and widths of the images as they are to be read.
        upright: ``(N,)``; whether they are read with EXIF rotation, else as stored.
    """

    category_ids: IntArray
    names: tuple[str, ...]
    image_ids: IntArray
    file_names: list[str]
    sizes: IntArray
    upright: BoolArray

    def take(self, rows: IntArray) -> CocoColumns:
        """The images of some rows alone, each row at most once, with all classes."""
        counts = np.diff(self.offsets)[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        boxes = np.repeat(self.offsets[rows] - offsets[:-1], counts) + np.arange(offsets[-1])
        of_images = ("image_ids", "sizes", "upright", "emptied")
        of_boxes = ("boxes_xywh", "labels", "iscrowd", "ignore", "areas", "annotation_ids")
        taken = {name: getattr(self, name)[rows] for name in of_images}
        taken |= {name: getattr(self, name)[boxes] for name in of_boxes}
        return replace(self, offsets=offsets, file_names=[self.file_names[row] for row in rows], **taken)


NAME_KEYS = ("fileName", "filename", "file", "path", "name", "url", "coco_url")
"""Where tools write an image's file name that don't write it under ``file_name``."""


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
        if path.exists() and not path.is_file():  # a pipe or a device may have no end
            raise DataError(f"{path} is not a file; name a COCO annotation file")
        data = path.read_bytes().removeprefix(codecs.BOM_UTF8)
        with collector_paused():
            try:
                return from_json(data)  # in 40 % of the standard library's time
            except ValueError:
                return json.loads(data.decode())  # takes more, such as half a surrogate pair, and explains better
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


def heading_names(categories: list[Entry]) -> frozenset[str]:
    """Names of the categories that other categories name as their super-category, as Roboflow's first one."""
    pairs = [(entry.get("supercategory"), entry.get("name")) for entry in categories]
    return frozenset(clean_name(head) for head, name in pairs if isinstance(head, str) and head != name)


def check_coco(
    parsed: object,
    image_dir: Path,
    report: CheckReport,
    *,
    require_boxes: bool = False,
    progress: bool = False,
    known: Sequence[ImageInfo | ImageError] | None = None,
    lost: Sequence[int] = (),
    reading: ReadingConfig | None = None,
) -> CocoColumns:
    """Check a parsed COCO file and its images; faults go to the report, what is sound into columns.

    The columns are fit for use once ``report.raise_if_errors()`` has passed. Images with annotations of which none can
    be used are in them only with ``reading.doubtful="background"``: to training they would say that nothing is there.

    ``known`` is for callers that have looked at the images already: for each entry of ``images`` what was found; no
    file is opened then. ``lost`` is for those that had to drop objects of some images, the number for each.

    Raises:
        DataError: the file isn't COCO at all, so that nothing more can be said.
    """
    reading = reading or ReadingConfig()
    images, annotations, categories = coco_sections(parsed, report.source)
    categories = _without_heads(categories, annotations, report)
    images, annotations = with_numbers(list(map(with_name, images)), annotations, "image_id", report.add)
    categories, annotations = with_numbers(categories, annotations, "category_id", report.add)
    images, annotations = _each_once(images, annotations, report)
    category_ids, names = _check_categories(categories, report)
    image_ids = _check_ids(images, "image", report)
    file_names = _check_file_names(images, image_dir if known is None else None, report)
    sizes, upright = _check_images(images, file_names, image_dir, report, progress, known, reading.orientation)
    found = check_annotations(
        annotations,
        images,
        report,
        image_ids=image_ids,
        category_ids=category_ids,
        sizes=sizes,
        lost=lost,
        any_form=reading.boxes == "auto",
    )
    objects = found.labels[~(found.iscrowd | found.ignore)]
    if not images:
        report.add(Fault.NO_IMAGES, [0], lambda _: ("", "the json's list of images is empty"))
    if require_boxes and not len(objects):
        report.add(Fault.NO_BOXES, [0], lambda _: ("", f"{len(annotations)} annotations, none of them usable"))
    report.note(Fault.CLASS_EMPTY, len(names) - len(np.unique(objects)))
    columns = CocoColumns(
        **vars(found),
        category_ids=category_ids,
        names=names,
        image_ids=image_ids,
        file_names=file_names,
        sizes=sizes,
        upright=upright,
    )
    if reading.doubtful == "leave_out":
        columns = columns.take(np.flatnonzero(~columns.emptied))
    report.images, report.boxes, report.classes = len(columns.image_ids), len(columns.labels), len(names)
    report.note(Fault.BACKGROUND, int((np.diff(columns.offsets) == 0).sum()))
    return columns


def _without_heads(categories: list[Entry], annotations: list[Entry], report: CheckReport) -> list[Entry]:
    """The categories but those that only group others: without boxes, and the super-category of another."""
    heads = heading_names(categories)
    names = [clean_name(str(category.get("name"))) for category in categories]
    if heads.isdisjoint(names):
        return categories
    used = {str(entry.get("category_id")) for entry in annotations}
    left = [c for c, name in zip(categories, names, strict=True) if str(c.get("id")) in used or name not in heads]
    report.note(Fault.CATEGORY_HEAD, len(categories) - len(left))
    return left


def with_name(image: Entry) -> Entry:
    """An image with its file name where COCO has it; labelU and others write it under other keys."""
    if "file_name" in image:
        return image
    other = next((image[key] for key in NAME_KEYS if isinstance(image.get(key), str)), None)
    return image if other is None else {**image, "file_name": other}


def with_numbers(
    entries: list[Entry], annotations: list[Entry], key: str, add: Callable[[Fault, list[int], Describe], None]
) -> tuple[list[Entry], list[Entry]]:
    """Images or categories, and their annotations, with ids from 1 where they are text or beyond 64 bits."""
    _, good, _ = whole_numbers([entry.get("id") for entry in entries])
    if good.all():
        return entries, annotations
    ids = [str(id_) if isinstance(id_ := entry.get("id"), int | str) else "" for entry in entries]
    numbers = {id_: number for number, id_ in enumerate(ids, 1)}
    odd = {id_ for id_, fits in zip(ids, good.tolist(), strict=True) if not fits}
    # A single id that nothing refers to is a mistake, and no kind of id.
    if len(numbers) < len(ids) or "" in numbers or not any(str(entry.get(key)) in odd for entry in annotations):
        return entries, annotations
    fault = Fault.IMAGE_RENUMBERED if key == "image_id" else Fault.CATEGORY_RENUMBERED
    add(fault, list(range(len(ids))), lambda row: (f"id {ids[row]!r:.60}", str(row + 1)))
    return (
        [{**entry, "id": numbers[id_]} for entry, id_ in zip(entries, ids, strict=True)],
        [{**entry, key: numbers.get(str(entry.get(key)), entry.get(key))} for entry in annotations],
    )


def _each_once(images: list[Entry], annotations: list[Entry], report: CheckReport) -> tuple[list[Entry], list[Entry]]:
    """Each image once, with the annotations of all its entries: some exporters write an entry for each box."""
    first: dict[object, Entry] = {}
    ids: dict[object, object] = {}
    again = []
    for row, image in enumerate(images):
        name = image.get("file_name")
        if isinstance(name, str) and first.setdefault(name, image) is not image:
            again.append(row)
            if isinstance(image.get("id"), int | str):
                ids[image["id"]] = first[name].get("id")
    if not again:
        return images, annotations
    report.add(Fault.LISTED_TWICE, again, lambda row: (f"images[{row}]", repr(images[row]["file_name"])))
    moved = [
        {**entry, "image_id": ids[key]} if isinstance(key := entry.get("image_id"), int | str) and key in ids else entry
        for entry in annotations
    ]
    return [image for row, image in enumerate(images) if row not in set(again)], moved


def _check_ids(entries: list[Entry], what: Literal["image", "category"], report: CheckReport) -> IntArray:
    section = "images" if what == "image" else "categories"
    ids, good, converted = whole_numbers([entry.get("id") for entry in entries])
    name = "file_name" if what == "image" else "name"

    def describe(row: int) -> tuple[str, str]:
        return f"{section}[{row}] ({entries[row].get(name)!r:.60})", f"id is {entries[row].get('id')!r:.40}"

    doubled = np.zeros(len(ids), np.bool_)
    doubled[good] = repeats(ids[good])
    report.add(Fault.IMAGE_ID if what == "image" else Fault.CATEGORY_ID, np.flatnonzero(~good | doubled), describe)
    report.add(Fault.ID_CONVERTED, np.flatnonzero(converted), describe)
    return ids


def _check_categories(categories: list[Entry], report: CheckReport) -> tuple[IntArray, tuple[str, ...]]:
    ids = _check_ids(categories, "category", report)
    raw = [entry.get("name") for entry in categories]
    names = [clean_name(str(name)) if isinstance(name, str) or type(name) is int else "" for name in raw]

    def describe(row: int) -> tuple[str, str]:
        return f"categories[{row}] (id {categories[row].get('id')!r:.40})", f"name is {raw[row]!r:.60}"

    first = {name: row for row, name in reversed(list(enumerate(names)))}
    wrong = [row for row, name in enumerate(names) if not name or first[name] < row]
    report.add(Fault.CATEGORY_NAME, wrong, describe)
    spaced = [row for row, name in enumerate(raw) if isinstance(name, str) and names[row] not in ("", name)]
    report.add(Fault.NAME_SPACES, spaced, describe)
    report.add(Fault.NAME_CONVERTED, [row for row, name in enumerate(raw) if type(name) is int], describe)
    if not categories:
        report.add(Fault.NO_CATEGORIES, [0], lambda _: ("", "the json's list of categories is empty"))
    order = np.argsort(ids, kind="stable")
    return ids[order], tuple(names[row] for row in order)


def _check_file_names(images: list[Entry], image_dir: Path | None, report: CheckReport) -> list[str]:
    """File names; empty where one can't be used, or leads out of a folder."""
    raw = [image.get("file_name") for image in images]
    names = [name if isinstance(name, str) and name.strip() and "\0" not in name else "" for name in raw]
    root = "" if image_dir is None else os.path.realpath(image_dir)
    escaping = [row for row, name in enumerate(names) if name and root and _leads_out(name, root)]

    def describe(row: int) -> tuple[str, str]:
        return f"images[{row}] (id {images[row].get('id')!r:.40})", f"file_name is {raw[row]!r:.120}"

    report.add(Fault.FILE_NAME, [row for row, name in enumerate(names) if not name], describe)
    report.add(Fault.FILE_OUTSIDE, escaping, describe)
    for row in escaping:
        names[row] = ""
    return names


def _leads_out(name: str, root: str) -> bool:
    if name[0] in "/\\" or name[1:2] == ":" or ".." in re.split(r"[/\\]", name):
        return True
    path = os.path.join(root, name)  # noqa: PTH118 -- 118,000 of them
    if "/" not in name and not os.path.islink(path):  # noqa: PTH114
        return False
    return not os.path.realpath(path).startswith(os.path.join(root, ""))  # noqa: PTH118


def _check_images(
    images: list[Entry],
    names: list[str],
    folder: Path,
    report: CheckReport,
    progress: bool,
    known: Sequence[ImageInfo | ImageError] | None,
    orientation: Literal["auto", "upright", "stored"],
) -> tuple[IntArray, BoolArray]:
    """Sizes ``(N, 2)`` as the images are to be read, and whether that is upright."""
    columns = [[image.get(key) or 0 for image in images] for key in ("height", "width")]
    parsed = [whole_numbers(column) for column in columns]
    sizes = np.stack([numbers for numbers, _, _ in parsed], axis=1)
    sound = parsed[0][1] & parsed[1][1] & (sizes >= 0).all(axis=1)
    absent = sound & (sizes == 0).any(axis=1)
    upright = np.zeros(len(images), np.bool_)

    def describe(row: int) -> tuple[str, str]:
        size = f"height {images[row].get('height')!r:.30}, width {images[row].get('width')!r:.30}"
        return f"images[{row}] (id {images[row].get('id')!r:.40}, {names[row]!r})", size

    report.add(Fault.IMAGE_SIZE, np.flatnonzero(~sound), describe)
    if known is not None:
        found = dict(enumerate(known))
    else:
        rows = [row for row, name in enumerate(names) if name]
        paths = [folder / names[row] for row in rows]
        found = dict(zip(rows, verify_images(paths, folder, progress=progress), strict=True))
    failed = {row: result for row, result in found.items() if isinstance(result, ImageError)}
    # os.path takes a name that is too long for the file system for one that isn't there; Path raises.
    missing = [row for row in failed if not os.path.exists(folder / names[row])]  # noqa: PTH110
    report.add(Fault.IMAGE_MISSING, missing, lambda row: (describe(row)[0], _where_else(folder, names[row])))
    damaged = sorted(failed.keys() - set(missing))
    report.add(Fault.IMAGE_UNREADABLE, damaged, lambda row: (describe(row)[0], str(failed[row])))

    infos = {row: info for row, info in found.items() if isinstance(info, ImageInfo) and sound[row]}
    report.add(Fault.IMAGE_MENDED, [row for row, info in infos.items() if info.mended], describe)
    seen = np.array(list(infos), np.int64)
    stored = np.array([(info.height, info.width) for info in infos.values()], np.int64).reshape(-1, 2)
    turned = np.array([info.upright_size for info in infos.values()], np.int64).reshape(-1, 2)
    rotated = np.array([info.orientation > 1 for info in infos.values()], np.bool_)
    is_stored, is_turned = (sizes[seen] == stored).all(axis=1), (sizes[seen] == turned).all(axis=1)
    unclear = is_stored & is_turned & rotated
    some_upright, some_stored = bool((is_turned & ~is_stored).any()), bool((is_stored & ~is_turned).any())
    as_stored = orientation == "stored" or (orientation == "auto" and some_stored and not some_upright)
    if orientation == "auto" and some_upright == some_stored:
        report.add(Fault.ROTATION_UNCLEAR, seen[unclear], describe)
    upright[seen] = absent[seen] | (is_turned & ~is_stored) | (unclear & (not as_stored))
    taken = seen[absent[seen]]
    sizes[taken] = turned[absent[seen]]
    report.add(Fault.SIZE_FROM_FILE, taken, describe)
    other = ~is_stored & ~is_turned & ~absent[seen]
    actual = {int(row): info for row, info in zip(seen[other], stored[other], strict=True)}
    report.add(
        Fault.IMAGE_OTHER_SIZE,
        seen[other],
        lambda row: (describe(row)[0], f"{describe(row)[1]}, but the file has {actual[row][0]} x {actual[row][1]}"),
    )
    return sizes, upright


def _where_else(folder: Path, name: str) -> str:
    for other in (folder.parent / name, folder / Path(name).name):
        if os.path.isfile(other):  # noqa: PTH113
            return f"not in {folder}, but there is {other}"
    return f"not in {folder}"

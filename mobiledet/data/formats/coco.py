"""COCO files wherever they are and whatever they are called, with images named as on another computer."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from posixpath import basename, dirname, join
from typing import Any

import numpy as np

from mobiledet.data.annotation_checks import repeats, whole_numbers
from mobiledet.data.checks import coco_sections, heading_names, read_json, with_name, with_numbers
from mobiledet.data.coco import OTHER_TASKS
from mobiledet.data.faults import Describe, Fault, ImportLog
from mobiledet.data.formats.base import (
    Annotations,
    Evidence,
    Format,
    ImportedImages,
    SourceImage,
    head,
    note_alike,
    note_unlabelled,
)
from mobiledet.data.formats.tree import Tree, split_name, split_of, stem, suffix
from mobiledet.data.image_headers import EXTENSIONS
from mobiledet.errors import DataError
from mobiledet.utils.text import clean_name, listing


@dataclass
class _File:
    """One json: its path, split, and sections; categories by id."""

    file: str
    split: str
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[int, str]
    heads: frozenset[str]

    def place(self, row: int) -> str:
        """How an annotation is shown to people."""
        return f"{self.file}, annotations[{row}]"


class COCO(Format):
    """COCO, with any names of files and folders."""

    name = "coco"
    looked_for = "a json with images, annotations and categories"
    single_files = (".json",)
    reads_layout = True

    def __init__(self, splits: Collection[str] | None = None) -> None:
        """``splits`` are those to read; None: all."""
        self.splits = splits

    def recognises(self, tree: Tree) -> Evidence | None:
        """By a json that names all of COCO's sections."""
        file = next((file for file in tree.with_suffix(".json") if _looks_like_coco(tree.root / file)), None)
        return Evidence(file) if file else None

    def read(self, tree: Tree, log: ImportLog, only: str | None) -> ImportedImages:
        """Read the COCO files below a folder.

        Raises:
            DataError: there are none, or none that can be used.
        """
        chosen = [only] if only is not None else _choose(tree, log, self.splits)
        files = [_read(tree, name, log) for name in chosen]
        categories = _unify(files, log, strict=bool(tree.reading.strict))
        note_alike(categories, log)
        images: list[SourceImage] = []
        annotations = [_read_split(tree, file, images, categories, log) for file in files]
        if only is None and self.splits is None:
            note_unlabelled(tree, {image.path for image in images}, log)
        where = tree.root / files[0].file if len(files) == 1 else tree.root
        entries, numbers, rows = zip(*annotations, strict=True)
        joined = Annotations(list(chain(*entries)), np.concatenate(numbers), np.concatenate(rows))
        return ImportedImages(self.name, images, categories, where, "annotations[{}]", annotations=joined)


def _looks_like_coco(path: Path) -> bool:
    """Whether a json is called as COCO's are, or names all sections; without parsing it: that takes long for COCO's."""
    if path.name.startswith("instances_") or path.name == "_annotations.coco.json":
        return True
    # LabelMe's have an image each inside, thousands of them, and none of these near the beginning.
    if not any(
        f'"{key}"'.encode() in head(path) for key in ("images", "annotations", "categories", "info", "licenses")
    ):
        return False
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return all(f'"{key}"'.encode() in data for key in ("images", "annotations", "categories"))


def _choose(tree: Tree, log: ImportLog, splits: Collection[str] | None) -> list[str]:
    found = [file for file in tree.with_suffix(".json") if _looks_like_coco(tree.root / file)]
    if not found:
        raise DataError(f"{tree.root} holds no json with images, annotations and categories; name the COCO file")
    main = [file for file in found if not basename(file).startswith(OTHER_TASKS)]
    for file in sorted(set(found) - set(main or found)):
        log.add(Fault.LEFT_ASIDE, file, "annotations for another task")
    chosen: dict[str, str] = {}
    for file in sorted(main or found, key=lambda file: ("2017" in basename(file), file), reverse=True):
        # COCO's splits of several years have the same images; others' numbers mean other things.
        kind = re.sub(r"(instances_[a-z]+)\d{4}(?=\.json$)", r"\1", file)
        if kind in chosen:
            log.add(Fault.LEFT_ASIDE, file, f"{chosen[kind]} is read")
        else:
            chosen[kind] = file
    if splits is None:
        return sorted(chosen.values())
    return sorted(file for file in chosen.values() if _split_of(file) in {*splits, "trainval"})


def _split_of(file: str) -> str:
    return split_name(stem(file), loose=True) or split_of(file) or "train"


def _read(tree: Tree, file: str, log: ImportLog) -> _File:
    path = tree.root / file
    images, annotations, raw = coco_sections(read_json(path), str(path))

    def add(fault: Fault, rows: list[int], describe: Describe) -> None:
        log.add(fault, file, f"{len(rows)}, the first is {describe(0)[0]}")

    for entry in annotations:
        if entry.get("bbox"):
            entry.pop("segmentation", None)  # nine tenths of the memory
    images, annotations = with_numbers(images, annotations, "image_id", add)
    raw, annotations = with_numbers(raw, annotations, "category_id", add)
    images = [with_name(image) for image in images]
    categories = _read_categories(raw, file, log)
    return _File(file, _split_of(file), images, annotations, categories, heading_names(raw))


def _read_split(
    tree: Tree, file: _File, images: list[SourceImage], categories: dict[str, int], log: ImportLog
) -> Annotations:
    """Add the images of a file to those of others; returns its annotations."""
    ids, good, converted = whole_numbers([image.get("id") for image in file.images])
    names = [image.get("file_name") for image in file.images]
    named = {(id_, name) for id_, name in zip(ids.tolist(), names, strict=True) if isinstance(name, str)}
    counts = Counter(id_ for id_, _ in named)
    doubled = {id_ for id_ in ids[repeats(ids) & good].tolist() if counts[id_] > 1}
    near = _near(file)
    beginnings = [f"{folder}/" if folder else "" for folder in near]
    sizes = _sizes(file.images)
    by_id: dict[int, int | None] = {}  # id -> number of the image, None where that isn't there
    for row, image in enumerate(file.images):
        id_ = int(ids[row])
        where = f"{file.file}, images[{row}]"
        if not good[row] or id_ in doubled:
            log.add(Fault.IMAGE_ID, where, f"id {image.get('id')!r:.40}")
            continue
        if id_ in by_id:
            log.add(Fault.LISTED_TWICE, where, f"id {id_}")
            continue
        if converted[row]:
            log.add(Fault.ID_CONVERTED, where, f"id {image.get('id')!r:.40}")
        name = image.get("file_name")
        path = next((path for start in beginnings if (path := f"{start}{name}") in tree.known), None)
        if path is None or suffix(path) not in EXTENSIONS:
            path = _find(tree, name, near, file.split, where, log)
        by_id[id_] = None
        if path is not None:
            by_id[id_] = number = len(images)
            images.append(
                SourceImage(tree.root / path, file.split, file.file, sizes[row], image_id=id_, numbers=(number,))
            )
    return _annotations(file, by_id, images, categories, log)


def _near(file: _File) -> list[str]:
    folder = dirname(file.file)
    names = [stem(file.file).removeprefix("instances_"), file.split, f"{file.split}2017"]
    names += ["valid"] if file.split == "val" else []
    bases = list(dict.fromkeys([folder, dirname(folder), ""]))
    inner = [*names, "images", *(f"images/{name}" for name in names)]
    return [*bases, *(join(base, name) for base in bases for name in inner)]


def _find(tree: Tree, name: Any, near: list[str], split: str, where: str, log: ImportLog) -> str | None:
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        log.add(Fault.FILE_NAME, where, f"file_name is {name!r:.60}")
        return None
    found = tree.find_foreign(name, near, split)
    if len(found) == 1:
        if not found[0].endswith(name):
            log.add(Fault.PATH_OTHER, where, f"{name!r}: {found[0]}")
        return found[0]
    if found:
        log.add(Fault.ENTRY_AMBIGUOUS, where, f"{name!r} may be {' or '.join(found[:3])}")
    else:
        log.add(Fault.IMAGE_MISSING, where, f"file_name is {name!r:.100}")
    return None


def _sizes(images: list[dict[str, Any]]) -> list[tuple[int, int]]:
    """Height and width of each image, 0 where they are to be taken from the file."""
    heights, widths = ([image.get(key) for image in images] for key in ("height", "width"))
    sides = np.stack([whole_numbers(column)[0] for column in (heights, widths)], axis=1)
    return [(height, width) if height > 0 and width > 0 else (0, 0) for height, width in sides.tolist()]


def _annotations(
    file: _File, by_id: dict[int, int | None], images: list[SourceImage], categories: dict[str, int], log: ImportLog
) -> Annotations:
    """Those of a file's annotations whose image is there, with the data set's category ids."""
    image_ids, category_ids = (_ids_under(key, file, log) for key in ("image_id", "category_id"))
    new_ids = {id_: categories[name] for id_, name in file.categories.items() if name in categories}
    entries: list[dict[str, Any]] = []
    numbers: list[int] = []
    rows: list[int] = []
    for row, entry, image_id, category_id in zip(
        range(len(file.annotations)), file.annotations, image_ids, category_ids, strict=True
    ):
        if image_id not in by_id:
            log.add(Fault.UNKNOWN_IMAGE, file.place(row), f"image_id is {entry.get('image_id')!r:.40}")
            continue
        number = by_id[image_id]
        if category_id not in new_ids:
            log.add(Fault.UNKNOWN_CATEGORY, file.place(row), f"category_id is {entry.get('category_id')!r:.40}")
            if number is not None:
                images[number].lost += 1
            continue
        if number is None:
            continue
        bbox = entry.get("bbox")
        if not bbox and (outline := _outline(entry.get("segmentation"))) is not None:
            log.add(Fault.BOX_FROM_MASK, file.place(row), f"bbox is {bbox!r}")
            entry["bbox"] = outline
        entry["category_id"] = new_ids[category_id]
        entries.append(entry)
        numbers.append(number)
        rows.append(row)
    return Annotations(entries, np.array(numbers, np.int64), np.array(rows, np.int64))


def _ids_under(key: str, file: _File, log: ImportLog) -> list[Any]:
    """The ids of annotations under a key; None where they are not whole numbers."""
    ids, good, converted = whole_numbers([entry.get(key) for entry in file.annotations])
    for row in np.flatnonzero(converted).tolist():
        log.add(Fault.ID_CONVERTED, file.place(row), f"{key} is {file.annotations[row][key]!r:.40}")
    return [id_ if fits else None for id_, fits in zip(ids.tolist(), good.tolist(), strict=True)]


def _outline(segmentation: Any) -> list[float] | None:
    """``[x, y, width, height]`` around polygons or a run-length mask; None where there is neither."""
    if isinstance(segmentation, dict):
        return _outline_of_runs(segmentation)
    if not isinstance(segmentation, list) or not segmentation:
        return None
    polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
    if not all(isinstance(p, list) and len(p) % 2 == 0 and len(p) >= 6 for p in polygons):
        return None
    if not all(type(value) in (int, float) for polygon in polygons for value in polygon):
        return None
    xs = [x for polygon in polygons for x in polygon[0::2]]
    ys = [y for polygon in polygons for y in polygon[1::2]]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _outline_of_runs(runs: dict[str, Any]) -> list[float] | None:
    from pycocotools import mask

    size, counts = runs.get("size"), runs.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(side) is int and 0 < side < 2**16 for side in size)):
        return None  # pycocotools divides by the height without looking
    try:
        encoded = mask.frPyObjects(runs, *size) if isinstance(counts, list) else {"size": size, "counts": counts}
        return [float(value) for value in mask.toBbox(encoded)]
    except (TypeError, ValueError, OverflowError, AttributeError):
        return None


def _read_categories(raw: list[dict[str, Any]], file: str, log: ImportLog) -> dict[int, str]:
    """Id -> name of one file's categories."""
    ids, good, _ = whole_numbers([entry.get("id") for entry in raw])
    categories: dict[int, str] = {}
    known: set[str] = set()
    for row, entry in enumerate(raw):
        where = f"{file}, categories[{row}]"
        given, id_ = entry.get("name"), int(ids[row])
        name = clean_name(str(given)) if isinstance(given, str) or type(given) is int else ""
        if not good[row]:
            log.add(Fault.CATEGORY_ID, where, f"{given!r:.40}: no id")
            continue
        if id_ in categories:
            if categories[id_] == name:
                continue
            raise DataError(f"{where}: id {id_} is both {categories[id_]!r} and {name!r}; give each its own id")
        if not name:
            name = f"class_{id_}"
            log.add(Fault.NAME_INVENTED, where, name)
        elif type(given) is int:
            log.add(Fault.NAME_CONVERTED, where, repr(given))
        elif name != given:
            log.add(Fault.NAME_SPACES, where, f"{given!r} is {name!r}")
        if name in known:
            log.add(Fault.CLASSES_MERGED, where, f"{name!r}, id {id_}")
        categories[id_] = name
        known.add(name)
    return categories


def _unify(files: list[_File], log: ImportLog, *, strict: bool) -> dict[str, int]:
    """One list of classes for all files, by name: name -> id in the order of the ids."""
    with_boxes = set()
    for file in files:
        used, good, _ = whole_numbers([entry.get("category_id") for entry in file.annotations])
        with_boxes |= {file.categories.get(id_) for id_ in set(used[good].tolist())}
    heads = {head for file in files for head in file.heads} - with_boxes
    lists = {file.file: set(file.categories.values()) - heads for file in files}
    every = {name for names in lists.values() for name in names}
    if strict and (other := {name for name in every if any(name not in names for names in lists.values())}):
        raise DataError(
            f"{' and '.join(lists)} list different categories: {listing(sorted(other), 8)}; give both the same "
            "list, or take the classes of both: data.reading.strict=false"
        )
    named: dict[str, list[int]] = {}
    for file in files:
        for id_, name in sorted(file.categories.items()):
            if name in heads:
                log.add(Fault.CATEGORY_HEAD, file.file, f"{name!r}, id {id_}")
                continue
            ids = named.setdefault(name, [])
            if id_ not in ids:
                ids.append(id_)
    if not named:
        raise DataError(f"{', '.join(file.file for file in files)}: no category; a data set needs at least one class")
    conflict = len(files) > 1 and (
        any(len(ids) > 1 for ids in named.values()) or len({ids[0] for ids in named.values()}) < len(named)
    )
    if not conflict:
        return {name: ids[0] for name, ids in sorted(named.items(), key=lambda item: item[1][0])}
    for name, ids in named.items():
        if len(ids) > 1:
            log.add(Fault.CATEGORY_UNIFIED, repr(name), f"ids {', '.join(map(str, ids))}")
    log.add(Fault.CATEGORY_RENUMBERED, ", ".join(file.file for file in files), f"1..{len(named)}")
    return {name: number for number, name in enumerate(named, 1)}

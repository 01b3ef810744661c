"""COCO files wherever they are and whatever they are called, with pictures named as on another computer."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mobiledet.data.checks import coco_sections, read_json
from mobiledet.data.formats.base import Account, Source, SourceBox, SourcePicture
from mobiledet.data.formats.choose import looks_like_coco
from mobiledet.data.formats.classes import note_alike
from mobiledet.data.formats.coco_categories import read_categories, unify
from mobiledet.data.formats.tree import Tree, join, parent, split_name, split_of, stem
from mobiledet.data.json_numbers import repeats, whole_numbers
from mobiledet.errors import DataError

_OTHER_TASKS = ("captions_", "person_keypoints_", "stuff_", "panoptic_", "image_info_")


@dataclass
class _File:
    """One json: its path, split, and sections; categories by id."""

    file: str
    split: str
    images: list[dict[str, Any]]
    annotations: list[dict[str, Any]]
    categories: dict[int, str]
    heads: frozenset[str]


def read_coco(tree: Tree, account: Account, only: str | None = None) -> Source:
    """Read the COCO files below a folder.

    Args:
        tree: the folder.
        account: takes what is dropped, repaired and noted.
        only: the one json to read, if it was named.

    Raises:
        DataError: there are none, or none that can be used.
    """
    files = [_read(tree, name, account) for name in _choose(tree, account, only)]
    categories = unify([(f.file, f.categories, f.heads) for f in files], _used_ids(files), account)
    note_alike(categories, account)
    pictures: list[SourcePicture] = []
    for file in files:
        pictures += _read_pictures(tree, file, categories, account)
    if not pictures:
        first = next((image.get("file_name") for f in files for image in f.images), None)
        raise DataError(
            f"{tree.root}: none of the pictures of {', '.join(f.file for f in files)} is there; it names "
            f"{first!r:.100}; put the pictures below this folder"
        )
    if only is None:
        _note_unlisted(tree, {picture.path for picture in pictures}, account)
    where = tree.root / files[0].file if len(files) == 1 else tree.root
    return Source("coco", pictures, categories, where, "annotations[{}]")


def _choose(tree: Tree, account: Account, only: str | None) -> list[str]:
    if only is not None:
        return [only]
    found = [file for file in tree.with_suffix(".json") if looks_like_coco(tree.root / file)]
    if not found:
        raise DataError(f"{tree.root} holds no json with images, annotations and categories; name the COCO file")
    main = [file for file in found if not file.rpartition("/")[2].startswith(_OTHER_TASKS)]
    for file in sorted(set(found) - set(main or found)):
        account.add("lists and files left aside", file, "annotations for another task")
    return main or found


def _read(tree: Tree, file: str, account: Account) -> _File:
    path = tree.root / file
    images, annotations, raw = coco_sections(read_json(path), str(path))
    split = split_name(stem(file), loose=True) or split_of(file) or "train"
    categories, heads = read_categories(raw, file, account)
    return _File(file, split, images, annotations, categories, heads)


def _used_ids(files: list[_File]) -> list[set[int]]:
    used = []
    for file in files:
        ids, good, _ = whole_numbers([entry.get("category_id") for entry in file.annotations])
        used.append(set(ids[good].tolist()))
    return used


def _read_pictures(tree: Tree, file: _File, categories: dict[str, int], account: Account) -> list[SourcePicture]:
    ids, good, converted = whole_numbers([image.get("id") for image in file.images])
    by_name = {(int(id_), image.get("file_name")) for id_, image in zip(ids, file.images, strict=True) if _named(image)}
    named = Counter(id_ for id_, _ in by_name)
    again = repeats(ids)
    doubled = {id_ for id_ in ids[again & good].tolist() if named[id_] > 1}
    near = _near(file)
    by_id: dict[int, SourcePicture | None] = {}
    for row, image in enumerate(file.images):
        id_ = int(ids[row])
        where = f"{file.file}, images[{row}]"
        if not good[row] or id_ in doubled:
            account.add("image ids missing, doubled or not whole numbers", where, f"id {image.get('id')!r:.40}")
            continue
        if id_ in by_id:
            account.add("pictures listed twice in a split", where, f"id {id_}")
            continue
        if converted[row]:
            account.add("ids read as whole numbers", where, f"id {image.get('id')!r:.40}")
        path = _find(tree, image.get("file_name"), near, file.split, where, account)
        by_id[id_] = None
        if path is not None:
            by_id[id_] = SourcePicture(tree.root / path, file.split, file.file, _size(image), image_id=id_)
    _attach_boxes(file, by_id, categories, account)
    return [picture for picture in by_id.values() if picture is not None]


def _named(image: dict[str, Any]) -> bool:
    return isinstance(image.get("file_name"), str)


def _near(file: _File) -> list[str]:
    folder = parent(file.file)
    names = [stem(file.file).removeprefix("instances_"), file.split, f"{file.split}2017"]
    names += ["valid"] if file.split == "val" else []
    bases = list(dict.fromkeys([folder, parent(folder), ""]))
    inner = [*names, "images", *(f"images/{name}" for name in names)]
    return [*bases, *(join(base, name) for base in bases for name in inner)]


def _find(tree: Tree, name: Any, near: list[str], split: str, where: str, account: Account) -> str | None:
    if not isinstance(name, str) or not name.strip() or "\0" in name:
        account.add("file names missing or not text", where, f"file_name is {name!r:.60}")
        return None
    # Label Studio writes paths as its server knows them, and puts 8 characters before the name of an upload.
    shorter = re.sub(r"^[0-9a-f]{8}-", "", name.replace("\\", "/").rpartition("/")[2])
    for text in dict.fromkeys([name, unquote(name), shorter]):
        found = tree.find(text, near, split)
        if len(found) == 1:
            if not found[0].endswith(name):
                account.add("pictures found under another path than the one given", where, f"{name!r}: {found[0]}")
            return found[0]
        if found:
            account.add("entries that can't be told apart", where, f"{name!r} may be {' or '.join(found[:3])}")
            return None
    account.add("entries without a picture", where, f"{name!r:.100} isn't there")
    return None


def _size(image: dict[str, Any]) -> tuple[int, int]:
    """Height and width, 0 where it is to be taken from the file."""
    sides, good, _ = whole_numbers([image.get("height"), image.get("width")])
    height, width = sides.tolist()
    return (height, width) if good.all() and height > 0 and width > 0 else (0, 0)


def _attach_boxes(
    file: _File, by_id: dict[int, SourcePicture | None], categories: dict[str, int], account: Account
) -> None:
    image_ids, image_good, image_text = whole_numbers([entry.get("image_id") for entry in file.annotations])
    category_ids, category_good, category_text = whole_numbers([entry.get("category_id") for entry in file.annotations])
    lost: dict[int, int] = defaultdict(int)
    for row, entry in enumerate(file.annotations):
        where = f"{file.file}, annotations[{row}]"
        image_id = int(image_ids[row])
        if not image_good[row] or image_id not in by_id:
            account.add("annotations of an unknown image", where, f"image_id is {entry.get('image_id')!r:.40}")
            continue
        name = file.categories.get(int(category_ids[row])) if category_good[row] else None
        if name is None or name not in categories:
            account.add("annotations of an unknown category", where, f"category_id is {entry.get('category_id')!r:.40}")
            continue
        picture = by_id[image_id]
        if picture is None:
            lost[image_id] += 1
            continue
        if image_text[row] or category_text[row]:
            value = f"image_id is {entry['image_id']!r:.40}, category_id is {entry['category_id']!r:.40}"
            account.add("ids read as whole numbers", where, value)
        bbox = entry.get("bbox")
        if not bbox and (outline := _outline(entry.get("segmentation"))) is not None:
            bbox = outline
            account.add("boxes computed from the segmentation", where, f"bbox is {entry.get('bbox')!r}")
        extra: dict[str, Any] = {key: entry[key] for key in ("id", "area", "iscrowd", "ignore") if key in entry}
        picture.boxes.append(SourceBox(row, name, bbox, extra=extra))


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


def _note_unlisted(tree: Tree, used: set[Path], account: Account) -> None:
    for picture in tree.pictures:
        if tree.root / picture not in used:
            account.add("pictures without labels (not known to be background), not used", picture)

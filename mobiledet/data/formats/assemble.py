"""From what an importer found to checked splits: sizes settled, faults dropped one by one, one list of classes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.data.checks import check_coco, collector_paused
from mobiledet.data.coco import CocoDataset
from mobiledet.data.faults import ERRORS
from mobiledet.data.formats.base import Account, ImportReport, Source, SourcePicture
from mobiledet.data.formats.tree import SPLIT_ORDER
from mobiledet.data.images import ImageInfo, check_container, read_bytes, stored_orientation
from mobiledet.data.verification import verify_images
from mobiledet.errors import DataError, ImageError

SAME_SHAPE = 0.02
"""Largest relative difference between two ratios of width to height that count as the same."""

STRAY = 2.0
"""Pixels by which boxes may stick out of a size that they still fit."""

_FROM_FILE = "image sizes taken from the file"
_ROTATION = "pictures whose EXIF rotation their size can't confirm, read as stored"


def assemble(
    source: Source, root: Path, account: Account, *, check_images: bool, progress: bool
) -> dict[str, CocoDataset]:
    """The splits of a data set, fit for training; what isn't is dropped and taken down in the account.

    Args:
        source: what the importer found; its pictures' boxes may be changed.
        root: the data set's folder.
        account: takes the findings.
        check_images: decode every picture. Otherwise only the sizes that are needed are read.
        progress: show a bar on a terminal while decoding.

    Raises:
        DataError: nothing usable is left.
    """
    if not source.categories:
        _refuse_useless({}, root, source, account, what="no object with a class")
    splits = _settle_splits(source.pictures, account)
    folder, names = _common_folder([p.path for pictures in splits.values() for p in pictures], root, account)
    found = _look_at(list(names), source, splits, folder, check_images=check_images, progress=progress)
    datasets = {}
    with collector_paused():
        for split in sorted(splits, key=lambda name: SPLIT_ORDER.get(name, len(SPLIT_ORDER))):
            pictures = _settle_sizes(splits[split], found, source, account)
            dataset = _check_split(split, pictures, source, folder, names, found, account)
            if dataset is not None:
                datasets[split] = dataset
    _refuse_useless(datasets, root, source, account)
    _note_classes(datasets, account)
    return datasets


def _settle_splits(pictures: list[SourcePicture], account: Account) -> dict[str, list[SourcePicture]]:
    """Pictures by split, each once; "trainval" is told apart into what it is made of."""
    splits: dict[str, dict[Path, SourcePicture]] = defaultdict(dict)
    for picture in pictures:
        first = splits[picture.split].setdefault(picture.path, picture)
        if first is picture:
            continue
        account.add("pictures listed twice in a split", str(picture.path.name), f"{picture.split}, {picture.labels}")
        if first.labels != picture.labels or first.image_id != picture.image_id:
            first.boxes = first.boxes + picture.boxes  # some exporters write one entry for each box
    both = splits.pop("trainval", {})
    if both and "train" in splits and "val" in splits:
        account.add("lists and files left aside", "split trainval", "train and val are there")
    elif both:
        part = "train" if "train" not in splits else "val"
        taken = {path for name in ("train", "val") for path in splits.get(name, {})}
        if rest := {path: replace(p, split=part) for path, p in both.items() if path not in taken}:
            splits[part] = rest
    where: dict[Path, list[str]] = defaultdict(list)
    for split, inside in splits.items():
        for path in inside:
            where[path].append(split)
    for path, names in where.items():
        if len(names) > 1:
            account.add("pictures in more than one split", path.name, " and ".join(names))
    return {split: list(inside.values()) for split, inside in splits.items() if inside}


def _common_folder(paths: list[Path], root: Path, account: Account) -> tuple[Path, dict[Path, str]]:
    """The folder that holds all pictures, and their names in it; the data set's own, unless links lead out of it."""
    real_root = os.path.join(os.path.realpath(root), "")  # noqa: PTH118
    parents: dict[str, str] = {}
    real: dict[Path, str] = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in parents:
            parents[folder] = os.path.realpath(folder)
        # Path.resolve for each of 118,000 pictures would take longer than reading their labels.
        real[path] = os.path.realpath(path) if path.is_symlink() else os.path.join(parents[folder], name)  # noqa: PTH118
    outside = [path for path, target in real.items() if not target.startswith(real_root)]
    if not outside and all(path.is_relative_to(root) for path in real):
        return root, {path: path.relative_to(root).as_posix() for path in real}
    for path in outside:
        account.add("pictures outside of the data set's folder", path.name, real[path])
    try:
        common = Path(os.path.commonpath([os.path.dirname(target) for target in real.values()]))  # noqa: PTH120
    except ValueError as error:
        raise DataError(f"{root}: its pictures lie on different drives; put them on one") from error
    return common, {path: Path(target).relative_to(common).as_posix() for path, target in real.items()}


def _look_at(
    paths: list[Path],
    source: Source,
    splits: dict[str, list[SourcePicture]],
    folder: Path,
    *,
    check_images: bool,
    progress: bool,
) -> dict[Path, ImageInfo | ImageError]:
    """What the pictures are, each decoded once; without decoding, only for those whose size is wanted."""
    if check_images:
        return dict(zip(paths, verify_images(paths, folder, progress=progress), strict=True))
    if source.format == "coco":
        needed = {p.path for pictures in splits.values() for p in pictures if not (p.size and all(p.size))}
        paths = [path for path in paths if path in needed]
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        return dict(zip(paths, pool.map(_peek, paths), strict=True))


def _peek(path: Path) -> ImageInfo | ImageError:
    from PIL import Image

    try:
        data = read_bytes(path)
        kind = check_container(path, data)
        with Image.open(path, formats=[kind]) as image:
            width, height = image.size
    except ImageError as error:
        return error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, ...
        return ImageError(f"{path} can't be read: {error}; copy or download it again, or take it out of the data")
    return ImageInfo(height, width, stored_orientation(data))


def _settle_sizes(
    pictures: list[SourcePicture], found: dict[Path, ImageInfo | ImageError], source: Source, account: Account
) -> list[SourcePicture]:
    """VOC only: a wrong size in the xml is put right, unless it says that the picture was scaled after labelling."""
    if source.format != "voc":
        return pictures
    kept = []
    for picture in pictures:
        info = found.get(picture.path)
        size = picture.size
        if isinstance(info, ImageInfo) and size and all(size) and size not in (info.upright_size, _stored(info)):
            actual = info.upright_size
            value = f"{size[1]} x {size[0]} (width x height), {picture.path.name} has {actual[1]} x {actual[0]}"
            same_shape = abs(size[0] * actual[1] / (size[1] * actual[0]) - 1) < SAME_SHAPE
            scaled = same_shape and picture.boxes and _fits(picture, size)
            if scaled or (_fits(picture, size) and not _fits(picture, actual)):
                account.add("pictures scaled after labelling", picture.labels, value)
                continue
            account.add("image sizes that were wrong, taken from the file", picture.labels, value)
            picture = replace(picture, size=None)
        kept.append(picture)
    return kept


def _stored(info: ImageInfo) -> tuple[int, int]:
    return info.height, info.width


def _fits(picture: SourcePicture, size: tuple[int, int]) -> bool:
    return all(
        box.bbox[0] + box.bbox[2] <= size[1] + STRAY and box.bbox[1] + box.bbox[3] <= size[0] + STRAY
        for box in picture.boxes
    )


def _check_split(
    split: str,
    pictures: list[SourcePicture],
    source: Source,
    folder: Path,
    names: dict[Path, str],
    found: dict[Path, ImageInfo | ImageError],
    account: Account,
) -> CocoDataset | None:
    """Check a split as any COCO file is, dropping what the checks refuse until they have nothing to say."""
    ids = _image_ids(pictures, account, split)
    while pictures:
        parsed, places = _coco_dict(pictures, ids, source, names, found)
        report = ImportReport(split, [f"{p.labels} ({p.path.name})" for p in pictures], places)
        columns = check_coco(parsed, folder, report, pictures=[found.get(p.path) for p in pictures])
        faulty_images, faulty_rows = report.faulty["images"], report.faulty["annotations"]
        if not faulty_images and not faulty_rows:
            report.raise_if_errors()
            _take_down(report, pictures, split, account)
            return CocoDataset(columns, annotation_file=source.annotation_file, image_dir=folder, report=report.plain())
        for kind, place, value in report.findings:
            if kind in ERRORS:
                account.add(kind, place, value)
        boxes = iter(range(len(places)))
        kept = []
        for row, picture in enumerate(pictures):
            rows = [next(boxes) for _ in picture.boxes]
            if row not in faulty_images:
                left = [box for box, at in zip(picture.boxes, rows, strict=True) if at not in faulty_rows]
                kept.append(picture if len(left) == len(rows) else replace(picture, boxes=left))
        ids = [id_ for row, id_ in enumerate(ids) if row not in faulty_images]
        pictures = kept
    return None


def _image_ids(pictures: list[SourcePicture], account: Account, split: str) -> list[int]:
    given = [picture.image_id for picture in pictures]
    if all(id_ is not None for id_ in given) and len(set(given)) == len(given):
        return [id_ for id_ in given if id_ is not None]
    if any(id_ is not None for id_ in given):
        account.add("image ids renumbered", f"split {split}", "the same id for several pictures, or none")
    return list(range(1, len(given) + 1))


def _coco_dict(
    pictures: list[SourcePicture],
    ids: list[int],
    source: Source,
    names: dict[Path, str],
    found: dict[Path, ImageInfo | ImageError],
) -> tuple[dict[str, Any], list[str]]:
    """A split as COCO has it, and the place of each annotation."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    places: list[str] = []
    for id_, picture in zip(ids, pictures, strict=True):
        image: dict[str, Any] = {"id": id_, "file_name": names[picture.path]}
        if picture.size is not None:
            image["height"], image["width"] = picture.size
        images.append(image)
        info = found.get(picture.path)
        for box in picture.boxes:
            bbox = box.bbox
            if box.shares and isinstance(info, ImageInfo):
                height, width = info.upright_size
                # Labels have six digits at most; more than that would only be noise to read.
                bbox = [round(n * side, 4) for n, side in zip(bbox, (width, height) * 2, strict=True)]
            entry = {"id": len(annotations) + 1, "iscrowd": 0} if source.format != "coco" else {}
            if source.format != "coco" and bbox[2] > 0 and bbox[3] > 0:
                entry["area"] = bbox[2] * bbox[3]
            entry |= {"image_id": id_, "category_id": source.categories[box.name], "bbox": bbox, **box.extra}
            annotations.append(entry)
            places.append(f"{picture.labels}, {source.row.format(box.row)}")
    categories = [{"id": id_, "name": name} for name, id_ in source.categories.items()]
    return {"images": images, "annotations": annotations, "categories": categories}, places


def _take_down(report: ImportReport, pictures: Sequence[SourcePicture], split: str, account: Account) -> None:
    unstated = {f"{p.labels} ({p.path.name})" for p in pictures if p.size is None}
    for kind, place, value in report.findings:
        if not (kind == _FROM_FILE and place in unstated):
            account.add(kind, place, value)
    if report.notes.get(_ROTATION):
        account.add(_ROTATION, f"split {split}", str(report.notes[_ROTATION]))
    # A format without sizes has nothing to repair there.
    left = report.counts[_FROM_FILE] - len(unstated)
    report.repairs = [fault for fault in report.repairs if fault.kind != _FROM_FILE or left > 0]
    report.counts[_FROM_FILE] = max(left, 0)


def _refuse_useless(
    datasets: dict[str, CocoDataset], root: Path, source: Source, account: Account, what: str = ""
) -> None:
    useful = datasets.get("train") or next(iter(datasets.values()), None)
    if useful is not None and useful.report.boxes:
        return
    dropped = [f"{n} {kind}" for kind, n in account.counts.items() if account.severity(kind) == "dropped"]
    what = what or "no usable picture" if useful is None else "no usable box to train on"
    first = next((line for line in account.lines() if line.startswith("dropped")), "")
    example = f"; {first.partition(' (')[2].rstrip(')')}"[:300] if first else ""
    raise DataError(
        f"{root}: read as {source.format} it has {what}"
        f"{': ' + ', '.join(dropped) if dropped else ''}{example}; check that this is the right folder and format"
    )


def _note_classes(datasets: dict[str, CocoDataset], account: Account) -> None:
    used = {split: set(_labels(dataset)) for split, dataset in datasets.items()}
    anywhere: set[int] = set().union(*used.values())
    trained = used.get("train", anywhere)
    for label, name in enumerate(next(iter(datasets.values())).names, 1):
        if label not in anywhere:
            account.add("classes without a box", repr(name), "in no split")
        elif label not in trained:
            account.add("classes without a box", repr(name), "in train")


def _labels(dataset: CocoDataset) -> list[int]:
    found: list[int] = np.unique(dataset.labels()).tolist()
    return found

"""From what an importer found to checked splits: sizes settled, faults dropped one by one, one list of classes."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import compress
from pathlib import Path

import numpy as np

from mobiledet.data.annotation_checks import Entry
from mobiledet.data.checks import check_coco
from mobiledet.data.coco import CocoDataset
from mobiledet.data.faults import EXAMPLES, CheckReport, Fault, FaultRecord, ImportLog, Severity
from mobiledet.data.formats.base import Annotations, ImportedImages, SourceImage
from mobiledet.data.formats.tree import SPLIT_ORDER, Tree
from mobiledet.data.images import ImageInfo, verify_images
from mobiledet.errors import DataError, ImageError
from mobiledet.structures import IntArray
from mobiledet.utils.settings import ReadingConfig
from mobiledet.utils.text import listing

SAME_SHAPE = 0.02
"""Largest relative difference between two ratios of width to height that count as the same."""

STRAY = 2.0
"""Pixels by which boxes may stick out of a size that they still fit."""


def assemble(source: ImportedImages, tree: Tree, log: ImportLog, *, progress: bool) -> dict[str, CocoDataset]:
    """The splits of a data set, fit for training; what isn't is dropped and recorded in the log.

    Every image is decoded once. The boxes of the source's images may be changed.

    Raises:
        DataError: nothing usable is left.
    """
    root = tree.root
    if not source.categories:
        _refuse_useless({}, root, source, log, what="no object with a class")
    splits = _settle_splits(source.images, log)
    folder, names = _common_folder([p.path for images in splits.values() for p in images], root, log)
    paths = list(names)
    found = dict(zip(paths, verify_images(paths, folder, progress=progress), strict=True))
    datasets = {}
    for split in sorted(splits, key=lambda name: SPLIT_ORDER.get(name, len(SPLIT_ORDER))):
        images = _settle_sizes(splits[split], found, source, log)
        dataset = _check_split(split, images, source, folder, names, found, log, tree.reading)
        if dataset is not None:
            datasets[split] = dataset
    _refuse_useless(datasets, root, source, log)
    _note_classes(datasets, log)
    return datasets


def _settle_splits(images: list[SourceImage], log: ImportLog) -> dict[str, list[SourceImage]]:
    """Images by split, each file once, also by links to it; "trainval" is split into train and val."""
    splits: dict[str, dict[Path, SourceImage]] = defaultdict(dict)
    for image in images:
        file = image.path.resolve() if image.path.is_symlink() else image.path
        first = splits[image.split].setdefault(file, image)
        if first is image:
            continue
        log.add(Fault.LISTED_TWICE, image.path.name, f"{image.split}, {image.labels}")
        if first.labels != image.labels or first.image_id != image.image_id:
            first.boxes += image.boxes  # some exporters write one entry for each box
            first.lost += image.lost
            first.numbers += image.numbers
    both = splits.pop("trainval", {})
    if both and "train" in splits and "val" in splits:
        log.add(Fault.LEFT_ASIDE, "split trainval", "train and val are there")
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
            log.add(Fault.IMAGE_IN_SPLITS, path.name, " and ".join(names))
    return {split: list(inside.values()) for split, inside in splits.items() if inside}


def _common_folder(paths: list[Path], root: Path, log: ImportLog) -> tuple[Path, dict[Path, str]]:
    """The folder that holds all images, and their names in it; the data set's own, unless links lead out of it."""
    real_root = os.path.join(os.path.realpath(root), "")  # noqa: PTH118
    parents: dict[str, str] = {}
    real: dict[Path, str] = {}
    for path in paths:
        folder, name = os.path.split(path)
        if folder not in parents:
            parents[folder] = os.path.realpath(folder)
        # Path.resolve for each of 118,000 images would take longer than reading their labels.
        real[path] = os.path.realpath(path) if path.is_symlink() else os.path.join(parents[folder], name)  # noqa: PTH118
    outside = [path for path, target in real.items() if not target.startswith(real_root)]
    beginning = os.path.join(root, "")  # noqa: PTH118
    texts = {path: os.fspath(path) for path in real}
    if not outside and all(text.startswith(beginning) for text in texts.values()):
        return root, {path: text[len(beginning) :].replace(os.sep, "/") for path, text in texts.items()}
    for path in outside:
        log.add(Fault.IMAGE_OUTSIDE, path.name, real[path])
    try:
        common = Path(os.path.commonpath([os.path.dirname(target) for target in real.values()]))  # noqa: PTH120
    except ValueError as error:
        raise DataError(f"{root}: its images lie on different drives; put them on one") from error
    return common, {path: Path(target).relative_to(common).as_posix() for path, target in real.items()}


def _settle_sizes(
    images: list[SourceImage], found: dict[Path, ImageInfo | ImageError], source: ImportedImages, log: ImportLog
) -> list[SourceImage]:
    """VOC only: a wrong size in the xml is corrected, unless it says that the image was scaled after labelling."""
    if not source.check_sizes:
        return images
    kept = []
    for image in images:
        info = found.get(image.path)
        size = image.size
        if isinstance(info, ImageInfo) and size and all(size) and size not in (info.upright_size, info.stored_size):
            actual = info.upright_size
            value = f"{size[1]} x {size[0]} (width x height), {image.path.name} has {actual[1]} x {actual[0]}"
            same_shape = abs(size[0] * actual[1] / (size[1] * actual[0]) - 1) < SAME_SHAPE
            scaled = same_shape and image.boxes and _fits(image, size)
            if scaled or (_fits(image, size) and not _fits(image, actual)):
                log.add(Fault.SCALED, image.labels, value)
                continue
            log.add(Fault.SIZE_WRONG, image.labels, value)
            image = replace(image, size=None)
        kept.append(image)
    return kept


def _fits(image: SourceImage, size: tuple[int, int]) -> bool:
    return all(
        box.bbox[0] + box.bbox[2] <= size[1] + STRAY and box.bbox[1] + box.bbox[3] <= size[0] + STRAY
        for box in image.boxes
    )


def _check_split(
    split: str,
    images: list[SourceImage],
    source: ImportedImages,
    folder: Path,
    names: dict[Path, str],
    found: dict[Path, ImageInfo | ImageError],
    log: ImportLog,
    reading: ReadingConfig,
) -> CocoDataset | None:
    """Check a split as any COCO file is, dropping what the checks refuse until they have nothing to say."""
    images = _with_ids(images, log, split)
    if source.annotations is not None:
        objects = _own_annotations(images, source.annotations)
    else:
        objects = _as_annotations(images, source.categories, found)
    while images:
        if source.annotations is None:
            for number, entry in enumerate(objects.entries, 1):
                entry["id"] = number
        report = CheckReport(split, limit=None)
        known, lost = [found[p.path] for p in images], [p.lost for p in images]
        parsed = {
            "images": [
                {"id": image.image_id, "file_name": names[image.path]}
                | ({} if image.size is None else {"height": image.size[0], "width": image.size[1]})
                for image in images
            ],
            "annotations": objects.entries,
            "categories": [{"id": id_, "name": name} for name, id_ in source.categories.items()],
        }
        columns = check_coco(parsed, folder, report, known=known, lost=lost, reading=reading)
        records: list[FaultRecord] = []
        faulty: dict[str, set[int]] = {"images": set(), "annotations": set()}
        for record in _by_image(report, objects.images):
            section = record.place.partition("[")[0]
            place = _shown(record, images, objects, source.row) if section in faulty else record.place
            records.append(replace(record, place=place))
            if section in faulty and record.fault.severity is Severity.REFUSED:
                faulty[section].add(record.row)
        if not any(faulty.values()):
            report.raise_if_errors()
            _record_findings(report, records, images, log)
            if not len(columns.image_ids):
                return None
            files = {image.labels for image in images} if source.annotations and source.annotation_file.is_dir() else ()
            file = source.annotation_file.joinpath(*files) if len(files) == 1 else source.annotation_file
            return CocoDataset(columns, annotation_file=file, image_dir=folder, report=report)
        for record in records:
            if record.fault.severity is Severity.REFUSED:
                log.add(record.fault, record.place, record.value)
        images, objects = _without(faulty, images, objects)
    return None


def _by_image(report: CheckReport, places: IntArray) -> Iterator[FaultRecord]:
    """All faults; those of annotations sorted by the places of their images."""
    for found in report.examples.values():
        if found[0].place.startswith("annotations["):
            found.sort(key=lambda record: int(places[record.row]))
        yield from found


def _shown(record: FaultRecord, images: list[SourceImage], objects: Annotations, row: str) -> str:
    """Where a fault is in the files that were imported."""
    if record.place.startswith("images["):
        return f"{images[record.row].labels} ({images[record.row].path.name})"
    return f"{images[objects.images[record.row]].labels}, {row.format(objects.rows[record.row])}"


def _with_ids(images: list[SourceImage], log: ImportLog, split: str) -> list[SourceImage]:
    given = {image.image_id for image in images}
    if None not in given and len(given) == len(images):
        return images
    if given != {None}:
        log.add(Fault.IMAGE_RENUMBERED, f"split {split}", "the same id for several images, or none")
    return [replace(image, image_id=number) for number, image in enumerate(images, 1)]


def _own_annotations(images: list[SourceImage], given: Annotations) -> Annotations:
    """Those of some images alone, each with the place of its image among these."""
    places = {number: place for place, image in enumerate(images) for number in image.numbers}
    found = np.array([places.get(number, -1) for number in given.images.tolist()], np.int64)
    chosen = found >= 0
    entries, found = list(compress(given.entries, chosen)), found[chosen]
    ids = [image.image_id for image in images]
    for entry, place in zip(entries, found.tolist(), strict=True):
        entry["image_id"] = ids[place]
    return Annotations(entries, found, given.rows[chosen])


def _as_annotations(
    images: list[SourceImage], categories: dict[str, int], infos: dict[Path, ImageInfo | ImageError]
) -> Annotations:
    """The boxes of some images as COCO would have them, but for ids of their own."""
    entries: list[Entry] = []
    places: list[int] = []
    rows: list[int] = []
    for place, image in enumerate(images):
        info = infos.get(image.path)
        for box in image.boxes:
            bbox = box.bbox
            if box.shares and isinstance(info, ImageInfo):
                height, width = info.upright_size
                # Labels have six digits at most; more than that would only be noise to read.
                bbox = [round(n * side, 4) for n, side in zip(bbox, (width, height) * 2, strict=True)]
            ids = {"image_id": image.image_id, "category_id": categories[box.name]}
            entry = {"iscrowd": 0, **box.extra, **ids, "bbox": bbox}
            if bbox[2] > 0 and bbox[3] > 0:
                entry["area"] = bbox[2] * bbox[3]
            entries.append(entry)
            places.append(place)
            rows.append(box.row)
    return Annotations(entries, np.array(places, np.int64), np.array(rows, np.int64))


def _without(
    faulty: dict[str, set[int]], images: list[SourceImage], objects: Annotations
) -> tuple[list[SourceImage], Annotations]:
    """The images and annotations but some, given by their rows; an image's lost objects are counted."""
    entries, places, rows = objects
    sound, stays = np.ones(len(entries), np.bool_), np.ones(len(images), np.bool_)
    sound[list(faulty["annotations"])] = False
    stays[list(faulty["images"])] = False
    lost = np.bincount(places[~sound], minlength=len(images)).tolist()
    images = [replace(image, lost=image.lost + more) for image, more in zip(images, lost, strict=True)]
    sound &= stays[places]
    places = (np.cumsum(stays) - 1)[places]
    return list(compress(images, stays)), Annotations(list(compress(entries, sound)), places[sound], rows[sound])


def _record_findings(
    report: CheckReport, records: list[FaultRecord], images: list[SourceImage], log: ImportLog
) -> None:
    """Move what the checks repaired and noted into the log. A format without sizes has none to repair."""
    unstated = {f"{p.labels} ({p.path.name})" for p in images if p.size is None}
    for record in records:
        if not (record.fault is Fault.SIZE_FROM_FILE and record.place in unstated):
            log.add(record.fault, record.place, record.value)
    left = report.counts.pop(Fault.SIZE_FROM_FILE, 0) - len(unstated)
    if left > 0:
        report.counts[Fault.SIZE_FROM_FILE] = left
    report.examples = {fault: found[:EXAMPLES] for fault, found in report.examples.items()}


def _refuse_useless(
    datasets: dict[str, CocoDataset], root: Path, source: ImportedImages, log: ImportLog, what: str = ""
) -> None:
    useful = datasets.get("train") or next(iter(datasets.values()), None)
    if useful is not None and len(useful.objects()):
        return
    dropped = log.dropped()
    what = (
        what or "no usable image"
        if useful is None and Fault.IMAGE_EMPTIED not in log.records
        else "no usable box to train on"
    )
    kinds = ": " + ", ".join(f"{log.counts[fault]} {fault.text}" for fault in dropped) if dropped else ""
    example = f"; {listing(log.records[dropped[0]], log.EXAMPLES, '; ')}"[:300] if dropped else ""
    remedy = next((fault.remedy for fault in dropped if fault.remedy), "")
    remedy = remedy or "check that this is the right folder and format"
    raise DataError(f"{root}: read as {source.format} it has {what}{kinds}{example}; {remedy}")


def _note_classes(datasets: dict[str, CocoDataset], log: ImportLog) -> None:
    used = {split: set(np.unique(dataset.objects()).tolist()) for split, dataset in datasets.items()}
    anywhere: set[int] = set().union(*used.values())
    trained = used.get("train", anywhere)
    for label, name in enumerate(next(iter(datasets.values())).names, 1):
        if label not in trained:
            log.add(Fault.CLASS_EMPTY, repr(name), "in train" if label in anywhere else "in no split")

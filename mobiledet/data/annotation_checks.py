"""The checks of a COCO file's annotations: references, boxes, flags, ids and areas.

`mobiledet.data.checks` has the rules in one table.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mobiledet.data.faults import CheckReport, Describe, Fault
from mobiledet.structures import BoolArray, IntArray

CLIP_TOLERANCE = 1.0
"""Pixels by which a box may stick out of its image before clipping it counts as a repair."""

Entry: TypeAlias = dict[str, Any]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class AnnotationColumns:
    """The annotations that are fit for use, M of them, sorted by image and in the file's order within one.

    Attributes:
        image_row: ``(M,)`` index into the file's images.
        category_row: ``(M,)`` index into the categories sorted by id.
        boxes_xywh: ``(M, 4)`` float64, absolute pixels.
        iscrowd: ``(M,)``.
        ignore: ``(M,)``.
        areas: ``(M,)`` float64, pixels.
        ids: ``(M,)``, each 1 or more.
    """

    image_row: IntArray
    category_row: IntArray
    boxes_xywh: Floats
    iscrowd: BoolArray
    ignore: BoolArray
    areas: Floats
    ids: IntArray


def check_annotations(
    annotations: list[Entry],
    images: list[Entry],
    report: CheckReport,
    *,
    image_ids: IntArray,
    category_ids: IntArray,
    sizes: IntArray,
    min_box_size: float,
) -> AnnotationColumns:
    """Check the annotations; faults go to the report, what is sound into columns.

    Args:
        annotations: as parsed; left as they are.
        images: as parsed, N of them; named in the report.
        report: takes the faults.
        image_ids: ``(N,)``.
        category_ids: ``(K,)`` in ascending order.
        sizes: ``(N, 2)`` heights and widths; 0 where unknown.
        min_box_size: boxes narrower or lower than this many pixels are dropped.
    """
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
    return AnnotationColumns(
        image_row[kept], category_row[kept], boxes[kept], iscrowd[kept], ignore[kept], areas[kept], ids[kept]
    )


def _annotation_place(row: int, annotations: list[Entry], images: list[Entry], image_row: IntArray) -> str:
    image = int(image_row[row])
    name = f", {images[image].get('file_name')!r}" if image >= 0 else ""
    return f"annotations[{row}] (image {annotations[row].get('image_id')!r:.40}{name})"


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

    report.add(Fault.UNKNOWN_IMAGE, np.flatnonzero(image_row < 0), describe_with("image_id"))
    report.add(Fault.UNKNOWN_CATEGORY, np.flatnonzero(category_row < 0), describe_with("category_id"))
    report.add(Fault.ID_CONVERTED, np.flatnonzero(image_text), describe_with("image_id"))
    report.add(Fault.ID_CONVERTED, np.flatnonzero(category_text), describe_with("category_id"))
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
            boxes = np.array([four_floats(value) for value in values], np.float64)
    else:
        rows = [four_floats(value) if fits else [0.0] * 4 for value, fits in zip(values, four, strict=True)]
        boxes = np.array(rows, np.float64).reshape(-1, 4)
    finite = np.isfinite(boxes).all(axis=1)
    report.add(Fault.BOX_NOT_NUMBERS, np.flatnonzero(~four), describe)
    report.add(Fault.BOX_NOT_FINITE, np.flatnonzero(~finite), describe)
    boxes[~finite] = 0
    return boxes, four & finite


def _check_crowds(annotations: list[Entry], report: CheckReport, describe: Describe) -> BoolArray:
    raw = [entry.get("iscrowd") for entry in annotations]
    absent = [row for row, value in enumerate(raw) if value is None]
    numbers, good, _ = whole_numbers([int(value) if isinstance(value, bool) else value or 0 for value in raw])
    wrong = np.flatnonzero(~good | (numbers < 0) | (numbers > 1))
    kind = Fault.CROWD_FLAG
    report.add(kind, wrong, lambda row: (describe(row)[0], f"iscrowd is {raw[row]!r:.40}"))
    report.add(Fault.CROWD_ABSENT, absent, describe)
    iscrowd: BoolArray = numbers == 1
    return iscrowd


def _check_annotation_ids(annotations: list[Entry], report: CheckReport, describe: Describe) -> IntArray:
    ids, _, converted = whole_numbers([entry.get("id") for entry in annotations])
    bad = np.flatnonzero((ids < 1) | repeats(ids))

    def describe_id(row: int) -> tuple[str, str]:
        return describe(row)[0], f"id is {annotations[row].get('id')!r:.40}"

    report.add(Fault.ID_CONVERTED, np.flatnonzero(converted), describe_id)
    report.add(Fault.ANNOTATION_ID, bad, describe_id)
    return np.arange(1, len(ids) + 1) if len(bad) else ids


def _check_geometry(
    boxes: Floats, sizes: IntArray, sound: BoolArray, min_box_size: float, report: CheckReport, describe: Describe
) -> tuple[BoolArray, BoolArray]:
    """Clips ``boxes`` in place; returns which boxes to keep and which were clipped."""
    limits = sizes[:, ::-1].astype(np.float64)  # (M, 2) width, height
    low, extent = boxes[:, :2], boxes[:, 2:]
    high = low + extent
    flat = sound & (extent <= 0).any(axis=1)
    sound = sound & ~flat & (limits > 0).all(axis=1)  # the size of a missing image may be unknown
    outside = sound & ((low >= limits) | (high <= 0)).any(axis=1)
    inner_low, inner_high = np.clip(low, 0, limits), np.clip(high, 0, limits)
    keep = sound & ~outside
    small = keep & (inner_high - inner_low < min_box_size).any(axis=1)
    keep &= ~small
    clipped = keep & (np.maximum(-low, high - limits) > CLIP_TOLERANCE).any(axis=1)

    def describe_size(row: int) -> tuple[str, str]:
        place, value = describe(row)
        return place, f"{value} in {sizes[row][1]} x {sizes[row][0]} (width x height)"

    report.add(Fault.BOX_FLAT, np.flatnonzero(flat), describe)
    report.add(Fault.BOX_OUTSIDE, np.flatnonzero(outside), describe_size)
    report.add(Fault.BOX_CLIPPED, np.flatnonzero(clipped), describe_size)
    report.add(Fault.BOX_SMALL, np.flatnonzero(small), describe_size)
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
    report.add(Fault.BOX_DUPLICATE, doubled, describe)
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

    report.add(Fault.AREA_COMPUTED, np.flatnonzero(computed), describe_area)
    return np.where(computed, box_areas, np.where(clipped, np.minimum(given, box_areas), given))


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


def repeats(values: IntArray) -> BoolArray:
    """Which values have already occurred further up."""
    repeated = np.ones(len(values), np.bool_)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated


def four_floats(values: list[Any]) -> list[float]:
    """Each value as a float: not a number where it is none (text and truth values too), infinite where too large."""

    def number(value: object) -> float:
        try:
            return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan
        except OverflowError:
            return np.inf

    return [number(value) for value in values]

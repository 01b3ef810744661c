"""The checks of a COCO file's annotations: references, boxes, flags, ids and areas.

`mobiledet.data.checks` has the rules in one table.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mobiledet.data.faults import CheckReport, Fault
from mobiledet.structures import BoolArray, IntArray

CLIP_TOLERANCE = 1.0
"""Pixels by which a box may stick out of its image before clipping it counts as a repair."""

MIN_BOX_SIDE = 1.0
"""Boxes narrower or lower than this many pixels are dropped."""

MIN_CENTRED, CENTRED_SHARE = 5, 0.05
"""How many boxes, and which share, stick out at least where boxes are taken for ones given by their centres."""

Entry: TypeAlias = dict[str, Any]
Floats: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class AnnotationColumns:
    """The annotations of N images that are fit for use, M of them, sorted by image and in the file's order within one.

    Attributes:
        offsets: ``(N + 1,)``; image ``i`` has the annotations ``offsets[i]:offsets[i + 1]``.
        boxes_xywh: ``(M, 4)`` float64, absolute pixels.
        labels: ``(M,)`` in ``1..K``: the place among the categories sorted by id.
        iscrowd: ``(M,)``.
        ignore: ``(M,)``.
        areas: ``(M,)`` float64, pixels.
        annotation_ids: ``(M,)``, each 1 or more.
        emptied: ``(N,)``; whether an image has annotations, and none that is fit for use.
    """

    offsets: IntArray
    boxes_xywh: Floats
    labels: IntArray
    iscrowd: BoolArray
    ignore: BoolArray
    areas: Floats
    annotation_ids: IntArray
    emptied: BoolArray


def check_annotations(
    annotations: list[Entry],
    images: list[Entry],
    report: CheckReport,
    *,
    image_ids: IntArray,
    category_ids: IntArray,
    sizes: IntArray,
    lost: Sequence[int] = (),
    any_form: bool = True,
) -> AnnotationColumns:
    """Check the annotations; faults go to the report, what is sound into columns.

    Args:
        annotations: as parsed; left as they are.
        images: as parsed, N of them; named in the report.
        report: takes the faults.
        image_ids: ``(N,)``.
        category_ids: ``(K,)`` in ascending order.
        sizes: ``(N, 2)`` heights and widths; 0 where unknown.
        lost: N numbers of objects that aren't among the annotations because they can't be used; empty for none.
        any_form: whether boxes that fit only in another form than COCO's are a fault.
    """
    found = _Annotations(annotations, images, image_ids, report)
    image_row, category_row = found.image_row, found.rows_of("category_id", category_ids, Fault.UNKNOWN_CATEGORY)
    boxes, sound = _check_numbers(found)
    sound &= (image_row >= 0) & (category_row >= 0)
    iscrowd = _check_crowds(found)
    ids = _check_annotation_ids(found)
    size_of = sizes[np.maximum(image_row, 0)] if len(sizes) else np.zeros((len(boxes), 2), np.int64)
    keep, clipped = _check_geometry(found, boxes, size_of, sound, any_form=any_form)
    doubled = _duplicates(keep, boxes, iscrowd, category_row, image_row)
    found.add(Fault.BOX_DUPLICATE, doubled)
    keep &= ~doubled
    areas = _check_areas(found, boxes, keep, clipped)
    ignore = np.array(
        [("ignore" in entry or "difficult" in entry) and is_ignored(entry) for entry in annotations], np.bool_
    )
    found.add(Fault.DIFFICULT, keep & ignore, "category_id")

    kept = np.flatnonzero(keep)
    kept = kept[np.argsort(image_row[kept], kind="stable")]
    offsets = np.searchsorted(image_row[kept], np.arange(len(images) + 1)).astype(np.int64)
    given = np.bincount(image_row[image_row >= 0], minlength=len(images)) + np.array(
        lost or [0] * len(images), np.int64
    )
    emptied = (given > 0) & (np.diff(offsets) == 0)
    report.add(
        Fault.IMAGE_EMPTIED,
        np.flatnonzero(emptied),
        lambda row: (
            f"images[{row}] (id {images[row].get('id')!r:.40}, {images[row].get('file_name')!r:.60})",
            f"{given[row]} in all",
        ),
    )
    return AnnotationColumns(
        offsets, boxes[kept], category_row[kept] + 1, iscrowd[kept], ignore[kept], areas[kept], ids[kept], emptied
    )


class _Annotations:
    """A file's annotations: their values by key, and their faults with place and value.

    ``image_row`` is, for each, the row of its image; -1 where there is none.
    """

    def __init__(self, entries: list[Entry], images: list[Entry], image_ids: IntArray, report: CheckReport) -> None:
        self.entries, self.images, self.report = entries, images, report
        self.image_row = np.full(len(entries), -1, np.int64)
        self.image_row = self.rows_of("image_id", image_ids, Fault.UNKNOWN_IMAGE)

    def values(self, key: str) -> list[Any]:
        return [entry.get(key) for entry in self.entries]

    def add(self, fault: Fault, wrong: BoolArray, key: str = "bbox", more: Callable[[int], str] | None = None) -> None:
        """Report a fault of some annotations; ``more`` follows the value under ``key``."""

        def describe(row: int) -> tuple[str, str]:
            image, entry = int(self.image_row[row]), self.entries[row]
            name = f", {self.images[image].get('file_name')!r}" if image >= 0 else ""
            value = f"{key} is {entry.get(key)!r:.{100 if key == 'bbox' else 40}}"
            place = f"annotations[{row}] (image {entry.get('image_id')!r:.40}{name})"
            return place, value + (more(row) if more is not None else "")

        self.report.add(fault, np.flatnonzero(wrong), describe)

    def rows_of(self, key: str, ids: IntArray, unknown: Fault) -> IntArray:
        """For each annotation the place in ``ids`` of the id under ``key``; -1, and reported, where it isn't in it."""
        wanted, good, converted = whole_numbers(self.values(key))
        rows = np.full(len(wanted), -1, np.int64)
        if len(ids):
            order = np.argsort(ids, kind="stable")
            nearest = order[np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)]
            rows = np.where(good & (ids[nearest] == wanted), nearest, -1)
        if key == "image_id":
            self.image_row = rows
        self.add(unknown, rows < 0, key)
        self.add(Fault.ID_CONVERTED, converted, key)
        return rows


def _check_numbers(found: _Annotations) -> tuple[Floats, BoolArray]:
    """Boxes ``(M, 4)``, zero where they can't be used, and which can."""
    values = found.values("bbox")
    four = np.array([isinstance(value, list) and len(value) == 4 for value in values], np.bool_)
    if not four.all():
        values = [value if fits else [0.0] * 4 for value, fits in zip(values, four, strict=True)]
    boxes = floats(list(chain.from_iterable(values))).reshape(-1, 4)
    finite = np.asarray(np.isfinite(boxes).all(axis=1))
    found.add(Fault.BOX_NOT_NUMBERS, ~four)
    found.add(Fault.BOX_NOT_FINITE, ~finite)
    boxes[~finite] = 0
    return boxes, four & finite


def _check_crowds(found: _Annotations) -> BoolArray:
    raw = found.values("iscrowd")
    numbers, good, _ = whole_numbers([int(value) if isinstance(value, bool) else value or 0 for value in raw])
    found.add(Fault.CROWD_FLAG, ~good | (numbers < 0) | (numbers > 1), "iscrowd")
    found.add(Fault.CROWD_ABSENT, np.array([value is None for value in raw], np.bool_))
    iscrowd: BoolArray = numbers == 1
    return iscrowd


def _check_annotation_ids(found: _Annotations) -> IntArray:
    ids, _, converted = whole_numbers(found.values("id"))
    bad: BoolArray = (ids < 1) | repeats(ids)
    found.add(Fault.ID_CONVERTED, converted, "id")
    found.add(Fault.ANNOTATION_ID, bad, "id")
    if bad.any():
        ids = np.empty_like(ids)
        ids[np.argsort(found.image_row, kind="stable")] = np.arange(1, len(ids) + 1)
    return ids


def _check_geometry(
    found: _Annotations, boxes: Floats, sizes: IntArray, sound: BoolArray, *, any_form: bool
) -> tuple[BoolArray, BoolArray]:
    """Clips ``boxes`` in place; returns which boxes to keep and which were clipped."""
    limits = sizes[:, ::-1].astype(np.float64)  # (M, 2) width, height
    low, extent = boxes[:, :2], boxes[:, 2:]
    high = low + extent
    flat = sound & (extent <= 0).any(axis=1)
    sound = sound & ~flat & (limits > 0).all(axis=1)  # the size of a missing image may be unknown
    if any_form and (form := _other_form(boxes[sound], limits[sound])):
        found.add(Fault.BOX_FORM, sound, more=lambda row: f" in {_size(sizes[row])}; all fit as {form}")
        sound = np.zeros_like(sound)
    outside = sound & ((low >= limits) | (high <= 0)).any(axis=1)
    inner_low, inner_high = np.clip(low, 0, limits), np.clip(high, 0, limits)
    keep = sound & ~outside
    small = keep & (inner_high - inner_low < MIN_BOX_SIDE).any(axis=1)
    keep &= ~small
    clipped = keep & (np.maximum(-low, high - limits) > CLIP_TOLERANCE).any(axis=1)
    found.add(Fault.BOX_FLAT, flat)
    for fault, wrong in ((Fault.BOX_OUTSIDE, outside), (Fault.BOX_CLIPPED, clipped), (Fault.BOX_SMALL, small)):
        found.add(fault, wrong, more=lambda row: f" in {_size(sizes[row])}")
    boxes[clipped] = np.concatenate([inner_low, inner_high - inner_low], axis=1)[clipped]
    return keep, clipped


def _size(size: IntArray) -> str:
    return f"{size[1]} x {size[0]} (width x height)"


def _other_form(boxes: Floats, limits: Floats) -> str | None:
    """The form in which boxes all fit into their images while many don't as ``[x, y, width, height]`` in pixels."""
    first, second = boxes[:, :2], boxes[:, 2:]
    if len(boxes) and (boxes <= 1).all() and (limits > 1).all():
        return "shares of the image"
    outside = (np.maximum(-first, first + second - limits) > CLIP_TOLERANCE).any(axis=1)

    def all_fit(low: Floats, high: Floats) -> bool:
        return bool(((low >= -CLIP_TOLERANCE) & (high <= limits + CLIP_TOLERANCE) & (low <= high)).all())

    if 2 * outside.sum() > len(boxes):
        if all_fit(first, second):
            return "[x1, y1, x2, y2]"
        if all_fit(first[:, ::-1], second[:, ::-1]):
            return "[y1, x1, y2, x2]"
    # Of boxes given by their centres only those towards the right and the bottom stick out.
    if (
        outside.sum() >= MIN_CENTRED
        and outside.mean() >= CENTRED_SHARE
        and all_fit(first - second / 2, first + second / 2)
    ):
        return "[centre x, centre y, width, height]"
    return None


def _duplicates(
    keep: BoolArray, boxes: Floats, iscrowd: BoolArray, category_row: IntArray, image_row: IntArray
) -> BoolArray:
    """Of the boxes kept that agree in image, class, place and crowd flag, all but the first."""
    rows = np.flatnonzero(keep)
    keys = [*boxes[rows, ::-1].T, iscrowd[rows], category_row[rows], image_row[rows]]
    order = np.lexsort(keys)  # stable, so the first of equals comes first
    same = np.ones(max(0, len(rows) - 1), np.bool_)
    for key in keys:
        same &= key[order[1:]] == key[order[:-1]]
    doubled = np.zeros(len(keep), np.bool_)
    doubled[rows[order[1:][same]]] = True
    return doubled


def _check_areas(found: _Annotations, boxes: Floats, keep: BoolArray, clipped: BoolArray) -> Floats:
    """Areas as given (of the mask, often), at most that of a box which had to be clipped."""
    given = floats(found.values("area"))
    good = (given > 0) & (given < 1e300)
    given[~good] = 0
    box_areas = boxes[:, 2] * boxes[:, 3]
    found.add(Fault.AREA_COMPUTED, keep & ~good, "area")
    return np.where(keep & ~good, box_areas, np.where(clipped, np.minimum(given, box_areas), given))


def is_ignored(entry: Mapping[str, Any]) -> bool:
    """Whether an annotation marks an object as neither to be found nor background.

    That is ``ignore``, or ``difficult`` as VOC calls it, set by any tool: 1, true, "1", "True", "yes".
    """
    value = entry.get("ignore") or entry.get("difficult")
    return bool(value) and str(value).strip().lower() in ("1", "1.0", "true", "yes")


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


def floats(values: list[Any]) -> Floats:
    """Each value as a float: not a number where it is none (text and truth values too), infinite where too large."""

    def number(value: object) -> float:
        try:
            return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan
        except OverflowError:
            return np.inf

    if set(map(type, values)) <= {int, float}:
        with suppress(OverflowError):
            return np.array(values, np.float64)
    return np.array([number(value) for value in values], np.float64)

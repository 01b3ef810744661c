"""Pictures and boxes that look wrong: missing labels, boxes labelled twice, boxes that nobody drew."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.duplicates import Duplicates
from mobiledet.apps.doctor.report import Section, percent
from mobiledet.data.images import read_image
from mobiledet.errors import DataError, ImageError
from mobiledet.structures import Detections, FloatArray, ImageArray, IntArray
from mobiledet.utils.text import count

LABELLED_SHARE = 0.95
"""From this share of pictures with boxes on, one without is suspect rather than background."""

WHOLE_SHARE = 0.95
"""A box over this share of its picture covers nearly all of it."""

SAME_BOX = 0.9
"""IoU from which two boxes are the same object labelled twice."""

MIN_SCORE, MAX_OVERLAP = 0.5, 0.3
"""A detection with this score or more that overlaps every label by less than this IoU may be an unlabelled object."""

_PLACEHOLDERS = 10  # boxes of one class, all of one size, from which on it is odd
_CHUNK = 512


@dataclass(frozen=True)
class Suspect:
    """A picture to look at.

    Attributes:
        row: the picture.
        why: in a few words.
        marked: ``(N, 4)`` the boxes in question, where it isn't the picture as a whole.
        detections: what a model found there and no label covers.
    """

    row: int
    why: str
    marked: FloatArray | None = None
    detections: Detections | None = None


@dataclass
class Suspects:
    """What looks wrong: the chapter of the report, and the pictures for the page, worst first."""

    section: Section
    pictures: list[Suspect] = field(default_factory=list)


def find_suspects(collection: Collection, duplicates: Duplicates) -> Suspects:
    """Everything that can be told without a model."""
    suspects = Suspects(Section("Suspects"))
    _without_boxes(collection, suspects)
    _copies_with_more(collection, duplicates, suspects)
    _labelled_twice(collection, suspects)
    _whole_picture(collection, suspects)
    _placeholders(collection, suspects)
    return suspects


def find_unlabelled(
    collection: Collection,
    detect: Callable[[ImageArray], Detections],
    names: Sequence[str],
    *,
    wrap: Callable[[range], Iterator[int]] = iter,
) -> Suspects:
    """Pictures where a model is sure of objects that no label covers.

    Args:
        collection: the pictures; each is read once more.
        detect: the model: RGB picture in, detections in its pixels out.
        names: the model's class names; those the data has too count, whatever their case.
        wrap: goes around the range of rows, for a progress bar.

    Raises:
        DataError: model and data have no class in common.
    """
    section = Section("What a model finds unlabelled")
    suspects = Suspects(section)
    shared = shared_classes(names, collection.names)
    wanted = np.array([name in shared for name in names], np.bool_)
    missed: dict[str, int] = {}
    for row in wrap(range(len(collection))):
        record = collection.record(row)
        try:
            image = read_image(record.path, apply_orientation=record.apply_orientation)
        except ImageError:
            continue  # told already
        found = detect(image).above(MIN_SCORE)
        found = found.keep(wanted[found.labels - 1])
        found = found.keep(_overlap(found.boxes, record.target.boxes).max(axis=1, initial=0) < MAX_OVERLAP)
        if record.target.iscrowd.any():
            found = found.keep(~_lies_in(found.boxes, record.target.boxes[record.target.iscrowd]))
        if len(found):
            suspects.pictures.append(Suspect(row, f"{len(found)} unlabelled?", detections=found))
            for index in range(len(found)):
                missed[found.name(index)] = missed.get(found.name(index), 0) + 1
    total, number = sum(missed.values()), len(suspects.pictures)
    section.say(
        f"The model knows {len(shared)} of the data's {len(collection.names)} classes. It is sure (score {MIN_SCORE:g} "
        f"or more) of {count(total, 'object')} that overlap{'s' * (total == 1)} no label by IoU {MAX_OVERLAP:g}, in "
        f"{count(number, 'picture')}: each is a missing label or a mistake of the model; suspects.jpg shows which."
    )
    suspects.pictures.sort(key=lambda suspect: -_sureness(suspect))
    section.data = {"by_class": missed, "pictures": [_detected(collection, s) for s in suspects.pictures]}
    if total:
        kinds = ", ".join(f"{n} {name}" for name, n in sorted(missed.items(), key=lambda item: -item[1])[:6])
        text = f"{count(total, 'object')} that a model is sure of and no label covers ({kinds})"
        places = [collection.place(suspect.row) for suspect in suspects.pictures]
        section.find("advice", "unlabelled", text, "label them, or see that the model is wrong", places)
    return suspects


def shared_classes(names: Sequence[str], data_names: Sequence[str]) -> list[str]:
    """Those of a model's classes that the data has too, whatever their case.

    Raises:
        DataError: there are none.
    """
    known = {name.casefold() for name in data_names}
    shared = [name for name in names if name.casefold() in known]
    if not shared:
        raise DataError(
            f"the model knows {_some(names)}, the data has {_some(data_names)}: no class in common; "
            "name a model with some of the data's classes, or leave --model out"
        )
    return shared


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _without_boxes(collection: Collection, suspects: Suspects) -> None:
    boxes = np.diff(collection.offsets)  # crowds count: their picture has been labelled
    overall = float((boxes > 0).mean()) if len(boxes) else 0.0
    for split in collection.splits:
        rows = collection.rows(split)
        empty = rows[boxes[rows] == 0]
        places = [collection.place(row) for row in empty.tolist()]
        suspects.section.data[f"without_boxes_{split}"] = places
        if 0 < len(empty) < len(rows) and overall >= LABELLED_SHARE:
            text = f"{count(len(empty), 'picture')} of {split} without boxes, while {percent(overall)} of all have some"
            remedy = "fine if nothing is on them, else label them"
            suspects.section.find("advice", f"without-boxes-{split}", text, remedy, places)
            suspects.pictures += [Suspect(row, "no boxes") for row in empty.tolist()]


def _copies_with_more(collection: Collection, duplicates: Duplicates, suspects: Suspects) -> None:
    counts = collection.counts
    places, seen = [], set()
    for pair in duplicates.pairs:
        fewer, more = sorted((pair.first, pair.second), key=lambda row: int(counts[row]))
        if counts[fewer] < counts[more]:
            places.append(
                f"{collection.place(fewer)} ({counts[fewer]}, its copy {collection.place(more)} {counts[more]})"
            )
            if fewer not in seen:
                seen.add(fewer)
                suspects.pictures.append(Suspect(fewer, f"{counts[fewer]} boxes, a copy has {counts[more]}"))
    if places:
        text = f"{count(len(places), 'pair')} of the same picture with more boxes in one than in the other (boxes)"
        suspects.section.find("advice", "copy-with-more", text, "label them alike, or drop one", places)


def _labelled_twice(collection: Collection, suspects: Suspects) -> None:
    """Nearly the same box twice in one picture: of two classes, or of one."""
    found: dict[bool, dict[int, tuple[str, list[FloatArray]]]] = {True: {}, False: {}}
    for row in np.flatnonzero(collection.counts > 1).tolist():
        own = slice(collection.offsets[row], collection.offsets[row + 1])
        real = ~collection.iscrowd[own]
        boxes, labels = collection.boxes[own][real], collection.labels[own][real]
        for first, second in _same_boxes(boxes):
            one, other = (collection.names[labels[i] - 1] for i in (first, second))
            names = one if one == other else f"{one} and {other}"
            found[one == other].setdefault(row, (names, []))[1].extend(boxes[[first, second]])
    for same, code, what, remedy in (
        (False, "two-classes", "one box under two classes", "keep the right one, unless an object may be both"),
        (True, "labelled-twice", f"the same object labelled twice (IoU {SAME_BOX:g} or more)", "keep one box"),
    ):
        if found[same]:
            places = [f"{collection.place(row)} ({names})" for row, (names, _) in found[same].items()]
            text = f"{count(len(places), 'picture')} with {what}"
            suspects.section.find("advice", code, text, remedy, places)
            suspects.pictures += [
                Suspect(row, f"twice: {names}", np.stack(boxes)) for row, (names, boxes) in found[same].items()
            ]


def _same_boxes(boxes: FloatArray) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(boxes), _CHUNK):
        first, second = np.nonzero(_overlap(boxes[start : start + _CHUNK], boxes) >= SAME_BOX)
        pairs += [(a, b) for a, b in zip((first + start).tolist(), second.tolist(), strict=True) if a < b]
    return pairs


def _whole_picture(collection: Collection, suspects: Suspects) -> None:
    heights, widths = collection.sizes[collection.picture].T
    sides = collection.boxes[:, 2:] - collection.boxes[:, :2]
    whole = (sides.prod(axis=1) >= WHOLE_SHARE * heights * widths) & ~collection.iscrowd
    number = int(whole.sum())
    if not number:
        return
    rows = list(dict.fromkeys(collection.picture[whole].tolist()))
    share = number / int((~collection.iscrowd).sum())
    text = f"{count(number, 'box', 'boxes')} ({percent(share)}) covering {percent(WHOLE_SHARE)} of the picture or more"
    places = [collection.place(row) for row in rows]
    if share > 0.5:
        remedy = "this looks like a set for classification: a detector learns nothing about places from it"
        suspects.section.find("advice", "whole-picture", text, remedy, places)
        return
    suspects.section.find("note", "whole-picture", text, "fine for a close-up, else draw the box", places)
    suspects.pictures += [
        Suspect(row, "box over all", collection.boxes[whole & (collection.picture == row)]) for row in rows
    ]


def _placeholders(collection: Collection, suspects: Suspects) -> None:
    """Classes of which every box has one and the same size."""
    sides = np.round(collection.boxes[:, 2:] - collection.boxes[:, :2], 1)
    places = []
    for label, name in enumerate(collection.names, 1):
        own: IntArray = np.flatnonzero((collection.labels == label) & ~collection.iscrowd)
        if len(own) >= _PLACEHOLDERS and (np.abs(sides[own] - sides[own[0]]) <= 0.1).all():
            wide, high = sides[own[0]].tolist()
            places.append(f"{name} ({len(own):,} of {wide:g} x {high:g})")
    if places:
        text = f"{count(len(places), 'class', 'classes')} whose boxes are all of the very same size in pixels"
        remedy = "are these placeholders around points? draw the real boxes"
        suspects.section.find("advice", "placeholders", text, remedy, places)


def _sureness(suspect: Suspect) -> float:
    return float(suspect.detections.scores.sum()) if suspect.detections is not None else 0.0


def _detected(collection: Collection, suspect: Suspect) -> dict[str, object]:
    found = suspect.detections
    if found is None:
        return {"place": collection.place(suspect.row), "objects": []}
    objects = [
        {"class": found.name(i), "score": round(float(found.scores[i]), 3), "box": np.round(found.boxes[i], 1).tolist()}
        for i in range(len(found))
    ]
    return {"place": collection.place(suspect.row), "objects": objects}


def _overlap(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """IoU ``(N, M)``."""
    shared = _shared(boxes, others)
    areas, other_areas = ((b[:, 2:] - b[:, :2]).prod(axis=1) for b in (boxes, others))
    overlap: FloatArray = shared / np.maximum(areas[:, None] + other_areas[None] - shared, np.float32(1e-9))
    return overlap


def _lies_in(boxes: FloatArray, regions: FloatArray) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Whether half of each box or more lies in one of the regions."""
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray((_shared(boxes, regions) >= 0.5 * areas[:, None]).any(axis=1), np.bool_)


def _shared(boxes: FloatArray, others: FloatArray) -> FloatArray:
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: FloatArray = np.clip(high - low, 0, None).prod(axis=-1)
    return shared

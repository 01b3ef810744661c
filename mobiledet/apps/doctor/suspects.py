"""Images and boxes that look wrong: missing labels, boxes labelled twice, boxes that nobody drew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.duplicates import Duplicates
from mobiledet.apps.doctor.report import Code, Section, percent
from mobiledet.data.images import read_image
from mobiledet.detections import Detections
from mobiledet.errors import DataError, ImageError
from mobiledet.ops.numpy_boxes import pairwise_iou
from mobiledet.structures import BoolArray, FloatArray, ImageArray, IntArray
from mobiledet.utils.progress import progress_bar
from mobiledet.utils.text import count, listing

LABELLED_SHARE = 0.95  # from this share of images with boxes on, one without is suspect rather than background
WHOLE_SHARE = 0.95  # a box over this share of its image covers nearly all of it
SAME_BOX = 0.9  # IoU from which two boxes are the same object labelled twice
MIN_SCORE, MAX_OVERLAP = 0.5, 0.3  # a detection this sure, overlapping every label by less: an unlabelled object?
_PLACEHOLDERS = 10  # boxes of one class, all of one size, from which on it is odd
_CHUNK = 512


@dataclass(frozen=True)
class Suspect:
    """An image to look at.

    Attributes:
        row: the image.
        kind: kind of finding that it is an example of.
        why: in a few words.
        marked: ``(N, 4)`` the boxes in question, where it isn't the image as a whole.
        detections: a model's detections that no label covers.
    """

    row: int
    kind: Code
    why: str
    marked: FloatArray | None = None
    detections: Detections | None = None


@dataclass
class Suspects:
    """What looks wrong: the chapter of the report, and the images for the sheet, worst first."""

    section: Section
    images: list[Suspect] = field(default_factory=list)


def find_suspects(collection: Collection, duplicates: Duplicates) -> Suspects:
    """Everything suspect that can be seen without a model."""
    suspects = Suspects(Section("Suspects"))
    _without_boxes(collection, suspects)
    _copies_with_more(collection, duplicates, suspects)
    _labelled_twice(collection, suspects)
    _whole_image(collection, suspects)
    _placeholders(collection, suspects.section)
    return suspects


def find_unlabelled(
    collection: Collection, detect: Callable[[ImageArray], Detections], names: Sequence[str], *, progress: bool = False
) -> Suspects:
    """Images where a model is sure of objects that no label covers.

    Args:
        collection: the images; each is read once more.
        detect: the model: RGB image in, detections in its pixels out.
        names: the model's class names; those that the data has too count, upper and lower case being alike.
        progress: show a bar, if standard error is a terminal.

    Raises:
        DataError: model and data have no class in common.
    """
    section = Section("Unlabelled objects, by a model", key="What a model finds unlabelled")
    shared = shared_classes(names, collection.names)
    wanted = np.array([name in shared for name in names], np.bool_)
    unlabelled: list[tuple[int, Detections]] = []
    for row in progress_bar(range(len(collection)), what="detecting", show=progress):
        record = collection.record(row)
        try:
            image = read_image(record.path, apply_orientation=record.apply_orientation)
        except ImageError:
            continue  # reported already
        found = detect(image).above(MIN_SCORE)
        found = found.keep(wanted[found.labels - 1])
        found = found.keep(pairwise_iou(found.boxes, record.target.boxes).max(axis=1, initial=0) < MAX_OVERLAP)
        if record.target.iscrowd.any():
            found = found.keep(~_mostly_inside(found.boxes, record.target.boxes[record.target.iscrowd]))
        if len(found):
            unlabelled.append((row, found))
    unlabelled.sort(key=lambda item: -float(item[1].scores.sum()))
    missed = Counter(found.name(index) for _, found in unlabelled for index in range(len(found)))
    total = missed.total()
    section.say(
        f"The model knows {len(shared)} of the data's {len(collection.names)} classes. It is sure (score {MIN_SCORE:g} "
        f"or more) of {count(total, 'object')} that overlap{'s' * (total == 1)} no label by IoU {MAX_OVERLAP:g}, in "
        f"{count(len(unlabelled), 'image')}: each is a missing label or a mistake of the model; see suspects.jpg."
    )
    section.data = {
        "by_class": dict(missed),
        "pictures": [{"place": collection.place(row), "objects": _objects(found)} for row, found in unlabelled],
    }
    if total:
        kinds = ", ".join(f"{n} {name}" for name, n in missed.most_common(6))
        text = f"{count(total, 'object')} that a model is sure of and no label covers ({kinds})"
        places = [collection.place(row) for row, _ in unlabelled]
        section.find(Code.UNLABELLED, text, "label them, or see that the model is wrong", places)
    images = [Suspect(row, Code.UNLABELLED, f"{len(d)} unlabelled?", detections=d) for row, d in unlabelled]
    return Suspects(section, images)


def shared_classes(names: Sequence[str], data_names: Sequence[str]) -> list[str]:
    """Those of a model's classes that the data has too, upper and lower case being alike.

    Raises:
        DataError: there are none.
    """
    known = {name.casefold() for name in data_names}
    shared = [name for name in names if name.casefold() in known]
    if not shared:
        raise DataError(
            f"the model knows {listing(names)}, the data has {listing(data_names)}: no class in common; "
            "name a model with some of the data's classes, or leave --model out"
        )
    return shared


def _without_boxes(collection: Collection, suspects: Suspects) -> None:
    boxes = np.diff(collection.offsets)  # crowds count: their image has been labelled
    overall = float((boxes > 0).mean()) if len(boxes) else 0.0
    for split in collection.splits:
        rows = collection.rows(split)
        empty = rows[boxes[rows] == 0].tolist()
        places = [collection.place(row) for row in empty]
        suspects.section.data[f"without_boxes_{split}"] = places
        if 0 < len(empty) < len(rows) and overall >= LABELLED_SHARE:
            text = f"{count(len(empty), 'image')} of {split} without boxes, while {percent(overall)} of all have some"
            remedy = "fine if there are no objects in them, else label them"
            suspects.section.find(Code.WITHOUT_BOXES, text, remedy, places, split=split)
            suspects.images += [Suspect(row, Code.WITHOUT_BOXES, "no boxes") for row in empty]


def _copies_with_more(collection: Collection, duplicates: Duplicates, suspects: Suspects) -> None:
    counts = collection.counts
    places, seen = [], set()
    for pair in duplicates.pairs:
        fewer, more = sorted((pair.first, pair.second), key=lambda row: int(counts[row]))
        if (few := counts[fewer]) < counts[more]:
            places.append(f"{collection.place(fewer)} ({few}, its copy {collection.place(more)} {counts[more]})")
            if fewer not in seen:
                seen.add(fewer)
                why = f"{few} boxes, a copy has {counts[more]}"
                suspects.images.append(Suspect(fewer, Code.COPY_WITH_MORE, why))
    if places:
        text = f"{count(len(places), 'pair')} of the same image with more boxes in one than in the other (boxes)"
        suspects.section.find(Code.COPY_WITH_MORE, text, "label them alike, or remove one", places)


def _labelled_twice(collection: Collection, suspects: Suspects) -> None:
    """Nearly the same box twice in one image: of two classes, or of one."""
    found: dict[bool, dict[int, tuple[str, list[FloatArray]]]] = {True: {}, False: {}}
    for row in np.flatnonzero(collection.counts > 1).tolist():
        own = slice(collection.offsets[row], collection.offsets[row + 1])
        real = ~collection.iscrowd[own]
        boxes, labels = collection.boxes[own][real], collection.labels[own][real]
        for first, second in _same_boxes(boxes):
            one, other = (collection.names[labels[i] - 1] for i in (first, second))
            names = one if one == other else f"{one} and {other}"
            found[one == other].setdefault(row, (names, []))[1].extend(boxes[[first, second]])
    for same, kind, what, remedy in (
        (False, Code.TWO_CLASSES, "one box under two classes", "keep the right one, unless an object may be both"),
        (True, Code.LABELLED_TWICE, f"the same object labelled twice (IoU {SAME_BOX:g} or more)", "keep one box"),
    ):
        if found[same]:
            places = [f"{collection.place(row)} ({names})" for row, (names, _) in found[same].items()]
            suspects.section.find(kind, f"{count(len(places), 'image')} with {what}", remedy, places)
            suspects.images += [
                Suspect(row, kind, f"twice: {names}", np.stack(boxes)) for row, (names, boxes) in found[same].items()
            ]


def _same_boxes(boxes: FloatArray) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(boxes), _CHUNK):
        first, second = np.nonzero(pairwise_iou(boxes[start : start + _CHUNK], boxes) >= SAME_BOX)
        pairs += [(a, b) for a, b in zip((first + start).tolist(), second.tolist(), strict=True) if a < b]
    return pairs


def _whole_image(collection: Collection, suspects: Suspects) -> None:
    heights, widths = collection.sizes[collection.image].T
    sides = collection.boxes[:, 2:] - collection.boxes[:, :2]
    whole = (sides.prod(axis=1) >= WHOLE_SHARE * heights * widths) & ~collection.iscrowd
    number = int(whole.sum())
    if not number:
        return
    rows = list(dict.fromkeys(collection.image[whole].tolist()))
    share = number / int((~collection.iscrowd).sum())
    text = f"{count(number, 'box', 'boxes')} ({percent(share)}) covering {percent(WHOLE_SHARE)} of the image or more"
    places = [collection.place(row) for row in rows]
    if share > 0.5:
        remedy = "this looks like a data set for classification: a detector can't learn from it where objects are"
        suspects.section.find(Code.MOSTLY_WHOLE_IMAGES, text, remedy, places)
        return
    suspects.section.find(Code.WHOLE_IMAGE, text, "fine for a close-up, else draw the box", places)
    suspects.images += [
        Suspect(row, Code.WHOLE_IMAGE, "box over all", collection.boxes[whole & (collection.image == row)])
        for row in rows
    ]


def _placeholders(collection: Collection, section: Section) -> None:
    """Classes of which every box has one and the same size."""
    sides = np.round(collection.boxes[:, 2:] - collection.boxes[:, :2], 1)
    places = []
    for label, name in enumerate(collection.names, 1):
        own: IntArray = np.flatnonzero((collection.labels == label) & ~collection.iscrowd)
        if len(own) >= _PLACEHOLDERS and (np.abs(sides[own] - sides[own[0]]) <= 0.1).all():
            wide, high = sides[own[0]].tolist()
            places.append(f"{name} ({len(own):,} of {wide:g} x {high:g})")
    if places:
        text = f"{count(len(places), 'class', 'classes')} whose boxes are all of exactly the same size in pixels"
        remedy = "if these are placeholders around points, draw the real boxes"
        section.find(Code.PLACEHOLDERS, text, remedy, places)


def _objects(found: Detections) -> list[dict[str, object]]:
    return [
        {"class": found.name(i), "score": round(float(found.scores[i]), 3), "box": np.round(found.boxes[i], 1).tolist()}
        for i in range(len(found))
    ]


def _mostly_inside(boxes: FloatArray, regions: FloatArray) -> BoolArray:
    """Whether half of each box ``(N, 4)`` or more lies in one of the regions ``(M, 4)``: ``(N,)``."""
    low = np.maximum(boxes[:, None, :2], regions[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], regions[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=-1)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    return np.asarray((shared >= 0.5 * areas[:, None]).any(axis=1), np.bool_)

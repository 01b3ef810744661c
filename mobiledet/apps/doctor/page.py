"""Sheets of pictures to look at: samples of every class, suspects, duplicates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.drawing import (
    MARK,
    WHITE,
    LabelStyle,
    Legend,
    blank,
    draw_box,
    draw_plain,
    scale_to_cell,
    sheet,
    shorten,
)
from mobiledet.apps.doctor.duplicates import Pair
from mobiledet.apps.doctor.suspects import Suspect
from mobiledet.data.images import read_image
from mobiledet.draw.boxes import draw_detections
from mobiledet.errors import ImageError
from mobiledet.structures import ImageArray
from mobiledet.utils.text import count

SAMPLES, SUSPECTS, PAIRS = 24, 24, 16


def choose_samples(collection: Collection, most: int = SAMPLES) -> list[int]:
    """Rows of pictures that together show every class if that can be, then the smallest and the largest boxes.

    Greedily the picture with the most classes not shown yet, of equal ones that with the fewest boxes: in the end
    pictures of small, of large and of middling boxes, from all splits.
    """
    real = ~collection.iscrowd
    rows, labels = collection.picture[real], collection.labels[real]
    if not len(rows):
        return list(range(min(most, len(collection))))
    present = np.zeros((len(collection), len(collection.names)), np.bool_)
    present[rows, labels - 1] = True
    chosen: list[int] = []
    missing = present.any(axis=0)
    while missing.any() and len(chosen) < most:
        gain = present[:, missing].sum(axis=1)
        best = np.flatnonzero(gain == gain.max())
        row = int(best[np.argmin(collection.counts[best])])
        chosen.append(row)
        missing &= ~present[row]
    area = (collection.boxes[real][:, 2:] - collection.boxes[real][:, :2]).prod(axis=1)
    relative = area / collection.sizes[rows].prod(axis=1)
    order = rows[np.argsort(relative, kind="stable")]
    spread = np.linspace(0, len(order) - 1, 4 * most).round().astype(np.int64)
    ends = [order[index] for pair in zip(spread, spread[::-1], strict=True) for index in pair]
    for row in ends:
        if len(chosen) >= most:
            break
        if int(row) not in chosen:
            chosen.append(int(row))
    background: list[int] = np.flatnonzero(collection.counts == 0).tolist()
    return [*chosen, *background][:most]


def sample_page(collection: Collection) -> ImageArray | None:
    """A sheet of labelled pictures; None where none can be read."""
    style = _style(collection)
    cells, captions = [], []
    for row in choose_samples(collection):
        image = _read(collection, row)
        if image is not None:
            small, target, _ = scale_to_cell(image, collection.record(row).target)
            cells.append(style.draw(small, target))
            boxes = count(int(collection.counts[row]), "box", "boxes")
            captions.append(f"{shorten(collection.place(row), 26)}, {boxes}, {_size(image)}")
    return sheet(cells, captions, style.legend())


def suspect_page(collection: Collection, suspects: Sequence[Suspect]) -> ImageArray | None:
    """A sheet of pictures that look wrong, those with the model's objects first; None without any."""
    style = _style(collection)
    ordered = sorted(suspects, key=lambda suspect: suspect.detections is None)
    marked = any(suspect.marked is not None for suspect in suspects)
    detected = any(suspect.detections is not None for suspect in suspects)
    cells, captions = [], []
    for suspect in _a_few_of_each(ordered, SUSPECTS):
        image = _read(collection, suspect.row)
        if image is None:
            continue
        small, target, factors = scale_to_cell(image, collection.record(suspect.row).target)
        if suspect.detections is not None:
            found = replace(suspect.detections, boxes=suspect.detections.boxes * factors)
            cells.append(draw_detections(draw_plain(small, target), found))
        else:
            canvas = draw_plain(small, target) if detected else style.draw(small, target)
            for box in np.zeros((0, 4), np.float32) if suspect.marked is None else suspect.marked:
                draw_box(canvas, box * factors, MARK, 3)
            cells.append(canvas)
        captions.append(f"{shorten(suspect.why, 30)}: {shorten(collection.place(suspect.row), 22)}")
    legend: Legend = style.legend()
    if detected:
        legend = [(WHITE, "label"), (None, "With name and score: what the model is sure of and no label covers.")]
    return sheet(cells, captions, [(MARK, "the boxes in question"), *legend] if marked else legend)


def duplicate_page(collection: Collection, pairs: Sequence[Pair]) -> ImageArray | None:
    """A sheet of pairs side by side, those across splits first; None without any."""
    split = collection.split
    ordered = sorted(pairs, key=lambda pair: (split[pair.first] == split[pair.second], pair.kind == "content"))
    cells, captions = [], []
    for pair in ordered[:PAIRS]:
        what = "same file" if pair.kind == "content" else f"differ by {pair.difference:.2f}"
        for row, word in ((pair.first, f"{what}: "), (pair.second, "= ")):
            image = _read(collection, row)
            small, target, _ = scale_to_cell(blank() if image is None else image, collection.record(row).target)
            cells.append(draw_plain(small, target))
            boxes = count(int(collection.counts[row]), "box", "boxes")
            captions.append(
                f"{word}{shorten(collection.place(row), 22)}, {boxes}{'' if image is None else ', ' + _size(image)}"
            )
    text = (
        f"{min(len(pairs), PAIRS)} of {count(len(pairs), 'pair')}, side by side; those across splits come first. "
        "They differ by so many standard deviations of the grey levels where they differ most."
    )
    return sheet(cells, captions, [(WHITE, "label"), (None, text)])


def _a_few_of_each(suspects: Sequence[Suspect], most: int) -> list[Suspect]:
    """Up to ``most``, taking turns between the kinds, told by how their reason begins; each picture once."""
    kinds: dict[str, list[Suspect]] = {}
    for suspect in suspects:
        kind = "found" if suspect.detections is not None else suspect.why.split()[0]
        kinds.setdefault(kind, []).append(suspect)
    chosen: dict[int, Suspect] = {}
    while kinds and len(chosen) < most:
        for kind in list(kinds):
            if len(chosen) < most:
                suspect = kinds[kind].pop(0)
                chosen.setdefault(suspect.row, suspect)
            if not kinds[kind]:
                del kinds[kind]
    order = {id(suspect): place for place, suspect in enumerate(suspects)}
    return sorted(chosen.values(), key=lambda suspect: order[id(suspect)])


def _read(collection: Collection, row: int) -> ImageArray | None:
    try:
        record = collection.record(row)
        return read_image(record.path, apply_orientation=record.apply_orientation)
    except ImageError:
        return None


def _style(collection: Collection) -> LabelStyle:
    counts = collection.class_counts().sum(axis=0).tolist()
    return LabelStyle(collection.names, counts, crowds=bool(collection.iscrowd.any()))


def _size(image: ImageArray) -> str:
    return f"{image.shape[1]} x {image.shape[0]}"

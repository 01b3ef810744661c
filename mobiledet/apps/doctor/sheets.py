"""Sheets of images to look at: samples of every class, suspects, duplicates; labels drawn, with a legend."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest

import numpy as np

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.duplicates import Pair
from mobiledet.apps.doctor.report import Code
from mobiledet.apps.doctor.suspects import Suspect
from mobiledet.data.faults import Fault
from mobiledet.data.images import read_image
from mobiledet.draw.boxes import (
    Color,
    LegendEntry,
    draw_box,
    draw_detections,
    draw_target,
    image_grid,
    legend_strip,
    printable_text,
)
from mobiledet.errors import ImageError
from mobiledet.preprocess import resize_image
from mobiledet.structures import FloatArray, ImageArray, Size, Target
from mobiledet.utils.text import count, shorten

SAMPLES, SUSPECTS, PAIRS = 24, 24, 16  # most images, or pairs, of a sheet
CELL: Size = (430, 540)
COLUMNS = 4
MOST_COLORS = 16  # up to this many classes have a colour each; with more, every box is labelled with its name
MARK: Color = (255, 96, 0)
WHITE: Color = (255, 255, 255)
_HUES = (0, 215, 55, 125, 290, 28, 180, 325)  # degrees; neighbours in the list far apart
_INNER: Size = (395, 526)  # what `image_grid` leaves of a cell for its image
_CAPTION = 42  # letters that fit under an image
_PAPER: Color = (58, 60, 64)


class LabelStyle:
    """How a data set's labels are drawn: by colours with a legend, or with a name at every box.

    Of K class names, those of which ``counts`` ``(K,)`` has boxes are in the legend; crowds where there are any.
    """

    def __init__(self, names: Sequence[str], counts: Sequence[int], *, crowds: bool) -> None:
        self.names = names
        self.used = [(label, int(number)) for label, number in enumerate(counts, 1) if number]
        self.crowds = crowds
        self.by_color = len(self.used) <= MOST_COLORS

    def legend(self) -> list[LegendEntry]:
        """What the boxes mean."""
        text = "Dashed: crowds or difficult ones, neither trained on nor scored."
        dashed: list[LegendEntry] = [(None, text)] if self.crowds else []
        if not self.by_color:
            return [(WHITE, "label, under its class name"), *dashed]
        shown = {label: printable_text(self.names[label - 1]) or f"class {label}" for label, _ in self.used}
        return [(_color(label), shorten(f"{shown[label]} ({number:,})", 40)) for label, number in self.used] + dashed

    def draw(self, image: ImageArray, target: Target) -> ImageArray:
        """A copy of the image with its labels on it."""
        if not self.by_color:
            return draw_target(image, target, self.names)
        crowd = target.iscrowd
        crowds = Target(target.boxes[crowd], target.labels[crowd], target.iscrowd[crowd])
        canvas = draw_target(image, crowds, self.names)
        boxes, labels = target.boxes[~crowd], target.labels[~crowd]
        for index in np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable"):  # small ones on top
            draw_box(canvas, boxes[index], _color(int(labels[index])), 2)
        return canvas


def draw_plain(image: ImageArray, target: Target) -> ImageArray:
    """A copy of the image with its labels as thin white boxes without names."""
    canvas: ImageArray = image.copy()
    for box in target.boxes:
        draw_box(canvas, box, WHITE, 2)
    return canvas


def scale_to_cell(image: ImageArray, target: Target) -> tuple[ImageArray, Target, FloatArray]:
    """An image as large as a cell holds, its labels along with it, and the ``(4,)`` factors of boxes.

    Scaled before boxes and names are drawn, so that these are readable whatever the image's size.
    """
    factor = min(_INNER[0] / image.shape[0], _INNER[1] / image.shape[1])
    size = (max(8, round(image.shape[0] * factor)), max(8, round(image.shape[1] * factor)))
    small = resize_image(image, size, averaged=1)
    down, across = size[0] / image.shape[0], size[1] / image.shape[1]
    factors = np.array([across, down, across, down], np.float32)
    return small, replace(target, boxes=(target.boxes * factors).astype(np.float32)), factors


def choose_samples(collection: Collection, most: int = SAMPLES) -> list[int]:
    """Rows of images that together show every class if possible, then the smallest and the largest boxes.

    Greedily the image with the most classes not shown yet, of equal ones that with the fewest boxes: in the end
    images of small, large and medium boxes, from all splits.
    """
    real = ~collection.iscrowd
    rows, labels = collection.image[real], collection.labels[real]
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
    ends = [int(order[index]) for pair in zip(spread, spread[::-1], strict=True) for index in pair]
    background = np.flatnonzero(collection.counts == 0).tolist()
    extremes = [row for row in dict.fromkeys(ends) if row not in chosen]
    return [*chosen, *extremes[: most - len(chosen)], *background][:most]


def sample_sheet(collection: Collection) -> ImageArray | None:
    """A sheet of labelled images; None where none can be read."""
    style = _style(collection)
    cells, captions = [], []
    for row in choose_samples(collection):
        image = _read(collection, row)
        if image is not None:
            small, target, _ = scale_to_cell(image, collection.record(row).target)
            cells.append(style.draw(small, target))
            captions.append(_caption(collection, row, image))
    return _sheet(cells, captions, style.legend())


def orientation_sheet(collection: Collection) -> ImageArray | None:
    """An image of each split whose EXIF rotation is doubtful, with its boxes in both readings; None without any."""
    style = _style(collection)
    cells, captions = [], []
    for split, dataset in collection.datasets.items():
        places = [found.place for found in dataset.report.examples.get(Fault.ROTATION_UNCLEAR, ())]
        for row in [row for row in range(len(dataset) if places else 0) if repr(dataset.file_name(row)) in places[0]][
            :1
        ]:
            record = dataset[row]
            for upright, value in ((True, "upright"), (False, "stored")):
                image = read_image(record.path, apply_orientation=upright)
                small, target, _ = scale_to_cell(image, record.target)
                cells.append(style.draw(small, target))
                captions.append(f"orientation={value}: {split}/{shorten(record.path.name, 20)}")
    return _sheet(cells, captions, style.legend())


def suspect_sheet(collection: Collection, suspects: Sequence[Suspect]) -> ImageArray | None:
    """A sheet of images that look wrong, those with a model's detections first; None without any."""
    style = _style(collection)
    ordered = sorted(suspects, key=lambda suspect: suspect.detections is None)
    marked = any(suspect.marked is not None for suspect in suspects)
    detected = any(suspect.detections is not None for suspect in suspects)
    cells, captions = [], []
    for suspect in _some_of_each_kind(ordered, SUSPECTS):
        image = _read(collection, suspect.row)
        if image is None:
            continue
        small, target, factors = scale_to_cell(image, collection.record(suspect.row).target)
        canvas = draw_plain(small, target) if detected else style.draw(small, target)
        if suspect.detections is not None:
            canvas = draw_detections(canvas, replace(suspect.detections, boxes=suspect.detections.boxes * factors))
        for box in () if suspect.marked is None else suspect.marked:
            draw_box(canvas, box * factors, MARK, 3)
        cells.append(canvas)
        why = shorten(suspect.why, 30)
        captions.append(f"{why}: {shorten(collection.place(suspect.row), max(16, _CAPTION - len(why)))}")
    legend: list[LegendEntry] = style.legend()
    if detected:
        legend = [(WHITE, "label"), (None, "With name and score: what the model is sure of and no label covers.")]
    return _sheet(cells, captions, [(MARK, "the boxes in question"), *legend] if marked else legend)


def duplicate_sheet(collection: Collection, pairs: Sequence[Pair]) -> ImageArray | None:
    """A sheet of pairs side by side, those across splits first; None without any."""
    split = collection.split
    ordered = sorted(pairs, key=lambda pair: (split[pair.first] == split[pair.second], pair.same_file))
    cells, captions = [], []
    for pair in ordered[:PAIRS]:
        what = "same file" if pair.same_file else f"difference {pair.difference:.2f}"
        for row, word in ((pair.first, f"{what}: "), (pair.second, "= ")):
            image = _read(collection, row)
            shown = np.full((48, 64, 3), _PAPER, np.uint8) if image is None else image
            small, target, _ = scale_to_cell(shown, collection.record(row).target)
            cells.append(draw_plain(small, target))
            captions.append(word + _caption(collection, row, image, 22))
    text = (
        f"{min(len(pairs), PAIRS)} of {count(len(pairs), 'pair')}, side by side; those across splits come first. "
        "The difference is the largest one anywhere, in standard deviations of the grey levels."
    )
    return _sheet(cells, captions, [(WHITE, "label"), (None, text)])


def _some_of_each_kind(suspects: Sequence[Suspect], most: int) -> list[Suspect]:
    """Up to ``most``, taking turns between the kinds of finding; each image once."""
    kinds: dict[Code, list[Suspect]] = {}
    for suspect in suspects:
        kinds.setdefault(suspect.kind, []).append(suspect)
    chosen: dict[int, Suspect] = {}
    for suspect in filter(None, chain.from_iterable(zip_longest(*kinds.values()))):
        if len(chosen) < most:
            chosen.setdefault(suspect.row, suspect)
    return [suspect for suspect in suspects if chosen.get(suspect.row) is suspect]


def _caption(collection: Collection, row: int, image: ImageArray | None, room: int = 26) -> str:
    boxes = count(int(collection.counts[row]), "box", "boxes")
    size = "" if image is None else f", {image.shape[1]} x {image.shape[0]}"
    return f"{shorten(collection.place(row), room)}, {boxes}{size}"


def _read(collection: Collection, row: int) -> ImageArray | None:
    try:
        record = collection.record(row)
        return read_image(record.path, apply_orientation=record.apply_orientation)
    except ImageError:
        return None


def _style(collection: Collection) -> LabelStyle:
    counts = collection.class_counts().sum(axis=0).tolist()
    return LabelStyle(collection.names, counts, crowds=bool(collection.iscrowd.any()))


def _color(label: int) -> Color:
    """Colours further apart than those of `draw.boxes.class_color`, but only `MOST_COLORS` of them."""
    hue, value = _HUES[(label - 1) % len(_HUES)], 1.0 if (label - 1) // len(_HUES) % 2 == 0 else 0.55
    red, green, blue = colorsys.hsv_to_rgb(hue / 360, 0.95, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def _sheet(cells: Sequence[ImageArray], captions: Sequence[str], legend: Sequence[LegendEntry]) -> ImageArray | None:
    """The images in rows with the legend below; None without images."""
    if not cells:
        return None
    grid = image_grid(cells, columns=min(COLUMNS, len(cells)), cell=CELL, captions=captions)
    page: ImageArray = np.concatenate([grid, legend_strip(legend, grid.shape[1])])
    return page

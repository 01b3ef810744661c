"""Labels on pictures scaled to a common size, and sheets of them with a legend."""

from __future__ import annotations

import colorsys
import unicodedata
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np

from mobiledet.draw.boxes import Color, draw_target, image_grid
from mobiledet.structures import FloatArray, ImageArray, Size, Target

CELL: Size = (430, 540)
COLUMNS = 4

MOST_COLORS = 16
"""Up to this many classes are told apart by colour; more are named at every box."""

MARK: Color = (255, 96, 0)
WHITE: Color = (255, 255, 255)

Legend = Sequence[tuple[Color | None, str]]
"""Colour of a sample box, or None for plain text, and what it stands for."""

_HUES = (0, 215, 55, 125, 290, 28, 180, 325)  # degrees; neighbours in the list far apart
_INNER: Size = (384, 524)
_PAPER: Color = (58, 60, 64)
_FONT, _SCALE, _LINE = cv2.FONT_HERSHEY_DUPLEX, 0.6, 30


class LabelStyle:
    """How a data set's labels are drawn: by colours with a legend, or with a name at every box.

    Args:
        names: K class names.
        counts: ``(K,)`` boxes of each class; classes without any are left out of the legend.
        crowds: whether the legend speaks of crowds.
    """

    def __init__(self, names: Sequence[str], counts: Sequence[int], *, crowds: bool) -> None:
        self.names = names
        self.used = [(label, int(count)) for label, count in enumerate(counts, 1) if count]
        self.crowds = crowds
        self.by_color = len(self.used) <= MOST_COLORS

    def legend(self) -> list[tuple[Color | None, str]]:
        """What the boxes mean."""
        text = "Dashed: crowds or difficult ones, neither trained on nor scored."
        dashed: list[tuple[Color | None, str]] = [(None, text)] if self.crowds else []
        if not self.by_color:
            return [(WHITE, "label, under its class name"), *dashed]
        return [
            (_color(label), f"{printable(self.names[label - 1]) or f'class {label}'} ({count:,})")
            for label, count in self.used
        ] + dashed

    def draw(self, image: ImageArray, target: Target) -> ImageArray:
        """A copy of the picture with its labels on it."""
        if not self.by_color:
            return draw_target(image, target, self.names)
        crowd = target.iscrowd
        crowds = Target(target.boxes[crowd], target.labels[crowd], target.iscrowd[crowd])
        canvas = draw_target(image, crowds, self.names)
        real = ~crowd
        order = np.argsort(-(target.boxes[real][:, 2:] - target.boxes[real][:, :2]).prod(axis=1), kind="stable")
        for box, label in zip(target.boxes[real][order], target.labels[real][order].tolist(), strict=True):
            draw_box(canvas, box, _color(label), 2)
        return canvas


def draw_box(canvas: ImageArray, box: FloatArray, color: Color, thickness: int) -> None:
    """Draw a box ``(4,)`` with a thin black edge, which shows on any ground, onto the picture."""
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    low = (min(max(x1, 0), width - 1), min(max(y1, 0), height - 1))
    high = (min(max(x2 - 1, low[0]), width - 1), min(max(y2 - 1, low[1]), height - 1))
    cv2.rectangle(canvas, low, high, (0, 0, 0), thickness + 2)
    cv2.rectangle(canvas, low, high, color, thickness)


def draw_plain(image: ImageArray, target: Target) -> ImageArray:
    """A copy of the picture with its labels as thin white boxes without names."""
    canvas: ImageArray = image.copy()
    for box in target.boxes:
        draw_box(canvas, box, WHITE, 2)
    return canvas


def scale_to_cell(image: ImageArray, target: Target) -> tuple[ImageArray, Target, FloatArray]:
    """A picture as large as a cell holds, its labels along with it, and the ``(4,)`` factors of boxes.

    Scaled before boxes and names are drawn, so that these are readable whatever the picture's size.
    """
    factor = min(_INNER[0] / image.shape[0], _INNER[1] / image.shape[1])
    size = (max(8, round(image.shape[1] * factor)), max(8, round(image.shape[0] * factor)))
    small: ImageArray = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    across, down = size[0] / image.shape[1], size[1] / image.shape[0]
    factors = np.array([across, down, across, down], np.float32)
    return small, replace(target, boxes=(target.boxes * factors).astype(np.float32)), factors


def _color(label: int) -> Color:
    """Colours further apart than those of `visualization.class_color`, but only `MOST_COLORS` of them."""
    hue, value = _HUES[(label - 1) % len(_HUES)], 1.0 if (label - 1) // len(_HUES) % 2 == 0 else 0.55
    red, green, blue = colorsys.hsv_to_rgb(hue / 360, 0.95, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def blank() -> ImageArray:
    """What stands for a picture that can't be read."""
    return np.full((48, 64, 3), _PAPER, np.uint8)


def sheet(
    cells: Sequence[ImageArray], captions: Sequence[str], legend: Legend, *, columns: int = COLUMNS
) -> ImageArray | None:
    """The pictures in rows with the legend below; None without pictures."""
    if not cells:
        return None
    grid = image_grid(cells, columns=min(columns, len(cells)), cell=CELL, captions=captions)
    page: ImageArray = np.concatenate([grid, _legend_strip(legend, grid.shape[1])])
    return page


def shorten(name: str, room: int) -> str:
    """A name cut in its middle to ``room`` letters: file names differ at their ends."""
    keep = (room - 2) // 2
    return name if len(name) <= room else f"{name[: room - 2 - keep]}..{name[-keep:]}"


def printable(text: str) -> str:
    """The text as OpenCV can write it: OpenCV 4 has no letters beyond ASCII, and writes nothing for them."""
    if int(cv2.__version__.split(".")[0]) < 5:
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(text.split())


def _legend_strip(legend: Legend, width: int) -> ImageArray:
    """The entries in as many lines as they need."""
    lines: list[list[tuple[Color | None, str, int]]] = [[]]
    x = 12
    for color, text in legend:
        words = [text] if color is not None else text.split()
        for word in words:
            short = word if color is None else shorten(word, 40)
            space = cv2.getTextSize(short, _FONT, _SCALE, 1)[0][0] + (7 if color is None else 60)
            if x + space > width and lines[-1]:
                lines.append([])
                x = 12
            lines[-1].append((color, short, x))
            x += space
        x += 14
    strip = np.full((14 + _LINE * len(lines), width, 3), _PAPER, np.uint8)
    for number, line in enumerate(lines):
        base = 28 + _LINE * number
        for color, text, left in line:
            if color is not None:
                cv2.rectangle(strip, (left, base - 15), (left + 22, base + 2), (0, 0, 0), cv2.FILLED)
                cv2.rectangle(strip, (left + 1, base - 14), (left + 21, base + 1), color, 3)
            start = left if color is None else left + 30
            cv2.putText(strip, printable(text), (start, base), _FONT, _SCALE, WHITE, 1, cv2.LINE_AA)
    return strip

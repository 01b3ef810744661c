"""Boxes and text on images, and images on a sheet.

Images are ``(height, width, 3)`` uint8 RGB and boxes xyxy in their pixels, as everywhere. Detections are drawn in
their class's colour, ground truth in white on black. What returns an image leaves the one it was given as it is; only
`draw_box` and `write_text` draw on it.
"""

from __future__ import annotations

import colorsys
import math
import unicodedata
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from mobiledet.errors import ImageError
from mobiledet.ops.numpy_boxes import pairwise_iou
from mobiledet.preprocess import resize_image
from mobiledet.structures import FloatArray, ImageArray, IntArray, Size, Target
from mobiledet.utils.files import replacing
from mobiledet.utils.text import visible

Color = tuple[int, int, int]
Corners = tuple[int, int, int, int]
Tag = tuple[int, Corners, str, Color]


class Drawable(Protocol):
    """What can be drawn: `mobiledet.Detections`, which offers drawing itself and so can't be imported here."""

    @property
    def boxes(self) -> FloatArray:
        """``(N, 4)`` xyxy in pixels."""

    @property
    def scores(self) -> FloatArray:
        """``(N,)`` in 0..1."""

    @property
    def labels(self) -> IntArray:
        """``(N,)``, which choose the colours."""

    def title(self, index: int) -> str:
        """What is written beside detection ``index``."""


LegendEntry = tuple[Color | None, str]
"""Colour of a sample box, or None for plain text, and what it stands for."""

_FONT = cv2.FONT_HERSHEY_DUPLEX
_WHITE: Color = (255, 255, 255)
_BLACK: Color = (0, 0, 0)
_BACKGROUND: Color = (58, 60, 64)
_MANY_TAGS = 30
_LEGEND_SCALE, _LEGEND_LINE = 0.6, 30  # size of a legend's text, and pixels from line to line


def class_color(label: int) -> Color:
    """The RGB colour of a class, always the same one, 0..255 each.

    Hues step by the golden ratio, which keeps the first few far apart; brightness and saturation step along with
    them, so that the dozens that follow differ too.
    """
    value, saturation = (label * 0.2702) % 1, (label * 0.4593) % 1
    red, green, blue = colorsys.hsv_to_rgb((label * 0.618034) % 1, 0.95 - 0.45 * saturation, 0.55 + 0.45 * value)
    return round(red * 255), round(green * 255), round(blue * 255)


def draw_detections(
    image: ImageArray, detections: Drawable, *, labels: bool = True, line_width: int | None = None
) -> ImageArray:
    """A copy of the image with the detections on it, the best on top.

    Args:
        image: ``(height, width, 3)`` uint8 RGB.
        detections: Boxes in pixels of this image; parts outside of it are cut off.
        labels: Write name and score beside each box. A tag that others would mostly hide is omitted.
        line_width: Of the boxes, in pixels; None chooses it by the size of the image.
    """
    canvas: ImageArray = image.copy()
    tags = _draw_detected(canvas, detections, line_width)
    if labels:
        _draw_tags(canvas, tags)
    return canvas


def draw_target(image: ImageArray, target: Target, names: Sequence[str]) -> ImageArray:
    """A copy of the image with its ground truth on it: white boxes edged in black, crowd boxes dashed.

    Args:
        image: ``(height, width, 3)`` uint8 RGB.
        target: Boxes in pixels of this image.
        names: ``names[label - 1]`` is the name of a label; labels beyond it are shown by number.
    """
    canvas: ImageArray = image.copy()
    _draw_tags(canvas, _draw_truth(canvas, target, names))
    return canvas


def draw_comparison(image: ImageArray, target: Target, detections: Drawable, names: Sequence[str]) -> ImageArray:
    """A copy of the image with its ground truth under the detections, so that differences are easy to see.

    Ground truth is thin and white, crowds dashed; detections are coloured and named. An object that no detection of
    its class overlaps by IoU 0.5 or more is named too, as missed. Arguments are those of the two functions above.
    """
    canvas: ImageArray = image.copy()
    truth_tags = _draw_truth(canvas, target, names)
    tags = _draw_detected(canvas, detections)
    overlap = pairwise_iou(target.boxes, detections.boxes) * (target.labels[:, None] == detections.labels[None])
    missed = ~target.iscrowd & (overlap.max(axis=1, initial=0) < 0.5)
    tags += [(index, box, f"missed: {text}", color) for index, box, text, color in truth_tags if missed[index]]
    _draw_tags(canvas, tags)
    return canvas


def draw_marked(
    image: ImageArray,
    boxes: FloatArray,
    texts: Sequence[str],
    colors: Sequence[Color],
    *,
    line_width: int | None = None,
) -> ImageArray:
    """A copy of the image with some boxes, the first on top, each in its colour and with its text if it has one.

    Args:
        image: ``(height, width, 3)`` uint8 RGB.
        boxes: ``(N, 4)`` xyxy in pixels of this image.
        texts: N of them; empty for a box alone.
        colors: N of them.
        line_width: Of the boxes, in pixels; None chooses it by the size of the image.
    """
    canvas: ImageArray = image.copy()
    corners = _corners(boxes, canvas)
    for index, box in reversed(corners):
        cv2.rectangle(canvas, box[:2], box[2:], colors[index], line_width or _line_width(canvas))
    _draw_tags(canvas, [(index, box, texts[index], colors[index]) for index, box in corners if texts[index]])
    return canvas


def draw_box(canvas: ImageArray, box: FloatArray, color: Color, thickness: int) -> None:
    """Draw a box ``(4,)`` with a thin black edge, which shows on any background, onto ``canvas`` ``(H, W, 3)``."""
    height, width = canvas.shape[:2]
    x1, y1, x2, y2 = np.rint(box).astype(int).tolist()
    low = (min(max(x1, 0), width - 1), min(max(y1, 0), height - 1))
    high = (min(max(x2 - 1, low[0]), width - 1), min(max(y2 - 1, low[1]), height - 1))
    cv2.rectangle(canvas, low, high, _BLACK, thickness + 2)
    cv2.rectangle(canvas, low, high, color, thickness)


def image_grid(
    images: Sequence[ImageArray], *, columns: int, cell: Size, captions: Sequence[str] | None = None
) -> ImageArray:
    """Images in rows on a neutral sheet, each scaled into its cell, proportions kept.

    Args:
        images: At least one image, of any sizes.
        columns: Cells of a row; the last row may be short.
        cell: ``(height, width)`` of a cell in pixels, its margin and caption included.
        captions: One line under each image, shortened where it doesn't fit.

    Returns:
        ``(rows * cell height, columns * cell width, 3)`` uint8 RGB.

    Raises:
        ValueError: No images, no columns, a cell under 16 pixels, or captions that don't go with the images.
    """
    height, width = cell
    if not images or columns < 1 or min(cell) < 16:
        raise ValueError(f"a grid needs images, columns and room: {len(images)}, {columns}, cell {cell}")
    if captions is not None and len(captions) != len(images):
        raise ValueError(f"{len(images)} images but {len(captions)} captions")
    sheet = np.full((math.ceil(len(images) / columns) * height, columns * width, 3), _BACKGROUND, np.uint8)
    margin = max(1, min(cell) // 60)
    scale = min(1.0, max(0.3, math.sqrt(height * width) / 700))
    strip = 0 if captions is None else round(30 * scale)
    inner = (height - 2 * margin - strip, width - 2 * margin)
    for index, image in enumerate(images):
        top, left = index // columns * height + margin, index % columns * width + margin
        factor = min(inner[0] / image.shape[0], inner[1] / image.shape[1])
        size = (max(1, round(image.shape[0] * factor)), max(1, round(image.shape[1] * factor)))
        small = resize_image(image, size, averaged=1)
        y, x = top + (inner[0] - size[0]) // 2, left + (inner[1] - size[1]) // 2
        sheet[y : y + size[0], x : x + size[1]] = small
        if captions is not None:
            text, (used, _, base) = fit_text(captions[index], scale, inner[1])
            place = (left + (inner[1] - used) // 2, top + inner[0] + strip - base)
            write_text(sheet, text, place, scale, _WHITE)
    return sheet


def legend_strip(entries: Sequence[LegendEntry], width: int) -> ImageArray:
    """A strip ``(H, width, 3)`` that says what colours mean, to be put under a sheet, in as many lines as it needs."""
    lines: list[list[tuple[Color | None, str, int]]] = [[]]
    x = 12
    for color, text in entries:
        for word in text.split() if color is None else [text]:
            shown, (wide, _, _) = fit_text(word, _LEGEND_SCALE, width)
            space = wide + (7 if color is None else 60)
            if x + space > width and lines[-1]:
                lines.append([])
                x = 12
            lines[-1].append((color, shown, x))
            x += space
        x += 14
    strip = np.full((14 + _LEGEND_LINE * len(lines), width, 3), _BACKGROUND, np.uint8)
    for number, line in enumerate(lines):
        base = 28 + _LEGEND_LINE * number
        for color, text, left in line:
            if color is not None:
                cv2.rectangle(strip, (left, base - 15), (left + 22, base + 2), _BLACK, cv2.FILLED)
                cv2.rectangle(strip, (left + 1, base - 14), (left + 21, base + 1), color, 3)
            write_text(strip, text, (left if color is None else left + 30, base), _LEGEND_SCALE, _WHITE)
    return strip


def printable_text(text: str) -> str:
    """The part of a text that OpenCV can write, on one line.

    OpenCV 4 has no letters beyond ASCII; lone surrogates, as in the name of a file that isn't UTF-8, crash OpenCV 5.
    """
    text = visible(text)
    if int(cv2.__version__.split(".")[0]) < 5:
        text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return " ".join(text.split())


def write_image(path: Path, image: ImageArray) -> None:
    """Write an image in the format its name asks for, making the folder; a file of that name is replaced whole.

    Args:
        path: Any name OpenCV has an encoder for, such as ``.jpg`` or ``.png``.
        image: ``(height, width, 3)`` uint8 RGB.

    Raises:
        ImageError: Unknown extension, an image the format can't hold, or a path that can't be written.
    """
    try:
        done, data = cv2.imencode(path.suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    except cv2.error as error:
        raise ImageError(f"{path}: can't encode an image as '{path.suffix}'; name it .jpg or .png") from error
    if not done:
        raise ImageError(f"{path}: an image of shape {image.shape} is too large for '{path.suffix}'; use .png")
    write_encoded(path, data.tobytes())


def jpeg_bytes(image: ImageArray, quality: int = 80) -> bytes:
    """An RGB image ``(height, width, 3)`` as a JPEG; ``quality`` is 1 to 100."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return bytes(cv2.imencode(".jpg", bgr, (cv2.IMWRITE_JPEG_QUALITY, quality))[1])


def write_encoded(path: Path, data: bytes) -> None:
    """Write an image that is encoded already; the rest is as in `write_image`."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise ImageError(f"{path}: can't be written ({error.strerror}); choose another path") from error


def _line_width(image: ImageArray) -> int:
    return max(1, round(math.sqrt(image.shape[0] * image.shape[1]) / 280))


def _corners(boxes: FloatArray, image: ImageArray) -> list[tuple[int, Corners]]:
    """Number, first and last pixel of each box, cut to the image; without those outside of it or not finite."""
    height, width = image.shape[:2]
    corners = []
    for index, (x1, y1, x2, y2) in enumerate(boxes.tolist()):
        if all(map(math.isfinite, (x1, y1, x2, y2))) and x2 >= 0 and y2 >= 0 and x1 < width and y1 < height:
            left, top = (min(max(round(low), 0), side - 1) for low, side in ((x1, width), (y1, height)))
            right, bottom = max(left, min(round(x2), width) - 1), max(top, min(round(y2), height) - 1)
            corners.append((index, (left, top, right, bottom)))
    return corners


def _draw_detected(canvas: ImageArray, detections: Drawable, line_width: int | None = None) -> list[Tag]:
    """Draw the boxes, and give their tags, best first."""
    tags: list[Tag] = []
    for index, box in _corners(detections.boxes, canvas):
        tags.append((index, box, detections.title(index), class_color(int(detections.labels[index]))))
    tags.sort(key=lambda tag: -detections.scores[tag[0]])
    for _, box, _, color in reversed(tags):
        cv2.rectangle(canvas, box[:2], box[2:], color, line_width or _line_width(canvas))
    return tags


def _draw_truth(canvas: ImageArray, target: Target, names: Sequence[str]) -> list[Tag]:
    """Draw thin white boxes with black edges, which show on any ground and under a detection; give their tags."""
    tags, line, known = [], _line_width(canvas), list(names)
    for index, (x1, y1, x2, y2) in _corners(target.boxes, canvas):
        crowd, label = bool(target.iscrowd[index]), int(target.labels[index])
        dash = 4 + 6 * line if crowd else max(canvas.shape)
        for color, thickness in ((_BLACK, line + 2), (_WHITE, max(1, line // 2))):
            for x in range(x1, x2 + 1, 2 * dash):
                for y in (y1, y2):
                    cv2.line(canvas, (x, y), (min(x + dash, x2), y), color, thickness)
            for y in range(y1, y2 + 1, 2 * dash):
                for x in (x1, x2):
                    cv2.line(canvas, (x, y), (x, min(y + dash, y2)), color, thickness)
        name = known[label - 1] if 1 <= label <= len(known) else f"class {label}"
        tags.append((index, (x1, y1, x2, y2), f"{name} (crowd)" if crowd else name, _WHITE))
    return tags


def _draw_tags(canvas: ImageArray, tags: Sequence[Tag]) -> None:
    """Write each text on a filled tag at its box, inside the image, and where there is a choice on no other tag.

    The first choose first and lie on top; a tag that would be hidden by half is omitted, and where there are many, one
    that would be hidden at all: the best ones stay readable.
    """
    hidden = 0.5 if len(tags) <= _MANY_TAGS else 0.1
    height, width = canvas.shape[:2]
    scale = min(max(0.36, math.sqrt(height * width) / 1400), 4.0)
    pad, half = max(1, round(4 * scale)), _line_width(canvas) // 2
    placed: list[tuple[Corners, str, int, Color]] = []
    taken = np.zeros((len(tags), 4), np.int64)
    for _, (x1, y1, x2, y2), full, color in tags:
        text, (used, tall, base) = fit_text(full, scale, width - 2 * pad)
        wide, high = used + 2 * pad, tall + base + 2 * pad
        wanted = np.array(list(product((x1 - half, x2 + half + 1 - wide), (y1 - high, y1, y2 + 1, y2 - high))))
        corner = np.clip(wanted, 0, (max(0, width - wide), max(0, height - high)))
        # Pushed back into the image, a tag is less clearly its box's.
        cost = _hidden(corner, (wide, high), taken[: len(placed)]) + np.abs(wanted - corner)[:, 1] * wide / 4
        best = int(cost.argmin())
        if cost[best] < wide * high * hidden:
            left, top = corner[best].tolist()
            taken[len(placed)] = spot = (left, top, left + wide, top + high)
            placed.append((spot, text, base + pad, color))
    for (left, top, right, bottom), text, rise, color in reversed(placed):
        cv2.rectangle(canvas, (left, top), (right - 1, bottom - 1), color, cv2.FILLED)
        bright = 0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2] > 140
        write_text(canvas, text, (left + pad, bottom - rise), scale, _BLACK if bright else _WHITE)


def _hidden(corners: IntArray, size: tuple[int, int], taken: IntArray) -> IntArray:
    """Pixels that tags ``(M, 4)`` have in common with one of ``size`` (w, h) at each corner ``(N, 2)``: ``(N,)``."""
    low = np.maximum(corners[:, None], taken[None, :, :2])
    high = np.minimum(corners[:, None] + np.array(size), taken[None, :, 2:])
    hidden: IntArray = np.clip(high - low, 0, None).prod(axis=2).sum(axis=1)
    return hidden


def write_text(canvas: ImageArray, text: str, place: tuple[int, int], scale: float, color: Color) -> None:
    """Write one line onto ``canvas`` ``(H, W, 3)``; ``place`` is ``(x, y)`` of the left end of its base line."""
    cv2.putText(canvas, text, place, _FONT, scale, color, max(1, round(scale)), cv2.LINE_AA)


def fit_text(text: str, scale: float, room: int) -> tuple[str, tuple[int, int, int]]:
    """The text, cut short to fit ``room`` pixels, with its width, its height and its depth below the line.

    Letters that this OpenCV can't write are omitted.
    """
    text = printable_text(text)
    for length in range(len(text), -1, -1):
        short = text if length == len(text) else text[:length].rstrip() + ("." if length else "")
        (wide, _), _ = cv2.getTextSize(short, _FONT, scale, max(1, round(scale)))
        if wide <= room or length == 0:
            break
    (_, tall), base = cv2.getTextSize("Xg", _FONT, scale, max(1, round(scale)))
    return short, (wide, tall, base)

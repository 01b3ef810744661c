"""Numbers, notes and help on top of a live frame.

Everything here draws on the image it is given, ``(H, W, 3)`` uint8 RGB, and returns it; text scales with the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.measure.meter import LiveNumbers
from mobiledet.apps.live.scene.drawing import draw_scene
from mobiledet.apps.live.view import ViewSettings
from mobiledet.draw.boxes import Color, draw_detections, fit_text, write_text
from mobiledet.preprocess import resize_image
from mobiledet.structures import ImageArray, Size

HELP = (
    ("q, Esc", "quit"),
    ("space", "pause, resume"),
    ("s", "save this frame"),
    ("+, up", "raise the threshold"),
    ("-, down", "lower the threshold"),
    ("l", "names on, off"),
    ("p", "numbers: few, all, none"),
    ("f", "full screen on, off"),
    ("h, ?", "this list on, off"),
)
"""Keys of the window, and what they do."""

_TEXT: Color = (240, 240, 240)
_FAINT: Color = (185, 190, 195)
_WARNING: Color = (255, 170, 40)
_GROUND = 0.22  # share of the image's brightness that is left behind text
_DIMMED = 0.45
_LEAST_SIDE = 480  # of the longer side, so that text has room
_LEAST_SCALE = 0.38

Line = tuple[str, Color]


def enlargement(size: Size) -> int:
    """How many times larger a frame of ``(height, width)`` is shown, so that there is room for text on it."""
    return max(1, math.ceil(_LEAST_SIDE / max(size)))


def draw_enlarged(result: Result, settings: ViewSettings, factor: int) -> ImageArray:
    """The frame ``factor`` times as large with its boxes, whose lines and letters stay thin."""
    height, width = result.frame.image.shape[:2]
    image = resize_image(result.frame.image, (height * factor, width * factor))
    shown = settings.select(result.detections)
    image = draw_detections(image, replace(shown, boxes=shown.boxes * factor), labels=settings.labels)
    if result.scene:
        draw_scene(image, result.scene, result.counts)
    return image


def draw_panel(image: ImageArray, numbers: LiveNumbers, settings: ViewSettings, *, detail: bool) -> ImageArray:
    """Write the current numbers into the upper left corner; lines that don't fit are left out.

    ``detail`` gives all that are known, instead of speed and age alone.
    """
    scale = _scale(image)
    pad = _pad(scale)
    lines = _panel_lines(numbers, settings, detail)
    step = 4 * pad  # so that the width doesn't change with every digit
    wide = math.ceil(_size(lines, scale, image.shape[1])[0] / step) * step
    return _write_lines(image, lines, scale, pad, pad, wide)


def draw_note(image: ImageArray, text: str, *, corner: bool = False) -> ImageArray:
    """Write a short note: at the middle of the lower edge, or into the upper right corner."""
    height, width = image.shape[:2]
    scale = _scale(image)
    margin = _pad(scale)
    lines = _wrap(text, scale, width - 6 * margin)
    wide, high = _size(lines, scale, width)
    left, top = (width - wide - margin, margin) if corner else ((width - wide) // 2, height - high - margin)
    return _write_lines(image, lines, scale, left, top, wide)


def draw_banner(image: ImageArray, text: str) -> ImageArray:
    """Dim the image and write across its middle why nothing moves."""
    cv2.convertScaleAbs(image, dst=image, alpha=_DIMMED)
    height, width = image.shape[:2]
    scale = 1.3 * _scale(image)
    lines = _wrap(text, scale, width - 4 * _pad(scale))
    top = (height - _size(lines, scale, width)[1]) // 2
    return _write_lines(image, lines, scale, 0, top, width, centered=True)


def draw_help(image: ImageArray) -> ImageArray:
    """Write the list of keys over the middle of the image."""
    height, width = image.shape[:2]
    columns = [(key, _TEXT) for key, _ in HELP], [(what, _FAINT) for _, what in HELP]
    scale = 1.1 * _scale(image)
    while True:
        (keys, high), (whats, _) = (_size(lines, scale, width) for lines in columns)
        if (keys + whats <= width and high <= height) or scale <= _LEAST_SCALE:
            break
        scale = max(_LEAST_SCALE, 0.9 * scale)
    left, top = max(0, (width - keys - whats) // 2), (height - high) // 2
    _write_lines(image, columns[0], scale, left, top, keys)
    return _write_lines(image, columns[1], scale, left + keys, top, whats)


def _panel_lines(numbers: LiveNumbers, settings: ViewSettings, detail: bool) -> list[Line]:
    lines = [(f"{_number(numbers.fps, 1)} FPS", _TEXT)]
    if numbers.age_ms is not None:
        most = "" if numbers.age_p95_ms is None else f", p95 {numbers.age_p95_ms:.0f}"
        lines.append((f"age {_number(numbers.age_ms, 0)}{most} ms", _TEXT))
    lines += [(f"slowed: {reason}", _WARNING) for reason in numbers.throttled]
    if not detail:
        return lines
    stages = [
        f"{name} {numbers.stages_ms[name]:.1f}"
        for name in ("network", "grab", "resize", "draw")
        if name in numbers.stages_ms
    ]
    # Two in a line, to keep the panel narrow.
    lines += [(f"{', '.join(stages[at : at + 2])} ms", _FAINT) for at in range(0, len(stages), 2)]
    lines.append((f"{numbers.processed} frames, {numbers.source.dropped} dropped", _FAINT))
    if numbers.source.skipped:
        lines.append((f"{numbers.source.skipped} unreadable", _WARNING))
    if numbers.source.reconnects:
        lines.append((f"reconnected {numbers.source.reconnects} times", _FAINT))
    lines.append((f"threshold {settings.threshold:.2f}", _FAINT))
    if settings.classes is not None:
        of = f" of {len(settings.names)}" if settings.names else ""
        lines.append((f"{len(settings.classes)}{of} classes", _FAINT))
    board = (("CPU {:.0f} %", numbers.cpu_percent), ("{:.0f} MiB", numbers.memory_mib))
    known = [form.format(value) for form, value in (*board, ("{:.0f} C", numbers.temperature_c)) if value is not None]
    return [*lines, (", ".join(known), _FAINT)] if known else lines


def _number(value: float | None, digits: int) -> str:
    return "--" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def _scale(image: ImageArray) -> float:
    height, width = (int(side) for side in image.shape[:2])
    # A long strip has little room across.
    return min(max(_LEAST_SCALE, min(math.sqrt(height * width) / 1150, width / 640, height / 240)), 6.0)


def _pad(scale: float) -> int:
    return max(2, round(12 * scale))


def _line_height(scale: float) -> int:
    return max(8, round(36 * scale))


def _size(lines: Sequence[Line], scale: float, room: int) -> tuple[int, int]:
    """Width, at most ``room``, and height of the ground under lines."""
    pad = _pad(scale)
    wide = max((fit_text(text, scale, room - 2 * pad)[1][0] for text, _ in lines), default=0)
    return min(room, wide + 2 * pad), len(lines) * _line_height(scale) + pad


def _write_lines(
    image: ImageArray, lines: Sequence[Line], scale: float, left: int, top: int, wide: int, *, centered: bool = False
) -> ImageArray:
    """Lines on a dark ground ``wide`` pixels wide, those that fit into the image."""
    pad, step = _pad(scale), _line_height(scale)
    left, top = max(0, left), max(0, top)
    lines = lines[: max(0, (image.shape[0] - top - pad) // step)]
    ground = image[top : top + len(lines) * step + pad, left : left + wide]
    if not lines or not ground.size:
        return image
    ground[:] = cv2.convertScaleAbs(ground, alpha=_GROUND)
    wide = ground.shape[1]
    for row, (text, color) in enumerate(lines):
        short, (used, _, _) = fit_text(text, scale, wide - 2 * pad)
        indent = (wide - used) // 2 if centered else pad
        write_text(image, short, (left + indent, top + pad // 2 + row * step + round(27 * scale)), scale, color)
    return image


def _wrap(text: str, scale: float, room: int, most: int = 4) -> list[Line]:
    """Text in lines of at most ``room`` pixels, broken at spaces where there are any."""
    lines: list[str] = []
    words = " ".join(text.split()).split(" ")
    while words and len(lines) < most:
        line = words.pop(0)
        while words and fit_text(f"{line} {words[0]}", scale, 1 << 30)[1][0] <= room:
            line = f"{line} {words.pop(0)}"
        cut = len(line)
        while cut > 1 and fit_text(line[:cut], scale, 1 << 30)[1][0] > room:
            cut -= 1
        if cut < len(line):
            words.insert(0, line[cut:])
        lines.append(line[:cut])
    if words:
        lines[-1] = f"{lines[-1]} {' '.join(words)}"  # what is too long ends in a dot
    return [(line, _TEXT) for line in lines]

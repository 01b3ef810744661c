"""Numbers, notes and help on top of a live frame.

Everything here draws on the image it is given, ``(H, W, 3)`` uint8 RGB, and returns it; text scales with the image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import cv2

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.measure.numbers import LiveNumbers
from mobiledet.apps.live.view import ViewSettings
from mobiledet.draw.boxes import Color, draw_detections, fit_text, write_text
from mobiledet.structures import Detections, ImageArray, Size

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
    image = cv2.resize(result.frame.image, (width * factor, height * factor), interpolation=cv2.INTER_LINEAR)
    shown: Detections = settings.select(result.detections)
    return draw_detections(image, replace(shown, boxes=shown.boxes * factor), labels=settings.labels)


def draw_panel(image: ImageArray, numbers: LiveNumbers, settings: ViewSettings, *, detail: bool) -> ImageArray:
    """Write the current numbers into the upper left corner; lines that don't fit are left out.

    Args:
        image: ``(height, width, 3)`` uint8 RGB; written to.
        numbers: What is written; unknown ones are left out.
        settings: For threshold and classes.
        detail: All numbers, instead of speed and age alone.
    """
    lines = _panel_lines(numbers, settings) if detail else _short_lines(numbers)
    margin = _pad(_scale(image))
    return _box(image, lines, _scale(image), left=margin, top=margin, steady=True)


def draw_note(image: ImageArray, text: str, *, corner: bool = False) -> ImageArray:
    """Write a short note: at the middle of the lower edge, or into the upper right corner."""
    scale = _scale(image)
    margin = _pad(scale)
    lines = [(line, _TEXT) for line in _wrap(text, scale, image.shape[1] - 6 * margin)]
    wide, high = _extent(lines, scale, image)
    if corner:
        return _box(image, lines, scale, left=image.shape[1] - wide - margin, top=margin)
    return _box(image, lines, scale, left=(image.shape[1] - wide) // 2, top=image.shape[0] - high - margin)


def draw_banner(image: ImageArray, text: str) -> ImageArray:
    """Dim the image and write across its middle why nothing moves."""
    cv2.convertScaleAbs(image, dst=image, alpha=_DIMMED)
    height, width = image.shape[:2]
    scale = 1.3 * _scale(image)
    lines = [(line, _TEXT) for line in _wrap(text, scale, width - 4 * _pad(scale))]
    _, high = _extent(lines, scale, image)
    top = max(0, (height - high) // 2)
    _darken(image, 0, top, width, top + high)
    return _write_lines(image, lines, scale, top=top)


def draw_help(image: ImageArray) -> ImageArray:
    """Write the list of keys over the middle of the image."""
    height, width = image.shape[:2]
    scale = 1.1 * _scale(image)
    while True:
        keys = max(fit_text(key, scale, width)[1][0] for key, _ in HELP) + 2 * _pad(scale)
        wide = keys + max(fit_text(what, scale, width)[1][0] for _, what in HELP) + 2 * _pad(scale)
        high = len(HELP) * _line_height(scale) + 2 * _pad(scale)
        if (wide <= width and high <= height) or scale <= _LEAST_SCALE:
            break
        scale = max(_LEAST_SCALE, 0.9 * scale)
    left, top = max(0, (width - wide) // 2), max(0, (height - high) // 2)
    _darken(image, left, top, left + wide, top + high)
    pad = _pad(scale)
    for row, (key, what) in enumerate(HELP):
        base = top + pad + row * _line_height(scale) + _ascent(scale)
        if base < height:
            for text, x, color in ((key, left + pad, _TEXT), (what, left + pad + keys, _FAINT)):
                write_text(image, fit_text(text, scale, width - x)[0], (x, base), scale, color)
    return image


def _short_lines(numbers: LiveNumbers) -> list[Line]:
    lines = [(f"{_number(numbers.fps, 1)} FPS", _TEXT)]
    if numbers.age_ms is not None:
        lines.append((_age(numbers), _TEXT))
    return lines + _warnings(numbers)


def _panel_lines(numbers: LiveNumbers, settings: ViewSettings) -> list[Line]:
    lines = _short_lines(numbers)
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
    board = []
    if numbers.cpu_percent is not None:
        board.append(f"CPU {numbers.cpu_percent:.0f} %")
    if numbers.memory_mib is not None:
        board.append(f"{numbers.memory_mib:.0f} MiB")
    if numbers.temperature_c is not None:
        board.append(f"{numbers.temperature_c:.0f} C")
    return [*lines, (", ".join(board), _FAINT)] if board else lines


def _warnings(numbers: LiveNumbers) -> list[Line]:
    return [(f"slowed: {reason}", _WARNING) for reason in numbers.throttled]


def _age(numbers: LiveNumbers) -> str:
    most = "" if numbers.age_p95_ms is None else f", p95 {numbers.age_p95_ms:.0f}"
    return f"age {_number(numbers.age_ms, 0)}{most} ms"


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


def _ascent(scale: float) -> int:
    return round(27 * scale)


def _extent(lines: Sequence[Line], scale: float, image: ImageArray) -> tuple[int, int]:
    """Width and height of a box around lines, at most the image's."""
    height, width = image.shape[:2]
    pad = _pad(scale)
    wide = max((fit_text(text, scale, width - 2 * pad)[1][0] for text, _ in lines), default=0)
    return min(width, wide + 2 * pad), min(height, len(lines) * _line_height(scale) + pad)


def _box(
    image: ImageArray, lines: Sequence[Line], scale: float, *, left: int, top: int, steady: bool = False
) -> ImageArray:
    """Lines on a dark ground; ``steady`` keeps its width from changing with every digit."""
    room = (image.shape[0] - top - _pad(scale)) // _line_height(scale)
    lines = lines[: max(0, room)]
    if not lines:
        return image
    left, top = max(0, left), max(0, top)
    wide, high = _extent(lines, scale, image)
    if steady:
        step = 4 * _pad(scale)
        wide = math.ceil(wide / step) * step
    right = min(image.shape[1], left + wide)
    _darken(image, left, top, right, top + high)
    for row, (text, color) in enumerate(lines):
        place = left + _pad(scale), top + _pad(scale) // 2 + row * _line_height(scale) + _ascent(scale)
        write_text(image, fit_text(text, scale, right - left - 2 * _pad(scale))[0], place, scale, color)
    return image


def _write_lines(image: ImageArray, lines: Sequence[Line], scale: float, *, top: int) -> ImageArray:
    """Lines in the middle of the image's width."""
    for row, (text, color) in enumerate(lines):
        short, (wide, _, _) = fit_text(text, scale, image.shape[1] - 2 * _pad(scale))
        base = top + _pad(scale) // 2 + row * _line_height(scale) + _ascent(scale)
        write_text(image, short, ((image.shape[1] - wide) // 2, base), scale, color)
    return image


def _darken(image: ImageArray, left: int, top: int, right: int, bottom: int) -> None:
    area = image[top:bottom, left:right]
    if area.size:
        area[:] = cv2.convertScaleAbs(area, alpha=_GROUND)


def _wrap(text: str, scale: float, room: int, most: int = 4) -> list[str]:
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
    return lines

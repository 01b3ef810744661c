"""Lines and zones on a frame, with their counts."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np

from mobiledet.apps.live.scene.counting import counts_in_words
from mobiledet.apps.live.scene.shapes import Scene
from mobiledet.draw.boxes import Color, fit_text, write_text
from mobiledet.structures import ImageArray

_LINE: Color = (255, 214, 64)
_ZONE: Color = (64, 200, 255)
_BLACK: Color = (0, 0, 0)
_TINT = 0.12  # of a zone's colour over what is in it


def draw_scene(image: ImageArray, scene: Scene, counts: dict[str, Any]) -> None:
    """Draw lines with an arrow to the side "in", and zones, each with name and counts, onto ``(H, W, 3)`` uint8 RGB.

    Args:
        image: Is drawn on.
        scene: In shares of the frame.
        counts: As `SceneCounter.counts` gives them.
    """
    height, width = image.shape[:2]
    scale = min(max(0.4, math.sqrt(height * width) / 1200), 4.0)
    thick = max(1, round(2 * scale))
    words = dict(counts_in_words(counts))
    for name, points in scene.zones.items():
        corners = np.rint(np.array(points) * [width, height]).astype(np.int32)
        inside = np.zeros((height, width), np.uint8)
        cv2.fillPoly(inside, [corners], 255)
        cv2.copyTo(cv2.addWeighted(image, 1 - _TINT, np.full_like(image, _ZONE), _TINT, 0), inside, image)
        for color, more in ((_BLACK, 2), (_ZONE, 0)):
            cv2.polylines(image, [corners], True, color, thick + more, cv2.LINE_AA)
        top = corners[corners[:, 1].argmin()]
        _write(image, f"{name}: {words.get(name, '')}", (int(top[0]), int(top[1])), scale, _ZONE)
    for name, points in scene.lines.items():
        start, end = (np.array(point) * [width, height] for point in points)
        middle, along = (start + end) / 2, (end - start) / max(1e-6, float(np.hypot(*(end - start))))
        tip = middle + np.array([-along[1], along[0]]) * 16 * scale  # to the right of who looks along the line
        for color, more in ((_BLACK, 2), (_LINE, 0)):
            cv2.line(image, _pixel(start), _pixel(end), color, thick + more, cv2.LINE_AA)
            cv2.arrowedLine(image, _pixel(middle), _pixel(tip), color, thick + more, cv2.LINE_AA, tipLength=0.5)
        _write(image, f"{name}: {words.get(name, '')}", _pixel(start), scale, _LINE)


def _pixel(point: Any) -> tuple[int, int]:
    return round(float(point[0])), round(float(point[1]))


def _write(image: ImageArray, text: str, place: tuple[int, int], scale: float, color: Color) -> None:
    """A text on a dark ground, inside the image, right above a place."""
    height, width = image.shape[:2]
    short, (wide, tall, base) = fit_text(text, 0.75 * scale, width - 8)
    left, bottom = min(max(0, place[0]), width - wide - 8), min(max(tall + base + 4, place[1] - 4), height)
    ground = image[max(0, bottom - tall - base - 4) : bottom, left : left + wide + 8]
    ground[:] = cv2.convertScaleAbs(ground, alpha=0.25)
    write_text(image, short, (left + 4, bottom - base), 0.75 * scale, color)

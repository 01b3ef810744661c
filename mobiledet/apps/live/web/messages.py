"""What page and server send each other: numbers, detections and settings, as plain JSON values."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any, NoReturn

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.scene.shapes import Scene, scene_from_plain
from mobiledet.apps.live.view import ViewSettings
from mobiledet.errors import ConfigError
from mobiledet.evaluation.thresholds import LOWEST

_Rule = tuple[str, Callable[[Any], bool]]
"""What a setting must be, and whether a value is that."""

_HIGHEST_LABEL = 100_000
"""Where the model has no names that say how many there are."""


class SettingsError(ValueError):
    """Settings that are not valid; the message is one line for the person who sent them."""


def settings_json(settings: ViewSettings) -> dict[str, Any]:
    """``threshold, classes (None or sorted labels), labels, paused, revision``."""
    classes = settings.classes
    return {
        # Read first: if something changes meanwhile, the page sees the next answer as newer.
        "revision": settings.revision,
        "threshold": settings.threshold,
        "classes": None if classes is None else sorted(int(label) for label in classes),
        "labels": settings.labels,
        "paused": settings.paused,
    }


def counts_json(result: Result, settings: ViewSettings) -> dict[str, int]:
    """Detections of each label that reach the threshold, whether or not the class is shown."""
    found = result.detections.above(settings.threshold)
    return {str(label): count for label, count in sorted(Counter(found.labels.tolist()).items())}


def detections_json(result: Result, settings: ViewSettings, now: float) -> dict[str, Any]:
    """The detections shown in a frame: ``index, name, position, seconds_ago, size, threshold, detections``.

    Boxes are xyxy in pixels of the frame, sizes ``[height, width]``.
    """
    shown = settings.select(result.detections)
    frame = result.frame
    return {
        "index": frame.index,
        "name": frame.name,
        "position": frame.position,
        "seconds_ago": round(now - frame.grabbed, 4),
        "size": list(frame.image.shape[:2]),
        "threshold": settings.threshold,
        "detections": shown.to_json(),
    }


def apply_settings(body: bytes, settings: ViewSettings, *others: ViewSettings) -> None:
    """Change the settings that a page sends: all of them, or none if any is not valid; those of ``others`` as well.

    The body is a JSON object with some of ``threshold`` (0.05..1), ``classes`` (labels, or null for all), ``labels``
    and ``paused`` (true or false).

    Raises:
        SettingsError: The body is not such an object.
    """
    highest = len(settings.names) or _HIGHEST_LABEL
    switch: _Rule = "true or false", lambda value: isinstance(value, bool)
    rules: dict[str, _Rule] = {
        "threshold": (f"a number between {LOWEST:g} and 1", lambda value: _is_number(value, LOWEST, 1)),
        "classes": (
            f"null for all, or a list of labels, whole numbers from 1 to {highest}",
            lambda value: value is None or (isinstance(value, list) and all(_is_label(one, highest) for one in value)),
        ),
        "labels": switch,
        "paused": switch,
    }
    changes = _read_object(body)
    for key, value in changes.items():
        if key not in rules:
            raise SettingsError(f"unknown setting {key[:40]!r}; there are {', '.join(rules)}")
        wanted, is_valid = rules[key]
        if not is_valid(value):
            raise SettingsError(f"{key} must be {wanted}, not {_short(value)}")
    for each in (settings, *others):
        for key, value in changes.items():
            setattr(each, key, value)


def read_scene_message(body: bytes) -> Scene:
    """Lines and zones as a page sends them: `Scene.plain`, in shares of the frame.

    Raises:
        SettingsError: The body is not such an object.
    """
    try:
        scene = scene_from_plain(_read_object(body))
        sides = [side for shapes in (scene.lines, scene.zones) for points in shapes.values() for side in chain(*points)]
        if not all(0 <= side <= 1 for side in sides):
            raise SettingsError("points must be shares of the frame's width and height, 0 to 1")
        return scene_from_plain(scene.in_shares((1, 1)).plain())  # a shape may shrink to nothing when rounded
    except ConfigError as error:
        raise SettingsError(str(error)) from None


def _is_number(value: Any, least: float, most: float) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most


def _is_label(value: Any, highest: int) -> bool:
    return isinstance(value, int) and _is_number(value, 1, highest)


def _read_object(body: bytes) -> dict[str, Any]:
    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number")

    try:
        changes = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the body is not valid JSON: {' '.join(str(error).split())[:100]}") from None
    if not isinstance(changes, dict):
        raise SettingsError('the body must be a JSON object, such as {"threshold": 0.5}')
    return changes


def _short(value: Any) -> str:
    # Python refuses to write out integers of thousands of digits.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20:
        return "a number that large"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def finite(value: Any) -> Any:
    """A JSON value whose numbers that are not finite have become None."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

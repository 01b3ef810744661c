"""What page and server send each other: numbers, detections and settings, as plain JSON values."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, NoReturn

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.measure.numbers import LiveNumbers
from mobiledet.apps.live.view import ViewSettings
from mobiledet.evaluate.thresholds import LOWEST

_KEYS = ("threshold", "classes", "labels", "paused")

_HIGHEST_LABEL = 100_000
"""Where the model has no names that say how many there are."""


class SettingsError(ValueError):
    """Settings that are not valid; the message is one line for the person who sent them."""


def numbers_json(numbers: LiveNumbers) -> dict[str, Any]:
    """All fields, those of ``source`` inside; numbers that are not finite become None."""
    plain: dict[str, Any] = _finite(asdict(numbers))
    return plain


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
    plain: dict[str, Any] = _finite(
        {
            "index": frame.index,
            "name": frame.name,
            "position": frame.position,
            "seconds_ago": round(now - frame.grabbed, 4),
            "size": list(frame.image.shape[:2]),
            "threshold": settings.threshold,
            "detections": [
                {
                    "label": int(shown.labels[index]),
                    "name": shown.name(index),
                    "score": round(float(shown.scores[index]), 4),
                    "box": [round(value, 2) for value in shown.boxes[index].tolist()],
                }
                for index in range(len(shown))
            ],
        }
    )
    return plain


def apply_settings(body: bytes, settings: ViewSettings) -> None:
    """Change the settings that a page sends: all of them, or none if any is not valid.

    Args:
        body: JSON object with some of ``threshold`` (0.05..1), ``classes`` (labels, or null for all), ``labels``
            and ``paused`` (true or false).
        settings: What is changed.

    Raises:
        SettingsError: The body is not such an object.
    """
    changes = _read_object(body)
    checked: dict[str, Any] = {}
    for key, value in changes.items():
        if key not in _KEYS:
            raise SettingsError(f"unknown setting {key[:40]!r}; there are {', '.join(_KEYS)}")
        if key == "threshold":
            checked[key] = _threshold(value)
        elif key == "classes":
            checked[key] = _classes(value, len(settings.names))
        else:
            checked[key] = _switch(key, value)
    for key, value in checked.items():
        setattr(settings, key, value)


def _read_object(body: bytes) -> dict[str, Any]:
    def refuse(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a number")

    try:
        changes = json.loads(body.decode("utf-8"), parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())[:100]
        raise SettingsError(f"the body is not valid JSON: {reason}") from None
    if not isinstance(changes, dict):
        raise SettingsError('the body must be a JSON object, such as {"threshold": 0.5}')
    return changes


def _threshold(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not LOWEST <= value <= 1:
        raise SettingsError(f"threshold must be a number between {LOWEST:g} and 1, not {_short(value)}")
    return float(value)


def _classes(value: Any, count: int) -> frozenset[int] | None:
    if value is None:
        return None
    highest = count or _HIGHEST_LABEL
    if not isinstance(value, list):
        raise SettingsError(f"classes must be a list of labels, or null for all, not {_short(value)}")
    for label in value:
        if isinstance(label, bool) or not isinstance(label, int) or not 1 <= label <= highest:
            raise SettingsError(
                f"classes: {_short(label)} is not a label; labels are whole numbers from 1 to {highest}"
            )
    return frozenset(value)


def _switch(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SettingsError(f"{key} must be true or false, not {_short(value)}")
    return value


def _short(value: Any) -> str:
    # Python refuses to write out integers of thousands of digits.
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**20:
        return "a number that large"
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""FPS cards: the JSON reports of live runs, read back to be compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from mobiledet.errors import MobiledetError
from mobiledet.utils.text import shorten

KIND = "mobiledet-fps-card"
VERSION = 1

STAGES = ("grab", "motion", "resize", "network", "nms", "read", "track", "draw")
"""In the order that a frame passes through them. ``nms`` is a part of ``network``."""

FRAMES = ("captured", "processed", "dropped", "skipped", "paused", "not_due", "still", "shown", "saved", "not_saved")
"""Counts of frames."""

SERIES = ("fps", "age_ms", "temperature_c", "memory_mib")
"""What the timeline may hold, a value for each step."""

_GROUPS = ("machine", "model", "source", "settings", "frames", "fps", "age_ms", "stages_ms", "timeline")
_OBJECTS = (*((group,) for group in _GROUPS), ("machine", "packages"))
_TIMES = tuple(("timeline", name) for name in SERIES)
_LISTS = (*_TIMES, ("throttled",), ("unseen",), ("source", "size"), ("model", "input_size"))

_NUMBERS: Mapping[tuple[str, ...], Sequence[str]] = {
    (): ("seconds", "start_to_first_boxes_ms"),
    ("machine",): ("cores", "memory_gib", "load_average"),
    ("model",): ("classes", "gmacs"),
    ("source",): ("fps",),
    ("settings",): ("threads", "threshold"),
    ("frames",): (*FRAMES, "reconnects", "lost_seconds"),
    ("fps",): ("overall", "first_minute", "last_minute", "worst_second"),
    **{(group,): ("p50", "p95", "max") for group in ("age_ms", "shown_age_ms")},
    **{("stages_ms", stage): ("p50", "p95") for stage in STAGES},
    ("cpu_percent",): ("mean", "max"),
    ("memory_mib",): ("first_minute", "last_minute", "peak"),
    ("temperature_c",): ("start", "end", "max"),
    ("timeline",): ("step_s",),
}
"""Every figure of a card: its group, and its names in there."""

_MAX_BYTES = 50 * 2**20
_MAX_VALUE = 1e12


@dataclass(frozen=True)
class Card:
    """The report of one run: the board's name on the page, and the JSON as it was read.

    Every figure that `number` and `series` give has been checked.
    """

    label: str
    content: Mapping[str, Any]

    def value(self, *keys: str) -> Any:
        """What the report holds at a place; None where it holds nothing."""
        found: Any = self.content
        for key in keys:
            found = found.get(key) if isinstance(found, Mapping) else None
        return found

    def number(self, *keys: str) -> float | None:
        """A figure; None where it isn't known."""
        value = self.value(*keys)
        return None if value is None or isinstance(value, bool) else float(value)

    def text(self, *keys: str) -> str:
        """A text; empty where there is none."""
        value = self.value(*keys)
        return "" if value is None else str(value)

    def series(self, name: str) -> list[float | None]:
        """A line of the timeline; empty where it wasn't measured."""
        return list(self.value("timeline", name) or [])

    def words(self, *keys: str) -> list[str]:
        """A list of texts."""
        return [str(word) for word in self.value(*keys) or []]

    @property
    def sustained_fps(self) -> float | None:
        """Of the last minute, or of the whole run where that was short."""
        last = self.number("fps", "last_minute")
        return self.number("fps", "overall") if last is None else last


def read_card(path: Path) -> Card:
    """Read a report that ``mobiledet webcam --report`` has written; figures may be missing.

    Raises:
        MobiledetError: There is no such file, or it is damaged, something else, or of a newer version.
    """
    remedy = "name a JSON file that mobiledet webcam --report has written"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise MobiledetError(f"{path} is too large for a report; {remedy}")
        content = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise MobiledetError(f"{path}: can't be read: {error.strerror}; {remedy}") from None
    except (ValueError, RecursionError):
        raise MobiledetError(f"{path} is not valid JSON; {remedy}") from None
    if not isinstance(content, dict) or content.get("kind") != KIND:
        raise MobiledetError(f"{path} is not a report of a live run; {remedy}")
    version = content.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise MobiledetError(f"{path}: version is {version!r}, not a number; {remedy}")
    if version > VERSION:
        raise MobiledetError(
            f"{path} is of version {version}, and this program reads up to {VERSION}; update mobiledet to compare it"
        )
    problem = _problem(content)
    if problem:
        raise MobiledetError(f"{path} is damaged: {problem}; {remedy}")
    card = Card("", content)
    name = card.text("label") or card.text("machine", "processor") or path.stem
    return replace(card, label=shorten(name, 200))


def read_cards(paths: Sequence[Path]) -> list[Card]:
    """Read several; boards of the same name are distinguished by model, by source, or by number.

    Raises:
        MobiledetError: As `read_card`, or there are none.
    """
    if not paths:
        raise MobiledetError(
            "no report given; name one or several JSON files that mobiledet webcam --report has written"
        )
    cards = [read_card(path) for path in paths]
    for group in ("model", "source"):
        counts = Counter(card.label for card in cards)
        names = [shorten(card.text(group, "name"), 200) for card in cards]
        kinds = Counter(label for label, _ in {(card.label, name) for card, name in zip(cards, names, strict=True)})
        cards = [
            replace(card, label=f"{card.label}, {name}") if counts[card.label] > 1 and kinds[card.label] > 1 else card
            for card, name in zip(cards, names, strict=True)
        ]
    counts, used = Counter(card.label for card in cards), Counter[str]()
    numbered = []
    for card in cards:
        used[card.label] += 1
        number = f" ({used[card.label]})" if counts[card.label] > 1 else ""
        numbered.append(replace(card, label=card.label + number))
    return numbered


def _refuse(word: str) -> NoReturn:
    """Called by json for NaN and Infinity."""
    raise ValueError(word)


def _problem(content: Mapping[str, Any]) -> str:
    """What is wrong with a report's figures; empty when nothing is."""
    card = Card("", content)
    for kind, word, places in ((dict, "an object", _OBJECTS), (list, "a list", _LISTS)):
        for keys in places:
            if not isinstance(value := card.value(*keys), kind | None):
                return f"{'.'.join(keys)} is {value!r:.40}, not {word}"
    for group, names in _NUMBERS.items():
        for keys in ((*group, name) for name in names):
            if not _is_possible(value := card.value(*keys), keys[0]):
                return f"{'.'.join(keys)} is {value!r:.40}, which is not a possible number"
    for name in SERIES:
        if not all(_is_possible(value, name) for value in card.series(name)):
            return f"timeline.{name} holds something that is not a possible number"
    return ""


def _is_possible(value: Any, name: str) -> bool:
    """Whether it is unknown or a number in the range of such figures; only temperatures are ever below 0."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value is None
    return (-_MAX_VALUE if name.startswith("temperature") else 0) <= value <= _MAX_VALUE

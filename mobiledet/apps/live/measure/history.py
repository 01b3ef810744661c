"""What happened at the lines and in the zones over the last day, minute by minute, in memory."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.scene.shapes import MOST_SHAPES

MINUTES = 24 * 60


class History:
    """Counts of each of the last 1,440 minutes; safe in any thread. ``clock`` gives seconds since 1970."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._minutes: deque[dict[str, Any]] = deque(maxlen=MINUTES)
        self._lock = threading.Lock()

    def add(self, result: Result) -> None:
        """Count what happened in a result, and how many are in each zone."""
        begin = int(self._clock() // 60) * 60
        with self._lock:
            if not self._minutes or self._minutes[-1]["time"] != begin:
                self._minutes.append({"time": begin, "lines": {}, "zones": {}})
            lines, zones = self._minutes[-1]["lines"], self._minutes[-1]["zones"]
            for event in result.events:
                # Viewers may rename lines as often as they like.
                if event["event"] == "line_crossed" and (event["line"] in lines or len(lines) < MOST_SHAPES):
                    lines.setdefault(event["line"], {"in": 0, "out": 0})[event["direction"]] += 1
            for name, zone in result.counts.get("zones", {}).items():
                now = sum(zone["now"].values())
                if now > zones.get(name, 0) and (name in zones or len(zones) < MOST_SHAPES):
                    zones[name] = now

    def plain(self) -> list[dict[str, Any]]:
        """Minutes of the last day that had frames, oldest first.

        Each has ``time`` (its begin, seconds since 1970), ``lines`` (``{name: {"in": 1, "out": 0}}`` of those that were
        crossed) and ``zones`` (``{name: most at once}`` of those that somebody was in).
        """
        first = self._clock() - 60 * MINUTES
        with self._lock:
            return [
                {
                    "time": minute["time"],
                    "lines": {name: dict(counts) for name, counts in minute["lines"].items()},
                    "zones": dict(minute["zones"]),
                }
                for minute in self._minutes
                if minute["time"] > first
            ]

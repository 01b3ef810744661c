"""Who crossed a line, who is in a zone, and for how long; each object once, however its box trembles."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from mobiledet.apps.live.scene.shapes import Point, Scene
from mobiledet.detections import Detections
from mobiledet.runtime.tracking import LOST_S
from mobiledet.structures import FloatArray, Size

Event = dict[str, Any]
"""``event`` (appeared, disappeared, line_crossed, zone_entered, zone_left), what belongs to it, and ``class``,
``track_id``, ``score`` and ``box``: a JSON object."""

MARGIN = 0.05
"""How far a foot must be beyond a line to be there, as a share of its box's width and height together.

An object that stands on the line trembles from one side to the other; it has crossed once it is this far beyond."""


@dataclass
class _Track:
    """An object: when it came and was seen last, its last sure detection, and its side of each line then."""

    since: float
    seen: float
    detail: Event
    sides: dict[str, tuple[int, Point]] = field(default_factory=dict)


class SceneCounter:
    """Counts tracked objects at the lines and in the zones of a scene, by the middle of their box's lower edge.

    A line counts whoever passes between its ends, each direction by itself. For a second count of the same object it
    has to come back. Zones count who is in them.
    """

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self._tracks: dict[int, _Track] = {}
        self._crossed: dict[str, dict[str, Counter[str]]] = {}
        self._visits: dict[str, dict[int, float]] = {}  # since when each object is in a zone
        self._entered: Counter[str] = Counter()
        self._dwelt: dict[str, list[float]] = {}  # how many left, and their seconds together
        self.change_scene(scene)

    def change_scene(self, scene: Scene) -> None:
        """Count somewhere else from now on; a line or zone of the same name keeps its counts."""
        self.scene = scene
        self._crossed = {name: self._crossed.get(name, {"in": Counter(), "out": Counter()}) for name in scene.lines}
        self._visits = {name: self._visits.get(name, {}) for name in scene.zones}
        self._entered = Counter({name: self._entered[name] for name in scene.zones})
        self._dwelt = {name: self._dwelt.get(name, [0, 0.0]) for name in scene.zones}
        for track in self._tracks.values():
            track.sides.clear()

    def update(self, detections: Detections, size: Size, seconds: float, threshold: float) -> list[Event]:
        """What happened since the frame before.

        Args:
            detections: Those that are shown, with their ``track_ids``.
            size: ``(height, width)`` of the frame.
            seconds: When it was taken; never less than before.
            threshold: What scores less is still there, but its box isn't sure enough to have moved.
        """
        height, width = size
        shapes = {
            name: np.array(points, np.float32) * np.array([width, height], np.float32)
            for name, points in (*self.scene.lines.items(), *self.scene.zones.items())
        }
        events: list[Event] = []
        ids = () if detections.track_ids is None else detections.track_ids.tolist()
        for index, number in enumerate(ids):
            if number == 0:
                continue
            x1, y1, x2, y2 = detections.boxes[index].tolist()
            foot, margin = ((x1 + x2) / 2, y2), MARGIN * (x2 - x1 + y2 - y1)
            if number in self._tracks:
                self._tracks[number].seen = seconds
            if detections.scores[index] < threshold:
                continue
            detail = {
                "class": detections.name(index),
                "track_id": number,
                "score": round(float(detections.scores[index]), 4),
                "box": [round(side, 1) for side in (x1, y1, x2, y2)],
            }
            if number not in self._tracks:
                self._tracks[number] = _Track(seconds, seconds, detail)
                events.append({"event": "appeared", **detail})
            track = self._tracks[number]
            track.detail = detail
            for name in self.scene.lines:
                if direction := self._cross(track, name, shapes[name], foot, margin):
                    self._crossed[name][direction][detail["class"]] += 1
                    events.append({"event": "line_crossed", "line": name, "direction": direction, **detail})
            for name in self.scene.zones:
                events += self._visit(number, name, shapes[name], foot, margin, seconds, detail)
        events += self._forget(seconds)
        return events

    def counts(self) -> dict[str, Any]:
        """Plain counts: ``lines`` by name, direction and class; ``zones`` by name.

        Each zone has ``now`` (who is in it, by class), ``entered`` and ``mean_dwell_s`` (of those who left, or None).
        """
        return {
            "lines": {
                name: {direction: dict(by_class) for direction, by_class in directions.items()}
                for name, directions in self._crossed.items()
            },
            "zones": {
                name: {
                    "now": dict(Counter(self._tracks[number].detail["class"] for number in visits)),
                    "entered": self._entered[name],
                    "mean_dwell_s": round(self._dwelt[name][1] / self._dwelt[name][0], 1)
                    if self._dwelt[name][0]
                    else None,
                }
                for name, visits in self._visits.items()
            },
        }

    def _cross(self, track: _Track, name: str, line: FloatArray, foot: Point, margin: float) -> str:
        """The direction in which an object has just crossed a line, "in" or "out"; empty if it hasn't."""
        (ax, ay), (bx, by) = line.tolist()
        along = bx - ax, by - ay
        length = math.hypot(*along)

        def distance(point: Point) -> float:
            return float(along[0] * (point[1] - ay) - along[1] * (point[0] - ax)) / length

        here = distance(foot)
        if abs(here) < min(margin, length / 4):
            return ""
        side = 1 if here > 0 else -1
        before, last = track.sides.get(name, (side, foot))
        track.sides[name] = side, foot
        if side == before:
            return ""
        there = distance(last)
        share = there / (there - here)
        x, y = last[0] + share * (foot[0] - last[0]), last[1] + share * (foot[1] - last[1])
        place = ((x - ax) * along[0] + (y - ay) * along[1]) / length**2
        return ("in" if side > 0 else "out") if 0 <= place <= 1 else ""

    def _visit(
        self, number: int, name: str, corners: FloatArray, foot: Point, margin: float, seconds: float, detail: Event
    ) -> Iterator[Event]:
        visits = self._visits[name]
        inside = cv2.pointPolygonTest(corners.reshape(-1, 1, 2), foot, True)
        margin = min(margin / 2, 0.1 * math.sqrt(cv2.contourArea(corners)))
        if number in visits:
            if inside < -margin:
                yield self._leave(name, number)
        elif inside > margin:
            visits[number] = seconds
            self._entered[name] += 1
            yield {"event": "zone_entered", "zone": name, **detail, "occupancy": len(visits)}

    def _leave(self, name: str, number: int) -> Event:
        track = self._tracks[number]
        dwell = track.seen - self._visits[name].pop(number)
        self._dwelt[name] = [self._dwelt[name][0] + 1, self._dwelt[name][1] + dwell]
        left = {"event": "zone_left", "zone": name, **track.detail, "dwell_s": round(dwell, 2)}
        return left | {"occupancy": len(self._visits[name])}

    def _forget(self, seconds: float) -> Iterator[Event]:
        """Objects that nobody has seen for so long that they would come back with another id."""
        for number in [number for number, track in self._tracks.items() if seconds - track.seen > LOST_S]:
            for name in [name for name, visits in self._visits.items() if number in visits]:
                yield self._leave(name, number)
            track = self._tracks.pop(number)
            yield {"event": "disappeared", **track.detail, "seen_s": round(track.seen - track.since, 2)}


def counts_in_words(counts: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """The counts of every line and zone in words: ``("gate", "in 3, out 1")``, ``("porch", "2 now, 5 entered")``."""
    lines = [
        (name, ", ".join(f"{direction} {sum(by_class.values())}" for direction, by_class in directions.items()))
        for name, directions in counts.get("lines", {}).items()
    ]
    return [
        *lines,
        *(
            (name, f"{sum(zone['now'].values())} now, {zone['entered']} entered")
            for name, zone in counts.get("zones", {}).items()
        ),
    ]

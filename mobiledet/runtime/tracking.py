"""Which one is it: ids for the objects of a video that stay from frame to frame."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from mobiledet.detections import Detections
from mobiledet.errors import need_extra
from mobiledet.ops.numpy_boxes import best_of_each, box_area, pairwise_intersection
from mobiledet.structures import BoolArray, DoubleArray, IntArray

LOST_S = 2.0
"""Seconds for which an object that isn't seen keeps its id."""

LOWEST_SCORE = 0.1
"""Detections below the threshold carry on the id of an object down to this score.

They are shown with it down to half of the threshold, where the object was above it within `LOST_S`."""

UPDATES = 3
"""Frames in a row in which an object is detected before it gets an id: a single false detection gets none."""

PART_OF = 0.65
"""Share of a box inside a better one of its class from which it's the same object's, not another's."""

STEADINESS = 10.0
"""Times ByteTrack's measurement noise: boxes tremble a third less, and are behind by little (IoU 0.98 on average)."""

_APART = 1e5
"""Pixels between boxes of two classes, so that no id passes from one class to another."""


class Tracker:
    """Gives detections ids, and boxes that tremble less, by ByteTrack (Zhang et al. 2021) of the package ``trackers``.

    The time of each frame counts, not its number: frames may be dropped. Objects that nobody has seen for two seconds
    come back with another id, so after a longer pause or a lost source all do. Ids are whole numbers from 1 on, and
    none is given twice.

    Args:
        threshold: Score from which a detection starts an id.

    Raises:
        MissingDependencyError: The extra ``track`` isn't installed.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        need_extra("track")
        self._threshold = threshold
        self._count = 0
        self._start()

    def _start(self) -> None:
        from trackers import ByteTrackTracker
        from trackers.utils.state_representations import XYXYStateEstimator

        class Steadier(XYXYStateEstimator):
            """Trusts a single box less than ByteTrack does, so that boxes stand still where objects do."""

            def set_kf_covariances(self, measurement_noise: Any = None, *rest: Any, **more: Any) -> None:
                noise = None if measurement_noise is None else STEADINESS * measurement_noise
                super().set_kf_covariances(noise, *rest, **more)

        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(30 * LOST_S),  # it counts in thirtieths of a second, whatever the rate
            minimum_consecutive_frames=UPDATES,
            state_estimator_class=Steadier,
        )
        self._time, self._clock = -math.inf, 0.0  # of the frame before, as given and as the library knows it
        self._ids: dict[int, int] = {}  # of its ids those that were given out, and ours
        self._sure: dict[int, float] = {}  # when one of its ids last scored above the threshold

    @property
    def threshold(self) -> float:
        """Score from which a detection starts an id; once it is changed, those below it are no longer carried on."""
        return self._threshold

    @threshold.setter
    def threshold(self, value: float) -> None:
        if value != self._threshold:
            self._sure.clear()
        self._threshold = value

    def update(self, detections: Detections, seconds: float, labels: Collection[int] | None = None) -> Detections:
        """Ids for the detections of the next frame.

        Args:
            detections: All of them, from a score of 0.1 on: those below the threshold help to keep ids.
            seconds: When the frame was taken. If that is earlier than the one before, as where a file starts again, all
                objects are new ones.
            labels: Classes that are tracked; None for all.

        Returns:
            The same detections with their ``track_ids``; the boxes of those that have one follow the filtered motion.
        """
        import supervision

        if seconds < self._time:
            self._start()
        self._clock += min(max(seconds - self._time, 1e-3), 10 * LOST_S)
        self._time, now = seconds, self._clock
        self._tracker.track_activation_threshold = self._tracker.high_conf_det_threshold = self.threshold
        used = np.flatnonzero(detections.scores >= min(LOWEST_SCORE, self.threshold))
        if labels is not None:
            used = used[np.isin(detections.labels[used], list(labels))]
        used = used[_distinct(detections.boxes[used].astype(np.float64), detections.labels[used])]
        shift = _APART * detections.labels[:, None].astype(np.float64)
        given = supervision.Detections(
            xyxy=(detections.boxes + shift)[used],
            confidence=detections.scores[used],
            class_id=detections.labels[used],
            data={"index": used},
        )
        found = self._tracker.update(given, timestamp=now)
        ids, boxes = np.zeros(len(detections), np.int64), detections.boxes.copy()
        tracks = {track.tracker_id: track for track in self._tracker.tracks}
        tracked = zip(found.data["index"], found.tracker_id, strict=True) if len(found) else ()
        for index, track in tracked:
            if track < 0:
                continue
            if detections.scores[index] >= self.threshold:
                self._sure[track] = now
            recently = now - self._sure.get(track, -math.inf) <= LOST_S
            if recently and detections.scores[index] >= self.threshold / 2:
                if track not in self._ids:
                    self._count += 1
                    self._ids[track] = self._count
                ids[index], boxes[index] = self._ids[track], tracks[track].get_state_bbox() - shift[index]
        self._ids = {track: number for track, number in self._ids.items() if track in tracks}
        self._sure = {track: last for track, last in self._sure.items() if track in tracks}
        return replace(detections, boxes=boxes, track_ids=ids)


def _distinct(boxes: DoubleArray, labels: IntArray) -> BoolArray:
    """Which boxes ``(N, 4)``, best first, are no part of a better one of their class: ``(N,)``.

    A detector's own suppression goes by IoU, and so leaves a person's upper half beside the person; either would get an
    id, and keep it.
    """
    area = box_area(boxes)
    part = pairwise_intersection(boxes, boxes) > PART_OF * np.minimum(area[:, None], area[None])
    return best_of_each(part & (labels[:, None] == labels[None]))

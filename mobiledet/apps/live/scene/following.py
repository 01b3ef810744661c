"""From detections to identities, counts and events, frame by frame."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.scene.counting import SceneCounter
from mobiledet.apps.live.scene.shapes import Scene
from mobiledet.apps.live.view import ViewSettings
from mobiledet.runtime.tracking import Tracker


class Follower:
    """Tracks what is detected, and counts it at the lines and in the zones of the settings, which may change.

    Raises:
        MissingDependencyError: Tracking needs the extra ``track``.
    """

    def __init__(self, settings: ViewSettings) -> None:
        self._settings = settings
        self._tracker = Tracker(settings.threshold)
        self._counter = SceneCounter(Scene())
        self._scene: Scene | None = None
        self._newest = 0
        self.objects: Counter[str] = Counter()
        """How many objects had an id so far, by class."""

    def follow(self, result: Result) -> Result:
        """The same result with ids, counts, and what happened.

        Raises:
            ConfigError: A line or zone has no part in the frame.
        """
        frame, settings = result.frame, self._settings
        size = frame.image.shape[0], frame.image.shape[1]
        self._tracker.threshold = settings.threshold
        detections = self._tracker.update(result.detections, frame.position, settings.classes)
        ids = detections.track_ids
        for index in np.flatnonzero(() if ids is None else ids > self._newest):
            self.objects[detections.name(int(index))] += 1
        self._newest = max(self._newest, 0 if ids is None else int(ids.max(initial=0)))
        if settings.scene is not self._scene:
            self._scene = settings.scene
            self._counter.change_scene(self._scene.in_shares(size))
        events = [
            {**frame.moment(), **event}
            for event in self._counter.update(settings.select(detections), size, frame.position, settings.threshold)
        ]
        scene = self._counter.scene
        return replace(result, detections=detections, scene=scene, counts=self._counter.counts(), events=events)

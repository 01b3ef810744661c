"""What passes between the threads of a live view, and how it is handed over.

All moments are seconds of ``time.monotonic``, a clock that all processes of a machine share and nobody sets.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:  # NumPy is loaded by whoever has frames, not by the help that lists the kinds of sources
    from mobiledet.apps.live.scene.shapes import Scene
    from mobiledet.detections import Detections
    from mobiledet.structures import ImageArray

T = TypeVar("T")


@dataclass(frozen=True)
class Frame:
    """One frame of a camera, stream or video, or one image of a folder.

    Attributes:
        image: ``(height, width, 3)`` uint8 RGB; nobody writes to it.
        index: Its number among the frames captured, from 0; where numbers are missing, frames were dropped.
        grabbed: When the frame arrived from the camera or the network, was due by a file's own clock, or was taken
            from a file that is processed frame by frame.
        position: Seconds into the file, or since the first frame of a live source.
        grab_ms: Milliseconds that reading and decoding it took.
        name: File name, for images of a folder.
    """

    image: ImageArray
    index: int
    grabbed: float
    position: float
    grab_ms: float = 0.0
    name: str = ""

    def moment(self) -> dict[str, Any]:
        """Which frame, for files and messages: ``frame``, ``position``, and ``time`` of its grab (UTC, ISO 8601)."""
        grabbed = time.time() - (time.monotonic() - self.grabbed)
        moment = datetime.fromtimestamp(grabbed, timezone.utc).isoformat(timespec="milliseconds")
        return {
            "frame": self.index,
            "position": round(self.position, 3),
            "time": moment.replace("+00:00", "Z"),
        }


@dataclass(frozen=True)
class Result:
    """What was detected in one frame.

    Attributes:
        frame: The frame.
        detections: All detections, far below the threshold of display; viewers choose with `ViewSettings.select`.
        ready: When the boxes were there.
        stages_ms: Milliseconds of ``resize``, ``network`` (with decoding and suppression) and ``read`` (boxes in
            pixels of the frame).
        scene: The lines and zones, in shares of the frame; None without any.
        counts: At them, as `SceneCounter.counts` gives them.
        events: What happened at them since the result before.
    """

    frame: Frame
    detections: Detections
    ready: float
    stages_ms: dict[str, float] = field(default_factory=dict)
    scene: Scene | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    events: Sequence[dict[str, Any]] = ()

    @property
    def age_ms(self) -> float:
        """Milliseconds from the grab of the frame to its boxes."""
        return (self.ready - self.frame.grabbed) * 1e3


class _Closable(Generic[T]):
    """Something handed from one thread to another, until it is closed."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._closed = False

    def close(self) -> None:
        """Nothing more will come: wake whoever waits. What is already there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed


class Handover(_Closable[T]):
    """Room for a few items between one writer and one reader.

    Args:
        room: How many items it holds.
        newest: Whether, without room, a new item replaces the oldest; otherwise the writer waits, and none is lost.
    """

    def __init__(self, room: int = 1, *, newest: bool = False) -> None:
        super().__init__()
        self._room, self._newest = room, newest
        self._items: collections.deque[T] = collections.deque()
        self.dropped = 0
        """Items that were replaced before anyone took them."""

    def put(self, item: T) -> None:
        """Add an item, at once or as soon as there is room; ignored once closed."""
        with self._changed:
            if not self._newest:
                self._changed.wait_for(lambda: len(self._items) < self._room or self._closed)
            if self._closed:
                return
            if len(self._items) == self._room:
                self._items.popleft()
                self.dropped += 1
            self._items.append(item)
            self._changed.notify_all()

    def take(self, timeout: float) -> T | None:
        """The oldest item; None after ``timeout`` seconds, or when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout)
            if not self._items:
                return None
            self._changed.notify_all()
            return self._items.popleft()


class Newest(_Closable[T]):
    """The newest of a series, for any number of readers, each at its own pace; a slow one misses some."""

    def __init__(self) -> None:
        super().__init__()
        self._item: T | None = None
        self._number = 0

    def put(self, item: T) -> None:
        """Show an item to all readers; never waits."""
        with self._changed:
            self._item = item
            self._number += 1
            self._changed.notify_all()

    def get(self, after: int = 0, timeout: float = 0.0) -> tuple[int, T] | None:
        """The newest item and its number, once that exceeds ``after``; None after ``timeout`` seconds or at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._number > after or self._closed, timeout)
            if self._number <= after or self._item is None:
                return None
            return self._number, self._item

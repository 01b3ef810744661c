"""What passes between the threads of a live view, and the two ways it is handed over.

All moments are seconds of ``time.monotonic``, a clock that all processes of a machine share and nobody sets.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from mobiledet.structures import Detections, ImageArray

T = TypeVar("T")


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    Attributes:
        image: ``(height, width, 3)`` uint8 RGB; nobody writes to it.
        index: Its number among the pictures captured, from 0; where numbers are missing, pictures were dropped.
        grabbed: When the picture arrived from the camera or the network, was due by a file's own clock, or was taken
            from a file that is looked at picture by picture.
        position: Seconds into the file, or since the first picture of a live source.
        grab_ms: Milliseconds that reading and decoding it took.
        name: File name, for pictures of a folder.
    """

    image: ImageArray
    index: int
    grabbed: float
    position: float
    grab_ms: float = 0.0
    name: str = ""


@dataclass(frozen=True)
class Result:
    """What was found in one picture.

    Attributes:
        frame: The picture.
        detections: Everything found, far below what is shown; viewers choose with `ViewSettings.select`.
        ready: When the boxes were there.
        stages_ms: Milliseconds of ``resize``, ``network`` (with decoding and suppression) and ``read`` (boxes in
            pixels of the picture).
    """

    frame: Frame
    detections: Detections
    ready: float
    stages_ms: dict[str, float] = field(default_factory=dict)

    @property
    def age_ms(self) -> float:
        """Milliseconds from the grab of the picture to its boxes."""
        return (self.ready - self.frame.grabbed) * 1e3


class Mailbox(Generic[T]):
    """Room for one item: the newest wins, and one that nobody took is counted as dropped. For one reader."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False
        self.dropped = 0
        """Items that were replaced before anyone took them."""

    def put(self, item: T) -> T | None:
        """Leave an item; never waits. Gives back the one it replaces."""
        with self._changed:
            replaced, self._item = self._item, item
            if replaced is not None:
                self.dropped += 1
            self._changed.notify_all()
            return replaced

    def take(self, timeout: float) -> T | None:
        """The item, once there is one; None after ``timeout`` seconds, or when closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout)
            item, self._item = self._item, None
            return item

    def close(self) -> None:
        """Let go of whoever waits; what lies there can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed


class Newest(Generic[T]):
    """The newest of a series, for any number of readers, each at its own pace; a slow one misses some."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._number = 0
        self._closed = False

    def put(self, item: T) -> None:
        """Show an item to all readers; never waits."""
        with self._changed:
            self._item = item
            self._number += 1
            self._changed.notify_all()

    def get(self, after: int = 0, timeout: float = 0.0) -> tuple[int, T] | None:
        """The newest item and its number, once that exceeds ``after``; None after ``timeout`` seconds or at the end."""
        deadline = time.monotonic() + timeout
        with self._changed:
            while self._number <= after and not self._closed:
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)
            if self._number <= after or self._item is None:
                return None
            return self._number, self._item

    def close(self) -> None:
        """Nothing more will come: let go of whoever waits."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    @property
    def closed(self) -> bool:
        """Whether nothing more will come."""
        return self._closed

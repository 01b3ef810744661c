"""Sources that this process reads by itself: handing over, a file's own clock, the end."""

from __future__ import annotations

import collections
import contextlib
import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

from mobiledet.apps.live.frames import Frame, Mailbox
from mobiledet.apps.live.sources.base import EndOfSource, Source, SourceState
from mobiledet.errors import SourceError
from mobiledet.structures import ImageArray, Size

logger = logging.getLogger(__name__)

AHEAD = 3
"""Pictures read before anyone asks for them."""

_CATCH_UP = 5
"""Late pictures left out in a row, before one is shown however late it is."""

_HOPELESS_S = 1.0
"""Lag after which the clock is put back instead: this process stood still, or is far too slow."""


@dataclass(frozen=True)
class Found:
    """A picture that can be read.

    Attributes:
        load: Reads it; None if it turns out to be damaged.
        position: Seconds into the file.
        grab_ms: Milliseconds spent on it so far.
        name: File name, for pictures of a folder.
    """

    load: Callable[[], ImageArray | None]
    position: float
    grab_ms: float = 0.0
    name: str = ""


class ReadSource(Source):
    """Reads pictures in a thread: a few ahead of whoever takes every one of them, or by a clock and the newest wins.

    Args:
        name: What users know it by.
        realtime: Whether pictures come by their own clock.
    """

    def __init__(self, name: str, *, realtime: bool) -> None:
        self.name = name
        self.live = realtime
        self.interval = 1.0
        """Seconds between two pictures, as far as is known."""
        self.frames: int | None = None
        self.fps: float | None = None
        self.skipped = 0
        self._shelf: Mailbox[Frame] | _Shelf = Mailbox() if realtime else _Shelf(AHEAD)
        self._clock = threading.Condition()
        self._wanted = False
        self._origin: float | None = None
        self._paused_at: float | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._error: BaseException | None = None
        self._captured = self._late = 0
        self._size: Size | None = None

    @abstractmethod
    def open(self) -> None:
        """Make sure that it can be read; called once, by `start`.

        Raises:
            SourceError: it can't.
        """

    @abstractmethod
    def pictures(self) -> Generator[Found, None, None]:
        """Its pictures in order; runs in the source's thread.

        Raises:
            SourceError: it turned out that it can't be read.
        """

    def start(self) -> None:
        """Open it, and begin to read.

        Raises:
            SourceError: it can't be opened.
        """
        self.open()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def take(self, timeout: float) -> Frame | None:
        """The next picture, or the newest; None if there is none within ``timeout`` seconds.

        Raises:
            EndOfSource: there are no more.
            SourceError: it can't be read.
        """
        if not self._wanted:
            with self._clock:
                self._wanted = True
                self._clock.notify_all()
        frame = self._shelf.take(timeout)
        if frame is None and self._shelf.closed:
            frame = self._shelf.take(0)  # the last one may have come just before the end
            if frame is None:
                raise self._error or EndOfSource
        if frame is not None and not self.live:
            # It may have been waiting through a pause; from now on somebody is waiting for its boxes.
            frame = replace(frame, grabbed=time.monotonic())
        return frame

    def state(self) -> SourceState:
        """How it is doing."""
        trouble = str(self._error) if isinstance(self._error, SourceError) else ""
        return SourceState(
            connected=self._thread is not None and not trouble and not self._closing,
            message=trouble,
            captured=self._captured,
            dropped=self._late + (self._shelf.dropped if isinstance(self._shelf, Mailbox) else 0),
            skipped=self.skipped,
            size=self._size,
            fps=self.fps,
            frames=self.frames,
        )

    def pause(self, paused: bool) -> None:
        """Stop the clock, or let it go on where it stopped."""
        with self._clock:
            if paused and self._paused_at is None:
                self._paused_at = time.monotonic()
            elif not paused and self._paused_at is not None:
                if self._origin is not None:
                    self._origin += time.monotonic() - self._paused_at
                self._paused_at = None
            self._clock.notify_all()

    def close(self) -> None:
        """End the thread."""
        with self._clock:
            self._closing = True
            self._clock.notify_all()
        self._shelf.close()
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        try:
            # Closed here, in the thread that reads, whichever way the loop ends.
            with contextlib.closing(self.pictures()) as found:
                late_in_row = 0
                for picture in found:
                    if self._closing:
                        break
                    if self.live and self._too_late(picture.position) and late_in_row < _CATCH_UP:
                        late_in_row += 1
                        self._late += 1
                        self._captured += 1
                        continue
                    late_in_row = 0
                    self._hand_over(picture)
        except BaseException as error:  # raised again in the thread that takes
            self._error = error
        finally:
            self._shelf.close()

    def _hand_over(self, found: Found) -> None:
        start = time.monotonic()
        image = found.load()
        grabbed = time.monotonic()
        if image is None:
            self.skipped += 1
            return
        grab_ms = found.grab_ms + (grabbed - start) * 1e3
        if self.live:
            grabbed = self._wait_until_due(found.position)
        if self._closing:
            return
        self._size = (image.shape[0], image.shape[1])
        index, self._captured = self._captured, self._captured + 1
        self._shelf.put(Frame(image, index, grabbed, found.position, grab_ms, found.name))

    def _too_late(self, position: float) -> bool:
        with self._clock:
            if self._origin is None or self._paused_at is not None:
                return False
            lag = time.monotonic() - self._origin - position
            if lag > _HOPELESS_S:
                self._origin += lag
                return False
            return lag > self.interval

    def _wait_until_due(self, position: float) -> float:
        """Wait until the clock shows ``position``; when that was, so that being late counts into a picture's age."""
        with self._clock:
            while not self._closing:
                now = time.monotonic()
                if not self._wanted:
                    self._clock.wait()
                    continue
                if self._origin is None:
                    # The clock starts with the first picture that somebody wants; a model may take long to load.
                    self._origin = now - position
                if self._paused_at is not None:
                    self._clock.wait()
                    continue
                due = self._origin + position
                if due <= now:
                    return due
                self._clock.wait(due - now)
        return time.monotonic()


class _Shelf:
    """Room for a few pictures; who brings one waits for room."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._changed = threading.Condition()
        self._frames: collections.deque[Frame] = collections.deque()
        self.closed = False

    def put(self, frame: Frame) -> None:
        with self._changed:
            self._changed.wait_for(lambda: len(self._frames) < self._room or self.closed)
            if not self.closed:
                self._frames.append(frame)
                self._changed.notify_all()

    def take(self, timeout: float) -> Frame | None:
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self.closed, timeout)
            if not self._frames:
                return None
            self._changed.notify_all()
            return self._frames.popleft()

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()

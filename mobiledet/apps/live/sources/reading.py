"""Sources that this process reads by itself: reading ahead, a file's own clock, the end."""

from __future__ import annotations

import contextlib
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledet.apps.live.frames import Frame, Handover
from mobiledet.apps.live.sources.base import EndOfSource, Source, SourceOptions, SourceState
from mobiledet.errors import SourceError
from mobiledet.utils.addresses import file_path

if TYPE_CHECKING:
    from mobiledet.structures import ImageArray, Size

FILE_OPTIONS = frozenset({"fps", "realtime", "loop"})
"""The options that every `ReadSource` takes."""

AHEAD = 3
"""Frames read before anyone asks for them."""

CATCH_UP = 5
"""Late frames dropped in a row, before one is shown however late it is."""

HOPELESS_S = 1.0
"""Lag after which the clock is set back instead: this process stood still, or is far too slow."""


@dataclass(frozen=True)
class ReadResult:
    """A frame that can be read.

    Attributes:
        load: Reads it; returns None if it turns out to be damaged.
        position: Seconds into the file.
        grab_ms: Milliseconds spent on it so far.
        name: File name, for images of a folder.
    """

    load: Callable[[], ImageArray | None]
    position: float
    grab_ms: float = 0.0
    name: str = ""


class ReadSource(Source):
    """Reads frames in a thread: a few ahead of whoever takes every one of them, or by a clock and the newest wins.

    Args:
        path: The file or folder.
        realtime: Whether its frames come by a clock, the newest winning.
        fps: Frames a second of that clock; None for its own.
        loop: Whether to start again at the end; positions go on growing.
    """

    def __init__(self, path: Path, *, realtime: bool = False, fps: float | None = None, loop: bool = False) -> None:
        self.path, self.wanted_fps, self.loop = path, fps, loop
        self.name = str(path)
        self.live = realtime
        self.interval = 1.0
        """Seconds between two frames, as far as is known."""
        self.frames: int | None = None
        self.fps: float | None = None
        self.skipped = 0
        self._ahead: Handover[Frame] = Handover(1 if realtime else AHEAD, newest=realtime)
        self._clock = threading.Condition()
        self._wanted = False
        self._origin: float | None = None
        self._paused_at: float | None = None
        self._thread: threading.Thread | None = None
        self._closing = False
        self._error: BaseException | None = None
        self._captured = self._late = 0
        self._size: Size | None = None

    @classmethod
    def from_text(cls, text: str, options: SourceOptions) -> Source:
        """The source for a path or a file:// address.

        Raises:
            SourceError: A rate without a clock, or a file of another machine.
        """
        path = file_path(text)
        if options.fps is not None and not options.realtime:
            raise SourceError(f"{path}: --fps is the clock of --realtime; add --realtime, or leave --fps out")
        return cls(path, realtime=options.realtime, fps=options.fps, loop=options.loop)

    @abstractmethod
    def open(self) -> None:
        """Make sure that it can be read; called once, by `start`.

        Raises:
            SourceError: It can't.
        """

    @abstractmethod
    def read(self) -> Generator[ReadResult, None, None]:
        """Its frames in order; runs in the source's thread.

        Raises:
            SourceError: It can't be read after all.
        """

    def start(self) -> None:
        """Open it, and begin to read."""
        self.open()
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)
        self._thread.start()

    def take(self, timeout: float) -> Frame | None:
        """The next frame, or the newest, as `Source.take` gives it."""
        if not self._wanted:
            with self._clock:
                self._wanted = True
                self._clock.notify_all()
        frame = self._ahead.take(timeout)
        if frame is None and self._ahead.closed:
            frame = self._ahead.take(0)  # the last one may have come just before the end
            if frame is None:
                raise self._error or EndOfSource
        if frame is not None and not self.live:
            # It may have been waiting through a pause; from now on somebody is waiting for its boxes.
            frame = replace(frame, grabbed=time.monotonic())
        return frame

    def state(self) -> SourceState:
        """How it is doing."""
        problem = str(self._error) if isinstance(self._error, SourceError) else ""
        return SourceState(
            connected=self._thread is not None and not problem and not self._closing,
            message=problem,
            captured=self._captured,
            dropped=self._late + self._ahead.dropped,
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
        self._ahead.close()
        if self._thread is not None:
            self._thread.join(1.0)

    def _run(self) -> None:
        try:
            # Closed here, in the thread that reads, whichever way the loop ends.
            with contextlib.closing(self.read()) as results:
                late_in_row = 0
                for result in results:
                    if self._closing:
                        break
                    if self.live and self._too_late(result.position) and late_in_row < CATCH_UP:
                        late_in_row += 1
                        self._late += 1
                        self._captured += 1
                        continue
                    late_in_row = 0
                    self._hand_over(result)
        except BaseException as error:  # raised again in the thread that takes
            self._error = error
        finally:
            self._ahead.close()

    def _hand_over(self, result: ReadResult) -> None:
        start = time.monotonic()
        image = result.load()
        grabbed = time.monotonic()
        if image is None:
            self.skipped += 1
            return
        grab_ms = result.grab_ms + (grabbed - start) * 1e3
        if self.live:
            grabbed = self._wait_until_due(result.position)
        if self._closing:
            return
        self._size = (image.shape[0], image.shape[1])
        index, self._captured = self._captured, self._captured + 1
        self._ahead.put(Frame(image, index, grabbed, result.position, grab_ms, result.name))

    def _too_late(self, position: float) -> bool:
        with self._clock:
            if self._origin is None or self._paused_at is not None:
                return False
            lag = time.monotonic() - self._origin - position
            if lag > HOPELESS_S:
                self._origin += lag
                return False
            return lag > self.interval

    def _wait_until_due(self, position: float) -> float:
        """Wait until the clock shows ``position``; when that was, so that being late counts into a frame's age."""
        with self._clock:
            while not self._closing:
                now = time.monotonic()
                if not self._wanted:
                    self._clock.wait()
                    continue
                if self._origin is None:
                    # The clock starts with the first frame that somebody wants; a model may take long to load.
                    self._origin = now - position
                if self._paused_at is not None:
                    self._clock.wait()
                    continue
                due = self._origin + position
                if due <= now:
                    return due
                self._clock.wait(due - now)
        return time.monotonic()

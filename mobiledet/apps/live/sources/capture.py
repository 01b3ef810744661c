"""Cameras and streams: read in a process of their own, reconnected whenever they fail."""

from __future__ import annotations

import collections
import logging
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mobiledet.apps.live.frames import Frame
from mobiledet.apps.live.sources.base import EndOfSource, Source, SourceState
from mobiledet.apps.live.sources.capture_child import WORKER, CaptureChild
from mobiledet.apps.live.sources.capture_devices import CaptureJob
from mobiledet.errors import SourceError
from mobiledet.utils.addresses import StreamAddress

if TYPE_CHECKING:
    from mobiledet.structures import Size

logger = logging.getLogger(__name__)

START_S = 20.0
"""Seconds that a process may take to load its libraries; a small board reads them from a slow card."""

STALL_S = 3.0
"""Silence after which a source is considered lost, once it runs, unless its kind chooses another time."""

BACK_OFF_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Pauses between attempts; the last one is repeated."""

_LOOK_S = 0.5
"""Seconds between two checks for silence."""

STOOD_STILL_S = 2.0
"""Delay of such a check after which this very process must have been stopped, and silence doesn't count."""

_LATE_S = 0.25
"""Shortest silence that is reported to viewers."""

UNKNOWN_LATE_S = 1.5
"""The same while the frame rate isn't known: after the very first frame. A driver's own figure is often wrong."""


class CaptureSource(Source):
    """A camera or stream; the newest frame wins.

    A child process captures. It announces each frame by a line on a pipe; this process keeps the newest, and copies it
    only when it is taken. One thread watches the child: one that dies, loses its device or falls silent is killed and
    another started, without limit, after ever longer pauses. Only a source that never gave a frame is an error: a
    user's typo must not be tried for ever. A stream that ends counts as lost; so a video file behind a web address
    starts again.

    Args:
        job: What to capture.
        name: Its name for users, without passwords.
        stall_s: Seconds of silence after which it is considered lost; None for `STALL_S`.
        check: Called by `check` and `start`; raises `SourceError` for problems that are known without opening it.
        address: Of a stream, to keep its secrets out of messages.
        command: The command that is started as the child.
    """

    live = True

    def __init__(
        self,
        job: CaptureJob,
        *,
        name: str,
        stall_s: float | None = None,
        check: Callable[[], None] | None = None,
        address: StreamAddress | None = None,
        command: Sequence[str] = WORKER,
    ) -> None:
        self.name = name
        self.job = job
        self._command, self._check, self._address = command, check, address
        self._stall_s = STALL_S if stall_s is None else stall_s
        self._changed = threading.Condition()
        self._alarm = threading.Event()  # something the watcher must look at
        self._watcher: threading.Thread | None = None
        self._closing = threading.Event()
        self._fatal: SourceError | None = None
        self._pending: tuple[Frame, CaptureChild, int] | None = None  # its image is in this slot of the child
        # Since it was started:
        self._captured = self._dropped = self._skipped = self._reconnects = 0
        self._first_grab: float | None = None
        self._size: Size | None = None
        self._fps: float | None = None
        self._usual_s: float | None = None
        self._lost = ""
        # Of the current child:
        self._child: CaptureChild | None = None
        self._base = self._base_skipped = 0
        self._ready = self._ended = False
        self._failed: dict[str, Any] | None = None
        self._began = self._heard = 0.0
        self._frames = 0
        self._intervals: collections.deque[float] = collections.deque(maxlen=9)

    def check(self) -> None:
        """Refuse a camera that doesn't exist, as `start` does."""
        if self._check is not None:
            self._check()

    def start(self) -> None:
        """Begin to capture; problems that show only when it is opened are raised by `take`."""
        self.check()
        # The system ends a child with the thread that started it, so that must be one that lives as long.
        self._watcher = threading.Thread(target=self._run, name="capture", daemon=True)
        self._watcher.start()

    def take(self, timeout: float) -> Frame | None:
        """The newest frame, as `Source.take` gives it."""
        with self._changed:
            self._changed.wait_for(lambda: self._pending or self._fatal or self._closing.is_set(), timeout)
            found, self._pending = self._pending, None
            if self._closing.is_set():
                raise EndOfSource
            if found is None:
                if self._fatal is not None:
                    raise self._fatal
                return None
        frame, child, slot = found
        frame = replace(frame, image=frame.image.copy())
        child.give_back(slot)
        return frame

    def state(self) -> SourceState:
        """How it is doing; silence is reported long before it is acted on."""
        with self._changed:
            message = self._problem()
            return SourceState(
                connected=not message,
                message=message,
                captured=self._captured,
                dropped=self._dropped,
                skipped=self._skipped,
                reconnects=self._reconnects,
                size=self._size,
                fps=self._fps,
            )

    def close(self) -> None:
        """End the child and all threads."""
        with self._changed:
            self._closing.set()
            self._changed.notify_all()
        self._alarm.set()
        if self._watcher is not None:
            self._watcher.join(3.0)
        self._pending = None

    @property
    def pid(self) -> int | None:
        """Process id of the current child, for whoever measures its memory."""
        child = self._child
        return None if child is None else child.pid

    def _problem(self) -> str:
        if self._fatal is not None and not self._closing.is_set():
            return str(self._fatal)
        silence = time.monotonic() - self._heard
        late = max(_LATE_S, 3 * self._usual_s) if self._usual_s is not None else UNKNOWN_LATE_S
        if self._closing.is_set():
            problem = "closed"
        elif self._watcher is None:
            problem = "not started"
        elif self._lost or not self._frames:
            problem = self._lost or "opening"
        elif silence > late:
            problem = f"no frame for {silence:.1f} s"
        else:
            return ""
        return f"{self.name}: {problem}"

    def _run(self) -> None:
        """Keep a child alive; in the thread that watches it."""
        attempt = 0
        while True:
            try:
                reason = self._one_child()
            except Exception as error:  # of the system: no thread, no memory
                logger.debug("the capture of %s ended", self.name, exc_info=error)
                return self._give_up(f"can't be captured any more: {' '.join(str(error).split())}")
            if self._closing.is_set():
                return None
            if not self._captured:
                return self._give_up(reason)
            attempt = 1 if self._frames else attempt + 1
            self._lost = f"{reason}; reconnecting (attempt {attempt})"
            if self._frames:
                logger.warning("%s: %s; reconnecting", self.name, reason)
            if self._closing.wait(BACK_OFF_S[min(attempt, len(BACK_OFF_S)) - 1]):
                return None

    def _give_up(self, reason: str) -> None:
        with self._changed:
            self._fatal = SourceError(f"{self.name}: {reason}")
            self._changed.notify_all()

    def _one_child(self) -> str:
        """Start a child and wait for its end: why it ended."""
        with self._changed:
            self._base, self._base_skipped = self._captured, self._skipped
            self._ready, self._ended, self._failed, self._frames = False, False, None, 0
            self._began = time.monotonic()
            self._intervals.clear()
            self._child = child = CaptureChild(self._command, self.job, self._receive)
        self._alarm.clear()
        try:
            child.start()
        except OSError as error:
            return f"no process could be started for it: {error}"
        silent = ""
        try:
            silent = self._watch()
        finally:
            with self._changed:
                self._child = None
            child.end(gently=not silent)
        return silent or self._exit_reason(child)

    def _watch(self) -> str:
        """Wait for the end: a sentence about a child that fell silent; empty if it ended, or this source is closed."""
        expected = time.monotonic()
        while True:
            with self._changed:
                if self._closing.is_set() or self._ended or self._failed:
                    return ""
                if self._frames:
                    deadline, reason = self._heard + self._stall_s, f"no frame for {self._stall_s:g} s"
                elif self._ready:
                    # It reports by itself that opening took too long, if it isn't hanging.
                    limit = self.job.open_s + 2
                    deadline, reason = self._began + limit, f"no frame within {limit:g} s of opening it"
                else:
                    deadline, reason = self._began + START_S, f"its process didn't start within {START_S:g} s"
            now = time.monotonic()
            if now > expected + STOOD_STILL_S:  # it was this process that stood still: stopped, or swapped out
                with self._changed:
                    self._heard = self._began = now
            elif now >= deadline:
                return reason
            expected = now + min(max(deadline - now, 0.01), _LOOK_S)
            self._alarm.wait(expected - now)
            self._alarm.clear()

    def _exit_reason(self, child: CaptureChild) -> str:
        address, failed = self._address, self._failed
        reason = child.exit_reason() if failed is None else str(failed["failed"])
        if failed is not None and not failed["explained"] and address is not None:
            return address.explain(reason or child.last_error_line)
        reason = " ".join(reason.split())
        return reason if address is None else address.scrub(reason)

    def _receive(self, child: CaptureChild, message: dict[str, Any] | None) -> None:
        """Called from the thread that reads the child's messages."""
        with self._changed:
            if child is not self._child:
                return  # a late message of one that was given up
            if message is None:
                self._ended = True
            elif "index" in message:
                self._announce(child, message)
                return
            elif "ready" in message:
                self._ready, self._began = True, time.monotonic()
            elif "opened" in message:
                opened = message["opened"]
                self._fps, (height, width) = opened["fps"], opened["size"]
                size = f"{width}x{height}" if width > 0 else "frames of unknown size"
                speed = f", {self._fps:g} fps" if self._fps else ""
                logger.info("%s: %s%s (%s)", self.name, size, speed, opened["note"])
            elif "failed" in message:
                self._failed = message
        self._alarm.set()

    def _announce(self, child: CaptureChild, message: dict[str, Any]) -> None:
        now, grabbed, size = time.monotonic(), message["grabbed"], (message["size"][0], message["size"][1])
        if self._first_grab is None:
            self._first_grab = grabbed
        if self._frames:
            self._intervals.append(now - self._heard)
            self._usual_s = statistics.median(self._intervals)
        elif self._captured:
            self._reconnects += 1
        index = self._base + message["index"]
        self._dropped += index - self._captured  # the child had no room for these
        self._captured = index + 1
        self._skipped = self._base_skipped + message["skipped"]
        self._frames += 1
        self._heard, self._lost, self._size = now, "", size
        view, position = child.view(message["offset"], size), grabbed - self._first_grab
        if self._pending is not None:
            self._dropped += 1
            _, older, slot = self._pending
            older.give_back(slot)
        self._pending = Frame(view, index, grabbed, position, message["grab_ms"]), child, message["slot"]
        self._changed.notify_all()

"""Ctrl-C, SIGTERM and a closed terminal: the first stops and saves every frame, the second drops unsaved frames."""

from __future__ import annotations

import time

from mobiledet.utils.processes import StopSignals, unignored


class StopFlag:
    """Whether to stop: like ``threading.Event``, but a signal handler may set it.

    An Event's lock isn't re-entrant: a handler that sets it while the main thread is looking at it would wait for ever.
    """

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        """Whether to stop."""
        return self._set

    def set(self) -> None:
        """Ask to stop."""
        self._set = True

    def wait(self, timeout: float) -> bool:
        """Wait until it is set, at most ``timeout`` seconds; returns whether it is. It notices within 20 ms."""
        end = time.monotonic() + timeout
        while not self._set and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
        return self._set


class LiveStop(StopSignals):
    """A context in which Ctrl-C, SIGTERM and a closed terminal ask a live run to stop.

    Attributes:
        asked: Set by the first signal, or by anyone.
        drop_unsaved: Set by a second signal: frames that still wait to be saved are dropped; files are finished.
    """

    def __init__(self) -> None:
        super().__init__(unignored("SIGINT", "SIGTERM", "SIGHUP"))
        self.asked = StopFlag()
        self.drop_unsaved = False

    def asked_first(self) -> str:
        """The window or the wait ends, then files are finished."""
        self.asked.set()
        return "stopping: finishing the files; press Ctrl-C again to drop frames that are not saved yet"

    def asked_again(self, number: int) -> str:  # noqa: ARG002
        """Files are finished however often somebody asks."""
        if self.drop_unsaved:
            return ""
        self.drop_unsaved = True
        return "stopping now: unsaved frames are dropped"

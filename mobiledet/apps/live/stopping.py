"""Ctrl-C, SIGTERM and a closed terminal: the first finishes what is being written, the second hurries."""

from __future__ import annotations

import contextlib
import os
import time
from types import FrameType, TracebackType

from mobiledet.utils.processes import EXIT_SIGNAL, handling, unignored


class Asked:
    """Whether to stop: what of ``threading.Event`` a signal handler may touch.

    An Event's lock isn't re-entrant, and a handler that sets it where the main thread just looks at it waits for ever.
    """

    def __init__(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        """Whether somebody asked."""
        return self._set

    def set(self) -> None:
        """Ask."""
        self._set = True

    def wait(self, timeout: float) -> bool:
        """Wait until somebody asks, or ``timeout`` seconds; a signal is heard within 20 ms."""
        end = time.monotonic() + timeout
        while not self._set and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.02))
        return self._set


class Stop:
    """A context in which signals ask to stop instead of ending the process; to be entered in the main thread.

    Attributes:
        asked: Set by the first signal, or by anyone.
        signal: The signal that asked; 0 while none did.
        hurry: Whether it was asked more than once: what isn't written yet is left out, what is begun is finished.
    """

    def __init__(self) -> None:
        self.asked = Asked()
        self.signal = 0
        self.hurry = False
        self._signals = contextlib.ExitStack()

    @property
    def exit_status(self) -> int:
        """0, or what shells expect of a program ended by a signal: 130 after Ctrl-C."""
        return EXIT_SIGNAL + self.signal if self.signal else 0

    def __enter__(self) -> Stop:
        self._signals.enter_context(handling(unignored("SIGINT", "SIGTERM", "SIGHUP"), self._handle))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._signals.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if not self.signal:
            self.signal = number
            message = b"\nstopping: finishing what is being written\n"
        elif not self.hurry:
            self.hurry = True
            message = b"\nhurrying: what isn't written yet is left out\n"
        else:
            return  # what is begun is finished, however often it is asked
        self.asked.set()
        with contextlib.suppress(OSError):  # a closed terminal
            # os.write, because a logger may hold a lock that the interrupted code already has.
            os.write(2, message)

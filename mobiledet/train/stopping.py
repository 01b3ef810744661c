"""Ctrl-C and SIGTERM: the first asks training to save and stop, the second ends it at once."""

from __future__ import annotations

import logging
import os
import signal
from contextlib import ExitStack
from types import FrameType, TracebackType

from mobiledet.utils.processes import EXIT_SIGNAL, handling

logger = logging.getLogger(__name__)


class StopRequest:
    """A context in which SIGINT and SIGTERM set :attr:`signal` instead of ending the process.

    Attributes:
        signal: The signal that asked to stop; 0 while none did.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._signals = ExitStack()

    def __bool__(self) -> bool:
        return self.signal != 0

    @property
    def exit_status(self) -> int:
        """130 after Ctrl-C, 143 after SIGTERM: what shells expect, and what the README documents."""
        return EXIT_SIGNAL + self.signal

    def __enter__(self) -> StopRequest:
        self._signals.enter_context(handling((signal.SIGINT, signal.SIGTERM), self._handle))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._signals.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.signal:
            os._exit(EXIT_SIGNAL + number)
        self.signal = number
        # os.write, because a logger may hold a lock that the interrupted code already has.
        os.write(2, b"\nsaving, then exiting; press Ctrl-C again to quit without saving\n")

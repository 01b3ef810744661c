"""Ctrl-C and SIGTERM: the first asks training to save and stop, the second ends it at once."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

from mobiledet.utils.processes import EXIT_SIGNAL, StopSignals

if TYPE_CHECKING:
    from typing_extensions import Self


class StopRequest(StopSignals):
    """A context in which SIGINT and SIGTERM ask training to stop; true once one did."""

    def __init__(self) -> None:
        super().__init__((signal.SIGINT, signal.SIGTERM))

    def asked_first(self) -> str:
        """Training looks at this object after every step."""
        return "saving, then exiting; press Ctrl-C again to quit without saving"

    def asked_again(self, number: int) -> str:
        """Ends the process, unless it is torchrun that asks again: it kills by itself what doesn't end in time."""
        if "TORCHELASTIC_RUN_ID" in os.environ:
            return ""
        os._exit(EXIT_SIGNAL + number)


class GentleStop(StopRequest):
    """The same for a program or notebook that trains by a call: the second Ctrl-C raises instead of ending it."""

    def __enter__(self) -> Self:
        """Outside of the main thread signals can't be handled, and aren't."""
        return super().__enter__() if threading.current_thread() is threading.main_thread() else self

    def asked_again(self, number: int) -> str:
        """Nothing is saved then."""
        raise KeyboardInterrupt(f"signal {number}")

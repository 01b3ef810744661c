"""Ctrl-C and SIGTERM: the first asks training to save and stop, the second ends it at once."""

from __future__ import annotations

import os
import signal

from mobiledet.utils.processes import EXIT_SIGNAL, StopSignals


class StopRequest(StopSignals):
    """A context in which SIGINT and SIGTERM ask training to stop; true once one did."""

    def __init__(self) -> None:
        super().__init__((signal.SIGINT, signal.SIGTERM))

    def asked_first(self) -> str:
        """Training looks at this object after every step."""
        return "saving, then exiting; press Ctrl-C again to quit without saving"

    def asked_again(self, number: int) -> str:
        """Ends the process."""
        os._exit(EXIT_SIGNAL + number)

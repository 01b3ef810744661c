"""Signals that mean something else for the length of a context."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType


def unignored(*names: str) -> list[int]:
    """Numbers of the signals that exist here and that whoever started this program lets through.

    A program started with nohup ignores SIGHUP, one in a script's background SIGINT, and should go on doing so.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextmanager
def handling(numbers: Iterable[int], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Have ``handler`` called for these signals; what was done about them before is done again afterwards.

    To be entered in the main thread.
    """
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)

"""Child processes, and signals that are handled differently for a while."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from mobiledet.errors import ConfigError
from mobiledet.utils.text import listing

if TYPE_CHECKING:
    from typing_extensions import Self

EXIT_SIGNAL = 128
"""A program stopped by signal ``n`` exits with ``128 + n``, as shells expect: 130 for Ctrl-C, 143 for SIGTERM."""

SOCKET_FOLDER_BYTES = 71
"""Longest folder for temporary files below which multiprocessing's ``/pymp-xxxxxxxx/listener-xxxxxxxx`` is an address.

An address of AF_UNIX has 107 bytes on Linux, 103 on macOS.
"""


def process_rank() -> tuple[int, int]:
    """This process's rank and the number of processes, as torchrun sets them.

    Raises:
        ConfigError: The environment holds a part of what torchrun sets.
    """
    rank, size = (os.environ.get(name, otherwise) for name, otherwise in (("RANK", "0"), ("WORLD_SIZE", "1")))
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    if not (rank.isdigit() and size.isdigit() and int(rank) < int(size)) or (int(size) > 1 and missing):
        raise ConfigError(
            f"the environment has RANK={rank} and WORLD_SIZE={size}{' but no ' if missing else ''}{listing(missing)}: "
            "start several processes by torchrun or train.devices=N, or unset these variables"
        )
    return int(rank), int(size)


def child_variables(threads: int) -> dict[str, str]:
    """Environment of a child: the usual libraries kept to ``threads``, and this package found."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS")
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "VECLIB_MAXIMUM_THREADS": str(threads),
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",  # a torch.py in the working directory must not be imported
    }


def keep_socket_paths_short() -> None:
    """Have processes that share memory meet in a folder whose path fits into a socket's address, whatever TMPDIR says.

    multiprocessing makes one folder for sockets and hands it on to the processes it starts. Where the path is too long,
    a thread of the child fails and the parent waits for ever.

    Raises:
        ConfigError: Neither TMPDIR nor the usual folders will do.
    """
    from multiprocessing import util

    if os.name != "posix":
        return
    before, wanted = tempfile.tempdir, tempfile.gettempdir()
    try:
        for folder in (wanted, "/tmp", "/var/tmp"):
            if len(os.fsencode(folder)) <= SOCKET_FOLDER_BYTES and os.access(folder, os.W_OK | os.X_OK):
                tempfile.tempdir = folder
                util.get_temp_dir()
                return
    finally:
        tempfile.tempdir = before
    raise ConfigError(
        f"TMPDIR={wanted} is longer than {SOCKET_FOLDER_BYTES} bytes, which leaves no room for the sockets of "
        "processes that read images; set it to a shorter path, or use no such processes (data.workers=0, --workers 0)"
    )


def end_with_parent() -> None:
    """Have Linux end this process with its parent, even while it is stopped and can't notice by itself."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call above
        os._exit(1)


def unignored(*names: str) -> list[int]:
    """Numbers of the signals that exist here and that whoever started this program lets through.

    A program started with nohup ignores SIGHUP, one in a script's background SIGINT, and should go on doing so.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    return [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def handling(numbers: Iterable[int], handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Have ``handler`` called for these signals; the former handlers come back afterwards. In the main thread only."""
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


@contextlib.contextmanager
def without_lines(*beginnings: bytes) -> Iterator[None]:
    """Hide lines that libraries in C write straight to stderr and have no setting for; the others come afterwards."""
    try:
        kept = os.dup(2)
    except OSError:  # no stderr
        yield
        return
    with tempfile.TemporaryFile() as captured:
        if sys.stderr is not None:
            sys.stderr.flush()
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            captured.seek(0)
            lines = captured.read().splitlines(keepends=True)
            rest = b"".join(line for line in lines if not line.startswith(beginnings))
            if rest:
                os.write(2, rest)


class StopSignals:
    """A context in which signals ask to stop instead of ending the process; to be entered in the main thread.

    Attributes:
        signal: The first signal that arrived; 0 before.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self.signal = 0
        self._numbers = tuple(numbers)
        self._handlers = contextlib.ExitStack()

    def __bool__(self) -> bool:
        return self.signal != 0

    @property
    def exit_status(self) -> int:
        """0, or what shells expect of a program ended by a signal: 130 after Ctrl-C, 143 after SIGTERM."""
        return EXIT_SIGNAL + self.signal if self.signal else 0

    def __enter__(self) -> Self:
        self._handlers.enter_context(handling(self._numbers, self._handle))
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.close()

    def _handle(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        first, self.signal = not self.signal, self.signal or number
        notice = self.asked_first() if first else self.asked_again(number)
        if notice:
            with contextlib.suppress(OSError):  # a closed terminal
                # os.write, because a logger may hold a lock that the interrupted code already has.
                os.write(2, f"\n{notice}\n".encode())

    def asked_first(self) -> str:
        """Called in the signal handler at the first signal; returns a line for the terminal, or an empty one."""
        raise NotImplementedError

    def asked_again(self, number: int) -> str:
        """The same for every later signal ``number``."""
        raise NotImplementedError

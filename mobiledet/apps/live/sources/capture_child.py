"""The parent's side of a capture process: start it, receive its messages, read the memory it fills, end it."""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from mobiledet.apps.live.sources.capture_devices import CaptureJob
from mobiledet.utils.processes import child_variables

if TYPE_CHECKING:
    from mobiledet.structures import ImageArray, Size

logger = logging.getLogger(__name__)

WORKER = (sys.executable, "-m", "mobiledet.apps.live.sources.capture_worker")

_GENTLE_S = 0.3
"""Seconds that a child gets to end itself."""

_KILL_S = 1.0
"""Seconds that the system gets to end it; one that waits for a broken driver may never end."""

_QUIET = {
    "OPENCV_LOG_LEVEL": "ERROR",
    "OPENCV_FFMPEG_LOGLEVEL": "24",  # warnings: the reasons of failures are among them
    # Not fflags;nobuffer: it throws away what was read to find out about the stream, the only key frame for seconds
    # among it; and once these are read, frames come no later without it (tried with MPEG-TS over HTTP and UDP).
    "OPENCV_FFMPEG_CAPTURE_OPTIONS": "rtsp_transport;tcp|flags;low_delay",
}


class CaptureChild:
    """One capture process, started by a command.

    ``on_message`` is called with each of its messages, and with None when no more will come, from a thread of its own;
    it must be quick.
    """

    def __init__(
        self,
        command: Sequence[str],
        job: CaptureJob,
        on_message: Callable[[CaptureChild, dict[str, Any] | None], None],
    ) -> None:
        self._lock = threading.Lock()
        self._command, self._job = list(command), job
        self._on_message = on_message
        self.last_error_line = ""
        """The last line that it and its libraries wrote to stderr."""
        self._map: mmap.mmap | None = None
        self._memory, self._path = -1, ""
        self._process: subprocess.Popen[bytes] | None = None
        self._stdin: IO[bytes] | None = None
        self._readers: list[threading.Thread] = []

    def start(self) -> None:
        """Start it.

        Raises:
            OSError: The system can't.
        """
        self._memory, self._path = _make_memory()
        try:
            process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={**_QUIET, **os.environ, **child_variables(1)},
                pass_fds=() if self._path else (self._memory,),
                start_new_session=True,  # Ctrl-C in the terminal is for the parent
            )
        except BaseException:
            self._release_memory()
            raise
        self._process, self._stdin = process, process.stdin
        self._readers = [
            threading.Thread(target=self._receive, args=(process.stdout,), name="capture-reader", daemon=True),
            threading.Thread(target=self._collect, args=(process.stderr,), name="capture-stderr", daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self._send(json.dumps({**asdict(self._job), "memory": self._path or self._memory}))

    @property
    def pid(self) -> int | None:
        """Its process id, once it is started."""
        return None if self._process is None else self._process.pid

    def view(self, offset: int, size: Size) -> ImageArray:
        """A frame ``(height, width, 3)`` where the child wrote it; valid until it is given back.

        The array keeps the memory alive, so that it may be copied even when the child is gone.
        """
        import numpy as np

        count = size[0] * size[1] * 3
        with self._lock:
            if self._memory < 0:
                raise ValueError("its memory was released")
            if self._map is None or len(self._map) < offset + count:  # it has grown
                self._map = mmap.mmap(self._memory, offset + count, access=mmap.ACCESS_READ)
            memory = self._map
        return np.frombuffer(memory, np.uint8, count, offset).reshape(*size, 3)

    def give_back(self, slot: int) -> None:
        """Let the child write to a slot again. Never blocks: no more lines can be under way than there are slots."""
        self._send(str(slot))

    def end(self, *, gently: bool = True) -> None:
        """End it, whatever it is doing, and release its memory; ``gently`` lets it do so itself, if at once."""
        process = self._process
        if process is None:
            return
        with self._lock:
            stdin, self._stdin = self._stdin, None
        if stdin is not None:
            with contextlib.suppress(OSError):
                stdin.close()
        if not (gently and _wait(process, _GENTLE_S)):
            process.kill()  # works on a stopped process, too
            if not _wait(process, _KILL_S):
                logger.warning("capture process %d can't be ended: its driver hangs", self.pid)
        for reader in self._readers:
            reader.join(_GENTLE_S)
        for pipe, reader in zip((process.stdout, process.stderr), self._readers, strict=True):
            if pipe is not None and not reader.is_alive():
                pipe.close()
        self._release_memory()

    def exit_reason(self) -> str:
        """How it ended; to be called after `end`."""
        status = None if self._process is None else self._process.returncode
        if status is not None and status < 0:
            known = -status in {number.value for number in signal.Signals}
            name = signal.Signals(-status).name if known else f"signal {-status}"
            return f"the capture process was ended by {name}"
        cause = f": {self.last_error_line[:300]}" if self.last_error_line else ""
        return f"the capture process ended with status {status}{cause}"

    def _send(self, line: str) -> None:
        with self._lock:  # so that it isn't closed meanwhile, and its number given to another file
            if self._stdin is not None:
                with contextlib.suppress(OSError):  # a dead child is noticed by its reader
                    self._stdin.write(line.encode() + b"\n")

    def _receive(self, pipe: IO[bytes]) -> None:
        try:
            for line in _lines(pipe):
                if line.startswith(b"{"):  # anything else was printed by a library before the worker took over
                    self._on_message(self, json.loads(line))
        except (OSError, ValueError) as error:  # usually a line cut off by a kill
            logger.debug("capture process %s: %s", self.pid, error)
        finally:
            self._on_message(self, None)

    def _collect(self, pipe: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in _lines(pipe):
                self.last_error_line = line.decode("utf-8", "replace").strip() or self.last_error_line

    def _release_memory(self) -> None:
        with self._lock:
            self._map = None
            memory, self._memory = self._memory, -1
        if memory >= 0:
            os.close(memory)
        if self._path:
            with contextlib.suppress(OSError):
                Path(self._path).unlink()


def _lines(pipe: IO[bytes]) -> IO[bytes]:
    return os.fdopen(pipe.fileno(), "rb", buffering=8192, closefd=False)


def _wait(process: subprocess.Popen[bytes], seconds: float) -> bool:
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(seconds)
    return process.returncode is not None


def _make_memory() -> tuple[int, str]:
    """An empty file that both processes can map, and its path where it has to have one.

    Without a name nothing is left over, however either of them ends.
    """
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):
            return os.memfd_create("mobiledet-capture"), ""
    number, path = tempfile.mkstemp(prefix="mobiledet-capture-")
    if os.name != "posix":
        return number, path
    Path(path).unlink()
    return number, ""

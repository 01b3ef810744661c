"""Detections and events as JSON lines: one object each, readable while the file grows."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.view import ViewSettings
from mobiledet.errors import MobiledetError
from mobiledet.utils.files import refuse_existing

logger = logging.getLogger(__name__)

STDOUT = Path("-")
"""The name that stands for standard output."""

WAITING = 100_000
"""Lines that may wait for a slow disk, about 30 MB; further ones are dropped and counted."""


def refuse_existing_lines(path: Path | None) -> None:
    """Make sure, before hours of work, that lines can be written there: standard output always takes them."""
    refuse_existing(None if path == STDOUT else path)


def detection_record(result: Result, settings: ViewSettings) -> dict[str, Any]:
    """A line of the detection log, with the detections shown.

    ``{"frame": 17, "position": 0.567, "time": "2026-03-01T12:00:00.123Z", "age_ms": 31.2, "height": 480, "width": 640,
    "detections": [...]}``, with ``"name"`` for an image of a folder, and each detection as
    :meth:`mobiledet.Detections.to_json` gives it. ``time`` is when the frame was grabbed (UTC).
    """
    frame = result.frame
    return {
        **frame.moment(),
        "age_ms": round(result.age_ms, 1),
        **({"name": frame.name} if frame.name else {}),
        "height": frame.image.shape[0],
        "width": frame.image.shape[1],
        "detections": settings.select(result.detections).to_json(),
    }


class JsonLines:
    """Writes objects one whole line at a time and at once, in a thread of its own.

    Args:
        path: A new file, such as ``out.jsonl``, or ``-`` for standard output.
        what: The lines hold, in messages.

    Raises:
        MobiledetError: the file exists or can't be made.
    """

    def __init__(self, path: Path, what: str = "detections") -> None:
        self.path, self.what = path, what
        self.lines = 0
        """Lines in the file."""
        self.missed = 0
        """Objects that are not in the file."""
        self.error: MobiledetError | None = None
        """The first error."""
        self.broken = threading.Event()
        """Set when nobody reads standard output any more."""
        if path == STDOUT:
            self._file = os.dup(1)
        else:
            refuse_existing_lines(path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            except OSError as error:
                raise MobiledetError(f"{path}: can't be written: {error.strerror}; name another file") from None
        self._size = 0
        self._queue: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
        self._closed = self._reported = False
        self._thread = threading.Thread(target=self._run, name="JSON lines", daemon=True)
        self._thread.start()

    def put(self, record: Mapping[str, Any]) -> None:
        """Queue a line; never waits."""
        if self._closed or self._queue.qsize() > WAITING:
            self.missed += 1
            return
        self._queue.put(record)

    def close(self) -> None:
        """Write the lines that wait and close the file. May be called twice.

        Raises:
            MobiledetError: Not everything is in the file. Raised once.
        """
        if not self._closed:
            self._closed = True
            self._queue.put(None)
            self._thread.join()
            if not self._size and self.path != STDOUT:  # the name stays free for another try
                with contextlib.suppress(OSError):
                    self.path.unlink()
            if self.error is None and self.missed:
                self.error = MobiledetError(
                    f"{self.path}: {self.missed} {self.what} are missing, the disk was too slow for them; it holds "
                    f"{self.lines}"
                )
        if self.error is not None and not self._reported:
            self._reported = True
            raise self.error

    def _run(self) -> None:
        while (record := self._queue.get()) is not None:
            # A file name that isn't UTF-8 becomes a JSON escape.
            line = (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "backslashreplace")
            if self._write(line):
                self.lines += 1
            else:
                self.missed += 1
        os.close(self._file)

    def _write(self, line: bytes) -> bool:
        """Append a whole line or nothing, and say which; the first failure is logged."""
        done = 0
        try:
            while done < len(line):
                done += os.write(self._file, line[done:])
        except BrokenPipeError:  # whoever read has seen enough
            self.broken.set()
            return True
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
                os.lseek(self._file, self._size, os.SEEK_SET)
            if self.error is None:
                self.error = MobiledetError(
                    f"{self.path}: {self.what} can't be written after line {self.lines}: {error.strerror}"
                )
                logger.warning("%s", self.error)
            return False
        self._size += len(line)
        return True

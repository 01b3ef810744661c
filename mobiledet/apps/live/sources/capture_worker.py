"""The process that reads a camera or a stream, and fills shared memory with its frames.

    python -m mobiledet.apps.live.sources.capture_worker

Started by :mod:`capture`, never by hand. A driver or a network that hangs, hangs here, where it can be killed. The
messages between the two:

* the parent's first line on stdin is the job (JSON); each further line is the number of a slot it has copied, and the
  end of stdin is the end of this process;
* on stdout, one JSON object a line: ``{"ready": true}`` once everything is loaded; ``{"opened": {...}}`` with ``size``,
  ``fps`` and ``note``; for each frame ``index, slot, offset, size, grabbed, grab_ms, skipped``; and as the last
  one ``{"failed": why, "explained": whether that gives the cause}``.

A slot that was announced is not written to before the parent has given it back. When none is free, the parent has four
frames that it didn't even look at; then the newest is counted and dropped rather than one of those overwritten.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import IO, Any

import numpy as np

from mobiledet.apps.live.sources.capture_devices import CaptureFailedError, CaptureJob, Device
from mobiledet.apps.live.sources.opening import SOURCES
from mobiledet.structures import ImageArray
from mobiledet.utils.processes import end_with_parent

SLOTS = 4
"""One the parent copies, one that waits for it, one on its way, one being written."""

_TRY_AGAIN_S = 0.005


def load_libraries() -> None:
    """Load what takes longest, and leave the cores to the network."""
    import cv2

    cv2.setNumThreads(1)


def open_device(job: CaptureJob) -> Device:
    """Open what a job names.

    Raises:
        CaptureFailedError: It can't be opened.
    """
    return next(kind.device for kind in SOURCES if kind.name == job.kind and kind.device is not None)(job)


def serve(opener: Callable[[CaptureJob], Device] = open_device, prepare: Callable[[], None] = load_libraries) -> None:
    """Capture until the parent closes the line or the device is lost.

    The time that ``prepare`` takes isn't counted as time to open.
    """
    end_with_parent()
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is handled by the parent
    # Libraries may print anything; only our messages may pass through the pipe.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    slots = Slots(job.pop("memory"))
    threading.Thread(target=_receive, args=(sys.stdin.buffer, slots), daemon=True).start()
    try:
        prepare()
        _send(channel, {"ready": True})
        device = opener(CaptureJob(**job))
        _send(channel, {"opened": device.about()})
        capture(device, slots, lambda message: _send(channel, message))
    except CaptureFailedError as error:
        with contextlib.suppress(OSError, AttributeError, TypeError):
            import ctypes

            ctypes.CDLL(None).fflush(None)  # the parent reads the cause from what libraries wrote
        _send(channel, {"failed": str(error), "explained": error.explained})
    except BrokenPipeError:
        pass  # the parent is gone
    except Exception as error:  # whatever a driver raises is reported in one line
        _send(channel, {"failed": f"{type(error).__name__}: {error}", "explained": True})
    os._exit(0)  # no library gets the chance to hang while it cleans up


def capture(device: Device, slots: Slots, announce: Callable[[dict[str, Any]], None]) -> None:
    """Hand over one frame after the other.

    Raises:
        CaptureFailedError: The device gives no more.
    """
    index = skipped = failures = 0
    while True:
        stamp = device.grab()
        if stamp is None:
            failures += 1
            if failures > device.patience or not device.present():
                raise CaptureFailedError(device.lost())
            time.sleep(_TRY_AGAIN_S)
            continue
        skipped, failures = skipped + failures, 0
        if not slots.free:
            index += 1
            continue
        start = time.monotonic()
        image = device.retrieve()
        if image is None or image.size == 0:
            skipped += 1
            continue
        slot, offset, room = slots.take(image.shape[:2])
        _write_rgb(image, room, bgr=device.bgr)
        grab_ms = (time.monotonic() - start) * 1e3
        announce(
            {
                "index": index,
                "slot": slot,
                "offset": offset,
                "size": room.shape[:2],
                "grabbed": stamp,
                "grab_ms": grab_ms,
                "skipped": skipped,
            }
        )
        index += 1


class Slots:
    """Room for a few frames in a file that both processes have mapped.

    A larger frame gets new slots behind the old ones, so that nothing is moved that the parent may be copying.
    ``memory`` is the number of an inherited file, or the path of one.
    """

    def __init__(self, memory: int | str) -> None:
        self._file = memory if isinstance(memory, int) else os.open(memory, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self._lock = threading.Lock()
        self._free: list[int] = []
        self._first = 0
        self._begin = self._end = self._bytes = 0
        self._map: mmap.mmap | None = None

    @property
    def free(self) -> bool:
        """Whether a frame could be written."""
        return self._map is None or bool(self._free)

    def take(self, size: tuple[int, int]) -> tuple[int, int, ImageArray]:
        """A free slot for a frame of ``(height, width)``: its number, its place in the file, and the room there."""
        shape = (*size, 3)
        count = size[0] * size[1] * 3
        with self._lock:
            if count > self._bytes:
                self._grow(count)
            slot = self._free.pop()  # the one used last, most likely still in the processor's cache
        assert self._map is not None
        offset = self._begin + (slot - self._first) * self._bytes
        return slot, offset, np.frombuffer(self._map, np.uint8, count, offset).reshape(shape)

    def give_back(self, slot: int) -> None:
        """The parent has copied the frame in this slot."""
        with self._lock:
            if slot >= self._first:
                self._free.append(slot)

    def _grow(self, count: int) -> None:
        self._first += SLOTS
        self._bytes = -(-count // mmap.PAGESIZE) * mmap.PAGESIZE
        self._begin, self._end = self._end, self._end + SLOTS * self._bytes
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(self._file, self._begin, SLOTS * self._bytes)  # a full disk fails here, not by SIGBUS
        else:
            os.truncate(self._file, self._end)
        self._map = mmap.mmap(self._file, self._end)
        self._free = list(range(self._first, self._first + SLOTS))


def _write_rgb(image: ImageArray, room: ImageArray, *, bgr: bool) -> None:
    if image.ndim == 3 and image.shape[2] == 3 and not bgr:
        np.copyto(room, image)
        return
    import cv2

    if image.ndim == 2 or image.shape[2] == 1:
        code = cv2.COLOR_GRAY2RGB
    elif image.shape[2] == 4:
        code = cv2.COLOR_BGRA2RGB if bgr else cv2.COLOR_RGBA2RGB
    else:
        code = cv2.COLOR_BGR2RGB
    cv2.cvtColor(image, code, dst=room)


def _receive(lines: IO[bytes], slots: Slots) -> None:
    for line in lines:
        slots.give_back(int(line))
    os._exit(0)  # the parent is gone, or wants this to end; whatever the driver is waiting for


def _send(channel: IO[str], message: dict[str, Any]) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


if __name__ == "__main__":
    serve()

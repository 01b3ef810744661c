"""The frames of the stream: each is drawn and encoded once for all viewers, and only when one of them waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from concurrent.futures import Executor
from dataclasses import dataclass

from mobiledet.apps.live.view import View
from mobiledet.draw.boxes import jpeg_bytes

logger = logging.getLogger(__name__)

_LOOK = 0.1
"""Seconds after which a wait for a result checks for changed settings, and whether any viewer still waits."""

_SHORTEST = 0.025
"""Fewest seconds between two frames. People and most browsers see no more, and each takes time from inference."""


_QUALITY = 80
"""JPEG quality of the stream."""


@dataclass(frozen=True)
class EncodedFrame:
    """A frame with its boxes as JPEG, its index, and its number among those encoded, from 1."""

    number: int
    index: int
    jpeg: bytes


class FrameStream:
    """Gives each viewer the newest frame. Its methods are for the event loop; the work is done in ``executor``.

    Changed settings make a new image of the same result.
    """

    def __init__(self, view: View, executor: Executor) -> None:
        self._view, self._executor = view, executor
        self._last: EncodedFrame | None = None
        self._shown = (0, -1)  # number of the result and revision of the settings in the last frame
        self._tried = (0, -1)  # the same for the result that was drawn last, or is being drawn
        self._making: asyncio.Task[None] | None = None
        self._waiting = 0
        self._earliest = 0.0
        self._failed = False
        self._closed = False

    @property
    def made(self) -> int:
        """Frames encoded so far."""
        return 0 if self._last is None else self._last.number

    async def next(self, after: int, timeout: float) -> EncodedFrame | None:
        """The newest frame, once there is a newer one than number ``after``.

        After ``timeout`` seconds without one, or once closed: the last one again, or None before the first.
        """
        if self._closed or (self.made > after and not self._outdated()):
            return self._last
        self._waiting += 1
        try:
            if self._making is None or self._making.done():
                self._making = asyncio.create_task(self._make())
            await asyncio.wait({self._making}, timeout=timeout)
        finally:
            self._waiting -= 1
        return self._last

    async def close(self) -> None:
        """Let all viewers that wait go on."""
        self._closed = True
        if self._making is not None:
            self._making.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._making

    def _outdated(self) -> bool:
        number, revision = self._shown
        return revision != self._view.settings.revision or self._view.results.get(number) is not None

    async def _make(self) -> None:
        """Encode one frame, as soon as there is something new; give up once no viewer waits for it."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            if (early := self._earliest - time.monotonic()) > 0:
                await asyncio.sleep(early)
            encoded = await loop.run_in_executor(self._executor, self._draw)
            if encoded is not None:
                self._last, self._shown = encoded, self._tried
                return
            if self._view.results.closed:  # then the wait above was none
                await asyncio.sleep(_LOOK)

    def _draw(self) -> EncodedFrame | None:
        """Wait a moment for something new and draw it; in the executor."""
        revision = self._view.settings.revision
        newest = self._view.results.get(self._tried[0] if revision == self._tried[1] else 0, _LOOK)
        if newest is None:
            return None
        number, result = newest
        self._tried = number, revision
        self._earliest = time.monotonic() + _SHORTEST
        try:
            jpeg = jpeg_bytes(self._view.painter.paint(result), _QUALITY)
        except Exception:
            # One faulty frame must not end the view; only the first is reported.
            if not self._failed:
                logger.exception("frame %d can't be drawn or encoded; it is skipped", result.frame.index)
            self._failed = True
            return None
        return EncodedFrame(self.made + 1, result.frame.index, jpeg)

"""Video files."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from mobiledet.apps.live.sources.base import Source, SourceKind, SourceOptions
from mobiledet.apps.live.sources.reading import FILE_OPTIONS, ReadResult, ReadSource
from mobiledet.data.videos import (
    FALLBACK_FPS,
    check_video_file,
    file_clock,
    no_frame,
    open_video,
    retrieve_frame,
    usable_fps,
)
from mobiledet.errors import SourceError
from mobiledet.utils.addresses import file_path

if TYPE_CHECKING:
    from mobiledet.structures import ImageArray

logger = logging.getLogger(__name__)

_SEARCH = 1000
"""Damaged frames in a row after which a file of known length is given up; of unknown length: `_SEARCH_BLINDLY`."""

_SEARCH_BLINDLY = 25


class VideoFileSource(ReadSource):
    """A video file, every frame of it; or by its own clock.

    A damaged frame is counted and skipped. Rotation is applied as the file asks. Arguments as of `ReadSource`.
    """

    _capture: Any = None
    _count: int | None = None
    _warned = False

    def open(self) -> None:
        """Open the file, which must be a video."""
        self._capture = open_video(self.path)
        import cv2

        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._count = int(count) if 0 < count < 1e9 else None
        self.frames = None if self.loop else self._count
        self.fps = self.wanted_fps or usable_fps(self._capture.get(cv2.CAP_PROP_FPS))
        self.interval = 1 / (self.fps or FALLBACK_FPS)

    def close(self) -> None:
        """End the thread, and close the file."""
        super().close()
        if self._thread is None and self._capture is not None:
            self._capture.release()

    def read(self) -> Generator[ReadResult, None, None]:
        """Its frames, from the beginning to the end, once or for ever."""
        begin = 0.0
        while True:
            given = self._captured
            if self._capture is None:  # another round
                self._capture = open_video(self.path)
            end = begin
            try:
                for result in self._one_round(begin):
                    end = result.position
                    yield result
            finally:
                if self._capture is not None:
                    self._capture.release()
                    self._capture = None
            if not self._captured:
                raise no_frame(self.path)
            if not self.loop:
                return
            if self._captured == given:
                raise SourceError(f"{self.path} can't be read a second time; was it removed?")
            begin = end + self.interval

    def _one_round(self, begin: float) -> Generator[ReadResult, None, None]:
        capture, count, given = self._capture, self._count, 0
        clock = file_clock(capture, self.interval, stamps=self.wanted_fps is None)
        while capture is not None:
            start = time.monotonic()
            damaged = self._find_next(given)
            if damaged is None:
                break
            self.skipped += damaged
            position = begin + clock()
            given += 1 + damaged
            yield ReadResult(self._retrieve, position, (time.monotonic() - start) * 1e3)
        if count is not None and given < 0.97 * count - 3 and not self._warned and not self._closing:
            self._warned = True
            logger.warning("%s ends after %d of %d frames; it seems to be cut short", self.path, given, count)

    def _find_next(self, given: int) -> int | None:
        """Go to the next frame that can be decoded: how many before it are damaged; None at the end."""
        limit = _SEARCH_BLINDLY if self._count is None else min(_SEARCH, self._count - given - 1)
        damaged = 0
        while not self._capture.grab():
            # A damaged frame and the end of the file look the same.
            if damaged >= limit or self._closing:
                return None
            damaged += 1
        return damaged

    def _retrieve(self) -> ImageArray | None:
        return retrieve_frame(self._capture)


def _recognises(text: str) -> bool:
    try:
        return file_path(text).exists()
    except (OSError, ValueError):
        return True  # such as a name that is too long: opening it reports the cause


def _open(text: str, options: SourceOptions) -> Source:
    check_video_file(file_path(text))  # now, not after half a minute in which a model is made ready
    return VideoFileSource.from_text(text, options)


VIDEO_FILES = SourceKind(
    name="video",
    plural="video files",
    examples=("a video file",),
    options=FILE_OPTIONS,
    recognises=_recognises,
    open=_open,
)

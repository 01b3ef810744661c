"""Video files."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledet.apps.live.sources.base import Source, SourceKind, SourceOptions, is_utf8, usable_fps
from mobiledet.apps.live.sources.reading import FILE_OPTIONS, ReadResult, ReadSource, file_path
from mobiledet.errors import SourceError
from mobiledet.utils.text import shorten

if TYPE_CHECKING:
    from mobiledet.structures import ImageArray

logger = logging.getLogger(__name__)

_FALLBACK_FPS = 25.0

_LONGEST_GAP_S = 3600.0
"""Time stamps further apart count as damage."""

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
        head = _check_file(self.path)
        if not is_utf8(self.path):
            raise SourceError(f"{self.path.name!r} is not UTF-8, and OpenCV can't open such a name; rename the file")
        self._capture = self._open_capture()
        if self._capture is None:
            raise SourceError(f"{self.path} {_not_a_video(head)}")
        import cv2

        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._count = int(count) if 0 < count < 1e9 else None
        self.frames = None if self.loop else self._count
        self.fps = self.wanted_fps or usable_fps(self._capture.get(cv2.CAP_PROP_FPS))
        self.interval = 1 / (self.fps or _FALLBACK_FPS)

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
                self._capture = self._open_capture()
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
                raise SourceError(f"{self.path}: no frame in it can be decoded; copy or download it again")
            if not self.loop:
                return
            if self._captured == given:
                raise SourceError(f"{self.path} can't be read a second time; was it removed?")
            begin = end + self.interval

    def _one_round(self, begin: float) -> Generator[ReadResult, None, None]:
        import cv2

        capture, count, given, position = self._capture, self._count, 0, None
        while capture is not None:
            start = time.monotonic()
            damaged = self._find_next(given)
            if damaged is None:
                break
            self.skipped += damaged
            # Its own time stamps, as long as they make sense; some formats have none.
            stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            if position is None:
                position = 0.0
            elif self.wanted_fps is None and position < stamp < position + _LONGEST_GAP_S:
                position = stamp
            else:
                position += self.interval
            given += 1 + damaged
            yield ReadResult(self._retrieve, begin + position, (time.monotonic() - start) * 1e3)
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
        import cv2

        done, image = self._capture.retrieve()
        if not done or image is None or image.size == 0:
            return None
        rgb: ImageArray = cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB)
        return rgb

    def _open_capture(self) -> Any:
        # FFmpeg writes to the user's screen, unless this is set before it is loaded.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        import cv2

        logging_module = getattr(getattr(cv2, "utils", None), "logging", None)
        level = None if logging_module is None else logging_module.setLogLevel(logging_module.LOG_LEVEL_SILENT)
        try:
            capture = cv2.VideoCapture(str(self.path), cv2.CAP_FFMPEG)
            if not capture.isOpened():
                capture = cv2.VideoCapture(str(self.path))  # an OpenCV without FFmpeg
            return capture if capture.isOpened() else None
        except cv2.error:
            return None
        finally:
            if logging_module is not None:
                logging_module.setLogLevel(level)


def _check_file(path: Path) -> bytes:
    """Make sure that a path is an ordinary file that may be read and isn't empty: its first 512 bytes."""
    try:
        if path.exists() and not path.is_file():
            kind = "a pipe" if path.is_fifo() else "not an ordinary file"
            raise SourceError(f"{path} is {kind}; name a video, an image or a folder of images")
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise SourceError(f"{path} doesn't exist; correct the name") from None
    except PermissionError:
        raise SourceError(f"{path} may not be read; give yourself permission (chmod u+r)") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{shorten(str(path), 200)} can't be read: {reason}; correct the name") from None
    if not head:
        raise SourceError(f"{path} is empty (0 bytes); copy or download it again")
    return head


def _not_a_video(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer to a video, not the video; fetch it with `git lfs pull`"
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return f"is text, not a video or an image: it starts with {head[:24]!r}; name a video file"
    if head[4:8] in (b"ftyp", b"moov", b"mdat") or head.startswith((b"RIFF", b"\x1aE\xdf\xa3")):
        return "can't be opened as a video: it is cut short, damaged, has no frames, or its format is unknown to OpenCV"
    return f"is not a video or an image that OpenCV can read: it starts with {head[:16]!r}; copy it again or convert it"


def _recognises(text: str) -> bool:
    try:
        return file_path(text).exists()
    except (OSError, ValueError):
        return True  # such as a name that is too long: opening it reports the cause


def _open(text: str, options: SourceOptions) -> Source:
    _check_file(file_path(text))  # now, not after half a minute in which a model is made ready
    return VideoFileSource.from_text(text, options)


VIDEO_FILES = SourceKind(
    name="video",
    plural="video files",
    examples=("a video file",),
    options=FILE_OPTIONS,
    recognises=_recognises,
    open=_open,
)

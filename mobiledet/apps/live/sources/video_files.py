"""Video files."""

from __future__ import annotations

import difflib
import logging
import os
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from mobiledet.apps.live.sources.base import is_utf8, usable_fps
from mobiledet.apps.live.sources.reading import Found, ReadSource
from mobiledet.errors import SourceError
from mobiledet.structures import ImageArray

logger = logging.getLogger(__name__)

_FALLBACK_FPS = 25.0

_LONGEST_GAP_S = 3600.0
"""Time stamps further apart are taken for damage."""

_SEARCH = 1000
"""Damaged pictures in a row after which a file of known length is given up; of unknown length: `_SEARCH_BLINDLY`."""

_SEARCH_BLINDLY = 25


class VideoFileSource(ReadSource):
    """A video file, every picture of it; or by its own clock.

    A damaged picture is counted and left out. Rotation is applied as the file asks. When it starts again at the end,
    positions go on growing.

    Args:
        path: The file.
        name: What users know it by; None for its path.
        realtime: Whether its pictures come by its own clock, the newest winning.
        fps: Pictures a second in place of the file's own clock.
        loop: Whether to start again at the end.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        realtime: bool = False,
        fps: float | None = None,
        loop: bool = False,
    ) -> None:
        super().__init__(name or str(path), realtime=realtime)
        self.path = path
        self._wanted_fps, self._loop = fps, loop
        self._capture: Any = None
        self._count: int | None = None
        self._warned = False

    def open(self) -> None:
        """Open the file.

        Raises:
            SourceError: it is missing, no video, or damaged.
        """
        head = check_file(self.path)
        if not is_utf8(self.path):
            raise SourceError(f"{self.path.name!r} is no UTF-8, and OpenCV opens no such name; give it another")
        self._capture = self._open_capture()
        if self._capture is None:
            raise SourceError(f"{self.path} {_no_video(head)}")
        import cv2

        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self._count = int(count) if 0 < count < 1e9 else None
        self.frames = None if self._loop else self._count
        self.fps = self._wanted_fps or usable_fps(self._capture.get(cv2.CAP_PROP_FPS))
        self.interval = 1 / (self.fps or _FALLBACK_FPS)

    def close(self) -> None:
        """End the thread, and let go of the file."""
        super().close()
        if self._thread is None and self._capture is not None:
            self._capture.release()

    def pictures(self) -> Generator[Found, None, None]:
        """Its pictures, from the beginning to the end, once or for ever."""
        begin = 0.0
        while True:
            given = self._captured
            if self._capture is None:  # another round
                self._capture = self._open_capture()
            end = begin
            try:
                for found in self._one_round(begin):
                    end = found.position
                    yield found
            finally:
                if self._capture is not None:
                    self._capture.release()
                    self._capture = None
            if not self._captured:
                raise SourceError(f"{self.path}: no picture in it can be decoded; copy or download it again")
            if not self._loop:
                return
            if self._captured == given:
                raise SourceError(f"{self.path} can't be read again; was it taken away?")
            begin = end + self.interval

    def _one_round(self, begin: float) -> Generator[Found, None, None]:
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
            elif self._wanted_fps is None and position < stamp < position + _LONGEST_GAP_S:
                position = stamp
            else:
                position += self.interval
            given += 1 + damaged
            yield Found(self._retrieve, begin + position, (time.monotonic() - start) * 1e3)
        if count is not None and given < 0.97 * count - 3 and not self._warned and not self._closing:
            self._warned = True
            logger.warning("%s ends after %d of %d pictures; it seems to be cut short", self.path, given, count)

    def _find_next(self, given: int) -> int | None:
        """Go to the next picture that can be decoded: how many are damaged before it; None at the end."""
        limit = _SEARCH_BLINDLY if self._count is None else min(_SEARCH, self._count - given - 1)
        damaged = 0
        while not self._capture.grab():
            # A damaged picture and the end of the file look the same.
            if damaged >= limit or self._closing:
                return None
            damaged += 1
        return damaged

    def _retrieve(self) -> ImageArray | None:
        import cv2

        done, picture = self._capture.retrieve()
        if not done or picture is None or picture.size == 0:
            return None
        rgb: ImageArray = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB if picture.ndim == 3 else cv2.COLOR_GRAY2RGB)
        return rgb

    def _open_capture(self) -> Any:
        # FFmpeg speaks for itself, on the user's screen, unless it is told not to before it is loaded.
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


def check_file(path: Path) -> bytes:
    """Make sure that a path is a file with something in it: how it begins.

    Raises:
        SourceError: it is missing, empty, no ordinary file, or may not be read.
    """
    try:
        if path.exists() and not path.is_file():
            kind = "a pipe" if path.is_fifo() else "no ordinary file"
            raise SourceError(f"{path} is {kind}; name a video, a picture or a folder of pictures")
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise SourceError(f"{path} doesn't exist; {_nearest(path)}") from None
    except PermissionError:
        raise SourceError(f"{path} may not be read; give yourself permission (chmod u+r)") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{str(path)[:200]!r} can't be read: {error}; correct the name") from None
    if not head:
        raise SourceError(f"{path} is empty (0 bytes); copy or download it again")
    return head


def _no_video(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer to a video, not the video; fetch it with `git lfs pull`"
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return f"is text, not a video or a picture: it starts with {head[:24]!r}; name a video file"
    if head[4:8] in (b"ftyp", b"moov", b"mdat") or head.startswith((b"RIFF", b"\x1aE\xdf\xa3")):
        return (
            "can't be opened as a video: it is cut short, damaged, holds no pictures, or in a format unknown to OpenCV"
        )
    return (
        f"is not a video or a picture that OpenCV can read: it starts with {head[:16]!r}; copy it again or convert it"
    )


def _nearest(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {str(folder)!r}"
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        names = []
    near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.75)
    if near:
        return f"did you mean {str(folder / near[0])!r}?"
    return "name a camera (0), a stream (rtsp://...), a video, a picture or a folder of pictures"

"""One video file: a codec that opens, frames of one size, and a name that it gets when it is complete.

What OpenCV 5.0's wheel for Linux makes of three clips in 640x480 pixels, on one core of a small cloud machine:

======  ===========  ==============  ==========  ====================================================
ending  codec        ms per frame    kB/frame    plays in
======  ===========  ==============  ==========  ====================================================
.webm   VP8          10 to 27        4 to 10     browsers (tried: Chromium), VLC, mpv
.mp4    MPEG-4       2               2 to 4      VLC, mpv, most players; no browser (tried: Chromium)
.avi    Motion JPEG  3               10 to 24    VLC, mpv, most players; no browser (tried: Chromium)
======  ===========  ==============  ==========  ====================================================

VP9 takes 80 to 220 ms for files that are no smaller and look no better, since OpenCV has no setting for its speed; it
is used where VP8 doesn't open. H.264, which would play everywhere, isn't in OpenCV's wheels.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.data.videos import is_utf8
from mobiledet.errors import MobiledetError
from mobiledet.preprocess import resize_image
from mobiledet.structures import ImageArray, Size
from mobiledet.utils.files import refuse_existing
from mobiledet.utils.processes import without_lines

logger = logging.getLogger(__name__)

RESERVE = 32 * 2**20
"""Bytes of the disk that stay free, so that there is room to end the file properly."""

SMALLEST, LARGEST = 16, 4096
"""Sides of a video in pixels: some codecs refuse less, or more."""

LOOK_EVERY = 0.5
"""Seconds between two looks at the free room."""

_TRIAL_FRAMES = 5

_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"

_BORDER = (24, 24, 24)


@dataclass(frozen=True)
class Codec:
    """How frames are encoded: OpenCV's four letters, the codec's usual name, and where it plays."""

    fourcc: str
    name: str
    plays: str


_BROWSERS = "plays in browsers, VLC and mpv"
_PLAYERS = "plays in VLC, mpv and most players, but not in browsers; name it .webm for those"

CODECS: dict[str, tuple[Codec, ...]] = {
    ".mp4": (Codec("mp4v", "MPEG-4", _PLAYERS), Codec("avc1", "H.264", "plays in browsers and players")),
    ".webm": (Codec("VP80", "VP8", _BROWSERS), Codec("VP90", "VP9", _BROWSERS)),
    ".avi": (Codec("MJPG", "Motion JPEG", _PLAYERS),),
}
"""By the file's ending; the first that opens is taken."""


class VideoFile:
    """Writes frames to a hidden file beside ``path``, and gives it that name when it is complete.

    Its ending chooses the codec. A process that is killed leaves the hidden file behind: ``.webm`` and ``.avi`` play up
    to there, ``.mp4`` doesn't.

    Raises:
        MobiledetError: an ending that isn't known, a codec that doesn't open, a file that exists, a folder that
            doesn't or can't be written to, a full disk.
    """

    def __init__(self, path: Path) -> None:
        refuse_existing(path)
        self.path = path
        ending = path.suffix.lower()
        if ending not in CODECS:
            raise MobiledetError(f"{path}: videos are written as .mp4 (fast), .webm (for browsers) or .avi (large)")
        if not is_utf8(path):
            raise MobiledetError(f"{path.name!r} is not UTF-8, which OpenCV can't write; choose another name")
        path.parent.mkdir(parents=True, exist_ok=True)
        if free_bytes(path) < RESERVE:
            raise MobiledetError(
                f"{path}: less than {RESERVE >> 20} MiB left on that disk; free some, or save elsewhere"
            )
        # A name may have 255 bytes, and a letter up to four of them.
        self.partial = path.with_name(f".{path.stem[:40]}.{os.getpid()}.partial{ending}")
        self._trial = path.with_name(f".{path.stem[:40]}.{os.getpid()}.trial{ending}")
        self.codec = self._choose_codec(CODECS[ending])
        self.size: Size | None = None
        """``(height, width)`` of the video, once it is open."""
        self.fps = 0.0
        self.written = 0
        """Frames in the file, repeated ones included."""
        self._writer: Any = None
        self._looked = 0.0
        self._warned = False

    @property
    def seconds(self) -> float:
        """How long it plays."""
        return self.written / self.fps if self.fps else 0.0

    def milliseconds(self, image: ImageArray) -> float:
        """Milliseconds that encoding a frame like ``image``, ``(H, W, 3)`` uint8 RGB, takes: tried on a few that move.

        Raises:
            MobiledetError: it can't be encoded.
        """
        size = video_size(image.shape[:2])
        moving = [fit(np.roll(image, 3 * index, axis=1), size) for index in range(_TRIAL_FRAMES)]
        took = self._try(self.codec, moving, size)
        if took is None:
            raise MobiledetError(f"{self.path}: {self.codec.name} doesn't take frames of {size[1]}x{size[0]} pixels")
        return took

    def open(self, size: Size, fps: float) -> None:
        """Begin a video of frames of ``size``, ``fps`` per second.

        Raises:
            MobiledetError: the codec doesn't take that.
        """
        self.size, self.fps = video_size(size), round(fps, 3)
        self._writer = _open(self.partial, self.codec, self.fps, self.size)
        if self._writer is None:
            height, width = self.size
            raise MobiledetError(
                f"{self.path}: {self.codec.name} doesn't take {width}x{height} pixels at {fps:g} frames per second; "
                "try another ending"
            )

    def write(self, image: ImageArray) -> None:
        """Append a frame ``(H, W, 3)`` uint8 RGB; one of another size is fitted in, with borders.

        Raises:
            MobiledetError: the disk is full, or what the system says.
        """
        assert self.size is not None
        now = time.monotonic()
        if now - self._looked > LOOK_EVERY:
            self._looked = now
            if free_bytes(self.path) < RESERVE:
                raise MobiledetError(
                    f"{self.path}: less than {RESERVE >> 20} MiB left on that disk, so the video ends after "
                    f"{self.seconds:.1f} s; free some, or save elsewhere"
                )
        if not self._warned and video_size(image.shape[:2]) != self.size:
            self._warned = True
            logger.warning(
                "%s: frames differ in size; all are scaled to %dx%d, the first one's", self.path, *self.size[::-1]
            )
        # OpenCV 5 returns False; OpenCV 4 returns nothing, there it shows when the file is completed.
        if self._writer.write(fit(image, self.size)) is False:
            raise MobiledetError(
                f"{self.path}: can't be written beyond {self.seconds:.1f} s; is the disk or a quota full?"
            )
        self.written += 1

    def finish(self) -> Path | None:
        """End the file and give it its name: where it is; None when there was nothing to write.

        Raises:
            MobiledetError: It is not complete, or can't be checked; the message names the file that holds the frames.
        """
        if self._writer is None:
            return None
        self._writer.release()
        self._writer = None
        if not self.written:
            _remove(self.partial)
            return None
        frames = count_frames(self.partial)
        if frames <= 0:
            full = "is the disk or a quota full?"
            if not self.partial.exists() or not self.partial.stat().st_size:
                _remove(self.partial)
                raise MobiledetError(f"{self.path}: nothing could be written; {full}")
            # Never removed: there may be other reasons that it can't be opened, and it may be repaired.
            kept = "may not play" if frames < 0 else "plays, but is incomplete"
            raise MobiledetError(f"{self.path}: can't be completed; what was written, {self.partial}, {kept}; {full}")
        _place(self.partial, self.path)
        return self.path

    def _choose_codec(self, codecs: tuple[Codec, ...]) -> Codec:
        black = np.zeros((48, 64, 3), np.uint8)
        for codec in codecs:
            if self._try(codec, [black], (48, 64)) is not None:
                return codec
        names = " or ".join(codec.name for codec in codecs)
        others = " or ".join(ending for ending in CODECS if ending != self.path.suffix.lower())
        raise MobiledetError(f"{self.path}: this OpenCV can't write {names} there; try {others}")

    def _try(self, codec: Codec, frames: Sequence[ImageArray], size: Size) -> float | None:
        """Milliseconds a frame; None for a codec that doesn't really write: that one opens proves too little."""
        try:
            writer = _open(self._trial, codec, 30.0, size)
            if writer is None:
                return None
            start = time.monotonic()
            done = [writer.write(frame) for frame in frames]
            writer.release()
            took = (time.monotonic() - start) * 1e3 / len(frames)
            whole = False not in done and self._trial.exists() and self._trial.stat().st_size > 0
            return took if whole else None
        finally:
            _remove(self._trial)


def video_size(size: Size) -> Size:
    """Size ``(height, width)`` of a video for frames of ``size``: even, as codecs need it, and in their range."""
    scale = min(1.0, LARGEST / max(size))
    height, width = (max(SMALLEST, round(side * scale)) for side in size)
    return height + height % 2, width + width % 2


def fit(image: ImageArray, size: Size) -> ImageArray:
    """A frame ``(H, W, 3)`` RGB as ``size + (3,)`` BGR: as large as fits, dark borders around it."""
    import cv2

    height, width = image.shape[:2]
    if (height, width) != size:
        if not (0 <= size[0] - height <= 1 and 0 <= size[1] - width <= 1):
            scale = min(size[0] / height, size[1] / width)
            height, width = (max(1, round(side * scale)) for side in (height, width))
            image = resize_image(image, (height, width), averaged=1)
        down, right = size[0] - height, size[1] - width
        top, left = down // 2, right // 2
        # One pixel more for an even size isn't worth a border.
        kind = cv2.BORDER_REPLICATE if max(down, right) <= 1 else cv2.BORDER_CONSTANT
        image = cv2.copyMakeBorder(image, top, down - top, left, right - left, kind, value=_BORDER)
    fitted: ImageArray = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return fitted


def _open(path: Path, codec: Codec, fps: float, size: Size) -> Any:
    """OpenCV's writer, or None where it doesn't open."""
    import cv2

    # "tag ... is not supported", for every WebM, means nothing.
    with without_lines(b"OpenCV: FFMPEG: "):
        try:
            writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec.fourcc), fps, size[::-1])
        except cv2.error:
            return None
    if writer.isOpened():
        return writer
    writer.release()
    return None


def _place(partial: Path, path: Path) -> None:
    """Give a finished file its name, unless that was taken meanwhile."""
    try:
        try:
            os.link(partial, path)  # unlike renaming, it never replaces
            partial.unlink()
        except FileExistsError:
            raise
        except OSError:  # FAT knows no links
            if path.exists():
                raise FileExistsError from None
            partial.rename(path)
    except OSError as error:
        taken = isinstance(error, FileExistsError)
        problem = "was created by another program meanwhile" if taken else f"can't be made: {error.strerror}"
        raise MobiledetError(f"{path} {problem}; the video is in {partial}") from None


def count_frames(path: Path) -> int:
    """Frames that the file says it holds; 0 if it plays but is incomplete, -1 if it doesn't play."""
    import cv2

    # These options are meant for the source, a stream, but FFmpeg applies them to every file.
    options = os.environ.pop(_FFMPEG_OPTIONS, None)
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened() or not capture.read()[0]:
            return -1
        return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()
        if options is not None:
            os.environ[_FFMPEG_OPTIONS] = options


def free_bytes(path: Path) -> int:
    """Bytes that can still be written beside ``path``."""
    try:
        return shutil.disk_usage(path.absolute().parent).free
    except OSError:
        return RESERVE


def _remove(path: Path) -> None:
    """Take a file away, if it is there."""
    with contextlib.suppress(OSError):
        path.unlink()

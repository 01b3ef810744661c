"""What is asked of a video's file besides writing it: room, whether it plays, and its name once it is whole."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

from mobiledet.errors import MobiledetError

RESERVE = 32 * 2**20
"""Bytes of the disk that stay free, so that there is room to end the file properly."""

_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


def place(partial: Path, path: Path) -> None:
    """Give a finished file its name, unless somebody else has taken that meanwhile.

    Raises:
        MobiledetError: the name is taken, or the file can't be renamed.
    """
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
    except FileExistsError:
        raise MobiledetError(f"{path} was made by another program meanwhile; the video is in {partial}") from None
    except OSError as error:
        raise MobiledetError(f"{path}: can't be named so: {error.strerror}; the video is in {partial}") from None


def count_pictures(path: Path) -> int:
    """Pictures that the file says it holds; 0 if it plays but wasn't ended properly, -1 if it doesn't even play."""
    found = _try_to_count(path)
    options = os.environ.get(_FFMPEG_OPTIONS) if found < 0 else None
    if options is None:
        return found
    # They are meant for the source, a stream, and FFmpeg obeys them for every file.
    del os.environ[_FFMPEG_OPTIONS]
    try:
        return _try_to_count(path)
    finally:
        os.environ[_FFMPEG_OPTIONS] = options


def _try_to_count(path: Path) -> int:
    import cv2

    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened() or not capture.read()[0]:
            return -1
        return max(0, int(capture.get(cv2.CAP_PROP_FRAME_COUNT)))
    finally:
        capture.release()


def is_empty(path: Path) -> bool:
    """Whether a file holds nothing, or isn't there."""
    try:
        return path.stat().st_size == 0
    except OSError:
        return True


def free_bytes(path: Path) -> int:
    """Bytes that can still be written beside ``path``."""
    try:
        return shutil.disk_usage(path.absolute().parent).free
    except OSError:
        return RESERVE


def remove(path: Path) -> None:
    """Take a file away, if it is there."""
    with contextlib.suppress(OSError):
        path.unlink()

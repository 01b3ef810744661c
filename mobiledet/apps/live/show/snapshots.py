"""Single pictures kept while a live view runs."""

from __future__ import annotations

import contextlib
import time
from itertools import count
from pathlib import Path

import cv2

from mobiledet.errors import ImageError
from mobiledet.structures import ImageArray

_QUALITY = 95


def save_snapshot(folder: Path, image: ImageArray) -> Path:
    """Keep a picture as a JPEG named after the moment, in a folder that is made if need be; nothing is overwritten.

    Args:
        folder: Where it goes.
        image: ``(height, width, 3)`` uint8 RGB.

    Returns:
        The file.

    Raises:
        ImageError: it can't be written.
    """
    try:
        done, data = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    except cv2.error as error:
        raise ImageError(f"{folder}: can't encode a picture of shape {image.shape} as a JPEG") from error
    if not done:
        raise ImageError(f"{folder}: a picture of shape {image.shape} is too large for a JPEG")
    moment = time.strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = folder / f"snapshot_{moment}{f'_{number}' if number > 1 else ''}.jpg"
            with contextlib.suppress(FileExistsError):
                _write(path, data.tobytes())
                break
    except OSError as error:
        raise ImageError(
            f"{folder}: no picture can be written there ({error.strerror}); choose another folder"
        ) from error
    return path


def _write(path: Path, data: bytes) -> None:
    """A new file, whole or not at all."""
    with path.open("xb") as file:
        try:
            file.write(data)
            file.flush()
        except BaseException:
            path.unlink()
            raise

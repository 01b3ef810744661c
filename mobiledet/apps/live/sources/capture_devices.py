"""What a capture process opens: the job it is given, and the device it makes of it."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobiledet.structures import ImageArray

OPEN_S = 10.0
"""Seconds that opening may take, up to the first frame."""


@dataclass(frozen=True)
class CaptureJob:
    """What to capture.

    Attributes:
        kind: Name of the `SourceKind` whose ``device`` opens it.
        target: Index or path of a camera, address of a stream.
        width, height, fps, mjpg: Asked of a camera, as in `SourceOptions`.
        open_s: Seconds that opening may take.
    """

    kind: str
    target: str
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    mjpg: bool = False
    open_s: float = OPEN_S


class CaptureFailedError(Exception):
    """A device can't be opened, or gives no more frames.

    Attributes:
        explained: Whether the message gives the cause; otherwise it is what a server answered, if anything, and the
            cause must be read from that and from what libraries wrote to stderr.
    """

    def __init__(self, message: str, *, explained: bool = True) -> None:
        super().__init__(message)
        self.explained = explained


class Device(ABC):
    """An open camera or stream, in the capture process.

    Attributes:
        bgr: Whether its frames have OpenCV's order of colours.
        patience: Failures in a row that still mean a damaged frame rather than a lost device.
    """

    bgr = False
    patience = 3

    @abstractmethod
    def about(self) -> dict[str, Any]:
        """``size`` (height, width), ``fps`` and ``note``, as the driver reports them."""

    @abstractmethod
    def grab(self) -> float | None:
        """Wait for a frame: when it arrived; None if none came."""

    @abstractmethod
    def retrieve(self) -> ImageArray | None:
        """Decode that frame; None if it is damaged."""

    def present(self) -> bool:
        """Whether the device is still there, as far as that is known."""
        return True

    def lost(self) -> str:
        """What to report when it gives no more frames."""
        return "gives no more frames"


class OpenCVDevice(Device):
    """What all devices that OpenCV reads have in common; ``capture`` is an open ``cv2.VideoCapture``."""

    bgr = True

    def __init__(self, capture: Any) -> None:
        self._capture = capture
        self._buffer: ImageArray | None = None

    def grab(self) -> float | None:
        """Wait for a frame: when it was read; None if none came."""
        return time.monotonic() if self._capture.grab() else None

    def retrieve(self) -> ImageArray | None:
        """Decode that frame, into the memory of the one before; None if it is damaged."""
        done, image = self._capture.retrieve(self._buffer)
        self._buffer = image if done else None
        return self._buffer

    def size(self) -> list[int]:
        """``[height, width]`` as the driver reports it."""
        import cv2

        return [int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)]

    def format(self) -> str:
        """Four letters such as ``"MJPG"``; empty where it isn't known."""
        import cv2

        number = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        text = bytes((number >> shift) & 0xFF for shift in (0, 8, 16, 24)).decode("latin-1")
        return text if number > 0 and text.isprintable() else ""

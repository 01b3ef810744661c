"""Cameras and streams as the capture process opens them: grab, then retrieve."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any, Protocol

from mobiledet.apps.live.sources.addresses import ask_http
from mobiledet.apps.live.sources.base import usable_fps
from mobiledet.structures import ImageArray

_OLDEST_STAMP_S = 1.0
"""A driver's stamp further back than this is of another clock."""


class CaptureFailedError(Exception):
    """A device can't be opened, or gives no more pictures.

    Attributes:
        explained: Whether the message says it all; else it is what a server said, if anything, and the cause must be
            read from that and from what libraries complained of.
    """

    def __init__(self, message: str, *, explained: bool = True) -> None:
        super().__init__(message)
        self.explained = explained


class Device(Protocol):
    """An open camera or stream.

    Attributes:
        bgr: Whether the colours of its pictures come as OpenCV has them.
        patience: Failures in a row that still mean a damaged picture rather than a lost device.
    """

    bgr: bool
    patience: int

    def about(self) -> dict[str, Any]:
        """``size`` (height, width), ``fps`` and ``note``, as the driver says."""

    def grab(self) -> float | None:
        """Wait for a picture: when it arrived; None if none came."""

    def retrieve(self) -> ImageArray | None:
        """Decode that picture; None if it is damaged."""

    def present(self) -> bool:
        """Whether the device is still there, as far as that can be told."""

    def lost(self) -> str:
        """What to say when it gives no more."""


def load_libraries() -> None:
    """Load what takes longest, and leave the cores to the network."""
    import cv2

    cv2.setNumThreads(1)


def open_device(job: dict[str, Any]) -> Device:
    """Open what a job names.

    Args:
        job: ``kind`` (``camera``, ``stream`` or ``picamera2``), ``target``, ``width``, ``height``, ``fps``, ``mjpg``
            and ``open_s``, the seconds that opening may take.

    Raises:
        CaptureFailedError: it can't be opened.
    """
    if job["kind"] == "camera":
        return _CameraDevice(job)
    return _Picamera2Device(job) if job["kind"] == "picamera2" else _StreamDevice(job)


class _OpenCVDevice:
    bgr = True
    patience = 3

    def __init__(self, capture: Any) -> None:
        self._capture = capture
        self._buffer: ImageArray | None = None

    def grab(self) -> float | None:
        return time.monotonic() if self._capture.grab() else None

    def retrieve(self) -> ImageArray | None:
        done, picture = self._capture.retrieve(self._buffer)
        if not done or picture is None:
            return None
        self._buffer = picture  # the next one is decoded to the same place
        found: ImageArray = picture
        return found

    def present(self) -> bool:
        return True


class _CameraDevice(_OpenCVDevice):
    """A camera read with OpenCV; on Linux through V4L2."""

    def __init__(self, job: dict[str, Any]) -> None:
        import cv2

        target = str(job["target"])
        self._path = Path(f"/dev/video{target}" if target.isdecimal() else target)
        linux = sys.platform == "linux"
        backend = cv2.CAP_V4L2 if linux else cv2.CAP_ANY
        capture = cv2.VideoCapture(int(target) if target.isdecimal() else os.path.realpath(target), backend)
        if not capture.isOpened():
            hint = f"; another program may be using it (see: fuser -v {self._path})" if linux else ""
            raise CaptureFailedError(f"can't be opened{hint}")
        super().__init__(capture)
        # The format first: which sizes and speeds there are depends on it.
        if job["mjpg"]:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        for setting, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, job["width"]),
            (cv2.CAP_PROP_FRAME_HEIGHT, job["height"]),
            (cv2.CAP_PROP_FPS, job["fps"]),
            (cv2.CAP_PROP_BUFFERSIZE, 1),
        ):
            if value:
                capture.set(setting, value)

    def about(self) -> dict[str, Any]:
        import cv2

        width, height = (int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        fps = usable_fps(self._capture.get(cv2.CAP_PROP_FPS))
        form = _four_characters(self._capture.get(cv2.CAP_PROP_FOURCC))
        return {"size": [height, width], "fps": fps, "note": f"{self._capture.getBackendName()} {form}".strip()}

    def grab(self) -> float | None:
        arrived = super().grab()
        if arrived is None or sys.platform != "linux":
            return arrived
        import cv2

        # V4L2 stamps a picture when it arrives, on the monotonic clock; it may have waited for us since.
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        return float(stamp) if 0 <= arrived - stamp < _OLDEST_STAMP_S else arrived

    def present(self) -> bool:
        return sys.platform != "linux" or self._path.exists()

    def lost(self) -> str:
        return "gives no more pictures" if self.present() else "was unplugged"


class _StreamDevice(_OpenCVDevice):
    """A stream from the network, read with OpenCV's FFmpeg."""

    patience = 30  # damaged packets count as failures, too

    def __init__(self, job: dict[str, Any]) -> None:
        import cv2

        settings = [
            cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
            int(job["open_s"] * 1000),
            cv2.CAP_PROP_READ_TIMEOUT_MSEC,
            30_000,  # the parent gives up long before
        ]
        if hasattr(cv2, "CAP_PROP_N_THREADS"):
            settings += [cv2.CAP_PROP_N_THREADS, 1]  # each further decoding thread holds back one more picture
        start = time.monotonic()
        capture = cv2.VideoCapture(job["target"], cv2.CAP_FFMPEG, settings)
        if not capture.isOpened():
            if time.monotonic() - start >= 0.9 * job["open_s"]:
                raise CaptureFailedError(f"no pictures within {job['open_s']:g} s; see that it is sending")
            # FFmpeg tells the code of a web server's refusal only to those who ask for all its warnings.
            raise CaptureFailedError(ask_http(job["target"]), explained=False)
        super().__init__(capture)

    def about(self) -> dict[str, Any]:
        import cv2

        width, height = (int(self._capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        form = _four_characters(self._capture.get(cv2.CAP_PROP_FOURCC))
        # JPEG after JPEG has no speed of its own; FFmpeg then says 25.
        fps = None if form == "MJPG" else usable_fps(self._capture.get(cv2.CAP_PROP_FPS))
        return {"size": [height, width], "fps": fps, "note": f"FFmpeg {form}".strip()}

    def lost(self) -> str:
        return "the stream ended"


class _Picamera2Device:
    """A camera at a Raspberry Pi's ribbon cable, read with libcamera through Picamera2."""

    bgr = False
    patience = 3

    def __init__(self, job: dict[str, Any]) -> None:
        try:
            from picamera2 import Picamera2  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise CaptureFailedError(
                f"the package picamera2 can't be loaded ({error}); on a Raspberry Pi: sudo apt install "
                "python3-picamera2, and make the virtual environment with: python3 -m venv --system-site-packages"
            ) from None
        number, found = int(job["target"]), Picamera2.global_camera_info()
        if number >= len(found):
            names = ", ".join(f"picamera2:{i} ({info.get('Model', '?')})" for i, info in enumerate(found))
            raise CaptureFailedError(f"libcamera finds no such camera; it finds: {names or 'none'}")
        self._camera = Picamera2(number)
        # Picamera2 names formats as libcamera does: what it calls BGR888 lies in memory as red, green, blue.
        main: dict[str, Any] = {"format": "BGR888", "size": (job["width"] or 640, job["height"] or 480)}
        controls = {"FrameRate": job["fps"]} if job["fps"] else {}
        self._camera.configure(self._camera.create_video_configuration(main=main, controls=controls, queue=False))
        self._camera.start()
        self._picture: ImageArray | None = None

    def about(self) -> dict[str, Any]:
        width, height = self._camera.camera_configuration()["main"]["size"]
        return {"size": [height, width], "fps": None, "note": "Picamera2"}

    def grab(self) -> float | None:
        self._picture = self._camera.capture_array("main")
        return time.monotonic()

    def retrieve(self) -> ImageArray | None:
        return self._picture

    def present(self) -> bool:
        return True

    def lost(self) -> str:
        return "gives no more pictures"


def _four_characters(code: float) -> str:
    number = int(code)
    text = bytes((number >> shift) & 0xFF for shift in (0, 8, 16, 24)).decode("latin-1")
    return text if number > 0 and text.isprintable() else ""

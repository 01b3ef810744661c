"""Cameras at a Raspberry Pi's ribbon cable, read with libcamera through Picamera2."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from mobiledet.apps.live.sources.base import Source, SourceKind, SourceOptions
from mobiledet.apps.live.sources.capture import CaptureSource
from mobiledet.apps.live.sources.capture_devices import CaptureFailedError, CaptureJob, Device
from mobiledet.errors import SourceError

if TYPE_CHECKING:
    from mobiledet.structures import ImageArray

_FORM = re.compile(r"picamera2(?::(?P<number>.*))?", re.IGNORECASE)


class _PiCameraDevice(Device):
    def __init__(self, job: CaptureJob) -> None:
        try:
            from picamera2 import Picamera2  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise CaptureFailedError(
                f"the package picamera2 can't be loaded ({error}); on a Raspberry Pi: sudo apt install "
                "python3-picamera2, and make the virtual environment with: python3 -m venv --system-site-packages"
            ) from None
        number, found = int(job.target), Picamera2.global_camera_info()
        if number >= len(found):
            names = ", ".join(f"picamera2:{i} ({info.get('Model', '?')})" for i, info in enumerate(found))
            raise CaptureFailedError(f"libcamera has no such camera; it has: {names or 'none'}")
        self._camera = Picamera2(number)
        # Picamera2 names formats as libcamera does: what it calls BGR888 lies in memory as red, green, blue.
        main: dict[str, Any] = {"format": "BGR888", "size": (job.width or 640, job.height or 480)}
        controls = {"FrameRate": job.fps} if job.fps else {}
        self._camera.configure(self._camera.create_video_configuration(main=main, controls=controls, queue=False))
        self._camera.start()
        self._image: ImageArray | None = None

    def about(self) -> dict[str, Any]:
        width, height = self._camera.camera_configuration()["main"]["size"]
        return {"size": [height, width], "fps": None, "note": "Picamera2"}

    def grab(self) -> float | None:
        self._image = self._camera.capture_array("main")
        return time.monotonic()

    def retrieve(self) -> ImageArray | None:
        return self._image


def _open(text: str, options: SourceOptions) -> Source:
    match = _FORM.fullmatch(text)
    number = (match and match["number"]) or "0"
    if not number.isdecimal():
        raise SourceError(f"{text}: {number!r} is not a camera index; write picamera2 or picamera2:1")
    job = CaptureJob(PI_CAMERAS.name, number, options.width, options.height, options.fps)
    return CaptureSource(job, name=f"picamera2:{int(number)}", stall_s=options.stall_s)


PI_CAMERAS = SourceKind(
    name="picamera2",
    plural="Picamera2 cameras",
    examples=("picamera2",),
    options=frozenset({"width", "height", "fps", "stall_s"}),
    recognises=lambda text: _FORM.fullmatch(text) is not None,
    open=_open,
    device=_PiCameraDevice,
)

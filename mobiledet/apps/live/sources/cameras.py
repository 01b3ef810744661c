"""Cameras that OpenCV reads: those of this machine, what to report when the chosen one is missing, and reading one."""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobiledet.apps.live.sources.base import Source, SourceKind, SourceOptions
from mobiledet.apps.live.sources.capture import CaptureSource
from mobiledet.apps.live.sources.capture_devices import CaptureFailedError, CaptureJob, OpenCVDevice
from mobiledet.data.videos import usable_fps
from mobiledet.errors import SourceError

SYSFS = Path("/sys/class/video4linux")

DEVICES = Path("/dev")

PROGRAM = "mobiledet webcam --source"

_QUERY_CAPABILITIES = 0x80685600
"""``VIDIOC_QUERYCAP`` of linux/videodev2.h: ``_IOR('V', 0, struct v4l2_capability)``, 104 bytes."""

_CAPTURES = 0x00000001 | 0x00001000
"""``V4L2_CAP_VIDEO_CAPTURE`` and its multi-planar sibling."""

_BOARD = re.compile(r"unicam|rp1-cfe|bcm2835-isp|pispbe|bcm2835-codec", re.IGNORECASE)
"""Driver names of a Raspberry Pi's own camera port and image processor; they give frames to libcamera only."""

_DEVICE = re.compile(r"video(\d+)")

_FORM = re.compile(r"(?i:camera|webcam|cam)(?::(?P<named>.*))?|(?P<number>-?\d+)|(?P<path>/dev/(?:video|v4l/).*)")

_OLDEST_STAMP_S = 1.0
"""A driver's time stamp further back than this is of another clock."""


@dataclass(frozen=True)
class Camera:
    """A camera that the system knows.

    Attributes:
        path: Its device, such as ``/dev/video0``.
        name: Its name, from the driver.
        problem: Why OpenCV can't read it, and the remedy; empty if it should be able to.
    """

    path: str
    name: str
    problem: str = ""

    @property
    def source(self) -> str:
        """What ``--source`` takes for it."""
        number = _DEVICE.fullmatch(Path(self.path).name)
        return f"camera:{number[1]}" if number else self.path


def list_cameras(sysfs: Path = SYSFS, devices: Path = DEVICES) -> list[Camera]:
    """The cameras of a Linux machine, in the order of their numbers, without devices that aren't cameras.

    Empty on other systems, which offer no list. ``sysfs`` is where the system lists video devices, ``devices`` where
    these are.
    """
    from mobiledet.utils.machine import read_text

    matches = [_DEVICE.fullmatch(path.name) for folder in (sysfs, devices) for path in _entries(folder)]
    cameras = []
    for number in sorted({int(match[1]) for match in matches if match}):
        device = f"video{number}"
        path = devices / device
        if read_text(sysfs / device / "index") not in ("", "0"):
            continue  # a camera's second device gives data about its frames
        name, problem = read_text(sysfs / device / "name") or "unnamed", ""
        if _BOARD.search(name):
            problem = f"read it through libcamera: {PROGRAM} picamera2"
        elif not path.exists():
            problem = "its device is missing; pass it to the container"
        elif not os.access(path, os.R_OK | os.W_OK):
            problem = "no permission; add yourself to the group video: sudo usermod -aG video $USER, then log in again"
        elif not _captures(path):
            continue
        cameras.append(Camera(str(path), name, problem))
    return cameras


def no_camera_message(wanted: str, cameras: Sequence[Camera] | None = None) -> str:
    """The message for a missing camera: the cameras that there are, and commands that will work.

    ``wanted`` is the path of the chosen device; without ``cameras`` the machine's are looked for.
    """
    cameras = list_cameras() if cameras is None else cameras
    this = next((camera for camera in cameras if camera.path == wanted), None)
    usable = [camera for camera in cameras if not camera.problem and camera is not this]
    board = any(_BOARD.search(camera.name) for camera in cameras)
    if this is not None and this.problem:
        begin = f"{wanted} ({this.name}) can't be read: {this.problem}"
    elif not cameras and not _entries(DEVICES, "video*"):
        begin = f"{wanted} doesn't exist: this machine has no camera; plug one in"
    else:
        begin = f"{wanted} is not a camera"
    parts = [begin]
    if usable:
        listed = ", ".join(f"{PROGRAM} {camera.source} ({camera.name})" for camera in usable)
        parts.append(f"what will work: {listed}")
    elif this is None or not this.problem:
        others = [camera for camera in cameras if not _BOARD.search(camera.name)]
        parts += [f"found {camera.path} ({camera.name}): {camera.problem}" for camera in others]
        ribbon = f"the camera at the ribbon cable: {PROGRAM} picamera2; " if board else ""
        parts.append(f"{ribbon}without one: {PROGRAM} clip.mp4, or a folder of images, or rtsp://...")
    return "; ".join(parts)


def camera_problem(path: str, cameras: Sequence[Camera] | None = None) -> str:
    """Why a camera can't be opened, as far as is known without opening it; empty when no problem is known."""
    if sys.platform != "linux":
        return ""
    device = Path(os.path.realpath(path))
    if not device.exists():
        return no_camera_message(path, cameras)
    if not device.is_char_device():
        return f"{path} is not a device; name a camera such as /dev/video0"
    cameras = list_cameras() if cameras is None else cameras
    if any(camera.path == str(device) and not camera.problem for camera in cameras):
        return ""
    return no_camera_message(str(device), cameras)


def _entries(folder: Path, pattern: str = "*") -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _captures(path: Path) -> bool:
    """Whether a device gives frames; true where that can't be found out."""
    answer = bytearray(104)
    try:
        import fcntl

        device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(device, _QUERY_CAPABILITIES, answer)
        finally:
            os.close(device)
    except (ImportError, OSError):
        return True
    # struct v4l2_capability: driver[16], card[32], bus_info[32], version, capabilities, device_caps.
    everything, of_device = struct.unpack_from("II", answer, 84)
    has_device_caps = everything & 0x80000000
    return bool((of_device if has_device_caps else everything) & _CAPTURES)


class _CameraDevice(OpenCVDevice):
    def __init__(self, job: CaptureJob) -> None:
        import cv2

        self._path = Path(f"/dev/video{job.target}" if job.target.isdecimal() else job.target)
        linux = sys.platform == "linux"
        target = int(job.target) if job.target.isdecimal() else os.path.realpath(job.target)
        capture = cv2.VideoCapture(target, cv2.CAP_V4L2 if linux else cv2.CAP_ANY)
        if not capture.isOpened():
            hint = f"; another program may be using it (see: fuser -v {self._path})" if linux else ""
            raise CaptureFailedError(f"can't be opened{hint}")
        super().__init__(capture)
        # The format first: which sizes and frame rates there are depends on it.
        if job.mjpg:
            capture.set(cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG"))
        for setting, value in (
            (cv2.CAP_PROP_FRAME_WIDTH, job.width),
            (cv2.CAP_PROP_FRAME_HEIGHT, job.height),
            (cv2.CAP_PROP_FPS, job.fps),
            (cv2.CAP_PROP_BUFFERSIZE, 1),
        ):
            if value:
                capture.set(setting, value)

    def about(self) -> dict[str, Any]:
        import cv2

        fps = usable_fps(self._capture.get(cv2.CAP_PROP_FPS))
        return {"size": self.size(), "fps": fps, "note": f"{self._capture.getBackendName()} {self.format()}".strip()}

    def grab(self) -> float | None:
        arrived = super().grab()
        if arrived is None or sys.platform != "linux":
            return arrived
        import cv2

        # V4L2 stamps a frame when it arrives, on the monotonic clock; it may have waited for us since.
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        return float(stamp) if 0 <= arrived - stamp < _OLDEST_STAMP_S else arrived

    def present(self) -> bool:
        return sys.platform != "linux" or self._path.exists()

    def lost(self) -> str:
        return super().lost() if self.present() else "was unplugged"


def _open(text: str, options: SourceOptions) -> Source:
    match = _FORM.fullmatch(text)
    wanted = (match and (match["number"] or match["named"] or match["path"])) or "0"
    if wanted.isdecimal():
        path, target, name = f"/dev/video{int(wanted)}", str(int(wanted)), f"camera {int(wanted)}"
    elif wanted.startswith("/dev/"):
        path = target = name = wanted
    else:
        raise SourceError(f"{text}: {wanted!r} is not a camera index; write camera:0 or /dev/video0")

    def check() -> None:
        if problem := camera_problem(path):
            raise SourceError(problem)

    job = CaptureJob(CAMERAS.name, target, options.width, options.height, options.fps, options.mjpg)
    return CaptureSource(job, name=name, stall_s=options.stall_s, check=check)


CAMERAS = SourceKind(
    name="camera",
    plural="USB cameras",
    examples=("camera:0", "webcam", "/dev/video0"),
    options=frozenset({"width", "height", "fps", "mjpg", "stall_s"}),
    recognises=lambda text: _FORM.fullmatch(text) is not None,
    open=_open,
    device=_CameraDevice,
)

"""The cameras of this machine, and what to say when the one that was asked for isn't among them."""

from __future__ import annotations

import os
import re
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

SYSFS = Path("/sys/class/video4linux")

DEVICES = Path("/dev")

PROGRAM = "python demo/webcam.py --source"

_QUERY_CAPABILITIES = 0x80685600
"""``VIDIOC_QUERYCAP`` of linux/videodev2.h: ``_IOR('V', 0, struct v4l2_capability)``, 104 bytes."""

_CAPTURES = 0x00000001 | 0x00001000
"""``V4L2_CAP_VIDEO_CAPTURE`` and its multi-planar sibling."""

_BOARD = re.compile(r"unicam|rp1-cfe|bcm2835-isp|pispbe|bcm2835-codec", re.IGNORECASE)
"""Names of what a Raspberry Pi's own camera port and picture processor show; they give pictures to libcamera only."""


@dataclass(frozen=True)
class Camera:
    """A camera that the system knows.

    Attributes:
        path: Its device, such as ``/dev/video0``.
        name: What its driver calls it.
        usable: Whether OpenCV should be able to read it.
        why: Why not, and the remedy.
    """

    path: str
    name: str
    usable: bool = True
    why: str = ""

    @property
    def source(self) -> str:
        """What ``--source`` takes for it."""
        number = re.fullmatch(r".*/video(\d+)", self.path)
        return f"camera:{number[1]}" if number else self.path


def list_cameras(sysfs: Path = SYSFS, devices: Path = DEVICES) -> list[Camera]:
    """The cameras of a Linux machine, in the order of their numbers; devices that aren't cameras are left out.

    Nothing is known on other systems: empty.

    Args:
        sysfs: Folder in which the system lists video devices.
        devices: Folder of the devices themselves.
    """
    names = {path.name for folder in (sysfs, devices) for path in _entries(folder) if _number(path.name) is not None}
    cameras = []
    for device in sorted(names, key=lambda name: _number(name) or 0):
        path = devices / device
        if _text(sysfs / device / "index") not in ("", "0"):
            continue  # a camera's second device gives data about its pictures
        name = _text(sysfs / device / "name") or "unnamed"
        if _BOARD.search(name):
            cameras.append(Camera(str(path), name, False, f"read it through libcamera: {PROGRAM} picamera2"))
        elif not path.exists():
            cameras.append(Camera(str(path), name, False, "its device is missing; a container must be given it"))
        elif not os.access(path, os.R_OK | os.W_OK):
            why = "no permission; add yourself to the group video: sudo usermod -aG video $USER, then log in again"
            cameras.append(Camera(str(path), name, False, why))
        elif _captures(path) is not False:
            cameras.append(Camera(str(path), name))
    return cameras


def no_camera_message(wanted: str, cameras: Sequence[Camera] | None = None) -> str:
    """What to say when a camera can't be had: what there is, and commands that will work.

    Args:
        wanted: Path of the device that was asked for.
        cameras: The machine's cameras; None to look for them.
    """
    cameras = list_cameras() if cameras is None else cameras
    this = next((camera for camera in cameras if camera.path == wanted), None)
    usable = [camera for camera in cameras if camera.usable and camera is not this]
    board = any(_BOARD.search(camera.name) for camera in cameras)
    if this is not None and not this.usable:
        begin = f"{wanted} ({this.name}) can't be read: {this.why}"
    elif not cameras and not _entries(DEVICES, "video*"):
        begin = f"{wanted} doesn't exist: this machine shows no camera; plug one in"
    else:
        begin = f"{wanted} is no camera"
    parts = [begin]
    if usable:
        listed = ", ".join(f"{PROGRAM} {camera.source} ({camera.name})" for camera in usable)
        parts.append(f"what will work: {listed}")
    elif this is None or this.usable:
        others = [
            f"{camera.path} ({camera.name}): {camera.why}" for camera in cameras if not _BOARD.search(camera.name)
        ]
        parts += [f"found {other}" for other in others]
        ribbon = f"the camera at the ribbon cable: {PROGRAM} picamera2; " if board else ""
        parts.append(f"{ribbon}without one: {PROGRAM} clip.mp4, or a folder of pictures, or rtsp://...")
    return "; ".join(parts)


def camera_trouble(path: str, cameras: Sequence[Camera] | None = None) -> str:
    """Why a camera can't be opened, as far as can be told without doing it; empty when nothing speaks against it."""
    if sys.platform != "linux":
        return ""
    device = Path(os.path.realpath(path))
    if not device.exists():
        return no_camera_message(path, cameras)
    if not device.is_char_device():
        return f"{path} is no device; name a camera such as /dev/video0"
    cameras = list_cameras() if cameras is None else cameras
    known = next((camera for camera in cameras if camera.path == str(device)), None)
    if known is None or not known.usable:
        return no_camera_message(str(device), cameras)
    return ""


def _entries(folder: Path, pattern: str = "*") -> list[Path]:
    try:
        return sorted(folder.glob(pattern))
    except OSError:
        return []


def _number(name: str) -> int | None:
    found = re.fullmatch(r"video(\d+)", name)
    return int(found[1]) if found else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _captures(path: Path) -> bool | None:
    """Whether a device gives pictures; None when it doesn't say."""
    try:
        import fcntl
    except ImportError:
        return None
    answer = bytearray(104)
    try:
        device = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.ioctl(device, _QUERY_CAPABILITIES, answer)
    except OSError:
        return None
    finally:
        os.close(device)
    # struct v4l2_capability: driver[16], card[32], bus_info[32], version, capabilities, device_caps.
    everything, of_device = struct.unpack_from("II", answer, 84)
    has_device_caps = everything & 0x80000000
    return bool((of_device if has_device_caps else everything) & _CAPTURES)

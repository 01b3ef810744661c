"""From what a user writes to the source that is meant."""

from __future__ import annotations

import difflib
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mobiledet.apps.live.sources.addresses import parse_address
from mobiledet.apps.live.sources.base import Source
from mobiledet.apps.live.sources.cameras import camera_trouble
from mobiledet.apps.live.sources.capture import CaptureSource
from mobiledet.apps.live.sources.capture_child import CaptureJob
from mobiledet.apps.live.sources.images import PictureSource
from mobiledet.apps.live.sources.video_files import VideoFileSource, check_file
from mobiledet.data.images import check_container
from mobiledet.errors import ImageError, SourceError


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read. None and False leave it to the source.

    Attributes:
        width: Pixels that a camera shall give.
        height: The same; both or none.
        fps: Pictures a second that a camera shall give, or the clock of a file with ``realtime``.
        mjpg: Whether a camera shall send JPEG.
        realtime: Whether a file comes by its own clock, the newest picture winning.
        loop: Whether a file starts again at its end.
        stall_s: Seconds of silence after which a camera or stream is taken for lost.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    mjpg: bool = False
    realtime: bool = False
    loop: bool = False
    stall_s: float | None = None


_LARGEST = 10_000

_FLAGS = {"stall_s": "--stall"}
"""Options of `demo/webcam.py` that aren't called like the field."""

_TAKEN_BY = {
    "camera": {"width", "height", "fps", "mjpg", "stall_s"},
    "picamera2": {"width", "height", "fps", "stall_s"},
    "stream": {"stall_s"},
    "file": {"fps", "realtime", "loop"},
}

_MEANT_FOR = {
    "width": "cameras",
    "height": "cameras",
    "fps": "cameras, and for files with --realtime",
    "mjpg": "USB cameras",
    "realtime": "files; cameras and streams have a clock of their own",
    "loop": "files; cameras and streams have no end",
    "stall_s": "cameras and streams",
}

_CAMERA = re.compile(r"(?:(?:camera|webcam|cam)(?::(?P<named>.*))?|(?P<number>\d+))", re.IGNORECASE)

_BOARD_CAMERA = re.compile(r"picamera2(?::(?P<number>.*))?", re.IGNORECASE)


def open_source(text: str, options: SourceOptions | None = None) -> Source:
    """The source that a text names; not started yet.

    Args:
        text: ``0``, ``camera:1``, ``/dev/video0``, ``picamera2``, ``rtsp://...``, a video file, a picture or a folder
            of pictures. A file or folder that is called like a camera is written ``./0``.
        options: How it is read.

    Raises:
        SourceError: it names nothing that can be read, or an option makes no sense for it.
    """
    options = options or SourceOptions()
    text = text.strip()
    _check_values(options)
    if not text:
        raise SourceError("no source is named; name a camera (0), a stream, a video, a picture or a folder of pictures")
    if "\0" in text:
        raise SourceError(f"{text!r} is no name of a source; take the null character out")
    if match := _BOARD_CAMERA.fullmatch(text):
        return _board_camera(text, match["number"], options)
    if match := _CAMERA.fullmatch(text):
        wanted = match["number"] or match["named"] or "0"
        if wanted.isdecimal():
            return _camera(f"/dev/video{int(wanted)}", str(int(wanted)), f"camera {int(wanted)}", options)
        if wanted.startswith("/dev/"):
            return _camera(wanted, wanted, wanted, options)
        raise SourceError(f"{text}: {wanted!r} is no camera's number; write camera:0, or /dev/video0")
    if text.startswith(("/dev/video", "/dev/v4l/")):
        return _camera(text, text, text, options)
    if re.match(r"file://", text, re.IGNORECASE):
        return _file(_path_of(text), options)
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return _stream(text, options)
    return _file(Path(text).expanduser() if text.startswith("~/") else Path(text), options, typed=text)


def _camera(path: str, target: str, name: str, options: SourceOptions) -> Source:
    _check_kind("camera", name, options)
    job = CaptureJob("camera", target, options.width, options.height, options.fps, options.mjpg)

    def check() -> None:
        if trouble := camera_trouble(path):
            raise SourceError(trouble)

    return CaptureSource(job, name=name, stall_s=options.stall_s, check=check)


def _board_camera(text: str, number: str | None, options: SourceOptions) -> Source:
    number = number or "0"
    if not number.isdecimal():
        raise SourceError(f"{text}: {number!r} is no camera's number; write picamera2 or picamera2:1")
    name = f"picamera2:{int(number)}"
    _check_kind("picamera2", name, options)
    job = CaptureJob("picamera2", number, options.width, options.height, options.fps)
    return CaptureSource(job, name=name, stall_s=options.stall_s)


def _stream(text: str, options: SourceOptions) -> Source:
    address = parse_address(text)
    _check_kind("stream", address.shown, options)
    return CaptureSource(CaptureJob("stream", text), name=address.shown, stall_s=options.stall_s, address=address)


def _file(path: Path, options: SourceOptions, typed: str = "") -> Source:
    _check_kind("file", str(path), options)
    if options.fps is not None and not options.realtime:
        raise SourceError(f"{path}: --fps is the clock of --realtime; add --realtime, or leave --fps out")
    try:
        if typed and not path.exists():
            _check_word(typed)
        pictures = path.is_dir() or _is_picture(path, check_file(path))
    except OSError as error:
        raise SourceError(f"{str(path)[:100]!r} can't be read: {error.strerror}; correct the name") from None
    kind = PictureSource if pictures else VideoFileSource
    return kind(path, realtime=options.realtime, fps=options.fps, loop=options.loop)


def _is_picture(path: Path, head: bytes) -> bool:
    try:
        check_container(path, head)
    except ImageError as error:
        return "cut short" in str(error)  # it is one, and 512 bytes aren't all of it
    return True


def _check_word(text: str) -> None:
    near = difflib.get_close_matches(text.lower(), ["camera", "webcam", "picamera2", "picamera", "camera:0"], n=1)
    if near:
        meant = "picamera2" if near[0] == "picamera" else near[0]
        raise SourceError(f"{text} doesn't exist; did you mean {meant!r}?")
    if re.fullmatch(r"-\d+", text):
        raise SourceError(f"{text} is no camera; they are numbered from 0")
    if "*" in text or "?" in text:
        raise SourceError(f"{text} doesn't exist; name the folder, all pictures in it are taken")


def _path_of(address: str) -> Path:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise SourceError(f"{address}: a file of another machine can't be read; write file:///PATH")
    return Path(url2pathname(parts.path))


def _check_values(options: SourceOptions) -> None:
    for name in ("width", "height"):
        value = getattr(options, name)
        if value is not None and not 1 <= value <= _LARGEST:
            raise SourceError(f"--{name} {value} can't be meant; give pixels from 1 to {_LARGEST}")
    if (options.width is None) != (options.height is None):
        raise SourceError("--width and --height go together; give both, or none")
    if options.fps is not None and not (math.isfinite(options.fps) and 0.01 <= options.fps <= 1000):
        raise SourceError(f"--fps {options.fps:g} can't be meant; give pictures a second from 0.01 to 1000")
    if options.stall_s is not None and not (math.isfinite(options.stall_s) and 0.5 <= options.stall_s <= 3600):
        raise SourceError(f"--stall {options.stall_s:g} can't be meant; give seconds from 0.5 to 3600")


def _check_kind(kind: str, name: str, options: SourceOptions) -> None:
    for field in fields(options):
        if getattr(options, field.name) not in (None, False) and field.name not in _TAKEN_BY[kind]:
            flag = _FLAGS.get(field.name, f"--{field.name}")
            raise SourceError(f"{name}: {flag} is for {_MEANT_FOR[field.name]}; leave it out")

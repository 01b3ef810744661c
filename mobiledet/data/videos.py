"""Reading videos frame by frame, with OpenCV."""

from __future__ import annotations

import os
import re
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledet.errors import ImageError, SourceError
from mobiledet.utils.addresses import file_path, is_address, parse_address
from mobiledet.utils.text import printable, shorten

if TYPE_CHECKING:
    from mobiledet.structures import ImageArray

VIDEO_EXTENSIONS = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".wmv", ".flv"})
"""Lower-case endings of the files that are taken for videos."""

_DAMAGED = 25
"""Frames in a row that can't be read, after which a video counts as ended."""

FALLBACK_FPS = 25.0
"""Of a file that says nothing usable."""

_LONGEST_GAP_S = 3600.0
"""Time stamps further apart count as damage."""

_HEADER_BYTES = 1 << 23
"""How much of a file's beginning, and of its end, is searched for the name of its codec."""

_BITMAP = rb"..\0\0..\0\0.{4}\x01\0[^\0]\0([!-~][ -~]{3})"  # BITMAPINFOHEADER
_MATROSKA = b"\x86(" + b"|".join(b"%cV_[\\w/]{%d}" % (128 + length, length - 2) for length in range(4, 64)) + b")"
_CODECS = (
    (rb"hdlr.{8}vide", rb"stsd.{12}([!-~][ -~]{3})"),  # MP4, MOV
    (rb"V_MS/VFW/FOURCC", _BITMAP),  # Matroska that holds what AVI would
    (rb"^\x1aE\xdf\xa3", _MATROSKA),  # Matroska, WebM
    (rb"^RIFF.{4}AVI ", rb"strf.{4}" + _BITMAP),
    (rb"\xc0\xef\x19\xbc\x4d\x5b\xcf\x11", _BITMAP),  # WMV, ASF
)
"""What a container's video track begins with, and behind it the codec's name."""

_FLV_CODECS = {
    2: "FLV1",
    3: "Screen Video",
    4: "VP6",
    5: "VP6 with alpha",
    6: "Screen Video 2",
    7: "H.264",
    12: "H.265",
}
_TS_CODECS = {
    **{0x01: "MPEG-1", 0x02: "MPEG-2", 0x10: "MPEG-4", 0x1B: "H.264", 0x21: "JPEG 2000", 0x24: "H.265", 0x33: "H.266"},
    **{0x42: "AVS", 0xD1: "Dirac", 0xD2: "AVS2", 0xD4: "AVS3", 0xEA: "VC-1"},
}
"""The numbers that stand for codecs in an FLV's video tags, and in the table of a transport stream's parts."""

_TIMEOUT_MS = 10_000
"""Milliseconds without a frame after which a stream counts as ended."""


def read_video(source: str | Path | int) -> Iterator[tuple[float, ImageArray]]:
    """The frames of a video, one after the other, to the end.

    Args:
        source: A video file, an address of a stream (``rtsp://``, ``http://``, ...) or the number of a camera.

    Yields:
        When the frame is due, in seconds: into the file, or on some clock when it came; and the frame,
        ``(height, width, 3)`` uint8, RGB. Damaged frames are skipped.

    Raises:
        SourceError: It is missing, not a video, damaged, or no stream or camera that can be opened.
    """
    import cv2

    capture, name = _open(source)
    clock = time.monotonic
    if isinstance(name, Path):
        clock = file_clock(capture, 1 / (usable_fps(capture.get(cv2.CAP_PROP_FPS)) or FALLBACK_FPS))
    damaged = count = 0
    try:
        while damaged < _DAMAGED:
            if capture.grab() and (frame := retrieve_frame(capture)) is not None:
                damaged, count = 0, count + 1
                yield clock(), frame
            else:
                damaged += 1
    finally:
        capture.release()
    if count == 0:
        raise no_frame(name)


def usable_fps(value: float | None, least: float = 0.01) -> float | None:
    """A plausible frame rate, ``least..480`` frames a second; else None.

    Streams and cameras that don't know theirs report 0, 1000 or 90000.
    """
    return float(value) if value is not None and least <= value <= 480 else None


def file_clock(capture: Any, interval: float, *, stamps: bool = True) -> Callable[[], float]:
    """Gives, for each frame once it is grabbed, the seconds into the file.

    Its own time stamps are taken as long as they make sense, some formats having none; else, or without ``stamps``,
    it's ``interval`` later than the frame before.
    """
    import cv2

    position: float | None = None

    def seconds() -> float:
        nonlocal position
        stamp = capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3
        if position is None:
            position = 0.0
        elif stamps and position < stamp < position + _LONGEST_GAP_S:
            position = stamp
        else:
            position += interval
        return position

    return seconds


def no_frame(source: Path | str) -> SourceError:
    """The error about a video that opens, and of which no frame can be decoded; a ``str`` is a stream or camera."""
    if isinstance(source, str):
        return SourceError(f"{source} opens, but gives no frame that can be decoded; check its settings")
    reason = _undecodable(source) or "has no frame that can be decoded; copy or download it again"
    return SourceError(f"{printable(str(source))} {reason}")


def _undecodable(path: Path) -> str | None:
    """Which codec a file's header names, and how to convert it; None where none is found."""
    try:
        with path.open("rb") as file:
            data = file.read(_HEADER_BYTES)
            file.seek(max(len(data), path.stat().st_size - _HEADER_BYTES))
            data += file.read(_HEADER_BYTES)  # MP4's header is often its last part
    except OSError:
        return None
    codec = _codec_named_in(data)
    if codec in ("encv", "drmi"):
        return "is encrypted (DRM); use a copy without protection"
    if codec is None:
        return None
    command = shlex.join(["ffmpeg", "-i", str(path), "-c:v", "libx264", f"{path.with_suffix('')}_h264.mp4"])
    return (
        f"has no frame that can be decoded: this OpenCV lacks its codec, {codec}, or the file is damaged; "
        f"convert it with {printable(command)} or copy it again"
    )


def _codec_named_in(data: bytes) -> str | None:
    for track, name in _CODECS:
        begin = re.search(track, data, re.DOTALL)
        if begin and (found := re.compile(name, re.DOTALL).search(data, begin.end())):
            return found[1].decode("ascii", "ignore").strip()  # without Matroska's byte of length
    return _codec_of_flv(data) if data.startswith(b"FLV\1") else _codec_of_transport_stream(data)


def _codec_of_flv(data: bytes) -> str | None:
    """Of the first video tag: a number, or four letters behind a byte that is 128 or more."""
    at = 13
    while data[at : at + 1] in (b"\x08", b"\x12"):  # sound, or a script
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    if data[at : at + 1] != b"\x09" or len(data) < at + 16:
        return None
    kind = data[at + 11]
    return (
        printable(data[at + 12 : at + 16].decode("latin-1"))
        if kind & 128
        else _FLV_CODECS.get(kind & 15, f"number {kind & 15}")
    )


def _codec_of_transport_stream(data: bytes) -> str | None:
    """Of the first part with pictures in the programme's table (ISO 13818-1, section 2.4.4.8)."""
    table = re.search(rb"G[@-_].[\x10-\x1f]\0\x02[\xb0-\xb3](.).{7}[\xf0-\xf3](.)", data, re.DOTALL)
    if table is None:
        return None
    at, end = table.end() + table[2][0], table.end() + table[1][0] - 13
    while at < end:
        if data[at] in _TS_CODECS:
            return _TS_CODECS[data[at]]
        at += 5 + data[at + 4]
    return None


def open_video(path: Path) -> Any:
    """OpenCV's capture of a video file.

    Raises:
        SourceError: It is missing, not a video, or damaged.
    """
    head = check_video_file(path)
    if not is_utf8(path):
        raise SourceError(f"{path.name!r} is not UTF-8, and OpenCV can't open such a name; rename the file")
    import cv2

    capture = _capture(str(path), cv2.CAP_FFMPEG) or _capture(str(path))  # the second for an OpenCV without FFmpeg
    if capture is None:
        raise SourceError(f"{path} {_undecodable(path) or _not_a_video(head)}")
    check_frame_size(capture, str(path))
    return capture


def check_frame_size(capture: Any, name: str) -> None:
    """Make sure, before a frame is decoded, that it has no more pixels than an image may have.

    Raises:
        SourceError: It has; the capture is closed then.
    """
    import cv2

    from mobiledet.data.image_headers import check_pixels  # here: it loads NumPy, which help and lists do without

    height, width = (max(1, int(capture.get(side))) for side in (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH))
    try:
        check_pixels(name, (height, width))
    except ImageError as error:
        capture.release()
        raise SourceError(str(error)) from None


def is_utf8(path: Path) -> bool:
    """Whether a file's name can be given to OpenCV, which crashes on one that isn't UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def retrieve_frame(capture: Any) -> ImageArray | None:
    """The frame that was grabbed, ``(height, width, 3)`` uint8 RGB; None if it can't be decoded."""
    import cv2

    done, image = capture.retrieve()
    if not done or image is None or image.size == 0:
        return None
    rgb: ImageArray = cv2.cvtColor(image, cv2.COLOR_BGR2RGB if image.ndim == 3 else cv2.COLOR_GRAY2RGB)
    return rgb


def _open(source: str | Path | int) -> tuple[Any, Path | str]:
    """OpenCV's capture of a source, and the file's path or the name of a stream or camera."""
    import cv2

    if isinstance(source, int):
        capture, name = _capture(source), f"the camera {source}"
    elif isinstance(source, str) and is_address(source):
        address = parse_address(source)
        timeouts = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, _TIMEOUT_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, _TIMEOUT_MS]
        capture, name = _capture(source, cv2.CAP_FFMPEG, timeouts), f"the stream {address.shown}"
    else:
        path = file_path(source)
        return open_video(path), path
    if capture is None:
        raise SourceError(f"{name} can't be opened; correct it, or check that it is on")
    check_frame_size(capture, name)
    return capture, name


def _capture(*arguments: Any) -> Any:
    """What `cv2.VideoCapture` opens, without its messages on the screen; None where it can't."""
    # FFmpeg writes to the user's screen, unless this is set before it is loaded.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    logging_module = getattr(getattr(cv2, "utils", None), "logging", None)
    level = None if logging_module is None else logging_module.setLogLevel(logging_module.LOG_LEVEL_SILENT)
    try:
        capture = cv2.VideoCapture(*arguments)
        return capture if capture.isOpened() else None
    except cv2.error:
        return None
    finally:
        if logging_module is not None:
            logging_module.setLogLevel(level)


def check_video_file(path: Path) -> bytes:
    """Make sure that a path is a file that isn't empty: its first 512 bytes.

    Raises:
        SourceError: It is missing, empty, not an ordinary file, or may not be read.
    """
    try:
        if path.exists() and not path.is_file():
            kind = "a pipe" if path.is_fifo() else "not an ordinary file"
            raise SourceError(f"{path} is {kind}; name a video, an image or a folder of images")
        with path.open("rb") as file:
            head = file.read(512)
    except FileNotFoundError:
        raise SourceError(f"{path} doesn't exist; correct the name") from None
    except PermissionError:
        raise SourceError(f"{path} may not be read; give yourself permission (chmod u+r)") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SourceError(f"{shorten(str(path), 200)} can't be read: {reason}; correct the name") from None
    if not head:
        raise SourceError(f"{path} is empty (0 bytes); copy or download it again")
    return head


def _not_a_video(head: bytes) -> str:
    if head.startswith(b"version https://git-lfs"):
        return "is a pointer to a video, not the video; fetch it with `git lfs pull`"
    if all(byte >= 32 or byte in b"\t\r\n\f" for byte in head):
        return f"is text, not a video or an image: it starts with {head[:24]!r}; name a video file"
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free") or head.startswith((b"RIFF", b"\x1aE\xdf\xa3")):
        return "can't be opened as a video: it is cut short, damaged, has no frames, or its format is unknown to OpenCV"
    return f"is not a video or an image that OpenCV can read: it starts with {head[:16]!r}; copy it again or convert it"

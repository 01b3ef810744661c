"""What the bytes of an image file say before anything is decoded: its format, size, rotation, and end."""

from __future__ import annotations

import io
import os
import struct
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledet.errors import ConfigError, ImageError, ImageFault
from mobiledet.structures import Size

if TYPE_CHECKING:
    import PIL.Image

EXTENSIONS = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".mpo", ".png", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif"}
    | {".avif", ".heic", ".heif", ".hif", ".jp2", ".ppm", ".pgm", ".pbm", ".pnm"}
)
"""Lower-case endings of the files that are taken for images; their content decides what they are."""

UNREAD_EXTENSIONS = frozenset(
    {".jxl", ".psd", ".xcf", ".svg", ".ico", ".tga", ".exr", ".hdr", ".eps", ".dng", ".cr2", ".cr3", ".nef", ".arw"}
    | {".orf", ".raf", ".rw2", ".raw"}
)
"""Endings of images that are not read: where a folder is searched they are counted and named."""

MAX_PIXELS = 178_956_970
"""Pixels from which on an image is refused, unless the variable `MAX_PIXELS_VARIABLE` says another number."""

MAX_PIXELS_VARIABLE = "MOBILEDET_MAX_PIXELS"

BROKEN = "copy or download it again, or take it out of the data"
"""The remedy for a damaged image, as error messages end."""

_STARTS = {
    b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF",
    b"GIF87a": "GIF", b"GIF89a": "GIF", b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
}  # fmt: skip
_BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIF", b"heix": "HEIF", b"hevc": "HEIF", b"mif1": "HEIF"}
_EXIF_MARKS = {"JPEG": b"Exif", "PNG": b"eXIf", "WEBP": b"EXIF", "AVIF": b""}
"""Formats whose EXIF rotation counts, with what a file that has some holds. HEIC is turned by its decoder."""

_ORIENTATION_TAG = 0x0112
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""PNG's last chunk, which holds nothing, with its checksum."""

_warning_filters = threading.Lock()  # warnings.catch_warnings swaps state shared by all threads


def image_format(data: bytes) -> str | None:
    """The format of an image file as Pillow calls it, by its first bytes; None if they aren't one's."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        brands = {data[at : at + 4] for at in (8, *range(16, min(int.from_bytes(data[:4], "big"), 64), 4))}
        return next((kind for brand, kind in _BRANDS.items() if brand in brands), None)
    if data[:1] == b"P" and data[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6") and data[2:3].isspace():
        return "PPM"
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)


def size_in_header(kind: str, data: bytes) -> Size | None:
    """``(height, width)`` as a JPEG, PNG, BMP or WebP states it; None for other formats, and where it is cut off."""
    try:
        if kind == "JPEG":
            return _walk_jpeg(data)[0]
        if kind == "PNG":
            width, height = struct.unpack(">II", data[16:24])
        elif kind == "BMP":
            old = data[14:18] == b"\x0c\0\0\0"
            width, height = struct.unpack("<HH" if old else "<ii", data[18:22] if old else data[18:26])
        elif kind == "WEBP" and data[12:16] == b"VP8X":
            width, height = (int.from_bytes(data[at : at + 3], "little") + 1 for at in (24, 27))
        elif kind == "WEBP" and data[12:16] == b"VP8L":
            bits = int.from_bytes(data[21:25], "little")
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif kind == "WEBP":
            width, height = (side & 0x3FFF for side in struct.unpack("<HH", data[26:30]))
        else:
            return None
    except struct.error:
        return None
    return abs(height), abs(width)


def is_whole(kind: str, data: bytes) -> bool:
    """Whether a JPEG or PNG reaches its own end; other formats say nothing of it."""
    if kind == "JPEG":
        # Entropy-coded data stuffs each ff with 00, so ff d9 after the start of scan is the end of the image. Before
        # it, an embedded thumbnail has an end of its own; after it, cameras append what they like.
        scan = _walk_jpeg(data)[1]
        return scan is not None and data.find(b"\xff\xd9", scan) >= 0
    return kind != "PNG" or _PNG_END in data


def jpeg_endings(data: bytes) -> list[bytes]:
    """A JPEG that lacks its end marker, ended in several ways, the plain one first; empty where it has no pixels.

    The others have bytes before the marker. A decoder that has all pixels skips them; where some are missing it takes
    them from there, and the images differ.
    """
    body = data.rstrip(b"\0")  # what a download wrote ahead of itself
    if body.endswith(b"\xff"):  # a stuffed byte, or the first of the marker's two
        body = body[:-1] if len(body) == len(data) else body + b"\0"
    scan = _walk_jpeg(body)[1]
    if scan is None or scan >= len(body):
        return []
    return [body + filling * 64 + b"\xff\xd9" for filling in (b"", b"\0", b"\x55", b"\xaa")]


def _walk_jpeg(data: bytes) -> tuple[Size | None, int | None]:
    """The size in a JPEG's frame header and where its first scan begins; None for what isn't there."""
    size: Size | None = None
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and size is None and position + 9 <= len(data):
            height, width = struct.unpack(">HH", data[position + 5 : position + 9])
            size = height, width
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # the start of scan
            return size, position
    return size, None


def open_with_pillow(data: bytes, kind: str) -> PIL.Image.Image:
    """Pillow's image, not decoded yet; KeyError for a format that this Pillow doesn't know.

    By the format's own opener: `Image.open` has a limit that can't be set without changing it for the whole program.
    """
    from PIL import Image

    if kind == "HEIF":
        with suppress(ImportError):
            from pillow_heif import register_heif_opener

            register_heif_opener()
    Image.preinit()
    if kind not in Image.OPEN:
        Image.init()
    with _quiet():
        return Image.OPEN[kind][0](io.BytesIO(data), "")


def stored_orientation(data: bytes) -> int:
    """EXIF orientation of an image file's content; 1 when it is absent, invalid or for a format that is upright."""
    kind = image_format(data) or ""
    # Most files have no such block, and needn't be opened for it.
    if kind not in _EXIF_MARKS or _EXIF_MARKS[kind] not in data:
        return 1
    try:
        with open_with_pillow(data, kind) as image:
            if kind == "PNG":
                image.load()  # the block may stand behind the pixels
            return orientation_in(image.info)
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
        return 1


def orientation_in(info: Mapping[Any, Any]) -> int:
    """EXIF orientation in what Pillow says of a file; 1 when it is absent or invalid."""
    from PIL import Image

    try:
        with _quiet():
            exif = Image.Exif()
            exif.load(info.get("exif", b""))
            value = exif.get(_ORIENTATION_TAG)
    except Exception:  # as above
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's warnings of odd EXIF blocks."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def max_pixels() -> int:
    """The largest number of pixels of an image that is decoded: `MAX_PIXELS`, or what the environment says.

    Raises:
        ConfigError: The environment says something else than a number of 1 or more.
    """
    text = os.environ.get(MAX_PIXELS_VARIABLE, "").strip()
    if not text:
        return MAX_PIXELS
    if not (text.isdecimal() and int(text)):
        raise ConfigError(
            f"{MAX_PIXELS_VARIABLE}={text!r:.40} is not a number of pixels; write {MAX_PIXELS}, or unset it"
        )
    return int(text)


def check_pixels(name: str | Path, size: Size) -> None:
    """Refuse an image that would take too much memory; a few bytes can ask for gigabytes.

    Raises:
        ImageError: It has more than `max_pixels`, or none.
    """
    height, width = size
    if height * width > max_pixels():
        raise ImageError(
            f"{name} has {width} x {height} pixels, more than {max_pixels():,} in all; scale it down, or allow as "
            f"many by setting {MAX_PIXELS_VARIABLE}={height * width}",
            ImageFault.TOO_LARGE,
        )
    if height < 1 or width < 1:
        raise ImageError(f"{name} has {width} x {height} pixels; {BROKEN}")

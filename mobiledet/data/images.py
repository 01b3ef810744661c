"""Reading pictures: JPEG, PNG, BMP, WebP and TIFF.

A training loop must not be fed half a picture: depending on its version, OpenCV decodes a JPEG that was cut short to
a picture with a grey bottom and says nothing. So the container is checked before it is decoded. Rotation by EXIF is
done here rather than by OpenCV or Pillow, so that reading and verifying (`mobiledet.data.verification`) agree whatever
their versions. (Both always turn TIFF files upright; here those count as upright.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mobiledet.errors import ImageError
from mobiledet.structures import ImageArray, Size

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Lower-case endings of the files that `find_images` takes for pictures."""

BROKEN = "copy or download it again, or take it out of the data"
"""The remedy for a damaged picture, as error messages end."""


@dataclass(frozen=True)
class ImageInfo:
    """What a picture file says about itself.

    Attributes:
        height: rows of pixels as stored, before any rotation.
        width: columns of pixels as stored.
        orientation: EXIF orientation in ``1..8``; 1, upright, when absent or invalid.
    """

    height: int
    width: int
    orientation: int = 1

    @property
    def upright_size(self) -> Size:
        """``(height, width)`` once the EXIF rotation has been applied."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_image(path: str | Path, *, apply_orientation: bool = True) -> ImageArray:
    """Read a picture of any bit depth, grey, palette or with alpha (which is dropped) as RGB.

    Args:
        path: a file; its content decides the format, not its ending.
        apply_orientation: turn the picture upright as its EXIF data says.

    Returns:
        ``(height, width, 3)`` uint8, RGB.

    Raises:
        ImageError: the file is missing, unreadable, not a picture or cut short.
    """
    import cv2  # here, so that naming this module's types doesn't load OpenCV

    data = read_bytes(path)
    check_container(path, data)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"{path} can't be decoded: {error.err}; {BROKEN}") from error
    if bgr is None:
        raise ImageError(
            f"{path} can't be decoded: its content is damaged, or of a kind that OpenCV can't read; {BROKEN}"
        )
    rgb: ImageArray = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return _turn_upright(rgb, stored_orientation(data)) if apply_orientation else rgb


def find_images(paths: Sequence[Path]) -> list[Path]:
    """The pictures meant by a list of files and folders.

    Args:
        paths: files are taken as they are; folders are searched, with their subfolders, in sorted order.

    Raises:
        ImageError: a path doesn't exist, or a folder holds no picture.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            inside = [p for p in inside if not p.name.startswith(".")]  # macOS leaves ._name.jpg beside name.jpg
            if not inside:
                raise ImageError(f"{path} holds no picture; files ending in {', '.join(sorted(EXTENSIONS))} count")
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ImageError(f"{path} doesn't exist; name a picture or a folder of pictures")
    return found


def read_bytes(path: str | Path) -> bytes:
    """The content of a picture file, whatever it holds.

    Raises:
        ImageError: it is missing, a folder, empty or can't be read.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ImageError(f"{path} doesn't exist; correct the name or put the picture there") from error
    except IsADirectoryError as error:
        raise ImageError(f"{path} is a folder; name a picture in it") from error
    except PermissionError as error:
        if Path(path).is_dir():  # what opening a folder gives on Windows
            raise ImageError(f"{path} is a folder; name a picture in it") from error
        raise ImageError(f"{path} may not be read; give yourself permission (chmod u+r)") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{path} can't be read: {error}; correct the name") from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes); {BROKEN}")
    return data


def check_container(path: str | Path, data: bytes) -> str:
    """Make sure that a file is a picture and reaches its own end.

    Args:
        path: its name, for the error.
        data: its content.

    Returns:
        The format as Pillow calls it.

    Raises:
        ImageError: it is no picture, or cut short.
    """
    kind = image_format(data)
    if kind is None:
        hint = BROKEN
        if data.startswith(b"version https://git-lfs"):
            hint = "fetch the real file with `git lfs pull`"
        elif data.startswith((b"GIF8", b"%PDF")) or data[4:8] == b"ftyp":  # HEIC and AVIF, as telephones write them
            hint = "save it as one of these"
        raise ImageError(f"{path} is not a JPEG, PNG, BMP, WebP or TIFF: it starts with {data[:24]!r}; {hint}")
    if (kind == "JPEG" and not _jpeg_ends(data)) or (kind == "PNG" and not _png_ends(data)):
        raise ImageError(f"{path} is cut short: the {kind} has no end after {len(data)} bytes; {BROKEN}")
    return kind


def image_format(data: bytes) -> str | None:
    """The format of an image file as Pillow calls it, by its first bytes; None if they aren't one's."""
    starts = {
        b"\xff\xd8\xff": "JPEG",
        b"\x89PNG\r\n\x1a\n": "PNG",
        b"BM": "BMP",
        b"II*\0": "TIFF",
        b"MM\0*": "TIFF",
    }
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for start, kind in starts.items() if data.startswith(start)), None)


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """``(marker, start, end)`` of each segment's payload up to and with the start of scan."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        yield marker, position + 4, end
        if marker == 0xDA:
            return
        position = end


def _jpeg_ends(data: bytes) -> bool:
    # Entropy-coded data stuffs each ff with 00, so ff d9 after the start of scan is the end of the picture. Before
    # it, an embedded thumbnail has an end of its own; after it, cameras append what they like.
    scan = next((end for marker, _, end in _jpeg_segments(data) if marker == 0xDA), None)
    return scan is not None and data.find(b"\xff\xd9", scan) >= 0


def _chunks(data: bytes, order: Literal["big", "little"]) -> Iterator[tuple[bytes, int, int]]:
    """``(name, start, end)`` of the payload of each complete chunk: PNG's are big-endian, WebP's little-endian."""
    position = 8 if order == "big" else 12
    while position + 8 <= len(data):
        head = data[position : position + 8]
        name, size = (head[4:], head[:4]) if order == "big" else (head[:4], head[4:])
        start, end = position + 8, position + 8 + int.from_bytes(size, order)
        position = end + 4 if order == "big" else end + end % 2  # a checksum; padding to even
        if position > len(data):
            return
        yield name, start, end


def _png_ends(data: bytes) -> bool:
    return any(name == b"IEND" for name, _, _ in _chunks(data, "big"))


def stored_orientation(data: bytes) -> int:
    """EXIF orientation of a JPEG, PNG or WebP; 1 when it is absent, invalid or for another format."""
    kind = image_format(data)
    blocks: list[bytes] = []
    if kind == "JPEG":
        blocks = [data[start:end] for marker, start, end in _jpeg_segments(data) if marker == 0xE1]
        blocks = [block[6:] for block in blocks if block.startswith(b"Exif\0\0")]
    elif kind == "PNG":
        blocks = [data[start:end] for name, start, end in _chunks(data, "big") if name == b"eXIf"]
    elif kind == "WEBP":
        blocks = [data[start:end] for name, start, end in _chunks(data, "little") if name == b"EXIF"]
        blocks = [block.removeprefix(b"Exif\0\0") for block in blocks]
    return _orientation_tag(blocks[0]) if blocks else 1


def _orientation_tag(exif: bytes) -> int:
    # TIFF 6.0: byte order, 42, offset of the first directory: a count, then entries of 12 bytes (tag, type, count,
    # value). Orientation is tag 0x0112, of type SHORT (3); some writers use LONG (4).
    order: Literal["big", "little"] = "little" if exif[:4] == b"II*\0" else "big"
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1

    def number(at: int, size: int) -> int:
        return int.from_bytes(exif[at : at + size], order)

    directory = number(4, 4)
    for entry in range(directory + 2, min(directory + 2 + 12 * number(directory, 2), len(exif) - 11), 12):
        if number(entry, 2) == 0x0112:
            value = number(entry + 8, {3: 2, 4: 4}.get(number(entry + 2, 2), 0))
            return value if 1 <= value <= 8 else 1
    return 1


def _turn_upright(image: ImageArray, orientation: int) -> ImageArray:
    """Undo an EXIF orientation (CIPA DC-008: which corner of the scene the first row and column show)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    # After the transposition 5..8 are left with the flips none, horizontal, both, vertical; 1..4 are these already.
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return np.ascontiguousarray(image[rows, columns])

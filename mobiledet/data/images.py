"""Reading and verifying pictures: JPEG, PNG, BMP, WebP and TIFF.

A training loop must not meet a broken picture in epoch 3, and must not be fed half of one either: depending on its
version, OpenCV decodes a JPEG that was cut short to a picture with a grey bottom and says nothing. So the container
is checked before it is decoded. Rotation by EXIF is done here rather than by OpenCV or Pillow, so that reading and
verifying agree whatever their versions. (Both always turn TIFF files upright; here those count as upright.)
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from mobiledet.errors import ImageError, MissingDependencyError
from mobiledet.structures import ImageArray, Size

logger = logging.getLogger(__name__)

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Lower-case endings of the files that `find_images` takes for pictures."""

_BROKEN = "copy or download it again, or take it out of the data"
_CACHE_VERSION = 1
_CHUNK = 16  # pictures handed to a thread at a time
_warning_filters = threading.Lock()  # warnings.catch_warnings swaps state shared by all threads


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


_Found: TypeAlias = ImageInfo | ImageError
_Verified: TypeAlias = Generator[tuple[int, _Found], None, None]
_Cache: TypeAlias = dict[str, tuple[int, int, int, int, int]]  # path -> bytes, mtime_ns, height, width, orientation


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

    data = _read_bytes(path)
    _check_container(path, data)
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error as error:
        raise ImageError(f"{path} can't be decoded: {error.err}; {_BROKEN}") from error
    if bgr is None:
        raise ImageError(f"{path} can't be decoded: its content is damaged; {_BROKEN}")
    rgb: ImageArray = cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)
    return _turn_upright(rgb, _orientation(data)) if apply_orientation else rgb


def verify_image(path: str | Path) -> ImageInfo:
    """Decode the whole of a picture, as cheaply as that goes, to know that it can be read.

    Raises:
        ImageError: as `read_image`, and for pictures of more than about 179 million pixels.
        MissingDependencyError: Pillow isn't installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError("checking pictures needs Pillow: pip install 'mobiledet[train]'") from error

    data = _read_bytes(path)
    kind = _check_container(path, data)
    try:
        with _warning_filters, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large but bearable sizes, odd EXIF blocks
            image = Image.open(io.BytesIO(data), formats=[kind])
        with image:
            width, height = image.size
            image.draft("L", (1, 1))  # JPEG: reads all entropy-coded data, but rebuilds 1/64 of the pixels
            image.load()
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has more pixels than can be trained on: {error}; scale it down") from error
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"{path} can't be decoded: {error}; {_BROKEN}") from error
    return ImageInfo(height, width, _orientation(data))


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


def verify_images(paths: Sequence[Path], folder: Path, *, progress: bool = False) -> list[_Found]:
    """`verify_image` for many pictures at once, remembering what was fine the last time.

    Pictures found good are noted, with size and time of change, in a file below ``$MOBILEDET_CACHE`` (or
    ``~/.cache/mobiledet``); they are decoded again only once they have changed. Notes that can't be read or
    written cost time, nothing else.

    Args:
        paths: the pictures.
        folder: where they lie; pictures of one folder share one cache file.
        progress: show a bar, if standard error is a terminal.

    Returns:
        For each path what was found, or the error.
    """
    cache_file = _cache_file(folder)
    cache = _load_cache(cache_file)
    keys = [os.path.abspath(path) for path in paths]  # noqa: PTH100 -- a third of the time of Path.absolute
    results: list[_Found | None] = [None] * len(keys)
    stamps: list[tuple[int, int]] = []
    todo: list[int] = []
    for i, key in enumerate(keys):
        try:
            stat = os.stat(key)  # noqa: PTH116
            stamps.append((stat.st_size, stat.st_mtime_ns))
        except (OSError, ValueError):
            stamps.append((-1, -1))  # verify_image will say what is wrong
        known = cache.get(key)
        if known is not None and (known[0], known[1]) == stamps[i]:
            results[i] = ImageInfo(*known[2:])
        else:
            todo.append(i)

    def verify(i: int) -> _Found:
        try:
            return verify_image(keys[i])
        except ImageError as error:
            return error

    try:
        with closing(_in_threads(verify, todo)) as verified:
            for i, result in _with_bar(verified, len(todo)) if progress and sys.stderr.isatty() else verified:
                results[i] = result
                if isinstance(result, ImageInfo):
                    cache[keys[i]] = (*stamps[i], result.height, result.width, result.orientation)
    finally:  # also when interrupted: the next start goes on from here
        if todo:
            _save_cache(cache_file, cache)
    return [result for result in results if result is not None]


def _in_threads(function: Callable[[int], _Found], todo: list[int]) -> _Verified:
    """Results in order. When the caller stops early, threads finish the picture they are at and no more."""
    stop = threading.Event()

    def work(chunk: list[int]) -> list[_Found]:
        return [function(i) for i in chunk if not stop.is_set()]

    chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="verify")
    try:
        for chunk, results in zip(chunks, pool.map(work, chunks), strict=True):
            yield from zip(chunk, results, strict=True)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _with_bar(verified: _Verified, total: int) -> Iterable[tuple[int, _Found]]:
    try:
        from tqdm import tqdm
    except ImportError:
        return verified
    bar: Iterable[tuple[int, _Found]] = tqdm(verified, total=total, desc="checking pictures", leave=False)
    return bar


def _cache_file(folder: Path) -> Path | None:
    try:
        base = Path(os.environ.get("MOBILEDET_CACHE") or Path.home() / ".cache" / "mobiledet")
    except RuntimeError:  # no home folder
        return None
    return base / f"pictures-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.json"


def _load_cache(file: Path | None) -> _Cache:
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        stored = json.loads(file.read_text("utf-8")) if file else {}
        if stored["version"] == _CACHE_VERSION:
            return {key: tuple(note) for key, note in stored["pictures"].items() if _is_note(note)}
    return {}


def _is_note(note: object) -> bool:
    if not isinstance(note, list) or len(note) != 5 or any(type(value) is not int for value in note):
        return False
    size, _, height, width, orientation = note
    return bool(size > 0 and height > 0 and width > 0 and 1 <= orientation <= 8)


def _save_cache(file: Path | None, cache: _Cache) -> None:
    if file is None:
        return
    temporary = ""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=file.stem, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump({"version": _CACHE_VERSION, "pictures": cache}, stream)
        Path(temporary).replace(file)
    except OSError as error:
        logger.debug("the notes about checked pictures were not kept: %s", error)
        with suppress(OSError):
            Path(temporary).unlink()


def _read_bytes(path: str | Path) -> bytes:
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
        raise ImageError(f"{path} is empty (0 bytes); {_BROKEN}")
    return data


def _check_container(path: str | Path, data: bytes) -> str:
    """The format's name, once the file is known to reach its own end."""
    kind = _kind(data)
    if kind is None:
        hint = "fetch the real file with `git lfs pull`" if data.startswith(b"version https://git-lfs") else _BROKEN
        raise ImageError(f"{path} is not a JPEG, PNG, BMP, WebP or TIFF: it starts with {data[:24]!r}; {hint}")
    if (kind == "JPEG" and not _jpeg_ends(data)) or (kind == "PNG" and not _png_ends(data)):
        raise ImageError(f"{path} is cut short: the {kind} has no end after {len(data)} bytes; {_BROKEN}")
    return kind


def _kind(data: bytes) -> str | None:
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


def _orientation(data: bytes) -> int:
    """EXIF orientation of a JPEG, PNG or WebP; 1 when it is absent, invalid or for another format."""
    kind = _kind(data)
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

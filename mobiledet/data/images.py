"""Reading and verifying images: JPEG, PNG, BMP, WebP and TIFF.

A training loop must not be fed half an image: depending on its version, OpenCV decodes a truncated JPEG to an image
with a grey bottom and says nothing. So the end of the file is checked before it is decoded, and before training every
image is decoded whole, once; what was found good is remembered, so that the second start is quick.

Rotation by EXIF is done here rather than by OpenCV or Pillow, so that reading and verifying agree whatever their
versions. (Both always turn TIFF files upright; here those count as upright.)
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import threading
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from mobiledet.download.fetch import Remote, fetch_bytes
from mobiledet.errors import ImageError, ImageFault, MobiledetError
from mobiledet.preprocess import check_image
from mobiledet.structures import ImageArray, Size
from mobiledet.utils.files import cache_folder, write_bytes
from mobiledet.utils.progress import progress_bar

if TYPE_CHECKING:
    import PIL.Image

logger = logging.getLogger(__name__)

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".bmp", ".webp", ".tif", ".tiff"})
"""Lower-case endings of the files that `find_images` takes for images."""

ImageSource: TypeAlias = "str | Path | bytes | ImageArray | PIL.Image.Image"
"""An image in any of the usual forms, see `load_image`."""

BROKEN = "copy or download it again, or take it out of the data"
"""The remedy for a damaged image, as error messages end."""

_ORIENTATION_TAG = 0x0112

_STARTS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG", b"BM": "BMP", b"II*\0": "TIFF", b"MM\0*": "TIFF"}
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
"""PNG's last chunk, which holds nothing, with its checksum."""

_CACHE_VERSION = 1
CHUNK = 16  # images handed to a thread at a time
_warning_filters = threading.Lock()  # warnings.catch_warnings swaps state shared by all threads


@dataclass(frozen=True)
class ImageInfo:
    """What an image file says about itself.

    Attributes:
        height: rows of pixels as stored, before any rotation.
        width: columns of pixels as stored.
        orientation: EXIF orientation in ``1..8``; 1, upright, when absent or invalid.
    """

    height: int
    width: int
    orientation: int = 1

    @property
    def stored_size(self) -> Size:
        """``(height, width)`` before any rotation."""
        return self.height, self.width

    @property
    def upright_size(self) -> Size:
        """``(height, width)`` once the EXIF rotation has been applied."""
        return (self.width, self.height) if self.orientation >= 5 else self.stored_size


_Found: TypeAlias = ImageInfo | ImageError
_Verified: TypeAlias = Generator[tuple[int, _Found], None, None]
_Cache: TypeAlias = dict[str, tuple[int, int, int, int, int]]  # path -> bytes, mtime_ns, height, width, orientation


def read_image(path: str | Path, *, apply_orientation: bool = True) -> ImageArray:
    """Read an image of any bit depth, grey, palette or with alpha (which is dropped) as RGB.

    Args:
        path: a file; its content decides the format, not its ending.
        apply_orientation: turn the image upright as its EXIF data says.

    Returns:
        ``(height, width, 3)`` uint8, RGB.

    Raises:
        ImageError: the file is missing, unreadable, not an image or truncated.
    """
    return _decode(path, read_bytes(path), apply_orientation=apply_orientation)


def load_image(source: ImageSource) -> ImageArray:
    """An image in any of the usual forms, as RGB.

    Args:
        source: A path or an http(s) address, the content of a file, a PIL image, or an array ``(H, W, 3)`` uint8 RGB
            (which is given back as it is). Files and PIL images are turned upright as their EXIF data says.

    Returns:
        ``(height, width, 3)`` uint8, RGB.

    Raises:
        ImageError: It is missing, unreadable, not an image or truncated.
        DownloadError: An address can't be fetched.
        ValueError: An array of another shape or type.
    """
    if isinstance(source, bytes):
        source = _opened("the image", source)
    elif isinstance(source, str) and source.startswith(("http://", "https://")):
        source = _opened(Remote(source).address, fetch_bytes(source))
    elif isinstance(source, str | os.PathLike):
        source = _opened(source, read_bytes(source))
    if not isinstance(source, np.ndarray):
        from PIL import Image, ImageOps  # only now: most callers never need it

        if isinstance(source, Image.Image):
            source = np.asarray(ImageOps.exif_transpose(source).convert("RGB"))
    check_image(source)
    return source


def _opened(name: str | Path, data: bytes) -> ImageArray | PIL.Image.Image:
    """An image file's content, by OpenCV; what only Pillow knows (a GIF's first frame, AVIF, its plugins) by that."""
    try:
        return _decode(name, data, apply_orientation=True)
    except ImageError as error:
        if error.fault is not ImageFault.NOT_AN_IMAGE:
            raise
        from PIL import Image

        try:
            return Image.open(io.BytesIO(data))
        except Exception:
            raise error from None


def _decode(path: str | Path, data: bytes, *, apply_orientation: bool) -> ImageArray:
    import cv2  # here, so that naming this module's types doesn't load OpenCV

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
    """The images meant by a list of files and folders.

    Args:
        paths: files are taken as they are; folders are searched, with their subfolders, in sorted order.

    Raises:
        ImageError: a path doesn't exist, or a folder holds no image.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS and p.is_file())
            inside = [p for p in files if not p.name.startswith(".")]  # macOS leaves ._name.jpg beside name.jpg
            if not inside:
                raise ImageError(
                    f"{path} holds no image; files ending in {', '.join(sorted(EXTENSIONS))} count", ImageFault.MISSING
                )
            found += inside
        elif path.exists():
            found.append(path)
        else:
            raise ImageError(f"{path} doesn't exist; name an image or a folder of images", ImageFault.MISSING)
    return found


def read_bytes(path: str | Path) -> bytes:
    """The content of an image file, whatever it holds.

    Raises:
        ImageError: it is missing, a folder, empty or can't be read.
    """
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        what = f"{path} doesn't exist; correct the name or put the image there"
        raise ImageError(what, ImageFault.MISSING) from error
    except (OSError, ValueError) as error:
        what = f"can't be read: {error}; correct the name"
        if isinstance(error, (IsADirectoryError, PermissionError)):
            what = "may not be read; give yourself permission (chmod u+r)"
            if Path(path).is_dir():  # which Windows doesn't permit to open
                what = "is a folder; name an image in it"
        raise ImageError(f"{path} {what}", ImageFault.UNREADABLE) from error
    if not data:
        raise ImageError(f"{path} is empty (0 bytes); {BROKEN}")
    return data


def check_container(path: str | Path, data: bytes) -> str:
    """Make sure that a file is an image and reaches its own end.

    Returns:
        The format as Pillow calls it.

    Raises:
        ImageError: it is not an image, or truncated.
    """
    kind = image_format(data)
    if kind is None:
        hint = BROKEN
        if data.startswith(b"version https://git-lfs"):
            hint = "fetch the real file with `git lfs pull`"
        elif data.startswith((b"GIF8", b"%PDF")) or data[4:8] == b"ftyp":  # HEIC and AVIF, as telephones write them
            hint = "save it as one of these"
        raise ImageError(
            f"{path} is not a JPEG, PNG, BMP, WebP or TIFF: it starts with {data[:24]!r}; {hint}",
            ImageFault.NOT_AN_IMAGE,
        )
    if (kind == "JPEG" and not _jpeg_ends(data)) or (kind == "PNG" and _PNG_END not in data):
        raise ImageError(
            f"{path} is truncated: the {kind} has no end after {len(data)} bytes; {BROKEN}", ImageFault.TRUNCATED
        )
    return kind


def image_format(data: bytes) -> str | None:
    """The format of an image file as Pillow calls it, by its first bytes; None if they aren't one's."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return next((kind for start, kind in _STARTS.items() if data.startswith(start)), None)


def _jpeg_ends(data: bytes) -> bool:
    # Entropy-coded data stuffs each ff with 00, so ff d9 after the start of scan is the end of the image. Before
    # it, an embedded thumbnail has an end of its own; after it, cameras append what they like.
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # a fill byte
            position += 1
            continue
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if marker == 0xDA:  # the start of scan
            return data.find(b"\xff\xd9", position) >= 0
    return False


def stored_orientation(data: bytes) -> int:
    """EXIF orientation of a JPEG, PNG or WebP; 1 when it is absent, invalid or for another format."""
    # Most files have no such block, and needn't be opened for it.
    if image_format(data) not in ("JPEG", "PNG", "WEBP") or not any(
        mark in data for mark in (b"Exif", b"eXIf", b"EXIF")
    ):
        return 1
    from PIL import Image

    try:
        with _warning_filters, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # large but bearable sizes, odd EXIF blocks
            image = Image.open(io.BytesIO(data))
        with image:
            if image.format == "PNG":
                image.load()  # the block may stand behind the pixels
            return _orientation_of(image.info)
    except Exception:  # Pillow raises OSError, SyntaxError, ValueError, struct.error, ...
        return 1


def _orientation_of(info: Mapping[Any, Any]) -> int:
    """EXIF orientation in what Pillow says of a file; 1 when it is absent or invalid."""
    from PIL import Image

    try:
        with _warning_filters, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd EXIF blocks
            exif = Image.Exif()
            exif.load(info.get("exif", b""))
            value = exif.get(_ORIENTATION_TAG)
    except Exception:  # as above
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turn_upright(image: ImageArray, orientation: int) -> ImageArray:
    """Undo an EXIF orientation (CIPA DC-008: which corner of the scene the first row and column show)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    # After the transposition 5..8 are left with the flips none, horizontal, both, vertical; 1..4 are these already.
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return np.ascontiguousarray(image[rows, columns])


def verify_image(path: str | Path) -> ImageInfo:
    """Decode the whole of an image, as cheaply as that goes, to know that it can be read.

    Raises:
        ImageError: as `read_image`, and for images of more than about 179 million pixels.
    """
    from PIL import Image

    data = read_bytes(path)
    kind = check_container(path, data)
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
        raise ImageError(f"{path} can't be decoded: {error}; {BROKEN}") from error
    # TIFF counts as upright, BMP has no such block.
    return ImageInfo(height, width, _orientation_of(image.info) if kind in ("JPEG", "PNG", "WEBP") else 1)


def verify_images(paths: Sequence[Path], folder: Path, *, progress: bool = False) -> list[_Found]:
    """`verify_image` for many images at once, remembering what was fine the last time.

    Images found good are noted, with size and time of change, in a file below ``$MOBILEDET_CACHE`` (or
    ``~/.cache/mobiledet``); they are decoded again only once they have changed. Notes that can't be read or
    written cost time, nothing else.

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
            bar = progress_bar(verified, what="checking images", total=len(todo), show=progress and bool(todo))
            for i, result in bar:
                results[i] = result
                if isinstance(result, ImageInfo):
                    cache[keys[i]] = (*stamps[i], result.height, result.width, result.orientation)
    finally:  # also when interrupted: the next start continues from here
        if todo:
            _save_cache(cache_file, cache)
    return [result for result in results if result is not None]


def _in_threads(function: Callable[[int], _Found], todo: list[int]) -> _Verified:
    """Results in order. When the caller stops early, threads finish the image they are at and no more."""
    stop = threading.Event()

    def work(chunk: list[int]) -> list[_Found]:
        return [function(i) for i in chunk if not stop.is_set()]

    chunks = [todo[start : start + CHUNK] for start in range(0, len(todo), CHUNK)]
    pool = ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="verify")
    try:
        for chunk, results in zip(chunks, pool.map(work, chunks), strict=True):
            yield from zip(chunk, results, strict=True)
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def _cache_file(folder: Path) -> Path | None:
    with suppress(MobiledetError):  # no home folder
        return cache_folder() / f"images-{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]}.json"
    return None


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
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, json.dumps({"version": _CACHE_VERSION, "pictures": cache}).encode())
    except (OSError, MobiledetError) as error:
        logger.debug("the notes about checked images were not kept: %s", error)

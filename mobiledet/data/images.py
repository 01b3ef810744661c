"""Reading and verifying images, one way for every tool.

JPEG, PNG, BMP, WebP and TIFF are decoded by OpenCV; what it can't read of them, and GIF (its first frame), AVIF, HEIC
(with the package pillow-heif), JPEG 2000 and PNM, by Pillow. No image is decoded before its size has been looked at.

A training loop must not be fed half an image: depending on its version, OpenCV decodes a truncated JPEG to an image
with a grey bottom and says nothing. So the end of the file is checked before it is decoded, and before training every
image is decoded whole, once; what was found good is remembered, so that the second start is quick.

Rotation by EXIF is done here rather than by OpenCV or Pillow, so that reading and verifying agree whatever their
versions. (Both always turn TIFF files upright; here those count as upright.)
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

import cv2
import numpy as np

from mobiledet.data.image_headers import (
    BROKEN,
    EXTENSIONS,
    UNREAD_EXTENSIONS,
    check_pixels,
    image_format,
    is_whole,
    jpeg_endings,
    max_pixels,
    open_with_pillow,
    orientation_in,
    size_in_header,
    stored_orientation,
)
from mobiledet.download.fetch import Remote, fetch_bytes
from mobiledet.errors import ImageError, ImageFault, MobiledetError
from mobiledet.preprocess import check_image
from mobiledet.structures import ImageArray, Size
from mobiledet.utils.files import cache_folder, write_bytes
from mobiledet.utils.progress import progress_bar
from mobiledet.utils.text import listing

if TYPE_CHECKING:
    import PIL.Image

logger = logging.getLogger(__name__)

ImageSource: TypeAlias = "str | Path | bytes | ImageArray | PIL.Image.Image"
"""An image in any of the usual forms, see `load_image`."""

_OPENCV = frozenset({"JPEG", "PNG", "BMP", "WEBP", "TIFF"})
_NEEDS = {
    "HEIF": "HEIC, which is read with the package pillow-heif (pip install pillow-heif)",
    "AVIF": "AVIF, which is read with Pillow 11.3 or newer",
}

_CACHE_VERSION = 2
CHUNK = 16  # images handed to a thread at a time


@dataclass(frozen=True)
class ImageInfo:
    """What an image file says about itself.

    Attributes:
        height: rows of pixels as stored, before any rotation.
        width: columns of pixels as stored.
        orientation: EXIF orientation in ``1..8``; 1, upright, when absent or invalid.
        mended: whether it is a JPEG that lacks its end marker, and nothing else.
    """

    height: int
    width: int
    orientation: int = 1
    mended: bool = False

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
_Cache: TypeAlias = dict[str, tuple[int, int, int, int, int, int]]
"""Path -> bytes, mtime_ns, height, width, orientation, mended."""


def read_image(path: str | Path, *, apply_orientation: bool = True) -> ImageArray:
    """Read an image of any bit depth, grey, palette or with alpha (which is dropped) as RGB.

    Args:
        path: a file; its content decides the format, not its ending.
        apply_orientation: turn the image upright as its EXIF data says.

    Returns:
        ``(height, width, 3)`` uint8, RGB.

    Raises:
        ImageError: the file is missing, unreadable, not an image, truncated or too large.
    """
    return decode_image(path, read_bytes(path), apply_orientation=apply_orientation)


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
        return _decode_and_report("the image", source)
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return _decode_and_report(Remote(source).address, fetch_bytes(source))
    if isinstance(source, str | os.PathLike):
        return _decode_and_report(source, read_bytes(source))
    if not isinstance(source, np.ndarray):
        from PIL import Image, ImageOps  # only now: most callers never need it

        if isinstance(source, Image.Image):
            check_pixels("the image", source.size[::-1])
            return _pillow_pixels(ImageOps.exif_transpose(source), "the image")
    check_image(source)
    return source


def _decode_and_report(name: str | Path, data: bytes) -> ImageArray:
    file = _examine(name, data)
    image = _turn_upright(_pixels(name, file), stored_orientation(data))
    if file.mended:
        logger.warning("%s lacks the JPEG end marker and nothing else; it is read all the same", name)
    return image


def decode_image(name: str | Path, data: bytes, *, apply_orientation: bool = True, shrink: int = 1) -> ImageArray:
    """The pixels of an image file's content.

    Args:
        name: what to call it in messages.
        data: the content; decides the format.
        apply_orientation: turn the image upright as its EXIF data says.
        shrink: 2, 4 or 8 to decode a JPEG at that part of its sides, which is quicker.

    Returns:
        ``(height, width, 3)`` uint8, RGB.

    Raises:
        ImageError: it is not an image, truncated, damaged or too large.
    """
    rgb = _pixels(name, _examine(name, data), shrink)
    return _turn_upright(rgb, stored_orientation(data)) if apply_orientation else rgb


class _File(NamedTuple):
    """An image file: the format as Pillow calls it, the content, whole, whether its end was added, what decodes it."""

    kind: str
    data: bytes
    mended: bool
    opencv: bool


def _examine(name: str | Path, data: bytes) -> _File:
    """Look at all that can be known without decoding, but for a JPEG without its end.

    Raises:
        ImageError: it is not an image, truncated or too large.
    """
    kind = image_format(data)
    if kind is None:
        hint = BROKEN
        if data.startswith(b"version https://git-lfs"):
            hint = "fetch the real file with `git lfs pull`"
        elif data.startswith((b"8BPS", b"%PDF", b"<svg", b"\xff\x0a")) or data[4:8] in (b"ftyp", b"JXL "):
            hint = "save it as one of these"
        raise ImageError(
            f"{name} is not a JPEG, PNG, BMP, WebP, TIFF, GIF, AVIF, HEIC, JPEG 2000 or PNM: it starts with "
            f"{data[:24]!r}; {hint}",
            ImageFault.NOT_AN_IMAGE,
        )
    size, opencv = size_in_header(kind, data), kind in _OPENCV
    if size is None and kind not in ("JPEG", "PNG"):  # which are truncated then
        try:
            with open_with_pillow(data, kind) as image:
                size = image.size[::-1]
                # OpenCV can't read these, and says so on the user's screen each time.
                opencv &= image.mode not in ("I", "F") and image.info.get("compression") not in ("zstd", "lzma")
        except KeyError:
            what = _NEEDS.get(kind, f"{kind}, which this Pillow can't read")
            raise ImageError(f"{name} is {what}; or save it as JPEG or PNG", ImageFault.NOT_AN_IMAGE) from None
        except Exception as error:
            raise ImageError(f"{name} can't be decoded: {error}; {BROKEN}") from error
    if size is not None:
        check_pixels(name, size)
        if is_whole(kind, data):
            return _File(kind, data, False, opencv)
        if kind == "JPEG" and (mended := _with_end(data)):
            return _File(kind, mended, True, opencv)
    raise ImageError(
        f"{name} is truncated: the {kind} has no end after {len(data)} bytes; {BROKEN}", ImageFault.TRUNCATED
    )


def _with_end(data: bytes) -> bytes | None:
    """A JPEG that lacks its end marker, with one; None where more than that is missing."""
    images, endings = [], jpeg_endings(data)
    try:
        for ending in endings:
            with open_with_pillow(ending, "JPEG") as image:  # which says nothing on the user's screen
                images.append(np.asarray(image))
    except Exception:
        return None
    return endings[0] if images and all(np.array_equal(images[0], image) for image in images) else None


def _pixels(name: str | Path, file: _File, shrink: int = 1) -> ImageArray:
    """RGB as stored."""
    rgb = _opencv_pixels(file.data, shrink) if file.opencv else None
    if rgb is not None:
        return rgb
    try:
        with open_with_pillow(file.data, file.kind) as image:
            return _pillow_pixels(image, name)
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, ...
        raise ImageError(f"{name} can't be decoded: {error}; {BROKEN}") from error


def _opencv_pixels(data: bytes, shrink: int = 1) -> ImageArray | None:
    """RGB as stored; None where OpenCV can't decode it."""
    flags = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}
    how = flags.get(shrink, cv2.IMREAD_COLOR) | cv2.IMREAD_IGNORE_ORIENTATION
    try:
        bgr = cv2.imdecode(np.frombuffer(data, np.uint8), how)
    except cv2.error:
        return None
    return None if bgr is None else cast(ImageArray, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


def _pillow_pixels(image: PIL.Image.Image, name: str | Path) -> ImageArray:
    if image.mode in ("I", "F"):
        raise ImageError(f"{name} has 32 bits per sample, and nothing says which value is white; save it with 8 or 16")
    if image.mode.startswith("I;16"):
        return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))


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
            inside = files_below(path)
            images = [file for file in inside if file.suffix.lower() in EXTENSIONS]
            if not images:
                raise ImageError(
                    f"{path} holds no image; files ending in {', '.join(sorted(EXTENSIONS))} count", ImageFault.MISSING
                )
            found += images
        elif path.exists():
            found.append(path)
        else:
            raise ImageError(f"{path} doesn't exist; name an image or a folder of images", ImageFault.MISSING)
    return found


def files_below(folder: Path) -> list[Path]:
    """The files below a folder in sorted order, but hidden ones; images of kinds that aren't read are reported."""
    # macOS leaves ._name.jpg beside name.jpg.
    files = sorted(p for p in folder.rglob("*") if not p.name.startswith(".") and p.is_file())
    unread = [file.name for file in files if file.suffix.lower() in UNREAD_EXTENSIONS]
    if unread:
        logger.warning(
            "%s: %d images of kinds that aren't read are left out (%s); save them as JPEG or PNG",
            folder,
            len(unread),
            listing(unread, 3),
        )
    return files


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


def _turn_upright(image: ImageArray, orientation: int) -> ImageArray:
    """Undo an EXIF orientation (CIPA DC-008: which corner of the scene the first row and column show)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    # After the transposition 5..8 are left with the flips none, horizontal, both, vertical; 1..4 are these already.
    rows = slice(None, None, -1) if orientation in (3, 4, 7, 8) else slice(None)
    columns = slice(None, None, -1) if orientation in (2, 3, 6, 7) else slice(None)
    return np.ascontiguousarray(image[rows, columns])


def verify_image(path: str | Path) -> ImageInfo:
    """Decode the whole of an image, as cheaply as that goes, to know that `read_image` can read it.

    Raises:
        ImageError: as `read_image`.
    """
    file = _examine(path, read_bytes(path))
    if file.kind not in ("JPEG", "PNG"):
        height, width = _pixels(path, file).shape[:2]
        return ImageInfo(height, width, stored_orientation(file.data))
    try:
        # OpenCV gives what is left of a damaged one, and says nothing.
        with open_with_pillow(file.data, file.kind) as image:
            width, height = image.size
            image.draft("L", (1, 1))  # JPEG: reads all entropy-coded data, but rebuilds 1/64 of the pixels
            image.load()
    except Exception as error:  # as above
        raise ImageError(f"{path} can't be decoded: {error}; {BROKEN}") from error
    return ImageInfo(height, width, orientation_in(image.info), file.mended)


def verify_images(paths: Sequence[Path], folder: Path, *, progress: bool = False) -> list[_Found]:
    """`verify_image` for many images at once, remembering what was fine the last time.

    Images found good are noted, with size and time of change, in a file below ``$MOBILEDET_CACHE`` (or
    ``~/.cache/mobiledet``); they are decoded again only once they have changed. Notes that can't be read or
    written cost time, nothing else.

    Returns:
        For each path what was found, or the error.
    """
    cache_file = _cache_file(folder)
    cache, largest = _load_cache(cache_file), max_pixels()
    keys = [os.path.abspath(path) for path in paths]  # noqa: PTH100 -- a third of the time of Path.absolute
    results: list[_Found | None] = [None] * len(keys)
    stamps: list[tuple[int, int]] = []
    todo: list[int] = []
    for i, key in enumerate(keys):
        try:
            stat = os.stat(key)  # noqa: PTH116
            stamps.append((stat.st_size, stat.st_mtime_ns))
            if not S_ISREG(stat.st_mode) and not S_ISDIR(stat.st_mode):  # a pipe or a device may have no end
                results[i] = ImageError(f"{paths[i]} is not a file; {BROKEN}", ImageFault.UNREADABLE)
                continue
        except (OSError, ValueError):
            stamps.append((-1, -1))  # verify_image will say what is wrong
        known = cache.get(key)
        if known is not None and known[:2] == stamps[i] and known[2] * known[3] <= largest:
            results[i] = ImageInfo(*known[2:5], bool(known[5]))
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
                    size = result.stored_size
                    cache[keys[i]] = (*stamps[i], *size, result.orientation, int(result.mended))
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
    if not isinstance(note, list) or len(note) != 6 or any(type(value) is not int for value in note):
        return False
    size, _, height, width, orientation, _ = note
    return bool(size > 0 and height > 0 and width > 0 and 1 <= orientation <= 8)


def _save_cache(file: Path | None, cache: _Cache) -> None:
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, json.dumps({"version": _CACHE_VERSION, "pictures": cache}).encode())
    except (OSError, MobiledetError) as error:
        logger.debug("the notes about checked images were not kept: %s", error)

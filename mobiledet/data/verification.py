"""Verifying pictures: every one decoded whole before training, once, many at a time.

A training loop must not meet a broken picture in epoch 3. What was found good is remembered, so that the second
start is quick.
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
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path
from typing import TypeAlias

from mobiledet.data.images import BROKEN, ImageInfo, check_container, read_bytes, stored_orientation
from mobiledet.errors import ImageError, MissingDependencyError, install_extra

logger = logging.getLogger(__name__)

_CACHE_VERSION = 1
_CHUNK = 16  # pictures handed to a thread at a time
_warning_filters = threading.Lock()  # warnings.catch_warnings swaps state shared by all threads

_Found: TypeAlias = ImageInfo | ImageError
_Verified: TypeAlias = Generator[tuple[int, _Found], None, None]
_Cache: TypeAlias = dict[str, tuple[int, int, int, int, int]]  # path -> bytes, mtime_ns, height, width, orientation


def verify_image(path: str | Path) -> ImageInfo:
    """Decode the whole of a picture, as cheaply as that goes, to know that it can be read.

    Raises:
        ImageError: as `read_image`, and for pictures of more than about 179 million pixels.
        MissingDependencyError: Pillow isn't installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(f"checking pictures needs Pillow: {install_extra('score')}") from error

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
    return ImageInfo(height, width, stored_orientation(data))


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
            for i, result in _with_bar(verified, len(todo)) if progress and todo and sys.stderr.isatty() else verified:
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

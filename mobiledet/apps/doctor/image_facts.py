"""One pass over the images: a hash, a thumbnail, brightness and sharpness of each.

Every file is read and decoded once, large JPEGs at a reduced size. Nothing is kept on disk.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.report import Code, Section
from mobiledet.data.images import decode_image, read_bytes
from mobiledet.errors import ImageError
from mobiledet.preprocess import resize_image
from mobiledet.structures import BoolArray, FloatArray, IntArray
from mobiledet.utils.progress import progress_bar
from mobiledet.utils.text import count

HASH_SIDE = 16  # the difference hash compares neighbours on a grid of this side: 256 bits
THUMB_SIDE = 64
PLAIN = 4  # an image whose grey levels have a smaller standard deviation is plain: of one colour, nearly
_SHARPNESS_SIDE = 256  # sharpness is measured on images scaled to this shorter side
_ENOUGH = 256  # decode at a half, quarter or eighth as long as the shorter side stays this long
_AHEAD = 64  # images read ahead of the one asked for
_DARK, _BRIGHT = 20, 240
_BLURRED = 0.15  # of the median sharpness


@dataclass(frozen=True)
class ImageFacts:
    """Facts of N images from one pass.

    Attributes:
        readable: ``(N,)``; the rest is zero where an image couldn't be read.
        digests: N checksums of the files' content; empty where unreadable.
        hashes: ``(N, 256)`` bits: whether brightness rises from each cell of a coarse grid to its right neighbour.
        thumbs: ``(N, 64, 64)`` uint8 grey, proportions not kept.
        brightness: ``(N,)`` mean grey level.
        contrast: ``(N,)`` standard deviation of the grey levels.
        sharpness: ``(N,)`` standard deviation of the Laplacian at a common size.
        problems: what was wrong with those that couldn't be read.
    """

    readable: BoolArray
    digests: list[bytes]
    hashes: BoolArray
    thumbs: NDArray[np.uint8]
    brightness: FloatArray
    contrast: FloatArray
    sharpness: FloatArray
    problems: list[str]


_Facts = tuple[bytes, BoolArray, NDArray[np.uint8], float, float, float]


def read_facts(collection: Collection, *, progress: bool = False) -> ImageFacts:
    """Read every image once; ``progress`` shows a bar, if standard error is a terminal."""
    number = len(collection)
    facts = ImageFacts(
        np.zeros(number, np.bool_),
        [b""] * number,
        np.zeros((number, HASH_SIDE * HASH_SIDE), np.bool_),
        np.zeros((number, THUMB_SIDE, THUMB_SIDE), np.uint8),
        np.zeros(number, np.float32),
        np.zeros(number, np.float32),
        np.zeros(number, np.float32),
        [],
    )
    rows = progress_bar(_read_all(collection), what="reading images", show=progress, total=number)
    for row, found in enumerate(rows):
        if isinstance(found, ImageError):
            facts.problems.append(str(found))
            continue
        facts.readable[row] = True
        facts.digests[row], facts.hashes[row], facts.thumbs[row] = found[:3]
        facts.brightness[row], facts.contrast[row], facts.sharpness[row] = found[3:]
    return facts


def describe_images(collection: Collection, facts: ImageFacts) -> Section:
    """Images that are dark, bright, plain, much less sharp than the rest, or unreadable."""
    section = Section("What the images look like", key="What the pictures look like")
    if facts.problems:
        text = f"{count(len(facts.problems), 'image')} can't be read"
        section.find(Code.UNREADABLE, text, "replace the files, or remove them from the data set", facts.problems)
    seen = facts.readable
    if not seen.any():
        return section
    low, middle, high = np.percentile(facts.brightness[seen], (5, 50, 95))
    section.say(f"Brightness (0 to 255): median {middle:.0f}, 90 % of the images between {low:.0f} and {high:.0f}.")
    section.data = {
        "brightness": {"p5": round(float(low), 1), "p50": round(float(middle), 1), "p95": round(float(high), 1)}
    }
    plain = seen & (facts.contrast < PLAIN)
    usual = float(np.median(facts.sharpness[seen]))
    for kind, mask, what in (
        (Code.PLAIN, plain, "nearly of one colour"),
        (Code.DARK, seen & ~plain & (facts.brightness < _DARK), "nearly black"),
        (Code.BRIGHT, seen & ~plain & (facts.brightness > _BRIGHT), "nearly white"),
        (Code.BLURRED, seen & ~plain & (facts.sharpness < _BLURRED * usual), "far less sharp than the median"),
    ):
        rows: IntArray = np.flatnonzero(mask)
        if len(rows):
            text = f"{count(len(rows), 'image is', 'images are')} {what}"
            section.find(kind, text, "", [collection.place(row) for row in rows.tolist()])
    return section


def _read_all(collection: Collection) -> Iterator[_Facts | ImageError]:
    """Facts of every image in order, some read ahead by threads (OpenCV lets others run while it decodes)."""

    def read(row: int) -> _Facts | ImageError:
        try:
            path = collection.record(row).path
            return _measure(read_bytes(path), min(collection.sizes[row].tolist()), str(path))
        except ImageError as error:
            return error

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1), thread_name_prefix="facts") as pool:
        for start in range(0, len(collection), _AHEAD):
            yield from pool.map(read, range(start, min(start + _AHEAD, len(collection))))


def _measure(data: bytes, shorter: int, name: str) -> _Facts:
    shrink = next((factor for factor in (8, 4, 2) if shorter >= factor * _ENOUGH), 1)
    grey = cv2.cvtColor(decode_image(name, data, apply_orientation=False, shrink=shrink), cv2.COLOR_RGB2GRAY)
    cells = resize_image(grey, (HASH_SIDE, HASH_SIDE + 1), averaged=1).astype(np.int16)
    thumb = resize_image(grey, (THUMB_SIDE, THUMB_SIDE), averaged=1)
    scale = _SHARPNESS_SIDE / min(grey.shape)
    common = resize_image(
        grey, (max(1, round(grey.shape[0] * scale)), max(1, round(grey.shape[1] * scale))), averaged=1
    )
    mean, deviation = cv2.meanStdDev(thumb)
    sharpness = float(cv2.meanStdDev(cv2.Laplacian(common, cv2.CV_32F))[1][0, 0])
    digest = hashlib.blake2b(data, digest_size=16).digest()
    return digest, (cells[:, 1:] > cells[:, :-1]).ravel(), thumb, float(mean[0, 0]), float(deviation[0, 0]), sharpness

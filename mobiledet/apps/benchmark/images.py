"""The images that are detected in, drawn or a folder's, in the sizes asked for; the data that AP is measured on."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobiledet.data.images import find_images, read_image
from mobiledet.errors import MobiledetError
from mobiledet.preprocess import resize_image
from mobiledet.structures import ImageArray, Size

if TYPE_CHECKING:
    from mobiledet.data.coco import CocoDataset

COUNT = 4  # images of each size; the calls of a turn use one after the other
MOST_SIZES, LONGEST_SIDE = 8, 8192  # sizes of one benchmark; pixels of an image's side
DEFAULT_SIZES = "480x640,720x1280,own"


def parse_sizes(text: str) -> tuple[Size | None, ...]:
    """Sizes written as ``HEIGHTxWIDTH``, commas between; ``own``, the network's own size, becomes None.

    Raises:
        MobiledetError: Anything else, too large, too many, or one of them twice.
    """
    sizes: list[Size | None] = []
    for word in map(str.strip, text.lower().split(",")):
        sides = re.fullmatch("([0-9]+)x([0-9]+)", word)
        size = (int(sides[1]), int(sides[2])) if sides else None
        if size is None and word != "own":
            raise MobiledetError(f"--sizes: {word!r} is neither HEIGHTxWIDTH, such as 480x640, nor 'own'")
        if size is not None and not 1 <= min(size) <= max(size) <= LONGEST_SIDE:
            raise MobiledetError(f"--sizes: {word!r} is outside 1 to {LONGEST_SIDE} pixels a side")
        if size in sizes:
            raise MobiledetError(f"--sizes: {word!r} is given twice; remove one")
        sizes.append(size)
    if len(sizes) > MOST_SIZES:
        raise MobiledetError(f"--sizes: {len(sizes)} sizes are too many; give {MOST_SIZES} at most")
    return tuple(sizes)


def size_name(size: Size | None) -> str:
    """``480x640`` (height first), or ``own``."""
    return "own" if size is None else f"{size[0]}x{size[1]}"


def read_sources(folder: Path | None) -> list[ImageArray]:
    """The first images of a folder; none without one.

    Raises:
        ImageError: There are none, or one of them can't be read.
    """
    return [] if folder is None else [read_image(path) for path in find_images([folder])[:COUNT]]


def load_eval_split(root: Path, split: str, limit: int | None) -> CocoDataset:
    """The split that AP is measured on, or its first ``limit`` images.

    Raises:
        DataError: It isn't there or can't be used.
    """
    from mobiledet.data.opening import open_split

    dataset = open_split(root, split)
    return dataset if limit is None else dataset.first(limit)


def make_images(size: Size, sources: Sequence[ImageArray] = ()) -> list[ImageArray]:
    """Images ``(H, W, 3)`` uint8 RGB of one size: from ``sources``, cropped to its proportions, or drawn."""
    if sources:
        return [_fill(source, size) for source in sources]
    generator = np.random.default_rng(0)
    return [_draw(size, generator) for _ in range(COUNT)]


def _fill(source: ImageArray, size: Size) -> ImageArray:
    height, width = source.shape[:2]
    scale = max(size[0] / height, size[1] / width)
    rows, columns = min(height, max(1, round(size[0] / scale))), min(width, max(1, round(size[1] / scale)))
    top, left = (height - rows) // 2, (width - columns) // 2
    return resize_image(source[top : top + rows, left : left + columns], size, averaged=1)


def _draw(size: Size, generator: np.random.Generator) -> ImageArray:
    """A smooth background, shapes of all sizes, and a little noise."""
    import cv2

    height, width = size
    ground = generator.integers(40, 216, (3, 4, 3), np.uint8)
    image = resize_image(ground, size)
    for _ in range(12):
        centre = (int(generator.integers(width)), int(generator.integers(height)))
        radius = max(2, int(min(size) * generator.uniform(0.03, 0.3)))
        colour = tuple(int(value) for value in generator.integers(0, 256, 3))
        if generator.random() < 0.5:
            cv2.circle(image, centre, radius, colour, -1, cv2.LINE_AA)
        else:
            corner = (centre[0] + radius, centre[1] + int(radius * generator.uniform(0.5, 2)))
            cv2.rectangle(image, centre, corner, colour, -1)
    noise = generator.integers(-12, 13, image.shape)
    noisy: ImageArray = np.clip(image.astype(np.int16) + noise, 0, 255).astype(np.uint8)
    return noisy

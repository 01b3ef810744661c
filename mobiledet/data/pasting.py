"""Training images pasted together: four as one (Bochkovskiy et al. 2020, YOLOv4); more small objects in one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledet.preprocess import resize_image
from mobiledet.structures import ImageArray, ResizeRule, Size, Target

SMALL_AREA = 32**2
"""COCO's limit of small objects, here in pixels of the network's input."""

MOST_COPIES = 4
COPY_TRIALS = 30
COPY_MARGIN = 0.15
"""What is pasted around a copy's box to blend it in, as a share of the box's sides."""

MOST_COVERED = 0.2
"""An object of which another's box covers more than this share isn't copied: the copy would show both."""


class Mosaic:
    """Joins an image with three others around a random centre.

    Args:
        resize: How large an image becomes.
        fill: RGB of what no image covers.
        chance: That an image is joined with others.
        min_visible: A box of which less than this share is left is dropped.
    """

    def __init__(self, *, resize: ResizeRule, fill: tuple[int, int, int], chance: float, min_visible: float) -> None:
        self._resize, self._fill, self._chance, self._min_visible = resize, fill, chance, min_visible

    def others(self, seed: int, count: int) -> list[int]:
        """Which three of ``count`` images a mosaic needs besides the sample's own; none where it doesn't become one."""
        rng = np.random.default_rng([seed, 2])
        return [int(index) for index in rng.integers(count, size=3)] if rng.random() < self._chance else []

    def join(self, images: Sequence[ImageArray], targets: Sequence[Target], seed: int) -> tuple[ImageArray, Target]:
        """Four images as a mosaic, twice as large as the first fitted into the network, which the call takes then."""
        rng = np.random.default_rng([seed, 3])
        fitted = [resize_image(image, self._resize(image.shape[:2])) for image in images]
        height, width = fitted[0].shape[:2]
        middle = np.array([rng.uniform(0.5, 1.5) * width, rng.uniform(0.5, 1.5) * height]).round().astype(int)
        canvas = np.empty((2 * height, 2 * width, 3), np.uint8)
        canvas[:] = self._fill
        kept: list[Target] = []
        for place, (image, small, target) in enumerate(zip(images, fitted, targets, strict=True)):
            size = np.array(small.shape[1::-1])
            start = middle - size * [place % 2 == 0, place < 2]  # above and left of the middle, or beginning there
            low = np.maximum(start, 0)
            high = np.maximum(np.minimum(start + size, [2 * width, 2 * height]), low)
            from_x, from_y = low - start
            to_x, to_y = high - start
            canvas[low[1] : high[1], low[0] : high[0]] = small[from_y:to_y, from_x:to_x]
            boxes = target.boxes * np.tile(size / image.shape[1::-1], 2) + np.tile(start, 2)
            clipped = np.clip(boxes, np.tile(low, 2), np.tile(high, 2))
            stays = enough_is_left(boxes, clipped, self._min_visible)
            kept.append(target.moved(clipped[stays].astype(np.float32), stays))
        return canvas, Target.joined(kept)


def copy_small_objects(
    image: ImageArray, target: Target, network_size: Size, rng: np.random.Generator
) -> tuple[ImageArray, Target]:
    """Paste up to `MOST_COPIES` copies of small objects where no object is (Kisantal et al. 2019, section 4.2).

    Args:
        image: ``(H, W, 3)`` uint8 RGB, which is left alone.
        target: Its objects; crowds are neither copied nor covered.
        network_size: (height, width) that the image is going to have: decides which objects are small.
        rng: Chooses objects and places; one that finds no free place isn't copied.

    Returns:
        The image and its objects, the copies behind the others.
    """
    boxes, image_size = target.boxes, np.array(image.shape[1::-1])
    sides = boxes[:, 2:] - boxes[:, :2]
    small = (sides / image_size).prod(axis=1) * np.prod(network_size) < SMALL_AREA
    alone = _shared_area(boxes, boxes, but_itself=True) <= MOST_COVERED * sides.prod(axis=1)
    choice = np.flatnonzero(small & alone & ~target.iscrowd)
    if not len(choice):
        return image, target
    image, copied = image.copy(), np.arange(len(target))
    for index in rng.choice(choice, rng.integers(1, MOST_COPIES + 1)):
        margin = np.maximum(1, COPY_MARGIN * sides[index])
        low = np.maximum(np.floor(boxes[index, :2] - margin), 0).astype(int)
        high = np.minimum(np.ceil(boxes[index, 2:] + margin), image_size).astype(int)
        starts = rng.integers(0, image_size - (high - low) + 1, (COPY_TRIALS, 2))
        free = _shared_area(np.concatenate([starts, starts + high - low], axis=1), boxes) == 0
        if not free.any():
            continue
        start = starts[np.argmax(free)]
        patch = image[low[1] : high[1], low[0] : high[0]].astype(np.float32)
        place = image[start[1] : start[1] + len(patch), start[0] : start[0] + patch.shape[1]]
        steps = zip(map(np.arange, high - low), margin, strict=True)
        along_x, along_y = (np.minimum(1, (1 + np.minimum(i, i[::-1])) / (1 + width)) for i, width in steps)
        place[:] = np.rint(place + np.outer(along_y, along_x)[..., None] * (patch - place))
        boxes = np.concatenate([boxes, boxes[index, None] + np.tile(start - low, 2).astype(np.float32)])
        copied = np.append(copied, index)
    return image, target.moved(boxes, copied)


def _shared_area(boxes: NDArray[Any], others: NDArray[Any], *, but_itself: bool = False) -> NDArray[Any]:
    """The largest area ``(N,)`` that each of the boxes ``(N, 4)`` shares with one of the others ``(M, 4)``."""
    low, high = (edge(boxes[:, None], others[None]) for edge in (np.maximum, np.minimum))
    shared = np.clip(high[..., 2:] - low[..., :2], 0, None).prod(axis=2)
    if but_itself:
        np.fill_diagonal(shared, 0)
    largest: NDArray[Any] = shared.max(axis=1, initial=0)
    return largest


def enough_is_left(boxes: NDArray[Any], clipped: NDArray[Any], share: float) -> NDArray[np.bool_]:
    """Which boxes ``(N, 4)`` keep at least a share of their area, and some of it."""
    area, visible = ((some[:, 2] - some[:, 0]) * (some[:, 3] - some[:, 1]) for some in (boxes, clipped))
    enough: NDArray[np.bool_] = visible >= np.maximum(share * area, 1e-6)
    return enough

"""Four training images as one (Bochkovskiy et al. 2020, YOLOv4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledet.preprocess import resize_image
from mobiledet.structures import ImageArray, ResizeRule, Target


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


def enough_is_left(boxes: NDArray[Any], clipped: NDArray[Any], share: float) -> NDArray[np.bool_]:
    """Which boxes ``(N, 4)`` keep at least a share of their area, and some of it."""
    area, visible = ((some[:, 2] - some[:, 0]) * (some[:, 3] - some[:, 1]) for some in (boxes, clipped))
    enough: NDArray[np.bool_] = visible >= np.maximum(share * area, 1e-6)
    return enough

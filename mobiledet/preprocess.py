"""The one way an image becomes the network's input, in training, scoring and on the board. NumPy and OpenCV only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from mobiledet.structures import ImageArray, ImageGeometry, ResizeRule, Size

_Integer = TypeVar("_Integer", np.uint8, np.uint16)

AREA_SHRINK = 3.0
"""From this reduction on, pixels are averaged: plain bilinear skips pixels and leaves noise."""


def fit_image(
    image: ImageArray, resize: ResizeRule, *, fill: Sequence[int] = (128, 128, 128)
) -> tuple[ImageArray, ImageGeometry]:
    """Resize an image ``(H, W, 3)`` for the network.

    Args:
        image: RGB.
        resize: How large it becomes.
        fill: RGB of what a letterboxed image leaves free of the input; the image lies at the top left.
    """
    original = (image.shape[0], image.shape[1])
    size = resize(original)
    fitted, geometry = resize_image(image, size), ImageGeometry(original, size)
    if resize.letterbox and size != resize.size:
        canvas = np.empty((*resize.size, 3), np.uint8)
        canvas[:] = fill
        canvas[: size[0], : size[1]] = fitted
        return canvas, geometry
    return fitted, geometry


def check_image(image: ImageArray) -> None:
    """Make sure that ``image`` is an array of the right shape and type.

    Raises:
        ValueError: It isn't ``(H, W, 3)`` uint8 with at least one pixel.
    """
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"an image is a NumPy array (H, W, 3), uint8, RGB, not {type(image).__name__}; "
            "read files with mobiledet.data.images.read_image"
        )
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
        raise ValueError(f"an image is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}")


def resize_image(image: NDArray[_Integer], size: Size, *, averaged: float = AREA_SHRINK) -> NDArray[_Integer]:
    """An image ``(H, W, 3)`` or ``(H, W)``, uint8 or uint16, at ``size`` (height, width). The one way to resize.

    Args:
        image: It.
        size: The new height and width.
        averaged: Reduction from which on pixels are averaged; 1 for what people look at.
    """
    shrink = min(image.shape[0] / size[0], image.shape[1] / size[1])
    # INTER_LINEAR differs by a grey level from processor to processor, and on ARM reads beyond the end of the image.
    interpolation = cv2.INTER_AREA if shrink >= averaged else cv2.INTER_LINEAR_EXACT
    resized: NDArray[_Integer] = cv2.resize(image, (size[1], size[0]), interpolation=interpolation)
    return resized

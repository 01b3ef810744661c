"""Images and their boxes on the way to the network: fitting, and random changes for training.

Cropping, expanding and resizing are one step, so a pixel is interpolated once and colour is changed on the small
image: three times cheaper than doing them one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from mobiledet.config import AugmentConfig
from mobiledet.data.pasting import Mosaic, copy_small_objects, enough_is_left
from mobiledet.preprocess import resize_image
from mobiledet.structures import FloatArray, ImageArray, IntArray, ResizeRule, Size, Target

MIN_CROP_SIDE = 0.3
"""A crop keeps at least this share of each side (SSD's own code; the paper says 0.1 of the image)."""

CROP_OVERLAPS = (0.1, 0.3, 0.5, 0.7, 0.9, None)
"""Least overlap that some object must have with the crop; None takes any crop (SSD section 2.2)."""

CROP_TRIALS = 40
MIN_BOX_SIDE = 0.5
"""A box thinner than this many network pixels is dropped; it can't be learned or found."""


AugmentFunction: TypeAlias = Callable[
    [ImageArray, FloatArray, IntArray, np.random.Generator], tuple[ImageArray, FloatArray, IntArray]
]
Augment: TypeAlias = "AugmentFunction | A.Compose | Sequence[Any]"
"""An augmentation of one's own: a function of image ``(H, W, 3)`` uint8 RGB, boxes ``(N, 4)`` xyxy, labels ``(N,)`` and
a random generator that gives the first three; or albumentations' transforms. Label 0 marks a crowd or an ignored
object, which is not trained on."""


class TrainTransform:
    """Mosaic, copies of small objects, random crop or expansion, resizing, mirroring and colour, by albumentations.

    Args:
        resize: How large an image becomes.
        augment: Chances and strengths.
        fill: RGB of the canvas around an expanded image.
        own: An augmentation to take in place of ``augment``; the image is resized after it.
    """

    def __init__(
        self,
        *,
        resize: ResizeRule,
        augment: AugmentConfig,
        fill: tuple[int, int, int] = (128, 128, 128),
        own: Augment | None = None,
    ) -> None:
        self._own: AugmentFunction | None = None
        steps: list[Any] = []
        if own is not None:
            augment = AugmentConfig(crop=0, expand=0, flip=0, color=0)
            if isinstance(own, A.Compose | Sequence):
                steps = list(own)
            else:
                self._own = own
        self.mosaic = Mosaic(resize=resize, fill=fill, chance=augment.mosaic, min_visible=augment.min_visible)
        self._resize, self._copy_small = resize, augment.copy_small
        steps.append(FitRegion(resize=resize, augment=augment, fill=fill))
        if augment.flip > 0:
            steps.append(A.HorizontalFlip(p=augment.flip))
        if augment.color > 0:
            steps.append(
                A.ColorJitter(
                    brightness=(0.75, 1.25),
                    contrast=(0.6, 1.4),
                    saturation=(0.6, 1.4),
                    hue=(-0.04, 0.04),
                    p=augment.color,
                )
            )
        boxes = A.BboxParams(format="pascal_voc", label_fields=["index"], clip=True, filter_invalid_bboxes=True)
        self._compose = A.Compose(steps, bbox_params=boxes)

    def __call__(self, image: ImageArray, target: Target, seed: int) -> tuple[ImageArray, Target]:
        """Change an image and its boxes.

        Args:
            image: ``(H, W, 3)`` uint8 RGB.
            target: Boxes in pixels of that image.
            seed: Decides everything random; the same seed gives the same result in any process.

        Returns:
            The image in the network's size and the boxes left on it, in its pixels.
        """
        if self._own is not None:
            given = np.where(target.iscrowd, 0, target.labels)
            image, own_boxes, own_labels = self._own(image, target.boxes, given, np.random.default_rng([seed, 1]))
            labels = np.asarray(own_labels, np.int64).reshape(-1)
            target = Target(np.asarray(own_boxes, np.float32).reshape(-1, 4), labels, labels == 0)
        rng = np.random.default_rng([seed, 4])
        if rng.random() < self._copy_small:
            image, target = copy_small_objects(image, target, self._resize(image.shape[:2]), rng)
        self._compose.set_random_seed(seed)
        changed = self._compose(image=image, bboxes=target.boxes, index=np.arange(len(target)))
        boxes = np.asarray(changed["bboxes"], np.float32).reshape(-1, 4)
        # Labels come back as floats, and as a list when there are none.
        kept = np.asarray(changed["index"], np.float64).astype(np.int64).reshape(-1)
        large = ((boxes[:, 2:] - boxes[:, :2]) >= MIN_BOX_SIDE).all(axis=1)
        boxes, kept = boxes[large], kept[large]
        return changed["image"], target.moved(boxes, kept)


class FitRegion(A.DualTransform):  # type: ignore[misc]
    """Cut out a region, which may reach beyond the image, and fit it into the network's input."""

    _targets = (A.core.type_definitions.Targets.IMAGE, A.core.type_definitions.Targets.BBOXES)

    def __init__(self, *, resize: ResizeRule, augment: AugmentConfig, fill: tuple[int, int, int]) -> None:
        super().__init__(p=1.0)
        self.resize = resize
        self.augment = augment
        self.fill = fill

    @property
    def targets_as_params(self) -> list[str]:
        """The choice of a crop depends on the boxes."""
        return ["bboxes"]

    def get_params_dependent_on_data(self, params: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
        """Choose the region ``(x1, y1, x2, y2)``, whole pixels."""
        height, width = params["shape"][:2]
        rng: np.random.Generator = self.random_generator
        draw = rng.random(2)
        if draw[0] < self.augment.crop:
            boxes = np.array([box[:4] for box in data["bboxes"]], np.float64).reshape(-1, 4)
            return {"region": _crop_region(rng, boxes * [width, height, width, height], (height, width))}
        if draw[1] < self.augment.expand:
            return {"region": _expand_region(rng, (height, width), self.augment.expand_max)}
        return {"region": (0, 0, width, height)}

    def apply(self, img: ImageArray, region: tuple[int, int, int, int], **params: Any) -> ImageArray:  # noqa: ARG002
        """Cut and resize the image."""
        x1, y1, x2, y2 = region
        height, width = img.shape[:2]
        size = self.resize((y2 - y1, x2 - x1))
        inside = img[max(y1, 0) : min(y2, height), max(x1, 0) : min(x2, width)]
        if x1 >= 0 and y1 >= 0 and x2 <= width and y2 <= height:
            return resize_image(inside, size)
        scale_y, scale_x = size[0] / (y2 - y1), size[1] / (x2 - x1)
        top, left = round(-y1 * scale_y), round(-x1 * scale_x)
        small_size = (max(1, round(height * scale_y)), max(1, round(width * scale_x)))
        small = resize_image(inside, (min(small_size[0], size[0] - top), min(small_size[1], size[1] - left)))
        canvas = np.empty((*size, 3), np.uint8)
        canvas[:] = self.fill
        canvas[top : top + small.shape[0], left : left + small.shape[1]] = small
        return canvas

    def apply_to_bboxes(
        self,
        bboxes: NDArray[np.float32],
        region: tuple[int, int, int, int],
        shape: tuple[int, ...],
        **params: Any,  # noqa: ARG002
    ) -> NDArray[np.float32]:
        """Move the boxes ``(N, 4 + extra)``, normalised, along; drop those the region leaves too little of."""
        height, width = shape[:2]
        x1, y1, x2, y2 = region
        boxes = bboxes[:, :4] * np.array([width, height, width, height], np.float32)
        clipped = np.clip(boxes, [x1, y1, x1, y1], [x2, y2, x2, y2])
        keep = enough_is_left(boxes, clipped, self.augment.min_visible)
        moved = (clipped - [x1, y1, x1, y1]) / [x2 - x1, y2 - y1, x2 - x1, y2 - y1]
        return np.concatenate([moved[keep], bboxes[keep, 4:]], axis=1).astype(np.float32)


def _crop_region(rng: np.random.Generator, boxes: NDArray[np.float64], size: Size) -> tuple[int, int, int, int]:
    """SSD's crop: the first of some random rectangles that overlaps an object enough and keeps one's centre."""
    height, width = size
    overlap = CROP_OVERLAPS[rng.integers(len(CROP_OVERLAPS))]
    sides = rng.uniform(MIN_CROP_SIDE, 1.0, (CROP_TRIALS, 2)) * [width, height]
    corner = rng.random((CROP_TRIALS, 2)) * ([width, height] - sides)
    crops = np.concatenate([corner, corner + sides], axis=1)
    ratio = sides[:, 0] / sides[:, 1]
    good = (ratio >= 0.5) & (ratio <= 2.0)
    if overlap is not None and len(boxes):
        shared = np.clip(
            np.minimum(crops[:, None, 2:], boxes[None, :, 2:]) - np.maximum(crops[:, None, :2], boxes[None, :, :2]),
            0,
            None,
        ).prod(axis=2)
        union = sides.prod(axis=1)[:, None] + (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)[None] - shared
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        holds = ((centre[None] > crops[:, None, :2]) & (centre[None] < crops[:, None, 2:])).all(axis=2)
        good &= ((shared / np.maximum(union, 1e-9) >= overlap) & holds).any(axis=1)
    if not good.any():
        return 0, 0, width, height
    x1, y1, x2, y2 = crops[int(np.argmax(good))]
    left, top = int(x1), int(y1)
    return left, top, max(left + 1, round(x2)), max(top + 1, round(y2))


def _expand_region(rng: np.random.Generator, size: Size, largest: float) -> tuple[int, int, int, int]:
    """A rectangle up to ``largest`` times as wide and high as the image, with the image somewhere inside."""
    height, width = size
    ratio = rng.uniform(1.0, largest)
    out_height, out_width = round(height * ratio), round(width * ratio)
    left = -int(rng.random() * (out_width - width))
    top = -int(rng.random() * (out_height - height))
    return left, top, left + out_width, top + out_height

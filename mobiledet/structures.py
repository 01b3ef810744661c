"""Shared data types: geometry, targets, candidates.

Boxes are ``(x1, y1, x2, y2)`` float32 in absolute pixels everywhere; sizes are ``(height, width)``; label 0 is
background and objects are ``1..K``. Nothing here imports torch or OpenCV, so that running an exported model needs
neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
"""``(height, width)`` in pixels."""

FloatArray = NDArray[np.float32]
DoubleArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
ImageArray = NDArray[np.uint8]
"""An image: ``(height, width, 3)`` uint8, RGB."""

MAX_SIDE = 8192
"""Longest side of an image inside a network, in pixels: settings come from files, and decide over memory."""

RANGE_SLACK = 0.1
"""How far a float image may leave 0..1, as enhancing and resizing do it."""


@dataclass(frozen=True)
class ResizeRule:
    """The size of an image inside the network.

    Attributes:
        size: ``(height, width)``. Without ``longest_side`` and ``letterbox`` every image is stretched to it.
        longest_side: If given, images keep their shape: the shorter side becomes the shorter one of ``size``, or less
            where the longer one would exceed this.
        letterbox: Images keep their shape and become as large as fits into ``size``; the rest of it is filled.
    """

    size: Size
    longest_side: int | None = None
    letterbox: bool = False

    def __call__(self, original: Size) -> Size:
        """The size ``(height, width)`` for an image of size ``original``; one that has it already keeps it."""
        if self.letterbox:
            scale = min(self.size[0] / original[0], self.size[1] / original[1])
        elif self.longest_side is not None:
            scale = min(min(self.size) / min(original), self.longest_side / max(original))
        else:
            return self.size
        return max(1, round(original[0] * scale)), max(1, round(original[1] * scale))

    @property
    def fixed(self) -> bool:
        """Whether the network's input is of one size for all images."""
        return self.longest_side is None


@dataclass(frozen=True)
class ImageGeometry:
    """How an image was fitted into the network's input, and how to undo it.

    A point ``(x, y)`` of the original image lands on ``(x * scale_x, y * scale_y)``.

    Attributes:
        original_size: ``(height, width)`` of the image as it was read.
        network_size: ``(height, width)`` of the network's input.
    """

    original_size: Size
    network_size: Size

    def __post_init__(self) -> None:
        if min(*self.original_size, *self.network_size) < 1:
            raise ValueError(
                f"sizes must be at least 1 pixel: original {self.original_size}, network {self.network_size}"
            )

    @property
    def scale(self) -> FloatArray:
        """``(4,)`` factors from original to network pixels for ``x1, y1, x2, y2``."""
        scale_y = self.network_size[0] / self.original_size[0]
        scale_x = self.network_size[1] / self.original_size[1]
        return np.array([scale_x, scale_y, scale_x, scale_y], np.float32)

    def to_network(self, boxes: FloatArray) -> FloatArray:
        """Boxes ``(N, 4)`` of the original image, in network pixels."""
        return (boxes * self.scale).astype(np.float32)

    def to_original(self, boxes: FloatArray) -> FloatArray:
        """Boxes ``(N, 4)`` in network pixels, back on the original image and clipped to it."""
        height, width = self.original_size
        limit = np.array([width, height, width, height], np.float32)
        clipped: FloatArray = np.clip(boxes / self.scale, 0, limit).astype(np.float32)
        return clipped


@dataclass(frozen=True)
class Target:
    """The objects of one image: ground truth.

    Attributes:
        boxes: ``(N, 4)`` float32 xyxy, absolute pixels of the image it belongs to.
        labels: ``(N,)`` int64 in ``1..K``.
        iscrowd: ``(N,)`` bool; a crowd box marks a region that is neither object nor background.
        scores: ``(N, K)`` float32 in ``[0, 1]``, what each object is to score in each class; None where that is 1 in
            its own class and 0 in the others.
    """

    boxes: FloatArray
    labels: IntArray
    iscrowd: BoolArray
    scores: FloatArray | None = None

    def __post_init__(self) -> None:
        count = len(self.boxes)
        if self.boxes.shape != (count, 4) or self.labels.shape != (count,) or self.iscrowd.shape != (count,):
            raise ValueError(
                f"target shapes disagree: boxes {self.boxes.shape}, labels {self.labels.shape}, "
                f"iscrowd {self.iscrowd.shape}"
            )
        if self.scores is not None and (self.scores.ndim != 2 or len(self.scores) != count):
            raise ValueError(f"target shapes disagree: boxes {self.boxes.shape}, scores {self.scores.shape}")

    @classmethod
    def empty(cls) -> Target:
        """The target of an image without objects."""
        return cls(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, np.bool_))

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def joined(cls, targets: Sequence[Target]) -> Target:
        """The objects of several targets, at least one, all with scores or none."""
        boxes, labels, iscrowd, scores = zip(*((t.boxes, t.labels, t.iscrowd, t.scores) for t in targets), strict=True)
        rows = None if scores[0] is None else np.concatenate(scores)
        return cls(np.concatenate(boxes), np.concatenate(labels), np.concatenate(iscrowd), rows)

    def moved(self, boxes: FloatArray, kept: IntArray | BoolArray | slice = slice(None)) -> Target:
        """The objects ``kept``, which have these ``boxes`` now."""
        scores = None if self.scores is None else self.scores[kept]
        return Target(boxes, self.labels[kept], self.iscrowd[kept], scores)


@dataclass(frozen=True)
class Candidates:
    """All boxes and scores of a head for a batch, before thresholds and non-maximum suppression.

    Attributes:
        boxes: ``(B, A, 4)`` xyxy in network pixels, decoded and clipped; or ``(B, A, K, 4)`` when a head gives
            each class its own box.
        scores: ``(B, A, K)`` foreground scores in ``[0, 1]``; column ``k`` belongs to label ``k + 1``.
    """

    boxes: Tensor
    scores: Tensor

"""What a detector finds in one image, and the forms it can be handed on in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledet.errors import MissingDependencyError
from mobiledet.structures import BoolArray, FloatArray, IntArray

if TYPE_CHECKING:
    import supervision
    from PIL import Image

    from mobiledet.data.images import ImageSource


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best score first.

    Attributes:
        boxes: ``(N, 4)`` float32 xyxy in pixels of the image as it was given.
        scores: ``(N,)`` float32 in ``[0, 1]``.
        labels: ``(N,)`` int64 in ``1..K``.
        names: ``K`` class names; ``names[label - 1]`` is the name of a label.
        category_ids: The training data's id of each class, ``category_ids[label - 1]``; empty where it isn't known.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray
    names: tuple[str, ...] = ()
    category_ids: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.boxes)

    def keep(self, mask: BoolArray | Sequence[bool]) -> Detections:
        """Only the detections where ``mask`` ``(N,)`` is true."""
        chosen = np.asarray(mask, np.bool_)
        return replace(self, boxes=self.boxes[chosen], scores=self.scores[chosen], labels=self.labels[chosen])

    def above(self, threshold: float) -> Detections:
        """Only the detections that score at least ``threshold``."""
        return self.keep(self.scores >= threshold)

    def of_classes(self, names: Sequence[str]) -> Detections:
        """Only the detections of some classes, given by name."""
        return self.keep([self.name(index) in names for index in range(len(self))])

    def name(self, index: int) -> str:
        """The class name of detection ``index``, or its number when the model carries no names."""
        label = int(self.labels[index])
        return self.names[label - 1] if label <= len(self.names) else f"class {label}"

    def category_id(self, index: int) -> int | None:
        """The training data's id of the class of detection ``index``; None where it isn't known."""
        label = int(self.labels[index])
        return self.category_ids[label - 1] if 1 <= label <= len(self.category_ids) else None

    def plot(
        self,
        image: ImageSource,
        *,
        labels: bool = True,
        line_width: int | None = None,
    ) -> Image.Image:
        """The image with the detections drawn on it, as a PIL image to ``save`` or ``show``.

        Args:
            image: The image they were found in, in any form that a `Detector` takes.
            labels: Write name and score beside each box. A tag that others would mostly hide is omitted.
            line_width: Of the boxes, in pixels; None chooses it by the size of the image.

        Raises:
            ImageError: The image can't be read.
        """
        from PIL import Image

        from mobiledet.data.images import load_image
        from mobiledet.draw.boxes import draw_detections

        return Image.fromarray(draw_detections(load_image(image), self, labels=labels, line_width=line_width))

    def to_json(self) -> list[dict[str, Any]]:
        """A plain dict for each detection, the same in every file that mobiledet writes.

        Returns:
            Dicts with ``name``, ``category_id`` (None where it isn't known), ``label``, ``score`` and ``box``, which is
            xyxy in pixels. Boxes that aren't finite are left out: JSON can't hold them.
        """
        return [
            {
                "name": self.name(index),
                "category_id": self.category_id(index),
                "label": label,
                "score": round(score, 6),
                "box": [round(side, 2) for side in box],
            }
            for index, (box, score, label) in enumerate(
                zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
            )
            if all(map(math.isfinite, box))
        ]

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """COCO results, which pycocotools' ``loadRes`` takes.

        Args:
            image_id: The data set's id of the image.

        Returns:
            Dicts with ``image_id``, ``category_id`` (the label where the data's id isn't known), ``bbox`` (xywh in
            pixels to 3 digits) and ``score`` (to 6).
        """
        return [
            {
                "image_id": image_id,
                "category_id": int(label) if (number := self.category_id(index)) is None else number,
                "bbox": [round(edge, 3) for edge in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(score, 6),
            }
            for index, ((x1, y1, x2, y2), score, label) in enumerate(
                zip(self.boxes.tolist(), self.scores.tolist(), self.labels.tolist(), strict=True)
            )
        ]

    def to_supervision(self) -> supervision.Detections:
        """The same for Roboflow's supervision: its class ids start at 0, names are in ``data["class_name"]``.

        Raises:
            MissingDependencyError: supervision isn't installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise MissingDependencyError("to_supervision needs supervision: pip install supervision") from error
        return supervision.Detections(
            xyxy=self.boxes.reshape(-1, 4),
            confidence=self.scores,
            class_id=self.labels - 1,
            data={"class_name": np.array([self.name(index) for index in range(len(self))], dtype=np.str_)},
        )

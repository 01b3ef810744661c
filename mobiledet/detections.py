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


class ClassNames(tuple[str, ...]):
    """The K names of a model's classes, in their order.

    They aren't looked up by number, which could be a label, counted from 1, or a class id, counted from 0.
    """

    __slots__ = ()

    def __getitem__(self, index: Any) -> Any:
        """Only slices.

        Raises:
            TypeError: For a number.
        """
        if isinstance(index, slice):
            return super().__getitem__(index)
        raise TypeError(
            "class names aren't looked up by number, because labels count from 1 and class ids from 0; the "
            "name of each detection is in detections.class_names, and list(names) counts from 0"
        )


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best score first.

    Attributes:
        boxes: ``(N, 4)`` float32 xyxy in pixels of the image as it was given.
        scores: ``(N,)`` float32 in ``[0, 1]``.
        labels: ``(N,)`` int64 in ``1..K``.
        names: The ``K`` names of the model's classes; those of the detections are ``class_names``.
        category_ids: The training data's id of each class, from that of label 1 on; empty where they aren't known.
        track_ids: ``(N,)`` int64: ids that stay from frame to frame of a video, from 1 on, and 0 for detections that
            belong to none (yet); None where nothing was tracked.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray
    names: tuple[str, ...] = ClassNames()
    category_ids: tuple[int, ...] = ()
    track_ids: IntArray | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.names, ClassNames):
            object.__setattr__(self, "names", ClassNames(self.names))

    def __len__(self) -> int:
        return len(self.boxes)

    @property
    def class_id(self) -> IntArray:
        """``(N,)`` int64 in ``0..K - 1``: the labels as supervision and Ultralytics count them."""
        return self.labels - 1

    @property
    def class_names(self) -> list[str]:
        """The class name of each detection, as `name` gives it."""
        return [self.name(index) for index in range(len(self))]

    def keep(self, mask: BoolArray | Sequence[bool]) -> Detections:
        """Only the detections where ``mask`` ``(N,)`` is true."""
        chosen = np.asarray(mask, np.bool_)
        ids = None if self.track_ids is None else self.track_ids[chosen]
        return replace(
            self, boxes=self.boxes[chosen], scores=self.scores[chosen], labels=self.labels[chosen], track_ids=ids
        )

    def above(self, threshold: float) -> Detections:
        """Only the detections that score at least ``threshold``, or have an id of a `Tracker` with that threshold."""
        return self.keep((self.scores >= threshold) | (False if self.track_ids is None else self.track_ids > 0))

    def of_classes(self, names: Sequence[str]) -> Detections:
        """Only the detections of some classes, given by name."""
        return self.keep([name in names for name in self.class_names])

    def name(self, index: int) -> str:
        """The class name of detection ``index``, or its number when the model carries no names."""
        label = int(self.labels[index])
        return tuple(self.names)[label - 1] if 1 <= label <= len(self.names) else f"class {label}"

    def title(self, index: int) -> str:
        """What is written beside detection ``index``: its id if it has one, class name and score."""
        track = 0 if self.track_ids is None else int(self.track_ids[index])
        return f"{f'#{track} ' if track else ''}{self.name(index)} {self.scores[index]:.2f}"

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
            Dicts with ``name``, ``category_id`` (None where it isn't known), ``label``, ``score``, ``box``, which is
            xyxy in pixels, and, if objects are tracked, ``track_id`` (None where it has none). Boxes that aren't finite
            are left out: JSON can't hold them.
        """
        return [
            {
                "name": self.name(index),
                "category_id": self.category_id(index),
                "label": label,
                "score": round(score, 6),
                "box": [round(side, 2) for side in box],
                **({} if self.track_ids is None else {"track_id": int(self.track_ids[index]) or None}),
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
        """The same for Roboflow's supervision, whose class ids start at 0; names are in ``data["class_name"]``.

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
            class_id=self.class_id,
            tracker_id=None if self.track_ids is None else np.where(self.track_ids == 0, -1, self.track_ids),
            data={"class_name": np.array(self.class_names, dtype=np.str_)},
        )

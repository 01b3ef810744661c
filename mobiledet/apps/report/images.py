"""Images of the report: ground truth and detections drawn apart, what is right and what is wrong in colours."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mobiledet.apps.report.analysis import Analysis
from mobiledet.data.coco import CocoDataset
from mobiledet.draw.boxes import Color, draw_marked, jpeg_bytes
from mobiledet.errors import ImageError
from mobiledet.evaluation.error_analysis import KINDS, RIGHT, ErrorKind
from mobiledet.preprocess import resize_image
from mobiledet.structures import DoubleArray, ImageArray

SIDE = 400
"""Longer side of an image on the page, in pixels."""

CROWDED = 8
"""Boxes from which on only mistakes have their names on an image."""

FOUND, MISSED, NEITHER = (255, 255, 255), (255, 64, 200), (150, 150, 150)
"""Colours of objects: found, missed, and crowds and ignored ones, which are neither."""

OBJECT_COLORS = {"object: found": FOUND, "missed": MISSED, "crowd or ignored": NEITHER}

COLORS: dict[int, Color] = {
    RIGHT: (60, 200, 90),
    KINDS.index(ErrorKind.CLASSIFICATION): (255, 150, 30),
    KINDS.index(ErrorKind.LOCALISATION): (70, 150, 255),
    KINDS.index(ErrorKind.BOTH): (170, 110, 255),
    KINDS.index(ErrorKind.DUPLICATE): (250, 220, 60),
    KINDS.index(ErrorKind.BACKGROUND): (235, 60, 50),
}
"""Colours of detections by the kind of error."""

DETECTION_COLORS = {"detection: right" if kind == RIGHT else KINDS[kind].label: color for kind, color in COLORS.items()}


class PageImages:
    """Small copies of a data set's images with boxes on them."""

    def __init__(self, dataset: CocoDataset) -> None:
        self._dataset = dataset
        self._rows = {dataset.image_id(index): index for index in range(len(dataset))}

    def name(self, image_id: int) -> str:
        """The file name of an image."""
        return self._dataset.file_name(self._rows[image_id])

    def ground_truth(self, analysis: Analysis, image: int) -> tuple[str, bytes] | None:
        """What it shows and the JPEG of the objects of the image in a row of the matching, found and missed ones.

        None where the image can't be read any more.
        """
        matching, objects = analysis.matching, analysis.matching.objects
        image_id, there = int(matching.image_ids[image]), np.flatnonzero(objects.images == image)
        read, missed = self._read(image_id), set(analysis.missed().tolist())
        if read is None:
            return None
        colors = [MISSED if row in missed else FOUND if objects.counted[row] else NEITHER for row in there.tolist()]
        texts = [matching.names[k] for k in objects.classes[there].tolist()]
        drawn = _draw(read[0], objects.boxes[there] * read[1], texts, colors, FOUND)
        return f"{self.name(image_id)}, ground truth and what {analysis.name} finds", jpeg_bytes(drawn)

    def detections(self, analysis: Analysis, image: int) -> tuple[str, bytes] | None:
        """The same of the detections at the threshold, right and wrong ones."""
        matching = analysis.matching
        image_id = int(matching.image_ids[image])
        read = self._read(image_id)
        if read is None:
            return None
        shown = np.flatnonzero((matching.images == image) & (matching.scores >= analysis.threshold))
        scored = zip(matching.classes[shown].tolist(), matching.scores[shown].tolist(), strict=True)
        texts = [f"{matching.names[k]} {score:.2f}" for k, score in scored]
        colors = [COLORS[int(kind)] for kind in analysis.errors.kinds[shown]]
        drawn = _draw(read[0], matching.boxes[shown] * read[1], texts, colors, COLORS[RIGHT])
        return f"{self.name(image_id)}, detections of {analysis.name}", jpeg_bytes(drawn)

    def crop(self, image_id: int, box: DoubleArray, color: Color, *, side: int = 180) -> bytes | None:
        """What is around a box ``(4,)``, with the box; None where the image can't be read any more."""
        read = self._read(image_id, longest=None)
        if read is None:
            return None
        image, _ = read
        height, width = image.shape[:2]
        x1, y1, x2, y2 = box.tolist()
        reach = max(x2 - x1, y2 - y1, 24) * 0.9
        middle = np.clip([(x1 + x2) / 2, (y1 + y2) / 2], 0, [width - 1, height - 1])
        left, top = np.maximum(np.floor(middle - reach), 0).astype(int).tolist()
        right, bottom = np.minimum(np.ceil(middle + reach), [width, height]).astype(int).tolist()
        part = image[top:bottom, left:right]
        scale = side / max(part.shape[:2])
        size = (max(1, round(part.shape[0] * scale)), max(1, round(part.shape[1] * scale)))
        moved = ((box[None] - [left, top, left, top]) * scale).astype(np.float32)
        return jpeg_bytes(draw_marked(resize_image(part, size, averaged=1), moved, [""], [color], line_width=2))

    def _read(self, image_id: int, longest: int | None = SIDE) -> tuple[ImageArray, float] | None:
        """An image, no larger than ``longest``, and its scale."""
        try:
            image = self._dataset.read(self._rows[image_id])
        except ImageError:
            return None
        if longest is None:
            return image, 1.0
        scale = min(1.0, longest / max(image.shape[:2]))
        size = (max(1, round(image.shape[0] * scale)), max(1, round(image.shape[1] * scale)))
        return resize_image(image, size, averaged=1), scale


def _draw(
    image: ImageArray, boxes: DoubleArray, texts: Sequence[str], colors: Sequence[Color], good: Color
) -> ImageArray:
    """Boxes with their texts, mistakes first; in a crowded image what is good has no text, so that these are seen."""
    order = sorted(range(len(boxes)), key=lambda row: colors[row] == good)
    named = [texts[row] if len(boxes) <= CROWDED or colors[row] != good else "" for row in order]
    return draw_marked(image, boxes[order].astype(np.float32), named, [colors[row] for row in order])

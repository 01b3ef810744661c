"""NanoDet-Plus (RangiLyu 2021), run by ncnn from its published files: a detector to compare with, and to learn from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.errors import ModelFileError
from mobiledet.runtime.base import RawDetections, Suppression, check_batch, suppress
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.timing import time_halves
from mobiledet.structures import FloatArray, ImageArray, ResizeRule
from mobiledet.weights.class_lists import coco_categories

SIZE = (416, 416)
STRIDES = (8, 16, 32, 64)
MEAN, STD = (103.53, 116.28, 123.675), (57.375, 57.12, 58.395)
"""Of blue, green and red, which it was trained on in this order."""

STEPS = 8
"""Values of each side's distribution of distances, 0 to 7 strides from a cell's place (Li et al. 2020)."""


class NanoDetBackend:
    """A ``.param`` file of NanoDet-Plus for COCO at 416x416 pixels, its ``.bin`` beside it.

    The arguments are those of :class:`mobiledet.runtime.detector.Detector`; ``spin`` has no effect here.

    Raises:
        ModelFileError: It isn't one, or its weights are missing.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        provider: str | None = None,
        spin: bool = True,  # noqa: ARG002 - every runtime is opened with it
    ) -> None:
        import ncnn

        if provider not in (None, "cpu"):
            raise ModelFileError(f"{path}: runs on the processor alone; leave provider {provider!r} out")
        self._ncnn: Any = ncnn
        self.runtime = f"ncnn {ncnn.__version__}"
        self.path = path
        classes = coco_categories()
        self.card = ModelCard(
            names=tuple(one["name"] for one in classes),
            category_ids=tuple(one["id"] for one in classes),
            resize=ResizeRule(SIZE),
            score_threshold=0.05,
            shown_threshold=0.4,
            head="nanodet-plus",
        )
        self._suppression = Suppression(candidates=1000)
        cells = [np.mgrid[: -(-SIZE[0] // stride), : -(-SIZE[1] // stride)] * stride for stride in STRIDES]
        self._places = np.concatenate([np.stack([x.ravel(), y.ravel()] * 2, axis=1) for y, x in cells])
        self._strides = np.repeat(STRIDES, [cell[0].size for cell in cells])[:, None]
        self._net = ncnn.Net()
        self._net.opt.num_threads = threads or ncnn.get_cpu_count()
        weights = path.with_suffix(".bin")
        if not weights.is_file() or self._net.load_param(str(path)) or self._net.load_model(str(weights)):
            raise ModelFileError(f"{path}: ncnn can't load it, or {weights.name} isn't beside it")
        if self._output(np.zeros((*SIZE, 3), np.uint8)).shape != (len(self._places), len(classes) + 4 * STEPS):
            raise ModelFileError(
                f"{path}: neither written by mobiledet export nor NanoDet-Plus for COCO's 80 classes at "
                f"{SIZE[0]}x{SIZE[1]} pixels; name one that is"
            )

    def run(self, images: ImageArray, score_threshold: float, iou_threshold: float) -> RawDetections:
        """Detections in images ``(1, H, W, 3)`` of the network's size."""
        check_batch(images, self.card)
        return self._suppress(self._output(images[0]), score_threshold, iou_threshold)

    def stages(self, images: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` and ``decode+nms``."""
        card = self.card
        return time_halves(
            lambda: self._output(images[0]),
            lambda found: self._suppress(found, card.score_threshold, card.iou_threshold),
            rounds,
        )

    def _output(self, image: ImageArray) -> FloatArray:
        """``(A, K + 4 * STEPS)``: scores, and logits of the distances to left, top, right and bottom."""
        kind = self._ncnn.Mat.PixelType.PIXEL_RGB2BGR
        pixels = self._ncnn.Mat.from_pixels(np.ascontiguousarray(image), kind, SIZE[1], SIZE[0])
        pixels.substract_mean_normalize(MEAN, [1 / deviation for deviation in STD])
        extractor = self._net.create_extractor()
        failed = extractor.input("data", pixels)
        failed_too, output = extractor.extract("output")
        return np.zeros((0, 0), np.float32) if failed or failed_too else np.array(output)

    def _suppress(self, output: FloatArray, score_threshold: float, iou_threshold: float) -> RawDetections:
        classes = len(self.card.names)
        logits = output[:, classes:].reshape(-1, 4, STEPS)
        shares = np.exp(logits - logits.max(axis=2, keepdims=True))
        distances = (shares @ np.arange(STEPS)) / shares.sum(axis=2) * self._strides
        boxes = self._places + distances * [-1, -1, 1, 1]
        boxes = np.clip(boxes, 0, [SIZE[1], SIZE[0]] * 2).astype(np.float32)
        return suppress(
            self.card,
            boxes[None],
            output[None, :, :classes],
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            settings=self._suppression,
        )

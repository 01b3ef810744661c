"""An exported ncnn folder, run by ncnn up to boxes and scores, and by NumPy from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.errors import ModelFileError
from mobiledet.ops.numpy_boxes import best_detections
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.folder import read_folder_card
from mobiledet.runtime.network import NCNN_FILE, Found, check_batch, need
from mobiledet.runtime.timing import time_halves
from mobiledet.structures import FloatArray, ImageArray

NCNN_WEIGHTS = "model.ncnn.bin"
INPUT, BOXES, SCORES = "in0", "out0", "out1"
"""pnnx's names of a graph's inputs and outputs."""

PROVIDERS = ("cpu", "cpu:f16")


class NcnnNetwork:
    """A network in ncnn.

    It computes in float32, as it was scored. Left to itself ncnn takes float16 on ARM processors that have it, which is
    faster and rounds to three digits; ask for it with ``provider="cpu:f16"``.

    Args:
        path: The folder, or the ``.param`` in it.
        threads: Processor threads; 0 takes all cores.
        provider: ``"cpu"`` or ``"cpu:f16"``; None for the former.

    Raises:
        ModelFileError: something is missing, damaged or foreign, or there is no such provider.
        MissingDependencyError: ncnn isn't installed.
    """

    def __init__(self, path: Path, *, threads: int = 0, provider: str | None = None) -> None:
        try:
            import ncnn
        except ImportError:
            raise need("ncnn", "ncnn", path) from None
        self._ncnn: Any = ncnn
        self.runtime = f"ncnn {ncnn.__version__}"
        self.path = path / NCNN_FILE if path.is_dir() else path
        weights = self.path.with_name(NCNN_WEIGHTS)
        self.card = read_folder_card(self.path.parent, (self.path.name, weights.name))
        if self.card.batch != 1:
            raise ModelFileError(f"{path}: made for {self.card.batch} pictures at once; ncnn takes one, export it so")
        self._candidates = _candidates(self.card, path)
        self._net = ncnn.Net()
        _settle(self._net.opt, provider or PROVIDERS[0], threads or ncnn.get_cpu_count())
        if self._net.load_param(str(self.path)) or self._net.load_model(str(weights)):
            raise ModelFileError(
                f"{self.path}: ncnn {ncnn.__version__} can't load it; export it again with this version"
            )

    def run(self, pictures: ImageArray, score_threshold: float, iou_threshold: float) -> Found:
        """Detections in pictures ``(1, H, W, 3)`` of the network's size."""
        check_batch(pictures, self.card)
        return self._suppress(*self.candidates(pictures[0]), score_threshold, iou_threshold)

    def candidates(self, picture: ImageArray) -> tuple[FloatArray, FloatArray]:
        """Boxes ``(A, 4)`` xyxy in network pixels and scores ``(A, K)`` of a picture ``(H, W, 3)`` of its size."""
        height, width = picture.shape[:2]
        rgb = self._ncnn.Mat.PixelType.PIXEL_RGB
        # Every call has an extractor of its own; what they share, the net, is only read.
        extractor = self._net.create_extractor()
        extractor.input(INPUT, self._ncnn.Mat.from_pixels(np.ascontiguousarray(picture), rgb, width, height))
        (failed, boxes), (failed_too, scores) = extractor.extract(BOXES), extractor.extract(SCORES)
        if failed or failed_too:
            raise ModelFileError(
                f"{self.path}: ncnn can't run it, most likely for want of memory; close other programs"
            )
        return np.array(boxes), np.array(scores)

    def stages(self, pictures: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` (up to decoded boxes) and ``decode+nms`` (the rest)."""
        return time_halves(
            lambda: self.candidates(pictures[0]),
            lambda found: self._suppress(*found, self.card.score_threshold, self.card.iou_threshold),
            rounds,
        )

    def _suppress(self, boxes: FloatArray, scores: FloatArray, score_threshold: float, iou_threshold: float) -> Found:
        boxes, scores, labels = best_detections(
            boxes,
            scores,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            candidates=self._candidates,
            max_detections=self.card.max_detections,
        )
        return Found(boxes[None], scores[None], labels[None])


def _candidates(card: ModelCard, place: Path) -> int:
    """How many (box, class) pairs enter suppression; the only setting of it that no field of the card holds."""
    try:
        return int(card.config["model"]["postprocess"]["candidates"])
    except (KeyError, TypeError, ValueError):
        raise ModelFileError(f"{place}: its card lacks config.model.postprocess.candidates; export it again") from None


def _settle(options: Any, provider: str, threads: int) -> None:
    """Set a net's options, before anything is loaded into it."""
    if provider.lower() not in PROVIDERS:
        raise ModelFileError(f"ncnn has no provider {provider!r} here; it has {', '.join(PROVIDERS)}")
    options.num_threads = threads
    half = provider.lower() != PROVIDERS[0]
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = half
    options.use_bf16_packed = options.use_bf16_storage = False

"""An exported ncnn folder, run by ncnn up to boxes and scores, and by NumPy from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.errors import ModelFileError
from mobiledet.runtime.base import Backend, RawDetections, Runtime, Suppression, check_batch, suppress
from mobiledet.runtime.folder import read_folder_card
from mobiledet.runtime.nanodet import NanoDetBackend
from mobiledet.runtime.timing import time_halves
from mobiledet.structures import FloatArray, ImageArray

MODEL_FILE, WEIGHTS_FILE = "model.ncnn.param", "model.ncnn.bin"
INPUT, BOXES, SCORES = "in0", "out0", "out1"
"""pnnx's names of a graph's inputs and outputs."""

PROVIDERS = ("cpu", "cpu:f16")


class NcnnBackend:
    """A model in ncnn.

    It computes in float32, as it was scored. Left to itself ncnn takes float16 on ARM processors that have it, which is
    faster and rounds to three digits; ask for it with ``provider="cpu:f16"``.

    The arguments are those of :class:`mobiledet.runtime.detector.Detector`; ``spin`` has no effect here.

    Raises:
        ModelFileError: Something is missing, damaged or foreign, or there is no such provider.
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

        self._ncnn: Any = ncnn
        self.runtime = f"ncnn {ncnn.__version__}"
        self.path = path / MODEL_FILE if path.is_dir() else path
        weights = self.path.with_name(WEIGHTS_FILE)
        self.card = read_folder_card(self.path.parent, (self.path.name, weights.name))
        if self.card.batch != 1:
            raise ModelFileError(
                f"{path}: made for {self.card.batch} images at once, ncnn takes one; export it with a batch of 1"
            )
        self._suppression = Suppression.of(self.card, path)
        self._net = ncnn.Net()
        _configure(self._net.opt, provider or PROVIDERS[0], threads or ncnn.get_cpu_count())
        if self._net.load_param(str(self.path)) or self._net.load_model(str(weights)):
            raise ModelFileError(
                f"{self.path}: ncnn {ncnn.__version__} can't load it; export it again with this version"
            )

    def run(self, images: ImageArray, score_threshold: float, iou_threshold: float) -> RawDetections:
        """Detections in images ``(1, H, W, 3)`` of the network's size."""
        check_batch(images, self.card)
        return self._suppress(*self.candidates(images[0]), score_threshold, iou_threshold)

    def candidates(self, image: ImageArray) -> tuple[FloatArray, FloatArray]:
        """Boxes ``(A, 4)`` xyxy in network pixels and scores ``(A, K)`` of an image ``(H, W, 3)`` of its size."""
        height, width = image.shape[:2]
        rgb = self._ncnn.Mat.PixelType.PIXEL_RGB
        # Every call has an extractor of its own; what they share, the net, is only read.
        extractor = self._net.create_extractor()
        extractor.input(INPUT, self._ncnn.Mat.from_pixels(np.ascontiguousarray(image), rgb, width, height))
        (failed, boxes), (failed_too, scores) = extractor.extract(BOXES), extractor.extract(SCORES)
        if failed or failed_too:
            raise ModelFileError(
                f"{self.path}: ncnn can't run it, most likely because memory ran out; close other programs"
            )
        return np.array(boxes), np.array(scores)

    def stages(self, images: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` (up to decoded boxes) and ``decode+nms`` (the rest)."""
        return time_halves(
            lambda: self.candidates(images[0]),
            lambda found: self._suppress(*found, self.card.score_threshold, self.card.iou_threshold),
            rounds,
        )

    def _suppress(
        self, boxes: FloatArray, scores: FloatArray, score_threshold: float, iou_threshold: float
    ) -> RawDetections:
        return suppress(
            self.card,
            boxes[None],
            scores[None],
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            settings=self._suppression,
        )


def _configure(options: Any, provider: str, threads: int) -> None:
    """Set a net's options, before anything is loaded into it."""
    if provider.lower() not in PROVIDERS:
        raise ModelFileError(f"ncnn has no provider {provider!r} here; it has {', '.join(PROVIDERS)}")
    options.num_threads = threads
    half = provider.lower() != PROVIDERS[0]
    options.use_fp16_packed = options.use_fp16_storage = options.use_fp16_arithmetic = half
    options.use_bf16_packed = options.use_bf16_storage = False


def _open(path: Path, **options: Any) -> Backend:
    """An exported model; a lone ``.param`` file is somebody else's, of which NanoDet-Plus is known."""
    foreign = path.is_file() and path.name != MODEL_FILE
    return NanoDetBackend(path, **options) if foreign else NcnnBackend(path, **options)


NCNN = Runtime(name="ncnn", suffix=".param", open=_open, folder_file=MODEL_FILE, package="ncnn", extra="ncnn")

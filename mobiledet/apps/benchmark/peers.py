"""Detectors of other projects, run as their own documentation does, with the same images and threads as ours."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.apps.benchmark.measured import About, MeasuredModel, median_ms
from mobiledet.errors import MissingDependencyError, MobiledetError
from mobiledet.structures import ImageArray, Size

RANDOM = "random weights: speed only"

YOLO_YEARS = ("26", "12", "11", "v8")
"""Generations of Ultralytics' nano model, newest first."""


def open_peer(kind: str, threads: int) -> MeasuredModel:
    """Load a peer: ``"torchvision"`` or ``"ultralytics"``.

    Raises:
        MobiledetError: It isn't installed, or can't be used.
    """
    try:
        return TorchvisionSsdlite(threads) if kind == "torchvision" else UltralyticsNano(threads)
    except ImportError as error:
        raise MissingDependencyError(
            f"{kind} is skipped: the package {error.name or kind} can't be imported ({error}); pip install {kind}"
        ) from None


class TorchvisionSsdlite(MeasuredModel):
    """torchvision's smallest detector, ``ssdlite320_mobilenet_v3_large``, unchanged, with random weights."""

    def __init__(self, threads: int) -> None:
        import torch
        import torchvision

        torch.set_num_threads(threads)
        torch.manual_seed(0)
        self._torch = torch
        self._model: Any = torchvision.models.get_model(
            "ssdlite320_mobilenet_v3_large", weights=None, weights_backbone=None
        ).eval()
        self.about = About(runtime=f"torchvision {torchvision.__version__}", input_size=(320, 320), note=RANDOM)

    def call(self, image: ImageArray) -> object:
        """See :class:`MeasuredModel`."""
        with self._torch.inference_mode():
            return self._model([self._tensor(image)])

    def stages(self, image: ImageArray, rounds: int) -> dict[str, float | None]:
        """See :class:`MeasuredModel`; ``resize`` includes its normalisation."""
        model, marks = self._model, []
        whole = median_ms(lambda: self.call(image), rounds)
        with self._torch.inference_mode():
            for _ in range(rounds):
                start = time.perf_counter()
                batch, _ = model.transform([self._tensor(image)])
                resized = time.perf_counter()
                features = list(model.backbone(batch.tensors).values())
                outputs = model.head(features)
                ran = time.perf_counter()
                anchors = model.anchor_generator(batch, features)
                found = model.postprocess_detections(outputs, anchors, batch.image_sizes)
                model.transform.postprocess(found, batch.image_sizes, [image.shape[:2]])
                marks.append((resized - start, ran - resized, time.perf_counter() - ran))
        resize, network, decode = (1e3 * float(value) for value in np.median(marks, axis=0))
        return {"whole": whole, "resize": resize, "network": network, "decode+nms": decode}

    def count(self) -> float | None:
        """See :class:`MeasuredModel`."""
        return _count(self._model, lambda pixels: self._model(list(pixels)), self.about.input_size)

    def _tensor(self, image: ImageArray) -> Any:
        return self._torch.from_numpy(image).permute(2, 0, 1).float() / 255


class UltralyticsNano(MeasuredModel):
    """Ultralytics' newest nano detector, with random weights; nothing is fetched and nothing is sent."""

    def __init__(self, threads: int) -> None:
        # Before its import: it would look for a network, install packages and send statistics.
        os.environ.update(YOLO_OFFLINE="true", YOLO_AUTOINSTALL="false", YOLO_VERBOSE="false")
        import torch
        import ultralytics
        from ultralytics.utils import torch_utils

        ultralytics.settings.update({"sync": False})
        torch.set_num_threads(threads)
        if hasattr(torch_utils, "NUM_THREADS"):
            torch_utils.NUM_THREADS = threads  # it sets PyTorch to this number, whatever was set before
        torch.manual_seed(0)
        models = Path(ultralytics.__file__).parent / "cfg" / "models"
        name = next((year for year in YOLO_YEARS if list(models.glob(f"*/yolo{year}.yaml"))), None)
        if name is None:
            raise MobiledetError(
                f"ultralytics {ultralytics.__version__} has none of the models known here; install another version"
            )
        self._torch, self._threads, self._input = torch, threads, (640, 640)
        self._model: Any = ultralytics.YOLO(f"yolo{name}n.yaml", task="detect", verbose=False)
        self.about = About(
            runtime=f"ultralytics {ultralytics.__version__}",
            input_size=(640, 640),
            note=f"yolo{name}n, {RANDOM}; images keep their proportions",
        )

    def call(self, image: ImageArray) -> Any:
        """See :class:`MeasuredModel`. It takes the colours to be BGR, which costs the same."""
        found = self._model.predict(image, device="cpu", imgsz=640, verbose=False, save=False)[0]
        if self._torch.get_num_threads() != self._threads:
            self._torch.set_num_threads(self._threads)
        return found

    def stages(self, image: ImageArray, rounds: int) -> dict[str, float | None]:
        """See :class:`MeasuredModel`; by its own stopwatch."""
        scale = 640 / max(image.shape[:2])  # it keeps an image's proportions, padded to multiples of its stride
        height, width = (32 * math.ceil(round(side * scale) / 32) for side in image.shape[:2])
        self._input = (height, width)
        whole = median_ms(lambda: self.call(image), rounds)
        speeds = [self.call(image).speed for _ in range(rounds)]
        names = {"resize": "preprocess", "network": "inference", "decode+nms": "postprocess"}
        stages = {ours: float(np.median([speed[its] for speed in speeds])) for ours, its in names.items()}
        return {"whole": whole, **stages}

    def count(self) -> float | None:
        """See :class:`MeasuredModel`."""
        return _count(self._model.model, self._model.model, self._input)


def _count(model: Any, run: Callable[[Any], object], size: Size) -> float:
    from mobiledet.models.cost import count_layers

    return round(sum(layer.mult_adds for layer in count_layers(model, run, size)) / 1e9, 4)

"""Detectors of other projects, run as their own documentation does, with the same images and threads as ours."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.apps.benchmark.candidates import PEERS
from mobiledet.apps.benchmark.measured import About, MeasuredModel, median_ms
from mobiledet.detections import Detections
from mobiledet.errors import MissingDependencyError, MobiledetError, ModelFileError
from mobiledet.preprocess import check_image, fit_image
from mobiledet.structures import ImageArray, ImageGeometry, ResizeRule, Size
from mobiledet.utils.machine import package_version

RANDOM = "random weights: speed only"
POSTPROCESS = "TFLite_Detection_PostProcess"

YOLO_YEARS = ("26", "12", "11", "v8")
"""Generations of Ultralytics' nano model, newest first."""


def open_peer(kind: str, target: str, threads: int) -> MeasuredModel:
    """Load a peer: ``"litert"`` with a ``.tflite`` file as its target, ``"torchvision"`` or ``"ultralytics"``.

    Raises:
        MobiledetError: It isn't installed, or its file can't be used.
    """
    try:
        if kind == "litert":
            return LiteRt(Path(target), threads)
        return TorchvisionSsdlite(threads) if kind == "torchvision" else UltralyticsNano(threads)
    except ImportError as error:
        raise MissingDependencyError(
            f"{target or kind} is skipped: the package {error.name or kind} can't be imported ({error}); "
            f"pip install {PEERS[kind]}"
        ) from None


class LiteRt(MeasuredModel):
    """A TensorFlow Lite SSD that takes uint8 images, with its own post-processing, run by LiteRT.

    Raises:
        ModelFileError: It is damaged, or not such a detector.
    """

    def __init__(self, path: Path, threads: int) -> None:
        from ai_edge_litert import interpreter as litert

        if not path.is_file():
            raise ModelFileError(f"no model {str(path)!r}; correct the name")
        try:
            self._interpreter = litert.Interpreter(str(path), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelFileError(f"{path}: LiteRT can't open it ({reason}); fetch or export it again") from None
        given, self._outputs = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        shape = tuple(int(side) for side in given[0]["shape"])
        if len(given) != 1 or len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or given[0]["dtype"] != np.uint8:
            raise ModelFileError(f"{path}: takes {shape} {given[0]['dtype'].__name__}; only (1, H, W, 3) uint8 is run")
        if len(self._outputs) != 4 or len(self._outputs[0]["shape"]) != 3 or self._outputs[0]["shape"][-1] != 4:
            raise ModelFileError(f"{path}: doesn't end in {POSTPROCESS}; only detectors that do are run")
        self._input = given[0]["index"]
        self._resize = ResizeRule((shape[1], shape[2]))
        most = int(self._outputs[0]["shape"][1])
        self.about = About(
            runtime=f"LiteRT {package_version('ai-edge-litert')}",
            precision="uint8",
            input_size=self._resize.size,
            note=f"its own post-processing, timed as part of the network; {most} detections at most, also for AP",
        )

    def call(self, image: ImageArray) -> Detections:
        """See :class:`MeasuredModel`."""
        check_image(image)
        fitted, geometry = fit_image(image, self._resize)
        return read_outputs(self._run(fitted), geometry)

    def stages(self, image: ImageArray, rounds: int) -> dict[str, float | None]:
        """See :class:`MeasuredModel`."""
        fitted, _ = fit_image(image, self._resize)
        return {
            "whole": median_ms(lambda: self.call(image), rounds),
            "resize": median_ms(lambda: fit_image(image, self._resize), rounds),
            "network": median_ms(lambda: self._run(fitted), rounds),
            "decode+nms": None,
        }

    def detect(self, images: Sequence[ImageArray]) -> list[Detections]:
        """See :class:`MeasuredModel`."""
        return [self.call(image) for image in images]

    def _run(self, fitted: ImageArray) -> list[Any]:
        self._interpreter.set_tensor(self._input, fitted[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(output["index"])[0] for output in self._outputs]


def read_outputs(outputs: Sequence[Any], geometry: ImageGeometry) -> Detections:
    """Detections in the image's pixels from the four outputs of ``TFLite_Detection_PostProcess``.

    Args:
        outputs: Boxes ``(N, 4)`` as y1, x1, y2, x2 in shares of the input's height and width, classes ``(N,)`` from 0
            on, scores ``(N,)``, and how many of them count.
        geometry: How the image was brought to the network's size.
    """
    shares, classes, scores, count = outputs
    height, width = geometry.network_size
    boxes = shares[:, [1, 0, 3, 2]] * np.array([width, height, width, height], np.float32)
    kept = (np.arange(len(scores)) < count) & (scores > 0)
    labels = classes[kept].astype(np.int64) + 1  # it counts classes from 0, without background
    return Detections(geometry.to_original(boxes[kept]), scores[kept], labels)


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


def describe_tflite(about: About, path: Path) -> About:
    """Class names and multiply-adds read from the file, without LiteRT; ``about`` unchanged where it can't be read."""
    try:
        from mobiledet.weights.coco_classes import COCO_SLOTS, coco_categories
        from mobiledet.weights.tflite.graph import read_tflite

        graph = read_tflite(path)
    except (MobiledetError, ImportError):
        return about
    end = next((op for op in graph.ops if op.kind == POSTPROCESS), None)
    slots = int(end.options.get("num_classes", 0)) if end is not None else 0
    labels = graph.labels[1:] if graph.labels and len(graph.labels) == slots + 1 else graph.labels
    if labels and len(labels) == slots:
        names = tuple(labels)
    elif slots == COCO_SLOTS:
        by_id = {category["id"]: category["name"] for category in coco_categories()}
        names = tuple(by_id.get(slot, f"unused {slot}") for slot in range(1, slots + 1))
    else:
        names = ()
    total = 0
    for op in graph.ops:
        if op.kind in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            _, height, width, channels = graph.tensors[op.outputs[0]].shape
            weights = graph.tensors[op.inputs[1]].shape
            depth = weights[3] if op.kind == "CONV_2D" else 1
            total += height * width * channels * weights[1] * weights[2] * depth
    return replace(about, names=names, gmacs=round(total / 1e9, 4) or None)

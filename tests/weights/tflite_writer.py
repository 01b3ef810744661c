"""Small TensorFlow Lite files for tests: SSD MobileNetV1 detectors and MobileNetV1 classifiers with random weights.

Their operations are those that TensorFlow's converters write for the Object Detection API's ``ssd_mobilenet_v1`` and
slim's ``mobilenet_v1``: in the same order, with the same options, in each of four kinds of storage.

- ``float32``: ReLU6 fused into the convolutions.
- ``float16``: every constant stored as float16, with a DEQUANTIZE operation of its own.
- ``uint8``: one scale per tensor. A detector's backbone has no ReLU6: the ranges of its outputs, which end at 6, imply
  it. A classifier's is fused.
- ``int8``: weights with a scale per channel; a detector's results are made real before the post-processing.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tflite_emitter import Emitter, Faults, Kind, SSDFaults
from tflite_forward import Layer, forward
from tflite_networks import draw, input_scale, plan_backbone, plan_classifier, plan_inverted, plan_ssd


@dataclass(frozen=True)
class Written:
    """A file and the network in it.

    Attributes:
        path: The file.
        kind: How it stores numbers.
        alpha: Width multiplier.
        input_size: ``(height, width)``.
        input_type: ``"FLOAT32"``, ``"UINT8"`` or ``"INT8"``.
        mean: What a pixel 0..255 is reduced by, and
        std: then divided by, to be what ``layers`` take.
        layers: Name -> layer, in order of execution, with exactly the real values that the file stores: ``conv0``,
            ``conv1_depthwise``, ``conv1_pointwise``, ...; a classifier's ``pool`` and ``classifier``; a detector's
            ``extra0_1x1``, ``extra0_3x3``, ..., ``box_predictor0``, ``class_predictor0``, ...
        faults: What is odd about it.
    """

    path: Path
    kind: Kind
    alpha: float
    input_size: tuple[int, int]
    input_type: str
    mean: float
    std: float
    layers: dict[str, Layer] = field(repr=False)
    faults: Faults

    def feed(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures ``(B, height, width, 3)`` uint8 as the file takes them."""
        if self.input_type == "FLOAT32":
            return self.normalized(pictures)
        return pictures if self.input_type == "UINT8" else (pictures.astype(np.int16) - 128).astype(np.int8)

    def normalized(self, pictures: np.ndarray) -> np.ndarray:
        """Pictures uint8 as ``layers`` take them, float32."""
        return (pictures.astype(np.float32) - np.float32(self.mean)) / np.float32(self.std)

    def activations(self, pictures: np.ndarray) -> dict[str, np.ndarray]:
        """Output of every layer ``(B, height, width, channels)``, computed by torch."""
        return forward(self.layers, self.normalized(pictures))


@dataclass(frozen=True)
class WrittenSSD(Written):
    """A detector.

    Attributes:
        num_classes: Without the background.
        anchors: ``(N, 4)`` float32: centre y, centre x, height, width, as shares of the picture, as stored.
        map_sizes: ``(rows, columns)`` of the six maps.
    """

    num_classes: int
    anchors: np.ndarray = field(repr=False)
    map_sizes: tuple[tuple[int, int], ...]

    def raw_outputs(self, pictures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encoded boxes ``(B, N, 4)`` (y, x, h, w) and logits ``(B, N, 1 + num_classes)``, background first."""
        found = self.activations(pictures)
        boxes = [found[f"box_predictor{k}"].reshape(len(pictures), -1, 4) for k in range(len(self.map_sizes))]
        columns = self.num_classes + 1
        logits = [found[f"class_predictor{k}"].reshape(len(pictures), -1, columns) for k in range(len(self.map_sizes))]
        return np.concatenate(boxes, axis=1), np.concatenate(logits, axis=1)


@dataclass(frozen=True)
class WrittenClassifier(Written):
    """A classifier, or features only.

    Attributes:
        num_classes: None for features.
    """

    num_classes: int | None

    def raw_outputs(self, pictures: np.ndarray) -> np.ndarray:
        """Logits ``(B, num_classes)``, or features ``(B, channels)``."""
        name = "pool" if self.num_classes is None else "classifier"
        return self.activations(pictures)[name].reshape(len(pictures), -1)


def write_ssd(
    path: Path,
    *,
    alpha: float = 0.25,
    input_size: tuple[int, int] = (96, 128),
    num_classes: int = 3,
    kind: Kind = "float32",
    seed: int = 0,
    **faults: Any,
) -> WrittenSSD:
    """Write a detector. The same seed gives the same network in every kind, up to rounding.

    Args:
        path: File to write.
        alpha: Width multiplier.
        input_size: ``(height, width)``.
        num_classes: Without the background.
        kind: How numbers are stored.
        seed: Of the weights.
        faults: Fields of :class:`SSDFaults`.
    """
    odd = SSDFaults(**faults)
    plan = plan_ssd((plan_inverted if odd.inverted_residuals else plan_backbone)(alpha), alpha, num_classes)
    emitter = Emitter(
        draw(tuple(plan), tuple(input_size), "RELU" if odd.relu else "RELU6", seed), input_size, kind, odd, "ssd"
    )
    outputs, map_sizes, anchors = emitter.ssd(num_classes, odd)
    path.write_bytes(emitter.file(outputs))
    common = _common(path, kind, alpha, input_size, emitter)
    return WrittenSSD(**common, num_classes=num_classes, anchors=anchors, map_sizes=map_sizes)


def write_classifier(
    path: Path,
    *,
    alpha: float = 0.25,
    input_size: tuple[int, int] = (64, 96),
    num_classes: int | None = 11,
    kind: Kind = "float32",
    seed: int = 0,
    **faults: Any,
) -> WrittenClassifier:
    """Write a classifier, or with ``num_classes=None`` its features. ``faults`` are fields of :class:`Faults`."""
    odd = Faults(**faults)
    plan = plan_classifier((plan_inverted if odd.inverted_residuals else plan_backbone)(alpha), num_classes)
    emitter = Emitter(
        draw(tuple(plan), tuple(input_size), "RELU" if odd.relu else "RELU6", seed), input_size, kind, odd, "slim"
    )
    path.write_bytes(emitter.file(emitter.classifier(num_classes)))
    return WrittenClassifier(**_common(path, kind, alpha, input_size, emitter), num_classes=num_classes)


def _common(path: Path, kind: Kind, alpha: float, size: tuple[int, int], emitter: Emitter) -> dict[str, Any]:
    input_type = emitter.graph.dtype(emitter.input)
    mean, std = input_scale("float32" if input_type == "FLOAT32" else kind)
    return {
        "path": path,
        "kind": kind,
        "alpha": alpha,
        "input_size": size,
        "input_type": input_type,
        "mean": mean,
        "std": std,
        "layers": copy.deepcopy(emitter.layers),
        "faults": emitter.odd,
    }

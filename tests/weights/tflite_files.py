"""Generated TensorFlow Lite files beyond what ``tflite_writer`` offers, and TensorFlow Lite itself to run them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tflite_builder import Quantization
from tflite_emitter import Emitter, Faults, Kind, SSDFaults
from tflite_forward import Layer
from tflite_networks import Constant, Planned, draw, plan_backbone, plan_classifier, plan_ssd


def write_changed_ssd(
    path: Path,
    change: Callable[[list[Planned]], list[Planned]],
    *,
    alpha: float = 0.25,
    input_size: tuple[int, int] = (96, 128),
    num_classes: int = 3,
    kind: Kind = "float32",
    change_anchors: Callable[[np.ndarray], np.ndarray] | None = None,
    anchors_end: float | None = None,
    stated_classes: int | None = None,
    **faults: Any,
) -> dict[str, Layer]:
    """Write a detector whose backbone was planned otherwise, or whose anchors differ.

    Args:
        path: File to write.
        change: Takes and gives the backbone's plan.
        alpha: Width multiplier, also of the extra layers.
        input_size: ``(height, width)``.
        num_classes: Without the background.
        kind: How numbers are stored.
        change_anchors: Takes and gives the stored anchors ``(N, 4)``; float32 files only.
        anchors_end: Largest number that uint8 anchors can be; what is larger is cut off.
        stated_classes: What the post-processing is told instead of ``num_classes``.
        faults: Fields of :class:`SSDFaults`.

    Returns:
        Name -> layer, with the values that the file stores.
    """
    odd = SSDFaults(**faults)
    plan = plan_ssd(change(plan_backbone(alpha)), alpha, num_classes)
    emitter = _ChangedEnd(draw(tuple(plan), input_size, "RELU6", 0), input_size, kind, odd, "ssd")
    emitter.change_anchors, emitter.anchors_end = change_anchors, anchors_end
    emitter.stated_classes = stated_classes
    outputs, _, _ = emitter.ssd(num_classes, odd)
    path.write_bytes(emitter.file(outputs))
    return emitter.layers


def write_changed_classifier(path: Path, change: Callable[[list[Planned]], list[Planned]]) -> dict[str, Layer]:
    """Write a float32 classifier of 5 classes for 64x96 pixels whose backbone was planned otherwise."""
    plan = plan_classifier(change(plan_backbone(0.25)), 5)
    emitter = Emitter(draw(tuple(plan), (64, 96), "RELU6", 0), (64, 96), "float32", Faults(), "slim")
    path.write_bytes(emitter.file(emitter.classifier(5)))
    return emitter.layers


def at_least(channels: int) -> Callable[[list[Planned]], list[Planned]]:
    """Every layer at least this wide, as with the Object Detection API's ``min_depth``."""
    return lambda plan: [replace(layer, channels=max(channels, layer.channels)) for layer in plan]


def with_kernel(name: str, kernel: int) -> Callable[[list[Planned]], list[Planned]]:
    """One layer with another kernel."""
    return lambda plan: [replace(layer, kernel=kernel) if layer.name == name else layer for layer in plan]


def with_stride(name: str, stride: int) -> Callable[[list[Planned]], list[Planned]]:
    """One layer with another stride."""
    return lambda plan: [replace(layer, stride=stride) if layer.name == name else layer for layer in plan]


def with_channels(name: str, channels: int) -> Callable[[list[Planned]], list[Planned]]:
    """One separable layer (``"conv5"``) with another width."""

    def change(plan: list[Planned]) -> list[Planned]:
        following = f"conv{int(name.removeprefix('conv')) + 1}_depthwise"
        return [
            replace(layer, channels=channels) if layer.name in (f"{name}_pointwise", following) else layer
            for layer in plan
        ]

    return change


class _ChangedEnd(Emitter):
    change_anchors: Callable[[np.ndarray], np.ndarray] | None = None
    anchors_end: float | None = None
    stated_classes: int | None = None

    def _anchors(self, sizes: list[tuple[int, int]], odd: SSDFaults) -> Constant:
        anchors = super()._anchors(sizes, odd)
        if self.anchors_end is not None:
            steps = Quantization.spanning(0.0, self.anchors_end, "UINT8")
            anchors = Constant(steps.store(anchors.real, "UINT8"), "UINT8", steps)
        if self.change_anchors is not None:
            anchors = replace(anchors, stored=self.change_anchors(anchors.stored.copy()))
        return anchors

    def _postprocess(self, boxes: int, scores: int, anchors: Constant, num_classes: int, odd: SSDFaults) -> list[int]:
        stated = num_classes if self.stated_classes is None else self.stated_classes
        return super()._postprocess(boxes, scores, anchors, stated, odd)


class LiteRT:
    """TensorFlow Lite running a file, or a skip where it isn't installed."""

    def __init__(self, path: Path) -> None:
        module = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT isn't installed")
        self.interpreter = module.Interpreter(str(path), experimental_preserve_all_tensors=True, num_threads=1)
        self.interpreter.allocate_tensors()

    def run(self, fed: np.ndarray) -> None:
        """Compute everything for one picture ``(height, width, 3)`` in the file's own type."""
        self.interpreter.set_tensor(self.interpreter.get_input_details()[0]["index"], fed[None])
        self.interpreter.invoke()

    def real(self, name: str) -> np.ndarray:
        """Real values of a tensor, by its name."""
        (detail,) = (d for d in self.interpreter.get_tensor_details() if d["name"] == name)
        return _real(self.interpreter.get_tensor(detail["index"]), detail["quantization"])

    def outputs(self) -> list[np.ndarray]:
        """Real values of the outputs."""
        details = self.interpreter.get_output_details()
        return [_real(self.interpreter.get_tensor(d["index"]), d["quantization"]) for d in details]


def _real(stored: np.ndarray, quantization: tuple[float, int]) -> np.ndarray:
    scale, zero_point = quantization
    return (stored.astype(np.float64) - zero_point) * (scale or 1.0)

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

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from tflite_builder import NUMPY, GraphBuilder, Quantization, tflite
from tflite_forward import Layer, forward
from tflite_networks import (
    Constant,
    Stored,
    draw,
    input_quantization,
    input_scale,
    plan_backbone,
    plan_classifier,
    plan_inverted,
    plan_ssd,
    ssd_anchors,
    store,
)

Kind = Literal["float32", "float16", "uint8", "int8"]

POSTPROCESS = "TFLite_Detection_PostProcess"
UNKNOWN = "UnknownCustomOp"


@dataclass(frozen=True)
class Faults:
    """What can be odd about a file.

    Attributes:
        relu: Plain ReLU instead of ReLU6, everywhere.
        range_end: Where the quantised output of ``conv5_pointwise`` ends, instead of 6; no activation is fused into it.
        inverted_residuals: MobileNetV2's blocks instead of separable layers; ``conv1_expand``, ``conv1_depthwise``,
            then ``conv1_pointwise`` or, before an ADD of that name, ``conv3_project``.
        unknown_op: A custom operation that nobody knows: between the picture and the first layer (``"input"``), before
            the post-processing of boxes (``"boxes"``), or as a second output (``"side"``). LiteRT can't run these.
        labels: Lines of a label file packed into the file.
        input_type: ``"float32"`` or ``"uint8"``: a quantised network's pictures, made into its own by QUANTIZE.
        damage: ``"text"`` writes a text file instead, ``"truncated"`` only the first 60% of the bytes.
    """

    relu: bool = False
    range_end: float | None = None
    inverted_residuals: bool = False
    unknown_op: Literal["input", "boxes", "side"] | None = None
    labels: tuple[str, ...] | None = None
    input_type: Literal["float32", "uint8"] | None = None
    damage: Literal["text", "truncated"] | None = None


@dataclass(frozen=True)
class SSDFaults(Faults):
    """What can be odd about a detector.

    Attributes:
        softmax: Scores that compete, instead of logistic ones.
        box_scales: The box coder's ``(y, x, h, w)``.
        postprocess: Without, boxes and scores are the outputs.
        anchor_scales: ``(scale_min, scale_max)``.
        anchor_shift: Moves every anchor's centre down and right, in shares of the picture.
    """

    softmax: bool = False
    box_scales: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    postprocess: bool = True
    anchor_scales: tuple[float, float] = (0.2, 0.95)
    anchor_shift: float = 0.0


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
    emitter = _Emitter(draw(plan, input_size, "RELU" if odd.relu else "RELU6", seed), input_size, kind, odd, "ssd")
    outputs, map_sizes, anchors = emitter.ssd(num_classes, odd)
    emitter.write(path, outputs)
    common = emitter.common(path, alpha)
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
    emitter = _Emitter(draw(plan, input_size, "RELU" if odd.relu else "RELU6", seed), input_size, kind, odd, "slim")
    emitter.write(path, emitter.classifier(num_classes))
    return WrittenClassifier(**emitter.common(path, alpha), num_classes=num_classes)


class _Emitter:
    """Turns layers into operations, in the order of TensorFlow's converters."""

    def __init__(
        self, layers: dict[str, Layer], size: tuple[int, int], kind: Kind, odd: Faults, family: Literal["ssd", "slim"]
    ) -> None:
        self.toco = kind == "uint8" and family == "ssd"
        self.kind, self.size, self.odd, self.family = kind, size, odd, family
        if odd.range_end is not None and kind not in ("uint8", "int8"):
            raise ValueError(f"range_end needs a quantised kind, got {kind}")
        self.layers, self.held = store(layers, size, kind, hidden_relu6=self.toco, range_end=odd.range_end)
        self.dtype = {"uint8": "UINT8", "int8": "INT8"}.get(kind, "FLOAT32")
        self.quantized = self.dtype != "FLOAT32"
        self.graph = GraphBuilder("TOCO Converted." if self.toco else "MLIR Converted.")
        self.graph.labels = odd.labels
        self.outputs: dict[str, int] = {}
        self.input = self._picture()
        for name in self.layers:
            if not name.startswith(("box", "class", "pool")):
                self._layer(name)

    def common(self, path: Path, alpha: float) -> dict[str, Any]:
        mean, std = input_scale(self.kind)
        return {
            "path": path,
            "kind": self.kind,
            "alpha": alpha,
            "input_size": self.size,
            "input_type": self.graph.dtype(self.input),
            "mean": mean,
            "std": std,
            "layers": self.layers,
            "faults": self.odd,
        }

    def write(self, path: Path, outputs: list[int]) -> None:
        if self.odd.unknown_op == "side":
            outputs = [*outputs, self._unknown(self.outputs["conv11_pointwise"])]
        data = self.graph.finish([self.input], outputs)
        if self.odd.damage == "text":
            data = b"<!DOCTYPE html>\n<title>404</title>\n"
        elif self.odd.damage == "truncated":
            data = data[: len(data) * 3 // 5]
        path.write_bytes(data)

    def _picture(self) -> int:
        quantization = input_quantization(self.kind) if self.quantized else None
        name = "normalized_input_image_tensor" if self.family == "ssd" else "input"
        shape, wanted = (1, *self.size, 3), (self.odd.input_type or self.dtype).upper()
        outer = inner = -1
        if wanted != self.dtype:
            assert quantization is not None, "only quantised networks take other pictures than their own"
            same = Quantization.of(float(quantization.scale[0]), int(quantization.zero_point[0]) + 128)
            outer = self.graph.tensor(name, shape, wanted, same if wanted == "UINT8" else None)
            name += "_quantized"
        inner = self.graph.tensor(name, shape, self.dtype, quantization)
        if outer >= 0:
            self.graph.op("QUANTIZE", [outer], [inner])
        self.outputs["input"] = self._unknown(inner) if self.odd.unknown_op == "input" else inner
        return outer if outer >= 0 else inner

    def _unknown(self, tensor: int) -> int:
        return self._follow(UNKNOWN, [tensor], self.graph.shape(tensor), "unknown", custom_options={"factor": 2.0})

    def _follow(self, kind: str, inputs: list[int], shape: tuple[int, ...], name: str, **more: Any) -> int:
        """An operation whose result is stored as its first input, unless ``like`` says otherwise."""
        dtype, quantization = more.pop("like", (self.graph.dtype(inputs[0]), self.graph.quantization(inputs[0])))
        out = self.graph.tensor(name, shape, dtype, quantization)
        self.graph.op(kind, inputs, [out], **more)
        return out

    def _constant(self, name: str, constant: Constant) -> int:
        stored = self.graph.tensor(name, constant.stored.shape, constant.dtype, constant.quantization, constant.stored)
        if constant.dtype != "FLOAT16":
            return stored
        real = self.graph.tensor(f"{name}_dequantize", constant.stored.shape, "FLOAT32")
        self.graph.op("DEQUANTIZE", [stored], [real], in_front=True)
        return real

    def _layer(self, name: str) -> int:
        layer, held = self.layers[name], self.held[name]
        inputs = [self.outputs[source] for source in layer.sources]
        activation = getattr(tflite.ActivationFunctionType, layer.activation)
        options = {"FusedActivationFunction": activation}
        kind, place = layer.kind.upper(), _tensorflow_name(name, self.layers, self.family)
        rows, columns, channels = self.graph.shape(inputs[0])[1:]
        if layer.kind == "pool":
            kind, shape = "AVERAGE_POOL_2D", (1, 1, 1, channels)
            options |= {"FilterHeight": rows, "FilterWidth": columns, "StrideH": 2, "StrideW": 2}
            options["Padding"] = tflite.Padding.VALID
        elif layer.kind == "add":
            shape = self.graph.shape(inputs[0])
        else:
            assert held.weight is not None
            assert held.bias is not None
            kind = {"conv": "CONV_2D", "depthwise": "DEPTHWISE_CONV_2D"}[layer.kind]
            inputs += [self._constant(f"{place}/weights", held.weight), self._constant(f"{place}/bias", held.bias)]
            shape = (1, -(-rows // layer.stride), -(-columns // layer.stride), len(held.bias.stored))
            options |= {"Padding": tflite.Padding.SAME, "StrideH": layer.stride, "StrideW": layer.stride}
            options |= {"DilationHFactor": 1, "DilationWFactor": 1}
            if layer.kind == "depthwise":
                options["DepthMultiplier"] = 1
        end = "BiasAdd" if "predictor" in name or name == "classifier" else "Relu6"
        out = self._follow(
            kind, inputs, shape, f"{place}/{end}", options=options, like=(self.dtype, _scale_of(held, self.quantized))
        )
        self.outputs[name] = out
        return out

    def _reshape(self, tensor: int, shape: tuple[int, ...], name: str) -> int:
        target = self.graph.tensor(f"{name}/shape", (len(shape),), "INT32", data=np.array(shape, np.int32))
        # MLIR's converter leaves the shape to the second input alone.
        options = {"options": {"NewShape": shape}} if self.family == "ssd" else {}
        return self._follow("RESHAPE", [tensor, target], shape, name, **options)

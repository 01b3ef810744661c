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
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from tflite_builder import NUMPY, GraphBuilder, Quantization, tflite
from tflite_networks import (
    MAPS,
    Constant,
    Layer,
    Planned,
    draw,
    forward,
    input_quantization,
    input_scale,
    plan_backbone,
    plan_classifier,
    plan_inverted,
    plan_ssd,
    ssd_anchors,
    store,
)

Change = Callable[[list[Planned]], list[Planned]]

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
        unknown_op: A custom operation that nobody knows: between the image and the first layer (``"input"``), or
            before the post-processing of boxes (``"boxes"``). LiteRT can't run these.
        labels: Lines of a label file packed into the file.
        input_type: ``"float32"`` or ``"uint8"``: a quantised network's images, made into its own by QUANTIZE.
        change: Takes and gives the plan of the backbone.
    """

    relu: bool = False
    range_end: float | None = None
    inverted_residuals: bool = False
    unknown_op: Literal["input", "boxes"] | None = None
    labels: tuple[str, ...] | None = None
    input_type: Literal["float32", "uint8"] | None = None
    change: Change | None = None


@dataclass(frozen=True)
class SSDFaults(Faults):
    """What can be odd about a detector.

    Attributes:
        softmax: Scores that compete, instead of logistic ones.
        box_scales: The box coder's ``(y, x, h, w)``.
        postprocess: Without, boxes and scores are the outputs.
        anchor_scales: ``(scale_min, scale_max)``.
        anchor_shift: Moves every anchor's centre down and right, in fractions of the image.
        change_anchors: Takes and gives the stored anchors ``(N, 4)``; float32 files only.
        anchors_end: Largest number that uint8 anchors can be; what is larger is cut off.
        stated_classes: Number of classes given to the post-processing instead of the true one.
    """

    softmax: bool = False
    box_scales: tuple[float, float, float, float] = (10.0, 10.0, 5.0, 5.0)
    postprocess: bool = True
    anchor_scales: tuple[float, float] = (0.2, 0.95)
    anchor_shift: float = 0.0
    change_anchors: Callable[[np.ndarray], np.ndarray] | None = None
    anchors_end: float | None = None
    stated_classes: int | None = None


class Emitter:
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
        self.graph.labels = tuple(odd.labels) if odd.labels is not None else None
        self.outputs: dict[str, int] = {}
        self.input = self._image()
        for name in self.layers:
            if not name.startswith(("box", "class", "pool")):  # what comes after the image's features
                self._layer(name)

    def file(self, outputs: list[int]) -> bytes:
        """The bytes of the whole file."""
        return self.graph.finish([self.input], outputs)

    def _image(self) -> int:
        quantization = input_quantization(self.kind) if self.quantized else None
        name = "normalized_input_image_tensor" if self.family == "ssd" else "input"
        shape, wanted = (1, *self.size, 3), (self.odd.input_type or self.dtype).upper()
        outer = inner = -1
        if wanted != self.dtype:
            if quantization is None:
                raise ValueError(f"input_type {wanted} needs a quantised kind, got {self.kind}")
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
        """An operation whose result is stored as its first input is."""
        out = self.graph.tensor(name, shape, self.graph.dtype(inputs[0]), self.graph.quantization(inputs[0]))
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
        """Write a layer; returns its output."""
        layer, held = self.layers[name], self.held[name]
        inputs = [self.outputs[source] for source in layer.sources]
        place = tensorflow_name(name, self.family)
        rows, columns, channels = self.graph.shape(inputs[0])[1:]
        options = {"FusedActivationFunction": getattr(tflite.ActivationFunctionType, layer.activation)}
        if layer.kind == "pool":
            kind, shape = "AVERAGE_POOL_2D", (1, 1, 1, channels)
            options |= {"FilterHeight": rows, "FilterWidth": columns, "StrideH": 2, "StrideW": 2}
            options["Padding"] = tflite.Padding.VALID
        elif layer.kind == "add":
            kind, shape = "ADD", self.graph.shape(inputs[0])
        else:
            assert held.weight is not None
            assert held.bias is not None
            kind = "CONV_2D" if layer.kind == "conv" else "DEPTHWISE_CONV_2D"
            inputs += [self._constant(f"{place}/weights", held.weight), self._constant(f"{place}/bias", held.bias)]
            shape = (1, -(-rows // layer.stride), -(-columns // layer.stride), len(held.bias.stored))
            options |= {"Padding": tflite.Padding.SAME, "StrideH": layer.stride, "StrideW": layer.stride}
            options |= {"DilationHFactor": 1, "DilationWFactor": 1}
            if layer.kind == "depthwise":
                options["DepthMultiplier"] = 1
        self.outputs[name] = self.graph.tensor(f"{place}/output", shape, self.dtype, held.output)
        self.graph.op(kind, inputs, [self.outputs[name]], options=options)
        return self.outputs[name]

    def _reshape(self, tensor: int, shape: tuple[int, ...], name: str) -> int:
        target = self.graph.tensor(f"{name}/shape", (len(shape),), "INT32", data=np.array(shape, np.int32))
        # MLIR's converter leaves the shape to the second input alone.
        options = {"NewShape": shape} if self.toco else None
        return self._follow("RESHAPE", [tensor, target], shape, name, options=options)

    def classifier(self, num_classes: int | None) -> list[int]:
        """Pooling and, unless there are features only, the linear layer and its probabilities. Returns the outputs."""
        pooled = self._layer("pool")
        if num_classes is None:
            return [pooled]
        logits = self._layer("classifier")
        flat = self._reshape(logits, (1, num_classes), "MobilenetV1/Logits/SpatialSqueeze")
        return [self._scores("SOFTMAX", flat, "MobilenetV1/Predictions/Reshape_1")]

    def ssd(self, num_classes: int, odd: SSDFaults) -> tuple[list[int], np.ndarray]:
        """Predictors and what follows them. Returns the outputs, and the anchors as stored."""
        parts: dict[str, list[int]] = {"box": [], "class": []}
        sizes: list[tuple[int, int]] = []
        boxes = -1
        for index in range(len(MAPS)):
            for what, columns in (("box", (1, 4)), ("class", (num_classes + 1,))):
                out = self._layer(f"{what}_predictor{index}")
                rows, cols, channels = self.graph.shape(out)[1:]
                count = rows * cols * channels // columns[-1]
                name = f"BoxPredictor_{index}/Reshape" + ("_1" if what == "class" else "")
                parts[what].append(self._reshape(out, (1, count, *columns), name))
                if what == "box":
                    sizes.append((rows, cols))
                    if index == len(MAPS) - 1:
                        boxes = self._concatenation(parts["box"], "box_predictor", "concat")
                        boxes = self._reshape(boxes, (1, self.graph.shape(boxes)[1], 4), "Squeeze")
        logits = self._concatenation(parts["class"], "class_predictor", "concat_1")
        scores = self._scores("SOFTMAX" if odd.softmax else "LOGISTIC", logits, "convert_scores")
        if odd.unknown_op == "boxes":
            boxes = self._unknown(boxes)
        anchors = self._anchors(sizes, odd)
        if not odd.postprocess:
            return [boxes, scores], anchors.real
        return self._postprocess(boxes, scores, anchors, num_classes, odd), anchors.real

    def _concatenation(self, parts: list[int], prefix: str, name: str) -> int:
        shapes = [self.graph.shape(part) for part in parts]
        quantization = None
        if self.quantized:
            ends = np.iinfo(NUMPY[self.dtype])
            spans = [self.held[f"{prefix}{k}"].output.real(np.array([ends.min, ends.max])) for k in range(len(parts))]
            whole = Quantization.spanning(min(low for low, _ in spans), max(high for _, high in spans), self.dtype)
            # Only uint8's operation can rescale; int8's parts share a scale already.
            quantization = whole if self.dtype == "UINT8" else self.graph.quantization(parts[0])
        shape = (1, sum(shape[1] for shape in shapes), *shapes[0][2:])
        out = self.graph.tensor(name, shape, self.dtype, quantization)
        self.graph.op("CONCATENATION", parts, [out], options={"Axis": 1, "FusedActivationFunction": 0})
        return out

    def _scores(self, kind: str, logits: int, name: str) -> int:
        """Probabilities; TensorFlow Lite asks for steps of 1/256 from 0 on."""
        steps = Quantization.of(1 / 256, -128 if self.dtype == "INT8" else 0) if self.quantized else None
        out = self.graph.tensor(name, self.graph.shape(logits), self.dtype, steps)
        self.graph.op(kind, [logits], [out], options={"Beta": 1.0} if kind == "SOFTMAX" else None)
        return out

    def _anchors(self, sizes: list[tuple[int, int]], odd: SSDFaults) -> Constant:
        anchors = ssd_anchors(sizes, self.size, *odd.anchor_scales)
        anchors[:, :2] += odd.anchor_shift
        if self.dtype == "UINT8":
            steps = Quantization.spanning(0.0, odd.anchors_end or float(anchors.max()), "UINT8")
            return Constant(steps.store(anchors, "UINT8"), "UINT8", steps)
        dtype = "FLOAT16" if self.kind == "float16" else "FLOAT32"
        stored = anchors.astype(NUMPY[dtype])
        return Constant(odd.change_anchors(stored) if odd.change_anchors else stored, dtype)

    def _postprocess(self, boxes: int, scores: int, anchors: Constant, num_classes: int, odd: SSDFaults) -> list[int]:
        if self.dtype == "INT8":
            boxes, scores = self._real(boxes, "boxes_real"), self._real(scores, "scores_real")
        options: dict[str, Any] = {
            "max_detections": 10,
            "max_classes_per_detection": 1,
            "nms_score_threshold": 1e-8,
            "nms_iou_threshold": 0.6,
            "num_classes": num_classes if odd.stated_classes is None else odd.stated_classes,
            **dict(zip(("y_scale", "x_scale", "h_scale", "w_scale"), map(float, odd.box_scales), strict=True)),
        }
        if self.toco:
            options["_output_quantized"] = True
        inputs = [boxes, scores, self._constant("anchors", anchors)]
        names = [POSTPROCESS, *(f"{POSTPROCESS}:{k}" for k in (1, 2, 3))]
        outputs = [self.graph.tensor(name, (), "FLOAT32") for name in names]
        self.graph.op(POSTPROCESS, inputs, outputs, custom_options=options)
        return outputs

    def _real(self, tensor: int, name: str) -> int:
        out = self.graph.tensor(name, self.graph.shape(tensor), "FLOAT32")
        self.graph.op("DEQUANTIZE", [tensor], [out])
        return out


def tensorflow_name(name: str, family: Literal["ssd", "slim"]) -> str:
    """What the training code calls a layer."""
    backbone = "FeatureExtractor/MobilenetV1/" if family == "ssd" else ""
    if name.startswith("conv"):
        number, _, part = name.removeprefix("conv").partition("_")
        return f"{backbone}MobilenetV1/Conv2d_{number}" + (f"_{part}" if part else "")
    if name.startswith("extra"):
        number, part = name.removeprefix("extra").split("_")
        place = f"1_Conv2d_{int(number) + 2}_1x1" if part == "1x1" else f"2_Conv2d_{int(number) + 2}_3x3_s2"
        return f"{backbone}Conv2d_13_pointwise_{place}"
    if name.startswith("box_predictor"):
        return f"BoxPredictor_{name.removeprefix('box_predictor')}/BoxEncodingPredictor"
    if name.startswith("class_predictor"):
        return f"BoxPredictor_{name.removeprefix('class_predictor')}/ClassPredictor"
    return "MobilenetV1/Logits/" + ("AvgPool_1a" if name == "pool" else "Conv2d_1c_1x1")


@dataclass(frozen=True)
class Written:
    """A file and the network in it.

    Attributes:
        path: The file.
        kind: How it stores numbers.
        input_size: ``(height, width)``.
        input_type: ``"FLOAT32"``, ``"UINT8"`` or ``"INT8"``.
        mean: What a pixel 0..255 is reduced by, and
        std: then divided by, to be what ``layers`` take.
        layers: Name -> layer, in order of execution, with exactly the real values that the file stores: ``conv0``,
            ``conv1_depthwise``, ``conv1_pointwise``, ...; a classifier's ``pool`` and ``classifier``; a detector's
            ``extra0_1x1``, ``extra0_3x3``, ..., ``box_predictor0``, ``class_predictor0``, ...
    """

    path: Path
    kind: Kind
    input_size: tuple[int, int]
    input_type: str
    mean: float
    std: float
    layers: dict[str, Layer] = field(repr=False)

    def feed(self, images: np.ndarray) -> np.ndarray:
        """Images ``(B, height, width, 3)`` uint8 as the file takes them."""
        if self.input_type == "FLOAT32":
            return self.normalized(images)
        return images if self.input_type == "UINT8" else (images.astype(np.int16) - 128).astype(np.int8)

    def normalized(self, images: np.ndarray) -> np.ndarray:
        """Images uint8 as ``layers`` take them, float32."""
        return (images.astype(np.float32) - np.float32(self.mean)) / np.float32(self.std)

    def activations(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Output of every layer ``(B, height, width, channels)``, computed by torch."""
        return forward(self.layers, self.normalized(images))


@dataclass(frozen=True)
class WrittenSSD(Written):
    """A detector.

    Attributes:
        anchors: ``(N, 4)`` float32: centre y, centre x, height, width, as fractions of the image, as stored.
    """

    anchors: np.ndarray = field(repr=False)

    def raw_outputs(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encoded boxes ``(B, N, 4)`` (y, x, h, w) and logits ``(B, N, 1 + num_classes)``, background first."""
        found = self.activations(images)
        boxes = [found[f"box_predictor{k}"].reshape(len(images), -1, 4) for k in range(len(MAPS))]
        logits = [found[f"class_predictor{k}"].reshape(*boxes[k].shape[:2], -1) for k in range(len(MAPS))]
        return np.concatenate(boxes, axis=1), np.concatenate(logits, axis=1)


def write_ssd(
    path: Path,
    *,
    alpha: float = 0.25,
    input_size: tuple[int, int] = (96, 128),
    num_classes: int = 3,
    kind: Kind = "float32",
    **faults: Any,
) -> WrittenSSD:
    """Write a detector: the same network in every kind, up to rounding.

    Args:
        path: File to write.
        alpha: Width multiplier.
        input_size: ``(height, width)``.
        num_classes: Without the background.
        kind: How numbers are stored.
        faults: Fields of :class:`SSDFaults`.
    """
    odd = SSDFaults(**faults)
    plan = plan_ssd(_backbone(alpha, odd), alpha, num_classes)
    emitter = _emitter(plan, input_size, kind, odd, "ssd")
    outputs, anchors = emitter.ssd(num_classes, odd)
    path.write_bytes(emitter.file(outputs))
    return WrittenSSD(**_common(path, kind, input_size, emitter), anchors=anchors)


def write_classifier(
    path: Path,
    *,
    alpha: float = 0.25,
    input_size: tuple[int, int] = (64, 96),
    num_classes: int | None = 11,
    kind: Kind = "float32",
    **faults: Any,
) -> Written:
    """Write a classifier, or with ``num_classes=None`` its features. ``faults`` are fields of :class:`Faults`."""
    odd = Faults(**faults)
    emitter = _emitter(plan_classifier(_backbone(alpha, odd), num_classes), input_size, kind, odd, "slim")
    path.write_bytes(emitter.file(emitter.classifier(num_classes)))
    return Written(**_common(path, kind, input_size, emitter))


def _backbone(alpha: float, odd: Faults) -> list[Planned]:
    plan = (plan_inverted if odd.inverted_residuals else plan_backbone)(alpha)
    return odd.change(plan) if odd.change else plan


def _emitter(
    plan: list[Planned], size: tuple[int, int], kind: Kind, odd: Faults, family: Literal["ssd", "slim"]
) -> Emitter:
    return Emitter(draw(tuple(plan), size, "RELU" if odd.relu else "RELU6"), size, kind, odd, family)


def _common(path: Path, kind: Kind, size: tuple[int, int], emitter: Emitter) -> dict[str, Any]:
    input_type = emitter.graph.dtype(emitter.input)
    mean, std = input_scale("float32" if input_type == "FLOAT32" else kind)
    return {
        "path": path,
        "kind": kind,
        "input_size": size,
        "input_type": input_type,
        "mean": mean,
        "std": std,
        "layers": copy.deepcopy(emitter.layers),
    }


def at_least(channels: int) -> Change:
    """Every layer at least this wide, as with the Object Detection API's ``min_depth``."""
    return lambda plan: [replace(layer, channels=max(channels, layer.channels)) for layer in plan]


def with_kernel(name: str, kernel: int) -> Change:
    """One layer with another kernel."""
    return lambda plan: [replace(layer, kernel=kernel) if layer.name == name else layer for layer in plan]


def with_stride(name: str, stride: int) -> Change:
    """One layer with another stride."""
    return lambda plan: [replace(layer, stride=stride) if layer.name == name else layer for layer in plan]


def with_channels(name: str, channels: int) -> Change:
    """One separable layer (``"conv5"``) with another width."""

    def change(plan: list[Planned]) -> list[Planned]:
        following = f"conv{int(name.removeprefix('conv')) + 1}_depthwise"
        return [
            replace(layer, channels=channels) if layer.name in (f"{name}_pointwise", following) else layer
            for layer in plan
        ]

    return change


class LiteRT:
    """TensorFlow Lite running a file, or a skip where it isn't installed."""

    def __init__(self, path: Path) -> None:
        module = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT isn't installed")
        self.interpreter = module.Interpreter(str(path), experimental_preserve_all_tensors=True, num_threads=1)
        self.interpreter.allocate_tensors()

    def run(self, fed: np.ndarray) -> None:
        """Compute everything for one image ``(height, width, 3)`` in the file's own type."""
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

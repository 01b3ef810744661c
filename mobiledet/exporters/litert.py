"""Writing an SSD as a TensorFlow Lite file that ends as the Object Detection API's do, in float32 or full INT8.

Such files (``detect.tflite``) take an image and give boxes, classes, scores and their number, found and suppressed
inside by the custom operation ``TFLite_Detection_PostProcess``.

INT8 is the scheme of TensorFlow's converter (Jacob et al. 2018; int8 weights with a scale for each channel, int8
activations, int32 biases, uint8 pixels), but for one thing: the predictors' results are made real map by map, each by a
scale of its own, instead of being brought to one common scale.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mobiledet.errors import ModelFileError
from mobiledet.exporters.base import Exporter, ExportOptions
from mobiledet.runtime.card import BLANK, MARK, ModelCard, seal
from mobiledet.runtime.litert import LITERT
from mobiledet.structures import ImageArray
from mobiledet.weights.tflite.contents import BOX_SCALES, CARD_FILE, POSTPROCESS

if TYPE_CHECKING:
    from torch import nn

    from mobiledet.exporters.tflite_file import Quantization
    from mobiledet.models.detection_model import DetectionModel
    from mobiledet.models.layers import UpsampleAdd
    from mobiledet.models.maps import MapLayers, Merge, Pyramid
    from mobiledet.models.quantization import Range
    from mobiledet.models.ssd import SSDHead

logger = logging.getLogger(__name__)

_SAME, _VALID, _RELU6 = 0, 1, 3
"""Of the enums Padding and ActivationFunctionType."""


def write_litert(
    model: DetectionModel,
    card: ModelCard,
    path: Path,
    options: ExportOptions,
    calibration: Sequence[ImageArray],
    *,
    pixels: bool = False,
) -> None:
    """Write the file, as an :class:`mobiledet.exporters.base.Exporter` does.

    With ``pixels`` it takes uint8 pixels in float32, too, as in INT8.

    Raises:
        ModelFileError: The model isn't an SSD on MobileNetV1, or can't be quantised.
        OSError: The file can't be written.
    """
    import torch

    from mobiledet.exporters.graph import CandidateGraph
    from mobiledet.models.quantization import measure_ranges, trained_ranges

    check_model(model)
    net = CandidateGraph(model).model
    ranges = trained_ranges(model) if options.int8 else None
    if options.int8 and ranges is None:
        logger.info("measuring ranges on %d images ...", len(calibration))
        ranges = measure_ranges(net, (torch.from_numpy(images).permute(0, 3, 1, 2) for images in calibration))
    path.write_bytes(seal(_Writer(net, card, ranges, pixels=pixels or options.int8).file()))


def check_model(model: DetectionModel) -> None:
    """Make sure that such a file can hold a model.

    Raises:
        ModelFileError: It can't.
    """
    from mobiledet.models.maps import ExtraLayers, Pyramid
    from mobiledet.models.mobilenet_v1 import MobileNetV1

    layers = getattr(model.head, "extra_layers", None)
    if not isinstance(model.backbone, MobileNetV1) or not isinstance(layers, ExtraLayers | Pyramid):
        what = f"{type(model.backbone).__name__} with {type(model.head).__name__}"
        raise ModelFileError(
            f"{what}: {POSTPROCESS} decodes the anchors of an SSD, and the writer knows the layers of MobileNetV1, "
            "SSD, SSDLite and FPN only; export it as onnx, openvino or ncnn"
        )


class _Map(NamedTuple):
    """A tensor ``(1, height, width, channels)`` of the file; ``step`` is None in float."""

    tensor: int
    shape: tuple[int, int, int]
    step: Quantization | None


class _Writer:
    """Writes one detector, its batch-norm folded already; with ``ranges`` in INT8, with ``pixels`` taking uint8."""

    def __init__(
        self, net: DetectionModel, card: ModelCard, ranges: Mapping[str, Range] | None, *, pixels: bool
    ) -> None:
        from mobiledet.exporters.tflite_file import FileBuilder

        self.net, self.card, self.ranges, self.pixels = net, card, ranges, pixels
        self.names = {module: name for name, module in net.named_modules()}
        self.mean, self.std = net.mean.flatten().tolist(), (1 / net.inverse_std.flatten()).tolist()
        self.builder = FileBuilder()

    def file(self) -> bytes:
        """The file's content, its checksum still blank."""
        from mobiledet.exporters.tflite_file import LABEL_FILE, detector_metadata

        head: SSDHead = self.net.head  # type: ignore[assignment]
        given, x = self._image()
        maps = []
        for name, layer in self.net.backbone.layers.items():  # type: ignore[operator, union-attr]
            x = self._layers(x, layer)
            if name in self.net.backbone.outputs:  # type: ignore[operator]
                maps.append(x)
        maps = self._head_maps(maps, head.extra_layers)
        # All convolutions first: edgetpu_compiler gives the processor all that follows what the Edge TPU can't do.
        boxes = self._predictions(maps, head.bbox_predictors, "boxes")
        logits = self._predictions(maps, head.cls_predictors, "logits")
        joined = self._joined(boxes, 4, "boxes"), self._joined(logits, head.num_outputs, "logits")
        found = self._detections(*joined, [x.shape[:2] for x in maps])
        version = self.card.versions.get("mobiledet", "")
        about = detector_metadata("mobiledet detector", self.mean, self.std, version=version, pixels=self.pixels)
        self.builder.metadata("TFLITE_METADATA", about)
        self.builder.metadata("checksum", MARK + BLANK)
        files = {LABEL_FILE: "".join(f"{name}\n" for name in self.card.names), CARD_FILE: self.card.to_json()}
        return self.builder.finish([given], found, files)

    def _head_maps(self, maps: Sequence[_Map], layers: MapLayers) -> list[_Map]:
        """The maps that are predicted from, of the backbone's."""
        from mobiledet.models.maps import ExtraLayers

        if isinstance(layers, ExtraLayers):
            coarse = maps if layers.fine is None else maps[1:]
            made = [*coarse[:-1], *itertools.accumulate(layers.pairs, self._layers, initial=coarse[-1])]
            return made if layers.fine is None else [*made, self._head_maps(maps[:2], layers.fine)[0]]
        pyramid: Pyramid = layers  # type: ignore[assignment]
        *finer, coarsest = [self._layers(x, lateral) for x, lateral in zip(maps, pyramid.laterals, strict=True)]
        made = [coarsest]
        merges: Iterable[Merge] = pyramid.merges  # type: ignore[assignment]
        for merge, fine in zip(merges, reversed(finer), strict=True):
            made.insert(0, self._layers(self._sum(fine, made[0], merge.add), merge.smooth))
        return [*made[:-1], *itertools.accumulate(pyramid.further, self._layers, initial=made[-1])]

    def _sum(self, fine: _Map, coarse: _Map, module: UpsampleAdd) -> _Map:
        from mobiledet.exporters.tflite_file import Quantization
        from mobiledet.models.quantization import range_steps

        name = self.names[module]
        step = None if self.ranges is None else Quantization.of(*range_steps(self.ranges[name]))
        kind, version = ("FLOAT32", 1) if step is None else ("INT8", 2)
        size = self.builder.tensor(f"{name}.size", (2,), "INT32", None, np.array(fine.shape[:2], np.int32))
        doubled = self.builder.tensor(f"{name}.doubled", (1, *fine.shape), kind, coarse.step)
        self.builder.op("RESIZE_NEAREST_NEIGHBOR", [coarse.tensor, size], [doubled], version=version)
        out = self.builder.tensor(name, (1, *fine.shape), kind, step)
        self.builder.op("ADD", [fine.tensor, doubled], [out], version=version)
        return _Map(out, fine.shape, step)

    def _image(self) -> tuple[int, _Map]:
        """The input: normalised floats, or uint8 pixels."""
        from mobiledet.exporters.tflite_file import Quantization

        shape = (*self.card.resize.size, 3)
        if self.ranges is None:
            given = self.builder.tensor("image", (1, *shape), "UINT8" if self.pixels else "FLOAT32")
            return given, _Map(self._normalised(given, shape) if self.pixels else given, shape, None)
        if len(set(self.mean)) > 1 or len(set(self.std)) > 1:
            raise ModelFileError("INT8 needs one mean and one deviation for all colours; export it in float")
        zero = round(self.mean[0])
        pixels, step = (Quantization.of(1 / self.std[0], zero - minus) for minus in (0, 128))
        given = self.builder.tensor("image", (1, *shape), "UINT8", pixels)
        inner = self.builder.tensor("pixels", (1, *shape), "INT8", step)
        self.builder.op("QUANTIZE", [given], [inner])
        return given, _Map(inner, shape, step)

    def _normalised(self, given: int, shape: tuple[int, int, int]) -> int:
        """uint8 pixels as ``(pixel - mean) / std``."""
        scale = 1 / np.array(self.std, np.float32)
        x = self.builder.tensor("pixels", (1, *shape), "FLOAT32")
        self.builder.op("CAST", [given], [x], options={"inDataType": 3, "outDataType": 0})  # uint8, float32
        for kind, values in (("MUL", scale), ("ADD", -np.array(self.mean, np.float32) * scale)):
            stored = self.builder.tensor(f"{kind.lower()}.values", (3,), "FLOAT32", None, values)
            out = self.builder.tensor(kind.lower(), (1, *shape), "FLOAT32")
            self.builder.op(kind, [x, stored], [out])
            x = out
        return x

    def _layers(self, x: _Map, module: nn.Module) -> _Map:
        for conv, relu6 in _convolutions(module):
            x = self._conv(x, conv, relu6)
        return x

    def _conv(self, x: _Map, conv: nn.Conv2d, relu6: bool, order: Sequence[int] | None = None) -> _Map:
        """A convolution, its output channels in another ``order`` if one is given."""
        from mobiledet.exporters.tflite_file import Quantization
        from mobiledet.models.quantization import range_steps

        assert conv.bias is not None
        name, stride, depthwise = self.names[conv], conv.stride[0], conv.groups > 1
        weight = conv.weight.detach().numpy().transpose((1, 2, 3, 0) if depthwise else (0, 2, 3, 1))
        bias = conv.bias.detach().double().numpy()
        if order is not None:
            weight, bias = weight[list(order)], bias[list(order)]
        if self.ranges is not None and name.endswith("layers.conv0.conv"):
            # The padding is the rounded mean; what it differs by is the same for every pixel.
            shift = (round(self.mean[0]) - self.mean[0]) / self.std[0]
            bias = bias + shift * weight.sum(axis=(1, 2, 3))
        shape = (-(-x.shape[0] // stride), -(-x.shape[1] // stride), len(bias))
        x, padding = self._padded(x, conv)
        if x.step is None or self.ranges is None:
            step = None
            stored = self.builder.tensor(f"{name}.weight", weight.shape, "FLOAT32", None, weight.astype(np.float32))
            added = self.builder.tensor(f"{name}.bias", bias.shape, "FLOAT32", None, bias.astype(np.float32))
        else:
            step = Quantization.of(*range_steps(self.ranges[name]))
            axis = 3 if depthwise else 0
            # Of a channel whose weights are next to nothing, the bias must still fit into 32 bits.
            least = np.maximum(np.abs(bias) / (float(x.step.scale[0]) * 2**30), 1e-9)
            largest = np.abs(weight).max(axis=tuple(k for k in range(4) if k != axis))
            scale = np.maximum(largest / 127, least).astype(np.float32)
            zero, sums = np.zeros(len(scale), np.int64), scale.astype(np.float64) * float(x.step.scale[0])
            whole = np.rint(weight / scale.reshape([-1 if k == axis else 1 for k in range(4)])).astype(np.int8)
            stored = self.builder.tensor(f"{name}.weight", weight.shape, "INT8", Quantization(scale, zero, axis), whole)
            whole, units = np.rint(bias / sums).astype(np.int32), Quantization(sums.astype(np.float32), zero)
            added = self.builder.tensor(f"{name}.bias", bias.shape, "INT32", units, whole)
        out = self.builder.tensor(name, (1, *shape), "FLOAT32" if step is None else "INT8", step)
        options = {
            "padding": padding,
            **dict.fromkeys(("strideH", "strideW"), stride),
            **dict.fromkeys(("dilationHFactor", "dilationWFactor"), 1),
            "fusedActivationFunction": _RELU6 if relu6 else 0,
        }
        if depthwise:
            options["depthMultiplier"] = 1
        kind, version = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D", 1 if step is None else 3
        self.builder.op(kind, [x.tensor, stored, added], [out], version=version, options=options)
        return _Map(out, shape, step)

    def _padded(self, x: _Map, conv: nn.Conv2d) -> tuple[_Map, int]:
        """The input as the convolution needs it: SAME where it pads like that, else padded by an operation."""
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        height, width = x.shape[:2]
        if kernel == 1 or stride == 1 or getattr(conv, "same", False) or (height % 2 and width % 2):
            return x, _SAME
        # One pixel all around; at an even side no kernel reaches the last one.
        amounts = np.array([[0, 0], [1, height % 2], [1, width % 2], [0, 0]], np.int32)
        shape = (height + 1 + height % 2, width + 1 + width % 2, x.shape[2])
        name = f"{self.names[conv]}.padded"
        sides = self.builder.tensor(f"{name}.sides", (4, 2), "INT32", None, amounts)
        out = self.builder.tensor(name, (1, *shape), "FLOAT32" if x.step is None else "INT8", x.step)
        self.builder.op("PAD", [x.tensor, sides], [out], version=1 if x.step is None else 2)
        return _Map(out, shape, x.step), _VALID

    def _predictions(self, maps: Sequence[_Map], predictors: nn.ModuleList, name: str) -> list[tuple[_Map, nn.Conv2d]]:
        """What the predictors of all maps give, each with its last convolution."""
        outs = []
        for x, predictor in zip(maps, predictors, strict=True):
            *before, (conv, _) = _convolutions(predictor)
            for inner, relu6 in before:
                x = self._conv(x, inner, relu6)
            order = None
            if name == "boxes":  # the operation wants dy, dx, dh, dw
                order = [anchor + place for anchor in range(0, conv.out_channels, 4) for place in (1, 0, 3, 2)]
            outs.append((self._conv(x, conv, False, order), conv))
        return outs

    def _joined(self, outs: Sequence[tuple[_Map, nn.Conv2d]], values: int, name: str) -> int:
        """Real predictions ``(1, anchors, values)`` of all maps."""
        parts = []
        for out, conv in outs:
            tensor, count = out.tensor, out.shape[0] * out.shape[1] * out.shape[2] // values
            if out.step is not None:
                tensor = self.builder.tensor(f"{self.names[conv]}.real", (1, *out.shape), "FLOAT32")
                self.builder.op("DEQUANTIZE", [out.tensor], [tensor], version=2)
            parts.append((self._reshaped(tensor, (1, count, values), f"{self.names[conv]}.flat"), count))
        whole = self.builder.tensor(name, (1, sum(count for _, count in parts), values), "FLOAT32")
        self.builder.op("CONCATENATION", [part for part, _ in parts], [whole], options={"axis": 1})
        return whole

    def _reshaped(self, tensor: int, shape: tuple[int, ...], name: str) -> int:
        wanted = self.builder.tensor(f"{name}.shape", (len(shape),), "INT32", None, np.array(shape, np.int32))
        out = self.builder.tensor(name, shape, "FLOAT32")
        self.builder.op("RESHAPE", [tensor, wanted], [out], options={"newShape": list(shape)})
        return out

    def _detections(self, boxes: int, logits: int, map_sizes: Sequence[tuple[int, int]]) -> list[int]:
        from mobiledet.ops.boxes import xyxy_to_cxcywh

        head: SSDHead = self.net.head  # type: ignore[assignment]
        height, width = self.card.resize.size
        anchors = head.anchors(list(map_sizes), (height, width))
        shares = (xyxy_to_cxcywh(anchors)[:, [1, 0, 3, 2]].numpy() / (height, width, height, width)).astype(np.float32)
        stored = self.builder.tensor("anchors", shares.shape, "FLOAT32", None, shares)
        scores = self.builder.tensor("scores", (1, len(shares), head.num_outputs), "FLOAT32")
        if head.settings.scores == "sigmoid":
            self.builder.op("LOGISTIC", [logits], [scores])
        else:
            self.builder.op("SOFTMAX", [logits], [scores], options={"beta": 1.0})
        most = self.card.max_detections
        shapes = {"": (1, most, 4), ":1": (1, most), ":2": (1, most), ":3": (1,)}
        found = [self.builder.tensor(f"{POSTPROCESS}{end}", shape, "FLOAT32") for end, shape in shapes.items()]
        options = {
            "max_detections": most,
            "max_classes_per_detection": 1,
            "detections_per_class": most,
            "use_regular_nms": False,  # see mobiledet.runtime.litert
            "nms_score_threshold": self.card.score_threshold,
            "nms_iou_threshold": self.card.iou_threshold,
            "num_classes": head.num_classes,
            **BOX_SCALES,
        }
        self.builder.op(POSTPROCESS, [boxes, scores, stored], found, custom_options=options)
        return found


def _convolutions(module: nn.Module) -> Iterator[tuple[nn.Conv2d, bool]]:
    """The convolutions of a block in the order they run, each with whether a ReLU6 follows."""
    from torch import nn

    from mobiledet.models.layers import ConvNormAct

    if isinstance(module, ConvNormAct):
        yield module.conv, True
    elif isinstance(module, nn.Conv2d):
        yield module, False
    else:
        for child in module.children():
            yield from _convolutions(child)


LITERT_EXPORTER = Exporter(
    runtime=LITERT,
    write=write_litert,
    packages=("ai_edge_litert",),
    int8_packages=(),
    extra="litert",
    batches=False,
)

"""TensorFlow Lite files put together from tensors and operations, with the metadata that readers look for.

The flatbuffer is packed by the classes that come with ``ai-edge-litert``; those of the metadata (whose schema no small
package holds) are written here, field by field.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers
from numpy.typing import NDArray

LABEL_FILE = "labelmap.txt"

OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "RESHAPE": "ReshapeOptions",
    "CONCATENATION": "ConcatenationOptions",
    "PAD": "PadOptions",
    "QUANTIZE": "QuantizeOptions",
    "DEQUANTIZE": "DequantizeOptions",
    "SOFTMAX": "SoftmaxOptions",
    "CAST": "CastOptions",
    "MUL": "MulOptions",
    "ADD": "AddOptions",
    "RESIZE_NEAREST_NEIGHBOR": "ResizeNearestNeighborOptions",
}
"""Name of the options table of each operation that has one."""


class Quantization(NamedTuple):
    """``real = scale * (stored - zero_point)``, with one scale or one for each channel of the last or first axis."""

    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int = 0

    @classmethod
    def of(cls, scale: float, zero_point: int) -> Quantization:
        """One scale for the whole tensor."""
        return cls(np.array([scale], np.float32), np.array([zero_point], np.int64))


class FileBuilder:
    """Collects tensors and operations; tensors are known by their index."""

    def __init__(self) -> None:
        self._graph = schema.SubGraphT()
        self._graph.name, self._graph.tensors, self._graph.operators = "main", [], []
        self._model = schema.ModelT()
        self._model.version, self._model.description = 3, "mobiledet"
        self._model.operatorCodes, self._model.subgraphs = [], [self._graph]
        self._model.buffers, self._model.metadata = [schema.BufferT()], []
        self._codes: dict[tuple[str, int], int] = {}

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        quantization: Quantization | None = None,
        data: NDArray[Any] | None = None,
    ) -> int:
        """Add a tensor; with ``data`` a constant."""
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type = name, list(shape), getattr(schema.TensorType, dtype)
        tensor.buffer = 0 if data is None else self._buffer(np.ascontiguousarray(data).tobytes())
        if quantization is not None:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = quantization.scale
            tensor.quantization.zeroPoint = quantization.zero_point
            tensor.quantization.quantizedDimension = quantization.axis
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        version: int = 1,
        options: Mapping[str, Any] | None = None,
        custom_options: Mapping[str, Any] | None = None,
    ) -> None:
        """Add an operation; ``options`` are fields of its options table, ``custom_options`` those of a custom one."""
        op = schema.OperatorT()
        op.opcodeIndex = self._code(kind, version)
        op.inputs, op.outputs = list(inputs), list(outputs)
        if custom_options is not None:
            op.customOptions = np.frombuffer(bytes(flexbuffers.Dumps(dict(custom_options))), np.uint8)
        elif kind in OPTIONS:
            op.builtinOptionsType = getattr(schema.BuiltinOptions, OPTIONS[kind])
            op.builtinOptions = getattr(schema, f"{OPTIONS[kind]}T")()
            for name, value in (options or {}).items():
                setattr(op.builtinOptions, name, value)
        self._graph.operators.append(op)

    def metadata(self, name: str, content: bytes) -> None:
        """Add an entry to the model's metadata."""
        entry = schema.MetadataT()
        entry.name, entry.buffer = name, self._buffer(content)
        self._model.metadata.append(entry)

    def finish(self, inputs: Sequence[int], outputs: Sequence[int], files: Mapping[str, str]) -> bytes:
        """The whole file, text files packed behind it, where the metadata's readers look for them."""
        self._graph.inputs, self._graph.outputs = list(inputs), list(outputs)
        builder = _AlignedBuilder(1 << 20)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        stream = io.BytesIO(bytes(builder.Output()))
        with zipfile.ZipFile(stream, "a") as archive:
            for name, text in files.items():
                archive.writestr(zipfile.ZipInfo(name), text)  # without a date: the same model is the same file
        return stream.getvalue()

    def _buffer(self, content: bytes) -> int:
        buffer = schema.BufferT()
        buffer.data = np.frombuffer(content, np.uint8)
        self._model.buffers.append(buffer)
        return len(self._model.buffers) - 1

    def _code(self, kind: str, version: int) -> int:
        if (kind, version) not in self._codes:
            code = schema.OperatorCodeT()
            builtin = getattr(schema.BuiltinOperator, kind, None)
            if builtin is None:
                builtin, code.customCode = schema.BuiltinOperator.CUSTOM, kind
            # The first field is what readers from before 2020 look at.
            code.deprecatedBuiltinCode, code.builtinCode, code.version = min(builtin, 127), builtin, version
            self._codes[kind, version] = len(self._model.operatorCodes)
            self._model.operatorCodes.append(code)
        return self._codes[kind, version]


class _AlignedBuilder(flatbuffers.Builder):  # type: ignore[misc]
    """Bytes start at multiples of 16, as the schema asks and fast kernels rely on; the generated code forgets it."""

    def StartVector(self, elemSize: int, numElems: int, alignment: int) -> Any:  # noqa: N802, N803
        """See `flatbuffers.Builder`."""
        return super().StartVector(elemSize, numElems, 16 if elemSize == 1 else alignment)


def detector_metadata(name: str, mean: Sequence[float], std: Sequence[float], *, version: str, pixels: bool) -> bytes:
    """TensorFlow Lite metadata of a detector that ends in ``TFLite_Detection_PostProcess``.

    Says that the input is an RGB image and how it is normalised, which output is which, and that ``LABEL_FILE`` names
    the classes. ``pixels``: the image is uint8.
    """
    b = flatbuffers.Builder(1024)
    enum = {"RGB": 1, "BOUNDARIES": 1, "RATIO": 0, "VALUE_LABELS": 3}
    feature, image, boxes = 1, 2, 3

    def text(value: str) -> tuple[str, int]:
        return "offset", b.CreateString(value)

    def floats(values: Sequence[float]) -> tuple[str, int]:
        return "offset", b.CreateNumpyVector(np.asarray(values, np.float32))

    def tables(values: Sequence[int]) -> tuple[str, int]:
        b.StartVector(4, len(values), 4)
        for value in reversed(values):
            b.PrependUOffsetTRelative(value)
        return "offset", b.EndVector()

    def table(size: int, **fields: tuple[str, int]) -> int:
        """A table of so many fields, those given set, by their place: ``_0``, ``_1``, ..."""
        b.StartObject(size)
        for place, (kind, value) in fields.items():
            slot = int(place[1:])
            if kind == "offset":
                b.PrependUOffsetTRelativeSlot(slot, value, 0)
            else:
                b.PrependUint8Slot(slot, value, 0)
        return int(b.EndObject())

    def content(kind: int, properties: int) -> tuple[str, int]:
        return "offset", table(2, _0=("byte", kind), _1=("offset", properties))

    def tensor(name: str, description: str, what: tuple[str, int], **more: tuple[str, int]) -> int:
        return table(7, _0=text(name), _1=text(description), _3=what, **more)

    unit = table(2, _0=("byte", 1), _1=("offset", table(2, _0=floats(mean), _1=floats(std))))
    ends = [
        floats([(limit - m) / s if not pixels else limit for m, s in zip(mean, std, strict=True)]) for limit in (255, 0)
    ]
    stats = table(2, _0=ends[0], _1=ends[1])
    given = tensor(
        "image",
        "Image to look for objects in",
        content(image, table(2, _0=("byte", enum["RGB"]))),
        _4=tables([unit]),
        _5=("offset", stats),
    )
    order = ("offset", b.CreateNumpyVector(np.array([1, 0, 3, 2], np.uint32)))
    box = table(3, _0=order, _1=("byte", enum["BOUNDARIES"]), _2=("byte", enum["RATIO"]))
    label_file = table(5, _0=text(LABEL_FILE), _1=text("Names of the classes"), _2=("byte", enum["VALUE_LABELS"]))
    found = [
        tensor("location", "Boxes: left, top, right, bottom by the index", content(boxes, box)),
        tensor("category", "Classes, counted from 0", content(feature, table(0)), _6=tables([label_file])),
        tensor("score", "Scores from 0 to 1", content(feature, table(0))),
        tensor("number of detections", "How many count", content(feature, table(0))),
    ]
    members = tables([text(part)[1] for part in ("location", "category", "score")])
    group = table(2, _0=text("detection_result"), _1=members)
    graph = table(10, _2=tables([given]), _3=tables(found), _8=tables([group]))
    model = table(8, _0=text(name), _1=text("Object detector"), _2=text(version), _3=tables([graph]), _7=text("1.2.0"))
    b.Finish(model, b"M001")
    return bytes(b.Output())

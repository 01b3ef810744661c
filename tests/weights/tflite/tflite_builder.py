"""TensorFlow Lite files put together from tensors and operations: the storage only, no network."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
import pytest
from flatbuffers import flexbuffers
from flatbuffers.number_types import UOffsetTFlags

tflite = pytest.importorskip("tflite", reason="the package tflite isn't installed")

SCHEMA_VERSION = 3
DATA_ALIGNMENT = 16
"""Bytes: the schema asks for it, and optimised kernels rely on it."""


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (stored - zero_point)``.

    Attributes:
        scale: One step, or one per channel.
        zero_point: Likewise.
        axis: Which dimension the channels are.
    """

    scale: np.ndarray
    zero_point: np.ndarray
    axis: int = 0

    @classmethod
    def of(cls, scale: float, zero_point: int) -> Quantization:
        """One scale for the whole tensor."""
        return cls(np.array([scale], np.float32), np.array([zero_point], np.int64))

    @classmethod
    def spanning(cls, low: float, high: float, dtype: str) -> Quantization:
        """256 steps from ``low`` to ``high``, moved so that 0 is one of them."""
        low, high = min(float(low), 0.0), max(float(high), 0.0)
        scale = np.float32((high - low) / 255.0)
        return cls.of(scale, round(-low / float(scale)) + (-128 if dtype == "INT8" else 0))

    def store(self, values: np.ndarray, dtype: str) -> np.ndarray:
        """Real values to the nearest storable numbers."""
        info = np.iinfo(NUMPY[dtype])
        stored = np.rint(values / self._along(self.scale, values) + self._along(self.zero_point, values))
        return np.clip(stored, info.min, info.max).astype(NUMPY[dtype])

    def real(self, stored: np.ndarray) -> np.ndarray:
        """What stored numbers stand for, float32."""
        zero = self._along(self.zero_point, stored)
        return (self._along(self.scale, stored) * (stored.astype(np.float64) - zero)).astype(np.float32)

    def _along(self, parameter: np.ndarray, values: np.ndarray) -> np.ndarray:
        shape = [1] * values.ndim
        if len(parameter) > 1:
            shape[self.axis] = len(parameter)
        return parameter.astype(np.float64).reshape(shape)


NUMPY: dict[str, type[np.generic]] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT32": np.int32,
    "UINT8": np.uint8,
    "INT8": np.int8,
}


class GraphBuilder:
    """Collects tensors and operations, then writes them as one file. Tensors are named by their index."""

    def __init__(self, description: str) -> None:
        self.description = description
        self.labels: tuple[str, ...] | None = None
        self._tensors: list[tuple[str, tuple[int, ...], str, Quantization | None, int]] = []
        self._buffers: list[bytes] = [b""]
        self._ops: list[tuple[str, Sequence[int], Sequence[int], Mapping[str, Any] | None, bytes]] = []
        self._ops_in_front = 0

    def tensor(
        self,
        name: str,
        shape: Sequence[int],
        dtype: str,
        quantization: Quantization | None = None,
        data: np.ndarray | None = None,
    ) -> int:
        """Add a tensor; with ``data`` a constant. Returns its index."""
        buffer = 0
        if data is not None:
            assert data.shape == tuple(shape), (name, data.shape, shape)
            assert data.dtype == NUMPY[dtype], (name, data.dtype, dtype)
            self._buffers.append(np.ascontiguousarray(data, data.dtype.newbyteorder("<")).tobytes())
            buffer = len(self._buffers) - 1
        self._tensors.append((name, tuple(int(n) for n in shape), dtype, quantization, buffer))
        return len(self._tensors) - 1

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Dimensions of a tensor."""
        return self._tensors[tensor][1]

    def dtype(self, tensor: int) -> str:
        """How a tensor is stored."""
        return self._tensors[tensor][2]

    def quantization(self, tensor: int) -> Quantization | None:
        """Scale of a tensor."""
        return self._tensors[tensor][3]

    def op(
        self,
        kind: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        *,
        options: Mapping[str, Any] | None = None,
        custom_options: Mapping[str, Any] | None = None,
        in_front: bool = False,
    ) -> None:
        """Add an operation; ``options`` are the fields of its options table, ``kind`` any name for a custom one."""
        packed = bytes(flexbuffers.Dumps(dict(custom_options))) if custom_options is not None else b""
        place = self._ops_in_front if in_front else len(self._ops)
        self._ops.insert(place, (kind, tuple(inputs), tuple(outputs), options, packed))
        self._ops_in_front += in_front

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The whole file."""
        b = flatbuffers.Builder(1 << 16)
        buffers = [self._buffer(b, data) for data in self._buffers]
        kinds = list(dict.fromkeys(op[0] for op in self._ops))
        codes = [_operator_code(b, kind) for kind in kinds]
        tensors = [self._tensor(b, index) for index in range(len(self._tensors))]
        ops = [self._operator(b, op, kinds) for op in self._ops]
        lists = {
            "Tensors": _offsets(b, tensors),
            "Inputs": _ints(b, inputs),
            "Outputs": _ints(b, outputs),
            "Operators": _offsets(b, ops),
            "Name": b.CreateString("main"),
        }
        graphs = _offsets(b, [_table(b, "SubGraph", lists)])
        model = {
            "Version": SCHEMA_VERSION,
            "OperatorCodes": _offsets(b, codes),
            "Subgraphs": graphs,
            "Description": b.CreateString(self.description),
            "Buffers": _offsets(b, buffers),
        }
        b.Finish(_table(b, "Model", model), file_identifier=b"TFL3")
        return bytes(b.Output()) if self.labels is None else with_label_file(bytes(b.Output()), self.labels)

    def _buffer(self, b: flatbuffers.Builder, data: bytes) -> int:
        if not data:
            return _table(b, "Buffer", {})
        return _table(b, "Buffer", {"Data": _bytes(b, data)})

    def _tensor(self, b: flatbuffers.Builder, index: int) -> int:
        name, shape, dtype, quantization, buffer = self._tensors[index]
        fields = {
            "Shape": _ints(b, shape),
            "Type": getattr(tflite.TensorType, dtype),
            "Buffer": buffer,
            "Name": b.CreateString(name),
        }
        if quantization is not None:
            parameters = {
                "Scale": b.CreateNumpyVector(quantization.scale.astype(np.float32)),
                "ZeroPoint": b.CreateNumpyVector(quantization.zero_point.astype(np.int64)),
                "QuantizedDimension": quantization.axis,
            }
            fields["Quantization"] = _table(b, "QuantizationParameters", parameters)
        return _table(b, "Tensor", fields)

    def _operator(self, b: flatbuffers.Builder, op: tuple[Any, ...], kinds: list[str]) -> int:
        kind, inputs, outputs, options, custom = op
        fields: dict[str, int] = {"OpcodeIndex": kinds.index(kind), "Inputs": _ints(b, inputs)}
        fields["Outputs"] = _ints(b, outputs)
        if custom:
            fields["CustomOptions"] = _bytes(b, custom)
        if options is not None:
            name = OPTIONS[kind]
            written = {key: _ints(b, v) if isinstance(v, (tuple, list)) else v for key, v in options.items()}
            fields["BuiltinOptionsType"] = getattr(tflite.BuiltinOptions, name)
            fields["BuiltinOptions"] = _table(b, name, written)
        return _table(b, "Operator", fields)


OPTIONS = {
    "CONV_2D": "Conv2DOptions",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions",
    "RESHAPE": "ReshapeOptions",
    "CONCATENATION": "ConcatenationOptions",
    "AVERAGE_POOL_2D": "Pool2DOptions",
    "SOFTMAX": "SoftmaxOptions",
    "ADD": "AddOptions",
}


def with_label_file(model: bytes, labels: Sequence[str], name: str = "labelmap.txt") -> bytes:
    """A file with a zip of class names behind it, as the metadata tools pack them."""
    stream = io.BytesIO(model)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr(name, "".join(f"{label}\n" for label in labels))
    return stream.getvalue()


def _operator_code(b: flatbuffers.Builder, kind: str) -> int:
    builtin = getattr(tflite.BuiltinOperator, kind, None)
    if builtin is None:
        name, builtin = b.CreateString(kind), tflite.BuiltinOperator.CUSTOM
        return _table(b, "OperatorCode", {**_code(builtin), "CustomCode": name})
    return _table(b, "OperatorCode", _code(builtin))


def _code(builtin: int) -> dict[str, int]:
    return {"DeprecatedBuiltinCode": min(builtin, 127), "BuiltinCode": builtin, "Version": 1}


def _table(b: flatbuffers.Builder, name: str, fields: Mapping[str, Any]) -> int:
    getattr(tflite, f"{name}Start")(b)
    for field, value in fields.items():
        getattr(tflite, f"{name}Add{field}")(b, value)
    return int(getattr(tflite, f"{name}End")(b))


def _ints(b: flatbuffers.Builder, values: Sequence[int]) -> int:
    return int(b.CreateNumpyVector(np.asarray(values, np.int32).reshape(-1)))


def _offsets(b: flatbuffers.Builder, values: Sequence[int]) -> int:
    b.StartVector(4, len(values), 4)
    for value in reversed(values):
        b.PrependUOffsetTRelative(value)
    return int(b.EndVector())


def _bytes(b: flatbuffers.Builder, data: bytes) -> int:
    b.StartVector(1, len(data), DATA_ALIGNMENT)
    b.head = UOffsetTFlags.py_type(b.Head() - len(data))
    b.Bytes[b.Head() : b.Head() + len(data)] = data
    return int(b.EndVector())

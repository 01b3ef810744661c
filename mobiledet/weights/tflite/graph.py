"""TensorFlow Lite files as a graph of operations and tensors with real values, read without TensorFlow.

The flatbuffer is parsed by the ``tflite`` package; what is done here is to undo its quantisation (Jacob et al. 2018,
equation 1: ``real = scale * (stored - zero_point)``, one scale per tensor or one per channel) and to hide what only
concerns storage: DEQUANTIZE of constants, QUANTIZE between operations.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from mobiledet.errors import CheckpointError, MissingDependencyError, install_extra
from mobiledet.weights.tflite.contents import FileContents, read_contents

Reals: TypeAlias = NDArray[np.float64]

_DTYPES: dict[str, type[np.generic]] = {
    "FLOAT32": np.float32,
    "FLOAT16": np.float16,
    "INT32": np.int32,
    "UINT8": np.uint8,
    "INT64": np.int64,
    "INT8": np.int8,
    "INT16": np.int16,
}

_STORAGE_ONLY = ("QUANTIZE", "DEQUANTIZE")


@dataclass(frozen=True)
class TFLiteTensor:
    """A tensor of the graph.

    Attributes:
        name: As the converter wrote it.
        shape: Its dimensions, images as ``(1, height, width, channels)``.
        dtype: How it is stored, such as ``"UINT8"``.
        scale: Quantisation steps: none, one, or one per channel.
        zero_point: The stored numbers that stand for 0, likewise.
        values: Real values of a constant, float64 for what was quantised; None for what is computed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: Reals
    zero_point: Reals
    values: Reals | None = None

    @property
    def range(self) -> tuple[float, float] | None:
        """Smallest and largest real value that can be stored; None unless quantised to 8 bits."""
        if self.dtype not in ("UINT8", "INT8") or len(self.scale) != 1:
            return None
        low, high = (0, 255) if self.dtype == "UINT8" else (-128, 127)
        scale, zero = float(self.scale[0]), float(self.zero_point[0])
        return scale * (low - zero), scale * (high - zero)


@dataclass(frozen=True)
class TFLiteOp:
    """An operation.

    Attributes:
        kind: Such as ``"CONV_2D"``; for a custom operation its own name.
        inputs: Indices of tensors; -1 where an optional one is left out.
        outputs: Indices of tensors.
        stride: (vertical, horizontal), of convolutions.
        same: Whether a convolution pads as TensorFlow's SAME.
        dilation: (vertical, horizontal), of convolutions.
        activation: What is fused into it: ``"NONE"``, ``"RELU"``, ``"RELU6"``, ...
        options: Of a custom operation.
    """

    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stride: tuple[int, int] = (1, 1)
    same: bool = False
    dilation: tuple[int, int] = (1, 1)
    activation: str = "NONE"
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TFLiteGraph:
    """The main graph of a file.

    Attributes:
        tensors: All tensors; operations name them by index.
        ops: Operations in order of execution, without those that only concern storage.
        inputs: Indices of what goes in.
        about: What the file says about itself.
    """

    tensors: list[TFLiteTensor]
    ops: list[TFLiteOp]
    inputs: tuple[int, ...]
    about: FileContents

    def constant(self, op: TFLiteOp, place: int) -> Reals | None:
        """Real values of an operation's input; None where it is left out or computed."""
        index = op.inputs[place] if place < len(op.inputs) else -1
        return self.tensors[index].values if index >= 0 else None

    def weight_shape(self, op: TFLiteOp) -> tuple[int, ...]:
        """Dimensions of a convolution's weights; empty where it has none."""
        return self.tensors[op.inputs[1]].shape if len(op.inputs) > 1 and op.inputs[1] >= 0 else ()

    def producer(self, tensor: int) -> TFLiteOp | None:
        """The operation that computes a tensor."""
        return next((op for op in self.ops if tensor in op.outputs), None)

    def consumers(self, tensor: int) -> list[TFLiteOp]:
        """The operations that use a tensor, in order."""
        return [op for op in self.ops if tensor in op.inputs]

    def describe(self) -> str:
        """What the file contains, in a few words, for messages."""
        counts: dict[str, int] = {}
        for op in self.ops:
            counts[op.kind] = counts.get(op.kind, 0) + 1
        shape = "x".join(map(str, self.tensors[self.inputs[0]].shape)) if self.inputs else "nothing"
        ops = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1])[:6])
        return f"input {shape}; {ops}"


def read_tflite(path: Path) -> TFLiteGraph:
    """Read a .tflite file.

    Raises:
        CheckpointError: It is missing, damaged, or not a TensorFlow Lite file.
        MissingDependencyError: The ``tflite`` package isn't installed.
    """
    try:
        import tflite
    except ImportError:
        raise MissingDependencyError(
            f"reading TensorFlow Lite files needs the package tflite: {install_extra('train')}"
        ) from None
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: can't be read: {error.strerror}") from None
    if data[4:8] != b"TFL3":
        raise CheckpointError(f"{path}: not a TensorFlow Lite file ({len(data):,} bytes); name a .tflite file")
    try:
        model = tflite.Model.GetRootAs(data, 0)
        return _read_graph(tflite, model, read_contents(data))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # offsets in a damaged file lead anywhere: struct.error, IndexError, TypeError, ...
        raise CheckpointError(
            f"{path}: a damaged TensorFlow Lite file ({len(data):,} bytes; {type(error).__name__}); copy it again"
        ) from None


def _read_graph(tflite: Any, model: Any, about: FileContents) -> TFLiteGraph:
    if model.SubgraphsLength() < 1:
        raise CheckpointError("a TensorFlow Lite file without a graph")
    graph = model.Subgraphs(0)
    types = {value: name for name, value in vars(tflite.TensorType).items() if not name.startswith("_")}
    tensors = [_read_tensor(model, graph.Tensors(index), types) for index in range(graph.TensorsLength())]
    ops: list[TFLiteOp] = []
    alias: dict[int, int] = {}
    for index in range(graph.OperatorsLength()):
        op = _read_op(tflite, model, graph.Operators(index))
        op = replace(op, inputs=tuple(alias.get(i, i) for i in op.inputs))
        if any(not -1 <= i < len(tensors) for i in op.inputs) or any(not 0 <= i < len(tensors) for i in op.outputs):
            raise CheckpointError(f"a damaged TensorFlow Lite file: operation {index} uses tensors that don't exist")
        if op.kind in _STORAGE_ONLY:
            alias[op.outputs[0]] = op.inputs[0]
        else:
            ops.append(op)
    inputs = tuple(int(i) for i in graph.InputsAsNumpy()) if graph.InputsLength() else ()
    if any(not 0 <= i < len(tensors) for i in inputs):
        raise CheckpointError("a damaged TensorFlow Lite file: its inputs are tensors that don't exist")
    return TFLiteGraph(tensors, ops, inputs, about)


def _read_tensor(model: Any, tensor: Any, types: dict[int, str]) -> TFLiteTensor:
    shape = tuple(int(n) for n in tensor.ShapeAsNumpy()) if tensor.ShapeLength() else ()
    dtype = types.get(tensor.Type(), f"type {tensor.Type()}")
    quantization = tensor.Quantization()
    scale, zero_point, axis = np.zeros(0), np.zeros(0), 0
    if quantization is not None and quantization.ScaleLength():
        scale = np.asarray(quantization.ScaleAsNumpy(), np.float64)
        zero_point = np.zeros(len(scale))
        if quantization.ZeroPointLength():
            zero_point = np.asarray(quantization.ZeroPointAsNumpy(), np.float64)
        axis = int(quantization.QuantizedDimension())
    buffer = model.Buffers(tensor.Buffer())
    values = None
    if buffer.DataLength() and dtype in _DTYPES:
        stored = np.frombuffer(buffer.DataAsNumpy().tobytes(), np.dtype(_DTYPES[dtype]).newbyteorder("<"))
        with np.errstate(all="ignore"):  # damaged numbers are found where they are used
            values = stored.reshape(shape).astype(np.float64)
            if len(scale):
                per_axis = [1] * len(shape)
                if len(scale) > 1:
                    per_axis[axis] = len(scale)
                values = scale.reshape(per_axis) * (values - zero_point.reshape(per_axis))
    return TFLiteTensor(tensor.Name().decode("utf-8", "replace"), shape, dtype, scale, zero_point, values)


def _read_op(tflite: Any, model: Any, op: Any) -> TFLiteOp:
    code = model.OperatorCodes(op.OpcodeIndex())
    # Files written before operators outgrew a byte fill in only the old field, newer ones both.
    builtin = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())
    inputs = tuple(int(i) for i in op.InputsAsNumpy()) if op.InputsLength() else ()
    outputs = tuple(int(i) for i in op.OutputsAsNumpy()) if op.OutputsLength() else ()
    if builtin == tflite.BuiltinOperator.CUSTOM:
        name = (code.CustomCode() or b"unnamed custom operation").decode("utf-8", "replace")
        return TFLiteOp(name, inputs, outputs, options=_custom_options(op))
    kind = tflite.opcode2name(builtin)
    if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
        return TFLiteOp(kind, inputs, outputs)
    options = tflite.Conv2DOptions() if kind == "CONV_2D" else tflite.DepthwiseConv2DOptions()
    table = op.BuiltinOptions()
    options.Init(table.Bytes, table.Pos)
    activations = {v: name for name, v in vars(tflite.ActivationFunctionType).items() if not name.startswith("_")}
    return TFLiteOp(
        kind,
        inputs,
        outputs,
        stride=(options.StrideH(), options.StrideW()),
        same=options.Padding() == tflite.Padding.SAME,
        dilation=(options.DilationHFactor(), options.DilationWFactor()),
        activation=activations.get(options.FusedActivationFunction(), "unknown"),
    )


def _custom_options(op: Any) -> dict[str, Any]:
    from flatbuffers import flexbuffers

    if not op.CustomOptionsLength():
        return {}
    options = flexbuffers.Loads(op.CustomOptionsAsNumpy().tobytes())
    return options if isinstance(options, dict) else {}

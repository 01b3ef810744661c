"""Generated files read back with the schema's classes alone, and run by LiteRT."""

import numpy as np
import pytest
import tflite_builder
from flatbuffers import flexbuffers
from tflite_builder import tflite

KINDS = ("float32", "float16", "uint8", "int8")
QUANTIZED = ("uint8", "int8")


def names(enum):
    return {value: name for name, value in vars(enum).items() if isinstance(value, int)}


class File:
    """A file read back with the generated classes alone."""

    def __init__(self, path):
        self.model = tflite.Model.GetRootAs(path.read_bytes(), 0)
        self.graph = self.model.Subgraphs(0)
        self.ops = [self.graph.Operators(k) for k in range(self.graph.OperatorsLength())]

    def kind(self, op):
        code = self.model.OperatorCodes(op.OpcodeIndex())
        kind = names(tflite.BuiltinOperator)[code.BuiltinCode()]
        return code.CustomCode().decode() if kind == "CUSTOM" else kind

    @property
    def kinds(self):
        return [self.kind(op) for op in self.ops]

    def options(self, op):
        """Activation, padding and strides of convolutions and pooling; activation and axis of a concatenation."""
        classes = {"CONV_2D": "Conv2DOptions", "DEPTHWISE_CONV_2D": "DepthwiseConv2DOptions"}
        classes |= {"AVERAGE_POOL_2D": "Pool2DOptions", "CONCATENATION": "ConcatenationOptions"}
        if self.kind(op) not in classes:
            return ()
        read = getattr(tflite, classes[self.kind(op)])()
        read.Init(op.BuiltinOptions().Bytes, op.BuiltinOptions().Pos)
        fields = ("FusedActivationFunction", "Padding", "StrideH", "StrideW", "Axis")
        return tuple(getattr(read, field)() for field in fields if hasattr(read, field))

    def custom_options(self, op):
        return flexbuffers.Loads(op.CustomOptionsAsNumpy().tobytes())

    def dtype(self, index):
        return names(tflite.TensorType)[self.graph.Tensors(index).Type()]

    def shape(self, index):
        tensor = self.graph.Tensors(index)
        return tuple(tensor.ShapeAsNumpy().tolist()) if tensor.ShapeLength() else ()

    def scale(self, index):
        """Scale, zero point, dimension."""
        parameters = self.graph.Tensors(index).Quantization()
        if parameters is None or not parameters.ScaleLength():
            return None
        return parameters.ScaleAsNumpy(), parameters.ZeroPointAsNumpy(), parameters.QuantizedDimension()

    def real(self, index):
        """Real values of a constant, also behind a DEQUANTIZE."""
        maker = [op for op in self.ops if index in op.OutputsAsNumpy()]
        if maker:
            assert self.kind(maker[0]) == "DEQUANTIZE"
            index = int(maker[0].Inputs(0))
        data = self.model.Buffers(self.graph.Tensors(index).Buffer()).DataAsNumpy()
        stored = np.frombuffer(data.tobytes(), tflite_builder.NUMPY[self.dtype(index)]).reshape(self.shape(index))
        if self.scale(index) is None:
            return stored.astype(np.float32)
        scale, zero, axis = self.scale(index)
        along = [len(scale) if k == axis and len(scale) > 1 else 1 for k in range(stored.ndim)]
        return (scale.astype(np.float64).reshape(along) * (stored - zero.reshape(along))).astype(np.float32)


def written_input(file):
    return int(file.graph.Inputs(0))


def run(written, picture):
    """What LiteRT makes of a file, as real values, in the order of the file's outputs."""
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT isn't installed")
    interpreter = litert.Interpreter(str(written.path))
    interpreter.allocate_tensors()
    (entry,) = interpreter.get_input_details()
    fed = written.feed(picture)
    assert (tuple(entry["shape"]), entry["dtype"]) == (fed.shape, fed.dtype)
    interpreter.set_tensor(entry["index"], fed)
    interpreter.invoke()
    outputs = []
    for detail in interpreter.get_output_details():
        scale, zero = detail["quantization"]
        values = interpreter.get_tensor(detail["index"]).astype(np.float64)
        outputs.append((values - zero) * scale if scale else values)
    return outputs


def agree(theirs, ours, kind):
    """Floats to 1e-3; 8-bit activations drift by their rounding, but a mistake in a layer would leave nothing alike."""
    assert theirs.shape == ours.shape
    if kind in QUANTIZED:
        assert np.corrcoef(theirs.ravel(), ours.ravel())[0, 1] > 0.94
        assert np.abs(theirs - ours).mean() < 0.25 * ours.std()
    else:
        assert np.abs(theirs - ours).max() < 1e-3

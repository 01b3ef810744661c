"""Generated files are as TensorFlow's own: built alike, and alive.

That they compute what they say is seen by the importer's tests, which hold them against TensorFlow Lite.
"""

import pytest
from tflite_builder import tflite
from tflite_networks import make_images
from tflite_writer import write_classifier, write_ssd

KINDS = ("float32", "float16", "uint8", "int8")
OPTIONS = ("FusedActivationFunction", "Padding", "StrideH", "StrideW", "Axis")
TABLES = {"CONV_2D": "Conv2D", "DEPTHWISE_CONV_2D": "DepthwiseConv2D", "AVERAGE_POOL_2D": "Pool2D"}
TABLES["CONCATENATION"] = "Concatenation"


def signature(path):
    """Operations in order, with their options, how their inputs are stored, of what shape, and where they come from."""
    model = tflite.Model.GetRootAs(path.read_bytes(), 0)
    graph = model.Subgraphs(0)
    made, found = {}, []
    for number in range(graph.OperatorsLength()):
        op = graph.Operators(number)
        kind = tflite.opcode2name(model.OperatorCodes(op.OpcodeIndex()).BuiltinCode())
        options = ()
        if kind in TABLES:
            read = getattr(tflite, f"{TABLES[kind]}Options")()
            read.Init(op.BuiltinOptions().Bytes, op.BuiltinOptions().Pos)
            options = tuple(getattr(read, field)() for field in OPTIONS if hasattr(read, field))
        inputs = [graph.Tensors(int(index)) for index in op.InputsAsNumpy()]
        sources = [made.get(int(index)) for index in op.InputsAsNumpy()]
        shapes = [tuple(tensor.ShapeAsNumpy()) for tensor in inputs]
        scaled = [bool(tensor.Quantization() and tensor.Quantization().ScaleLength()) for tensor in inputs]
        outputs = [graph.Tensors(int(index)).Type() for index in op.OutputsAsNumpy()]
        found.append((kind, options, sources, shapes, [tensor.Type() for tensor in inputs], scaled, outputs))
        made |= {int(index): number for index in op.OutputsAsNumpy()}
    return found


def test_the_detector_is_built_as_the_real_one(tmp_path, real_weights):
    written = write_ssd(tmp_path / "m.tflite", kind="uint8", alpha=0.75, input_size=(300, 300), num_classes=90)
    assert signature(written.path) == signature(real_weights / "ssd_mobilenet_v1_0.75_300_coco_quant.tflite")


@pytest.mark.parametrize(
    ("name", "alpha", "side", "classes"),
    [("mobilenet_v1_0.5_160_quant", 0.5, 160, 1001), ("mobilenet_v1_1.0_224_quant_features", 1.0, 224, None)],
)
def test_the_classifiers_are_built_as_the_real_ones(tmp_path, real_weights, name, alpha, side, classes):
    path, size = tmp_path / "m.tflite", (side, side)
    write_classifier(path, kind="uint8", alpha=alpha, input_size=size, num_classes=classes)
    assert signature(path) == signature(real_weights / f"{name}.tflite")


@pytest.mark.parametrize("kind", KINDS)
def test_activations_neither_die_nor_saturate(tmp_path, kind):
    written = write_ssd(tmp_path / "m.tflite", kind=kind)
    for name, values in written.activations(make_images(3, written.input_size, seed=11)).items():
        if "predictor" in name:
            assert 0.5 < values.std() < 4, name
        else:
            assert 0.02 < (values == 0).mean() < 0.6, name
            assert (values > 5.999).mean() < 0.15, name
            assert (values.reshape(-1, values.shape[-1]).std(axis=0) > 0.01).mean() > 0.7, name
            # A ReLU without the 6 would be noticed.
            assert name.startswith("extra") or (values > 5.999).mean() > 0.0002, name

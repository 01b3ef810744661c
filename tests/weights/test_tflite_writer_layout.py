"""What generated files store, and that they are built as TensorFlow's own."""

import numpy as np
import pytest
from tflite_builder import Quantization
from tflite_emitter import POSTPROCESS
from tflite_networks import ssd_anchors
from tflite_readback import KINDS, File, written_input
from tflite_writer import write_classifier, write_ssd


def signature(file):
    """Operations in order, with their options, how their inputs are stored and where these come from."""
    made = {int(t): k for k, op in enumerate(file.ops) for t in op.OutputsAsNumpy()}
    found = []
    for op in file.ops:
        inputs = [int(t) for t in op.InputsAsNumpy()]
        sources = [(made.get(t), file.dtype(t), len(file.shape(t)), file.scale(t) is None) for t in inputs]
        found.append((file.kind(op), file.options(op), sources, [file.dtype(int(t)) for t in op.OutputsAsNumpy()]))
    return found


def test_the_detector_is_built_as_the_real_one(tmp_path, real_weights):
    theirs = File(real_weights / "ssd_mobilenet_v1_0.75_300_coco_quant.tflite")
    written = write_ssd(tmp_path / "m.tflite", kind="uint8", alpha=0.75, input_size=(300, 300), num_classes=90)
    ours = File(written.path)
    assert signature(ours) == signature(theirs)
    end, their_end = ours.ops[-1], theirs.ops[-1]
    assert ours.custom_options(end) == pytest.approx(theirs.custom_options(their_end))
    for op, other in zip(ours.ops, theirs.ops, strict=True):
        pairs = list(zip(op.InputsAsNumpy().tolist(), other.InputsAsNumpy().tolist(), strict=True))
        assert [ours.shape(a) for a, _ in pairs] == [theirs.shape(b) for _, b in pairs], ours.kind(op)
    their_anchors = theirs.real(their_end.Inputs(2))
    assert np.abs(written.anchors - their_anchors).max() <= theirs.scale(their_end.Inputs(2))[0][0] + 1e-6
    assert ours.scale(written_input(ours))[:2] == theirs.scale(written_input(theirs))[:2]


@pytest.mark.parametrize(
    ("name", "alpha", "side", "classes"),
    [
        ("mobilenet_v1_0.5_160_quant", 0.5, 160, 1001),
        ("mobilenet_v1_1.0_224_quant_features", 1.0, 224, None),
    ],
)
def test_the_classifiers_are_built_as_the_real_ones(tmp_path, real_weights, name, alpha, side, classes):
    theirs = File(real_weights / f"{name}.tflite")
    ours = File(
        write_classifier(
            tmp_path / "m.tflite", kind="uint8", alpha=alpha, input_size=(side, side), num_classes=classes
        ).path
    )
    assert signature(ours) == signature(theirs)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_returned_is_what_the_file_holds(tmp_path, kind):
    written = write_ssd(tmp_path / "m.tflite", kind=kind)
    file = File(written.path)
    convs = [op for op in file.ops if file.kind(op) in ("CONV_2D", "DEPTHWISE_CONV_2D")]
    # The file's order; the network's is the same but for the names of the predictors, which come in pairs, too.
    assert len(convs) == len(written.layers) == 27 + 8 + 12
    for op, (name, layer) in zip(convs, written.layers.items(), strict=True):
        assert np.array_equal(file.real(int(op.Inputs(1))), layer.weight), name
        assert np.array_equal(file.real(int(op.Inputs(2))), layer.bias), name
        assert layer.weight.dtype == layer.bias.dtype == np.float32
    assert np.array_equal(file.real(int(file.ops[-1].Inputs(2))), written.anchors)
    assert file.shape(int(convs[1].Inputs(1))) == (1, 3, 3, 8)
    assert list(written.layers)[:3] == ["conv0", "conv1_depthwise", "conv1_pointwise"]
    assert list(written.layers)[27:29] == ["extra0_1x1", "extra0_3x3"]
    assert len(written.layers["extra3_3x3"].bias) == 32
    assert len(written.layers["extra3_1x1"].bias) == 16


def test_float16_files_dequantise_every_constant(tmp_path):
    file = File(write_ssd(tmp_path / "m.tflite", kind="float16").path)
    constants = 2 * 47 + 1
    assert file.kinds[:constants] == ["DEQUANTIZE"] * constants
    assert "DEQUANTIZE" not in file.kinds[constants:]
    assert {file.dtype(int(op.Inputs(0))) for op in file.ops[:constants]} == {"FLOAT16"}


def test_int8_files_have_a_scale_per_channel(tmp_path):
    file = File(write_ssd(tmp_path / "m.tflite", kind="int8").path)
    for op in file.ops:
        if file.kind(op) not in ("CONV_2D", "DEPTHWISE_CONV_2D"):
            continue
        source, weight, bias = (file.scale(int(op.Inputs(k))) for k in range(3))
        channels = file.shape(int(op.Inputs(2)))[0]
        assert weight[2] == (3 if file.kind(op) == "DEPTHWISE_CONV_2D" else 0)
        assert len(weight[0]) == len(bias[0]) == channels
        assert not weight[1].any()
        assert np.allclose(bias[0], source[0] * weight[0], rtol=1e-6)
        assert len(np.unique(weight[0])) > channels // 2
    assert file.kinds[-3:] == ["DEQUANTIZE", "DEQUANTIZE", POSTPROCESS]


def test_anchors_on_a_picture_that_is_not_square():
    """Relative to the shorter side: here the height, so widths shrink by 96 / 128."""
    anchors = ssd_anchors([(6, 8), (3, 4), (2, 2), (1, 1), (1, 1), (1, 1)], (96, 128), 0.2, 0.95)
    assert anchors.shape == (6 * 8 * 3 + 3 * 4 * 6 + 4 * 6 + 3 * 6, 4)
    assert anchors[0] == pytest.approx([0.5 / 6, 0.5 / 8, 0.1, 0.075])
    assert anchors[1] == pytest.approx([0.5 / 6, 0.5 / 8, 0.2 / 2**0.5, 0.2 * 2**0.5 * 0.75])
    assert anchors[3] == pytest.approx([0.5 / 6, 1.5 / 8, 0.1, 0.075])
    assert anchors[144 + 5] == pytest.approx([0.5 / 3, 0.5 / 4, (0.35 * 0.5) ** 0.5, 0.75 * (0.35 * 0.5) ** 0.5])
    assert anchors[-2] == pytest.approx([0.5, 0.5, 0.95 * 3**0.5, 0.95 / 3**0.5 * 0.75])
    assert anchors[-1] == pytest.approx([0.5, 0.5, 0.95**0.5, 0.75 * 0.95**0.5])
    assert ssd_anchors([(1, 1), (1, 1)], (64, 64), 0.15, 0.9)[0, 2] == 0.1


def test_narrow_networks_keep_their_least_channels(tmp_path):
    written = write_ssd(tmp_path / "m.tflite", alpha=0.125)
    channels = {name: len(layer.bias) for name, layer in written.layers.items()}
    assert (channels["conv0"], channels["conv1_pointwise"], channels["conv13_pointwise"]) == (8, 8, 128)
    assert [channels[f"extra3_{part}"] for part in ("1x1", "3x3")] == [16, 16]
    assert (channels["box_predictor0"], channels["class_predictor5"]) == (12, 24)


@pytest.mark.parametrize(
    ("kind", "given", "mean", "std", "black"),
    [
        ("float32", None, 127.5, 127.5, -1.0),
        ("uint8", None, 128.0, 128.0, 0),
        ("int8", None, 127.0, 127.5, -128),
        ("int8", "uint8", 127.0, 127.5, 0),
        ("int8", "float32", 127.5, 127.5, -1.0),
    ],
)
def test_pictures_are_fed_as_the_file_takes_them(tmp_path, kind, given, mean, std, black):
    written = write_classifier(tmp_path / "m.tflite", kind=kind, input_type=given)
    assert (written.mean, written.std) == (mean, std)
    assert np.unique(written.feed(np.zeros((1, 64, 96, 3), np.uint8))) == [black]
    file = File(written.path)
    if file.scale(written_input(file)) is not None:
        scale, zero, _ = file.scale(written_input(file))
        assert (black - zero[0]) * scale[0] == pytest.approx(-mean / std)


def test_zero_is_storable_and_ranges_are_spanned():
    scale = Quantization.spanning(-1.0, 3.0, "UINT8")
    assert scale.real(scale.store(np.zeros(1), "UINT8")) == 0.0
    assert scale.real(np.array([0, 255], np.uint8)) == pytest.approx([-1.0, 3.0], abs=4 / 255)
    assert Quantization.spanning(0.0, 6.0, "INT8").zero_point == -128

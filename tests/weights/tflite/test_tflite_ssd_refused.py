"""TensorFlow's SSD files that our network can't reproduce, and labels that can't be used: refused in words."""

import numpy as np
import pytest
from tflite_builder import GraphBuilder, with_label_file
from tflite_writer import with_channels, with_kernel, with_stride, write_ssd

from mobiledet.errors import CheckpointError
from mobiledet.weights.importing import import_weights


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        ("a\nb\n", "2 names for its 3 classes"),
        ("0: a\n3: b\n", "numbered up to 4"),
        ("a\nb\na\n", "repeated: a"),
        ("???\n-\nN/A\n", "must exist"),
        ("\n \n", "labels.txt: has no class names"),
        (None, "labels.txt: can't be read"),
    ],
)
def test_unusable_labels(tmp_path, labels, reason):
    path = tmp_path / "labels.txt"
    if labels is not None:
        path.write_bytes(labels if isinstance(labels, bytes) else labels.encode())
    with pytest.raises(CheckpointError, match=reason) as caught:
        import_weights(write_ssd(tmp_path / "m.tflite").path, labels=path)
    assert "\n" not in str(caught.value)


def test_a_wrong_number_of_names_is_not_passed_over_for_coco(tmp_path):
    path = write_ssd(tmp_path / "m.tflite", num_classes=90, input_size=(64, 80)).path
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    with pytest.raises(CheckpointError, match="2 names for its 90 classes"):
        import_weights(path, labels=tmp_path / "labels.txt")


def test_a_zip_of_other_texts_names_no_classes(tmp_path):
    path = write_ssd(tmp_path / "m.tflite").path
    path.write_bytes(with_label_file(path.read_bytes(), ["x", "y", "z"], name="vocabulary.json"))
    assert import_weights(path)["categories"][0]["name"] == "class_1"


@pytest.mark.parametrize(
    ("kind", "fault", "reason"),
    [
        ("float32", {"softmax": True}, "scores come from SOFTMAX; only sigmoid"),
        ("uint8", {"softmax": True}, "scores come from SOFTMAX; only sigmoid"),
        ("float32", {"relu": True}, r"layers\.conv0: is followed by RELU, MobileNetV1 has ReLU6"),
        ("uint8", {"range_end": 4.2}, r"layers\.conv5\.pointwise: is followed by a range of 0 to 4\.2"),
        ("int8", {"range_end": 4.2}, r"layers\.conv5\.pointwise: is followed by a range of 0 to 4\.2"),
        ("float32", {"box_scales": (8, 10, 5, 4)}, r"box coder has scales .*only 10, 10, 5, 5"),
        ("float32", {"postprocess": False}, "must be exported with TFLite_Detection_PostProcess"),
        (
            "float32",
            {"inverted_residuals": True},
            r"not a MobileNetV1: at layers\.conv1\.depthwise it should have a 3x3",
        ),
        ("float32", {"anchor_shift": 0.05}, "anchors of its 6x8 map aren't centred"),
        ("uint8", {"anchor_shift": 0.05}, "anchors of its 6x8 map aren't centred"),
        ("float32", {"unknown_op": "input"}, r"at layers\.conv0 .*UnknownCustomOp"),
        ("float32", {"unknown_op": "boxes"}, "boxes come from UnknownCustomOp"),
    ],
    ids=str,
)
def test_what_can_not_be_imported(tmp_path, kind, fault, reason):
    path = write_ssd(tmp_path / "m.tflite", kind=kind, **fault).path
    with pytest.raises(CheckpointError, match=reason) as caught:
        import_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            with_kernel("conv0", 5),
            r"at layers\.conv0 it should have a 3x3 CONV_2D of stride 2, but has CONV_2D 8x5x5x3",
        ),
        (with_kernel("conv7_depthwise", 5), r"at layers\.conv7\.depthwise .*1x5x5x128"),
        (with_stride("conv4_depthwise", 1), r"at layers\.conv4\.depthwise .*stride 2, but has .*stride 1"),
        (with_channels("conv5", 100), "no width multiplier gives channels 8, 16, 32, 32, 64, 100"),
    ],
)
def test_backbones_unlike_table_1(tmp_path, change, reason):
    write_ssd(tmp_path / "m.tflite", change=change)
    with pytest.raises(CheckpointError, match=reason):
        import_weights(tmp_path / "m.tflite")


def larger(anchors):
    anchors[144 + 5 :: 6, 2:] *= 1.1
    return anchors


def uneven(anchors):
    anchors[150, 3] *= 1.2
    return anchors


def flat(anchors):
    anchors[3, 2] = 0
    return anchors


def endless(anchors):
    anchors[3, 0] = np.inf
    return anchors


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (larger, "follow SSD's formula"),
        (uneven, "3x4 map aren't the same at each location"),
        (flat, "above 0 high and wide"),
        (endless, "above 0 high and wide"),
        (lambda anchors: anchors[:, [1, 0, 3, 2]], "aren't centred"),
        (lambda anchors: np.concatenate([anchors[:, :2], 1.5 * anchors[:, 2:]], axis=1), "follow SSD's formula"),
    ],
)
def test_anchors_off_the_formula(tmp_path, change, reason):
    write_ssd(tmp_path / "m.tflite", change_anchors=change)
    with pytest.raises(CheckpointError, match=reason):
        import_weights(tmp_path / "m.tflite")


@pytest.mark.parametrize("stated", [0, 2, 5])
def test_scores_that_are_of_other_classes(tmp_path, stated):
    write_ssd(tmp_path / "m.tflite", num_classes=3, stated_classes=stated)
    with pytest.raises(CheckpointError, match=f"4 scores a box for {stated} classes"):
        import_weights(tmp_path / "m.tflite")


def test_a_kernel_without_channels(tmp_path):
    """Well formed as a file, but no reader expects it: still one line."""
    graph = GraphBuilder("")
    image = graph.tensor("x", (1, 32, 48, 3), "FLOAT32")
    weight = graph.tensor("w", (8, 3, 3), "FLOAT32", data=np.zeros((8, 3, 3), np.float32))
    bias = graph.tensor("b", (8,), "FLOAT32", data=np.zeros(8, np.float32))
    out = graph.tensor("y", (1, 16, 24, 8), "FLOAT32")
    options = {"StrideH": 2, "StrideW": 2, "Padding": 0, "FusedActivationFunction": 3}
    options |= {"DilationHFactor": 1, "DilationWFactor": 1}
    graph.op("CONV_2D", [image, weight, bias], [out], options=options)
    path = tmp_path / "m.tflite"
    path.write_bytes(graph.finish([image], [out]))
    with pytest.raises(CheckpointError, match=r"damaged TensorFlow Lite file, or another network .*copy it again"):
        import_weights(path)

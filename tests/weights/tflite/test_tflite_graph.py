"""Reading TensorFlow Lite files: numbers, connections, and files that are damaged in any way."""

import io
import random
import zipfile

import numpy as np
import pytest
from tflite_builder import GraphBuilder, Quantization, with_label_file
from tflite_writer import write_classifier, write_ssd

from mobiledet.errors import CheckpointError, MissingDependencyError
from mobiledet.weights.importing import import_weights
from mobiledet.weights.tflite.contents import MAX_TEXT
from mobiledet.weights.tflite.graph import read_tflite

KINDS = ("float32", "float16", "uint8", "int8")


def write(path, graph, inputs=(0,), outputs=(0,)):
    path.write_bytes(graph.finish(list(inputs), list(outputs)))
    return read_tflite(path)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_scale_per_channel_along_any_dimension(tmp_path, axis):
    shape = (2, 3, 4)
    stored = np.arange(24, dtype=np.int8).reshape(shape) - 12
    scale = np.array([0.5, 0.25, 2.0, 3.0][: shape[axis]], np.float32)
    zero_point = np.array([1, -2, 3, 0][: shape[axis]], np.int64)
    graph = GraphBuilder("")
    graph.tensor("w", shape, "INT8", Quantization(scale, zero_point, axis), stored)
    (tensor,) = write(tmp_path / "m.tflite", graph).tensors
    for place in np.ndindex(shape):
        channel = place[axis]
        assert tensor.values[place] == scale[channel] * (float(stored[place]) - zero_point[channel])
    assert tensor.range is None


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        ("FLOAT32", [1.5, -2.25]),
        ("FLOAT16", [1.5, -2.25]),
        ("INT32", [2**31 - 1, -(2**31)]),
        ("UINT8", [0, 255]),
        ("INT8", [-128, 127]),
    ],
)
def test_plain_numbers(tmp_path, dtype, stored):
    graph = GraphBuilder("")
    graph.tensor("w", (2,), dtype, None, np.array(stored, dtype.lower()))
    (tensor,) = write(tmp_path / "m.tflite", graph).tensors
    assert (tensor.name, tensor.shape, tensor.dtype, tensor.values.tolist()) == ("w", (2,), dtype, stored)


@pytest.mark.parametrize(
    ("dtype", "zero_point", "limits"),
    [("UINT8", 0, (0, 6.375)), ("UINT8", 55, (-1.375, 5)), ("INT8", -128, (0, 6.375))],
)
def test_range_of_what_is_computed(tmp_path, dtype, zero_point, limits):
    graph = GraphBuilder("")
    graph.tensor("x", (1, 2), dtype, Quantization.of(0.025, zero_point))
    (tensor,) = write(tmp_path / "m.tflite", graph).tensors
    assert tensor.values is None
    assert tensor.range == pytest.approx(limits)


def test_storage_is_hidden(tmp_path):
    """QUANTIZE and DEQUANTIZE, also one after the other, leave the graph; their users use what they were made from."""
    graph = GraphBuilder("")
    a, b, c, d, e = (graph.tensor(name, (1, 2), "FLOAT32") for name in "abcde")
    graph.op("QUANTIZE", [a], [b])
    graph.op("DEQUANTIZE", [b], [c])
    graph.op("LOGISTIC", [c], [d])
    graph.op("Mine", [d, -1, c], [e], custom_options={"scale": 2.0})
    found = write(tmp_path / "m.tflite", graph, [a], [e])
    assert [(op.kind, op.inputs, op.outputs) for op in found.ops] == [
        ("LOGISTIC", (a,), (d,)),
        ("Mine", (d, -1, a), (e,)),
    ]
    assert found.ops[1].options == {"scale": 2.0}
    assert found.producer(d).kind == "LOGISTIC"
    assert found.producer(a) is None
    assert [op.kind for op in found.consumers(a)] == ["LOGISTIC", "Mine"]
    assert found.constant(found.ops[1], 1) is None
    assert found.constant(found.ops[1], 7) is None
    assert found.describe() == "input 1x2; 1 LOGISTIC, 1 Mine"


def test_convolutions_and_their_options(tmp_path):
    graph = read_tflite(write_ssd(tmp_path / "m.tflite").path)
    convs = [op for op in graph.ops if "CONV_2D" in op.kind]
    assert [op.kind for op in convs[:3]] == ["CONV_2D", "DEPTHWISE_CONV_2D", "CONV_2D"]
    assert [op.stride for op in convs[:5]] == [(2, 2), (1, 1), (1, 1), (2, 2), (1, 1)]
    assert {(op.same, op.dilation) for op in convs} == {(True, (1, 1))}
    assert [op.activation for op in convs[:2] + convs[-1:]] == ["RELU6", "RELU6", "NONE"]
    assert graph.ops[-1].options["num_classes"] == 3
    assert graph.describe().startswith("input 1x96x128x3; 34 CONV_2D, 13 DEPTHWISE_CONV_2D, 13 RESHAPE")


def test_labels_are_the_only_text_packed(tmp_path):
    graph = GraphBuilder("")
    graph.tensor("x", (1,), "FLOAT32")
    plain = graph.finish([0], [0])
    path = tmp_path / "m.tflite"
    path.write_bytes(plain)
    assert read_tflite(path).about.labels is None
    path.write_bytes(with_label_file(plain, ["großer Hund ", "", "cat"]))
    assert read_tflite(path).about.labels == ("großer Hund", "cat")
    stream = io.BytesIO(plain)
    with zipfile.ZipFile(stream, "a") as archive:
        archive.writestr("labels.txt", "a\n")
        archive.writestr("licence.txt", "b\n")
    path.write_bytes(stream.getvalue())
    assert read_tflite(path).about.labels is None


def test_label_files_that_unpack_to_more_than_names_are_refused(tmp_path):
    graph = GraphBuilder("")
    graph.tensor("x", (1,), "FLOAT32")
    stream = io.BytesIO(graph.finish([0], [0]))
    with zipfile.ZipFile(stream, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("labels.txt", bytes(MAX_TEXT + 1))
    path = tmp_path / "m.tflite"
    path.write_bytes(stream.getvalue())
    with pytest.raises(CheckpointError, match=f"more than {MAX_TEXT:,} bytes"):
        read_tflite(path)
    path.write_bytes(stream.getvalue().replace(bytes(20), b"\7" * 20))
    with pytest.raises(CheckpointError, match=r"damaged TensorFlow Lite file .*BadZipFile"):
        read_tflite(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a TensorFlow Lite file"),
        (b"TFL3", "not a TensorFlow Lite file"),
        (b"\x1c\x00\x00\x00TFL3", "damaged TensorFlow Lite file"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(200), "TensorFlow Lite file"),
        (b"<!DOCTYPE html>\n<title>404</title>", "not a TensorFlow Lite file .*name a .tflite file"),
        (b"PK\x03\x04" + bytes(100), "not a TensorFlow Lite file"),
    ],
)
def test_other_files(tmp_path, content, reason):
    path = tmp_path / "m.tflite"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=reason) as caught:
        import_weights(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["missing.tflite", "folder"])
def test_no_file(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(CheckpointError, match=r"no file .*name a \.tflite, \.pb or \.safetensors file"):
        import_weights(tmp_path / name)


def test_the_reader_is_not_installed(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tflite", None)
    with pytest.raises(MissingDependencyError, match="needs the package tflite: pip install"):
        read_tflite(tmp_path / "m.tflite")


@pytest.mark.parametrize(("inputs", "taken"), [([9], [0]), ([0], [9]), ([-2], [0])])
def test_tensors_that_are_not_there(tmp_path, inputs, taken):
    graph = GraphBuilder("")
    graph.tensor("x", (1,), "FLOAT32")
    graph.op("LOGISTIC", inputs, [0])
    with pytest.raises(CheckpointError, match=r"damaged TensorFlow Lite file: .*tensors that don't exist"):
        write(tmp_path / "m.tflite", graph, taken)


def refused_or_read(path):
    """Import a file; whatever is wrong with it, one line says so."""
    reason = ""
    try:
        import_weights(path)
    except CheckpointError as error:
        reason = str(error)
    assert not reason or (reason.startswith(f"{path}: ") and "\n" not in reason), reason
    return not reason


def small_ssd(path, kind):
    return write_ssd(path, kind=kind, alpha=0.01, input_size=(40, 64), labels=("a", "b", "c")).path


def test_small_files_can_be_read(tmp_path):
    assert all(refused_or_read(small_ssd(tmp_path / "m.tflite", kind)) for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_files_cut_short(tmp_path, kind):
    whole = small_ssd(tmp_path / "m.tflite", kind).read_bytes()
    rng = random.Random(0)
    graph_end = whole.index(b"PK\x03\x04")
    cuts = [*range(0, 64, 7), *(rng.randrange(graph_end) for _ in range(30))]
    for cut in cuts:
        (tmp_path / "cut.tflite").write_bytes(whole[:cut])
        assert not refused_or_read(tmp_path / "cut.tflite"), cut
    for cut in (graph_end, len(whole) - 1, len(whole) - 30):
        (tmp_path / "cut.tflite").write_bytes(whole[:cut])
        refused_or_read(tmp_path / "cut.tflite")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", ["detector", "classifier"])
def test_files_with_damaged_bytes(tmp_path, kind, what):
    """Mostly in the tables at the front: damaged weights are numbers, too."""
    path = tmp_path / "m.tflite"
    if what == "detector":
        small_ssd(path, kind)
    else:
        write_classifier(path, kind=kind, alpha=0.01, input_size=(33, 48))
    whole = path.read_bytes()
    rng = random.Random(1)
    read = 0
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(rng.choice((1, 1, 2, 8))):
            place = rng.randrange(24_000 if rng.random() < 0.8 else len(whole)) % len(whole)
            damaged[place] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        path.write_bytes(damaged)
        read += refused_or_read(path)
    assert 0 < read < 40

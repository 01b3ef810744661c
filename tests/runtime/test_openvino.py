import shutil
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
from tiny_detectors import SIZE, assert_same, expected, make_images, tiny_detector

from mobiledet.errors import ModelFileError
from mobiledet.runtime.choose import open_backend
from mobiledet.runtime.folder import write_folder_card
from mobiledet.runtime.openvino import OpenvinoBackend

if find_spec("openvino") is None:  # importorskip would import it, telemetry and all
    pytest.skip("openvino isn't installed", allow_module_level=True)
pytest.importorskip("onnxscript")

from mobiledet.exporters.onnx import trace_onnx
from mobiledet.exporters.openvino import quantise_openvino, write_openvino


@pytest.fixture(scope="module")
def sigmoid(tmp_path_factory):
    """Model, graph, card and folder of an SSD."""
    model, card = tiny_detector("sigmoid", vote_iou=0.5)
    graph, folder = trace_onnx(model, size=SIZE), tmp_path_factory.mktemp("sigmoid") / "model"
    write_openvino(graph, card, folder)
    return model, graph, card, folder


def test_float32_unless_asked_otherwise(sigmoid):
    folder = sigmoid[-1]
    exact = OpenvinoBackend(folder, threads=1)
    assert exact._network.get_property("INFERENCE_PRECISION_HINT").to_string() == "f32"
    assert exact._network.get_property("INFERENCE_NUM_THREADS") == 1
    assert exact._network.get_property("ENABLE_CPU_PINNING") is False
    rounded = OpenvinoBackend(folder, provider="cpu:bf16")
    assert rounded._settings["INFERENCE_PRECISION_HINT"] == "bf16"
    difference = rounded.run(make_images(1), 0.01, 0.6).scores - exact.run(make_images(1), 0.01, 0.6).scores
    assert np.abs(difference).max() < 0.1


@pytest.mark.parametrize("head", ["softmax", "fine", "fpn", "faster_rcnn"])
def test_batches_of_every_head(head, tmp_path):
    model, card = tiny_detector(head)
    write_openvino(trace_onnx(model, size=SIZE, batch=3), replace(card, batch=3), tmp_path / "model")
    network, images = open_backend(tmp_path / "model", threads=1), make_images(3)
    found = network.run(images, 0.01, 0.6)
    single = [expected(model, images[index : index + 1]) for index in range(3)]
    assert_same(found, [np.concatenate(parts) for parts in zip(*single, strict=True)])
    with pytest.raises(ValueError, match=r"takes uint8 images \(3, 64, 96, 3\), not \(1, 64, 96, 3\)"):
        network.run(images[:1], 0.01, 0.6)


def test_quantised_by_nncf(sigmoid, tmp_path):
    if find_spec("nncf") is None:
        pytest.skip("nncf isn't installed")
    model, graph, card, _ = sigmoid
    images = make_images(6)
    # A generator, as images are read; only the first four are wanted.
    quantised = quantise_openvino(graph, (images[index : index + 1] for index in range(6)), subset=4)
    names = [node.get_friendly_name() for node in quantised.get_ops() if node.get_type_name() == "FakeQuantize"]
    layers = [node for node in quantised.get_ops() if node.get_type_name().endswith("Convolution")]
    assert len(layers) > 30
    assert len(layers) / 2 < len(names) <= len(layers)
    for node in quantised.get_ops():
        if node.get_type_name() == "FakeQuantize":
            # Nothing but layers reads rounded values: neither boxes nor scores.
            readers = {one.get_node().get_type_name() for one in node.output(0).get_target_inputs()}
            assert readers <= {"Convolution", "GroupConvolution"}
    write_openvino(quantised, replace(card, precision="int8"), tmp_path / "int8")
    network = open_backend(tmp_path / "int8", threads=1)
    assert network.card.precision == "int8"
    weights = (tmp_path / "int8" / "model.bin").stat().st_size
    assert weights < 0.4 * (sigmoid[-1] / "model.bin").stat().st_size
    boxes, scores, _ = expected(model, images[:1])
    found = network.run(images[:1], 0.01, 0.6)
    assert 0 < np.abs(found.scores - scores).max() < 0.1
    best = np.abs(found.boxes[0] - boxes[0, 0]).max(axis=1)
    assert best.min() < 3


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "there are none"),
        ([np.zeros((1, 96, 64, 3), np.uint8)], r"\[0\] are \(1, 96, 64, 3\) uint8; this graph takes \(1, 64, 96, 3\)"),
        ([make_images(1).astype(np.float32)], "float32"),
    ],
)
def test_calibration_images_must_fit(sigmoid, images, message):
    with pytest.raises(ModelFileError, match=message):
        quantise_openvino(sigmoid[1], images)


def test_quantised_onnx_becomes_quantised_openvino(sigmoid, tmp_path):
    pytest.importorskip("onnxruntime.quantization")
    from mobiledet.exporters.int8 import quantise

    _, graph, card, folder = sigmoid
    write_openvino(quantise(graph, list(make_images(4)[:, None])), card, tmp_path / "int8")
    assert (tmp_path / "int8" / "model.bin").stat().st_size < 0.4 * (folder / "model.bin").stat().st_size
    found, exact = (
        open_backend(place, threads=1).run(make_images(1), 0.01, 0.6) for place in (tmp_path / "int8", folder)
    )
    assert 0 < np.abs(found.scores - exact.scores).max() < 0.15


def test_a_graph_openvino_cant_read(sigmoid, tmp_path):
    import onnx

    broken = onnx.ModelProto()
    broken.CopyFrom(sigmoid[1])
    broken.graph.node[0].op_type = "NoSuchThing"
    with pytest.raises(ModelFileError, match="can't read the exported graph") as error:
        write_openvino(broken, sigmoid[2], tmp_path / "model")
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_openvino_refuses_is_one_line(sigmoid, tmp_path):
    folder = shutil.copytree(sigmoid[-1], tmp_path / "copy")
    card = OpenvinoBackend(folder).card
    (folder / "model.xml").write_text("<?xml version='1.0'?><net></net>", encoding="utf-8")
    write_folder_card(folder, card, ("model.xml", "model.bin"))  # the checksum is right, the content is not
    with pytest.raises(ModelFileError, match=r"model\.xml: OpenVINO can't run it on CPU: .*export it again") as error:
        OpenvinoBackend(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("provider", ["XPU", "XPU:bf16", "CPU:fp16", "CPUExecutionProvider"])
def test_an_unknown_device(sigmoid, provider):
    with pytest.raises(ModelFileError, match=f"has no device {provider!r} here; it has .*cpu.*':bf16'"):
        OpenvinoBackend(sigmoid[-1], provider=provider)

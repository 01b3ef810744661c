"""ONNX files as other people's programs meet them: ONNX Runtime as it comes, OpenCV, older opsets."""

import ast
import re
from dataclasses import replace

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_detectors import SIZE, assert_same, expected, make_images, tiny_detector

from mobiledet import Detector
from mobiledet.draw.boxes import write_image
from mobiledet.errors import ModelFileError
from mobiledet.exporters import onnx as exporter
from mobiledet.exporters.base import ExportOptions
from mobiledet.exporters.exporting import export_model
from mobiledet.exporters.int8 import quantise
from mobiledet.exporters.onnx import OPSET, OPSETS, write_onnx
from mobiledet.runtime.base import RawDetections
from mobiledet.runtime.choose import open_backend
from mobiledet.structures import ResizeRule

IMAGES = make_images(5)


@pytest.fixture
def write(tmp_path):
    """``write(head, batch=..., suppressed=..., int8=..., opset=...)``: model and file."""

    def make(head="sigmoid", *, batch=1, suppressed=True, int8=False, opset=OPSET, letterbox=False, vote_iou=None):
        model, card = tiny_detector(head, vote_iou=vote_iou)
        card = replace(card, batch=batch, resize=ResizeRule(SIZE, letterbox=letterbox))
        graph = exporter.trace_onnx(model, size=SIZE, batch=batch, suppressed=suppressed)
        if int8:
            graph = quantise(graph, [IMAGES[: batch or 1]])
        path = tmp_path / f"{head}_{batch}_{opset}.onnx"
        write_onnx(graph, card, path, opset=opset)
        return model, path

    return make


def plain(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("head", ["sigmoid", "fpn", "faster_rcnn"])
def test_onnx_runtime_opens_it_without_a_word(write, head, batch, int8, capfd):
    _, path = write(head, batch=batch, int8=int8)
    capfd.readouterr()
    session = plain(path)
    assert capfd.readouterr() == ("", "")
    assert [value.name for value in session.get_inputs()] == ["images"]
    assert session.get_overridable_initializers() == []
    assert [len(part) for part in session.run(None, {"images": IMAGES[:batch]})] == [batch] * 3


def test_thresholds_that_are_inputs_as_in_older_files_still_work(write, tmp_path):
    model, path = write()
    old = onnx.load(path)
    for name in ("score_threshold", "iou_threshold"):
        old.graph.input.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, []))
    del old.metadata_props[1:]
    card = Detector(path).card.to_json().replace('"version": 2', '"version": 1')
    onnx.helper.set_model_props(old, {"mobiledet": card})
    onnx.save(old, tmp_path / "old.onnx")
    for file in (path, tmp_path / "old.onnx"):
        found = open_backend(file, threads=1).run(IMAGES[:1], 0.3, 0.2)
        assert_same(found, expected(model, IMAGES[:1], 0.3, 0.2))


@pytest.mark.parametrize("batch", [1, None])
def test_without_suppression_it_ends_in_boxes_and_scores(write, batch):
    model, path = write(batch=batch, suppressed=False)
    session = plain(path)
    assert [value.name for value in session.get_outputs()] == ["boxes", "scores"]
    boxes, scores = session.run(None, {"images": IMAGES[:1]})
    with torch.no_grad():
        wanted = model.candidates(torch.from_numpy(IMAGES[:1]).permute(0, 3, 1, 2))
    np.testing.assert_allclose(boxes, wanted.boxes, atol=0.01)
    np.testing.assert_allclose(scores, wanted.scores, atol=1e-4)
    backend = open_backend(path, threads=1)
    for thresholds in ((0.01, 0.6), (0.3, 0.2)):
        images = IMAGES[: 1 if batch else 3]
        assert_same(backend.run(images, *thresholds), expected(model, images, *thresholds))
    assert list(backend.stages(IMAGES[:1], 3)) == ["network", "decode+nms"]


@pytest.mark.parametrize("int8", [False, True])
def test_any_number_of_images_at_once(write, int8, monkeypatch):
    _, one = write(int8=int8)
    _, path = write(batch=None, int8=int8)
    detector, single = Detector(path, threads=1), Detector(one, threads=1)
    assert detector.card.batch is None
    sizes, run = [], detector.backend.run
    monkeypatch.setattr(detector.backend, "run", lambda images, *rest: sizes.append(len(images)) or run(images, *rest))
    images = [*IMAGES, *IMAGES, *IMAGES, *IMAGES]
    together = detector(images)
    assert sizes == [16, 4], "no padding"
    for found, image in zip(together, images, strict=True):
        np.testing.assert_allclose(found.boxes, single(image).boxes, atol=0.01)
    assert detector(IMAGES[0]).boxes.tobytes() == together[0].boxes.tobytes()
    with pytest.raises(ValueError, match="takes uint8 images"):
        detector.backend.run(IMAGES[:2, :32], 0.1, 0.5)


@pytest.mark.parametrize("opset", [OPSETS[0], 13, 17, OPSETS[-1]])
def test_other_opsets(write, opset, capfd):
    model, path = write(opset=opset, vote_iou=0.5)
    graph = onnx.load(path)
    assert [entry.version for entry in graph.opset_import] == [opset]
    onnx.checker.check_model(graph, full_check=True)
    assert graph.ir_version <= 10
    capfd.readouterr()
    assert len(plain(path).run(None, {"images": IMAGES[:1]})) == 3
    assert capfd.readouterr() == ("", "")
    assert_same(open_backend(path, threads=1).run(IMAGES[:1], 0.01, 0.6), expected(model, IMAGES[:1]))


def test_an_opset_that_lacks_an_operator_is_refused(write):
    with pytest.raises(ModelFileError, match=r"opset 12 can't hold this model .*DequantizeLinear"):
        write(int8=True, opset=12)
    with pytest.raises(ModelFileError, match=r"opset 15 can't hold this model .*RoiAlign"):
        write("faster_rcnn", opset=15)
    model, path = write("faster_rcnn", opset=16)
    assert_same(open_backend(path, threads=1).run(IMAGES[:1], 0.01, 0.6), expected(model, IMAGES[:1]))


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("m.onnx", {"opset": 11}, "--opset 11: choose one from 12 to 21"),
        ("m.onnx", {"opset": 22}, "--opset 22"),
        ("m", {"format": "openvino", "opset": 17}, "--opset is offered for onnx, not for openvino"),
        ("m", {"format": "ncnn", "suppressed": False}, "--no-nms is offered for onnx and openvino, not for ncnn"),
        ("m.tflite", {"format": "litert", "batch": None}, "--batch dynamic is offered for onnx, not for litert"),
    ],
)
def test_options_that_a_format_lacks(tiny_checkpoint, tmp_path, output, options, message):
    with pytest.raises(ModelFileError, match=message):
        export_model(tiny_checkpoint("sigmoid"), tmp_path / output, ExportOptions(**options))


@pytest.mark.parametrize("options", [{"suppressed": False}, {"batch": None}])
def test_what_faster_rcnn_can_not_do(tiny_checkpoint, tmp_path, options):
    with pytest.raises(ModelFileError, match=r"FasterRCNNHead can't be exported .*stage"):
        export_model(tiny_checkpoint("faster_rcnn"), tmp_path / "m.onnx", ExportOptions(**options))


def test_options_reach_the_file_and_its_report(tiny_checkpoint, tmp_path):
    options = ExportOptions(threads=1, batch=None, suppressed=False, opset=14)
    assert export_model(tiny_checkpoint("sigmoid"), tmp_path / "m.onnx", options).passed
    assert [entry.version for entry in onnx.load(tmp_path / "m.onnx").opset_import] == [14]
    session = plain(tmp_path / "m.onnx")
    assert [value.shape[0] for value in session.get_outputs()] == ["batch", "batch"]


def test_openvino_without_suppression(tiny_checkpoint, tmp_path):
    pytest.importorskip("openvino")
    options = ExportOptions("openvino", suppressed=False, threads=1)
    assert export_model(tiny_checkpoint("sigmoid"), tmp_path / "m", options).passed
    backend = open_backend(tmp_path / "m", threads=1)
    assert list(backend.stages(IMAGES[:1], 3)) == ["network", "decode+nms"]


def test_names_and_size_stand_beside_the_card(write):
    _, path = write()
    about, card = plain(path).get_modelmeta().custom_metadata_map, Detector(path).card
    assert ast.literal_eval(about["names"]) == dict(enumerate(card.names))
    assert ast.literal_eval(about["imgsz"]) == [64, 96]
    for value in (*onnx.load(path).graph.input, *onnx.load(path).graph.output):
        assert value.doc_string


@pytest.mark.parametrize("head", ["sigmoid", "fpn"])
@pytest.mark.parametrize("suppressed", [False, True])
def test_opencv_runs_it(write, suppressed, head):
    if suppressed and int(cv2.__version__.split(".")[0]) < 5:
        pytest.skip("OpenCV has suppression since 5.0")
    _, path = write(head, suppressed=suppressed)
    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(IMAGES[:1])
    names = ["boxes", "scores", "labels"][: 3 if suppressed else 2]
    for ours, theirs in zip(plain(path).run(names, {"images": IMAGES[:1]}), network.forward(names), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=0.01)


@pytest.mark.parametrize("head", ["sigmoid", "fpn", "faster_rcnn"])
def test_torchs_own_export_of_a_model_finds_the_same(head, tmp_path):
    model, _ = tiny_detector(head)
    pixels = torch.from_numpy(IMAGES[:1]).permute(0, 3, 1, 2)
    torch.onnx.export(model, (pixels,), tmp_path / "m.onnx", dynamo=True, verbose=False)
    session = plain(tmp_path / "m.onnx")
    found = session.run(None, {session.get_inputs()[0].name: pixels.numpy()})
    with torch.no_grad():
        wanted = model(pixels)[0]
    assert len(wanted["scores"]) > 5
    for ours, theirs in zip(wanted.values(), found, strict=True):
        np.testing.assert_allclose(theirs, ours, atol=0.01)


def test_the_thresholds_are_constants_that_the_package_onnx_changes(write):
    model, path = write()
    graph, values = onnx.load(path), {"score_threshold": 0.3, "iou_threshold": 0.2}
    for constant in (tensor for tensor in graph.graph.initializer if tensor.name in values):
        value = np.array(values.pop(constant.name), np.float32)
        constant.CopyFrom(onnx.numpy_helper.from_array(value, constant.name))
    assert not values
    onnx.save(graph, path)
    found = RawDetections(*plain(path).run(None, {"images": IMAGES[:1]}))
    assert_same(found, expected(model, IMAGES[:1], 0.3, 0.2))
    with pytest.raises(ModelFileError, match="checksum"):
        Detector(path)


@pytest.fixture
def image(tmp_path, monkeypatch):
    """image.jpg in the current folder, of another size and shape than the network's."""
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "image.jpg", IMAGES[0].repeat(2, axis=0)[:, :70])
    return tmp_path / "image.jpg"


@pytest.mark.parametrize("letterbox", [False, True])
def test_the_documented_recipe_for_onnx_runtime(write, image, documented, letterbox, capsys):
    _, path = write(letterbox=letterbox)
    path.rename("model.onnx")
    documented("detect_onnxruntime.py")
    wanted = Detector("model.onnx", threads=1, score_threshold=0.4)(image)
    assert len(printed(capsys.readouterr().out, wanted)) == len(wanted) > 5


def test_the_documented_recipe_for_opencv(tiny_checkpoint, tmp_path, image, documented, capsys):
    options = ExportOptions(suppressed=False, threads=1, labels=tmp_path / "labels.txt", force=True)
    export_model(tiny_checkpoint("sigmoid", input_size=(300, 300)), tmp_path / "model.onnx", options)
    documented("detect_opencv.py")
    wanted = Detector("model.onnx", threads=1, score_threshold=0.4)(image)
    assert len(printed(capsys.readouterr().out, wanted)) > 5  # of each box the best class only


def printed(text, wanted):
    """Lines of name, score and box; each is a detection of ``wanted``, which are at most 100."""
    lines = re.findall(r"^(.+?) (0\.\d+) \[\s*(.*?)\]$", text, re.MULTILINE | re.DOTALL)
    for name, score, box in lines:
        if len(wanted) == 100 and float(score) <= wanted.scores.min() + 1e-3:
            continue
        near = np.abs(wanted.scores - float(score)) < 1e-3
        near &= np.abs(wanted.boxes - np.array(box.split(), float)).max(axis=1) < 0.1
        assert name in [wanted.name(index) for index in np.flatnonzero(near)]
    return lines

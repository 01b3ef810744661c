import json
import logging
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from tiny_detectors import SIZE, make_images, tiny_detector

from mobiledet import Detector
from mobiledet.data.coco import load_coco
from mobiledet.draw.boxes import write_image
from mobiledet.errors import CheckpointError, MissingDependencyError, ModelFileError
from mobiledet.evaluation.predictions import model_record, predict_dataset
from mobiledet.exporters import exporting
from mobiledet.exporters.agreement import Agreement, AgreementReport
from mobiledet.exporters.base import ExportOptions
from mobiledet.exporters.choose import format_of
from mobiledet.exporters.exporting import export_model
from mobiledet.exporters.onnx import ONNX_EXPORTER
from mobiledet.models.quantization import measure_ranges
from mobiledet.utils.machine import instruction_set
from mobiledet.weights.checkpoint import load_checkpoint, save_checkpoint

ONE_THREAD = ExportOptions(threads=1)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for index, image in enumerate(make_images(12)):
        write_image(folder / f"{index}.png", image)
    return folder


@pytest.mark.parametrize("head", ["sigmoid", "softmax", "fpn", "faster_rcnn"])
def test_a_checkpoint_becomes_a_file_with_its_agreement_report(tiny_checkpoint, tmp_path, head):
    checkpoint, output = tiny_checkpoint(head), tmp_path / "model.onnx"
    report = export_model(checkpoint, output, ONE_THREAD)
    assert report.passed
    assert report.agreement.matched_share == 1
    assert report.agreement.boxes > 50
    assert report.agreement.largest_score_difference < 1e-4
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.certificate.json"]
    assert AgreementReport.read(output) == report
    assert report.instruction_set == instruction_set()
    assert report.checkpoint["file"] == str(checkpoint)
    assert len(report.checkpoint["sha256"]) == 64
    card = Detector(output).card
    assert (card.names[0], card.category_ids, card.precision, card.head) == (
        "cat",
        (1, 5, 9),
        "float32",
        head.replace("sigmoid", "ssd").replace("softmax", "ssd"),
    )
    assert card.gmacs > 0
    assert card.config["model"]["num_classes"] == 3


@pytest.mark.parametrize("head", ["sigmoid", "faster_rcnn"])
def test_a_checkpoint_may_be_called_from_several_threads(tiny_checkpoint, head):
    detector, images = Detector(tiny_checkpoint(head), threads=1), list(make_images(6))
    alone = [detector(image).boxes.tobytes() for image in images]
    fresh = Detector(tiny_checkpoint(head), threads=1)
    with ThreadPoolExecutor(4) as pool:
        assert [found.boxes.tobytes() for found in pool.map(fresh, images * 3)] == alone * 3


def test_an_exported_file_scores_like_its_checkpoint(tiny_checkpoint, tmp_path, tiny_shapes):
    dataset = load_coco(tiny_shapes, "val")
    checkpoint, output = tiny_checkpoint("sigmoid"), tmp_path / "model.onnx"
    export_model(checkpoint, output, ONE_THREAD)
    # Its classes aren't the data's, so the names are lent.
    found = [predict_dataset(Detector(path, threads=1), dataset.names[:3], dataset) for path in (checkpoint, output)]
    assert len(found[0]) > 10
    assert [row["category_id"] for row in found[0]] == [row["category_id"] for row in found[1]]
    np.testing.assert_allclose([row["score"] for row in found[0]], [row["score"] for row in found[1]], atol=1e-5)
    np.testing.assert_allclose([row["bbox"] for row in found[0]], [row["bbox"] for row in found[1]], atol=0.02)
    record = model_record(str(output), Detector(output))
    assert record["precision"] == "float32"
    assert record["runtime"].startswith("onnxruntime")
    assert record["checkpoint"]["file"] == str(checkpoint)


@pytest.mark.parametrize("name", ["model.onnx", "model.tflite"])
def test_it_may_give_fewer_detections_and_write_the_class_names(tiny_checkpoint, tmp_path, name):
    labels, image = tmp_path / "labels.txt", make_images(1)[0]
    options = ExportOptions(format_of(tmp_path / name), max_detections=10, labels=labels, threads=1)
    report = export_model(tiny_checkpoint("sigmoid"), tmp_path / name, options)
    assert report.agreement.matched_share == 1
    found, wanted = (Detector(path, threads=1)(image) for path in (tmp_path / name, tiny_checkpoint("sigmoid")))
    assert len(found) == 10 < len(wanted)
    np.testing.assert_allclose(found.scores, wanted.scores[:10], atol=1e-5)
    assert labels.read_text(encoding="utf-8") == '0 cat\n1 a "dog" <&> ü\n2 hat\n'
    with pytest.raises(ModelFileError, match=r"labels\.txt exists already"):
        export_model(tiny_checkpoint("sigmoid"), tmp_path / f"another {name}", options)


def test_a_broken_image_is_left_out_of_the_calibration(tiny_checkpoint, tmp_path, photographs, caplog):
    shutil.copytree(photographs, tmp_path / "images")
    (tmp_path / "images" / "5.png").write_bytes((photographs / "5.png").read_bytes()[:100])
    folder, output = tmp_path / "images", tmp_path / "model.onnx"
    options = ExportOptions(int8=True, calibration=[folder], images=[folder], threads=1, force=True)
    assert export_model(tiny_checkpoint("sigmoid"), output, options).agreement.images == 11
    assert [record.message.count("5.png") for record in caplog.records if "5.png" in record.message] == [1, 1]


def test_int8(tiny_checkpoint, tmp_path, photographs):
    output = tmp_path / "model.onnx"
    options = ExportOptions(int8=True, calibration=[photographs], images=[photographs], threads=1, force=True)
    report = export_model(tiny_checkpoint("sigmoid"), output, options)
    assert report.agreement.images == 12
    assert report.agreement.largest_score_difference > 1e-4
    assert Detector(output).card.precision == "int8"


def test_a_checkpoint_trained_for_int8_brings_its_ranges(tiny_checkpoint, tmp_path):
    content = load_checkpoint(tiny_checkpoint("sigmoid"))
    model = tiny_detector("sigmoid")[0]
    content["ranges"] = measure_ranges(model, [torch.from_numpy(make_images(4)).permute(0, 3, 1, 2)])
    save_checkpoint(tmp_path / "best.pt", content)
    for format, name in (("onnx", "m.onnx"), ("litert", "m.tflite"), ("openvino", "openvino"), ("frigate", "frigate")):
        options = ExportOptions(format, int8=True, threads=1, force=True)
        report = export_model(tmp_path / "best.pt", tmp_path / name, options)
        assert report.agreement.mean_score_difference < 0.05  # of random weights, which amplify rounding
        assert Detector(tmp_path / name).card.precision == "int8"
    # A file in float is compared with the weights in float.
    report = export_model(tmp_path / "best.pt", tmp_path / "float.onnx", ONE_THREAD)
    assert report.agreement.largest_score_difference < 1e-4


def test_training_for_int8_is_advised_where_it_can_be(tiny_checkpoint, tmp_path, photographs, monkeypatch):
    monkeypatch.setattr(exporting, "compare", lambda *_, **__: Agreement(1, 100, 50, 9.0, 0.5, 0.1))
    monkeypatch.setattr(exporting, "find_exporter", lambda _: replace(ONNX_EXPORTER, layer_errors=None))
    for head, advised in (("sigmoid", True), ("faster_rcnn", False)):
        options = ExportOptions(int8=True, calibration=[photographs], threads=1)
        with pytest.raises(ModelFileError) as caught:
            export_model(tiny_checkpoint(head), tmp_path / "model.onnx", options)
        assert ("train.quantize=true" in str(caught.value)) == advised


def test_what_finds_too_little_is_refused_and_the_guilty_layers_named(
    tiny_checkpoint, tmp_path, photographs, monkeypatch, caplog
):
    monkeypatch.setattr(exporting, "compare", lambda *_, **__: Agreement(1, 100, 50, 9.0, 0.5, 0.1))
    monkeypatch.setattr(exporting, "PROBED", 1)
    options = ExportOptions(int8=True, calibration=[photographs], threads=1)
    with caplog.at_level(logging.INFO), pytest.raises(ModelFileError, match=r"not written: 50\.0% .*--force"):
        export_model(tiny_checkpoint("sigmoid"), tmp_path / "model.onnx", options)
    assert list(tmp_path.iterdir()) == []
    assert "layers that lose most" in caplog.text
    assert "backbone.layers." in caplog.text


def test_force_keeps_it_and_says_so(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "compare", lambda *_, **__: Agreement(1, 100, 50, 9.0, 0.5, 0.1))
    export_model(tiny_checkpoint("sigmoid"), tmp_path / "m.onnx", ExportOptions(force=True, threads=1))
    written = json.loads((tmp_path / "m.onnx.certificate.json").read_text())
    assert (written["passed"], written["forced"]) == (False, True)
    assert (tmp_path / "m.onnx").exists()


def test_ap_decides_where_there_is_data(tiny_checkpoint, tmp_path, tiny_shapes, monkeypatch):
    dataset = load_coco(tiny_shapes, "val")
    monkeypatch.setattr(exporting, "predict_dataset", lambda *_, **__: [])
    monkeypatch.setattr(exporting, "compare", lambda *_, **__: Agreement(1, 100, 50, 9.0, 0.5, 0.1))
    points = iter([0.5, 0.496, 0.5, 0.493, 0.5, 0.493])
    monkeypatch.setattr(exporting, "score_detections", lambda *_, **__: type("M", (), {"AP": next(points)}))
    checkpoint = tiny_checkpoint("sigmoid")
    made = export_model(checkpoint, tmp_path / "a.onnx", ExportOptions(dataset=dataset, threads=1))
    assert made.ap is not None
    assert made.ap["difference"] == pytest.approx(-0.4)
    with pytest.raises(ModelFileError, match=r"AP falls by 0\.70 points, more than 0\.5"):
        export_model(checkpoint, tmp_path / "b.onnx", ExportOptions(dataset=dataset, threads=1))
    export_model(checkpoint, tmp_path / "c.onnx", ExportOptions(dataset=dataset, threads=1, max_ap_loss=0.8))


def test_images_that_keep_their_shape_get_a_canvas(tiny_checkpoint, tmp_path):
    checkpoint = tiny_checkpoint("faster_rcnn", input_size=SIZE, resize="shorter_side", longest_side=96)
    export_model(checkpoint, tmp_path / "a.onnx", ExportOptions(threads=1, force=True))
    card = Detector(tmp_path / "a.onnx").card
    assert (card.resize.size, card.resize.letterbox) == ((64, 85), True)
    export_model(checkpoint, tmp_path / "b.onnx", ExportOptions(threads=1, force=True, input_size=(70, 64)))
    assert Detector(tmp_path / "b.onnx").card.resize.size == (70, 64)


def test_another_input_size_than_it_was_trained_at(tiny_checkpoint, tmp_path):
    export_model(tiny_checkpoint("sigmoid"), tmp_path / "m.onnx", ExportOptions(threads=1, input_size=(96, 160)))
    detector = Detector(tmp_path / "m.onnx", threads=1, score_threshold=0.01)
    assert detector.card.resize.size == (96, 160)
    boxes = detector(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)).boxes
    assert len(boxes) > 5
    assert boxes[:, 2].max() > 300
    assert boxes[:, 3].max() > 200


@pytest.mark.parametrize(
    ("output", "options", "message"),
    [
        ("model.bin", {}, r"ends with \.onnx"),
        ("m.onnx", {"format": "openvino"}, "openvino writes a folder"),
        ("m", {"format": "ncnn", "int8": True}, "INT8 is offered for onnx and openvino and litert"),
        ("m", {"format": "ncnn", "batch": 2}, "one image at a time"),
        ("m", {"format": "openvino", "int8": True, "keep_float": ["x"]}, "--keep-float is not offered for openvino"),
        ("m.onnx", {"int8": True}, "--calibration path/to/images"),
    ],
)
def test_mistakes_are_reported_before_the_work(tiny_checkpoint, tmp_path, output, options, message):
    with pytest.raises(ModelFileError, match=message):
        export_model(tiny_checkpoint("sigmoid"), tmp_path / output, ExportOptions(**options))
    assert list(tmp_path.iterdir()) == []


def test_missing_packages_are_reported_before_the_work(tiny_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name in ("openvino", "nncf", "onnx") else name)
    checkpoint = tiny_checkpoint("sigmoid")
    with pytest.raises(MissingDependencyError, match=r"onnx needs onnx, not installed .*\[export\]"):
        export_model(checkpoint, tmp_path / "m.onnx", ONE_THREAD)
    with pytest.raises(MissingDependencyError, match=r"openvino needs onnx and openvino, .*\[export-all\]"):
        export_model(checkpoint, tmp_path / "m", ExportOptions(format="openvino"))


def test_nothing_is_overwritten(tiny_checkpoint, tmp_path):
    (tmp_path / "m.onnx").write_text("mine")
    with pytest.raises(ModelFileError, match="exists already"):
        export_model(tiny_checkpoint("sigmoid"), tmp_path / "m.onnx", ONE_THREAD)
    (tmp_path / "n.onnx.certificate.json").write_text("mine")
    with pytest.raises(ModelFileError, match="exists already"):
        export_model(tiny_checkpoint("sigmoid"), tmp_path / "n.onnx", ONE_THREAD)
    with pytest.raises(CheckpointError, match="no checkpoint"):
        export_model(tmp_path / "missing.pt", tmp_path / "o.onnx", ONE_THREAD)


def test_what_is_exported_already_is_refused(tiny_checkpoint, tmp_path):
    export_model(tiny_checkpoint("sigmoid"), tmp_path / "m.onnx", ONE_THREAD)
    with pytest.raises(ModelFileError, match="exported already"):
        export_model(tmp_path / "m.onnx", tmp_path / "n.onnx", ONE_THREAD)


def test_too_few_calibration_images_for_a_batch(tiny_checkpoint, tmp_path, photographs):
    options = ExportOptions(int8=True, calibration=[photographs / "1.png"], batch=2, threads=1)
    with pytest.raises(ModelFileError, match="1 image, fewer than --batch 2"):
        export_model(tiny_checkpoint("sigmoid"), tmp_path / "m.onnx", options)
    assert list(tmp_path.iterdir()) == []

"""Our TensorFlow Lite files, also as a program reads them that knows nothing of us."""

import numpy as np
import pytest
from tiny_detectors import NAMES, SIZE, expected, make_images, tiny_detector

from mobiledet import Detector
from mobiledet.errors import ModelFileError
from mobiledet.exporters.base import ExportOptions
from mobiledet.exporters.litert import LITERT_EXPORTER
from mobiledet.models.quantization import imitate_int8, measure_ranges, trained_ranges
from mobiledet.runtime.choose import open_backend

pytest.importorskip("ai_edge_litert", reason="the package ai-edge-litert isn't installed")


def written(path, head="sigmoid", *, int8=False, **changes):
    model, card = tiny_detector(head, **changes)
    calibration = [image[None] for image in make_images(4)] if int8 else ()
    LITERT_EXPORTER.write(model, card, path, ExportOptions("litert", int8=int8), calibration)
    return model, card


def stranger(path, image, threads=1):
    """What a program written for such files does: boxes ``ymin, xmin, ymax, xmax``, classes, scores, their number."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    (given,) = interpreter.get_input_details()
    pixels = image if given["dtype"] == np.uint8 else ((image - 127.5) / 127.5).astype(np.float32)
    interpreter.set_tensor(given["index"], pixels)
    interpreter.invoke()
    return [interpreter.get_tensor(output["index"]) for output in interpreter.get_output_details()]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
def test_a_stranger_finds_the_best_detections_in_it(tmp_path, head, padding, threads):
    model, card = written(tmp_path / "m.tflite", head, padding=padding)
    image = make_images(1)
    boxes, classes, scores, count = stranger(tmp_path / "m.tflite", image, threads)
    assert boxes.shape == (1, card.max_detections, 4)
    assert count[0] > 3
    wanted_boxes, wanted_scores, wanted_labels = (part[0] for part in expected(model, image))
    height, width = SIZE
    best = (boxes[0, 0, [1, 0, 3, 2]] * (width, height, width, height)).clip(0, (width, height, width, height))
    np.testing.assert_allclose(best, wanted_boxes[0], atol=1e-2)
    assert scores[0, 0] == pytest.approx(wanted_scores[0], abs=1e-4)
    assert classes[0, 0] == wanted_labels[0] - 1


def test_int8_takes_pixels_and_finds_about_the_same(tmp_path):
    model, _ = written(tmp_path / "m.tflite", int8=True)
    image = make_images(1)
    found, (boxes, scores, labels) = open_backend(tmp_path / "m.tflite").run(image, 0.01, 0.6), expected(model, image)
    assert found.labels[0, 0] == labels[0, 0]
    np.testing.assert_allclose(found.boxes[0, 0], boxes[0, 0], atol=4)
    assert found.scores[0, 0] == pytest.approx(scores[0, 0], abs=0.1)
    assert stranger(tmp_path / "m.tflite", image)[3][0] > 3


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
@pytest.mark.parametrize("head", ["sigmoid", "softmax", "ssdlite", "fine", "fpn"])
def test_every_layer_rounds_as_training_imitates_it(tmp_path, head, padding):
    """Given the file's own results of the layer before, each is the file's but for halves that round otherwise."""
    import torch
    from ai_edge_litert.interpreter import Interpreter

    model, card = tiny_detector(head, padding=padding)
    model.mean.fill_(128.0)  # a whole one: half a pixel's step would be seen where the first layer pads
    model.inverse_std.fill_(1 / 128)
    batches = [torch.from_numpy(images[None]).permute(0, 3, 1, 2) for images in make_images(4)]
    imitate_int8(model, measure_ranges(model, batches))
    LITERT_EXPORTER.write(model, card, tmp_path / "m.tflite", ExportOptions("litert", int8=True), [])
    interpreter = Interpreter(str(tmp_path / "m.tflite"), experimental_preserve_all_tensors=True, num_threads=1)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], make_images(6)[-1:])
    interpreter.invoke()
    tensors = {tensor["name"]: tensor for tensor in interpreter.get_tensor_details()}
    differences = []

    def compare(name, found):
        scale, zero = tensors[name]["quantization"]
        whole = torch.from_numpy(interpreter.get_tensor(tensors[name]["index"]).astype(np.float32) - zero)
        result = (whole * np.float32(scale)).permute(0, 3, 1, 2)
        if "bbox_predictors" in name and found.shape[1] % 4 == 0 and not name.endswith(".conv"):
            result = result.unflatten(1, (-1, 4))[:, :, [1, 0, 3, 2]].flatten(1, 2)
        differences.append(((found - result) / scale).abs().flatten())
        return result

    for name in trained_ranges(model):
        layer = model.get_submodule(name.removesuffix(".conv"))
        layer.register_forward_hook(lambda _layer, _inputs, found, name=name: compare(name, found))
    with torch.no_grad():
        model.candidates(torch.from_numpy(make_images(6)[-1:]).permute(0, 3, 1, 2))
    differences = torch.cat(differences)
    assert len(differences) > 10_000
    assert differences.max() < 1.01
    assert (differences > 0.5).float().mean() < 0.01


@pytest.mark.parametrize("int8", [False, True])
def test_the_recipe_of_the_docs_finds_the_same(tmp_path, monkeypatch, capsys, documented, int8):
    import cv2

    monkeypatch.chdir(tmp_path)
    _, card = written(tmp_path / "mine.tflite", int8=int8)
    (tmp_path / "labels.txt").write_text(card.label_map(), encoding="utf-8")
    height, width = SIZE
    photo = cv2.resize(make_images(1)[0], (width * 2, height * 3), interpolation=cv2.INTER_NEAREST)
    cv2.imwrite("photo.jpg", photo[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    documented("with_litert.py")
    lines = [line.rsplit(maxsplit=5) for line in capsys.readouterr().out.splitlines()]
    ours = Detector("mine.tflite", threads=1)("photo.jpg").above(0.4)
    assert len(lines) > 3
    for name, score, *box in lines[:3]:
        near = np.abs(ours.boxes - np.array(box, float)).max(axis=1) < 2
        near &= np.abs(ours.scores - float(score)) < 0.03
        assert name in {" ".join(ours.name(index).split()) for index in np.flatnonzero(near)}


def test_a_channel_of_zeros_keeps_its_bias_in_int8(tmp_path):
    import torch

    model, card = tiny_detector("sigmoid")
    with torch.no_grad():
        for predictor in model.head.cls_predictors:
            predictor.weight.zero_()
            predictor.bias.fill_(-2.0)
    calibration = [image[None] for image in make_images(2)]
    LITERT_EXPORTER.write(model, card, tmp_path / "m.tflite", ExportOptions("litert", int8=True), calibration)
    scores = open_backend(tmp_path / "m.tflite").run(make_images(1), 0.01, 0.6).scores
    np.testing.assert_allclose(scores[scores > 0], 1 / (1 + np.exp(2.0)), rtol=0.03)


def test_the_labels_are_packed_where_the_metadatas_readers_look(tmp_path):
    import zipfile

    written(tmp_path / "m.tflite")
    with zipfile.ZipFile(tmp_path / "m.tflite") as archive:
        assert archive.read("labelmap.txt").decode() == "".join(f"{name}\n" for name in NAMES)
    assert b"TFLITE_METADATA" in (tmp_path / "m.tflite").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "not a TensorFlow Lite file"), (b"\x1c\0\0\0TFL3" + bytes(40), "damaged")],
)
def test_what_is_no_detector_is_refused(tmp_path, content, message):
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ModelFileError, match=message):
        Detector(tmp_path / "m.tflite")


def test_damage_is_found(tmp_path):
    written(tmp_path / "m.tflite")
    content = bytearray((tmp_path / "m.tflite").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "m.tflite").write_bytes(content)
    with pytest.raises(ModelFileError, match="its checksum doesn't match"):
        Detector(tmp_path / "m.tflite")


def test_what_it_cant_hold_is_refused(tmp_path):
    with pytest.raises(ModelFileError, match=r"decodes the anchors of an SSD"):
        written(tmp_path / "m.tflite", "faster_rcnn")

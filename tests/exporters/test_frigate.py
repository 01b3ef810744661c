"""The folder for Frigate, used as Frigate's own detectors use theirs."""

import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
import yaml
from programs import mobiledet_in_process
from tiny_detectors import NAMES, make_images

from mobiledet import Detector

pytest.importorskip("ai_edge_litert", reason="the package ai-edge-litert isn't installed")
pytest.importorskip("openvino", reason="the package openvino isn't installed")


@pytest.fixture(scope="module", params=["float32", "int8"])
def folder(request, tiny_checkpoint, tmp_path_factory):
    root = tmp_path_factory.mktemp("frigate")
    words = ["export", tiny_checkpoint("sigmoid"), "-o", root / "mine", "--format", "frigate", "--threads", 1]
    if request.param == "int8":
        pytest.importorskip("nncf")
        (root / "images").mkdir()
        for index, image in enumerate(make_images(4)):
            cv2.imwrite(str(root / "images" / f"{index}.png"), image)
        words += ["--int8", "--calibration", root / "images", "--force"]
    mobiledet_in_process(*words)
    return root / "mine"


def settings(folder):
    """What stands in the snippet; its paths, which are those in the container, lead into ``folder``."""
    config = yaml.safe_load((folder / "config.yml").read_text())
    for key in ("path", "labelmap_path"):
        place, name = config["model"][key].rsplit("/", 1)
        assert place == f"/config/{folder.name}"
        config["model"][key] = folder / name
    return config


def labels_of(path):
    """As Frigate reads them: numbered if the first line is."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    assert lines[0].split(" ", maxsplit=1)[0].isdigit()
    return {int(number): name.strip() for number, name in (line.split(" ", maxsplit=1) for line in lines)}


def frame(model, image):
    """Frigate resizes a part of the camera's image to the config's size, and hands it on as it is."""
    assert (model["input_tensor"], model["input_pixel_format"]) == ("nhwc", "rgb")
    return cv2.resize(image, (model["width"], model["height"]), interpolation=cv2.INTER_LINEAR)[None]


def as_cpu_detector(folder, image):
    """Rows of class, score, y1, x1, y2, x2 in shares, best first."""
    from ai_edge_litert.interpreter import Interpreter

    model = settings(folder)["model"]
    interpreter = Interpreter(model_path=str(model["path"]), num_threads=3)
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], frame(model, image))
    interpreter.invoke()
    boxes, classes, scores, count = (
        interpreter.tensor(output["index"])()[0].copy() for output in interpreter.get_output_details()
    )
    return [(classes[k], scores[k], *boxes[k]) for k in range(min(int(count), 20))]


def as_openvino_detector(folder, image):
    from mobiledet.runtime.openvino import import_openvino

    openvino, model = import_openvino(), settings(folder)["model"]
    network = openvino.Core().compile_model(str(folder / "openvino.xml"), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    assert (len(network.inputs), len(network.outputs)) == (1, 1)
    assert tuple(network.input(0).shape) == (1, model["height"], model["width"], 3)
    assert [network.output(0).shape[place] for place in (0, 1, 3)] == [1, 1, 7]
    request = network.create_infer_request()
    request.infer(openvino.Tensor(array=frame(model, image)))
    rows = request.get_output_tensor(0).data[0][0]
    return [(row[1], row[2], row[4], row[3], row[6], row[5]) for row in rows[:20]]


@pytest.mark.parametrize("as_frigate", [as_cpu_detector, as_openvino_detector])
def test_frigates_detectors_find_what_ours_finds(folder, as_frigate):
    model = folder if as_frigate is as_cpu_detector else folder / "openvino.xml"
    names, image = labels_of(settings(folder)["model"]["labelmap_path"]), make_images(1)[0]
    height, width = image.shape[:2]
    ours, theirs = Detector(model, threads=1)(image), as_frigate(folder, image)
    assert len(theirs) == 20
    assert [row[1] for row in theirs] == sorted((row[1] for row in theirs), reverse=True)
    if as_frigate is as_openvino_detector:
        np.testing.assert_allclose([row[1] for row in theirs], ours.scores[:20], atol=1e-5)
    for label, score, *share in theirs[: 5 if as_frigate is as_cpu_detector else 20]:
        box = np.array(share)[[1, 0, 3, 2]].clip(0, 1) * (width, height, width, height)
        same = np.abs(ours.boxes - box).max(axis=1) < 0.01
        same &= np.abs(ours.scores - score) < 1e-4
        assert names[int(label)] in {" ".join(ours.name(index).split()) for index in np.flatnonzero(same)}


def test_every_class_is_tracked_by_the_name_that_frigate_reads(folder):
    config = settings(folder)
    assert config["objects"]["track"] == list(labels_of(config["model"]["labelmap_path"]).values())
    assert len(config["objects"]["track"]) == len(NAMES)
    assert (config["model"]["height"], config["model"]["width"]) == (64, 96)
    with zipfile.ZipFile(folder / "model.tflite") as archive:  # plain lines, for other readers
        assert archive.read("labelmap.txt").decode().splitlines()[0] == NAMES[0]


def test_the_coral_is_only_mentioned_where_it_can_be_had(folder):
    from ai_edge_litert.interpreter import Interpreter

    tensors = Interpreter(str(folder / "model.tflite")).get_tensor_details()
    kinds = {tensor["dtype"] for tensor in tensors if tensor["name"].endswith(".weight")}
    assert ("edgetpu_compiler model.tflite" in (folder / "README.md").read_text()) == (kinds == {np.int8})


def test_thresholds_that_are_part_of_the_file_arent_ignored(folder):
    detector = Detector(folder / "openvino.xml", threads=1, score_threshold=0.5)
    found = detector(make_images(1)[0])
    assert len(found) > 0
    assert found.scores.min() >= 0.5
    with pytest.raises(ValueError, match="suppression is part of the file"):
        Detector(folder / "openvino.xml", iou_threshold=0.3)(make_images(1)[0])


def test_both_models_are_compared_before_they_are_kept(tiny_checkpoint, tmp_path, monkeypatch):
    from mobiledet.exporters import frigate

    real = frigate._rows
    monkeypatch.setattr(frigate, "_rows", lambda model, card: real(model, replace(card, score_threshold=0.99)))
    done = mobiledet_in_process("export", tiny_checkpoint("sigmoid"), "-o", tmp_path / "frigate", "--threads", 1)
    assert "openvino.xml: " in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_it_holds_an_ssd_only(tiny_checkpoint, tmp_path):
    done = mobiledet_in_process("export", tiny_checkpoint("faster_rcnn"), "-o", tmp_path / "frigate")
    assert "decodes the anchors of an SSD" in done.stderr

import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mobiledet.apps.benchmark.measured import About
from mobiledet.apps.benchmark.peers import LiteRt, describe_tflite, open_peer, read_outputs
from mobiledet.errors import MissingDependencyError, ModelFileError
from mobiledet.preprocess import fit_image
from mobiledet.structures import ImageGeometry, ResizeRule

TFLITE = "ssd_mobilenet_v1_0.75_300_coco_quant.tflite"


def test_litert_boxes_come_back_in_pixels_of_a_image_that_is_not_square():
    shares = np.array([[0.1, 0.2, 0.5, 0.6], [-0.1, 0.0, 1.2, 1.0], [0, 0, 1, 1]], np.float32)  # y first
    outputs = [shares, np.array([0, 2, 5], np.float32), np.array([0.9, 0.5, 0.4], np.float32), np.float32(2)]
    found = read_outputs(outputs, ImageGeometry((200, 400), (300, 300)))
    np.testing.assert_allclose(found.boxes, [[80, 20, 240, 100], [0, 0, 400, 200]], atol=1e-3)
    assert found.labels.tolist() == [1, 3]
    assert found.scores.tolist() == pytest.approx([0.9, 0.5])


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(MissingDependencyError, match=r"a\.tflite is skipped: .*pip install ai-edge-litert"):
        open_peer("litert", "a.tflite", 1)


@pytest.mark.parametrize("content", [None, b"", b"hello", b"\x1c\0\0\0TFL3" + bytes(40)])
def test_what_is_no_tflite_file(tmp_path, content):
    path = tmp_path / "a.tflite"
    if content is not None:
        path.write_bytes(content)
        assert describe_tflite(About("LiteRT 1"), path) == About("LiteRT 1")
    pytest.importorskip("ai_edge_litert")
    with pytest.raises(ModelFileError, match=r"a\.tflite"):
        LiteRt(path, 1)


def test_the_real_detector_finds_what_the_import_finds(real_weights):
    pytest.importorskip("ai_edge_litert")
    path = real_weights / TFLITE
    peer = LiteRt(path, 1)
    assert peer.about.input_size == (300, 300)
    image = np.full((120, 200, 3), 127, np.uint8)
    stages = peer.stages(image, 2)
    assert stages["decode+nms"] is None
    assert stages["whole"] >= 0.8 * stages["network"] > 0
    assert len(peer.detect([image, image])) == 2
    about = describe_tflite(peer.about, path)
    assert (about.names[0], about.names[89], len(about.names)) == ("person", "toothbrush", 90)
    assert about.gmacs == pytest.approx(0.728, abs=0.01)


@pytest.mark.slow
def test_torchvisions_stages_add_up():
    pytest.importorskip("torchvision")
    peer = open_peer("torchvision", "", 1)
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8)
    stages = peer.stages(image, 1)
    assert 0.5 * stages["whole"] < sum(stages.values()) - stages["whole"] < 2 * stages["whole"]
    assert peer.count() == pytest.approx(0.58, abs=0.02)
    assert "random weights" in peer.about.note


def test_ultralytics_is_kept_offline_and_to_its_threads(monkeypatch, tmp_path):
    """With a package of the same outline: the real one isn't among the dependencies."""
    pytest.importorskip("torch")
    (tmp_path / "cfg" / "models" / "11").mkdir(parents=True)
    (tmp_path / "cfg" / "models" / "11" / "yolo11.yaml").touch()
    settings, asked = {}, []
    utilities = SimpleNamespace(NUM_THREADS=8)

    def predict(image, **options):
        asked.append(options)
        return [SimpleNamespace(speed={"preprocess": 1.0, "inference": 5.0, "postprocess": 0.5})]

    package = SimpleNamespace(
        __file__=str(tmp_path / "__init__.py"),
        __version__="9",
        settings=settings,
        YOLO=lambda name, **_: SimpleNamespace(model=name, predict=predict),
    )
    monkeypatch.setitem(sys.modules, "ultralytics", package)
    monkeypatch.setitem(sys.modules, "ultralytics.utils", SimpleNamespace(torch_utils=utilities))
    for name in ("YOLO_OFFLINE", "YOLO_AUTOINSTALL", "YOLO_VERBOSE"):
        monkeypatch.setenv(name, "")
    peer = open_peer("ultralytics", "", 1)
    stages = peer.stages(np.zeros((720, 1280, 3), np.uint8), 2)
    assert (stages["resize"], stages["network"], stages["decode+nms"]) == (1.0, 5.0, 0.5)
    assert os.environ["YOLO_OFFLINE"] == "true"
    assert settings == {"sync": False}
    assert utilities.NUM_THREADS == 1
    assert asked[0]["device"] == "cpu"
    counted = []
    monkeypatch.setattr("mobiledet.models.cost.count_layers", lambda model, run, size: counted.append(size) or [])
    peer.count()
    assert counted == [(384, 640)], "as large as the image became"
    assert peer.about.note.startswith("yolo11n, random weights")


def test_resize_of_litert_is_ours(monkeypatch, tmp_path):
    """The same stretching as in our own SSDs, so that a difference in time is the network's."""
    given = {"index": 0, "shape": (1, 9, 12, 3), "dtype": np.uint8}
    outputs = [np.zeros((1, 1, 4), np.float32), np.zeros((1, 1)), np.zeros((1, 1)), np.zeros(1)]
    seen = []
    interpreter = SimpleNamespace(
        allocate_tensors=lambda: None,
        get_input_details=lambda: [given],
        get_output_details=lambda: [{"index": n, "shape": out.shape} for n, out in enumerate(outputs)],
        set_tensor=lambda index, value: seen.append(value),
        invoke=lambda: None,
        get_tensor=outputs.__getitem__,
    )
    package = SimpleNamespace(interpreter=SimpleNamespace(Interpreter=lambda path, num_threads: interpreter))
    monkeypatch.setitem(sys.modules, "ai_edge_litert", package)
    (tmp_path / "a.tflite").touch()
    image = np.random.default_rng(0).integers(0, 255, (40, 80, 3), np.uint8)
    assert len(LiteRt(tmp_path / "a.tflite", 1).call(image)) == 0
    np.testing.assert_array_equal(seen[0][0], fit_image(image, ResizeRule((9, 12)))[0])

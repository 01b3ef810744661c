"""What a model's path or name is run by, with and without PyTorch."""

import sys
from dataclasses import replace
from types import ModuleType

import numpy as np
import pytest
from foreign_tflite import HEIGHT, WIDTH, write_foreign
from loopback import Answer, Loopback
from tiny_detectors import tiny_detector

from mobiledet import Detector
from mobiledet.errors import DownloadError, MissingDependencyError, ModelFileError
from mobiledet.exporters.base import ExportOptions
from mobiledet.runtime.choose import check_installed, exported_path, takes_labels
from mobiledet.runtime.litert import INTERPRETERS
from mobiledet.utils.files import cache_folder
from mobiledet.weights.catalogue import SOURCES

NAME = "ssd_mobilenet_v1_075_coco"
IMAGE = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture
def published(tmp_path, monkeypatch):
    """The name's file, small, at an address of this machine; without PyTorch. The server says what was fetched."""
    monkeypatch.setenv("MOBILEDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MOBILEDET_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    content = write_foreign(tmp_path / "published.tflite", most=2).read_bytes()
    with Loopback() as server:
        url = server.serve("/detect.tflite", Answer(content))
        source = replace(SOURCES[0], url=url, sha256=None, threshold=0.3)
        monkeypatch.setattr("mobiledet.weights.catalogue.SOURCES", (source,))
        yield server


def test_without_pytorch_a_named_detector_is_fetched_once_and_run_as_its_converted_weights_are(published):
    first, again = Detector(NAME), Detector(NAME)
    assert len(published.asked) == 1
    assert exported_path(NAME) == cache_folder() / "weights" / SOURCES[0].file_name
    # Its own suppression would keep two, and one class of each box.
    levels = np.sort(IMAGE[..., 1:].ravel())[::-1]  # the first of three scores is the background's
    np.testing.assert_allclose(first(IMAGE).scores, levels[levels >= 0.01 * 255] / 255, atol=1e-6)
    assert first.card.shown_threshold == 0.3
    np.testing.assert_array_equal(first(IMAGE).scores, again(IMAGE).scores)
    assert len(Detector(NAME, iou_threshold=0.1)(IMAGE)) > 10


def test_without_a_network_one_line_says_which_file_to_get(published, monkeypatch):
    monkeypatch.setenv("MOBILEDET_OFFLINE", "1")
    with pytest.raises(
        DownloadError, match=r"MOBILEDET_OFFLINE is set; .*detect\.tflite and save it as .*MOBILEDET_WEIGHTS"
    ):
        Detector(NAME)


def test_a_folder_of_weights_is_looked_in_first(published, tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    path = write_foreign(tmp_path / "mine" / SOURCES[0].file_name, background=False)
    monkeypatch.setenv("MOBILEDET_WEIGHTS", str(tmp_path / "mine"))
    assert len(Detector(NAME).names) == 3
    assert exported_path(NAME) == path
    assert published.asked == []


def test_another_device_than_the_processor_needs_pytorch(published):
    with pytest.raises(MissingDependencyError, match="torch"):
        Detector(NAME, provider="cuda")
    assert exported_path(NAME, "cuda") is None


def test_with_pytorch_a_name_is_a_checkpoint():
    pytest.importorskip("torch")
    assert exported_path(NAME) is None
    check_installed(NAME)


def test_any_package_with_an_interpreter_will_do(tmp_path, monkeypatch):
    path = write_foreign(tmp_path / "m.tflite")
    wanted = Detector(path)(IMAGE)
    import ai_edge_litert.interpreter as litert

    for package in list(INTERPRETERS)[1:]:
        for other in INTERPRETERS:
            monkeypatch.setitem(sys.modules, other, None)
        module, holder = ModuleType(package), ModuleType(INTERPRETERS[package])
        module.__version__, module.__spec__, holder.Interpreter = "2.14.0", litert.__spec__, litert.Interpreter
        monkeypatch.setitem(sys.modules, package, module)
        monkeypatch.setitem(sys.modules, INTERPRETERS[package], holder)
        detector = Detector(path)
        assert detector.backend.runtime == "TensorFlow Lite 2.14.0"
        np.testing.assert_array_equal(detector(IMAGE).scores, wanted.scores)


def test_none_of_the_packages_is_installed(tmp_path, monkeypatch):
    path = write_foreign(tmp_path / "m.tflite")
    for package in INTERPRETERS:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingDependencyError, match=r"ai_edge_litert, .*mobiledet\[litert\]"):
        Detector(path)


def test_names_are_for_files_that_have_none_of_ours(tmp_path):
    model, card = tiny_detector("sigmoid")
    from mobiledet.exporters.litert import LITERT_EXPORTER

    own, foreign = tmp_path / "own.tflite", write_foreign(tmp_path / "foreign.tflite")
    LITERT_EXPORTER.write(model, card, own, ExportOptions("litert"), ())
    assert (takes_labels(own), takes_labels(foreign)) == (False, True)
    (tmp_path / "m.onnx").touch()
    for path in (own, tmp_path / "m.onnx", tmp_path / "best.pt"):
        with pytest.raises(ModelFileError, match="leave labels"):
            Detector(path, labels=["a", "b", "c"])
    with pytest.raises(ModelFileError, match="no model"):
        Detector(tmp_path / "none.tflite", labels=["a"])

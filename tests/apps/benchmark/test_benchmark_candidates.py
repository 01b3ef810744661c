from dataclasses import replace

import numpy as np
import pytest

from mobiledet.apps.benchmark.candidates import (
    Candidate,
    bytes_of,
    choose_candidates,
    parse_peers,
    summarise_certificate,
)
from mobiledet.apps.benchmark.images import make_images, parse_sizes
from mobiledet.errors import MobiledetError
from mobiledet.exporters.agreement import FLOAT_LIMITS, Agreement, AgreementReport


def labels(*models, peers=()):
    return [row.label for row in choose_candidates(models, peers)]


def test_labels_are_short_and_never_alike():
    assert labels("runs/a/1/best.pt", "model.onnx") == ["best.pt", "model.onnx"]
    assert labels("runs/a/1/best.pt", "runs/a/2/best.pt") == ["1/best.pt", "2/best.pt"]
    assert labels("a/1/best.pt", "b/1/best.pt") == ["a/1/best.pt", "b/1/best.pt"]
    assert labels("m.onnx", "m.onnx") == ["m.onnx", "m.onnx (2)"]
    assert labels("a/m.onnx", "a/m.onnx", "b/m.onnx") == ["a/m.onnx", "a/m.onnx (2)", "b/m.onnx"]
    assert labels("folder/") == ["folder"]


def test_models_come_before_peers():
    rows = choose_candidates(["a.tflite", "b.onnx"], ["torchvision"])
    expected = [("model", "a.tflite"), ("model", "b.onnx"), ("torchvision", "")]
    assert [(row.kind, row.target) for row in rows] == expected


def test_peers_that_make_no_sense():
    with pytest.raises(MobiledetError) as error:
        parse_peers("foo")
    assert all(word in str(error.value) for word in ("'foo'", "torchvision"))


def test_all_means_those_installed(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "ultralytics" else object())
    there, lines = parse_peers("all")
    assert there == ["torchvision"]
    assert lines == ["ultralytics is skipped: it is not installed; pip install ultralytics"]
    assert parse_peers(None) == ([], [])


def write_report(model, **changes):
    agreement = Agreement(8, 100, 99, 0.5, 0.01, 0.001)
    ap = {"checkpoint": 20.0, "model": 19.5, "difference": -0.5, "images": 8, "data": "val.json"}
    origin = {"file": "best.pt", "sha256": "abc"}
    report = AgreementReport("a.onnx", origin, "onnxruntime 1", agreement, ap, FLOAT_LIMITS)
    replace(report, **changes).write(model)


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "passed"),
        ({"problems": ["AP falls"]}, "failed"),
        ({"problems": ["AP falls"], "forced": True}, "forced"),
        (None, "none"),
    ],
)
def test_certificate_states(tmp_path, changes, state):
    if changes is not None:
        write_report(tmp_path / "a.onnx", **changes)
    found = summarise_certificate(Candidate("a", "model", str(tmp_path / "a.onnx")))
    assert found.state == state
    if changes is not None:
        assert found.checkpoint == "abc"
        assert found.figures["matched_share"] == 0.99
        assert found.figures["ap"] == {"checkpoint": 20.0, "model": 19.5, "difference": -0.5}


def test_a_folders_certificate_lies_beside_the_folder(tmp_path):
    folder = tmp_path / "m_openvino"
    folder.mkdir()
    (folder / "model.xml").write_text("x" * 10)
    (folder / "model.bin").write_text("y" * 32)
    write_report(folder)
    for target in (folder, folder / "model.xml", f"{folder}/"):
        assert summarise_certificate(Candidate("m", "model", str(target))).state == "passed"
    assert bytes_of(folder) == 42
    assert bytes_of(tmp_path / "nothing") is None


def test_a_certificate_that_is_damaged_and_models_that_have_none_to_show(tmp_path):
    (tmp_path / "a.onnx.certificate.json").write_text('{"passed": true}')
    assert summarise_certificate(Candidate("a", "model", str(tmp_path / "a.onnx"))).state == "damaged"
    assert summarise_certificate(Candidate("a", "model", str(tmp_path / "best.pt"))).state == "-"
    assert summarise_certificate(Candidate("a", "torchvision")).state == "-"


def test_sizes_are_height_first():
    assert parse_sizes("480x640, own,72X96") == ((480, 640), None, (72, 96))


NINE = "1x1,2x1,3x1,4x1,5x1,6x1,7x1,8x1,9x1"


@pytest.mark.parametrize(
    "text", ["", "480", "480x", "x", "0x5", "-4x5", "4x5x6", "9000x5", "4x5,4x5", "own,own", "²x3", NINE]
)
def test_sizes_that_make_no_sense(text):
    with pytest.raises(MobiledetError, match="--sizes"):
        parse_sizes(text)


def test_drawn_images_have_content_and_are_always_the_same():
    first, again = make_images((48, 80)), make_images((48, 80))
    assert all(image.shape == (48, 80, 3) and image.dtype == np.uint8 for image in first)
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert all(image.std() > 20 for image in first)
    assert not (first[0] == first[1]).all()
    assert make_images((1, 1))[0].shape == (1, 1, 3)


@pytest.mark.parametrize("size", [(30, 30), (10, 200), (200, 10), (1, 1)])
def test_images_of_a_folder_are_cropped_not_stretched(size):
    source = np.zeros((60, 120, 3), np.uint8)
    source[:, :, 0] = np.arange(120)[None]
    (filled,) = make_images(size, [source])
    assert filled.shape == (*size, 3)
    if size == (30, 30):  # the middle 60 of 120 columns, at half the size
        assert int(filled[0, 0, 0]) == pytest.approx(30, abs=2)
        assert int(filled[0, -1, 0]) == pytest.approx(89, abs=2)

"""A runtime and its exporter are a file each and a name in two tuples; every program knows them from there."""

import json
import shutil
from dataclasses import replace

import pytest
from programs import mobiledet_in_process
from tiny_detectors import NAMES, make_images

from mobiledet import Detector
from mobiledet.apps.benchmark.candidates import choose_candidates, summarise_certificate
from mobiledet.exporters import choose as exporters
from mobiledet.runtime import choose as runtimes


@pytest.fixture(autouse=True)
def exporter(monkeypatch, documented):
    """The exporter of the example in docs/architecture.md, whose runtime is known, too."""
    exporter = documented("link.py")["EXPORTER"]
    monkeypatch.setattr(runtimes, "RUNTIMES", (*runtimes.RUNTIMES, exporter.runtime))
    monkeypatch.setattr(exporters, "EXPORTERS", (*exporters.EXPORTERS, exporter))
    return exporter


@pytest.fixture
def model(tiny_checkpoint, tmp_path):
    path = tmp_path / "model.link"
    mobiledet_in_process("export", tiny_checkpoint("sigmoid"), "-o", path, "--format", "link", "--threads", 1)
    return path


def test_it_is_exported_compared_and_detects(model, tiny_checkpoint):
    image = make_images(1)[0]
    found, wanted = (Detector(path, threads=1)(image) for path in (model, tiny_checkpoint("sigmoid")))
    assert len(found) > 5
    assert (found.boxes == wanted.boxes).all()
    (row,) = choose_candidates([str(model)], [])
    assert (row.kind, summarise_certificate(row).state) == ("model", "passed")


def test_it_is_scored(model, tiny_shapes, tmp_path):
    data = shutil.copytree(tiny_shapes, tmp_path / "data")
    annotations = data / "annotations" / "instances_val.json"
    content = json.loads(annotations.read_text())
    for category, name in zip(content["categories"], NAMES, strict=False):
        category["name"] = name
    annotations.write_text(json.dumps(content))
    mobiledet_in_process("eval", model, "--data", data, "--json", tmp_path / "metrics.json", "--threads", 1)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["images"], metrics["model"]["runtime"]) == (4, "link 1")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            "--format link --int8 --calibration .",
            "INT8 is offered for onnx and openvino and litert and frigate, not for link",
        ),
        ("--format link --batch 2", "link takes one image at a time"),
        ("--format chain", "there is no format 'chain'; choose from onnx, openvino, ncnn, litert, frigate, link"),
    ],
)
def test_what_it_cant_do_is_refused(tiny_checkpoint, tmp_path, words, message):
    done = mobiledet_in_process("export", tiny_checkpoint("sigmoid"), "-o", tmp_path / "m.link", *words.split())
    assert message in done.stderr


def test_a_failed_write_leaves_nothing(tiny_checkpoint, tmp_path, monkeypatch, exporter):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporters, "EXPORTERS", (replace(exporter, write=full),))
    done = mobiledet_in_process("export", tiny_checkpoint("sigmoid"), "-o", tmp_path / "m.link", "--format", "link")
    assert "m.link: can't be written: No space left on device" in done.stderr
    assert list(tmp_path.iterdir()) == []

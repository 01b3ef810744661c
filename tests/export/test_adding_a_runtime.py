"""A runtime and its exporter are a file each and a name in two tuples; every program knows them from there."""

import json
import shutil
from dataclasses import replace

import pytest
from tiny_detectors import NAMES, make_images

from mobiledet import Detector
from mobiledet.apps.benchmark.candidates import choose_candidates, summarise_certificate
from mobiledet.cli import eval as eval_command
from mobiledet.cli import export as export_command
from mobiledet.errors import ModelFileError
from mobiledet.export import choose as exporters
from mobiledet.runtime import choose as runtimes


@pytest.fixture(autouse=True)
def exporter(monkeypatch, documented):
    """The exporter of the example in docs/architecture.md, whose runtime is known, too."""
    exporter = documented("link.py")["EXPORTER"]
    monkeypatch.setattr(runtimes, "RUNTIMES", (*runtimes.RUNTIMES, exporter.runtime))
    monkeypatch.setattr(exporters, "EXPORTERS", (*exporters.EXPORTERS, exporter))
    return exporter


@pytest.fixture
def command(monkeypatch):
    def run(main, *words):
        monkeypatch.setattr("sys.argv", ["program", *map(str, words)])
        return main()

    return run


@pytest.fixture
def model(command, tiny_checkpoint, tmp_path):
    path = tmp_path / "model.link"
    command(export_command.main, tiny_checkpoint("sigmoid"), "-o", path, "--format", "link", "--threads", 1)
    return path


def test_it_is_exported_compared_and_detects(model, tiny_checkpoint):
    image = make_images(1)[0]
    found, wanted = (Detector(path, threads=1)(image) for path in (model, tiny_checkpoint("sigmoid")))
    assert len(found) > 5
    assert (found.boxes == wanted.boxes).all()
    (row,) = choose_candidates([str(model)], [])
    assert (row.kind, summarise_certificate(row).state) == ("model", "passed")


def test_it_is_scored(command, model, tiny_shapes, tmp_path):
    data = shutil.copytree(tiny_shapes, tmp_path / "data")
    annotations = data / "annotations" / "instances_val.json"
    content = json.loads(annotations.read_text())
    for category, name in zip(content["categories"], NAMES, strict=False):
        category["name"] = name
    annotations.write_text(json.dumps(content))
    command(eval_command.main, model, "--data", data, "--json", tmp_path / "metrics.json", "--threads", 1)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["images"], metrics["model"]["runtime"]) == (4, "link 1")


def test_what_it_cant_do_is_refused(command, tiny_checkpoint, tmp_path, capsys):
    words = (tiny_checkpoint("sigmoid"), "-o", tmp_path / "m.link", "--format", "link")
    with pytest.raises(ModelFileError, match="INT8 is offered for onnx and openvino, not for link"):
        command(export_command.main, *words, "--int8", "--calibration", tmp_path)
    with pytest.raises(ModelFileError, match="link takes one image at a time"):
        command(export_command.main, *words, "--batch", 2)
    with pytest.raises(SystemExit):
        command(export_command.main, *words[:-1], "chain")
    assert "there is no format 'chain'; choose from onnx, openvino, ncnn, link" in capsys.readouterr().err


def test_a_failed_write_leaves_nothing(command, tiny_checkpoint, tmp_path, monkeypatch, exporter):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporters, "EXPORTERS", (replace(exporter, write=full),))
    with pytest.raises(ModelFileError, match=r"m\.link: can't be written: No space left on device"):
        command(export_command.main, tiny_checkpoint("sigmoid"), "-o", tmp_path / "m.link", "--format", "link")
    assert list(tmp_path.iterdir()) == []

import sys

import pytest

from mobiledet import __version__
from mobiledet.errors import MissingDependencyError, ModelFileError
from mobiledet.exporters.prepare_model import prepare_model

NAME = "ssd_mobilenet_v1_075_coco"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEDET_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def without(monkeypatch):
    """Packages that aren't installed."""

    def hide(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


def exporter(monkeypatch, made):
    def export_model(model, output, options):
        made.append((model, options.threads))
        output.write_bytes(b"model")

    monkeypatch.setattr("mobiledet.exporters.exporting.export_model", export_model)


def test_paths_stay_as_they_are(cache):
    for path in ("model.onnx", "runs/x/1", "best.pt", "my_model"):
        assert prepare_model(path) == path
    assert not cache.exists()


def test_a_name_is_exported_once(cache, monkeypatch):
    made = []
    exporter(monkeypatch, made)
    path = prepare_model(NAME, threads=2)
    assert path == cache / "exports" / f"{NAME}-{__version__}-1.onnx"
    assert prepare_model(NAME) == path
    assert made == [(NAME, 2)]


def test_what_was_exported_needs_nothing_more(cache, monkeypatch, without):
    exporter(monkeypatch, [])
    path = prepare_model(NAME)
    without("torch", "onnx", "onnxscript")
    assert prepare_model(NAME) == path


def test_another_process_may_be_first(cache, monkeypatch):
    def export_model(model, output, options):
        output.write_bytes(b"theirs")
        raise ModelFileError("exists already")

    monkeypatch.setattr("mobiledet.exporters.exporting.export_model", export_model)
    assert prepare_model(NAME).read_bytes() == b"theirs"


def test_without_the_exporter_pytorch_runs_it(cache, without, caplog):
    without("onnxscript")
    with caplog.at_level("INFO"):
        assert prepare_model(NAME) == NAME
    assert "export" in caplog.text


def test_where_nothing_can_be_kept_pytorch_runs_it(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOBILEDET_CACHE", str(tmp_path / "file"))
    with caplog.at_level("INFO"):
        assert prepare_model(NAME) == NAME
    assert "can't be written to" in caplog.text


def test_without_pytorch_and_litert_the_remedy_is_named(cache, without):
    without("torch", "ai_edge_litert", "tflite_runtime", "tensorflow")
    with pytest.raises(MissingDependencyError, match=rf"{NAME}: .*mobiledet\[litert\]"):
        prepare_model(NAME)


@pytest.mark.parametrize(("name", "hint"), [(f"{NAME}c", f"did you mean '{NAME}'"), ("", "name an exported file")])
def test_without_pytorch_a_typo_is_a_typo(cache, without, name, hint):
    without("torch")
    with pytest.raises(ModelFileError, match=hint):
        prepare_model(name)

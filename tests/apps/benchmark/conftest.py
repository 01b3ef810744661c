"""A tiny exported model, and workers that run none."""

import sys
from pathlib import Path

import pytest

from mobiledet.apps.benchmark.measuring import Settings

FAKE = (sys.executable, str(Path(__file__).with_name("fake_worker.py")))


@pytest.fixture
def quick():
    """``quick(rounds=2)``: settings for workers that only pretend."""

    def settings(**changes):
        usual = {"rounds": 2, "calls": 2, "stage_rounds": 1, "starts": 1, "sizes": ((48, 64), None), "timeout": 20.0}
        return Settings(**{**usual, "command": FAKE, **changes})

    return settings


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory):
    """A detector with random weights as an ONNX file; its input is 64 x 96."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from mobiledet.config import BackboneConfig, ModelConfig
    from mobiledet.exporters.onnx import trace_onnx, write_onnx
    from mobiledet.models.build import build_detector
    from mobiledet.runtime.card import ModelCard

    config = ModelConfig(num_classes=3, backbone=BackboneConfig(alpha=0.25), input_size=(64, 96))
    model = build_detector(config).eval()
    card = ModelCard(names=("circle", "square", "triangle"), category_ids=(1, 2, 3), resize=model.resize, gmacs=0.01)
    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    write_onnx(trace_onnx(model, size=model.resize.size), card, path)
    return path

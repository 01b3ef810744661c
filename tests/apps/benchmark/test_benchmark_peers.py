import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from mobiledet.apps.benchmark.peers import open_peer
from mobiledet.errors import MissingDependencyError


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "ultralytics", None)
    with pytest.raises(MissingDependencyError, match=r"ultralytics is skipped: .*pip install ultralytics"):
        open_peer("ultralytics", 1)


@pytest.mark.slow
def test_torchvisions_stages_add_up():
    pytest.importorskip("torchvision")
    peer = open_peer("torchvision", 1)
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
    peer = open_peer("ultralytics", 1)
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

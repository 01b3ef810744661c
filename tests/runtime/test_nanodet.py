"""NanoDet-Plus from its published files, on real photographs."""

import shutil

import pytest

from mobiledet.data.opening import open_split
from mobiledet.errors import ModelFileError
from mobiledet.evaluation.metrics import score_detections
from mobiledet.evaluation.predictions import predict_dataset
from mobiledet.runtime.detector import Detector

pytest.importorskip("ncnn")


@pytest.fixture(scope="module")
def nanodet(real_weights):
    path = real_weights / "nanodet_plus_m_416.param"
    if not path.is_file():
        pytest.skip(f"no {path}")
    return path


def test_it_finds_what_is_labelled(nanodet, real_data):
    val = open_split(real_data / "coco-mini", "val").first(40)
    detector = Detector(nanodet, threads=1)
    figures = score_detections(val.coco_json(), predict_dataset(detector, list(detector.names), val))
    assert figures.AP > 0.3  # 0.322 on all 188 images
    assert figures.AP75 > 0.3


def test_what_is_no_such_network_is_refused(nanodet, tmp_path):
    alone = tmp_path / "alone.param"
    shutil.copy(nanodet, alone)
    with pytest.raises(ModelFileError, match="alone"):
        Detector(alone)
    with pytest.raises(ModelFileError, match="provider"):
        Detector(nanodet, provider="cuda")

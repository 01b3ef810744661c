import json
from dataclasses import replace

import numpy as np
import pytest

from mobiledet.detections import Detections
from mobiledet.errors import ModelFileError
from mobiledet.exporters.agreement import (
    FLOAT_LIMITS,
    Agreement,
    AgreementReport,
    Limits,
    compare,
    problems,
    report_path,
    warn_of_other_processor,
)
from mobiledet.utils.machine import instruction_set


def found(boxes, scores, labels):
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels))


THREE = found([[0, 0, 100, 50], [200, 0, 260, 90], [10, 80, 30, 90]], [0.9, 0.8, 0.4], [1, 2, 1])


def test_the_same_detections_agree_whatever_their_order():
    other = found(THREE.boxes[::-1], THREE.scores[::-1], THREE.labels[::-1])
    agreement = compare([THREE], [other], threshold=0.3)
    assert (agreement.boxes, agreement.matched, agreement.matched_share) == (3, 3, 1.0)
    assert agreement.largest_box_difference == agreement.largest_score_difference == 0


def test_differences_are_those_of_matched_boxes():
    other = found([[0, 0, 100, 50], [203, 0, 260, 90], [500, 0, 510, 10]], [0.9, 0.7, 0.4], [1, 2, 1])
    agreement = compare([THREE], [other], threshold=0.3)
    assert (agreement.boxes, agreement.matched) == (3, 2)
    assert agreement.largest_box_difference == 3
    assert agreement.largest_score_difference == pytest.approx(0.1)
    assert agreement.mean_score_difference == pytest.approx(0.05)


def test_another_class_or_a_used_box_is_no_match():
    other = found(THREE.boxes, THREE.scores, [2, 2, 1])
    assert compare([THREE], [other], threshold=0.3).matched == 2
    twice = found([THREE.boxes[0]] * 2, [0.9, 0.8], [1, 1])
    assert compare([twice], [found([THREE.boxes[0]], [0.9], [1])], threshold=0.3).matched == 1


def test_low_scores_are_compared_only_among_the_best_ten():
    boxes = [[20 * i, 0, 20 * i + 10, 30] for i in range(15)]
    many = found(boxes, np.linspace(0.9, 0.1, 15), [1] * 15)
    assert compare([many], [many], threshold=0.5).boxes == 10
    assert compare([many], [many], threshold=0.2).boxes == 13
    assert compare([found([], [], [])], [many], threshold=0.5).matched_share == 1.0


def test_limits():
    agreement = Agreement(8, 100, 97, 1.0, 0.1, 0.01)
    assert "3.0% of the checkpoint's boxes" in problems(agreement, None, FLOAT_LIMITS)[0]
    assert problems(agreement, None, Limits(0.5, 0.05)) == []
    # With a data set AP decides: boxes near a threshold come and go without harm.
    assert problems(agreement, {"difference": -0.4}, FLOAT_LIMITS) == []
    assert "AP falls by 0.60 points, more than 0.5" in problems(agreement, {"difference": -0.6}, FLOAT_LIMITS)[0]


REPORT = AgreementReport(
    "m.onnx",
    {"file": "best.pt", "sha256": "abc"},
    "onnxruntime 1",
    Agreement(8, 100, 97, 1.0, 0.1, 0.01),
    {"checkpoint": 20.0, "model": 19.5, "difference": -0.5, "pictures": 8, "data": "val.json"},
    FLOAT_LIMITS,
    problems=["AP falls"],
    forced=True,
    layers=[{"name": "conv0", "error": 0.5}],
    versions={"onnx": "1"},
)


@pytest.mark.parametrize("report", [REPORT, replace(REPORT, ap=None, problems=[], forced=False, layers=[])])
def test_written_and_read(tmp_path, report):
    model = tmp_path / "m.onnx"
    assert AgreementReport.read(model) is None
    report.write(model)
    assert AgreementReport.read(model) == report
    plain = json.loads((tmp_path / "m.onnx.certificate.json").read_text())
    assert (plain["passed"], plain["pictures"], plain["matched_share"]) == (report.passed, 8, 0.97)
    assert "97 of 100 boxes (97.00%)" in report.lines()[0]


@pytest.mark.parametrize(("made_on", "warned"), [(instruction_set(), False), ("", False), ("x86_64 AVX2 NONE", True)])
def test_another_processor_is_reported(tmp_path, caplog, made_on, warned):
    replace(REPORT, instruction_set=made_on).write(tmp_path / "m.onnx")
    warn_of_other_processor(tmp_path / "m.onnx")
    warn_of_other_processor(tmp_path / "best.pt")
    assert [made_on in record.message and instruction_set() in record.message for record in caplog.records] == (
        [True] if warned else []
    )


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        {"format": "something else"},
        {"matched": None},
        {"largest_box_difference": float("nan")},
        {"mean_score_difference": "small"},
        {"ap": {"model": 1.0}},
        {"ap": 20.0},
        {"checkpoint": "best.pt"},
        {"limits": {"ap_loss": 1.0}},
    ],
)
def test_a_damaged_report_is_refused(tmp_path, content):
    REPORT.write(tmp_path / "m.onnx")
    path = report_path(tmp_path / "m.onnx")
    if isinstance(content, dict):
        content = json.dumps(json.loads(path.read_text()) | content).encode()
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match="export the model again"):
        AgreementReport.read(tmp_path / "m.onnx")

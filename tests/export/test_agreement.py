import json

import numpy as np
import pytest

from mobiledet.export.agreement import (
    FLOAT_LIMITS,
    Agreement,
    Certificate,
    Limits,
    certificate_path,
    compare,
    problems,
    read_certificate,
)
from mobiledet.structures import Detections


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


def test_low_scores_are_looked_for_only_among_the_best_ten():
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


def test_written_and_read(tmp_path):
    certificate = Certificate(
        "m.onnx", {"file": "best.pt"}, "onnxruntime", Agreement(8, 100, 97, 1.0, 0.1, 0.01), None, FLOAT_LIMITS
    )
    model = tmp_path / "m.onnx"
    assert certificate_path(model).name == "m.onnx.certificate.json"
    assert read_certificate(model) is None
    certificate_path(model).write_text(json.dumps(certificate.to_json_dict()))
    plain = read_certificate(model)
    assert plain is not None
    assert (plain["passed"], plain["forced"], plain["matched_share"], plain["ap"]) == (True, False, 0.97, None)
    for damaged in ("{", "[]", "{}"):
        certificate_path(model).write_text(damaged)
        assert read_certificate(model) is None
    assert "97 of 100 boxes (97.00%)" in certificate.lines()[0]

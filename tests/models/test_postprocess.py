import torch

from mobiledet.models.postprocess import Postprocess
from mobiledet.structures import Candidates


def run(boxes, scores, **settings):
    settings = {"score_threshold": 0.1, "iou_threshold": 0.5, **settings}
    (found,) = Postprocess(**settings)(Candidates(torch.tensor([boxes], dtype=torch.float32), torch.tensor([scores])))
    return found


BOXES = [[0, 0, 100, 50], [2, 0, 102, 50], [200, 10, 220, 90]]


def test_suppression_is_per_class():
    found = run(BOXES, [[0.9, 0.0], [0.8, 0.7], [0.3, 0.0]])
    # The second box is suppressed as class 1 (0.8 under 0.9) and kept as class 2.
    assert found["labels"].tolist() == [1, 2, 1]
    torch.testing.assert_close(found["scores"], torch.tensor([0.9, 0.7, 0.3]))
    assert found["boxes"].tolist() == [BOXES[0], BOXES[1], BOXES[2]]


def test_class_agnostic_suppression_leaves_one_class_an_object():
    found = run(BOXES, [[0.9, 0.85], [0.8, 0.95], [0.3, 0.0]], class_agnostic=True)
    assert found["labels"].tolist() == [2, 1]
    assert found["boxes"].tolist() == [BOXES[1], BOXES[2]]


def test_threshold_and_limit():
    assert len(run(BOXES, [[0.9], [0.05], [0.3]])["scores"]) == 2
    assert run(BOXES, [[0.9], [0.05], [0.3]], max_detections=1)["scores"].tolist() == [torch.tensor(0.9).item()]
    assert run(BOXES, [[0.2], [0.9], [0.3]], candidates=1)["boxes"].tolist() == [BOXES[1]]


def test_nothing_found():
    found = run(BOXES, [[0.0], [0.05], [0.0]])
    assert found["boxes"].shape == (0, 4)
    assert found["labels"].dtype == torch.int64


def test_overlap_limit():
    assert len(run(BOXES, [[0.9], [0.8], [0.3]], iou_threshold=0.99)["scores"]) == 3


def test_overlapping_candidates_of_its_class_vote_on_a_box():
    boxes = [[0, 0, 100, 50], [0, 0, 80, 50], [200, 10, 220, 90], [0, 0, 60, 50]]
    scores = [[0.9, 0.0], [0.45, 0.7], [0.3, 0.0], [0.4, 0.0]]
    found = run(boxes, scores, vote_iou=0.6)
    assert found["labels"].tolist() == [1, 2, 1]
    # 0.9 x (1 - 0.6) for its own width of 100, 0.45 x (0.8 - 0.6) for 80, nothing for 60, of IoU 0.6. The second class
    # has one candidate alone.
    width = (0.36 * 100 + 0.09 * 80) / 0.45
    torch.testing.assert_close(found["boxes"], torch.tensor([[0, 0, width, 50], boxes[1], boxes[2]]))
    torch.testing.assert_close(found["scores"], torch.tensor([0.9, 0.7, 0.3]))


def test_a_box_without_an_area_keeps_its_place():
    assert run([[30, 20, 30, 40]], [[0.9]], vote_iou=0.65)["boxes"].tolist() == [[30, 20, 30, 40]]


def test_boxes_may_differ_by_class():
    boxes = torch.tensor([[[[0, 0, 10, 20], [30, 40, 50, 90]]]], dtype=torch.float32)
    (found,) = Postprocess(score_threshold=0.1)(Candidates(boxes, torch.tensor([[[0.4, 0.6]]])))
    assert found["labels"].tolist() == [2, 1]
    assert found["boxes"].tolist() == [[30, 40, 50, 90], [0, 0, 10, 20]]

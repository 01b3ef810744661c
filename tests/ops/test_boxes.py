import pytest
import torch

from mobiledet.ops.boxes import (
    box_area,
    clip_boxes,
    cxcywh_to_xyxy,
    decode_boxes,
    encode_boxes,
    pairwise_coverage,
    pairwise_iou,
    xyxy_to_cxcywh,
)


def test_iou_of_boxes_worked_out_by_hand():
    a = torch.tensor([[0.0, 0, 10, 20], [5, 5, 15, 10]])
    b = torch.tensor([[0.0, 0, 10, 20], [0, 10, 20, 20], [30, 30, 40, 50]])
    # Second pair: 10x10 shared of 200 + 200 - 100; last column touches nothing; a[1] shares 5x5 with b[0].
    expected = torch.tensor([[1.0, 100 / 300, 0.0], [25 / 225, 0.0, 0.0]])
    torch.testing.assert_close(pairwise_iou(a, b), expected)


def test_iou_of_empty_boxes_is_zero_not_nan():
    empty = torch.tensor([[3.0, 3, 3, 3]])
    assert pairwise_iou(empty, empty).item() == 0
    assert pairwise_iou(torch.zeros(0, 4), empty).shape == (0, 1)


def test_coverage_is_the_share_of_the_second_box():
    region = torch.tensor([[0.0, 0, 100, 50]])
    boxes = torch.tensor([[10.0, 10, 20, 40], [90, 0, 110, 50], [200, 200, 210, 230]])
    torch.testing.assert_close(pairwise_coverage(region, boxes), torch.tensor([[1.0, 0.5, 0.0]]))


def test_encode_against_the_papers_equation():
    anchor = torch.tensor([[10.0, 20, 30, 80]])  # centre (20, 50), 20 wide, 60 high
    box = torch.tensor([[20.0, 20, 60, 50]])  # centre (40, 35), 40 wide, 30 high
    log2 = torch.log(torch.tensor(2.0)).item()
    expected = torch.tensor([[10 * 20 / 20, 10 * -15 / 60, 5 * log2, 5 * -log2]])
    torch.testing.assert_close(encode_boxes(box, anchor), expected)


def test_decode_undoes_encode():
    generator = torch.Generator().manual_seed(0)
    corner, size = torch.rand(50, 2, generator=generator) * 200, torch.rand(50, 2, generator=generator) * 90 + 1
    boxes = torch.cat([corner, corner + size], 1)
    anchors = boxes.roll(7, dims=0)
    torch.testing.assert_close(decode_boxes(encode_boxes(boxes, anchors), anchors), boxes, rtol=1e-4, atol=1e-2)


def test_decode_of_wild_offsets_stays_finite():
    anchors = torch.tensor([[0.0, 0, 10, 30]])
    decoded = decode_boxes(torch.tensor([[1e6, -1e6, 1e6, 1e6]]), anchors)
    assert torch.isfinite(decoded).all()


def test_centre_form_round_trip():
    boxes = torch.tensor([[1.0, 2, 11, 42]])
    torch.testing.assert_close(xyxy_to_cxcywh(boxes), torch.tensor([[6.0, 22, 10, 40]]))
    torch.testing.assert_close(cxcywh_to_xyxy(xyxy_to_cxcywh(boxes)), boxes)


def test_clip_knows_height_from_width():
    boxes = torch.tensor([[-5.0, -5, 500, 500]])
    assert clip_boxes(boxes, (200, 249)).tolist() == [[0, 0, 249, 200]]


@pytest.mark.parametrize("shape", [(4,), (3, 4), (2, 3, 4)])
def test_area_of_any_batch_shape(shape):
    boxes = torch.tensor([0.0, 0, 3, 7]).expand(shape)
    assert box_area(boxes).shape == shape[:-1]
    assert (box_area(boxes) == 21).all()

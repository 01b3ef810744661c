import math

import pytest
import torch

from mobiledet.ops.anchors import AnchorSetting, grid_anchors, rpn_anchor_sizes, rpn_anchors


def test_shapes_of_the_six_maps():
    shapes = AnchorSetting().shapes()
    assert [len(s) for s in shapes] == [3, 6, 6, 6, 6, 6]
    assert shapes[0] == [(0.1, 1.0), (0.2, 2.0), (0.2, 0.5)]
    scales = [0.2, 0.35, 0.5, 0.65, 0.8, 0.95, 1.0]  # 0.2 + 0.75 k / 5, then 1
    for k in range(1, 6):
        assert [ratio for _, ratio in shapes[k]] == pytest.approx([1, 2, 1 / 2, 3, 1 / 3, 1])
        assert [scale for scale, _ in shapes[k][:5]] == pytest.approx([scales[k]] * 5)
        assert shapes[k][5][0] == pytest.approx(math.sqrt(scales[k] * scales[k + 1]))


def test_ssd300_has_1917_anchors():
    shapes = AnchorSetting().shapes()
    grids = [grid_anchors(s, (f, f), (300, 300)) for s, f in zip(shapes, [19, 10, 5, 3, 2, 1], strict=True)]
    assert sum(len(grid) for grid in grids) == 1917


def test_against_a_table_written_by_hand():
    # 2x3 map of a 200x300 image: cells of 100x100; the shorter side is 200; shapes 0.1 square and 0.2 at 4:1.
    anchors = grid_anchors([(0.1, 1.0), (0.2, 4.0)], (2, 3), (200, 300))
    assert anchors.shape == (12, 4)
    expected = [
        [40, 40, 60, 60],  # centre (50, 50), 20x20
        [10, 40, 90, 60],  # 80 wide, 20 high
        [140, 40, 160, 60],  # next column: x moves, y stays
        [110, 40, 190, 60],
    ]
    torch.testing.assert_close(anchors[:4], torch.tensor(expected, dtype=torch.float32))
    torch.testing.assert_close(anchors[6], torch.tensor([40.0, 140, 60, 160]))  # second row


def test_ratio_is_width_over_height_also_on_a_tall_picture():
    (box,) = grid_anchors([(0.5, 2.0)], (1, 1), (400, 200))
    width, height = (box[2] - box[0]).item(), (box[3] - box[1]).item()
    assert width / height == pytest.approx(2.0)
    assert width * height == pytest.approx((0.5 * 200) ** 2)
    assert ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) == (100, 200)


def test_the_smallest_square_can_have_a_size_of_its_own():
    usual, own = AnchorSetting(scale_min=0.3).shapes(), AnchorSetting(scale_min=0.3, lowest_scale=0.1).shapes()
    assert usual[0] == [(0.15, 1.0), (0.3, 2.0), (0.3, 0.5)]
    assert own[0] == [(0.1, 1.0), (0.3, 2.0), (0.3, 0.5)]
    assert own[1:] == usual[1:]


def test_rpn_anchors_against_a_table_written_by_hand():
    sizes = rpn_anchor_sizes((0.1, 0.4), (0.25, 1.0), 200)
    assert sizes == [(40, 10), (20, 20), (160, 40), (80, 80)]  # (height, width): as large as 20 and 80 pixels squared
    anchors = rpn_anchors(sizes, (2, 3), 16)
    assert anchors.shape == (24, 4)
    expected = [
        [3, -12, 13, 28],  # centre (8, 8), 10 wide, 40 high
        [-2, -2, 18, 18],
        [-12, -72, 28, 88],
        [-32, -32, 48, 48],
        [19, -12, 29, 28],  # next column: x moves by the stride, y stays
    ]
    torch.testing.assert_close(anchors[:5], torch.tensor(expected, dtype=torch.float32))
    torch.testing.assert_close(anchors[13], torch.tensor([-2.0, 14, 18, 34]))  # second row, square


def test_rpn_anchors_do_not_depend_on_the_pictures_size():
    sizes = rpn_anchor_sizes((0.2,), (1.0,), 300)
    small, large = (
        rpn_anchors(sizes, (4, 5), 16).reshape(4, 5, 4),
        rpn_anchors(sizes, (9, 7), 16).reshape(9, 7, 4),
    )
    assert torch.equal(small, large[:4, :5])


def test_no_rpn_anchor_vanishes():
    assert rpn_anchor_sizes((0.001,), (9.0,), 32) == [(1, 1)]

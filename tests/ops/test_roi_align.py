import pytest
import torch
from torchvision import ops

from mobiledet.ops import roi_align as module
from mobiledet.ops.roi_align import matrix_roi_align, roi_align

BOXES = [
    torch.tensor(
        [
            [0.0, 0, 48, 32],
            [10, 20, 110, 90],
            [3.3, 7.7, 9.1, 8.2],  # less than a cell
            [-40, -60, 30, 30],  # beyond the edge
            [100, 80, 300, 400],
            [500, 500, 600, 600],  # nowhere near
            [50, 50, 50, 50],  # nothing
            [0, 0, 0, 0],
        ]
    ),
    torch.zeros(0, 4),
    torch.tensor([[0.0, 0, 128, 96], [64, 16, 65, 96]]),
]


@pytest.mark.parametrize(("size", "samples"), [(7, 2), (14, 1), (4, 4), (1, 1), (2, 3)])
def test_it_crops_as_torchvisions_does(size, samples):
    features = torch.randn(3, 5, 6, 8, generator=torch.Generator().manual_seed(0))
    expected = ops.roi_align(features, BOXES, size, 1 / 16, samples, aligned=True)
    torch.testing.assert_close(matrix_roi_align(features, BOXES, size=size, stride=16, samples=samples), expected)


def test_its_gradient_is_torchvisions_too():
    one, other = (torch.randn(3, 5, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_() for _ in "ab")
    weights = torch.randn(10, 5, 7, 7, generator=torch.Generator().manual_seed(1))
    (roi_align(one, BOXES, size=7, stride=16) * weights).sum().backward()
    (ops.roi_align(other, BOXES, 7, 1 / 16, 2, aligned=True) * weights).sum().backward()
    torch.testing.assert_close(one.grad, other.grad)


def test_in_pieces_it_is_the_same(monkeypatch):
    features = torch.randn(3, 5, 6, 8)
    whole = matrix_roi_align(features, BOXES, size=7, stride=16, samples=2)
    monkeypatch.setattr(module, "CHUNK_VALUES", 1000)
    torch.testing.assert_close(matrix_roi_align(features, BOXES, size=7, stride=16, samples=2), whole)


def test_no_boxes_at_all():
    for features in (torch.randn(2, 5, 6, 8), torch.randn(2, 5, 6, 8).requires_grad_()):
        assert roi_align(features, [torch.zeros(0, 4)] * 2, size=7, stride=16).shape == (0, 5, 7, 7)


def test_crops_are_channels_last():
    crops = matrix_roi_align(
        torch.randn(1, 5, 6, 8), [torch.tensor([[0.0, 0, 50, 60]] * 3)], size=7, stride=16, samples=2
    )
    assert crops.is_contiguous(memory_format=torch.channels_last)


def test_with_and_without_a_gradient_it_is_the_same():
    features = torch.randn(3, 5, 6, 8)
    plain = roi_align(features, BOXES, size=7, stride=16)
    torch.testing.assert_close(roi_align(features.requires_grad_(), BOXES, size=7, stride=16), plain)
    with torch.no_grad():
        torch.testing.assert_close(roi_align(features, BOXES, size=7, stride=16), plain)

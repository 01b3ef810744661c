import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mobiledet.ops.matching import BACKGROUND, IGNORED, match_anchors, match_by_thresholds
from mobiledet.ops.sampling import MIN_NEGATIVES, balanced_sample, hard_negatives


def test_a_matrix_worked_out_by_hand():
    iou = torch.tensor(
        [
            # a0   a1    a2    a3
            [0.90, 0.55, 0.10, 0.00],  # object 0: best anchor a0, and a1 is above the threshold
            [0.20, 0.60, 0.30, 0.00],  # object 1: best anchor a1, taking it although object 0 is above there too
            [0.10, 0.20, 0.05, 0.04],  # object 2: best free anchor is below the threshold, forced all the same
        ]
    )
    # a1 is wanted by 1 (0.60) and 2 (0.20): 1 gets it; 2 takes the best of a2 (0.05) and a3 (0.04).
    assert match_anchors(iou, 0.5).tolist() == [0, 1, 2, BACKGROUND]


def test_objects_never_share_their_best_anchor():
    iou = torch.tensor([[0.8, 0.6, 0.1], [0.8, 0.7, 0.1], [0.8, 0.65, 0.2]])
    assert sorted(match_anchors(iou, 0.9).tolist()) == [0, 1, 2]


def test_no_objects():
    assert match_anchors(torch.zeros(0, 5), 0.5).tolist() == [BACKGROUND] * 5


def test_an_object_that_overlaps_nothing_takes_nothing():
    iou = torch.tensor([[0.0, 0.0], [0.7, 0.1]])
    assert match_anchors(iou, 0.5).tolist() == [1, BACKGROUND]
    contested = torch.tensor([[0.0, 0.0], [0.7, 0.0], [0.6, 0.0]])
    assert match_anchors(contested, 0.5).tolist() == [1, BACKGROUND]


def test_more_objects_than_anchors():
    assert sorted(match_anchors(torch.tensor([[0.9, 0.2], [0.8, 0.3], [0.7, 0.4]]), 0.5).tolist()) == [0, 2]


def greedy(iou, threshold):
    """The paper's words: the best pair of all, the best pair of what is left, ...; then the threshold."""
    best = iou.max(dim=0)
    matched = torch.where(best.values >= threshold, best.indices, BACKGROUND)
    left = iou.clone()
    for _ in range(min(iou.shape)):
        row, column = divmod(int(left.argmax()), iou.shape[1])
        if left[row, column] <= 0:
            break
        matched[column] = row
        left[row], left[:, column] = -1, -1
    return matched


@pytest.mark.parametrize("levels", [2, 5, 100, 10**6])
@pytest.mark.parametrize("shape", [(1, 40), (7, 300), (60, 400), (90, 50)])
def test_the_same_pairs_as_settling_the_best_one_again_and_again(shape, levels):
    generator = torch.Generator().manual_seed(levels + shape[0])
    for alike in (0.0, 0.5, 1.0):  # 1: all objects want the same anchors, in the same order
        iou = torch.rand(shape, generator=generator).lerp(torch.rand(shape[1], generator=generator), alike)
        iou = (iou * levels).floor() / levels * (torch.rand(shape, generator=generator) > 0.3)
        assert torch.equal(match_anchors(iou, 0.6), greedy(iou, 0.6))


def test_the_number_of_steps_does_not_grow_with_the_objects():
    class Steps(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.count += 1
            return function(*args, **(kwargs or {}))

    one_place = torch.rand(1917, generator=torch.Generator().manual_seed(0)).repeat(400, 1)
    with Steps() as steps:
        match_anchors(one_place, 0.5)
    assert steps.count < 100


def test_hard_negatives_are_the_worst_three_per_positive():
    loss = torch.arange(40.0).repeat(2, 1)
    positive = torch.zeros(2, 40, dtype=torch.bool)
    positive[0, 30:36] = True
    ignored = torch.zeros_like(positive)
    ignored[0, 39] = True
    chosen = hard_negatives(loss, positive, ignored, ratio=3.0)
    # 18 negatives: from 38 down, without the positives 30..35 and the ignored 39.
    assert torch.nonzero(chosen[0])[:, 0].tolist() == [*range(15, 30), 36, 37, 38]
    assert chosen[1].sum() == MIN_NEGATIVES, "an image without objects teaches background too"
    assert chosen[1, -MIN_NEGATIVES:].all()


def test_fewer_background_anchors_than_wanted():
    positive = torch.tensor([[True, True, True, False]])
    chosen = hard_negatives(torch.ones(1, 4), positive, torch.zeros_like(positive), ratio=3.0)
    assert chosen.tolist() == [[False, False, False, True]]


def test_thresholds_worked_out_by_hand():
    iou = torch.tensor([[0.9, 0.5, 0.1, 0.0], [0.2, 0.6, 0.25, 0.0]])
    assert match_by_thresholds(iou, 0.7, 0.3).tolist() == [0, IGNORED, BACKGROUND, BACKGROUND]
    assert match_by_thresholds(iou, 0.5, 0.5).tolist() == [0, 1, BACKGROUND, BACKGROUND]
    # Object 1 keeps a1, which overlaps it best, although 0.6 is below the threshold.
    assert match_by_thresholds(iou, 0.7, 0.3, best_for_each=True).tolist() == [0, 1, BACKGROUND, BACKGROUND]
    assert match_by_thresholds(torch.zeros(0, 3), 0.7, 0.3).tolist() == [BACKGROUND] * 3


def test_a_balanced_sample_is_filled_up_with_negatives():
    torch.manual_seed(0)
    positive = torch.tensor([True, True, True, False, False, False, False, False])
    negative = torch.tensor([False, False, False, True, True, True, True, False])
    chosen, background = balanced_sample(positive, negative, 4, 0.25)
    assert (int(chosen.sum()), int(background.sum())) == (1, 3)
    assert not (chosen & ~positive).any()
    assert not (background & ~negative).any()
    everything = balanced_sample(positive, negative, 100, 0.5)
    assert torch.equal(everything[0], positive)
    assert torch.equal(everything[1], negative)
    draws = {tuple(balanced_sample(positive, negative, 4, 0.25)[0].tolist()) for _ in range(30)}
    assert len(draws) == 3

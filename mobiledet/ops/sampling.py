"""Which anchors and proposals enter the loss."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_NEGATIVES = 12
"""Taken from every image, so that one without objects still teaches what background looks like."""


def hard_negatives(background_loss: Tensor, positive: Tensor, ignored: Tensor, ratio: float) -> Tensor:
    """Hard-negative mining (Liu et al. 2016, section 2.2): the worst-scored background anchors of each image.

    Args:
        background_loss: ``(B, A)`` classification loss of each anchor if it is background; detached.
        positive: ``(B, A)`` bool, anchors matched to an object.
        ignored: ``(B, A)`` bool, anchors that are neither (crowd regions).
        ratio: Negatives per positive.

    Returns:
        ``(B, A)`` bool mask of the chosen negatives: ``ratio`` times the image's positives, at least
        ``MIN_NEGATIVES``, at most what there is.
    """
    eligible = ~(positive | ignored)
    wanted = (positive.sum(dim=1, keepdim=True) * ratio).clamp(min=MIN_NEGATIVES)
    loss = background_loss.masked_fill(~eligible, -torch.inf)
    rank = loss.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < wanted) & eligible


def balanced_sample(positive: Tensor, negative: Tensor, count: int, positive_share: float) -> tuple[Tensor, Tensor]:
    """A random sample of an image's boxes (Ren et al. 2015, section 3.1.3), filled up with negatives.

    Args:
        positive: ``(A,)`` bool, boxes matched to an object.
        negative: ``(A,)`` bool, background.
        count: Boxes in the sample, fewer where there aren't enough.
        positive_share: Largest share of positives among them, ``0..1``.

    Returns:
        Two masks ``(A,)``: the chosen positives and the chosen negatives.
    """
    num_positive = min(int(positive.sum()), int(count * positive_share))
    num_negative = min(int(negative.sum()), count - num_positive)
    return _draw(positive, num_positive), _draw(negative, num_negative)


def _draw(mask: Tensor, count: int) -> Tensor:
    indices = mask.nonzero()[:, 0]
    chosen = torch.zeros_like(mask)
    chosen[indices[torch.randperm(len(indices), device=mask.device)[:count]]] = True
    return chosen

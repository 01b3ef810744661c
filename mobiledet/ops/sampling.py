"""Which background anchors enter the loss."""

from __future__ import annotations

import torch
from torch import Tensor

MIN_NEGATIVES = 12
"""Taken from every picture, so that one without objects still teaches what background looks like."""


def hard_negatives(background_loss: Tensor, positive: Tensor, ignored: Tensor, ratio: float) -> Tensor:
    """Hard-negative mining (Liu et al. 2016, section 2.2): the worst-scored background anchors of each picture.

    Args:
        background_loss: ``(B, A)`` classification loss of each anchor if it is background; detached.
        positive: ``(B, A)`` bool, anchors matched to an object.
        ignored: ``(B, A)`` bool, anchors that are neither (crowd regions).
        ratio: Negatives per positive.

    Returns:
        ``(B, A)`` bool mask of the chosen negatives: ``ratio`` times the picture's positives, at least
        ``MIN_NEGATIVES``, at most what there is.
    """
    eligible = ~(positive | ignored)
    wanted = (positive.sum(dim=1, keepdim=True) * ratio).clamp(min=MIN_NEGATIVES)
    loss = background_loss.masked_fill(~eligible, -torch.inf)
    rank = loss.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return (rank < wanted) & eligible

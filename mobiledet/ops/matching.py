"""Which anchor or proposal is matched to which object."""

from __future__ import annotations

import torch
from torch import Tensor

BACKGROUND = -1
IGNORED = -2
"""Neither object nor background: not trained on."""


def match_anchors(iou: Tensor, threshold: float) -> Tensor:
    """SSD's matching (Liu et al. 2016, section 2.2).

    Every object first gets the anchor it overlaps best, no two objects the same one; then every other anchor takes
    the object it overlaps best, when that is at least ``threshold``.

    Args:
        iou: ``(G, A)`` overlaps of objects with anchors.
        threshold: Least overlap of the second step.

    Returns:
        ``(A,)`` int64 index of the matched object, or ``BACKGROUND`` (-1).
    """
    num_objects, num_anchors = iou.shape
    if num_objects == 0:
        return torch.full((num_anchors,), BACKGROUND, dtype=torch.int64, device=iou.device)
    best_iou, best_object = iou.max(dim=0)
    matched = torch.where(best_iou >= threshold, best_object, BACKGROUND)
    objects, anchors = _best_anchors(iou)
    matched[anchors] = objects
    return matched


def _best_anchors(iou: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs (object, anchor), best overlap first, each object and each anchor once."""
    best_iou, best_anchor = iou.max(dim=1)
    if torch.unique(best_anchor).numel() == len(best_anchor):
        overlapping = best_iou > 0
        return torch.nonzero(overlapping)[:, 0], best_anchor[overlapping]
    # Objects compete for an anchor: settle it greedily, as the paper's bipartite step does.
    left = iou.clone()
    pairs = []
    for _ in range(min(iou.shape)):
        value, flat = left.flatten().max(dim=0)
        if value <= 0:
            break
        index = int(flat)
        row, column = divmod(index, iou.shape[1])
        pairs.append((row, column))
        left[row] = -1
        left[:, column] = -1
    chosen = torch.tensor(pairs, dtype=torch.int64, device=iou.device).reshape(-1, 2)
    return chosen[:, 0], chosen[:, 1]


def match_by_thresholds(
    iou: Tensor, object_iou: float, background_iou: float, *, best_for_each: bool = False
) -> Tensor:
    """Faster R-CNN's matching (Ren et al. 2015, section 3.1.2): each box takes the object it overlaps best.

    Args:
        iou: ``(G, A)`` overlaps of objects with boxes.
        object_iou: Smallest overlap of a match.
        background_iou: A box that overlaps every object less is background; between the two it is ignored.
        best_for_each: Every object also keeps the boxes that overlap it best, whatever the overlap.

    Returns:
        ``(A,)`` int64 index of the matched object, ``BACKGROUND`` (-1) or ``IGNORED`` (-2).
    """
    if len(iou) == 0:
        return torch.full((iou.shape[1],), BACKGROUND, dtype=torch.int64, device=iou.device)
    best_iou, best_object = iou.max(dim=0)
    matched = best_object.clone()
    matched[best_iou < object_iou] = IGNORED
    matched[best_iou < background_iou] = BACKGROUND
    if best_for_each:
        favourite = (iou == iou.max(dim=1, keepdim=True).values).any(dim=0)
        matched[favourite] = best_object[favourite]
    return matched

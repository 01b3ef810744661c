"""Which anchor or proposal is matched to which object."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

BACKGROUND = -1
IGNORED = -2
"""Neither object nor background: not trained on."""

SHORT_LIST = 16
"""Anchors that each object asks for before more are looked up for those that got none of them."""

_POSITION = 0xFFFFFFFF


def match_anchors(iou: Tensor, threshold: float) -> Tensor:
    """SSD's matching (Liu et al. 2016, section 2.2).

    Every object first gets the anchor it overlaps best, no two objects the same one: the best pair of all is settled
    first. Then every other anchor takes the object it overlaps best, when that is at least ``threshold``.

    Args:
        iou: ``(G, A)`` overlaps of objects with anchors, in ``[0, 1]``.
        threshold: Least overlap of the second step.

    Returns:
        ``(A,)`` int64 index of the matched object, or ``BACKGROUND`` (-1).
    """
    num_objects, num_anchors = iou.shape
    if num_objects == 0:
        return torch.full((num_anchors,), BACKGROUND, dtype=torch.int64, device=iou.device)
    # Overlap and position in one number: of equal overlaps the first object's comes first, then its first anchor's.
    # Where nothing overlaps, it is at most 0.
    keys = iou.float().view(torch.int32).long()
    keys <<= 32
    keys -= torch.arange(iou.numel(), device=iou.device).view_as(iou)
    best_object = (-keys.amax(dim=0) & _POSITION) // num_anchors
    matched = torch.where(iou.amax(dim=0) >= threshold, best_object, BACKGROUND)
    position = -_best_pairs(keys) & _POSITION
    matched[position % num_anchors] = position // num_anchors
    return matched


def _best_pairs(keys: Tensor) -> Tensor:
    """The keys of the pairs that are best for their object and for their anchor among all that is left.

    Settling the best pair again and again passes over all pairs once per object. Deferred acceptance (Gale and
    Shapley 1962) gives the same pairs: every object asks for its best anchor, an anchor keeps the best object that
    asked, and those refused ask for their next best. That goes through short lists of Python numbers, for which a GPU
    is waited for once, or a few times where hundreds of objects want the same anchors.
    """
    num_objects, num_anchors = keys.shape
    held = [0] * num_anchors
    waiting, length = list(range(num_objects)), SHORT_LIST
    wishes: dict[int, Iterator[int]] = {}
    while waiting:
        left = keys if len(waiting) == num_objects else keys[waiting]
        if wishes:
            left = torch.where(left > torch.tensor(held, device=keys.device), left, 0)
        lists = left.topk(min(length, num_anchors)).values.tolist()
        wishes |= {row: iter(wished) for row, wished in zip(waiting, lists, strict=True)}
        refused = []
        while waiting:
            row = waiting.pop()
            for key in wishes[row]:
                anchor = (-key & _POSITION) % num_anchors
                if key > held[anchor]:
                    if held[anchor]:
                        waiting.append((-held[anchor] & _POSITION) // num_anchors)
                    held[anchor] = key
                    break
                if key <= 0:  # nothing else overlaps it
                    break
            else:
                refused.append(row)
        waiting, length = refused, length * 4
    return torch.tensor([key for key in held if key], dtype=torch.int64, device=keys.device)


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

"""Holding out images for validation, where a data set has no split for it."""

from __future__ import annotations

import hashlib
from collections import defaultdict

import numpy as np

from mobiledet.data.coco import CocoDataset
from mobiledet.errors import DataError


def hold_out(dataset: CocoDataset, share: float, seed: int) -> tuple[CocoDataset, CocoDataset]:
    """Divide a data set into images to train on and images to validate with.

    Which is which follows from the seed and the file names alone. Classes are spread evenly, rare ones first
    (Sechidis et al. 2011, iterative stratification), but the last image of a class always stays in training.
    Copies of one image that Roboflow has augmented (``name.rf.<hash>.jpg``) stay together.

    Returns:
        The training and the validation part, in the order of ``dataset``, with all its classes.

    Raises:
        DataError: the share is out of range, or no image can be spared.
    """
    if not 0 < share < 1:
        raise DataError(f"a share of {share} can't be held out; give one between 0 and 1, such as 0.15")
    units = _units(dataset, seed)
    held = _choose(units, share)
    if not held:
        raise DataError(
            f"{dataset.annotation_file}: none of its {len(dataset)} images can be spared for validation, each is "
            "the last of a class; label more images, or train without validation"
        )
    val = sorted(index for unit in held for index in units[unit][0])
    train = sorted(set(range(len(dataset))) - set(val))
    return dataset.subset(train), dataset.subset(val)


def _units(dataset: CocoDataset, seed: int) -> list[tuple[list[int], list[int]]]:
    """Images that must stay together and their classes (0 where there is none), in an order drawn by the seed."""
    groups: dict[str, list[int]] = defaultdict(list)
    names = [dataset.file_name(index) for index in range(len(dataset))]
    for index, name in enumerate(names):
        groups[name.partition(".rf.")[0] if ".rf." in name else name].append(index)
    units = []
    for name in sorted(groups, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode(errors="replace")).digest()):
        labels = np.concatenate([dataset.labels(index) for index in groups[name]])
        units.append((groups[name], np.unique(labels).tolist() or [0]))
    return units


def _choose(units: list[tuple[list[int], list[int]]], share: float) -> list[int]:
    """The units to hold out, by their place in the list."""
    members: dict[int, list[int]] = {}
    for unit, (_, labels) in enumerate(units):
        for label in labels:
            members.setdefault(label, []).append(unit)
    wanted = {label: (share * len(of), (1 - share) * len(of)) for label, of in members.items()}
    total = sum(len(images) for images, _ in units)
    missing = min(share * total, total - 1)
    # How many units of each class are in training or may still come there.
    left = {label: len(of) for label, of in members.items()}
    undecided = set(range(len(units)))
    held: list[int] = []
    while undecided:
        remaining = {label: [unit for unit in of if unit in undecided] for label, of in members.items()}
        members = {label: of for label, of in remaining.items() if of}
        rarest = min(members, key=lambda label: (len(members[label]), label))
        for unit in members.pop(rarest):
            images, labels = units[unit]
            to_val, to_train = wanted[rarest]
            spared = all(left[k] > 1 or k == 0 for k in labels) and len(images) <= missing + 0.5
            chosen = spared and to_val >= to_train
            for k in labels:
                wanted[k] = (wanted[k][0] - chosen, wanted[k][1] - (not chosen))
                left[k] -= chosen
            missing -= len(images) * chosen
            held += [unit] * chosen
            undecided.remove(unit)
    if held or total < 2:
        return held
    return [unit for unit, (_, labels) in enumerate(units) if all(left[k] > 1 or k == 0 for k in labels)][:1]

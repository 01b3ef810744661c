"""How many pictures, boxes and classes there are, split by split, and what is odd about that."""

from __future__ import annotations

import difflib
import re
from itertools import combinations

import numpy as np

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.report import Level, Section, Table, percent
from mobiledet.structures import BoolArray, IntArray
from mobiledet.utils.text import count

FEW_BOXES = 10
"""A class with fewer boxes than this to train on is hardly learned."""

FEW_PICTURES = 20
"""A score over fewer pictures than this says little."""

IMBALANCE = 20
"""A class with this many times the boxes of another is worth a word."""

_CLASSES_LISTED = 100


def describe_splits(collection: Collection) -> Section:
    """Pictures, boxes and background of each split."""
    section = Section("Pictures and boxes")
    rows = []
    for number, split in enumerate(collection.splits):
        counts = collection.counts[collection.split == number]
        crowds = int(collection.iscrowd[collection.split[collection.picture] == number].sum())
        boxes, empty = int(counts.sum()), int((counts == 0).sum())
        middle, most = (float(np.median(counts)), int(counts.max())) if len(counts) else (0.0, 0)
        mean = boxes / max(1, len(counts))
        rows.append(
            (split, f"{len(counts):,}", f"{boxes:,}", f"{mean:.1f}", f"{middle:g}", str(most), str(empty), str(crowds))
        )
        section.data[split] = {
            "pictures": len(counts),
            "boxes": boxes,
            "boxes_per_picture": {"mean": round(mean, 3), "median": middle, "max": most},
            "background_pictures": empty,
            "crowd_or_ignored_boxes": crowds,
        }
    header = ("split", "pictures", "boxes", "boxes/picture", "median", "most", "without boxes", "crowd or ignored")
    section.say(Table(header, tuple(rows)))
    _judge_splits(section, collection)
    return section


def _judge_splits(section: Section, collection: Collection) -> None:
    present = ", ".join(collection.splits)
    for split, remedy in (
        ("train", "name the split to train on `train`, or set data.train_split"),
        ("val", "tools/convert_dataset.py and configs/finetune_ssd.py hold 15 % of the pictures out for it"),
    ):
        rows = collection.rows(split)
        if not len(rows):
            level: Level = "fault" if split == "train" else "advice"
            section.find(level, f"no-{split}", f"there is no split {split!r}, only {present}", remedy)
        elif not collection.counts[rows].sum():
            remedy = "label its pictures, or take another split"
            section.find(
                "fault", f"no-boxes-{split}", f"{split} has {count(len(rows), 'picture')} but no boxes", remedy
            )
    held = len(collection.rows("val"))
    if 0 < held < FEW_PICTURES:
        remedy = "hold out more if you can"
        section.find("advice", "small-val", f"val has only {count(held, 'picture')}: its score will jump about", remedy)


def describe_classes(collection: Collection) -> Section:
    """Boxes of each class in each split."""
    section = Section("Classes")
    counts = collection.class_counts()
    totals = counts.sum(axis=0)
    everything = max(1, int(totals.sum()))
    order = np.argsort(-totals, kind="stable")
    rows = [
        (collection.names[k], *(f"{n:,}" for n in counts[:, k]), f"{totals[k]:,}", percent(totals[k] / everything))
        for k in order[:_CLASSES_LISTED].tolist()
    ]
    section.say(Table(("class", *collection.splits, "all", "share"), tuple(rows)))
    if len(order) > _CLASSES_LISTED:
        section.say(f"and {len(order) - _CLASSES_LISTED} classes with fewer boxes; report.json has all")
    section.data = {
        name: dict(zip(collection.splits, counts[:, k].tolist(), strict=True))
        for k, name in enumerate(collection.names)
    }
    _judge_classes(section, collection)
    _judge_names(section, collection)
    return section


def _judge_classes(section: Section, collection: Collection) -> None:
    names, splits = collection.names, collection.splits
    counts = dict(zip(splits, collection.class_counts(), strict=True))
    totals = collection.class_counts().sum(axis=0)
    zero = np.zeros(len(names), np.int64)
    train, val = counts.get("train", zero), counts.get("val", zero)

    def listed(mask: BoolArray, of: IntArray) -> list[str]:
        return [f"{names[k]} ({of[k]:,})" for k in np.flatnonzero(mask).tolist()]

    unused = totals == 0
    if unused.any():
        places = [names[k] for k in np.flatnonzero(unused).tolist()]
        text = f"{count(len(places), 'class', 'classes')} of {len(names)} without a single box"
        section.find("advice", "class-unused", text, "take them out of the list, or label some", places)
    if train.any():
        for split in splits:
            foreign = (counts[split] > 0) & (train == 0)
            if split != "train" and foreign.any():
                places = listed(foreign, counts[split])
                text = f"{count(len(places), 'class', 'classes')} in {split} but not in train (boxes in {split})"
                remedy = "a detector can't learn them: move pictures to train, or leave the classes out"
                section.find(
                    "fault" if split == "val" else "advice", f"class-not-in-train-{split}", text, remedy, places
                )
        unscored = (train > 0) & (val == 0)
        if val.any() and unscored.any():
            text = f"{count(int(unscored.sum()), 'class', 'classes')} in train but not in val (boxes in train)"
            remedy = "without boxes in val they aren't scored; move some pictures there"
            section.find("advice", "class-not-in-val", text, remedy, listed(unscored, train))
        few = (train > 0) & (train < FEW_BOXES)
        if few.any():
            places = [
                f"{place}{_slip(k, collection, totals)}"
                for place, k in zip(listed(few, train), np.flatnonzero(few).tolist(), strict=True)
            ]
            text = f"{count(len(places), 'class', 'classes')} with fewer than {FEW_BOXES} boxes in train (boxes)"
            section.find("advice", "class-rare", text, "hardly to be learned: label more, merge or leave out", places)
        enough = np.flatnonzero(train >= FEW_BOXES)
        if len(enough) > 1:
            most, least = enough[np.argmax(train[enough])], enough[np.argmin(train[enough])]
            ratio = train[most] / train[least]
            if ratio >= IMBALANCE:
                text = (
                    f"in train there are {ratio:.0f} times as many boxes of {names[most]!r} ({train[most]:,}) "
                    f"as of {names[least]!r} ({train[least]:,})"
                )
                section.find("note", "imbalance", text, "read the score class by class")


def _slip(k: int, collection: Collection, totals: IntArray) -> str:
    """A word about a rare class whose name is a part of other, common classes' names."""
    words = set(_words(collection.names[k]))
    around = [
        name
        for other, name in enumerate(collection.names)
        if other != k and words < set(_words(name)) and totals[other] > 5 * totals[k]
    ]
    return f" [a slip for {' or '.join(around[:3])}?]" if around else ""


def _judge_names(section: Section, collection: Collection) -> None:
    totals = collection.class_counts().sum(axis=0)
    same, alike = [], []
    for (i, one), (k, other) in combinations(enumerate(collection.names), 2):
        pair = f"{one!r} ({totals[i]:,}) and {other!r} ({totals[k]:,})"
        if "".join(_words(one)) == "".join(_words(other)) and _words(one):
            same.append(pair)
        elif is_near_spelling(one, other):
            alike.append(pair)
    if same:
        text = f"{count(len(same), 'pair')} of classes whose names differ only by case, spaces or punctuation (boxes)"
        section.find("fault", "class-names-same", text, "if they are one class, give them one name", same)
    if alike:
        text = f"{count(len(alike), 'pair')} of classes with nearly the same name (boxes)"
        section.find("advice", "class-names-alike", text, "if they are one class, give them one name", alike)


def is_near_spelling(one: str, other: str) -> bool:
    """Whether two names look like one with a slip of the pen: one letter more, less, other or swapped.

    Short names (RBC, WBC), and names that differ in a digit (zone 1, zone 2), are meant to be close.
    """
    a, b = "".join(_words(one)), "".join(_words(other))
    if min(len(a), len(b)) < 5 or abs(len(a) - len(b)) > 1 or a == b:
        return False
    changes = [op for op in difflib.SequenceMatcher(None, a, b, autojunk=False).get_opcodes() if op[0] != "equal"]
    touched = "".join(a[i1:i2] + b[j1:j2] for _, i1, i2, j1, j2 in changes)
    if any(letter.isdigit() for letter in touched):
        return False
    if len(changes) == 1:
        _, i1, i2, j1, j2 = changes[0]
        # A first letter makes another word (horse, morse); a last or an inner one is more often a slip.
        return max(i2 - i1, j2 - j1) == 1 and i1 > 0
    swapped = [i for i in range(len(a)) if len(a) == len(b) and a[i] != b[i]]
    return len(swapped) == 2 and swapped[1] == swapped[0] + 1 and sorted(a) == sorted(b)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.casefold()) if word]

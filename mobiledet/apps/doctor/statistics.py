"""Numbers of images, boxes and classes in each split, sizes of the images, and what is unusual about them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from itertools import combinations

import numpy as np

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.report import Code, Section, percent
from mobiledet.config import ModelConfig
from mobiledet.structures import BoolArray, IntArray
from mobiledet.utils.text import count, mirrored_names

FEW_BOXES = 10  # a class with fewer boxes than this to train on is hardly learned
FEW_IMAGES = 20  # a score over fewer images than this says little
IMBALANCE = 20  # a class with this many times the boxes of another is reported
SQUEEZE = 1.5  # an image whose proportions change by more than this factor looks squeezed to the network
_CLASSES_LISTED = 100


def describe_splits(collection: Collection, max_detections: int = 100, hold_out: float | None = None) -> Section:
    """Images, boxes and background of each split; images with more objects than a detector gives are reported.

    ``hold_out`` is the share of the images that training keeps apart for validation.
    """
    held = "data.hold_out=0.15 keeps images apart for it"
    if hold_out is not None:
        held = f"training keeps {percent(hold_out)} of the images apart for it"
    section = Section("Images and boxes", key="Pictures and boxes")
    rows = []
    for number, split in enumerate(collection.splits):
        counts = collection.counts[collection.split == number]
        crowds = int(collection.iscrowd[collection.split[collection.image] == number].sum())
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
    header = ("split", "images", "boxes", "boxes/image", "median", "most", "without boxes", "crowd or ignored")
    section.show(header, rows)
    crowded = np.flatnonzero(collection.counts > max_detections)
    if len(crowded):
        most = int(collection.counts.max())
        text = (
            f"{count(len(crowded), 'image')} with more than {max_detections} objects, up to {most:,}; a detector gives "
            f"{max_detections} per image at most"
        )
        enough = -(-most * 5 // 4 // 100) * 100
        remedy = f"model.postprocess.max_detections={enough} model.postprocess.candidates={max(500, 4 * enough)}"
        section.find(Code.MANY_OBJECTS, text, remedy, [collection.place(row) for row in crowded.tolist()])
    present = ", ".join(collection.splits)
    for split, kind, remedy in (
        ("train", Code.NO_TRAIN, "name the split to train on `train`, or set data.train_split"),
        ("val", Code.NO_VAL, held),
    ):
        images = collection.rows(split)
        if not len(images):
            section.find(kind, f"there is no split {split!r}, only {present}", remedy)
        elif not collection.counts[images].sum():
            text = f"{split} has {count(len(images), 'image')} but no boxes"
            section.find(Code.NO_BOXES, text, "label its images, or take another split", split=split)
    number = len(collection.rows("val"))
    if 0 < number < FEW_IMAGES:
        text = f"val has only {count(number, 'image')}: its score will vary a lot by chance"
        section.find(Code.SMALL_VAL, text, "hold out more if you can")
    return section


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
    section.show(("class", *collection.splits, "all", "share"), rows)
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
    names = collection.names
    counts = dict(zip(collection.splits, collection.class_counts(), strict=True))
    totals = collection.class_counts().sum(axis=0)
    zero = np.zeros(len(names), np.int64)
    train, val = counts.get("train", zero), counts.get("val", zero)

    def find(kind: Code, mask: BoolArray, what: str, remedy: str, place: Callable[[int], str], split: str = "") -> None:
        if mask.any():
            text = f"{count(int(mask.sum()), 'class', 'classes')} {what}"
            section.find(kind, text, remedy, list(map(place, np.flatnonzero(mask).tolist())), split=split)

    def with_boxes(of: IntArray) -> Callable[[int], str]:
        return lambda k: f"{names[k]} ({of[k]:,})"

    remedy = "take them out of the list, or label some"
    find(Code.CLASS_UNUSED, totals == 0, f"of {len(names)} without a single box", remedy, names.__getitem__)
    if not train.any():
        return
    for split in collection.splits:
        kind = Code.CLASS_ONLY_IN_VAL if split == "val" else Code.CLASS_NOT_IN_TRAIN
        what = f"in {split} but not in train (boxes in {split})"
        remedy = "a detector can't learn them: move images to train, or leave the classes out"
        find(kind, (counts[split] > 0) & (train == 0), what, remedy, with_boxes(counts[split]), split)
    if val.any():
        remedy = "without boxes in val they aren't scored; move some images there"
        what = "in train but not in val (boxes in train)"
        find(Code.CLASS_NOT_IN_VAL, (train > 0) & (val == 0), what, remedy, with_boxes(train))
    what = f"with fewer than {FEW_BOXES} boxes in train (boxes)"
    remedy = "too few to learn from: label more, merge them with other classes or leave them out"
    rare = (train > 0) & (train < FEW_BOXES)
    find(Code.CLASS_RARE, rare, what, remedy, lambda k: with_boxes(train)(k) + _possibly_meant(k, collection, totals))
    enough = np.flatnonzero(train >= FEW_BOXES)
    if len(enough) > 1:
        most, least = enough[np.argmax(train[enough])], enough[np.argmin(train[enough])]
        ratio = train[most] / train[least]
        if ratio >= IMBALANCE:
            text = (
                f"in train there are {ratio:.0f} times as many boxes of {names[most]!r} ({train[most]:,}) "
                f"as of {names[least]!r} ({train[least]:,})"
            )
            section.find(Code.IMBALANCE, text, "read the score class by class")


def _possibly_meant(k: int, collection: Collection, totals: IntArray) -> str:
    """A remark on a rare class whose name is a part of other, common classes' names."""
    words = set(_words(collection.names[k]))
    around = [
        name
        for other, name in enumerate(collection.names)
        if other != k and words < set(_words(name)) and totals[other] > 5 * totals[k]
    ]
    return f" [a typo for {' or '.join(around[:3])}?]" if around else ""


def _judge_names(section: Section, collection: Collection) -> None:
    if pairs := mirrored_names(collection.names):
        one, other = pairs[0]
        section.say(
            f"{one!r} is {other!r} in a mirror: training mirrors no images unless the recipe sets data.augment.flip."
        )
    totals = collection.class_counts().sum(axis=0)
    same, alike = [], []
    for (i, one), (k, other) in combinations(enumerate(collection.names), 2):
        pair = f"{one!r} ({totals[i]:,}) and {other!r} ({totals[k]:,})"
        if "".join(_words(one)) == "".join(_words(other)) and _words(one):
            same.append(pair)
        elif is_near_spelling(one, other):
            alike.append(pair)
    remedy = "if they are one class, give them one name"
    if same:
        text = f"{count(len(same), 'pair')} of classes whose names differ only by case, spaces or punctuation (boxes)"
        section.find(Code.CLASS_NAMES_SAME, text, remedy, same)
    if alike:
        text = f"{count(len(alike), 'pair')} of classes with nearly the same name (boxes)"
        section.find(Code.CLASS_NAMES_ALIKE, text, remedy, alike)


def is_near_spelling(one: str, other: str) -> bool:
    """Whether one name looks like the other with a typo: a letter more, less, exchanged, or two swapped.

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
        # A first letter makes another word (horse, morse); a last or an inner one is more often a typo.
        return max(i2 - i1, j2 - j1) == 1 and i1 > 0
    swapped = [i for i in range(len(a)) if len(a) == len(b) and a[i] != b[i]]
    return len(swapped) == 2 and swapped[1] == swapped[0] + 1 and sorted(a) == sorted(b)


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[\W_]+", name.casefold()) if word]


def describe_sizes(collection: Collection, model: ModelConfig, *, follows: bool = False) -> Section:
    """Heights, widths and proportions of the images, and what fitting them into the input of a model does to them.

    ``follows`` says whether the input got its shape from the images.
    """
    section = Section("Image sizes", key="Picture sizes")
    heights, widths = collection.sizes.T.astype(np.float64)
    if not len(heights):
        return section
    aspects = widths / heights
    rows = []
    for name, values, digits in (("width", widths, 0), ("height", heights, 0), ("width / height", aspects, 2)):
        low, middle, high = (float(f(values)) for f in (np.min, np.median, np.max))
        rows.append((name, *(f"{value:.{digits}f}" for value in (low, middle, high))))
        section.data[name] = {"min": low, "median": middle, "max": high}
    section.show(("", "smallest", "median", "largest"), rows)
    sizes, number = np.unique(collection.sizes, axis=0, return_counts=True)
    common = sizes[np.argmax(number)]
    section.say(
        f"{len(sizes):,} different sizes; the most common is {common[1]} x {common[0]} (width x height), "
        f"{percent(float(number.max() / len(heights)))} of the images."
        if len(sizes) > 1
        else f"All images are {common[1]} x {common[0]} (width x height)."
    )
    if not model.resize_rule.fixed:
        return section
    height, width = model.network_size
    stretch = aspects / (width / height)
    squeezed = float((np.maximum(stretch, 1 / stretch) > SQUEEZE).mean())
    enlarged = float(((heights < height) & (widths < width)).mean())
    aspect = float(np.median(aspects))
    shrunk = float(np.median(np.sqrt(heights * widths / (height * width))))
    change = f"{shrunk:.1f} times smaller" if shrunk >= 1 else f"{1 / shrunk:.1f} times larger"
    section.say(
        f"Fitted into {height} x {width} (height x width), the median image gets {change}, its width / height "
        f"goes from {aspect:.2f} to {width / height:.2f}. {percent(squeezed)} of the images change their proportions "
        f"by more than {SQUEEZE:g} times, {percent(enlarged)} are enlarged."
    )
    section.data |= {"different_sizes": len(sizes), "squeezed": squeezed, "enlarged": enlarged}
    if squeezed > 0.25 and not follows:
        text = (
            f"{percent(squeezed)} of the images are squeezed or stretched by more than {SQUEEZE:g} times, mostly "
            f"{'wide' if float(np.median(stretch)) > 1 else 'tall'} ones into {height} x {width}"
        )
        remedy = "model.match_aspect=true gives the input the shape of the median image (at most 2:1) at the same cost"
        section.find(Code.SQUEEZED, text, remedy)
    return section

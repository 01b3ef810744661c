"""Duplicate images: files of the same content, near-duplicates, and augmented copies of one photograph.

Near-duplicates are found in two stages. Hashes of 256 bits that differ in few places name the candidates; then small
thumbnails are compared. The second stage tolerates what re-encoding, resizing and another brightness do
(grey levels are first matched by rank, so that any curve that keeps their order cancels out) but not an object that
has moved: it looks at the largest difference anywhere, not at the mean. Of two images from a tripod with one chess
piece exchanged, the mean differs by a hundredth of the contrast and the largest by a third.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.image_facts import PLAIN, ImageFacts
from mobiledet.apps.doctor.report import Code, Section
from mobiledet.structures import BoolArray, FloatArray
from mobiledet.utils.text import count

HASH_BITS = 40
"""Hashes that differ in at most this many of 256 bits make a pair a candidate, and images of one view.

Unrelated photographs differ in 58 or more (354 of COCO, 364 of BCCD), re-encoded or brightened ones in at most 34.
"""

MAX_DIFFERENCE = 0.22
"""Largest difference of near-duplicates' thumbnails, in standard deviations of their grey levels.

JPEG at quality 30, halving, squeezing to a square and 20 % more or less brightness stay below 0.21 in 19 of 20
images; images from a tripod with one chess piece exchanged differ by 0.27 or more.
"""

NEIGHBOURS = 32
"""Candidates compared for one image, the nearest by hash; a film of a fixed scene has thousands."""

_LEVELS = 8.0  # grey levels of standard deviation below which an image counts as plain
_HOPELESS = 1.2  # difference before matching the levels that matching won't bring down to MAX_DIFFERENCE
_CHUNK_BYTES = 2**26


@dataclass(frozen=True)
class Pair:
    """Rows of two images whose files are the same byte for byte, or that only look the same.

    ``difference`` is the largest one of their thumbnails; 0 for the same file.
    """

    first: int
    second: int
    same_file: bool
    difference: float


@dataclass(frozen=True)
class Duplicates:
    """Images that are there more than once.

    Attributes:
        pairs: same or nearly the same images, all pairs that were found.
        augmented: groups of rows whose names say they were made from one photograph.
        seen_in_train: ``(N,)`` whether an image outside of train shows a view that train has, same or not.
    """

    pairs: list[Pair]
    augmented: list[list[int]]
    seen_in_train: BoolArray


def find_duplicates(collection: Collection, facts: ImageFacts) -> Duplicates:
    """Pairs of the same content, near-duplicates, and groups by file name."""
    first_with: dict[bytes, int] = {}
    pairs = []
    for row, digest in enumerate(facts.digests):
        if digest and (first := first_with.setdefault(digest, row)) != row:
            pairs.append(Pair(first, row, True, 0.0))
    known = {(pair.first, pair.second) for pair in pairs}
    candidates, seen = _candidates(collection, facts)
    for first, second in candidates:
        if (first, second) not in known:
            difference = thumb_difference(facts.thumbs[first], facts.thumbs[second])
            if difference <= MAX_DIFFERENCE:
                pairs.append(Pair(first, second, False, difference))
    return Duplicates(pairs, _augmented(collection), seen)


def thumb_difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """The largest difference of two thumbnails ``(64, 64)`` in standard deviations, grey levels matched by rank.

    A plain image has no levels to match: there the difference is taken as it is, in units of 8 grey levels.
    """
    import cv2

    a, b = one.astype(np.float32), other.astype(np.float32)
    spread = a.std(), b.std()
    if min(spread) < _LEVELS:
        return float(np.abs(cv2.blur(a - b, (3, 3))).max() / _LEVELS)
    straight = cv2.blur((a - a.mean()) / spread[0] - (b - b.mean()) / spread[1], (3, 3))
    if np.abs(straight).max() > _HOPELESS:
        return float(np.abs(straight).max())
    # Levels that one image has clipped can't be distinguished in it: match from the other one.
    differences = [
        np.abs(cv2.blur(_with_levels_of(a, b) - a, (3, 3))).max() / spread[0],
        np.abs(cv2.blur(_with_levels_of(b, a) - b, (3, 3))).max() / spread[1],
    ]
    return float(min(differences))


def _with_levels_of(wanted: FloatArray, thumb: FloatArray) -> FloatArray:
    """``thumb`` with its grey levels replaced, rank by rank, by those of ``wanted``; equal ones stay equal."""
    order = np.argsort(thumb, axis=None, kind="stable")
    matched = np.empty(thumb.size, np.float64)
    matched[order] = np.sort(wanted, axis=None)
    levels = thumb.ravel().astype(np.int64)
    mean = np.bincount(levels, matched, minlength=256) / np.maximum(np.bincount(levels, minlength=256), 1)
    return mean[levels].reshape(thumb.shape).astype(np.float32)


def _candidates(collection: Collection, facts: ImageFacts) -> tuple[list[tuple[int, int]], BoolArray]:
    """Pairs of rows with near hashes, and which images outside of train have one in train."""
    bits = facts.hashes.shape[1]
    signs = facts.hashes.astype(np.float32) * 2 - 1
    signs[~facts.readable] = 0  # at half of all bits from everything
    train = np.zeros(len(collection), np.bool_)
    train[collection.rows("train")] = True
    seen = np.zeros(len(collection), np.bool_)
    found: set[tuple[int, int]] = set()
    chunk = max(1, _CHUNK_BYTES // (4 * max(1, len(signs))))
    for start in range(0, len(signs), chunk):
        # The product of two hashes of +1 and -1 is the number of equal bits less that of different ones.
        distances = (bits - signs[start : start + chunk] @ signs.T) / 2
        near = distances <= HASH_BITS
        seen[start : start + chunk] = (near & train).any(axis=1)
        near[np.arange(len(near)), start + np.arange(len(near))] = False
        for row in np.flatnonzero(near.any(axis=1)).tolist():
            others = np.flatnonzero(near[row])
            if len(others) > NEIGHBOURS:
                others = others[np.argpartition(distances[row, others], NEIGHBOURS)[:NEIGHBOURS]]
            found |= {(min(start + row, other), max(start + row, other)) for other in others.tolist()}
    return sorted(found), seen & ~train & facts.readable & (facts.contrast >= PLAIN)


def _augmented(collection: Collection) -> list[list[int]]:
    """Groups of images that Roboflow made from one: ``name_jpg.rf.<hash>.jpg``."""
    groups: dict[str, list[int]] = defaultdict(list)
    for row in range(len(collection)):
        stem, mark, _ = collection.record(row).path.name.rpartition(".rf.")
        if mark and re.search(r"\w", stem):
            groups[stem].append(row)
    return [rows for rows in groups.values() if len(rows) > 1]


def groups_of(pairs: Sequence[Pair]) -> list[list[int]]:
    """Images that are connected by pairs, as groups in ascending order."""
    parent: dict[int, int] = {}

    def top(row: int) -> int:
        while parent.setdefault(row, row) != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for pair in pairs:
        low, high = sorted((top(pair.first), top(pair.second)))
        parent[high] = low
    groups: dict[int, list[int]] = defaultdict(list)
    for row in sorted(parent):
        groups[top(row)].append(row)
    return list(groups.values())


def describe_duplicates(collection: Collection, found: Duplicates) -> Section:
    """Duplicate images within and between splits."""
    section = Section("Duplicate images", key="The same picture twice")
    split = collection.split
    crosses = [bool(split[p.first] != split[p.second]) for p in found.pairs]
    for kind, same_file, across in (
        (Code.SAME_FILE_ACROSS, True, True),
        (Code.SAME_FILE_WITHIN, True, False),
        (Code.NEARLY_SAME_ACROSS, False, True),
        (Code.NEARLY_SAME_WITHIN, False, False),
    ):
        pairs = [p for p, c in zip(found.pairs, crosses, strict=True) if (p.same_file, c) == (same_file, across)]
        if pairs:
            what = "the same file" if same_file else "nearly the same image"
            places = [f"{collection.place(p.first)} = {collection.place(p.second)}" for p in pairs]
            text = f"{count(len(pairs), 'pair')} of {what} {'in two splits' if across else 'twice in one split'}"
            remedy = "remove them from one split" if across else "keep one of each, unless the copies are intended"
            section.find(kind, text, remedy, places)
    groups = groups_of(found.pairs)
    section.say(
        f"{count(len(groups), 'group')} of the same or nearly the same image, {count(sum(crosses), 'pair')} across "
        f"splits. Two images count as nearly the same when their hashes differ in at most {HASH_BITS} of 256 bits "
        f"and their thumbnails nowhere by more than {MAX_DIFFERENCE:g} standard deviations of their grey levels."
    )
    section.data = {
        "hash_bits": HASH_BITS,
        "max_difference": MAX_DIFFERENCE,
        "groups": [[collection.place(row) for row in group] for group in groups],
        "pairs": [
            {
                "first": collection.place(p.first),
                "second": collection.place(p.second),
                "kind": "content" if p.same_file else "near",
                "difference": round(p.difference, 3),
                "boxes": [int(collection.counts[p.first]), int(collection.counts[p.second])],
            }
            for p in found.pairs
        ],
    }
    if found.augmented:
        _describe_augmented(section, collection, found)
    for name in collection.splits:
        rows = collection.rows(name)
        seen = int(found.seen_in_train[rows].sum())
        if name != "train" and seen:
            section.data[f"same_view_in_train_{name}"] = seen
            text = (
                f"{seen:,} of {count(len(rows), 'image')} in {name} {'shows' if seen == 1 else 'show'} a view that is "
                f"in train too (hashes at most {HASH_BITS} bits apart), with the same or other objects in it"
            )
            remedy = f"the score on {name} is one for these places; in new places it may be lower"
            section.find(Code.SAME_VIEW, text, remedy, split=name)
    return section


def _describe_augmented(section: Section, collection: Collection, found: Duplicates) -> None:
    across = [group for group in found.augmented if len(set(collection.split[group].tolist())) > 1]
    section.data["augmented_groups"] = len(found.augmented)
    text = (
        f"{count(sum(map(len, found.augmented)), 'image')} are augmented copies of "
        f"{count(len(found.augmented), 'photograph')}, going by their names (.rf.)"
    )
    remedy = "" if across else "training augments by itself: the original photographs are enough"
    section.find(Code.AUGMENTED, text, remedy)
    if across:
        places = [" = ".join(collection.place(row) for row in group[:3]) for group in across]
        text = f"{count(len(across), 'photograph')} with augmented copies in more than one split"
        section.find(Code.AUGMENTED_ACROSS, text, "keep all copies of one photograph in one split", places)

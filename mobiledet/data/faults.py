"""What the checks of a COCO file found: kinds of fault with their remedies, examples, counts, a summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from mobiledet.errors import DataError
from mobiledet.structures import IntArray

EXAMPLES = 5
"""Faults of one kind that are described one by one; all are counted."""

ERRORS = {
    "images in all": "a data set needs pictures; check that this is the right file",
    "categories in all": "a data set needs at least one class",
    "boxes in all": "training needs boxes; check that this is the right file",
    "image ids missing, doubled or not whole numbers": "give every image its own whole number",
    "image sizes that are not whole numbers": "write height and width in pixels",
    "category ids missing, doubled or not whole numbers": "give every category its own whole number",
    "category names missing or doubled": "give every category its own name",
    "file names missing or not text": "write the picture's file name",
    "file names leading out of the image folder": "put the pictures (not links to them) into the folder and name "
    "them relative to it; linking the whole folder is fine",
    "missing pictures": "put them there, correct file_name, or name another folder of images",
    "unreadable pictures": "replace the files or take them out of the json",
    "pictures of another size than the json says": "write the real size, or fetch the picture that was labelled",
    "annotations of an unknown image": "correct image_id or drop them",
    "annotations of an unknown category": "correct category_id or add the category",
    "bboxes that are not four numbers": "write [x, y, width, height] in pixels",
    "bboxes with values that are not finite numbers": "write [x, y, width, height] in pixels",
    "boxes fully outside their image": "correct bbox (is it [x, y, width, height] in pixels?) or drop them",
    "values of iscrowd other than 0 and 1": "write 0 for an object, 1 for a crowd",
}
"""Kind of fault -> remedy."""

REPAIRS = (
    "annotation ids renumbered (missing, doubled or below 1)",
    "ids read as whole numbers",
    "category names read as text",
    "image sizes taken from the file",
    "missing iscrowd set to 0",
    "areas computed from the box",
    "boxes without width or height dropped",
    "boxes clipped to their image",
    "boxes dropped as too small",
    "exact duplicate boxes dropped",
)

Rows: TypeAlias = IntArray | list[int]
Describe: TypeAlias = Callable[[int], tuple[str, str]]
"""Row -> ``(place, value)`` of its fault."""


@dataclass(frozen=True)
class Fault:
    """One example of a fault: what kind, where, the value found and what to do about it."""

    kind: str
    place: str
    value: str
    remedy: str


@dataclass
class CheckReport:
    """What was found in one annotation file.

    Attributes:
        source: the file's name.
        errors: faults that training must not start with, at most `EXAMPLES` of a kind.
        repairs: faults that were put right, at most `EXAMPLES` of a kind.
        counts: kind -> how many there are of it, errors and repairs.
        notes: things that are legal and still worth knowing -> how many.
        images: pictures in the data set.
        boxes: boxes left after repairs.
        classes: object classes.
    """

    source: str
    errors: list[Fault] = field(default_factory=list)
    repairs: list[Fault] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    notes: dict[str, int] = field(default_factory=dict)
    images: int = 0
    boxes: int = 0
    classes: int = 0

    def add(self, kind: str, rows: Rows, describe: Describe) -> None:
        """Count a fault of some rows and describe the first of them as ``(place, value)``."""
        if kind not in ERRORS and kind not in REPAIRS:
            raise KeyError(kind)
        if not len(rows):
            return
        faults = self.errors if kind in ERRORS else self.repairs
        remedy = ERRORS.get(kind, "repaired")
        known = sum(fault.kind == kind for fault in faults)
        for row in rows[: max(0, EXAMPLES - known)]:
            faults.append(Fault(kind, *describe(int(row)), remedy))
        self.counts[kind] += len(rows)

    def summary(self) -> str:
        """A few lines for the log."""
        lines = [f"{self.source}: {self.images} images, {self.boxes} boxes, {self.classes} classes"]
        for kind, examples in _by_kind(self.repairs).items():
            lines.append(f"repaired: {self.counts[kind]} {kind} (first: {examples[0].place}, {examples[0].value})")
        return "\n".join([*lines, *(f"note: {count} {what}" for what, count in self.notes.items() if count)])

    def raise_if_errors(self) -> None:
        """Refuse the data with one line for each kind of fault.

        Raises:
            DataError: there are errors.
        """
        if not self.errors:
            return
        lines = []
        for kind, examples in _by_kind(self.errors).items():
            found = "; ".join(": ".join(filter(None, (fault.place, fault.value))) for fault in examples)
            more = self.counts[kind] - len(examples)
            rest = f"; and {more} more" if more else ""
            lines.append(f"- {self.counts[kind]} {kind}: {found}{rest}. Remedy: {ERRORS[kind]}")
        raise DataError("\n".join([f"{self.source} can't be used:", *lines]))


def _by_kind(faults: Iterable[Fault]) -> dict[str, list[Fault]]:
    grouped: dict[str, list[Fault]] = {}
    for fault in faults:
        grouped.setdefault(fault.kind, []).append(fault)
    return grouped

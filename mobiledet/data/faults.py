"""The faults that a data set can have, each with severity, text and remedy, and the records of those found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeAlias

from mobiledet.errors import DataError
from mobiledet.structures import IntArray
from mobiledet.utils.text import listing, printable

EXAMPLES = 5
"""Faults of one kind that are described one by one; all are counted."""


class Severity(Enum):
    """What becomes of a fault."""

    REFUSED = "refused"
    """Training doesn't start; where another format is imported, the entry is dropped instead."""
    DROPPED = "dropped"
    """It isn't in the result."""
    REPAIRED = "repaired"
    """It was corrected without guessing."""
    NOTE = "note"
    """Legal, and worth knowing."""


_REFUSED, _DROPPED, _REPAIRED, _NOTE = Severity


class Fault(Enum):
    """A kind of fault: severity, text for people (behind its number), and the remedy where there is one."""

    NO_IMAGES = _REFUSED, "images in all", "a data set needs images; check that this is the right file"
    NO_CATEGORIES = _REFUSED, "categories in all", "a data set needs at least one class"
    NO_BOXES = _REFUSED, "boxes in all", "training needs boxes; check that this is the right file"
    IMAGE_ID = _REFUSED, "image ids missing, duplicate or not whole numbers", "give each its own whole number"
    IMAGE_SIZE = _REFUSED, "image sizes that are not whole numbers", "write height and width in pixels"
    CATEGORY_ID = _REFUSED, "category ids missing, duplicate or not whole numbers", "give each its own whole number"
    CATEGORY_NAME = _REFUSED, "category names missing or duplicate", "give every category its own name"
    FILE_NAME = _REFUSED, "file names missing or not text", "write the image's file name"
    FILE_OUTSIDE = (
        _REFUSED,
        "file names leading out of the image folder",
        "put the images (not links to them; linking the folder is fine) into it and name them relative to it",
    )
    IMAGE_MISSING = _REFUSED, "missing images", "put them there, correct file_name, or name another folder of images"
    ENTRY_AMBIGUOUS = _REFUSED, "entries that several images match", "name the folder in file_name as well"
    IMAGE_UNREADABLE = _REFUSED, "unreadable images", "replace the files or remove them from the json"
    IMAGE_OTHER_SIZE = (
        _REFUSED,
        "images of another size than the json says",
        "write the real size, or fetch the image that was labelled",
    )
    UNKNOWN_IMAGE = _REFUSED, "annotations of an unknown image", "correct image_id or drop them"
    UNKNOWN_CATEGORY = _REFUSED, "annotations of an unknown category", "correct category_id or add the category"
    BOX_NOT_NUMBERS = _REFUSED, "bboxes that are not four numbers", "write [x, y, width, height] in pixels"
    BOX_NOT_FINITE = (
        _REFUSED,
        "bboxes with values that are not finite numbers",
        "write [x, y, width, height] in pixels",
    )
    BOX_OUTSIDE = (
        _REFUSED,
        "boxes fully outside their image",
        "correct bbox (is it [x, y, width, height] in pixels?) or drop them",
    )
    BOX_FORM = (
        _REFUSED,
        (
            "bboxes that fit their images in another form, not as [x, y, width, height] in pixels (to take them as "
            "they are: boxes=xywh)"
        ),
        "write bbox as [x, y, width, height] in pixels; from corners that is [x1, y1, x2 - x1, y2 - y1]",
    )
    CROWD_FLAG = _REFUSED, "values of iscrowd other than 0 and 1", "write 0 for an object, 1 for a crowd"

    PATH_OUTSIDE = _DROPPED, "paths that lead out of the data set's folder (to follow them: outside=true)"
    IMAGE_EMPTIED = _DROPPED, "images of which no label can be used, not used (as background: doubtful=background)"
    IMAGE_UNLABELLED = _DROPPED, "images without labels (not known to be background), not used"
    IMAGE_KIND = _DROPPED, "images of kinds that aren't read (save them as JPEG or PNG)"
    LABELS_SHARED = _DROPPED, "images that share one label file with another image"
    LABELS_SEVERAL = _DROPPED, "images labelled by several files, all but the first"
    NOT_LISTED = _DROPPED, "images in no split list, not used"
    NO_SPLIT_FOLDER = _DROPPED, "images outside of the folders of the splits, not used"
    SCALED = _DROPPED, "images scaled after labelling"
    SPLIT_UNLABELLED = _DROPPED, "splits without a single label file"
    LABELS_LONE = _DROPPED, "label files without an image"
    LABELS_UNREADABLE = _DROPPED, "label files that can't be read"
    LISTED_UNLABELLED = _DROPPED, "names in split lists without a labelled image"
    ENTRY_LONE = _DROPPED, "entries without an image"
    OBJECT_NAMELESS = _DROPPED, "objects without a class name"
    OBJECT_BOXLESS = _DROPPED, "objects without a box"
    ROW_NO_BOX = _DROPPED, "rows that are not a box"
    ROW_UNCLEAR = _DROPPED, "rows that may be several things, a few only (say what they are to use them)"
    ROW_NAMELESS = _DROPPED, "rows of a class that has no name"
    BOX_POINT = _DROPPED, "boxes of a single point or line"
    BOX_IN_PIXELS = _DROPPED, "boxes in pixels instead of shares of the image"
    BOX_FLAT = _DROPPED, "boxes without width or height dropped"
    BOX_SMALL = _DROPPED, "boxes dropped as too small"
    BOX_DUPLICATE = _REPAIRED, "exact duplicate boxes dropped"

    IMAGE_MENDED = _REPAIRED, "JPEG files without their end marker, complete otherwise"
    ANNOTATION_ID = _REPAIRED, "annotation ids renumbered (missing, duplicate or below 1)"
    ID_CONVERTED = _REPAIRED, "ids read as whole numbers"
    NAME_CONVERTED = _REPAIRED, "category names read as text"
    SIZE_FROM_FILE = _REPAIRED, "image sizes taken from the file"
    CROWD_ABSENT = _REPAIRED, "missing iscrowd set to 0"
    AREA_COMPUTED = _REPAIRED, "areas computed from the box"
    BOX_CLIPPED = _REPAIRED, "boxes clipped to their image"
    CORNERS_SWAPPED = _REPAIRED, "boxes with swapped corners"
    NAME_SPACES = _REPAIRED, "class names with stray spaces or characters that can't be shown"
    CLASSES_MERGED = _REPAIRED, "classes of the same name merged"
    CLASS_FRACTION = _REPAIRED, "class numbers written as fractions"
    NAME_INVENTED = _REPAIRED, "class names missing, made up"
    CATEGORY_RENUMBERED = _REPAIRED, "category ids renumbered"
    CATEGORY_UNIFIED = _REPAIRED, "categories of several files unified by name"
    SIZE_WRONG = _REPAIRED, "image sizes that were wrong, taken from the file"
    IMAGE_RENUMBERED = _REPAIRED, "image ids renumbered"
    POLYGON = _REPAIRED, "polygons replaced by their bounding box"
    BOX_FROM_PIXELS = _REPAIRED, "boxes in pixels beside others in shares of the image, read as pixels"
    BOX_FROM_MASK = _REPAIRED, "boxes computed from the segmentation"
    NAMES_DECODED = _REPAIRED, "lists of class names in another encoding than UTF-8"
    LABELS_RENAMED = _REPAIRED, "label files called almost like their image"
    PATH_OTHER = _REPAIRED, "images found under another path than the one given"
    LISTED_TWICE = _REPAIRED, "images listed twice in a split"
    YAML_PATH = _REPAIRED, "paths in the yaml found elsewhere"

    DIFFICULT = _NOTE, "objects marked difficult or ignore (neither trained on nor scored)"
    CORNER_ZERO = _NOTE, "corners of 0, where VOC counts from 1 (read like all the others)"
    NAMES_ALIKE = _NOTE, "class names that are alike"
    CLASS_EMPTY = _NOTE, "classes without a box"
    CATEGORY_HEAD = _NOTE, "categories that only group others, left out"
    NAMES_COUNT = _NOTE, "names in the yaml other than nc says"
    CONFIDENCE = _NOTE, "confidences left out"
    KEYPOINTS = _NOTE, "rows with keypoints or more behind the box, left out"
    BACKGROUND_NO_FILE = _NOTE, "images without a label file (background)"
    BACKGROUND = _NOTE, "images without boxes (background)"
    IMAGE_IN_SPLITS = _NOTE, "images in more than one split"
    IMAGE_OUTSIDE = _NOTE, "images outside of the data set's folder"
    OTHER_NAME = _NOTE, "files whose own name fits another image than the one they name"
    LEFT_ASIDE = _NOTE, "lists and files left aside"
    SPLIT_ABSENT = _NOTE, "splits that are not there"
    ROTATION_UNCLEAR = (
        _NOTE,
        (
            "images whose EXIF rotation their size can't confirm, read upright; where the boxes are wrong then, "
            "data.reading.orientation=stored reads them as stored"
        ),
    )

    def __init__(self, severity: Severity, text: str, remedy: str = "") -> None:
        self.severity = severity
        self.text = text
        self.remedy = remedy

    @property
    def code(self) -> str:
        """Stable name, such as ``"box-outside"``."""
        return self.name.lower().replace("_", "-")


Rows: TypeAlias = IntArray | list[int]
Describe: TypeAlias = Callable[[int], tuple[str, str]]
"""Row -> ``(place, value)`` of its fault."""


@dataclass(frozen=True)
class FaultRecord:
    """One fault that was found: its kind, where it is, the value there, and the row where it was found in a table."""

    fault: Fault
    place: str
    value: str = ""
    row: int = -1

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.place, self.value)))


@dataclass
class CheckReport:
    """What was found in one annotation file.

    Attributes:
        source: the file's name.
        examples: the first ``limit`` of each kind of fault; all of them if that is None.
        counts: how many there are of each kind.
        notes: things that are legal and still worth knowing, with their numbers.
        images: images in the data set.
        boxes: boxes left after repairs.
        classes: object classes.
    """

    source: str
    examples: dict[Fault, list[FaultRecord]] = field(default_factory=dict)
    counts: Counter[Fault] = field(default_factory=Counter)
    notes: Counter[Fault] = field(default_factory=Counter)
    images: int = 0
    boxes: int = 0
    classes: int = 0
    limit: int | None = EXAMPLES

    def add(self, fault: Fault, rows: Rows, describe: Describe) -> None:
        """Count a fault of some rows and describe the first of them as ``(place, value)``."""
        if not len(rows):
            return
        known = self.examples.setdefault(fault, [])
        for row in rows if self.limit is None else rows[: max(0, self.limit - len(known))]:
            known.append(FaultRecord(fault, *describe(int(row)), int(row)))
        self.counts[fault] += len(rows)

    def note(self, fault: Fault, count: int) -> None:
        """Count something that needs no example."""
        if count:
            self.notes[fault] += count

    def of(self, *severities: Severity) -> list[Fault]:
        """The kinds of fault that were found, of some severities, in the order they were found."""
        return [fault for fault in self.counts if fault.severity in severities]

    def summary(self, *, repairs: bool = True) -> str:
        """A line for each kind of fault repaired, where wanted, and for each note; they count in the whole file."""
        lines = []
        for fault in self.of(Severity.REPAIRED, Severity.DROPPED) if repairs else ():
            first = self.examples[fault][0]
            lines.append(f"repaired: {self.counts[fault]} {fault.text} (first: {first.place}, {first.value})")
        notes = [*((fault, self.counts[fault]) for fault in self.of(Severity.NOTE)), *self.notes.items()]
        return "\n".join([*lines, *(f"note: {count} {fault.text}" for fault, count in notes)])

    def raise_if_errors(self) -> None:
        """Refuse the data with one line for each kind of fault.

        Raises:
            DataError: there are faults that training must not start with.
        """
        _refuse(self.source, {fault: (self.counts[fault], self.examples[fault]) for fault in self.of(Severity.REFUSED)})


def _refuse(source: str, faults: Mapping[Fault, tuple[int, list[FaultRecord]]]) -> None:
    """Raise with a line for each kind of fault: how many there are, some of them, and the remedy."""
    lines = []
    for fault, (number, examples) in faults.items():
        rest = f"; and {number - len(examples)} more" if number > len(examples) else ""
        lines.append(f"- {number} {fault.text}: {'; '.join(map(str, examples))}{rest}. Remedy: {fault.remedy}")
    if lines:
        raise DataError("\n".join([f"{source} can't be used:", *lines]))


class ImportLog:
    """Everything that reading a data set dropped, repaired or noted, by kind of fault."""

    EXAMPLES = 3

    def __init__(self) -> None:
        self.records: dict[Fault, list[FaultRecord]] = {}

    def add(self, fault: Fault, place: str, value: str = "") -> None:
        """Record a fault; names of files may hold line ends, and bytes that are not text."""
        self.records.setdefault(fault, []).append(FaultRecord(fault, printable(place), printable(value)))

    @staticmethod
    def severity(fault: Fault) -> Severity:
        """What became of it: on import, what would be refused is dropped."""
        return Severity.DROPPED if fault.severity is Severity.REFUSED else fault.severity

    @property
    def counts(self) -> Counter[Fault]:
        """How many there are of each kind; 0 for a kind that wasn't met."""
        return Counter({fault: len(found) for fault, found in self.records.items()})

    def raise_if_refused(self, source: str, strict: bool) -> None:
        """Where it is read strictly, refuse the data with one line for each kind of fault that is dropped otherwise.

        Raises:
            DataError: there are faults that training must not start with.
        """
        refused = {fault: found for fault, found in self.records.items() if fault.severity is Severity.REFUSED}
        if strict:
            _refuse(source, {fault: (len(found), found[:EXAMPLES]) for fault, found in refused.items()})

    def dropped(self) -> list[Fault]:
        """The kinds of fault because of which something isn't in the result."""
        return [fault for fault in self.records if self.severity(fault) is Severity.DROPPED]

    def entries(self) -> list[tuple[Severity, str]]:
        """What became of each kind of fault, and a text with its count and first places; dropped first, notes last."""
        return [
            (severity, f"{len(found)} {fault.text} ({listing(found, self.EXAMPLES, '; ')})")
            for severity in (Severity.DROPPED, Severity.REPAIRED, Severity.NOTE)
            for fault, found in self.records.items()
            if self.severity(fault) is severity
        ]

    def lines(self) -> list[str]:
        """One line for each kind of fault, for people."""
        return [f"{severity.value}: {text}" for severity, text in self.entries()]

    def to_json(self) -> dict[str, dict[str, list[dict[str, str]]]]:
        """Severity -> text of the fault -> every record as ``{"code", "place", "value"}``."""
        result: dict[str, dict[str, list[dict[str, str]]]] = {"dropped": {}, "repaired": {}, "note": {}}
        for fault, found in self.records.items():
            result[self.severity(fault).value][fault.text] = [
                {"code": fault.code, "place": record.place, "value": record.value} for record in found
            ]
        return result

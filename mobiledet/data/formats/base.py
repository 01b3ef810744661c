"""What every importer speaks: pictures with boxes as they were found, and the account of what became of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from mobiledet.data.faults import ERRORS, REPAIRS, CheckReport, Describe, Rows

Format: TypeAlias = Literal["voc", "yolo", "coco"]
Severity: TypeAlias = Literal["dropped", "repaired", "note"]

EXAMPLES = 3
"""Findings of one kind that `Account.lines` and `Account.examples` show; `Account.to_json` has all."""

DROPPED = (
    "pictures without labels (not known to be background), not used",
    "pictures that share one label file with another picture",
    "pictures labelled by several files, all but the first",
    "pictures in no split list, not used",
    "pictures outside of the folders of the splits, not used",
    "pictures scaled after labelling",
    "splits without a single label file",
    "label files without a picture",
    "label files that can't be read",
    "names in split lists without a labelled picture",
    "entries without a picture",
    "entries that can't be told apart",
    "objects without a class name",
    "objects without a box",
    "rows that are no box",
    "rows of a class that has no name",
    "boxes of a single point or line",
    "boxes in pixels instead of shares of the picture",
    "boxes without width or height dropped",
    "boxes dropped as too small",
    *ERRORS,
)
"""Kinds of finding: what isn't in the result."""

REPAIRED = (
    "boxes with swapped corners",
    "class names with stray spaces",
    "classes of the same name merged",
    "class numbers written as fractions",
    "class names missing, made up",
    "category ids renumbered",
    "categories of several files unified by name",
    "image sizes that were wrong, taken from the file",
    "image ids renumbered",
    "polygons replaced by their bounding box",
    "boxes computed from the segmentation",
    "pictures found under another path than the one given",
    "pictures listed twice in a split",
    "paths in the yaml found elsewhere",
    *(kind for kind in REPAIRS if kind not in DROPPED),
)
"""Kinds of finding: what was put right."""

NOTES = (
    "objects marked difficult (neither trained on nor scored)",
    "corners of 0, where VOC counts from 1 (read like all the others)",
    "class names that are alike",
    "classes without a box",
    "categories that only head the others, left out",
    "names in the yaml other than nc says",
    "confidences left out",
    "keypoints left out",
    "pictures without a label file (background)",
    "pictures in more than one split",
    "pictures outside of the data set's folder",
    "files whose own name fits another picture than the one they name",
    "lists and files left aside",
    "splits that are not there",
)
"""Kinds of finding: legal, and worth knowing."""

_SEVERITIES: dict[str, Severity] = {
    **dict.fromkeys(NOTES, "note"),
    **dict.fromkeys(REPAIRED, "repaired"),
    **dict.fromkeys(DROPPED, "dropped"),
}


@dataclass(frozen=True)
class Finding:
    """One thing that was dropped, repaired or noted: where it was, and what was there."""

    place: str
    value: str


class Account:
    """Everything that reading a data set dropped, repaired or noted, by kind."""

    def __init__(self) -> None:
        self._found: dict[str, list[Finding]] = {}

    def add(self, kind: str, place: str, value: str = "") -> None:
        """Take down a finding of one of the kinds in `DROPPED`, `REPAIRED` and `NOTES`."""
        if kind not in _SEVERITIES:
            raise KeyError(kind)
        self._found.setdefault(kind, []).append(Finding(_printable(place), _printable(value)))

    @staticmethod
    def severity(kind: str) -> Severity:
        """Whether a kind of finding is something dropped, something repaired or a mere note."""
        return _SEVERITIES[kind]

    @property
    def counts(self) -> Counter[str]:
        """Kind -> how many there are; 0 for a kind that wasn't met."""
        return Counter({kind: len(found) for kind, found in self._found.items()})

    @property
    def examples(self) -> dict[str, tuple[Finding, ...]]:
        """Kind -> the first few of it."""
        return {kind: tuple(found[:EXAMPLES]) for kind, found in self._found.items()}

    def lines(self) -> list[str]:
        """One line for each kind, for people: what was dropped first, notes last."""
        lines = []
        for severity in ("dropped", "repaired", "note"):
            for kind, found in self._found.items():
                if _SEVERITIES[kind] == severity:
                    shown = "; ".join(": ".join(filter(None, (f.place, f.value))) for f in found[:EXAMPLES])
                    more = f"; and {len(found) - EXAMPLES} more" if len(found) > EXAMPLES else ""
                    lines.append(f"{severity}: {len(found)} {kind} ({shown}{more})")
        return lines

    def to_json(self) -> dict[str, dict[str, list[dict[str, str]]]]:
        """Severity -> kind -> every finding as ``{"place", "value"}``."""
        result: dict[str, dict[str, list[dict[str, str]]]] = {"dropped": {}, "repaired": {}, "note": {}}
        for kind, found in self._found.items():
            result[_SEVERITIES[kind]][kind] = [{"place": f.place, "value": f.value} for f in found]
        return result


@dataclass
class SourceBox:
    """One object as its file has it.

    Attributes:
        row: where in the label file; `Source.row` says how that is told.
        name: its class.
        bbox: ``[x, y, width, height]`` in pixels counted from 0, or as shares of the picture; unchecked.
        shares: whether these are shares of the upright picture.
        extra: further keys of a COCO annotation.
    """

    row: int
    name: str
    bbox: Any
    shares: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class SourcePicture:
    """One picture and its objects.

    Attributes:
        path: its file, which exists.
        split: normalised name of its split.
        labels: the label file, as it is told to people.
        size: ``(height, width)`` as labelled, 0 where missing; None where the format says nothing of sizes.
        boxes: its objects.
        image_id: its id, where the format has ids.
    """

    path: Path
    split: str
    labels: str
    size: tuple[int, int] | None
    boxes: list[SourceBox] = field(default_factory=list)
    image_id: int | None = None


@dataclass
class Source:
    """A data set as an importer found it.

    Attributes:
        format: which importer.
        pictures: in the order they are to have within their split.
        categories: class name -> COCO id, in the order of the ids.
        annotation_file: what stands for the labels in messages about the data set.
        row: how the row of a label file is told, such as ``"line {}"``.
    """

    format: Format
    pictures: list[SourcePicture]
    categories: dict[str, int]
    annotation_file: Path
    row: str


class ImportReport(CheckReport):
    """A report of the COCO checks that also remembers which rows are at fault, and under which names they are known.

    Attributes:
        faulty: the rows of images and of annotations with errors.
        findings: ``(kind, place, value)`` of every fault and repair.
    """

    def __init__(self, source: str, image_places: list[str], annotation_places: list[str]) -> None:
        super().__init__(source)
        self.faulty: dict[str, set[int]] = {"images": set(), "annotations": set()}
        self.findings: list[tuple[str, str, str]] = []
        self._places = {"images": image_places, "annotations": annotation_places}

    def add(self, kind: str, rows: Rows, describe: Describe) -> None:
        """As `CheckReport.add`, for all rows."""
        super().add(kind, rows, describe)
        for row in map(int, rows):
            place, value = describe(row)
            section = place.partition("[")[0]
            if section in self._places:
                place = self._places[section][row]
                if kind in ERRORS:
                    self.faulty[section].add(row)
            self.findings.append((kind, place, value))

    def plain(self) -> CheckReport:
        """The report alone."""
        names = ("source", "errors", "repairs", "counts", "notes", "images", "boxes", "classes")
        return CheckReport(**{name: getattr(self, name) for name in names})


def clean_name(text: str) -> str:
    """A class name without spaces at its ends, with single ones inside, and without what UTF-8 can't hold."""
    return " ".join(text.encode("utf-8", "replace").decode().split())


def _printable(text: str) -> str:
    # Names of files may hold line ends, and bytes that are no text.
    return text if text.isprintable() else text.encode("unicode_escape", "surrogatepass").decode()

"""What an examination found: sections of figures, findings with their remedies, and a verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from mobiledet.utils.text import count, listing, table

EXIT_READY, EXIT_FAULTS = 0, 3
"""Exit status of a report without faults, and of one with some."""

_WIDTH = 110


class Level(Enum):
    """How much a finding matters, the most important first: its code in report.json, and a heading."""

    FAULT = "fault", "Faults: decide about these"
    ADVICE = "advice", "Advice"
    NOTE = "note", "Notes"

    def __init__(self, code: str, heading: str) -> None:
        self.code = code
        self.heading = heading


class Code(Enum):
    """Kinds of findings: the code in report.json, which stays the same between versions, and the level.

    Two kinds may share a code where the circumstances decide how much it matters.
    """

    DROPPED = "dropped", Level.FAULT
    NO_TRAIN = "no-train", Level.FAULT
    NO_VAL = "no-val", Level.ADVICE
    NO_BOXES = "no-boxes", Level.FAULT
    MANY_OBJECTS = "many-objects", Level.ADVICE
    SMALL_VAL = "small-val", Level.ADVICE
    CLASS_UNUSED = "class-unused", Level.ADVICE
    CLASS_ONLY_IN_VAL = "class-not-in-train", Level.FAULT
    CLASS_NOT_IN_TRAIN = "class-not-in-train", Level.ADVICE
    CLASS_NOT_IN_VAL = "class-not-in-val", Level.ADVICE
    CLASS_RARE = "class-rare", Level.ADVICE
    IMBALANCE = "imbalance", Level.NOTE
    CLASS_NAMES_SAME = "class-names-same", Level.FAULT
    CLASS_NAMES_ALIKE = "class-names-alike", Level.ADVICE
    SQUEEZED = "squeezed", Level.ADVICE
    INPUT_SIZE = "input-size", Level.ADVICE
    INPUT_SIZE_SUITS = "input-size", Level.NOTE
    ANCHORS = "anchors", Level.ADVICE
    UNREADABLE = "unreadable", Level.FAULT
    PLAIN = "picture-plain", Level.NOTE
    DARK = "picture-dark", Level.NOTE
    BRIGHT = "picture-bright", Level.NOTE
    BLURRED = "picture-blurred", Level.NOTE
    SAME_FILE_ACROSS = "same-content-across", Level.FAULT
    SAME_FILE_WITHIN = "same-content-within", Level.ADVICE
    NEARLY_SAME_ACROSS = "same-near-across", Level.FAULT
    NEARLY_SAME_WITHIN = "same-near-within", Level.ADVICE
    SAME_VIEW = "same-view", Level.NOTE
    AUGMENTED = "augmented", Level.NOTE
    AUGMENTED_ACROSS = "augmented-across", Level.FAULT
    WITHOUT_BOXES = "without-boxes", Level.ADVICE
    COPY_WITH_MORE = "copy-with-more", Level.ADVICE
    TWO_CLASSES = "two-classes", Level.ADVICE
    LABELLED_TWICE = "labelled-twice", Level.ADVICE
    WHOLE_IMAGE = "whole-picture", Level.NOTE
    MOSTLY_WHOLE_IMAGES = "whole-picture", Level.ADVICE
    PLACEHOLDERS = "placeholders", Level.ADVICE
    UNLABELLED = "unlabelled", Level.ADVICE

    def __init__(self, code: str, level: Level) -> None:
        self.code = code
        self.level = level


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed, what to do about it, and where: images as ``split/file name``, or classes.

    ``split`` is the one it is about, where each split can have such a finding.
    """

    kind: Code
    text: str
    remedy: str = ""
    places: tuple[str, ...] = ()
    split: str = ""

    @property
    def code(self) -> str:
        """A short name that stays the same between versions, such as ``"same-view-val"``."""
        return f"{self.kind.code}-{self.split}" if self.split else self.kind.code

    def sentence(self) -> str:
        """The finding in one line, with its first places and its remedy."""
        where = f": {listing(self.places)}" if self.places else ""
        return f"{self.text}{where}" + (f"; {self.remedy}" if self.remedy else "")

    def to_json(self) -> dict[str, Any]:
        """The finding as plain values, with all its places."""
        plain = {"level": self.kind.level.code, "code": self.code, "text": self.text, "remedy": self.remedy}
        return {**plain, "places": list(self.places)}


@dataclass
class Section:
    """One chapter of the report.

    Attributes:
        title: its heading.
        key: names its figures in report.json, which keeps its keys when a heading changes; by default the title.
        parts: paragraphs, and tables as lists of lines, in order.
        findings: what was noticed; the report gathers these at its end.
        data: the figures, for the JSON.
    """

    title: str
    key: str = ""
    parts: list[str | list[str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def say(self, paragraph: str) -> None:
        """Add a paragraph."""
        self.parts.append(paragraph)

    def show(self, header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Add a table: the first column is aligned to the left, the others to the right."""
        self.parts.append(table([header, *rows]))

    def find(self, kind: Code, text: str, remedy: str = "", places: Sequence[str] = (), *, split: str = "") -> None:
        """Add a finding."""
        self.findings.append(Finding(kind, text, remedy, tuple(places), split))


@dataclass
class DoctorReport:
    """Complete report on a data set: sections in order, images beside it -> what they show, and the next command."""

    title: str
    sections: list[Section] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    next_command: str = ""

    def findings(self, level: Level | None = None) -> list[Finding]:
        """The findings of one level, or all, in reading order."""
        return [f for section in self.sections for f in section.findings if level in (None, f.kind.level)]

    @property
    def exit_status(self) -> int:
        """0 without faults, 3 with some."""
        return EXIT_FAULTS if self.findings(Level.FAULT) else EXIT_READY

    def verdict(self) -> str:
        """One line: ready or not."""
        faults, advice = len(self.findings(Level.FAULT)), len(self.findings(Level.ADVICE))
        pieces = count(advice, "piece of advice", "pieces of advice")
        if faults:
            needs = count(faults, "fault needs", "faults need")
            return f"verdict: NOT READY: {needs} a decision" + (f"; {pieces}" if advice else "")
        return "verdict: READY to train" + (f", with {pieces}" if advice else "")

    def to_text(self) -> str:
        """The report for people; ends with the verdict and a line break."""
        lines = [self.title, "=" * min(len(self.title), _WIDTH)]
        for section in self.sections:
            if section.parts:
                lines += ["", section.title, "-" * len(section.title)]
                for part in section.parts:
                    lines += _wrap(part) if isinstance(part, str) else [*part, ""]
                if not lines[-1]:
                    lines.pop()
        for level in Level:
            if found := self.findings(level):
                lines += ["", level.heading, "-" * len(level.heading)]
                for number, finding in enumerate(found, 1):
                    lines += _wrap(finding.sentence(), first=f"{number}. ")
        if self.files:
            lines += ["", "Images to look at", "-----------------"]
            lines += [f"{name}: {what}" for name, what in self.files.items()]
        following = [f"next: {self.next_command}"] if self.next_command and not self.exit_status else []
        return "\n".join([*lines, "", *following, self.verdict(), ""])

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "title": self.title,
            "verdict": self.verdict(),
            "exit_status": self.exit_status,
            "findings": [finding.to_json() for finding in self.findings()],
            "figures": {section.key or section.title: section.data for section in self.sections if section.data},
            "files": self.files,
            "next": self.next_command,
        }


def percent(share: float) -> str:
    """A share as people read it: "0 %", "0.4 %", "37 %"; only exactly none and all become "0 %" and "100 %"."""
    value = 100 * share
    if 0 < value < 0.1:
        return "under 0.1 %"
    if 99 < value < 100:
        return f"{min(value, 99.9):.1f} %"
    return f"{round(value, 1):g} %" if value < 10 else f"{value:.0f} %"


def _wrap(text: str, first: str = "") -> list[str]:
    lines = textwrap.wrap(text, _WIDTH - len(first), break_long_words=False, break_on_hyphens=False)
    return [(" " * len(first) if number else first) + line for number, line in enumerate(lines)]

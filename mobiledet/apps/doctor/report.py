"""What an examination found: sections of figures, findings with their remedies, and a verdict."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Level: TypeAlias = Literal["fault", "advice", "note"]
"""A fault needs a decision before training; advice is worth following; a note is good to know."""

EXIT_READY, EXIT_FAULTS = 0, 3
"""Exit status of a report without faults, and of one with some."""

EXAMPLES = 5
"""Places that the text names for one finding; the JSON has all."""

_WIDTH = 110


@dataclass(frozen=True)
class Finding:
    """One thing that was noticed.

    Attributes:
        level: how much it matters.
        code: a short name that stays the same between versions, such as ``"same-picture"``.
        text: what it is, with its figures.
        remedy: what to do about it; empty where there is nothing.
        places: where: pictures as ``split/file name``, or classes.
    """

    level: Level
    code: str
    text: str
    remedy: str = ""
    places: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The finding in one line, with its first places and its remedy."""
        shown = ", ".join(self.places[:EXAMPLES])
        more = f" and {len(self.places) - EXAMPLES} more" if len(self.places) > EXAMPLES else ""
        where = f": {shown}{more}" if shown else ""
        return f"{self.text}{where}" + (f"; {self.remedy}" if self.remedy else "")

    def to_json(self) -> dict[str, Any]:
        """The finding as plain values, with all its places."""
        plain = {"level": self.level, "code": self.code, "text": self.text, "remedy": self.remedy}
        return {**plain, "places": list(self.places)}


@dataclass(frozen=True)
class Table:
    """A table of text: the first column is set left, the others right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def lines(self) -> list[str]:
        """The table for people, columns aligned."""
        rows = [self.header, *self.rows]
        widths = [max(len(row[column]) for row in rows) for column in range(len(self.header))]

        def line(row: Sequence[str]) -> str:
            cells = [
                cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
            ]
            return "  ".join(cells).rstrip()

        return [line(row) for row in rows]


@dataclass
class Section:
    """One chapter of the report.

    Attributes:
        title: its heading.
        parts: paragraphs and tables in order.
        findings: what was noticed; the report gathers these at its end.
        data: the figures, for the JSON.
    """

    title: str
    parts: list[str | Table] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    def say(self, part: str | Table) -> None:
        """Add a paragraph or a table."""
        self.parts.append(part)

    def find(self, level: Level, code: str, text: str, remedy: str = "", places: Sequence[str] = ()) -> None:
        """Add a finding."""
        self.findings.append(Finding(level, code, text, remedy, tuple(places)))


@dataclass
class Report:
    """The whole of it.

    Attributes:
        title: what was examined.
        sections: in reading order.
        files: pictures written beside the report -> what they show.
    """

    title: str
    sections: list[Section] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)

    def findings(self, level: Level | None = None) -> list[Finding]:
        """The findings of one level, or all, in reading order."""
        return [f for section in self.sections for f in section.findings if level in (None, f.level)]

    @property
    def exit_status(self) -> int:
        """0 without faults, 3 with some."""
        return EXIT_FAULTS if self.findings("fault") else EXIT_READY

    def verdict(self) -> str:
        """One line: ready or not."""
        faults, advice = len(self.findings("fault")), len(self.findings("advice"))
        pieces = f"{advice} piece{'s' * (advice != 1)} of advice"
        if faults:
            needs = "1 fault needs" if faults == 1 else f"{faults} faults need"
            return f"verdict: NOT READY: {needs} a decision" + (f"; {pieces}" if advice else "")
        return "verdict: READY to train" + (f", with {pieces}" if advice else "")

    def to_text(self) -> str:
        """The report for people; ends with the verdict and a line break."""
        lines = [self.title, "=" * min(len(self.title), _WIDTH)]
        for section in self.sections:
            if section.parts:
                lines += ["", section.title, "-" * len(section.title)]
                for part in section.parts:
                    lines += [*part.lines(), ""] if isinstance(part, Table) else _wrap(part)
                if not lines[-1]:
                    lines.pop()
        headings = {"fault": "Faults: decide about these", "advice": "Advice", "note": "Notes"}
        levels: tuple[Level, ...] = ("fault", "advice", "note")
        for level in levels:
            if found := self.findings(level):
                lines += ["", headings[level], "-" * len(headings[level])]
                for number, finding in enumerate(found, 1):
                    lines += _wrap(finding.sentence(), first=f"{number}. ")
        if self.files:
            lines += ["", "Look at", "-------", *(f"{name}: {what}" for name, what in self.files.items())]
        return "\n".join([*lines, "", self.verdict(), ""])

    def to_json(self) -> dict[str, Any]:
        """The report as plain values."""
        return {
            "title": self.title,
            "verdict": self.verdict(),
            "exit_status": self.exit_status,
            "findings": [finding.to_json() for finding in self.findings()],
            "figures": {section.title: section.data for section in self.sections if section.data},
            "files": self.files,
        }


def percent(share: float) -> str:
    """A share as people read it: "0 %", "0.4 %", "37 %"; nothing that isn't all or none rounds to it."""
    value = 100 * share
    if 0 < value < 0.1:
        return "under 0.1 %"
    if 99 < value < 100:
        return f"{min(value, 99.9):.1f} %"
    return f"{round(value, 1):g} %" if value < 10 else f"{value:.0f} %"


def _wrap(text: str, first: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=first,
        subsequent_indent=" " * len(first),
        break_long_words=False,
        break_on_hyphens=False,
    )

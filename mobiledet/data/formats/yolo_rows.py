"""The rows of YOLO's label files: a class, and numbers that may mean several things.

Four numbers are a box: its centre and size in shares of the image. Other tools write corners there. More than four are
the points of a polygon, or a box followed by keypoints, or by a confidence and a track number. One row often doesn't
say which; the rows of a whole data set do, or nobody knows, and then the user is asked (`ReadingConfig.rows`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.base import SourceBox
from mobiledet.data.formats.tree import HOW_TO_SAY, Tree
from mobiledet.errors import DataError
from mobiledet.utils.encodings import text_of

_PIXELS = 1.5
"""Shares of an image don't get this large by rounding; a row in which all four do is in pixels."""

_OUTSIDE = 0.1
"""Share of the image by which careless points of a polygon may lie outside of it; other numbers lie further out."""

_STICKS_OUT = 0.02
"""Share of the image by which a box sticks out that was not only rounded."""

_FEW = 0.05
"""Share of the rows of a data set that is dropped and reported where it isn't clear what they are; so is a single one.

Of more, the user is asked: a question costs a minute, and so many objects less would cost accuracy.
"""

_MOST_CLASSES = 100_000
_BOX, _POLYGON = 1, 2


@dataclass
class LabelFile:
    """What a label file holds: boxes, and the number of rows that can't be used."""

    boxes: list[SourceBox] = field(default_factory=list)
    lost: int = 0


@dataclass
class _OpenRow:
    """A row until it is known what its numbers are; for its ``vote`` see `_vote`."""

    file: LabelFile
    box: SourceBox
    numbers: list[float]
    where: str
    vote: int = 0


class RowReader:
    """Reads the label files of a data set; what only all of their rows can tell is settled at the end.

    Attributes:
        unnamed: classes that were met where there are no names, number -> name.
    """

    def __init__(self, tree: Tree, keypoints: int, log: ImportLog) -> None:
        self.unnamed: dict[int, str] = {}
        self._root, self._rows, self._keypoints, self._log = tree.root, tree.reading.rows, keypoints, log
        self._long: list[_OpenRow] = []
        self._pixels: list[_OpenRow] = []
        self._turned: list[_OpenRow] = []
        self._layouts: Counter[str] = Counter()
        self._first_out = ""

    def read(self, path: Path, shown: str, names: Mapping[int, str]) -> LabelFile:
        """The boxes of a label file, complete after `settle`.

        Args:
            path: the file.
            shown: its name in the log.
            names: class number -> name; without any, they are made up.
        """
        found = LabelFile()
        try:
            lines = text_of(path.read_bytes()).splitlines()
        except OSError as error:
            self._log.add(Fault.LABELS_UNREADABLE, shown, str(error.strerror))
            return LabelFile(lost=1)
        for number, line in enumerate(lines, 1):
            if words := line.split():
                self._read_row(found, number, words, f"{shown}, line {number}", names)
        return found

    def settle(self) -> None:
        """Decide what the rows are, from all that were read; drop the few of which nobody knows.

        Raises:
            DataError: they say too little, or all of them are in pixels; says what the user can do.
        """
        if self._pixels and not self._layouts["box"] and not self._long:
            first = self._pixels[0]
            raise DataError(
                f"{self._root}: all {len(self._pixels)} boxes are in pixels ({first.where}: {_text(first.numbers)}); "
                "YOLO labels are shares of the image: divide x by its width, y by its height"
            )
        if self._turned:
            self._drop_few(self._turned, "has a fifth number that is not a confidence; is the box turned?", "box")
        count, out = self._layouts["box"], self._layouts["out"]
        for layout, enough in (("corners", count / 2), ("top_left", max(2, count / 20))):
            if out > enough and self._layouts[layout] == count:
                finding = f"{out} of {count} boxes stick out of their image ({self._first_out}); none does if read as"
                self._ask(f"{finding} {_READ_AS[layout]}", layout, "box")
        self._settle_pixels()
        self._settle_long()
        for file in {id(row.file): row.file for row in self._long}.values():
            file.boxes = [box for box in file.boxes if box.bbox is not None]

    def _settle_pixels(self) -> None:
        """Read the boxes in pixels, of which there are some beside others, the way that fits all of them."""
        rows = [row.numbers for row in self._pixels]
        centres = all(min(x - width / 2, y - height / 2) > -_PIXELS for x, y, width, height in rows)
        corners = all(left < right and top < bottom for left, top, right, bottom in rows)
        if rows and self._rows not in _BOXES and centres and corners:
            return self._drop_few(self._pixels, "is in pixels: a centre and a size, or corners?", "box", "corners")
        layout = self._rows if self._rows in _BOXES else "box" if centres else "corners" if corners else ""
        for row in self._pixels:
            if layout:
                self._log.add(Fault.BOX_FROM_PIXELS, row.where, _text(row.numbers))
                row.box.bbox = _BOXES[layout](*row.numbers)
                row.file.boxes.append(row.box)
            else:
                self._drop(Fault.BOX_IN_PIXELS, row.file, row.where, _text(row.numbers))

    def _settle_long(self) -> None:
        polygons = self._are_polygons()
        if polygons is None:
            return self._drop_few(self._long, "is a polygon, or a box with more behind it", "polygon", "box")
        for row in self._long:
            numbers = row.numbers
            if polygons and len(numbers) % 2 == 0:
                self._log.add(Fault.POLYGON, row.where, f"{len(numbers) // 2} points")
                row.box.bbox = _outline(numbers)
            elif not polygons and _fits(numbers):
                self._log.add(Fault.KEYPOINTS, row.where, f"{len(numbers) - 4} numbers")
                row.box.bbox = _BOXES["box"](*numbers[:4])
            else:
                self._drop(Fault.ROW_NO_BOX, row.file, row.where, _text(numbers))

    def _are_polygons(self) -> bool | None:
        """Whether the long rows are polygons, else boxes with something behind; a few may speak against it.

        None where that isn't clear.
        """
        votes, total = Counter(row.vote for row in self._long), len(self._long)
        if votes[_POLYGON] >= max(1, total / 10) and votes[_BOX] <= votes[_POLYGON] / 10:
            return True
        if votes[_BOX] >= max(1, total / 4) and votes[_POLYGON] <= votes[_BOX] / 4:
            return False
        lengths = {len(row.numbers) for row in self._long}
        if total and (votes[_BOX] or len(lengths) < 3 or any(length % 2 for length in lengths)):
            return None
        return True

    def _drop_few(self, rows: Sequence[_OpenRow], finding: str, *choices: str) -> None:
        """Drop rows that may be several things, and record them, where they are few; ask where they aren't."""
        total = self._layouts["box"] + len(self._long) + len(self._pixels) + len(self._turned)
        if len(rows) > max(1, _FEW * total) or 2 * len(rows) >= total:
            self._ask(f"{rows[0].where} ({_text(rows[0].numbers)}) {finding} ({len(rows)} such rows)", *choices)
        for row in rows:
            self._drop(Fault.ROW_UNCLEAR, row.file, row.where, f"{_text(row.numbers)}: {_answers(choices)}")

    def _ask(self, finding: str, *choices: str) -> None:
        raise DataError(f"{self._root}: {finding}; say what they are: {_answers(choices)} ({HOW_TO_SAY})")

    def _read_row(self, file: LabelFile, number: int, words: list[str], where: str, names: Mapping[int, str]) -> None:
        try:
            values = list(map(float, words))
        except ValueError:
            values = []
        if len(values) < 5 or not all(map(math.isfinite, values)):
            return self._drop(Fault.ROW_NO_BOX, file, where, " ".join(words))
        name = self._class(values[0], words[0], where, names)
        numbers = values[1:]
        pixels = min(numbers[:4]) > _PIXELS
        if name is None:
            file.lost += 1
        elif pixels and len(numbers) == 4:
            self._pixels.append(_OpenRow(file, SourceBox(number, name, None), numbers, where))
        elif pixels:
            self._drop(Fault.BOX_IN_PIXELS, file, where, " ".join(words))
        elif len(numbers) > 5 and self._rows == "auto" and not self._keypoints:
            file.boxes.append(SourceBox(number, name, None, shares=True))
            self._long.append(_OpenRow(file, file.boxes[-1], numbers, where, _vote(numbers, words[1:])))
        elif len(numbers) == 5 and not 0 <= numbers[4] <= 1 and self._rows not in _BOXES and self._keypoints != 1:
            self._turned.append(_OpenRow(file, SourceBox(number, name, None), numbers, where))
        elif (bbox := self._bbox(numbers, where, words)) is None:
            self._drop(Fault.ROW_NO_BOX, file, where, " ".join(words))
        else:
            file.boxes.append(SourceBox(number, name, bbox, shares=True))

    def _drop(self, fault: Fault, file: LabelFile, where: str, text: str) -> None:
        self._log.add(fault, where, text[:100])
        file.lost += 1

    def _class(self, value: float, word: str, where: str, names: Mapping[int, str]) -> str | None:
        if not value.is_integer():
            self._log.add(Fault.ROW_NO_BOX, where, f"class {word}")
            return None
        number = int(value)
        if not word.isdecimal() and number >= 0:
            self._log.add(Fault.CLASS_FRACTION, where, word)
        if number in names:
            return names[number]
        if names or not 0 <= number < _MOST_CLASSES:
            self._log.add(Fault.ROW_NAMELESS, where, f"class {number}")
            return None
        return self.unnamed.setdefault(number, f"class_{number}")

    def _bbox(self, numbers: list[float], where: str, words: list[str]) -> list[float] | None:
        """The box of a row that says what it is; None for none."""
        count, rows = len(numbers), self._rows
        if rows == "polygon" and count > 5 and count % 2 == 0:
            self._log.add(Fault.POLYGON, where, f"{count // 2} points")
            return _outline(numbers)
        if count > 4 and (rows in _BOXES or count == 4 + self._keypoints):
            self._log.add(Fault.KEYPOINTS, where, f"{count - 4} numbers")
        elif count == 5:
            self._log.add(Fault.CONFIDENCE, where, f"{numbers[4]:g}")
        elif count != 4:
            return None
        x, y, width, height = numbers[:4]
        self._layouts["box"] += 1
        if rows == "auto":
            if max(width / 2 - x, height / 2 - y, x + width / 2 - 1, y + height / 2 - 1) > _STICKS_OUT:
                self._layouts["out"] += 1
                self._first_out = self._first_out or f"{where}: {' '.join(words)[:100]}"
            self._layouts["corners"] += 0 <= x < width <= 1 and 0 <= y < height <= 1
            self._layouts["top_left"] += x >= 0 and y >= 0 and x + width <= 1.001 and y + height <= 1.001
        return _BOXES.get(rows, _BOXES["box"])(x, y, width, height)


_BOXES: dict[str, Callable[[float, float, float, float], list[float]]] = {
    "box": lambda x, y, width, height: [x - width / 2, y - height / 2, width, height],
    "corners": lambda left, top, right, bottom: [left, top, right - left, bottom - top],
    "top_left": lambda left, top, width, height: [left, top, width, height],
}
"""What `ReadingConfig.rows` says of four numbers -> x, y, width and height."""

_READ_AS = {"corners": "corners, x1 y1 x2 y2", "top_left": "the top left corner and the size"}


def _answers(choices: Iterable[str]) -> str:
    return " or ".join(f"rows={choice}" for choice in choices)


def _text(numbers: Iterable[float]) -> str:
    return " ".join(f"{number:g}" for number in numbers)


def _outline(numbers: Sequence[float]) -> list[float]:
    xs, ys = numbers[0::2], numbers[1::2]
    return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]


def _fits(numbers: Sequence[float]) -> bool:
    """Whether the first four numbers are a box that lies in the image, but for rounding and a little carelessness."""
    x, y, width, height = numbers[:4]
    inside = max(width / 2 - x, height / 2 - y, x + width / 2 - 1, y + height / 2 - 1) <= 0.05
    return min(width, height) > 0 and inside


def _vote(numbers: list[float], words: list[str]) -> int:
    """What a long row speaks for: `_POLYGON`, `_BOX` with something behind it, or 0 for both or neither."""
    near = min(numbers) >= -_OUTSIDE and max(numbers) <= 1 + _OUTSIDE
    if not _fits(numbers):
        return _POLYGON if near else 0
    behind = numbers[4:]
    whole = [word.removeprefix("-").isdecimal() for word in words[4:]]
    if not near or (len(behind) == 2 and any(whole) and (all(whole) or 0 <= behind[whole.index(False)] <= 1)):
        return _BOX  # unseen keypoints are -1, visibilities go to 2, track numbers further
    points = _points_in_box(numbers)
    # Opposite corners of a turned rectangle have the same middle.
    if not points or (
        len(behind) == 4 and max(abs(a - b + c - d) for a, b, c, d in (numbers[0::2], numbers[1::2])) < 0.01
    ):
        return _POLYGON
    # Of a polygon the second point, which would be the size of a box, lies near the others.
    left, top, width, height = _outline([*numbers[:2], *points])
    right, bottom = left + width, top + height
    away_x, away_y = max(left - numbers[2], numbers[2] - right), max(top - numbers[3], numbers[3] - bottom)
    return _BOX if away_x > width or away_y > height else 0


def _points_in_box(numbers: list[float]) -> list[float]:
    """What stands behind a box, as points ``x y`` or ``x y visibility`` in it or near; empty if it can't be that."""
    x, y, width, height = numbers[:4]
    behind = numbers[4:]
    reach = 0.5 if len(behind) == 2 else 0.75
    for part in (behind, behind[1:], behind[:-1]):  # a confidence may stand before or after them
        for step in (2, 3):
            if len(part) % step == 0 and (part is behind or len(part) > step):
                points = [pair for pair in zip(part[0::step], part[1::step], strict=True) if max(pair) > 0]
                if points and all(abs(px - x) <= reach * width and abs(py - y) <= reach * height for px, py in points):
                    return [value for pair in points for value in pair]
    return []

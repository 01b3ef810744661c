"""The rows of YOLO's label files: boxes, polygons, keypoints, confidences, and what goes wrong with them."""

from __future__ import annotations

import math
from pathlib import Path

from mobiledet.data.formats.base import Account, SourceBox
from mobiledet.errors import DataError

_PIXELS = 1.5
"""Shares of a picture don't get this large by rounding; a row in which all four do is in pixels."""

_IN_PIXELS = "boxes in pixels instead of shares of the picture"


class RowReader:
    """Reads label files; knows the classes, and learns of those that have no name where none has one.

    Attributes:
        names: class number -> name; complete once all files are read.
    """

    def __init__(self, names: dict[int, str], keypoints: int, account: Account) -> None:
        self.names = dict(names)
        self._named = bool(names)
        self._keypoints = keypoints
        self._account = account
        self._boxes = 0

    def read(self, path: Path, told: str) -> list[SourceBox]:
        """The boxes of a label file; ``told`` is its name in the account."""
        try:
            data = path.read_bytes()
        except OSError as error:
            self._account.add("label files that can't be read", told, str(error.strerror))
            return []
        # Windows' PowerShell writes UTF-16 when a program's output is sent to a file.
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        lines = data.decode(encoding, "replace").splitlines()
        found = []
        for number, line in enumerate(lines, 1):
            if words := line.split():
                box = self._read_row(number, words, f"{told}, line {number}")
                if box is not None:
                    found.append(box)
        self._boxes += len(found)
        return found

    def refuse_pixels(self, root: Path) -> None:
        """Say so if the whole data set is written in pixels.

        Raises:
            DataError: it is.
        """
        count = self._account.counts[_IN_PIXELS]
        if count and not self._boxes:
            first = self._account.examples[_IN_PIXELS][0]
            raise DataError(
                f"{root}: all {count} boxes are in pixels ({first.place}: {first.value}); YOLO labels are shares of "
                "the picture: divide x by its width, y by its height"
            )

    def _read_row(self, number: int, words: list[str], where: str) -> SourceBox | None:
        text = " ".join(words)[:100]
        try:
            values = [float(word) for word in words]
        except ValueError:
            values = []
        if len(values) < 5 or not all(map(math.isfinite, values)):
            self._account.add("rows that are no box", where, text)
            return None
        name = self._class(values[0], words[0], where)
        if name is None:
            return None
        numbers = values[1:]
        if min(numbers[:4]) > _PIXELS:
            self._account.add(_IN_PIXELS, where, text)
            return None
        box = self._box(numbers, where, text)
        return None if box is None else SourceBox(number, name, box, shares=True)

    def _class(self, value: float, word: str, where: str) -> str | None:
        if not value.is_integer():
            self._account.add("rows that are no box", where, f"class {word}")
            return None
        number = int(value)
        if not word.isdecimal() and number >= 0:
            self._account.add("class numbers written as fractions", where, word)
        if number not in self.names:
            if self._named or not 0 <= number < 100_000:
                self._account.add("rows of a class that has no name", where, f"class {number}")
                return None
            self.names[number] = f"class_{number}"
        return self.names[number]

    def _box(self, numbers: list[float], where: str, text: str) -> list[float] | None:
        count = len(numbers)
        if self._keypoints and count == 4 + self._keypoints:
            self._account.add("keypoints left out", where, f"{self._keypoints} numbers")
        elif count == 5:
            self._account.add("confidences left out", where, f"{numbers[4]:g}")
        elif count >= 6 and count % 2 == 0 and not self._keypoints:
            self._account.add("polygons replaced by their bounding box", where, f"{count // 2} points")
            xs, ys = numbers[0::2], numbers[1::2]
            return [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
        elif count != 4:
            self._account.add("rows that are no box", where, text)
            return None
        x, y, width, height = numbers[:4]
        return [x - width / 2, y - height / 2, width, height]

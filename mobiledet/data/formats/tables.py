"""Csv files that VOC's columns don't fit: Open Images', and those without a header, as keras-retinanet reads them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from posixpath import basename
from typing import ClassVar

from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.base import Evidence, Format, ImportedImages, head
from mobiledet.data.formats.labelling_tools import LabelledImages, Shape
from mobiledet.data.formats.tree import Tree, stem, suffix
from mobiledet.data.image_headers import EXTENSIONS
from mobiledet.errors import DataError
from mobiledet.utils.encodings import text_of


def csv_rows(tree: Tree, file: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a csv with their line numbers, one by one: Open Images' has 14 million."""
    try:
        with (tree.root / file).open(encoding="utf-8-sig", errors="replace") as stream:
            reader = csv.reader(line.replace("\0", "") for line in stream)
            for row in reader:
                if any(row):
                    yield reader.line_num, [cell.strip() for cell in row]
    except (OSError, csv.Error) as error:
        raise DataError(f"{tree.root / file} can't be read: {error}") from error


def _first_row(tree: Tree, file: str) -> list[str]:
    lines = text_of(head(tree.root / file)).replace("\0", "").splitlines()
    return [cell.strip() for cell in next(csv.reader(lines[:1]), [])]


class _Table(Format):
    single_files = (".csv",)

    def recognises(self, tree: Tree) -> Evidence | None:
        """By its first row."""
        return next((Evidence(file) for file in self._files(tree)), None)

    def _files(self, tree: Tree) -> list[str]:
        return [file for file in tree.with_suffix(".csv") if self._fits(_first_row(tree, file))]

    def _fits(self, row: list[str]) -> bool:
        raise NotImplementedError


class Headerless(_Table):
    """``path,x1,y1,x2,y2,class`` in each row, in pixels from 0; ``path,,,,,`` is an image without objects."""

    name, looked_for = "retinanet", "a csv without a header, of path,x1,y1,x2,y2,class"

    def _fits(self, row: list[str]) -> bool:
        numbers = "".join(row[1:5])
        return len(row) == 6 and suffix(row[0]) in EXTENSIONS and (not numbers or _corners(row) is not None)

    def read(self, tree: Tree, log: ImportLog, only: str | None) -> ImportedImages:
        """Read all such files.

        Raises:
            DataError: none names an image that is there.
        """
        images, files = LabelledImages(tree, log), [only] if only else self._files(tree)
        for file in files:
            for line, row in csv_rows(tree, file):
                where = f"{file}, line {line}"
                image = images.image(row[0], file, where)
                if image is None or not any(row[1:]):
                    continue
                corners = _corners(row)
                if corners is None or len(row) < 6:
                    image.lost += 1
                    images.drop(image, Fault.OBJECT_BOXLESS, where, ",".join(row))
                else:
                    images.add(image, line, where, Shape(row[5], [(corners[0], corners[1]), (corners[2], corners[3])]))
        return images.imported(self.name, "line {}", files, whole=only is None, sizes=False)


def _corners(row: list[str]) -> list[float] | None:
    try:
        return [float(cell) for cell in row[1:5]]
    except ValueError:
        return None


class OpenImages(_Table):
    """Open Images' boxes, in shares of the image, of those images that are there."""

    name, looked_for = "openimages", "Open Images' csv with ImageID, LabelName and XMin"
    _NEEDED: ClassVar[tuple[str, ...]] = ("ImageID", "LabelName", "XMin", "XMax", "YMin", "YMax")

    def _fits(self, row: list[str]) -> bool:
        return {*self._NEEDED} <= {*row}

    def read(self, tree: Tree, log: ImportLog, only: str | None) -> ImportedImages:
        """Read all such files; classes have the names of ``class-descriptions*.csv``, where that is there.

        Raises:
            DataError: none names an image that is there.
        """
        names = {}
        for file in tree.with_suffix(".csv"):
            if "class-descriptions" in basename(file):
                names.update({row[0]: row[1] for _, row in csv_rows(tree, file) if len(row) > 1})
        there = {stem(file) for file in tree.images}
        images, files = LabelledImages(tree, log), [only] if only else self._files(tree)
        for file in files:
            header, absent = _first_row(tree, file), 0
            columns = [header.index(name) for name in self._NEEDED]
            group = header.index("IsGroupOf") if "IsGroupOf" in header else -1
            for line, row in csv_rows(tree, file):
                if line == 1 or len(row) < len(header):
                    continue
                name, label, *sides = (row[column] for column in columns)
                if name not in there:
                    absent += 1
                    continue
                where = f"{file}, line {line}"
                image = images.image(name, file, where)
                if image is None:
                    continue
                try:
                    left, right, top, bottom = map(float, sides)
                except ValueError:
                    image.lost += 1
                    images.drop(image, Fault.OBJECT_BOXLESS, where, ",".join(sides))
                    continue
                shape = Shape(names.get(label, label), [(left, top), (right, bottom)])
                images.add(image, line, where, shape, shares=True, crowd=group >= 0 and row[group] == "1")
            if absent:
                log.add(Fault.ENTRY_LONE, file, f"{absent} boxes of images that aren't there")
        return images.imported(self.name, "line {}", files, whole=only is None, sizes=False)

"""csv files beside VOC data: the splits, or the boxes themselves (``filename,width,height,class,xmin,...``)."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mobiledet.data.formats.base import Account, SourceBox, SourcePicture
from mobiledet.data.formats.choose import head
from mobiledet.data.formats.classes import ClassNames
from mobiledet.data.formats.tree import Tree, parent, split_name, split_of, stem

_COLUMNS = {
    "file": ("filename", "file_name", "image", "image_name", "image_path", "file", "path", "img", "image_id", "name",
        "id"),
    "split": ("split", "subset", "set", "partition", "usage", "mode"),
    "class": ("class", "label", "class_name", "category", "object", "classname", "name"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
}  # fmt: skip
CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass
class CsvFile:
    """A csv: its path, which column is what, and its rows with their line numbers."""

    file: str
    columns: dict[str, int]
    rows: list[tuple[int, list[str]]]

    def cell(self, row: list[str], what: str) -> str:
        """A cell without spaces at its ends; empty where the row is too short or there is no such column."""
        at = self.columns.get(what, -1)
        return row[at].strip() if 0 <= at < len(row) else ""


def has_boxes(path: Path) -> bool:
    """Whether a csv has columns of a file and of the four corners."""
    columns = _columns(_text(head(path, 1 << 14)))
    return all(what in columns for what in ("file", *CORNERS))


def read_csv(tree: Tree, file: str) -> CsvFile:
    """Read a csv; one that can't be read has no columns and no rows."""
    try:
        text = _text((tree.root / file).read_bytes())
        columns = _columns(text)
        rows = list(_rows(text))[1:] if columns else []
    except (OSError, csv.Error):
        columns, rows = {}, []
    return CsvFile(file, columns, rows)


def read_csv_boxes(tree: Tree, names: ClassNames, account: Account) -> list[SourcePicture]:
    """Pictures and boxes of all csv files that hold boxes; the split is a column, or in the name of the file."""
    found: dict[tuple[str, str], SourcePicture] = {}
    for file in tree.with_suffix(".csv"):
        if not has_boxes(tree.root / file):
            account.add("lists and files left aside", file, "a csv without xmin, ymin, xmax, ymax")
            continue
        table = read_csv(tree, file)
        of_file = split_name(stem(file), loose=True) or split_of(file)
        for line, row in table.rows:
            _take_row(table, line, row, of_file, found, tree, names, account)
    used = {picture.path for picture in found.values()}
    if used:
        for picture in tree.pictures:
            if tree.root / picture not in used:
                account.add("pictures without labels (not known to be background), not used", picture)
    return sorted(found.values(), key=lambda picture: picture.path)


def _take_row(
    table: CsvFile,
    line: int,
    row: list[str],
    of_file: str | None,
    found: dict[tuple[str, str], SourcePicture],
    tree: Tree,
    names: ClassNames,
    account: Account,
) -> None:
    from mobiledet.data.formats.voc import box_of_corners

    where = f"{table.file}, line {line}"
    name = table.cell(row, "file")
    split = split_name(table.cell(row, "split")) or of_file
    near = [parent(table.file), "images", "JPEGImages", split or "", f"images/{split}", ""]
    pictures = tree.find(name, near, split) or tree.find_stem(name, near, split)
    if len(pictures) != 1:
        kind = "entries that can't be told apart" if pictures else "entries without a picture"
        account.add(kind, where, repr(name))
        return
    split = split or split_of(pictures[0]) or "train"
    size = _size(table.cell(row, "height"), table.cell(row, "width")) if "width" in table.columns else None
    fresh = SourcePicture(tree.root / pictures[0], split, table.file, size)
    picture = found.setdefault((split, pictures[0]), fresh)
    texts = [table.cell(row, corner) for corner in CORNERS]
    if not any(texts):
        return  # a picture without objects, as keras-retinanet writes it
    label = names.take(table.cell(row, "class") if "class" in table.columns else "object", where)
    if label is None:
        return
    try:
        corners = [float(text) for text in texts]
    except ValueError:
        account.add("objects without a box", where, " ".join(texts)[:100])
        return
    bbox = box_of_corners(corners, where, account)
    if bbox is not None:
        picture.boxes.append(SourceBox(line, label, bbox))


def _size(height: str, width: str) -> tuple[int, int]:
    try:
        sides = float(height), float(width)
    except ValueError:
        return 0, 0
    good = all(side.is_integer() and 0 < side < 1e9 for side in sides)
    return (int(sides[0]), int(sides[1])) if good else (0, 0)


def _text(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "replace")


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(io.StringIO(text.replace("\0", "")), delimiter=delimiter)
    for row in reader:
        if any(cell.strip() for cell in row):
            yield reader.line_num, row


def _columns(text: str) -> dict[str, int]:
    """What the columns of a csv are -> where; empty where there is no header."""
    try:
        _, header = next(_rows(text))
    except (StopIteration, csv.Error):
        return {}
    cells = [cell.strip().casefold().replace(" ", "_") for cell in header]
    columns: dict[str, int] = {}
    for what, names in _COLUMNS.items():
        at = next((cells.index(name) for name in names if name in cells), None)
        if at is not None and at not in columns.values():
            columns[what] = at
    return columns

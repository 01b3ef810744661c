"""Pascal VOC: one xml for each image; splits in lists, csv files or folders; or everything in csv files.

Corners count from 1 and are inclusive, so ``x = xmin - 1`` and ``width = xmax - xmin + 1``. That holds for every
file, also where a tool has written fractions or zeros: one rule, wrong by a pixel at most. Csv files hold splits, or
boxes (``filename,width,height,class,xmin,...``).
"""

from __future__ import annotations

import csv
import io
import math
import re
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from posixpath import basename, dirname, join
from typing import Any

from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.base import (
    ClassNames,
    Evidence,
    Format,
    ImportedImages,
    SourceBox,
    SourceImage,
    head,
    note_unlabelled,
)
from mobiledet.data.formats.tree import Tree, path_parts, split_name, split_of, stem, suffix
from mobiledet.data.image_headers import EXTENSIONS
from mobiledet.errors import DataError
from mobiledet.utils.encodings import text_of

_IMAGE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", "img", "pictures")
_MASK_FOLDERS = {"SegmentationClass", "SegmentationObject"}
_LABEL_FOLDERS = ("annotations", "annotation", "xml", "xmls", "labels")
_LIST = re.compile(r"(train|training|trainval|val|valid|validation|dev|test|testing)[-_]?(\d{4})?", re.IGNORECASE)
_COLUMNS = {
    "file": ("filename", "file_name", "image", "image_name", "image_path", "file", "path", "img", "image_id", "name",
        "id"),
    "split": ("split", "subset", "set", "partition", "usage", "mode"),
    "class": ("class", "label", "class_name", "category", "object", "classname", "name"),
    "xmin": ("xmin", "x_min", "x1", "left"),
    "ymin": ("ymin", "y_min", "y1", "top"),
    "xmax": ("xmax", "x_max", "x2", "right"),
    "ymax": ("ymax", "y_max", "y2", "bottom"),
    "difficult": ("difficult", "ignore"),
    "width": ("width", "image_width", "img_width"),
    "height": ("height", "image_height", "img_height"),
}  # fmt: skip
_CORNERS = ("xmin", "ymin", "xmax", "ymax")

_SAMPLE = 200
"""Files that are looked into before a folder is taken for something else."""


@dataclass
class _Xml:
    """One file: its path, the image it names, ``(height, width)`` and the objects as they are."""

    file: str
    filename: str
    size: tuple[int, int]
    objects: list[ET.Element]


class _Builder(ET.TreeBuilder):
    """Refuses document types, which is where entities that expand without end or name other files come from."""

    def doctype(self, name: str, *_: Any) -> None:
        raise ET.ParseError(f"<!DOCTYPE {name}> isn't allowed in labels")


class VOC(Format):
    """Pascal VOC."""

    name = "voc"
    looked_for = "xml files with <annotation>, or a csv with xmin, ymin, xmax, ymax"

    def recognises(self, tree: Tree) -> Evidence | None:
        """By an xml with ``<annotation>``, or weakly by a csv with boxes."""
        for file in tree.with_suffix(".xml")[:_SAMPLE]:
            if re.search(rb"<annotation[\s/>]", head(tree.root / file).replace(b"\0", b"")):
                return Evidence(file)
        table = next((file for file in tree.with_suffix(".csv") if _has_boxes(tree.root / file)), None)
        return Evidence(table, 1) if table else None

    def read(self, tree: Tree, log: ImportLog, only: str | None) -> ImportedImages:  # noqa: ARG002 - no single files
        """Read the labels below a folder.

        Raises:
            DataError: there are none, or none that has an image.
        """
        files = tree.with_suffix(".xml")
        documents = [document for file in files if (document := _parse(tree, file, log)) is not None]
        names = ClassNames(log)
        if not documents:
            images = _read_csv_boxes(tree, names, log)
            row, where = "line {}", tree.root
            if not images:
                raise DataError(
                    f"{tree.root} holds no readable VOC xml ({len(files)} xml files) and no csv with boxes; "
                    "name the folder that holds Annotations/"
                )
        else:
            matched = _match(tree, documents, log)
            folders = {dirname(document.file) for document in documents}
            row, where = "object {}", tree.root / folders.pop() if len(folders) == 1 else tree.root
            by_xml = {}
            for document, image in matched:
                boxes = _boxes(document, names, log)
                lost = len(document.objects) - len(boxes)
                by_xml[document.file] = SourceImage(
                    tree.root / image, "", document.file, document.size, boxes, lost=lost
                )
            # VOC's masks are images too, and nobody expects boxes for them.
            masks = {tree.root / image for image in tree.images if _MASK_FOLDERS & set(image.split("/"))}
            note_unlabelled(tree, masks | {image.path for image in by_xml.values()}, log)
            images = _assign_splits(tree, by_xml, log)
        return ImportedImages(self.name, images, names.numbered(), where, row, check_sizes=True)


def parse_xml(data: bytes) -> ET.Element:
    """The root of an xml, without namespaces; refuses document types. Raises what ElementTree does.

    What ElementTree can't read is read once more as text: it knows few encodings, declared or not, and no bare ``&``.
    """
    try:
        # With a byte order mark or none; ElementTree reads the encoding from the declaration.
        root = ET.fromstring(data, parser=ET.XMLParser(target=_Builder()))
    except (ET.ParseError, ValueError, LookupError) as error:
        declared = re.match(rb"\s*<\?xml[^>]*encoding=[\"']([\w.-]+)", data)
        try:
            text = data.decode(declared[1].decode()) if declared else text_of(data)
        except (UnicodeDecodeError, LookupError):
            text = text_of(data)
        if "\ufffd" in text:
            raise  # rather than names that are not what was written
        text = re.sub(r"^\s*<\?xml[^>]*\?>", "", text.lstrip("\ufeff"))
        text = re.sub(r"&(?!#?\w+;)", "&amp;", text)
        try:
            root = ET.fromstring(text, parser=ET.XMLParser(target=_Builder()))
        except (ET.ParseError, ValueError):
            raise error from None
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def box_of_corners(corners: list[float], where: str, log: ImportLog) -> list[float] | None:
    """VOC's corners ``xmin, ymin, xmax, ymax`` as ``[x, y, width, height]``; None for a point or a line."""
    xmin, ymin, xmax, ymax = corners
    text = " ".join(f"{value:g}" for value in corners)
    if all(map(math.isfinite, corners)):
        if xmin == xmax or ymin == ymax:
            log.add(Fault.BOX_POINT, where, text)
            return None
        if xmin > xmax or ymin > ymax:
            log.add(Fault.CORNERS_SWAPPED, where, text)
            xmin, xmax = sorted((xmin, xmax))
            ymin, ymax = sorted((ymin, ymax))
        if xmin == 0 or ymin == 0:
            log.add(Fault.CORNER_ZERO, where, text)
    return [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]


def _parse(tree: Tree, file: str, log: ImportLog) -> _Xml | None:
    try:
        root = parse_xml((tree.root / file).read_bytes())
    except (OSError, ET.ParseError, ValueError, LookupError, RecursionError) as error:
        log.add(Fault.LABELS_UNREADABLE, file, str(error.strerror if isinstance(error, OSError) else error))
        return None
    if root.tag != "annotation":
        log.add(Fault.LEFT_ASIDE, file, f"an xml with <{root.tag[:40]}>, not <annotation>")
        return None
    size = _whole(root.findtext("size/height")), _whole(root.findtext("size/width"))
    return _Xml(file, (root.findtext("filename") or "").strip(), size, root.findall("object"))


def _whole(text: str | None) -> int:
    """A size as written by any tool; 0 where it is none."""
    try:
        value = float(text or 0)
    except ValueError:
        return 0
    return int(value) if value.is_integer() and 0 < value < 1e9 else 0


def _boxes(document: _Xml, names: ClassNames, log: ImportLog) -> list[SourceBox]:
    boxes = []
    for number, element in enumerate(document.objects, 1):
        where = f"{document.file}, object {number}"
        name = names.take(element.findtext("name"), where)
        if name is None:
            continue
        texts = [element.findtext(f"bndbox/{corner}") for corner in _CORNERS]
        try:
            corners = [float(text) for text in texts if text is not None]
        except ValueError:
            corners = []
        if len(corners) != 4:
            log.add(Fault.OBJECT_BOXLESS, where, f"{name}: bndbox is {texts!r:.100}")
            continue
        bbox = box_of_corners(corners, where, log)
        if bbox is None:
            continue
        boxes.append(SourceBox(number, name, bbox, extra={"difficult": element.findtext("difficult")}))
    return boxes


def _match(tree: Tree, documents: list[_Xml], log: ImportLog) -> list[tuple[_Xml, str]]:
    """The image of each xml: the one it names, else the one of the same name; each image once."""
    claims: dict[str, list[_Xml]] = defaultdict(list)
    own: dict[str, list[str]] = {}
    for document in documents:
        near = _near(dirname(document.file))
        split = split_of(document.file)
        own[document.file] = tree.find_stem(stem(document.file), near, split)
        found = tree.find(document.filename, near, split) if suffix(document.filename) in EXTENSIONS else []
        if not found and document.filename and suffix(document.filename) not in EXTENSIONS:
            found = tree.find_stem(basename(document.filename.replace("\\", "/")), near, split)
        found = found if len(found) == 1 else own[document.file] or found
        if len(found) == 1:
            claims[found[0]].append(document)
        elif found:
            log.add(Fault.LABELS_SHARED, document.file, " and ".join(found))
        else:
            log.add(Fault.LABELS_LONE, document.file, f"filename {document.filename!r:.100}")
    for image, claimants in list(claims.items()):
        for document in claimants[:]:
            (mine,) = own[document.file] if len(own[document.file]) == 1 else [image]
            if mine == image:
                continue
            # An xml copied or renamed by hand still names the old image.
            if len(claimants) > 1 and mine not in claims:
                log.add(Fault.OTHER_NAME, document.file, f"it names {document.filename!r}, {mine} was taken")
                claimants.remove(document)
                claims[mine] = [document]
            elif len(claimants) == 1:
                value = f"it names {document.filename!r}, which was taken; there is {mine}"
                log.add(Fault.OTHER_NAME, document.file, value)
    matched = []
    for image, claimants in claims.items():
        for other in claimants[1:]:
            log.add(Fault.LABELS_SEVERAL, other.file, image)
        matched.append((claimants[0], image))
    return sorted(matched, key=lambda match: match[0].file)


def _near(folder: str) -> list[str]:
    """Where the images of the xml files in a folder are likely to be."""
    near = [folder]
    parts = folder.split("/")
    for place in reversed([i for i, part in enumerate(parts) if part.casefold() in _LABEL_FOLDERS]):
        for name in _IMAGE_FOLDERS:
            near.append("/".join([*parts[:place], name, *parts[place + 1 :]]))
        near.append("/".join([*parts[:place], *parts[place + 1 :]]))
    return [*near, *(join(base, name) for base in (folder, dirname(folder)) for name in _IMAGE_FOLDERS)]


@dataclass
class _CsvFile:
    """A csv: its path, which column is what, and its rows with their line numbers."""

    file: str
    columns: dict[str, int]
    rows: list[tuple[int, list[str]]]

    def cell(self, row: list[str], what: str) -> str:
        """A cell without spaces at its ends; empty where the row is too short or there is no such column."""
        at = self.columns.get(what, -1)
        return row[at].strip() if 0 <= at < len(row) else ""


def _has_boxes(path: Path) -> bool:
    """Whether a csv has columns of a file and of the four corners."""
    return {"file", *_CORNERS} <= _columns(text_of(head(path, 1 << 14))).keys()


def _read_csv(tree: Tree, file: str) -> _CsvFile:
    """Read a csv; one that can't be read has no columns and no rows."""
    try:
        text = text_of((tree.root / file).read_bytes())
        columns = _columns(text)
        rows = list(_rows(text))[1:] if columns else []
    except (OSError, csv.Error):
        columns, rows = {}, []
    return _CsvFile(file, columns, rows)


def _read_csv_boxes(tree: Tree, names: ClassNames, log: ImportLog) -> list[SourceImage]:
    """Images and boxes of all csv files that hold boxes; the split is a column, or in the name of the file."""
    found: dict[tuple[str, str], SourceImage] = {}
    for file in tree.with_suffix(".csv"):
        if not _has_boxes(tree.root / file):
            log.add(Fault.LEFT_ASIDE, file, "a csv without xmin, ymin, xmax, ymax")
            continue
        table = _read_csv(tree, file)
        of_file = split_name(stem(file), loose=True) or split_of(file)
        for line, row in table.rows:
            _take_row(table, line, row, of_file, found, tree, names, log)
    if found:
        note_unlabelled(tree, {image.path for image in found.values()}, log)
    return sorted(found.values(), key=lambda image: image.path)


def _take_row(
    table: _CsvFile,
    line: int,
    row: list[str],
    of_file: str | None,
    found: dict[tuple[str, str], SourceImage],
    tree: Tree,
    names: ClassNames,
    log: ImportLog,
) -> None:
    where = f"{table.file}, line {line}"
    name = table.cell(row, "file")
    split = split_name(table.cell(row, "split")) or of_file
    near = [dirname(table.file), "images", "JPEGImages", split or "", f"images/{split}", ""]
    images = tree.find_foreign(name, near, split)
    if len(images) != 1:
        log.add(Fault.ENTRY_AMBIGUOUS if images else Fault.ENTRY_LONE, where, repr(name))
        return
    split = split or split_of(images[0]) or "train"
    size = (_whole(table.cell(row, "height")), _whole(table.cell(row, "width"))) if "width" in table.columns else None
    fresh = SourceImage(tree.root / images[0], split, table.file, size)
    image = found.setdefault((split, images[0]), fresh)
    texts = [table.cell(row, corner) for corner in _CORNERS]
    if not any(texts):
        return  # an image without objects, as keras-retinanet writes it
    image.lost += 1
    label = names.take(table.cell(row, "class") if "class" in table.columns else "object", where)
    if label is None:
        return
    try:
        corners = [float(text) for text in texts]
    except ValueError:
        log.add(Fault.OBJECT_BOXLESS, where, " ".join(texts)[:100])
        return
    bbox = box_of_corners(corners, where, log)
    if bbox is not None:
        image.boxes.append(SourceBox(line, label, bbox, extra={"difficult": table.cell(row, "difficult")}))
        image.lost -= 1


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


def _assign_splits(tree: Tree, by_xml: dict[str, SourceImage], log: ImportLog) -> list[SourceImage]:
    """The image of each xml with its split; an image in several lists comes once for each."""
    entries = [*_from_lists(tree, log)] or [*_from_csv(tree)]
    by_stem: dict[str, list[str]] = defaultdict(list)
    for xml, image in by_xml.items():
        for name in {stem(xml), image.path.name, image.path.stem}:
            by_stem[name].append(xml)
    meant = [_resolve(name, base, by_stem) for _, _, name, base in entries]
    if not any(meant):
        for file in sorted({where.partition(",")[0] for _, where, _, _ in entries}):
            log.add(Fault.LEFT_ASIDE, file, "it names none of the labelled images")
        return _by_folder(tree, by_xml, log)
    chosen: dict[str, list[tuple[str, SourceImage]]] = defaultdict(list)
    listed = set()
    for (split, where, name, _), found in zip(entries, meant, strict=True):
        if found is None:
            log.add(Fault.LISTED_UNLABELLED, where, repr(name)[:100])
        elif (split, found) not in listed:
            chosen[split].append((found, replace(by_xml[found], split=split)))
            listed.add((split, found))
    for xml in sorted(by_xml.keys() - {xml for _, xml in listed}):
        log.add(Fault.NOT_LISTED, by_xml[xml].path.name, xml)
    return [image for images in chosen.values() for _, image in sorted(images, key=lambda pair: pair[0])]


def _by_folder(tree: Tree, by_xml: dict[str, SourceImage], log: ImportLog) -> list[SourceImage]:
    """Splits after the folder of the xml or of its image; without such folders everything is for training."""
    named = {
        xml: split_of(xml) or split_of(image.path.relative_to(tree.root).as_posix()) for xml, image in by_xml.items()
    }
    images = []
    for xml, image in by_xml.items():
        if named[xml] is None and any(named.values()):
            log.add(Fault.NO_SPLIT_FOLDER, image.path.name, xml)
        else:
            images.append(replace(image, split=named[xml] or "train"))
    return images


def _from_lists(tree: Tree, log: ImportLog) -> Iterable[tuple[str, str, str, str]]:
    """``(split, place, name, folder the list is about)`` of every line of train.txt, val.txt and so on.

    Those of ImageSets/Main count; other folders have lists for other tasks, and dog_train.txt is about one class.
    """
    lists = [file for file in tree.with_suffix(".txt") if _LIST.fullmatch(stem(file))]
    main, sets = (
        [file for file in lists if basename(dirname(file)).casefold() == folder] for folder in ("main", "imagesets")
    )
    depth = min((file.count("/") for file in lists), default=0)
    for file in main or sets or [file for file in lists if file.count("/") == depth]:
        split = split_name(stem(file)) or ""
        base = re.sub(r"(^|/)(ImageSets/)?Main$|(^|/)ImageSets$", "", dirname(file), flags=re.IGNORECASE)
        try:
            text = text_of((tree.root / file).read_bytes())
        except OSError as error:
            log.add(Fault.LEFT_ASIDE, file, str(error.strerror))
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip():
                yield split, f"{file}, line {number}", line.strip(), base


def _from_csv(tree: Tree) -> Iterable[tuple[str, str, str, str]]:
    """As `_from_lists`, of csv files that have a column for the split or are named after one."""
    tables = [table for file in tree.with_suffix(".csv") if "file" in (table := _read_csv(tree, file)).columns]
    with_column = [table for table in tables if "split" in table.columns]
    for table in with_column or tables:
        of_file = split_name(stem(table.file), loose=True)
        for line, row in table.rows:
            split = split_name(table.cell(row, "split")) if with_column else of_file
            if split is not None:
                yield split, f"{table.file}, line {line}", table.cell(row, "file"), dirname(table.file)


def _resolve(name: str, base: str, by_stem: dict[str, list[str]]) -> str | None:
    """The xml that a line means: a stem, a file name or a path, perhaps followed by 1 or -1."""
    for text in (name, *re.findall(r"^(.+?)\s+-?[0-9]+$", name)):
        if not (parts := path_parts(text)):
            continue
        found = next((by_stem[key] for key in (parts[-1], stem(parts[-1])) if key in by_stem), [])
        if len(found) > 1:
            # The same name in several folders: what lies below the list's own folder, then what fits the whole path.
            found = [xml for xml in found if not base or xml.startswith(f"{base}/")] or found
            found = [xml for xml in found if parts[:-1] and parts[-2] in xml.split("/")] or found
        if found:
            return found[0]
    return None

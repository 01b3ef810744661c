"""Pascal VOC: one xml for each picture; splits in lists, csv files or folders; or everything in csv files.

Corners count from 1 and are inclusive, so ``x = xmin - 1`` and ``width = xmax - xmin + 1``. That holds for every
file, also where a tool has written fractions or zeros: one rule, wrong by a pixel at most.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobiledet.data.formats.base import Account, Source, SourceBox, SourcePicture
from mobiledet.data.formats.classes import ClassNames
from mobiledet.data.formats.tree import Tree, join, parent, split_of, stem, suffix
from mobiledet.data.formats.voc_csv import read_csv_boxes
from mobiledet.data.formats.voc_splits import assign_splits
from mobiledet.data.images import EXTENSIONS
from mobiledet.errors import DataError

_PICTURE_FOLDERS = ("JPEGImages", "images", "Images", "imgs", "img", "pictures")
_LABEL_FOLDERS = ("annotations", "annotation", "xml", "xmls", "labels")


@dataclass
class _Xml:
    """One file: its path, the picture it names, ``(height, width)`` and the objects as they are."""

    file: str
    filename: str
    size: tuple[int, int]
    objects: list[ET.Element]


class _Builder(ET.TreeBuilder):
    """Refuses document types, which is where entities that expand without end or name other files come from."""

    def doctype(self, name: str, *_: Any) -> None:
        raise ET.ParseError(f"<!DOCTYPE {name}> isn't allowed in labels")


def read_voc(tree: Tree, account: Account) -> Source:
    """Read the labels below a folder.

    Raises:
        DataError: there are none, or none that has a picture.
    """
    files = tree.with_suffix(".xml")
    documents = [document for file in files if (document := _parse(tree, file, account)) is not None]
    names = ClassNames(account)
    if not documents:
        pictures = read_csv_boxes(tree, names, account)
        row, where = "line {}", tree.root
        if not pictures:
            raise DataError(
                f"{tree.root} holds no readable VOC xml ({len(files)} xml files) and no csv with boxes; "
                "name the folder that holds Annotations/"
            )
    else:
        matched = _match(tree, documents, account)
        row, where = "object {}", _annotation_folder(tree, documents)
        pictures = []
        for document, picture in matched:
            boxes = _boxes(document, names, account)
            pictures.append(SourcePicture(tree.root / picture, "", document.file, document.size, boxes))
        _note_unlabelled(tree, {picture for _, picture in matched}, account)
        by_xml = {document.file: picture for (document, _), picture in zip(matched, pictures, strict=True)}
        pictures = assign_splits(tree, by_xml, account)
    return Source("voc", pictures, names.numbered(), where, row)


def box_of_corners(corners: list[float], where: str, account: Account) -> list[float] | None:
    """VOC's corners ``xmin, ymin, xmax, ymax`` as ``[x, y, width, height]``; None for a point or a line."""
    xmin, ymin, xmax, ymax = corners
    text = " ".join(f"{value:g}" for value in corners)
    if all(map(math.isfinite, corners)):
        if xmin == xmax or ymin == ymax:
            account.add("boxes of a single point or line", where, text)
            return None
        if xmin > xmax or ymin > ymax:
            account.add("boxes with swapped corners", where, text)
            xmin, xmax = sorted((xmin, xmax))
            ymin, ymax = sorted((ymin, ymax))
        if xmin == 0 or ymin == 0:
            account.add("corners of 0, where VOC counts from 1 (read like all the others)", where, text)
    return [xmin - 1, ymin - 1, xmax - xmin + 1, ymax - ymin + 1]


def _parse(tree: Tree, file: str, account: Account) -> _Xml | None:
    kind = "label files that can't be read"
    try:
        # With a byte order mark or none; ElementTree reads the encoding from the declaration.
        root = ET.fromstring((tree.root / file).read_bytes(), parser=ET.XMLParser(target=_Builder()))
    except OSError as error:
        account.add(kind, file, str(error.strerror))
        return None
    except (ET.ParseError, ValueError, LookupError, RecursionError) as error:
        account.add(kind, file, str(error))
        return None
    if root.tag != "annotation":
        account.add("lists and files left aside", file, f"an xml with <{root.tag[:40]}>, not <annotation>")
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


def _boxes(document: _Xml, names: ClassNames, account: Account) -> list[SourceBox]:
    boxes = []
    for number, element in enumerate(document.objects, 1):
        where = f"{document.file}, object {number}"
        name = names.take(element.findtext("name"), where)
        if name is None:
            continue
        texts = [element.findtext(f"bndbox/{key}") for key in ("xmin", "ymin", "xmax", "ymax")]
        try:
            corners = [float(text) for text in texts if text is not None]
        except ValueError:
            corners = []
        if len(corners) != 4:
            account.add("objects without a box", where, f"{name}: bndbox is {texts!r:.100}")
            continue
        bbox = box_of_corners(corners, where, account)
        if bbox is None:
            continue
        difficult = (element.findtext("difficult") or "0").strip().lower() in ("1", "true", "yes")
        if difficult:
            account.add("objects marked difficult (neither trained on nor scored)", where, name)
        boxes.append(SourceBox(number, name, bbox, extra={"ignore": 1} if difficult else {}))
    return boxes


def _match(tree: Tree, documents: list[_Xml], account: Account) -> list[tuple[_Xml, str]]:
    """The picture of each xml: the one it names, else the one of the same name; each picture once."""
    claims: dict[str, list[_Xml]] = defaultdict(list)
    own: dict[str, list[str]] = {}
    for document in documents:
        near = _near(parent(document.file))
        split = split_of(document.file)
        own[document.file] = tree.find_stem(stem(document.file), near, split)
        found = tree.find(document.filename, near, split) if suffix(document.filename) in EXTENSIONS else []
        if not found and document.filename and suffix(document.filename) not in EXTENSIONS:
            found = tree.find_stem(document.filename.replace("\\", "/").rpartition("/")[2], near, split)
        found = found if len(found) == 1 else own[document.file] or found
        if len(found) == 1:
            claims[found[0]].append(document)
        elif found:
            account.add("pictures that share one label file with another picture", document.file, " and ".join(found))
        else:
            account.add("label files without a picture", document.file, f"filename {document.filename!r:.100}")
    for picture, claimants in list(claims.items()):
        for document in claimants[:]:
            (mine,) = own[document.file] if len(own[document.file]) == 1 else [picture]
            if mine == picture:
                continue
            # An xml copied or renamed by hand still names the old picture.
            kind = "files whose own name fits another picture than the one they name"
            if len(claimants) > 1 and mine not in claims:
                account.add(kind, document.file, f"it names {document.filename!r}, {mine} was taken")
                claimants.remove(document)
                claims[mine] = [document]
            elif len(claimants) == 1:
                account.add(kind, document.file, f"it names {document.filename!r}, which was taken; there is {mine}")
    matched = []
    for picture, claimants in claims.items():
        for other in claimants[1:]:
            account.add("pictures labelled by several files, all but the first", other.file, picture)
        matched.append((claimants[0], picture))
    return sorted(matched, key=lambda match: match[0].file)


def _near(folder: str) -> list[str]:
    """Where the pictures of the xml files in a folder are likely to be."""
    near = [folder]
    parts = folder.split("/")
    for place in reversed([i for i, part in enumerate(parts) if part.casefold() in _LABEL_FOLDERS]):
        for name in _PICTURE_FOLDERS:
            near.append("/".join([*parts[:place], name, *parts[place + 1 :]]))
        near.append("/".join([*parts[:place], *parts[place + 1 :]]))
    above = parent(folder)
    return [
        *near,
        *(join(folder, name) for name in _PICTURE_FOLDERS),
        *(join(above, name) for name in _PICTURE_FOLDERS),
    ]


def _annotation_folder(tree: Tree, documents: list[_Xml]) -> Path:
    folders = {parent(document.file) for document in documents}
    return tree.root / folders.pop() if len(folders) == 1 else tree.root


def _note_unlabelled(tree: Tree, used: set[str], account: Account) -> None:
    kind = "pictures without labels (not known to be background), not used"
    # VOC's masks are pictures too, and nobody expects boxes for them.
    masks = ("SegmentationClass", "SegmentationObject")
    for picture in tree.pictures:
        if picture not in used and not any(mask in picture.split("/") for mask in masks):
            account.add(kind, picture)

"""What labelling tools write: LabelMe, CreateML, VGG Image Annotator, Label Studio, CVAT.

All of them name an image and list its objects, in pixels or shares of it as people saw it, upright. A tool is a `Tool`
that says how its files are recognised, what entries they have, and where the points of an object are.
"""

from __future__ import annotations

import csv
import json
import math
import xml.etree.ElementTree as ET
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from posixpath import dirname, join
from typing import Any, ClassVar, NamedTuple

from mobiledet.data.checks import read_json
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
from mobiledet.data.formats.tree import Tree, split_name, split_of, stem
from mobiledet.data.formats.voc import parse_xml
from mobiledet.errors import DataError
from mobiledet.structures import Size
from mobiledet.utils.encodings import text_of

Points = Sequence[tuple[float, float]]

_HEAD = 1 << 16
_SAMPLE = 20
"""Files that are looked into before a folder is taken for something else."""

_UNUSABLE = (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, csv.Error)
"""What access to an object that isn't as it should be ends in."""


class LabelledImages:
    """Gathers images that label files name, and their objects."""

    def __init__(self, tree: Tree, log: ImportLog) -> None:
        self._tree, self._log, self._names = tree, log, ClassNames(log)
        self._images: dict[tuple[str, str], SourceImage] = {}
        self._lone: list[str] = []

    def image(
        self, name: object, file: str, where: str, *, split: str = "", size: Size | None = None, own: str = ""
    ) -> SourceImage | None:
        """The image that an entry names, the same for the same one; None, and an entry in the log, if it isn't there.

        Args:
            name: a path or address as the tool knows it.
            file: the label file.
            where: the entry, for the log.
            split: what the entry says of its split.
            size: ``(height, width)`` as labelled.
            own: the name without ending that an image may have instead, where each has a label file.
        """
        if not isinstance(name, str) or not name.strip():
            self._log.add(Fault.FILE_NAME, where, repr(name)[:60])
            return None
        meant = split_name(split) or split_of(file) or ("" if own else split_name(stem(file), loose=True)) or ""
        folder = dirname(file)
        near = [folder, join(folder, "images"), join(dirname(folder), "images"), join("images", meant), meant, ""]
        found = self._tree.find_foreign(name, near, meant or None)
        if own and not found:
            found = self._tree.find_stem(own, [folder])
        if len(found) != 1:
            self._log.add(Fault.ENTRY_AMBIGUOUS if found else Fault.ENTRY_LONE, where, name[:100])
            self._lone.append(name)
            return None
        meant = meant or split_of(found[0]) or "train"
        fresh = SourceImage(self._tree.root / found[0], meant, file, size)
        return self._images.setdefault((meant, found[0]), fresh)

    def add(
        self, image: SourceImage, row: int, where: str, shape: Shape, *, shares: bool = False, crowd: bool = False
    ) -> None:
        """One object of an image: the box around its points, in pixels or shares."""
        label = self._names.take(shape.label, where)
        if label is None:
            image.lost += 1
        elif not shape.points:
            self.drop(image, Fault.OBJECT_BOXLESS, where, label)
        else:
            xs, ys = ([float(value) for value in side] for side in zip(*shape.points, strict=True))
            bbox = [min(xs), min(ys), max(xs) - min(xs), max(ys) - min(ys)]
            if not (bbox[2] and bbox[3]):
                self.drop(image, Fault.BOX_POINT, where, f"{label} at {bbox[0]:g}, {bbox[1]:g}")
                return
            if shape.outline:
                self._log.add(Fault.POLYGON, where, f"{len(xs)} points")
            image.boxes.append(SourceBox(row, label, bbox, shares, {"iscrowd": 1} if crowd else {}))

    def drop(self, image: SourceImage, fault: Fault, where: str, value: str) -> None:
        """Record an object that can't be used."""
        self._log.add(fault, where, value[:100])
        image.lost += 1

    def imported(self, format: str, row: str, files: Sequence[str], *, whole: bool, sizes: bool) -> ImportedImages:
        """All of them.

        Args:
            format: its name.
            row: how an object of a label file is shown.
            files: the label files.
            whole: whether they are all of the folder, so that other images have no labels.
            sizes: whether they say how large the images were.

        Raises:
            DataError: no image is there.
        """
        images = sorted(self._images.values(), key=lambda image: image.path)
        if not images:
            what = f"they have no labelled image, the first is {files[0]}"
            if self._lone:
                what = f"none of their images is there, such as {self._lone[0]!r:.100}; put them below this folder"
            raise DataError(f"{self._tree.root}: {len(files)} {format} files; {what}")
        if whole:
            note_unlabelled(self._tree, {image.path for image in images}, self._log)
        where = self._tree.root / files[0] if len(files) == 1 else self._tree.root
        return ImportedImages(format, images, self._names.numbered(), where, row, check_sizes=sizes)


class Shape(NamedTuple):
    """An object: its class, the points around it (none: it has no box), and whether they are an outline, not a box."""

    label: str | None
    points: Points
    outline: bool = False


class Entry(NamedTuple):
    """An image: its name, its objects as they are, ``(height, width)`` and split where the file has them."""

    name: object
    objects: object
    size: Size | None = None
    split: str = ""


class Tool(Format):
    """A labelling tool's files.

    Attributes:
        marks: what the beginning of its files holds, one of each group.
        shares: whether points are shares of the image.
        own_file: whether each image has a label file.
        sizes: whether files say how large the images were.
    """

    single_files: ClassVar[tuple[str, ...]] = (".json",)
    marks: ClassVar[tuple[tuple[bytes, ...], ...]]
    shares: ClassVar[bool] = False
    own_file: ClassVar[bool] = False
    sizes: ClassVar[bool] = False

    def recognises(self, tree: Tree) -> Evidence | None:
        """By what the first files hold."""
        sample = tree.with_suffix(*self.single_files)[:_SAMPLE]
        return next((Evidence(file) for file in sample if self._fits(tree.root / file)), None)

    def read(self, tree: Tree, log: ImportLog, only: str | None) -> ImportedImages:
        """Read all files of the tool below a folder.

        Raises:
            DataError: none names an image that is there.
        """
        files = [only] if only else [f for f in tree.with_suffix(*self.single_files) if self._fits(tree.root / f)]
        images = LabelledImages(tree, log)
        for file in files:
            try:
                entries = list(self.entries(self.load(tree.root / file), file, log))
            except (DataError, *_UNUSABLE) as error:
                log.add(Fault.LABELS_UNREADABLE, file, str(error)[:200])
                continue
            for number, entry in enumerate(entries, 1):
                place = file if self.own_file else f"{file}, image {number}"
                own = stem(file) if self.own_file else ""
                image = images.image(entry.name, file, place, split=entry.split, size=entry.size, own=own)
                if image is None:
                    continue
                if isinstance(entry.objects, list):
                    self._take_objects(entry.objects, image, place, images)
                else:
                    value = f"{entry.objects!r:.60} is not a list of objects"
                    images.drop(image, Fault.OBJECT_BOXLESS, place, value)
        return images.imported(self.name, "object {}", files, whole=only is None, sizes=self.sizes)

    def _take_objects(self, objects: list[Any], image: SourceImage, place: str, images: LabelledImages) -> None:
        for row, raw in enumerate(objects, 1):
            where = f"{place}, object {row}"
            try:
                shape = self.shape(raw)
                if shape is not None:
                    images.add(image, row, where, shape, shares=self.shares)
            except _UNUSABLE as error:
                images.drop(image, Fault.OBJECT_BOXLESS, where, f"{type(error).__name__}: {error}")

    def _fits(self, path: Path) -> bool:
        beginning = head(path, _HEAD)
        return all(any(mark in beginning for mark in group) for group in self.marks)

    def load(self, path: Path) -> Any:
        """The content of a file."""
        return read_json(path)

    @abstractmethod
    def entries(self, content: Any, file: str, log: ImportLog) -> Iterable[Entry]:
        """The images of a file. Content that isn't as it should be may raise what access to it raises."""

    @abstractmethod
    def shape(self, raw: Any) -> Shape | None:
        """An object, likewise; None for what isn't one."""


class LabelMe(Tool):
    """LabelMe's json beside each image."""

    name, looked_for = "labelme", "LabelMe's json files with shapes"
    marks = ((b'"shapes"',), (b'"imagePath"', b'"shape_type"'))
    own_file = sizes = True

    def entries(self, content: Any, file: str, log: ImportLog) -> Iterable[Entry]:  # noqa: ARG002
        """The one image."""
        size = int(content.get("imageHeight") or 0), int(content.get("imageWidth") or 0)
        return [Entry(content.get("imagePath") or stem(file), content["shapes"], size)]

    def shape(self, raw: Any) -> Shape | None:
        """A rectangle, circle, mask or polygon."""
        kind, points = raw.get("shape_type") or "polygon", [(x, y) for x, y in raw["points"]]
        if kind == "circle":
            (x, y), edge = points
            points = _around(x, y, math.dist((x, y), edge))
        elif kind in ("point", "points", "line", "linestrip"):
            points = []
        return Shape(raw["label"], points, kind in ("polygon", "rotation"))


class CreateML(Tool):
    """Apple's CreateML: one json with the centre and size of each box."""

    name, looked_for = "createml", "a CreateML json with coordinates"
    marks = ((b'"coordinates"',), (b'"annotations"', b'"annotation"'), (b'"image"', b'"imagefilename"'))

    def entries(self, content: Any, file: str, log: ImportLog) -> Iterable[Entry]:  # noqa: ARG002
        """Its images."""
        for item in content:
            objects = item.get("annotations", item.get("annotation"))
            yield Entry(item.get("image", item.get("imagefilename")), objects or [])

    def shape(self, raw: Any) -> Shape | None:
        """A box."""
        x, y, width, height = (float(raw["coordinates"][key]) for key in ("x", "y", "width", "height"))
        return Shape(raw["label"], _around(x, y, width / 2, height / 2))


class VIA(Tool):
    """VGG Image Annotator 1 and 2: its project, or annotations exported as json or csv."""

    name, looked_for = "via", "a json or csv of the VGG Image Annotator"
    single_files = (".json", ".csv")
    marks = ((b"shape_attributes",), (b"region_attributes",))
    _CLASS_KEYS = ("class", "label", "name", "type", "category", "object", "object_name", "species")

    def load(self, path: Path) -> Any:
        """A csv as the json would be."""
        if path.suffix.lower() == ".json":
            return read_json(path)
        content: dict[str, Any] = {}
        rows = csv.DictReader(text_of(path.read_bytes()).splitlines())
        rows.fieldnames = [name.strip("# ") for name in rows.fieldnames or ()]
        for row in rows:
            image = content.setdefault(row["filename"], {"filename": row["filename"], "regions": []})
            region = {key: json.loads(row[f"region_{key}"] or "{}") for key in ("shape_attributes", "attributes")}
            if region["shape_attributes"]:
                region["region_attributes"] = region.pop("attributes")
                image["regions"].append(region)
        return content

    def entries(self, content: Any, file: str, log: ImportLog) -> Iterable[Entry]:  # noqa: ARG002
        """Its images."""
        for item in content.get("_via_img_metadata", content).values():
            regions = item["regions"]
            yield Entry(item["filename"], list(regions.values()) if isinstance(regions, dict) else regions)

    def shape(self, raw: Any) -> Shape | None:
        """A rectangle, circle, ellipse or polygon; points and lines have no box."""
        at = raw["shape_attributes"]
        kind, points = at["name"], list[tuple[float, float]]()
        if kind == "rect":
            points = [(at["x"], at["y"]), (at["x"] + at["width"], at["y"] + at["height"])]
        elif kind in ("circle", "ellipse"):
            points = _around(at["cx"], at["cy"], at.get("r", at.get("rx")), at.get("r", at.get("ry")))
        elif kind == "polygon":
            points = list(zip(at["all_points_x"], at["all_points_y"], strict=True))
        return Shape(self._label(raw["region_attributes"]), points, kind == "polygon")

    def _label(self, attributes: dict[str, Any]) -> str | None:
        """The class among a region's attributes: text, or the one box that is ticked."""
        known = {key.casefold(): key for key in attributes}
        key = next((known[key] for key in self._CLASS_KEYS if key in known), None)
        if key is None and len(attributes) > 1:
            raise ValueError(f"which of {', '.join(attributes)} is the class? rename it to label")
        value = attributes[key or next(iter(attributes))] if attributes else None
        if isinstance(value, dict):
            ticked = [name for name, on in value.items() if on]
            value = ticked[0] if len(ticked) == 1 else None
        return None if value is None else str(value)


class LabelStudio(Tool):
    """Label Studio's JSON and JSON-MIN, in percent of the image."""

    name, looked_for = "label_studio", "a Label Studio json with rectanglelabels"
    _LABELS = ("rectanglelabels", "polygonlabels", "ellipselabels", "brushlabels", "keypointlabels", "labels")
    marks = (tuple(f'"{key}"'.encode() for key in _LABELS[:4]),)
    shares = True

    def entries(self, content: Any, file: str, log: ImportLog) -> Iterable[Entry]:
        """Tasks with a finished annotation; the first one, where several people made some."""
        for number, task in enumerate(content, 1):
            data = task.get("data", task)
            name = next((data[key] for key in ("image", "img", "image_url", "url") if key in data), None)
            if "data" not in task:
                lists = [value for value in task.values() if isinstance(value, list)]
                yield Entry(name, [item for items in lists for item in items if isinstance(item, dict)])
                continue
            made = [one for one in task.get("annotations") or task.get("completions") or () if _is_valid(one)]
            if len(made) > 1:
                log.add(Fault.LABELS_SEVERAL, f"{file}, image {number}", f"{len(made)} annotations")
            if made:
                yield Entry(name, made[0]["result"])

    def shape(self, raw: Any) -> Shape | None:
        """A rectangle, which may be turned, an ellipse or a polygon; choices and texts are not objects."""
        value = raw.get("value", raw)
        labels = next((value[key] for key in self._LABELS if key in value), None)
        if labels is None:
            return None
        points, turn = list[tuple[float, float]](), math.radians(value.get("rotation") or 0)
        if "points" in value:
            points = value["points"]
        elif "radiusX" in value:
            points = _around(value["x"], value["y"], value["radiusX"], value["radiusY"])
        elif "height" in value:
            # It turns about its first corner, in pixels.
            ratio = raw.get("original_width", 1) / raw.get("original_height", 1)
            for across, down in ((0, 0), (value["width"], 0), (0, value["height"]), (value["width"], value["height"])):
                x = value["x"] + across * math.cos(turn) - down / ratio * math.sin(turn)
                points.append((x, value["y"] + across * ratio * math.sin(turn) + down * math.cos(turn)))
        return Shape(labels[0], [(x / 100, y / 100) for x, y in points], "points" in value or bool(turn))


class CVAT(Tool):
    """CVAT for images: one xml."""

    name, looked_for = "cvat", "an xml of CVAT for images"
    single_files = (".xml",)
    marks = ((b"<annotations>",), (b"<image ",))
    sizes = True

    def load(self, path: Path) -> Any:
        """The root of the xml."""
        try:
            return parse_xml(path.read_bytes())
        except (OSError, ET.ParseError, LookupError, RecursionError) as error:
            raise DataError(f"{path}: {error}") from error

    def entries(self, content: Any, file: str, log: ImportLog) -> Iterable[Entry]:
        """Its images."""
        if content.find("track") is not None:
            log.add(Fault.LEFT_ASIDE, file, "tracks of CVAT for video; export the task as CVAT for images")
        for image in content.iter("image"):
            size = int(image.get("height", 0)), int(image.get("width", 0))
            yield Entry(image.get("name"), list(image), size, image.get("subset") or "")

    def shape(self, raw: Any) -> Shape | None:
        """A box, which may be turned, an ellipse, mask or polygon; tags are not objects."""
        kind, points = raw.tag, list[tuple[float, float]]()
        turn = math.radians(float(raw.get("rotation", 0)))
        if kind == "tag":
            return None
        if kind == "box":
            left, top, right, bottom = _numbers(raw, "xtl", "ytl", "xbr", "ybr")
            across, down = (right - left) / 2, (bottom - top) / 2
            wide = abs(across * math.cos(turn)) + abs(down * math.sin(turn))
            high = abs(across * math.sin(turn)) + abs(down * math.cos(turn))
            points = _around(left + across, top + down, wide, high)
        elif kind == "ellipse":
            points = _around(*_numbers(raw, "cx", "cy", "rx", "ry"))
        elif kind == "mask":
            left, top, width, height = _numbers(raw, "left", "top", "width", "height")
            points = [(left, top), (left + width, top + height)]
        elif kind == "polygon":
            points = [(float(x), float(y)) for x, y in (pair.split(",") for pair in raw.attrib["points"].split(";"))]
        return Shape(raw.get("label"), points, kind == "polygon" or bool(turn))


def _is_valid(annotation: Any) -> bool:
    return isinstance(annotation, dict) and not annotation.get("was_cancelled")


def _numbers(element: ET.Element, *keys: str) -> list[float]:
    return [float(element.attrib[key]) for key in keys]


def _around(x: float, y: float, across: float, down: float | None = None) -> list[tuple[float, float]]:
    """Two opposite corners around a centre."""
    down = across if down is None else down
    return [(x - across, y - down), (x + across, y + down)]

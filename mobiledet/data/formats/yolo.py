"""YOLO: one txt for each image, a row for each object, in shares of the image.

Shares count on the upright image, as YOLO's own loaders read it. An image without a label file is background.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from posixpath import basename, normpath

from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.base import (
    Evidence,
    Format,
    ImportedImages,
    SourceImage,
    clean_name,
    head,
    note_alike,
)
from mobiledet.data.formats.tree import Tree, split_name, split_of, stem, suffix, text_of, there
from mobiledet.data.formats.yolo_rows import RowReader
from mobiledet.data.formats.yolo_yaml import YoloYaml, find_yaml, read_yaml, resolve
from mobiledet.data.image_headers import EXTENSIONS
from mobiledet.errors import DataError

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt", "classes.names")
_IMAGE_FOLDERS = frozenset({"images", "imgs", "img", "image", "jpegimages"})
_LABEL_FOLDERS = ("labels", "Labels", "label")

_SAMPLE = 200
"""Files that are looked into before a folder is taken for something else."""


class YOLO(Format):
    """YOLO, with Ultralytics' or darknet's ways to name splits and classes."""

    name = "yolo"
    looked_for = "txt files with rows of 5 numbers beside images, or a yaml with names"
    single_files = (".yaml", ".yml")

    def recognises(self, tree: Tree) -> Evidence | None:
        """By a label file named like an image, or less surely by a yaml with class names."""
        stems = {stem(file) for file in tree.images}
        files = [file for file in tree.with_suffix(".txt") if stem(file) in stems][:_SAMPLE]
        labels = next((file for file in files if _looks_like_labels(tree.root / file)), None)
        if labels is not None:
            return Evidence(labels)
        yaml = find_yaml(tree)
        return Evidence(yaml, 2) if yaml else None

    def read(self, tree: Tree, log: ImportLog, only: str | None) -> ImportedImages:
        """Read the images and labels below a folder.

        Raises:
            DataError: the yaml can't be used, or there are no images or no labels.
        """
        file = only or find_yaml(tree)
        yaml = read_yaml(tree.root / file, log) if file else None
        if not tree.images and not (yaml and yaml.splits):
            raise DataError(f"{tree.root} holds no image; files ending in {', '.join(sorted(EXTENSIONS))} count")
        places = _by_yaml(tree, yaml, log) if yaml else {}
        places = places or _by_lists(tree, log) or _by_folder(tree, log)
        names = (yaml.names if yaml else {}) or _names_beside(tree, log)
        rows = RowReader(tree, yaml.keypoints if yaml else 0, log)
        images, used = _read_labels(tree, places, names, rows, log)
        _record_lone_labels(tree, used, log)
        categories: dict[str, int] = {}
        for _, name in sorted((names or rows.unnamed).items()):
            categories.setdefault(name, len(categories) + 1)
        note_alike(categories, log)
        return ImportedImages(self.name, images, categories, yaml.file if yaml else tree.root, "line {}")


def _looks_like_labels(path: Path) -> bool:
    """Whether the first row of a text file is a YOLO label."""
    rows = head(path).replace(b"\0", b"").decode("utf-8-sig", "replace").split("\n")
    words = next((row.split() for row in rows if row.strip()), [])
    try:
        return len(words) >= 5 and all(float(word) is not None for word in words[1:5])
    except ValueError:
        return False


def _by_yaml(tree: Tree, yaml: YoloYaml, log: ImportLog) -> dict[str, list[Path]]:
    """The images of each split that the yaml names; empty if nothing it names is there."""
    splits: dict[str, list[Path]] = {}
    for split, entries in yaml.splits.items():
        found: list[Path] = []
        for entry in entries:
            place = resolve(yaml, entry, log)
            if place is None:
                log.add(Fault.SPLIT_ABSENT, f"{yaml.file.name}, {split}", entry)
            elif place.is_dir():
                found += _images_in(tree, place)
            elif place.suffix.lower() == ".txt":
                found += _images_of_list(tree, place, log, yaml.file.parent)
            elif place.suffix.lower() in EXTENSIONS:
                found.append(place)
        if found:
            splits[split] = found
        elif entries:
            log.add(Fault.SPLIT_ABSENT, f"{yaml.file.name}, {split}", "no images")
    return splits


def _images_in(tree: Tree, folder: Path) -> list[Path]:
    if folder.is_relative_to(tree.root):
        inside = folder.relative_to(tree.root).as_posix()
        return [tree.root / file for file in tree.images if inside == "." or file.startswith(f"{inside}/")]
    other = Tree(folder)
    return [folder / file for file in other.images]


def _images_of_list(tree: Tree, file: Path, log: ImportLog, base: Path) -> list[Path]:
    try:
        lines = text_of(file.read_bytes()).splitlines()
    except OSError as error:
        log.add(Fault.LEFT_ASIDE, file.name, str(error.strerror))
        return []
    found = []
    for number, line in enumerate(lines, 1):
        name = line.strip().replace("\\", "/")
        if not name:
            continue
        direct = next((p for p in (file.parent / name, base / name) if suffix(name) in EXTENSIONS and there(p)), None)
        if direct is not None:
            # Spelled as the tree has it, so that the same image is known again.
            found.append(tree.root / inside if (inside := _inside(tree, direct)) else direct)
            continue
        matches = tree.find(name, split=split_name(file.stem))
        if len(matches) == 1:
            found.append(tree.root / matches[0])
        else:
            fault = Fault.ENTRY_AMBIGUOUS if matches else Fault.ENTRY_LONE
            log.add(fault, f"{file.name}, line {number}", name[:100])
    return found


def _inside(tree: Tree, path: Path) -> str | None:
    """A path as the tree has it, without steps upwards; None for one that leads out of it."""
    inside = normpath(path.relative_to(tree.root).as_posix()) if path.is_relative_to(tree.root) else ".."
    return None if inside.startswith("..") else inside


def _by_lists(tree: Tree, log: ImportLog) -> dict[str, list[Path]]:
    """As darknet has it: train.txt, val.txt with an image's path in each line, not far below the folder."""
    splits = {}
    for file in tree.with_suffix(".txt"):
        split = split_name(stem(file))
        beginning = text_of(head(tree.root / file)).strip().splitlines()
        if split and file.count("/") <= 1 and beginning and suffix(beginning[0].strip()) in EXTENSIONS:
            splits[split] = _images_of_list(tree, tree.root / file, log, tree.root)
    return {split: images for split, images in splits.items() if images}


def _by_folder(tree: Tree, log: ImportLog) -> dict[str, list[Path]]:
    """``train/images`` and ``images/train`` alike; without such folders everything is for training."""
    splits: dict[str, list[Path]] = defaultdict(list)
    named = {file: split_of(file) for file in tree.images}
    for file, split in named.items():
        if split is None and any(named.values()):
            log.add(Fault.NO_SPLIT_FOLDER, file)
        else:
            splits[split or "train"].append(tree.root / file)
    return splits


def _names_beside(tree: Tree, log: ImportLog) -> dict[int, str]:
    for name in NAME_FILES:
        files = [file for file in tree.files if basename(file) == name]
        if not files:
            continue
        try:
            lines = text_of((tree.root / files[0]).read_bytes()).rstrip().splitlines()
        except OSError as error:
            raise DataError(f"{tree.root / files[0]} can't be read: {error.strerror}") from error
        return {number: clean_name(line) or f"class_{number}" for number, line in enumerate(lines)}
    log.add(Fault.NAME_INVENTED, "no yaml with names, no classes.txt", "class_0, class_1, ...")
    return {}


def _candidates(tree: Tree, image: Path) -> Iterable[Path]:
    """Where the labels of an image may be, the usual place first."""
    folder = image.parent
    parts = folder.parts
    inner = [i for i, part in enumerate(parts) if part.casefold() in _IMAGE_FOLDERS]
    for place in reversed(inner):
        for name in _LABEL_FOLDERS:
            yield Path(*parts[:place], name, *parts[place + 1 :])
    yield folder
    for name in _LABEL_FOLDERS:
        yield folder / name
        yield folder.parent / name
    if folder.is_relative_to(tree.root):
        for name in _LABEL_FOLDERS:
            yield tree.root / name / folder.relative_to(tree.root)


def _read_labels(
    tree: Tree, places: dict[str, list[Path]], names: dict[int, str], rows: RowReader, log: ImportLog
) -> tuple[list[SourceImage], set[Path]]:
    """Every image with its boxes, and the label files that were read."""
    folders: dict[Path, list[Path]] = {}
    owners: dict[Path, set[Path]] = defaultdict(set)
    labels: dict[Path, Path | None] = {}
    for image in {path: None for paths in places.values() for path in paths}:
        if image.parent not in folders:
            folders[image.parent] = [folder for folder in dict.fromkeys(_candidates(tree, image)) if folder.is_dir()]
        tried = (folder / f"{image.stem}.txt" for folder in folders[image.parent])
        label = labels[image] = next((file for file in tried if file.is_file()), None)
        if label is not None:
            owners[label].add(image)
    files = {label: rows.read(label, _shown(tree, label), names) for label in owners if len(owners[label]) == 1}
    rows.settle()
    images: list[SourceImage] = []
    for split, paths in places.items():
        if not any(labels[path] for path in paths):
            log.add(Fault.SPLIT_UNLABELLED, split, f"{len(paths)} images")
            continue
        for path in sorted(dict.fromkeys(paths)):
            label = labels[path]
            if label is None:
                log.add(Fault.BACKGROUND_NO_FILE, _shown(tree, path), split)
                images.append(SourceImage(path, split, _shown(tree, path), None))
            elif len(owners[label]) > 1:
                others = " and ".join(sorted(other.name for other in owners[label]))
                log.add(Fault.LABELS_SHARED, _shown(tree, path), f"{_shown(tree, label)} may belong to {others}")
            else:
                images.append(SourceImage(path, split, _shown(tree, label), None, files[label].boxes))
    if not owners:
        raise DataError(
            f"{tree.root}: none of the {len(labels)} images has a label file; looked for labels/ instead of images/ "
            "in the path, and for a txt beside the image"
        )
    return images, set(owners)


def _shown(tree: Tree, path: Path) -> str:
    return path.relative_to(tree.root).as_posix() if path.is_relative_to(tree.root) else str(path)


def _record_lone_labels(tree: Tree, used: set[Path], log: ImportLog) -> None:
    """Label files beside those that were read, of which no image is there."""
    folders = {file.parent for file in used}
    for file in tree.with_suffix(".txt"):
        path = tree.root / file
        name = path.name.casefold()
        if path in used or path.parent not in folders or name in NAME_FILES or name.startswith("readme"):
            continue
        if split_name(stem(file)) is None:
            log.add(Fault.LABELS_LONE, file)

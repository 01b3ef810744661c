"""YOLO: one txt for each image, a row for each object, in shares of the image.

Shares count on the upright image, as YOLO's own loaders read it. An image without a label file is background.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Collection
from os.path import normpath, relpath
from pathlib import Path

from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.base import Evidence, Format, ImportedImages, SourceImage, head, note_alike
from mobiledet.data.formats.tree import Tree, is_file, lies_below, name_key, split_name, split_of, stem, suffix
from mobiledet.data.formats.yolo_names import NAME_FILES, ClassNumbers, shown
from mobiledet.data.formats.yolo_rows import RowReader
from mobiledet.data.formats.yolo_yaml import YoloYaml, find_yaml, read_yaml, resolve
from mobiledet.data.image_headers import EXTENSIONS
from mobiledet.errors import DataError
from mobiledet.utils.encodings import text_of

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
        listed = (_by_yaml(tree, yaml, log) if yaml else {}) or _by_lists(tree, log)
        unlisted = Fault.NOT_LISTED if listed else Fault.NO_SPLIT_FOLDER
        names = ClassNumbers(tree, yaml, log)
        rows = RowReader(tree, yaml.keypoints if yaml else 0, log)
        images = _read_labels(tree, listed or _by_folder(tree), names, rows, unlisted, log)
        classes = names.all() or [name for _, name in sorted(rows.unnamed.items())]
        categories = {name: number for number, name in enumerate(classes, 1)}
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
            place = resolve(tree, yaml, entry, log)
            if place is None:
                log.add(Fault.SPLIT_ABSENT, f"{yaml.file.name}, {split}", entry)
            elif place.is_dir():
                found += _images_in(tree, place)
            elif not place.is_file():
                log.add(Fault.SPLIT_ABSENT, f"{yaml.file.name}, {split}", f"{entry}: neither a file nor a folder")
            elif place.suffix.lower() == ".txt":
                found += _images_of_list(tree, place, log, yaml.file.parent)
            elif place.suffix.lower() in EXTENSIONS:
                found.append(Path(normpath(place)))
        if found:
            splits[split] = found
        elif entries:
            log.add(Fault.SPLIT_ABSENT, f"{yaml.file.name}, {split}", "no images")
    return splits


def _images_in(tree: Tree, folder: Path) -> list[Path]:
    if lies_below(folder, tree.root):
        inside = relpath(folder, tree.root).replace("\\", "/")
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
        written = [path for path in (file.parent / name, base / name) if suffix(name) in EXTENSIONS and is_file(path)]
        direct = next((path for path in written if tree.reading.outside or lies_below(path, tree.root)), None)
        if direct is not None:
            # Spelled as the tree has it, so that the same image is known again.
            found.append(Path(normpath(direct)))
            continue
        matches = tree.find(name, split=split_name(file.stem))
        where = f"{file.name}, line {number}"
        if len(matches) == 1:
            found.append(tree.root / matches[0])
        elif written:
            log.add(Fault.PATH_OUTSIDE, where, name[:100])
        else:
            log.add(Fault.ENTRY_AMBIGUOUS if matches else Fault.ENTRY_LONE, where, name[:100])
    return found


def _by_lists(tree: Tree, log: ImportLog) -> dict[str, list[Path]]:
    """As darknet has it: train.txt, val.txt with an image's path in each line, not far below the folder."""
    splits = {}
    for file in tree.with_suffix(".txt"):
        split = split_name(stem(file))
        beginning = text_of(head(tree.root / file)).strip().splitlines()
        if split and file.count("/") <= 1 and beginning and suffix(beginning[0].strip()) in EXTENSIONS:
            splits[split] = _images_of_list(tree, tree.root / file, log, tree.root)
    return {split: images for split, images in splits.items() if images}


def _by_folder(tree: Tree) -> dict[str, list[Path]]:
    """``train/images`` and ``images/train`` alike; without such folders everything is for training."""
    splits: dict[str, list[Path]] = defaultdict(list)
    named = {file: split_of(file) for file in tree.images}
    for file, split in named.items():
        if split or not any(named.values()):
            splits[split or "train"].append(tree.root / file)
    return splits


class LabelFiles:
    """Finds the label file of an image."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._places: dict[Path, list[Path]] = {}
        self._stems: dict[Path, dict[str, list[Path]]] = {}
        self._keys: dict[Path, dict[str, list[Path]]] = {}

    def places(self, folder: Path) -> list[Path]:
        """Where the labels of the images in a folder may be, the usual place first; not outside of the data set."""
        if folder not in self._places:
            root, parts = self._tree.root, folder.parts
            inside = lies_below(folder, root)
            found = []
            for at in reversed([at for at, part in enumerate(parts) if part.casefold() in _IMAGE_FOLDERS]):
                found += [Path(*parts[:at], name, *parts[at + 1 :]) for name in _LABEL_FOLDERS]
            found.append(folder)
            for name in _LABEL_FOLDERS:
                found += [folder / name, folder.parent / name]
            if inside:
                found += [root / name / folder.relative_to(root) for name in _LABEL_FOLDERS]
                found = [place for place in found if lies_below(place, root)]
            self._places[folder] = [place for place in dict.fromkeys(found) if place.is_dir()]
        return self._places[folder]

    def inside(self, folder: Path) -> dict[str, list[Path]]:
        """The txt files in a folder by their stems; one ending in lower case first."""
        if folder not in self._stems:
            found: dict[str, list[Path]] = defaultdict(list)
            with os.scandir(folder) as entries:
                names = [e.name for e in entries if e.name[-4:].lower() == ".txt" and e.name[0] != "." and e.is_file()]
            for name in sorted(names, reverse=True):
                found[name[:-4]].append(folder / name)
            self._stems[folder] = found
        return self._stems[folder]

    def exact(self, image: Path) -> list[Path]:
        """The files called like an image; several where endings differ in case."""
        found = (self.inside(folder).get(image.stem, []) for folder in self.places(image.parent))
        return next(filter(None, found), [])

    def similar(self, image: Path, taken: Collection[Path]) -> list[Path]:
        """The files called like an image but for case, Unicode form, ``%20`` or what tools add; those of no other."""
        keys = dict.fromkeys((name_key(image.stem), name_key(image.name)))
        for folder in self.places(image.parent):
            if folder not in self._keys:
                by_key: dict[str, list[Path]] = defaultdict(list)
                for stem, files in self.inside(folder).items():
                    # Label Studio puts 8 characters before the names of uploads.
                    for key in {name_key(stem), re.sub(r"^[0-9a-f]{8}-", "", name_key(stem))}:
                        by_key[key] += [file for file in files if file not in taken]
                self._keys[folder] = by_key
            if found := [file for key in keys for file in self._keys[folder].get(key, [])]:
                return found
        return []


def _read_labels(
    tree: Tree, places: dict[str, list[Path]], names: ClassNumbers, rows: RowReader, unlisted: Fault, log: ImportLog
) -> list[SourceImage]:
    """Every image with its boxes; ``unlisted`` is what becomes of the images in no split."""
    listed = dict.fromkeys(path for paths in places.values() for path in paths)
    others = [path for file in tree.images if (path := tree.root / file) not in listed]
    finder = LabelFiles(tree)
    labels = _match(tree, [*listed, *others], finder, log)
    owners: dict[Path, list[Path]] = defaultdict(list)
    for image, found in labels.items():
        for label in found:
            owners[label].append(image)
    for image in others:
        if labels[image] or unlisted is Fault.NO_SPLIT_FOLDER:
            log.add(unlisted, shown(tree, image))
        else:
            log.add(Fault.LEFT_ASIDE, shown(tree, image), "without labels and in no split")
    if not any(labels[image] for image in listed):
        raise DataError(
            f"{tree.root}: none of the {len(listed)} images has a label file; looked for labels/ instead of images/ "
            "in the path, and for a txt beside the image"
        )
    doubtful = _record_lone_labels(tree, set(owners), log)
    if tree.reading.doubtful == "background":
        doubtful.clear()
    read = {
        label: rows.read(label, shown(tree, label), names.of(label.parent))
        for label, (image, *rivals) in owners.items()
        if not rivals and len(labels[image]) == 1 and image in listed
    }
    rows.settle()
    images: list[SourceImage] = []
    for split, paths in places.items():
        if not any(labels[path] for path in paths):
            log.add(Fault.SPLIT_UNLABELLED, split, f"{len(paths)} images")
            continue
        for path in sorted(dict.fromkeys(paths)):
            candidates = [shown(tree, label) for label in labels[path]]
            if candidates and labels[path][0] in read:
                file = read[labels[path][0]]
                images.append(SourceImage(path, split, candidates[0], None, file.boxes, lost=file.lost))
            elif candidates:
                rivals = {owner.name for label in labels[path] for owner in owners[label]}
                value = f"{' or '.join(candidates)} may belong to {' and '.join(sorted(rivals))}"
                log.add(Fault.LABELS_SHARED, shown(tree, path), value)
            elif doubtful.intersection(finder.places(path.parent)):
                log.add(Fault.IMAGE_UNLABELLED, shown(tree, path), "most label files beside it have no image")
            else:
                log.add(Fault.BACKGROUND_NO_FILE, shown(tree, path), split)
                images.append(SourceImage(path, split, shown(tree, path), None))
    return images


def _match(tree: Tree, images: list[Path], finder: LabelFiles, log: ImportLog) -> dict[Path, list[Path]]:
    """The label file of each image, or several that it may be; none where there is none."""
    labels = {}
    for image in images:
        exact = finder.exact(image)
        labels[image] = exact[:1]
        for other in exact[1:]:
            log.add(Fault.LABELS_SEVERAL, shown(tree, other), shown(tree, image))
    taken = {label for found in labels.values() for label in found}
    for image, found in labels.items():
        if not found and (similar := finder.similar(image, taken)):
            labels[image] = similar
            log.add(Fault.LABELS_RENAMED, shown(tree, image), " or ".join(shown(tree, label) for label in similar))
    return labels


def _record_lone_labels(tree: Tree, used: set[Path], log: ImportLog) -> set[Path]:
    """Label files of which no image is there; gives the folders where most are, so that names may not fit."""
    folders = Counter(file.parent for file in used)
    lone: Counter[Path] = Counter()
    for file in tree.with_suffix(".txt"):
        path = tree.root / file
        name = path.name.casefold()
        if path in used or name in NAME_FILES or name.startswith("readme") or split_name(stem(file)) is not None:
            continue
        if path.parent in folders or _looks_like_labels(path):
            log.add(Fault.LABELS_LONE, file)
            lone[path.parent] += 1
    return {folder for folder, count in lone.items() if count > folders[folder]}

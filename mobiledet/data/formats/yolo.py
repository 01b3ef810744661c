"""YOLO: one txt for each picture, a row for each object, in shares of the picture.

Shares count on the upright picture, as YOLO's own loaders read it. A picture without a label file is background.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from mobiledet.data.formats.base import Account, Source, SourceBox, SourcePicture, clean_name
from mobiledet.data.formats.choose import head
from mobiledet.data.formats.classes import note_alike
from mobiledet.data.formats.tree import Tree, split_name, split_of, stem, suffix, there
from mobiledet.data.formats.yolo_rows import RowReader
from mobiledet.data.formats.yolo_yaml import YoloYaml, find_yaml, read_yaml, resolve
from mobiledet.data.images import EXTENSIONS
from mobiledet.errors import DataError

_NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt", "classes.names")
_PICTURE_FOLDERS = frozenset({"images", "imgs", "img", "image", "jpegimages"})
_LABEL_FOLDERS = ("labels", "Labels", "label")


def read_yolo(tree: Tree, account: Account, only: str | None = None) -> Source:
    """Read the pictures and labels below a folder.

    Args:
        tree: the folder.
        account: takes what is dropped, repaired and noted.
        only: the yaml to go by, if it was named.

    Raises:
        DataError: the yaml can't be used, or there are no pictures or no labels.
    """
    file = only or find_yaml(tree)
    yaml = read_yaml(tree.root / file, account) if file else None
    if not tree.pictures and not (yaml and yaml.splits):
        raise DataError(f"{tree.root} holds no picture; files ending in {', '.join(sorted(EXTENSIONS))} count")
    places = _by_yaml(tree, yaml, account) if yaml else {}
    places = places or _by_lists(tree, account) or _by_folder(tree, account)
    names = (yaml.names if yaml else {}) or _names_beside(tree, account)
    rows = RowReader(names, yaml.keypoints if yaml else 0, account)
    pictures, used = _read_labels(tree, places, rows, account)
    rows.refuse_pixels(tree.root)
    _account_for_lone_labels(tree, used, account)
    categories: dict[str, int] = {}
    for number in sorted(rows.names):
        categories.setdefault(rows.names[number], len(categories) + 1)
    note_alike(categories, account)
    return Source("yolo", pictures, categories, yaml.file if yaml else tree.root, "line {}")


def _by_yaml(tree: Tree, yaml: YoloYaml, account: Account) -> dict[str, list[Path]]:
    """The pictures of each split that the yaml names; empty if nothing it names is there."""
    splits: dict[str, list[Path]] = {}
    for split, entries in yaml.splits.items():
        found: list[Path] = []
        for entry in entries:
            place = resolve(yaml, entry, account)
            if place is None:
                account.add("splits that are not there", f"{yaml.file.name}, {split}", entry)
            elif place.is_dir():
                found += _pictures_in(tree, place)
            elif place.suffix.lower() == ".txt":
                found += _pictures_of_list(tree, place, account, yaml.file.parent)
            elif place.suffix.lower() in EXTENSIONS:
                found.append(place)
        if found:
            splits[split] = found
        elif entries:
            account.add("splits that are not there", f"{yaml.file.name}, {split}", "no pictures")
    return splits


def _pictures_in(tree: Tree, folder: Path) -> list[Path]:
    if folder.is_relative_to(tree.root):
        inside = folder.relative_to(tree.root).as_posix()
        return [tree.root / file for file in tree.pictures if inside == "." or file.startswith(f"{inside}/")]
    other = Tree(folder)
    return [folder / file for file in other.pictures]


def _pictures_of_list(tree: Tree, file: Path, account: Account, base: Path) -> list[Path]:
    try:
        lines = file.read_bytes().decode("utf-8-sig", "replace").splitlines()
    except OSError as error:
        account.add("lists and files left aside", file.name, str(error.strerror))
        return []
    found = []
    for number, line in enumerate(lines, 1):
        name = line.strip().replace("\\", "/")
        if not name:
            continue
        direct = next((p for p in (file.parent / name, base / name) if suffix(name) in EXTENSIONS and there(p)), None)
        if direct is not None:
            # Spelled as the tree has it, so that the same picture is known again.
            found.append(tree.root / inside if (inside := _inside(tree, direct)) else direct)
            continue
        matches = tree.find(name, split=split_name(file.stem))
        if len(matches) == 1:
            found.append(tree.root / matches[0])
        else:
            kind = "entries that can't be told apart" if matches else "entries without a picture"
            account.add(kind, f"{file.name}, line {number}", name[:100])
    return found


def _inside(tree: Tree, path: Path) -> str | None:
    parts: list[str] = []
    if not path.is_relative_to(tree.root):
        return None
    for part in path.relative_to(tree.root).parts:
        if part == ".." and not parts:
            return None
        if part == "..":
            parts.pop()
        else:
            parts.append(part)
    return "/".join(parts)


def _by_lists(tree: Tree, account: Account) -> dict[str, list[Path]]:
    """As darknet has it: train.txt, val.txt with a picture's path in each line, not far below the folder."""
    splits = {}
    for file in tree.with_suffix(".txt"):
        split = split_name(stem(file))
        beginning = head(tree.root / file).decode("utf-8-sig", "replace").strip().splitlines()
        if split and file.count("/") <= 1 and beginning and suffix(beginning[0].strip()) in EXTENSIONS:
            splits[split] = _pictures_of_list(tree, tree.root / file, account, tree.root)
    return {split: pictures for split, pictures in splits.items() if pictures}


def _by_folder(tree: Tree, account: Account) -> dict[str, list[Path]]:
    """``train/images`` and ``images/train`` alike; without such folders everything is for training."""
    splits: dict[str, list[Path]] = defaultdict(list)
    named = {file: split_of(file) for file in tree.pictures}
    for file, split in named.items():
        if split is None and any(named.values()):
            account.add("pictures outside of the folders of the splits, not used", file)
        else:
            splits[split or "train"].append(tree.root / file)
    return splits


def _names_beside(tree: Tree, account: Account) -> dict[int, str]:
    for name in _NAME_FILES:
        files = [file for file in tree.files if file.rpartition("/")[2] == name]
        if not files:
            continue
        try:
            lines = (tree.root / files[0]).read_bytes().decode("utf-8-sig", "replace").rstrip().splitlines()
        except OSError as error:
            raise DataError(f"{tree.root / files[0]} can't be read: {error.strerror}") from error
        return {number: clean_name(line) or f"class_{number}" for number, line in enumerate(lines)}
    account.add("class names missing, made up", "no yaml with names, no classes.txt", "class_0, class_1, ...")
    return {}


def _candidates(tree: Tree, picture: Path) -> Iterable[Path]:
    """Where the labels of a picture may be, the usual place first."""
    folder = picture.parent
    parts = folder.parts
    inner = [i for i, part in enumerate(parts) if part.casefold() in _PICTURE_FOLDERS]
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
    tree: Tree, places: dict[str, list[Path]], rows: RowReader, account: Account
) -> tuple[list[SourcePicture], set[Path]]:
    """Every picture with its boxes, and the label files that were read."""
    folders: dict[Path, list[Path]] = {}
    owners: dict[Path, set[Path]] = defaultdict(set)
    labels: dict[Path, Path | None] = {}
    for picture in {path: None for paths in places.values() for path in paths}:
        if picture.parent not in folders:
            folders[picture.parent] = [
                folder for folder in dict.fromkeys(_candidates(tree, picture)) if folder.is_dir()
            ]
        tried = (folder / f"{picture.stem}.txt" for folder in folders[picture.parent])
        label = labels[picture] = next((file for file in tried if file.is_file()), None)
        if label is not None:
            owners[label].add(picture)
    pictures: list[SourcePicture] = []
    boxes: dict[Path, list[SourceBox]] = {}
    for split, paths in places.items():
        if not any(labels[path] for path in paths):
            account.add("splits without a single label file", split, f"{len(paths)} pictures")
            continue
        for path in sorted(dict.fromkeys(paths)):
            label = labels[path]
            if label is None:
                account.add("pictures without a label file (background)", _told(tree, path), split)
                pictures.append(SourcePicture(path, split, _told(tree, path), None))
            elif len(owners[label]) > 1:
                others = " and ".join(sorted(other.name for other in owners[label]))
                kind = "pictures that share one label file with another picture"
                account.add(kind, _told(tree, path), f"{_told(tree, label)} may belong to {others}")
            else:
                if label not in boxes:
                    boxes[label] = rows.read(label, _told(tree, label))
                pictures.append(SourcePicture(path, split, _told(tree, label), None, boxes[label]))
    if not owners:
        raise DataError(
            f"{tree.root}: none of the {len(labels)} pictures has a label file; looked for labels/ instead of images/ "
            "in the path, and for a txt beside the picture"
        )
    return pictures, set(owners)


def _told(tree: Tree, path: Path) -> str:
    return path.relative_to(tree.root).as_posix() if path.is_relative_to(tree.root) else str(path)


def _account_for_lone_labels(tree: Tree, used: set[Path], account: Account) -> None:
    """Label files beside those that were read, of which no picture is there."""
    folders = {file.parent for file in used}
    for file in tree.with_suffix(".txt"):
        path = tree.root / file
        name = path.name.casefold()
        if path in used or path.parent not in folders or name in _NAME_FILES or name.startswith("readme"):
            continue
        if split_name(stem(file)) is None:
            account.add("label files without a picture", file)

"""Finding out which format a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, cast

from mobiledet.data.formats.base import Format
from mobiledet.data.formats.tree import Tree, stem, suffix
from mobiledet.errors import DataError

FORMATS = ("voc", "yolo", "coco")

_SAMPLE = 200
"""Files of a kind that are looked into before it is taken for something else."""


def detect_format(root: Path) -> Literal["voc", "yolo", "coco"]:
    """Which of the formats a folder is in.

    Raises:
        DataError: none, or more than one; says what was looked for and what is there.
    """
    return detect_in(Tree(root))


def detect_in(tree: Tree) -> Format:
    """`detect_format` for a folder that has been listed.

    Raises:
        DataError: as there.
    """
    from mobiledet.data.formats.voc_csv import has_boxes

    evidence = {"coco": _coco(tree), "voc": _voc(tree), "yolo": _yolo_labels(tree)}
    found = [(name, file) for name, file in evidence.items() if file]
    if len(found) > 1:
        told = ", ".join(f"{name} ({file})" for name, file in found)
        raise DataError(
            f"{tree.root} can be read as {' and as '.join(name for name, _ in found)}: there is {told}; "
            "name the format (--format), or a folder with one of them alone"
        )
    if found:
        return cast(Format, found[0][0])
    if _yolo_yaml(tree):
        return "yolo"
    if any(has_boxes(tree.root / file) for file in tree.with_suffix(".csv")):
        return "voc"
    raise DataError(
        f"{tree.root} is no data set that can be read: looked for xml files with <annotation> (voc), txt files with "
        "rows of 5 numbers beside pictures or a yaml with names (yolo), a json with images, annotations and "
        f"categories (coco), a csv with xmin, ymin, xmax, ymax; there is {_listing(tree)}"
    )


def head(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file; none where it can't be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError:
        return b""


def looks_like_coco(path: Path) -> bool:
    """Whether a json names all of COCO's sections; without parsing it, which takes long for the real one."""
    try:
        data = path.read_bytes()
    except OSError:
        return False
    return all(f'"{key}"'.encode() in data for key in ("images", "annotations", "categories"))


def looks_like_labels(path: Path) -> bool:
    """Whether the first row of a text file is a YOLO label."""
    rows = head(path).replace(b"\0", b"").decode("utf-8-sig", "replace").split("\n")
    words = next((row.split() for row in rows if row.strip()), [])
    try:
        return len(words) >= 5 and all(float(word) is not None for word in words[1:5])
    except ValueError:
        return False


def _coco(tree: Tree) -> str | None:
    return next((file for file in tree.with_suffix(".json") if looks_like_coco(tree.root / file)), None)


def _voc(tree: Tree) -> str | None:
    files = tree.with_suffix(".xml")[:_SAMPLE]
    return next((file for file in files if b"<annotation" in head(tree.root / file).replace(b"\0", b"")), None)


def _yolo_labels(tree: Tree) -> str | None:
    stems = {stem(file) for file in tree.pictures}
    files = [file for file in tree.with_suffix(".txt") if stem(file) in stems][:_SAMPLE]
    return next((file for file in files if looks_like_labels(tree.root / file)), None)


def _yolo_yaml(tree: Tree) -> str | None:
    from mobiledet.data.formats.yolo_yaml import find_yaml

    return find_yaml(tree)


def _listing(tree: Tree) -> str:
    if not tree.files:
        return "nothing"
    counts: dict[str, int] = {}
    for file in tree.files:
        counts[suffix(file) or "(no ending)"] = counts.get(suffix(file) or "(no ending)", 0) + 1
    most = sorted(counts.items(), key=lambda item: -item[1])[:6]
    text = ", ".join(f"{n} {ending}" for ending, n in most)
    json = next(iter(tree.with_suffix(".json")), None)
    if json and b'"shapes"' in (beginning := head(tree.root / json, 1 << 16)) and b"imagePath" in beginning:
        text += "; the json files are LabelMe's: export them as COCO"
    return text

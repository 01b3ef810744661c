"""The files below a data set's folder, listed once, and how foreign paths and the names of splits are understood."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from posixpath import basename, dirname, join, splitext

from mobiledet.data.image_headers import EXTENSIONS
from mobiledet.errors import DataError
from mobiledet.utils.settings import ReadingConfig

_SPLITS = {
    "train": "train", "training": "train", "trainval": "trainval", "val": "val", "valid": "val",
    "validation": "val", "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
SPLIT_ORDER = {"train": 0, "val": 1, "test": 2}
"""The splits that data sets are divided into -> their order."""

_FILLERS = frozenset(
    {"images", "image", "imgs", "img", "pictures", "photos", "jpegimages", "annotations", "annotation", "labels"}
    | {"label", "xml", "xmls", "set", "data", "instances", "coco", "txt", "jpg", "files"}
)


def split_name(text: str, *, loose: bool = False) -> str | None:
    """The split that the name of a folder or file stands for: "train", "val", "test" or "trainval".

    Args:
        text: such as "valid", "val2017", "train_images" or "instances_test".
        loose: also where other words surround it, as in "blood_cells_train".
    """
    words = [word for word in re.split(r"[^a-z]+", text.casefold()) if word]
    found = {_SPLITS[word] for word in words if word in _SPLITS}
    if len(found) != 1 or not (loose or all(word in _SPLITS or word in _FILLERS for word in words)):
        return None
    return found.pop()


def split_of(path: str) -> str | None:
    """The split that a path lies in, according to its folders; the innermost decides."""
    return _split_of_folder(dirname(path))


@lru_cache(maxsize=4096)
def _split_of_folder(folder: str) -> str | None:
    return next(filter(None, map(split_name, reversed(folder.split("/")))), None)


def path_parts(name: str) -> list[str]:
    """The parts of a path from any system, without drive, root and leading steps upwards."""
    parts = re.sub(r"^[A-Za-z]:|^file://", "", name.strip()).replace("\\", "/").split("/")
    parts = [part for part in parts if part not in ("", ".")]
    last_up = max((i for i, part in enumerate(parts) if part == ".."), default=-1)
    return parts[last_up + 1 :]


def stem(path: str) -> str:
    """The file name without its last ending."""
    return splitext(basename(path))[0]


def suffix(path: str) -> str:
    """The last ending in lower case, with its dot; empty without one."""
    return splitext(path)[1].lower()


def text_of(data: bytes) -> str:
    """The text of a file in UTF-8 or, as Windows' PowerShell writes it, UTF-16; what isn't text is replaced."""
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig", "replace")


def there(path: Path) -> bool:
    """Whether a path exists; one that no system would take, too long or with a zero byte, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


class Tree:
    """All files below a folder but hidden ones; links to folders are followed.

    Attributes:
        root: the folder.
        files: paths relative to it, with ``/``, sorted.
        images: those of them that are images by their ending.
        reading: what the user decided about them.
    """

    def __init__(self, root: Path, reading: ReadingConfig | None = None) -> None:
        """List the folder.

        Raises:
            DataError: it isn't one, or can't be listed.
        """
        if not (there(root) and root.is_dir()):
            what = "is a file" if there(root) else "doesn't exist"
            raise DataError(f"{root} {what}; name the folder that holds the data set")
        self.root = root
        self.reading = reading or ReadingConfig()
        self.files = sorted(_walk(root))
        self.known = frozenset(self.files)
        self.images = [file for file in self.files if suffix(file) in EXTENSIONS]
        self._names: dict[str, list[str]] = defaultdict(list)
        self._folded: dict[str, list[str]] = defaultdict(list)
        self._splits = {_split_of_folder(folder) for folder in {dirname(file) for file in self.images}}
        self._stems: dict[str, list[str]] = defaultdict(list)
        for file in self.images:
            self._names[basename(file)].append(file)
            self._folded[basename(file).casefold()].append(file)
            self._stems[stem(file)].append(file)

    def with_suffix(self, *endings: str) -> list[str]:
        """The files with one of some endings, given in lower case."""
        return [file for file in self.files if suffix(file) in endings]

    def find(self, name: str, near: Iterable[str] = ("",), split: str | None = None) -> list[str]:
        """The images that a path, perhaps from another computer, may mean: one is found, several are ambiguous.

        Args:
            name: the path as written.
            near: folders to look in first.
            split: the split it belongs to, which decides between images of the same name.
        """
        if not (parts := path_parts(name)):
            return []
        for start in range(len(parts)):
            tail = "/".join(parts[start:])
            for folder in near:
                if join(folder, tail) in self.known and suffix(tail) in EXTENSIONS:
                    return [join(folder, tail)]
        candidates = self._names.get(parts[-1]) or self._folded.get(parts[-1].casefold(), [])
        # 0001.jpg of another split is another image, unless all splits share one folder.
        meant = split_of("/".join(parts)) or (split if split in self._splits else None)
        if meant in ("train", "val", "test"):
            candidates = [file for file in candidates if split_of(file) in (meant, "trainval", None)]
        return _closest(candidates, parts, split)

    def find_stem(self, name: str, near: Sequence[str], split: str | None = None) -> list[str]:
        """The images of a name without its ending: those of the first of some folders, else those anywhere."""
        candidates = self._stems.get(name, [])
        for folder in near:
            if inside := [file for file in candidates if dirname(file) == folder]:
                return inside
        return _closest(candidates, [name], split)


def _closest(candidates: list[str], parts: list[str], split: str | None) -> list[str]:
    """Of images with the same file name, those whose folders agree most, then those of the split."""
    if len(candidates) > 1 and len(parts) > 1:
        wanted = parts[-2::-1]
        agreeing = []
        for candidate in candidates:
            folders = candidate.split("/")[-2::-1]
            same = [a == b for a, b in zip(folders, wanted, strict=False)]
            agreeing.append(same.index(False) if False in same else len(same))
        candidates = [c for c, count in zip(candidates, agreeing, strict=True) if count == max(agreeing)]
    if len(candidates) > 1 and split:
        candidates = [c for c in candidates if split_of(c) == split] or candidates
    return candidates


def _walk(root: Path) -> Iterable[str]:
    base = os.fspath(root)
    visited = {os.path.realpath(base)}
    try:
        for folder, subfolders, names in os.walk(base, followlinks=True, onerror=_raise):
            relative = os.path.relpath(folder, base).replace(os.sep, "/")
            subfolders[:] = sorted(name for name in subfolders if not name.startswith(".") and name != "__MACOSX")
            for name in subfolders[:]:
                path = os.path.join(folder, name)  # noqa: PTH118 -- text is quicker than Path for so many
                if os.path.islink(path):  # noqa: PTH114
                    if os.path.realpath(path) in visited:
                        subfolders.remove(name)
                    visited.add(os.path.realpath(path))
            for name in names:
                if not name.startswith("."):
                    yield name if relative == "." else f"{relative}/{name}"
    except OSError as error:
        raise DataError(f"{error.filename} can't be listed: {error.strerror}; give yourself permission") from error


def _raise(error: OSError) -> None:
    raise error

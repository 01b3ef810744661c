"""The files below a data set's folder, listed once, and how foreign paths and the names of splits are understood."""

from __future__ import annotations

import os
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from posixpath import basename, dirname, join, splitext
from urllib.parse import parse_qs, unquote

from mobiledet.data.image_headers import EXTENSIONS
from mobiledet.errors import DataError
from mobiledet.utils.settings import ReadingConfig

_SPLITS = {
    "train": "train", "training": "train", "trainval": "trainval", "val": "val", "valid": "val",
    "validation": "val", "dev": "val", "test": "test", "testing": "test",
}  # fmt: skip
SPLIT_ORDER = {"train": 0, "val": 1, "test": 2}
"""The splits that data sets are divided into -> their order."""

HOW_TO_SAY = "data.reading.KEY=VALUE for training, --reading KEY=VALUE for check and convert"

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


def name_key(name: str) -> str:
    """What names of the same file agree in, on whatever system they were written: case, Unicode form, ``%20``."""
    return unicodedata.normalize("NFC", unquote(name)).casefold()


def lies_below(path: Path, folder: Path) -> bool:
    """Whether a path leads to a place below a folder, or to the folder; links in it are taken as written."""
    return Path(os.path.abspath(path)).is_relative_to(os.path.abspath(folder))  # noqa: PTH100 -- without following links


def there(path: Path) -> bool:
    """Whether a path exists; one that no system would take, too long or with a zero byte, does not."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def is_file(path: Path) -> bool:
    """Whether a path leads to a file that can be read to its end, which a pipe or a device has not."""
    return there(path) and path.is_file()


class Tree:
    """All files below a folder but hidden ones; links to folders are followed.

    Attributes:
        root: the folder.
        files: paths relative to it, with ``/``, sorted.
        images: those of them that are images by their ending.
        special: pipes, devices and the like, which are not to be opened.
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
        self.files, self.special = _walk(root)
        self.known = frozenset(self.files)
        self._endings: dict[str, list[str]] = defaultdict(list)
        for file in self.files:
            self._endings[suffix(file)].append(file)
        self.images = self.with_suffix(*EXTENSIONS)
        self._splits = {_split_of_folder(folder) for folder in {dirname(file) for file in self.images}}

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        """The images by their names, and by `name_key` of these, which begins with a slash here."""
        return self._by(basename)

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        return self._by(stem)

    def _by(self, name_of: Callable[[str], str]) -> dict[str, list[str]]:
        found: dict[str, list[str]] = defaultdict(list)
        for file in self.images:
            found[name := name_of(file)].append(file)
            found["/" + name_key(name)].append(file)
        return found

    def with_suffix(self, *endings: str) -> list[str]:
        """The files with one of some endings, given in lower case."""
        return sorted(file for ending in set(endings) for file in self._endings.get(ending, ()))

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
        candidates = self._names.get(parts[-1]) or self._names.get("/" + name_key(parts[-1]), [])
        # 0001.jpg of another split is another image, unless all splits share one folder.
        meant = split_of("/".join(parts)) or (split if split in self._splits else None)
        if meant in ("train", "val", "test"):
            candidates = [file for file in candidates if split_of(file) in (meant, "trainval", None)]
        return _closest(candidates, parts, split)

    def find_foreign(self, name: str, near: Sequence[str], split: str | None = None) -> list[str]:
        """As `find`, for a name as another program writes it: an address, in other characters, of another ending."""
        # Label Studio's server names a local file behind ?d=, and puts 8 characters before the name of an upload.
        plain, query = re.sub(r"[?#].*", "", name), name.partition("?")[2]
        texts = [*parse_qs(query).get("d", []), name, unquote(name), plain, unquote(plain)]
        texts += [re.sub(r"(^|[/\\])[0-9a-f]{8}-([^/\\]+)$", r"\1\2", text) for text in texts]
        if found := next(filter(None, (self.find(text, near, split) for text in texts)), []):
            return found
        bases = [basename(text.replace("\\", "/")) for text in texts]
        found = next(filter(None, (self.find_stem(s, near, split) for base in bases for s in (base, stem(base)))), [])
        return found if split not in self._splits else [f for f in found if split_of(f) in (split, "trainval", None)]

    def find_stem(self, name: str, near: Sequence[str], split: str | None = None) -> list[str]:
        """The images of a name without its ending: those of the first of some folders, else those anywhere."""
        candidates = self._stems.get(name) or self._stems.get("/" + name_key(name), [])
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


def _walk(root: Path) -> tuple[list[str], list[str]]:
    """Files, and what only looks like files, sorted; links that lead nowhere are files that aren't there."""
    visited = {os.path.realpath(root)}
    files: list[str] = []
    special: list[str] = []
    folders = [""]
    while folders:
        folder = folders.pop()
        inner = []
        try:
            entries = sorted(os.scandir(root / folder), key=lambda entry: entry.name)
        except OSError as error:
            raise DataError(f"{error.filename} can't be listed: {error.strerror}; give yourself permission") from error
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            name = join(folder, entry.name)
            kind = _kind(entry)
            if kind is not stat.S_IFDIR:
                (files if kind in (stat.S_IFREG, None) else special).append(name)
                continue
            if entry.is_symlink():
                if (real := os.path.realpath(entry.path)) in visited:
                    continue
                visited.add(real)
            inner.append(name)
        folders += reversed(inner)
    return sorted(files), sorted(special)


def _kind(entry: os.DirEntry[str]) -> int | None:
    """What an entry is, or what it links to; None for a link that leads nowhere."""
    try:
        # The first two usually need no look at the disk.
        return (
            stat.S_IFDIR if entry.is_dir() else stat.S_IFREG if entry.is_file() else stat.S_IFMT(entry.stat().st_mode)
        )
    except OSError:
        return None

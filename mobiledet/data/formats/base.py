"""What a format contributes, and the images with boxes that every one of them reads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.tree import Tree
from mobiledet.structures import IntArray
from mobiledet.utils.text import alike_key, clean_name


class Evidence(NamedTuple):
    """The file by which a folder is recognised, and how surely: 3 labels, 2 a file that names them, 1 a table."""

    file: str
    strength: int = 3


class Format(ABC):
    """A data set format. Another one is a file with a subclass, named in ``FORMATS`` of `data.formats.choose`.

    Attributes:
        name: what users call it, in lower case.
        looked_for: what its folders hold, for the message that none of the formats was found.
        single_files: endings of files that can be named instead of the folder, such as ``".yaml"``.
        reads_layout: whether COCO's own layout on disk is in this format.
    """

    name: ClassVar[str]
    looked_for: ClassVar[str]
    single_files: ClassVar[tuple[str, ...]] = ()
    reads_layout: ClassVar[bool] = False

    @abstractmethod
    def recognises(self, tree: Tree) -> Evidence | None:
        """Whether a folder is in this format, from a few of its files."""

    @abstractmethod
    def read(self, tree: Tree, log: ImportLog, only: str | None) -> ImportedImages:
        """Read the images and labels below a folder.

        ``only`` is the file that was named instead of the folder, if one was; the log takes what is dropped, repaired
        and noted.

        Raises:
            DataError: nothing of it can be used.
        """


@dataclass(slots=True)
class SourceBox:
    """One object as its file has it.

    Attributes:
        row: where in the label file; `ImportedImages.row` says how that is shown.
        name: its class.
        bbox: ``[x, y, width, height]`` in pixels counted from 0, or as shares of the image; unchecked.
        shares: whether these are shares of the upright image.
        extra: more of a COCO annotation, such as ``difficult``.
    """

    row: int
    name: str
    bbox: Any
    shares: bool = False
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class SourceImage:
    """One image and its objects.

    Attributes:
        path: its file, which exists.
        split: normalised name of its split.
        labels: the label file, as it is shown to people.
        size: ``(height, width)`` as labelled, 0 where missing; None where the format says nothing of sizes.
        boxes: its objects.
        image_id: its id, where the format has ids.
        lost: how many more objects it has, which can't be used.
        numbers: its places in `Annotations.images`; several, where it was listed several times.
    """

    path: Path
    split: str
    labels: str
    size: tuple[int, int] | None
    boxes: list[SourceBox] = field(default_factory=list)
    image_id: int | None = None
    lost: int = 0
    numbers: tuple[int, ...] = ()


class Annotations(NamedTuple):
    """M objects as COCO has them, in the order of their files: converting them in another takes three times as long.

    Attributes:
        entries: the annotations; they may be changed.
        images: ``(M,)``; which image each is of.
        rows: ``(M,)``; where each is in its file, as `SourceBox.row`.
    """

    entries: list[dict[str, Any]]
    images: IntArray
    rows: IntArray


@dataclass
class ImportedImages:
    """A data set as an importer found it.

    Attributes:
        format: name of the format.
        images: in the order they are to have within their split.
        categories: class name -> COCO id, in the order of the ids.
        annotation_file: what stands for the labels in messages about the data set.
        row: how the row of a label file is shown, such as ``"line {}"``.
        check_sizes: whether a size that differs from the file's may be corrected or mean that the image was scaled.
        annotations: of COCO files, whose images have no ``boxes``.
    """

    format: str
    images: list[SourceImage]
    categories: dict[str, int]
    annotation_file: Path
    row: str
    check_sizes: bool = False
    annotations: Annotations | None = None


def head(path: Path, size: int = 4096) -> bytes:
    """The first bytes of a file; none where it can't be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError:
        return b""


def note_unlabelled(tree: Tree, used: set[Path], log: ImportLog) -> None:
    """Record the images without labels."""
    for image in tree.images:
        if tree.root / image not in used:
            log.add(Fault.IMAGE_UNLABELLED, image)


class ClassNames:
    """Collects the names of classes while boxes are read; they are numbered in alphabetical order."""

    def __init__(self, log: ImportLog) -> None:
        self._log = log
        self._cleaned: dict[str, str] = {}

    def take(self, raw: str | None, where: str) -> str | None:
        """The name without stray spaces; None, and an entry in the log, where there is none."""
        name = self._cleaned.get(raw or "")
        if name is not None:
            return name
        name = clean_name(raw or "")
        if not name:
            self._log.add(Fault.OBJECT_NAMELESS, where, repr(raw))
            return None
        if name != raw:
            self._log.add(Fault.NAME_SPACES, where, f"{raw!r} is {name!r}")
        self._cleaned[raw or ""] = name
        return name

    def numbered(self) -> dict[str, int]:
        """Class name -> COCO id ``1..K``; names that differ only in case or in the spelling of a letter are noted."""
        names = sorted(set(self._cleaned.values()))
        note_alike(names, self._log)
        return {name: number for number, name in enumerate(names, 1)}


def note_alike(names: Iterable[str], log: ImportLog) -> None:
    """Record names that differ only in case, underscores or the spelling of a letter: often a typo."""
    alike: dict[str, list[str]] = defaultdict(list)
    for name in names:
        alike[alike_key(name)].append(name)
    for group in alike.values():
        if len(group) > 1:
            log.add(Fault.NAMES_ALIKE, " and ".join(map(repr, group)), "kept apart")

"""What the class numbers of a YOLO data set mean: the names in its yaml or in its classes.txt."""

from __future__ import annotations

from pathlib import Path
from posixpath import basename

from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.tree import Tree
from mobiledet.data.formats.yolo_yaml import YoloYaml
from mobiledet.errors import DataError
from mobiledet.utils.encodings import decode
from mobiledet.utils.text import clean_name, listing

NAME_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt", "classes.names")


class ClassNumbers:
    """What class numbers mean: what the yaml says, else the classes.txt nearest to the labels.

    Each folder may have one: labelImg numbers classes as they were met there.
    """

    def __init__(self, tree: Tree, yaml: YoloYaml | None, log: ImportLog) -> None:
        self._tree, self._yaml, self._log = tree, yaml, log
        self._lists: dict[Path, tuple[Path, dict[int, str]]] = {}
        for wanted in reversed(NAME_FILES):
            for file in tree.with_suffix(Path(wanted).suffix):
                if basename(file).casefold() == wanted:
                    self._lists[(tree.root / file).parent] = tree.root / file, self._read(tree.root / file)
        for file in tree.with_suffix(".names"):  # darknet's, of any name
            self._lists.setdefault((tree.root / file).parent, (tree.root / file, self._read(tree.root / file)))
        self._of: dict[Path, dict[int, str]] = {}
        if not self._lists and not (yaml and yaml.names):
            log.add(Fault.NAME_INVENTED, "no yaml with names, no classes.txt", "class_0, class_1, ...")

    def _read(self, file: Path) -> dict[int, str]:
        try:
            text, encoding = decode(file.read_bytes())
        except OSError as error:
            raise DataError(f"{file} can't be read: {error.strerror}") from error
        names = {
            number: clean_name(line) or f"class_{number}" for number, line in enumerate(text.rstrip().splitlines())
        }
        if not encoding.startswith("utf"):
            self._log.add(Fault.NAMES_DECODED, shown(self._tree, file), f"as {encoding}: {listing(names.values())}")
        return names

    def of(self, folder: Path) -> dict[int, str]:
        """Class number -> name for the labels in a folder; empty where there are no names.

        Raises:
            DataError: the yaml and a list of names beside the labels contradict each other, or lists elsewhere do.
        """
        if folder not in self._of:
            self._of[folder] = self._choose(folder)
        return self._of[folder]

    def _choose(self, folder: Path) -> dict[int, str]:
        nearest = next((self._lists[place] for place in (folder, *folder.parents) if place in self._lists), None)
        given = self._yaml.names if self._yaml else {}
        if given and self._yaml:
            if nearest and nearest[0].name.casefold() != "predefined_classes.txt":
                _refuse_contradiction((self._yaml.file, given), nearest, f"the labels in {folder}")
            return given
        if nearest is None and self._lists:
            nearest, *others = sorted(self._lists.values(), key=lambda found: len(found[0].parts))
            for other in others:
                _refuse_contradiction(nearest, other, f"the labels in {folder}")
        return nearest[1] if nearest else {}

    def all(self) -> list[str]:
        """Every class, by the numbers of the first list that was used, and what others have more."""
        used = list({id(names): names for _, names in sorted(self._of.items())}.values())
        for number, name in sorted({pair for names in used for pair in names.items()}):
            if name != used[0].get(number, name):
                self._log.add(Fault.CATEGORY_UNIFIED, f"class {number}", f"{used[0][number]!r} here, {name!r} there")
        return list(dict.fromkeys(names[number] for names in used for number in sorted(names)))


def _refuse_contradiction(first: tuple[Path, dict[int, str]], second: tuple[Path, dict[int, str]], of: str) -> None:
    for number in sorted(first[1].keys() & second[1].keys()):
        one, other = first[1][number], second[1][number]
        if one.casefold() != other.casefold():
            raise DataError(
                f"class {number} of {of} is {one!r} in {first[0]}, and {other!r} in {second[0]}; correct one of "
                "the two, or remove it"
            )


def shown(tree: Tree, path: Path) -> str:
    """A path as people know it: from the data set's folder, if it lies there."""
    try:
        return path.relative_to(tree.root).as_posix()
    except ValueError:
        return str(path)

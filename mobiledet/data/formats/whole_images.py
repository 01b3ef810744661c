"""Classes of whole images, in folders or a table; each is a box around all of the image, so that detectors learn it."""

from __future__ import annotations

import re
from collections import Counter

from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.base import ClassNames, Evidence, Format, ImportedImages, SourceBox, SourceImage
from mobiledet.data.formats.labelling_tools import LabelledImages, Shape
from mobiledet.data.formats.tables import csv_rows
from mobiledet.data.formats.tree import Tree, split_name
from mobiledet.errors import DataError
from mobiledet.utils.text import count

_AROUND = [(0.0, 0.0), (1.0, 1.0)]
_FILE = ("filename", "file_name", "file", "image", "image_id", "path")


class WholeImages(Format):
    """A folder of images for each class; or a csv with a header, of a file name and the classes that the image shows.

    A column of the csv with nothing but 0 (or -1) and 1 is a class of its own; in others the classes of an image are
    named, several with ``;`` or ``|`` between them, none where it shows none. It is read only where
    ``data.reading.classes_of=images`` says so: a folder of images without labels looks the same.
    """

    name, looked_for = "images", "a folder of images for each class, or a csv with a column 'filename'"

    def recognises(self, tree: Tree) -> Evidence | None:
        """Whether there is an image."""
        return Evidence(tree.images[0]) if tree.images else None

    def read(self, tree: Tree, log: ImportLog, only: str | None) -> ImportedImages:
        """The table that was named, or those below the folder, or else its folders.

        Raises:
            DataError: There are no images or fewer than two classes, or a folder of a class is empty.
        """
        if not tree.images:
            raise DataError(f"{tree.root} holds no image; looked for {self.looked_for}")
        files = [only] if only else [name for name in tree.with_suffix(".csv") if _header(tree, name)]
        if not files:
            return self._read_folders(tree, log)
        images = LabelledImages(tree, log)
        for file in files:
            self._read_table(tree, file, images)
        return images.imported(self.name, "line {}", files, whole=only is None, sizes=False)

    def _read_folders(self, tree: Tree, log: ImportLog) -> ImportedImages:
        tops = {file.partition("/")[0] for file in tree.images if "/" in file}
        divided = bool(tops) and None not in map(split_name, tops)  # else "train" may be a vehicle
        names, images, counts = ClassNames(log), [], Counter[str]()
        for file in tree.images:
            *folders, _ = file.split("/")
            raw = folders[divided] if len(folders) > divided else None
            if raw is None or (name := names.take(raw, file)) is None:
                log.add(Fault.IMAGE_UNLABELLED, file)
                continue
            split = (divided and split_name(folders[0])) or "train"
            box = SourceBox(0, name, [0, 0, 1, 1], shares=True)
            images.append(SourceImage(tree.root / file, split, file, None, [box]))
            counts[raw] += 1
        if len(counts) < 2:
            raise DataError(
                f"{tree.root} has images in {count(len(counts), 'folder')} of a class; looked for {self.looked_for}; "
                "give each class a folder, and name the folder above them"
            )
        for folder in [tree.root / top for top in sorted(tops)] if divided else [tree.root]:
            for inner in sorted(folder.iterdir()):
                if inner.is_dir() and not (counts[inner.name] or inner.name.startswith(".")):
                    raise DataError(f"{inner} is the folder of a class, and holds no image; put some in, or remove it")
        return ImportedImages(self.name, images, names.numbered(), tree.root, "{}")

    def _read_table(self, tree: Tree, file: str, images: LabelledImages) -> None:
        header, (_, *rows) = _header(tree, file), csv_rows(tree, file)
        if not header:
            raise DataError(f"{tree.root / file} doesn't begin with a column 'filename'; looked for {self.looked_for}")
        short = next((line for line, row in rows if len(row) != len(header)), None)
        if short is not None:
            raise DataError(f"{tree.root / file}, line {short}: not {len(header)} values, as its first line has names")
        flags = [all(row[column] in ("0", "1", "-1") for _, row in rows) for column in range(len(header))]
        for line, row in rows:
            where = f"{file}, line {line}"
            image = images.image(row[0], file, where)
            if image is None:
                continue
            named = [re.split("[;|]", cell) for cell in row]
            for column in range(1, len(row)):
                classes = [header[column]] * (row[column] == "1") if flags[column] else named[column]
                for name in filter(None, map(str.strip, classes)):
                    images.add(image, line, where, Shape(name, _AROUND), shares=True)


def _header(tree: Tree, file: str) -> list[str]:
    """The first row of a csv that begins with the name of a file; else nothing."""
    _, row = next(csv_rows(tree, file), (0, [""]))
    return row if row[0].casefold() in _FILE else []

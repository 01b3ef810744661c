"""The objects of a detection data set, cut out as images of their own: a data set for classification."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from mobiledet.data.formats.choose import ImportedDataset
from mobiledet.data.formats.write import check_output
from mobiledet.draw.boxes import write_image
from mobiledet.errors import DataError
from mobiledet.utils.progress import progress_bar
from mobiledet.utils.text import safe_file_name

MARGIN = 0.1
"""How far a crop reaches beyond its box on each side, as a share of the box."""


def write_crops(imported: ImportedDataset, output: Path) -> dict[str, int]:
    """Cut out every labelled object: ``<split>/<class>/<number of the image>_<number of the object>.jpg``.

    The folder appears under its name once everything is written. Crowds and ignored objects are left out.

    Args:
        imported: the data set.
        output: new or empty folder.

    Returns:
        Split -> number of crops.

    Raises:
        DataError: the output is in use, or two classes would have one folder.
        ImageError: an image can't be read any more, or a crop can't be written.
    """
    check_output(output, imported.root)
    output.parent.mkdir(parents=True, exist_ok=True)
    names = [safe_file_name(name) for name in next(iter(imported.splits.values())).names]
    if len({name.casefold() for name in names}) < len(names):
        raise DataError(f"classes whose folders would have one name: {', '.join(sorted(names))}; rename one of them")
    counts = dict.fromkeys(imported.splits, 0)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.unfinished-") as temporary:
        folder = Path(temporary) / output.name
        for split, dataset in imported.splits.items():
            for index in progress_bar(range(len(dataset)), what=f"cutting out {split}", unit="img"):
                image, target = dataset.read(index), dataset[index].target
                size = np.array(image.shape[1::-1] * 2, np.float32)
                sides = target.boxes[:, 2:] - target.boxes[:, :2]
                reach = np.concatenate([-sides, sides], axis=1) * MARGIN
                corners = np.clip(target.boxes + reach, 0, size).round().astype(int).tolist()
                for number, (left, top, right, bottom) in enumerate(corners):
                    crop = image[top:bottom, left:right]
                    if crop.size and not target.iscrowd[number]:
                        name = f"{index:06d}_{number}.jpg"
                        write_image(folder / split / names[target.labels[number] - 1] / name, crop)
                        counts[split] += 1
        if output.exists():
            output.rmdir()  # empty, as was made sure of
        folder.replace(output)
    return counts

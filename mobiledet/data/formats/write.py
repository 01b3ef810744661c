"""Writing an imported data set in COCO layout: images and annotation files in a folder that is whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from mobiledet.data.coco import CocoDataset
from mobiledet.data.formats.choose import ImportedDataset
from mobiledet.data.formats.tree import there
from mobiledet.data.holdout import hold_out
from mobiledet.data.image_headers import stored_orientation
from mobiledet.errors import DataError

RECORD = "conversion.json"
"""File in the output that reports what was converted, and everything that was dropped, repaired and noted."""


def check_output(output: Path, root: Path) -> None:
    """Make sure, before images are decoded, that the output can be written and overwrites nothing.

    Raises:
        DataError: it is there and not empty, lies inside the data set, or its parent can't be written to.
    """
    if len(os.fsencode(output.name)) > 200:
        raise DataError(f"{output.name[:40]}...: the name is too long for a folder; name a shorter one")
    if output.is_symlink() or (output.exists() and not output.is_dir()):
        raise DataError(f"{output} is not a folder; name a new one, nothing is overwritten")
    if output.is_dir() and any(output.iterdir()):
        raise DataError(f"{output} is not empty; name a new folder, nothing is overwritten")
    folder = root.parent if there(root) and root.is_file() else root
    if output.resolve().is_relative_to(folder.resolve()):
        raise DataError(f"{output} lies inside {folder}, which would become part of the data; name a folder elsewhere")
    above = next(parent for parent in output.absolute().parents if parent.exists())
    if not above.is_dir() or not os.access(above, os.W_OK):
        raise DataError(f"{output}: no permission to write to {above}; name another folder")


def write_coco(
    imported: ImportedDataset,
    output: Path,
    *,
    mode: Literal["copy", "link"] = "copy",
    val_share: float = 0.15,
    seed: int = 0,
) -> dict[str, CocoDataset]:
    """Write ``annotations/instances_<split>.json``, a folder of images for each split and `RECORD`.

    The folder appears under its name once everything is written.

    Args:
        imported: what to write.
        output: new or empty folder.
        mode: copy the images, or make hard links to them, copying where that isn't possible (another disk).
        val_share: of the training images that are held out where there is no split "val"; 0 for none.
        seed: of that choice.

    Returns:
        The splits as written, their images still those of ``imported``.

    Raises:
        DataError: the output is in use or can't be written, or nothing can be held out.
    """
    check_output(output, imported.root)
    splits = dict(imported.splits)
    if val_share and "val" not in splits and "train" in splits:
        train, val = hold_out(splits.pop("train"), val_share, seed)
        splits = {"train": train, "val": val, **splits}
    temporary: Path | None = None
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=output.parent, prefix=f".{output.name}.unfinished-"))
        temporary.chmod(0o777 & ~_umask())
        (temporary / "annotations").mkdir()
        for split, dataset in splits.items():
            _write_split(dataset, split, temporary, mode)
        _write_json(temporary / RECORD, _record(imported, splits, val_share, seed))
        with suppress(OSError):
            output.rmdir()  # empty, as was made sure of; Windows renames onto nothing
        temporary.replace(output)
    except OSError as error:
        raise DataError(f"{output} can't be written: {error.strerror or error}; free space, or name another") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
    return splits


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _write_split(dataset: CocoDataset, split: str, folder: Path, mode: Literal["copy", "link"]) -> None:
    names = _plain_names([dataset.file_name(index) for index in range(len(dataset))])
    content = dataset.coco_json()
    (folder / split).mkdir()
    for index, (image, name) in enumerate(zip(content["images"], names, strict=True)):
        record = dataset[index]
        data = record.path.read_bytes()
        orientation = stored_orientation(data)
        doubtful = orientation > 1 and (orientation < 5 or record.height == record.width)
        if doubtful and not record.apply_orientation:
            # No size says that such an image is to be read as stored: it is written without its EXIF rotation.
            image["file_name"] = f"{name}.png"
            Image.fromarray(dataset.read(index)).save(folder / split / image["file_name"])
            continue
        if not (mode == "link" and _link(record.path, folder / split / name)):
            (folder / split / name).write_bytes(data)
        image["file_name"] = name
        if doubtful:
            # The size is the same before and after turning it upright, so it wouldn't tell; none means upright.
            del image["height"], image["width"]
    _write_json(folder / "annotations" / f"instances_{split}.json", content)


def _plain_names(names: list[str]) -> list[str]:
    """File names without folders; those that would be the same, on any system, keep theirs in the name."""
    last = [name.rpartition("/")[2] for name in names]
    common = Counter(name.casefold() for name in last)
    taken: set[str] = set()
    result = []
    for name, short in zip(names, last, strict=True):
        wanted = short if common[short.casefold()] == 1 else name.replace("/", "__")
        stem, dot, ending = wanted.rpartition(".")
        number = 1
        while wanted.casefold() in taken or (number > 1 and wanted.casefold() in common):
            number += 1
            wanted = f"{stem}_{number}{dot}{ending}"
        taken.add(wanted.casefold())
        result.append(wanted)
    return result


def _link(source: Path, target: Path) -> bool:
    try:
        target.hardlink_to(source.resolve())
    except OSError:
        return False
    return True


def _record(imported: ImportedDataset, splits: dict[str, CocoDataset], val_share: float, seed: int) -> dict[str, Any]:
    held_out = {"share": val_share, "seed": seed} if set(splits) != set(imported.splits) else None
    return {
        "source": str(imported.root),
        "format": imported.format,
        "splits": {split: {"pictures": len(data), "boxes": len(data.labels())} for split, data in splits.items()},
        "held_out": held_out,
        "account": imported.log.to_json(),
    }


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content), encoding="utf-8")

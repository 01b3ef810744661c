"""Detections on disk: a drawn copy of each picture, and one JSON of all."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobiledet.data.images import read_image
from mobiledet.draw.boxes import draw_detections, write_image
from mobiledet.errors import ImageError, MobiledetError
from mobiledet.structures import Detections, ImageArray
from mobiledet.utils.files import write_json

logger = logging.getLogger(__name__)


@dataclass
class PredictionSummary:
    """What was done: pictures and objects, and pictures that couldn't be read."""

    pictures: int = 0
    objects: int = 0
    problems: list[str] = field(default_factory=list)


def write_predictions(
    predict: Callable[[ImageArray], Detections],
    paths: Sequence[Path],
    output: Path,
    *,
    category_ids: Sequence[int],
    threshold: float,
) -> PredictionSummary:
    """Detect in every picture and write the results.

    Args:
        predict: RGB picture to detections.
        paths: Pictures.
        output: Folder for the drawn pictures and ``detections.json``; made if missing.
        category_ids: The data set's id of each label, ``category_ids[label - 1]``.
        threshold: Least score that is drawn and written.

    Where it is ended early, by Ctrl-C or a full disk, ``detections.json`` holds what was found until then.

    Raises:
        MobiledetError: the folder can't be written, or already holds something that would be overwritten.
    """
    record_path = output / "detections.json"
    targets = _output_names(paths, output)
    for path in [record_path, *targets]:
        if path.exists():
            raise MobiledetError(f"{path} exists already; name another folder with -o, nothing is overwritten")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MobiledetError(f"can't make folder {str(output)!r}: {error.strerror}; name another with -o") from None
    summary, records = PredictionSummary(), []
    try:
        for path, target in zip(paths, targets, strict=True):
            try:
                image = read_image(path)
            except ImageError as error:
                summary.problems.append(str(error))
                continue
            found = predict(image).above(threshold)
            write_image(target, draw_detections(image, found))
            records.append(_record(path, target, image, found, category_ids))
            summary.pictures += 1
            summary.objects += len(found)
    except BaseException:
        # Ctrl-C or a full disk after an hour: what was found until then is the user's.
        if records:
            with contextlib.suppress(MobiledetError):
                write_json(record_path, records)
                logger.warning("%d of %d pictures are in %s", len(records), len(paths), record_path)
        raise
    write_json(record_path, records)
    return summary


def _record(
    path: Path, drawn: Path, image: ImageArray, found: Detections, category_ids: Sequence[int]
) -> dict[str, Any]:
    """One picture's entry; boxes are xyxy in its pixels."""
    return {
        "file": str(path),
        "drawn": str(drawn),
        "height": image.shape[0],
        "width": image.shape[1],
        "detections": [
            {
                "name": found.name(index),
                "category_id": category_ids[int(found.labels[index]) - 1],
                "score": round(float(found.scores[index]), 6),
                "box_xyxy": [round(float(value), 2) for value in found.boxes[index]],
            }
            for index in range(len(found))
        ],
    }


def _output_names(paths: Sequence[Path], output: Path) -> list[Path]:
    """A name in ``output`` for each picture; pictures of one name from several folders are numbered."""
    taken: set[Path] = set()
    names = []
    for path in paths:
        suffix = path.suffix if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp", ".bmp") else ".png"
        candidate, number = output / f"{path.stem}{suffix}", 2
        while candidate in taken:
            candidate, number = output / f"{path.stem}_{number}{suffix}", number + 1
        taken.add(candidate)
        names.append(candidate)
    return names

"""Detections on disk: a drawn copy of each image, and one JSON of all."""

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
    """How many images were read and how many detections they have, and the error of each that couldn't be read."""

    images: int = 0
    detections: int = 0
    problems: list[str] = field(default_factory=list)


def write_predictions(
    predict: Callable[[ImageArray], Detections],
    paths: Sequence[Path],
    output: Path,
    *,
    category_ids: Sequence[int],
    threshold: float,
) -> PredictionSummary:
    """Detect objects in every image and write the results.

    Args:
        predict: RGB image to detections.
        paths: The images.
        output: Folder for the drawn images and ``detections.json``; made if missing.
        category_ids: The data set's id of each label, ``category_ids[label - 1]``.
        threshold: Minimum score of what is drawn and written.

    Where it ends early, by Ctrl-C or a full disk, ``detections.json`` holds what was found until then.

    Raises:
        MobiledetError: The folder can't be written, or already holds something that would be overwritten.
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
            height, width = image.shape[:2]
            record = {"file": str(path), "drawn": str(target), "height": height, "width": width}
            records.append({**record, "detections": _plain(found, category_ids)})
            summary.images += 1
            summary.detections += len(found)
    except BaseException:
        # Ctrl-C or a full disk after an hour: what was found until then is the user's.
        if records:
            with contextlib.suppress(MobiledetError):
                write_json(record_path, records)
                logger.warning("%d of %d images are in %s", len(records), len(paths), record_path)
        raise
    write_json(record_path, records)
    return summary


def _plain(found: Detections, category_ids: Sequence[int]) -> list[dict[str, Any]]:
    return [
        {
            "name": found.name(index),
            "category_id": category_ids[int(found.labels[index]) - 1],
            "score": round(float(found.scores[index]), 6),
            "box_xyxy": [round(float(value), 2) for value in found.boxes[index]],
        }
        for index in range(len(found))
    ]


def _output_names(paths: Sequence[Path], output: Path) -> list[Path]:
    """A name in ``output`` for each image; images of one name from several folders are numbered."""
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

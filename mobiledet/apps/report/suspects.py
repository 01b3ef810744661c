"""Suspected label errors: what a model disagrees with, as a list and as files that labelling tools take."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.apps.report.analysis import Analysis
from mobiledet.evaluation.error_analysis import KINDS, ErrorKind
from mobiledet.ops.numpy_boxes import pairwise_iou
from mobiledet.structures import DoubleArray
from mobiledet.utils.files import write_csv, write_json

SAME_PLACE = 0.6
"""Overlap from which a detection and an object of another class are at the same place."""

NEVER_NEAR = 0.1
"""Overlap below which no detection, of any class and score, comes near an object."""


class SuspectKind(Enum):
    """Why a label is suspected, as a code and in words."""

    UNLABELLED = "unlabelled", "Confident detections where nothing is labelled"
    OTHER_CLASS = "other-class", "The same place with another class"
    NEVER_FOUND = "never-found", "Boxes that no detection comes near"

    def __init__(self, code: str, text: str) -> None:
        self.code = code
        self.text = text


@dataclass(frozen=True)
class Suspect:
    """One suspected label.

    Attributes:
        kind: Why.
        image_id: Where.
        box: ``(4,)`` xyxy in pixels.
        class_row: The class to label it with; that of the annotation where no detection comes near.
        score: Of the detection; None without one.
        annotation_id: What is labelled there; None where nothing is.
        labelled_row: The class that it is labelled as; None where nothing is.
    """

    kind: SuspectKind
    image_id: int
    box: DoubleArray
    class_row: int
    score: float | None
    annotation_id: int | None = None
    labelled_row: int | None = None


def find_suspects(analysis: Analysis) -> dict[SuspectKind, list[Suspect]]:
    """Suspected labels by kind: detections best first, boxes that are never found largest first."""
    matching, objects = analysis.matching, analysis.matching.objects
    wrong = analysis.wrong()
    kinds = analysis.errors.kinds[wrong]
    found: dict[SuspectKind, list[Suspect]] = {kind: [] for kind in SuspectKind}
    own_score = np.append(matching.scores, 0.0)[matching.finder]
    for row, kind in zip(wrong.tolist(), kinds.tolist(), strict=True):
        place = int(matching.image_ids[matching.images[row]]), matching.boxes[row], int(matching.classes[row])
        score = float(matching.scores[row])
        if KINDS[kind] is ErrorKind.BACKGROUND:
            found[SuspectKind.UNLABELLED].append(Suspect(SuspectKind.UNLABELLED, *place, score))
        elif KINDS[kind] is ErrorKind.CLASSIFICATION and matching.near_iou[1, row] >= SAME_PLACE:
            near = int(matching.near[1, row])
            if own_score[near] < score:
                there = int(objects.ids[near]), int(objects.classes[near])
                found[SuspectKind.OTHER_CLASS].append(Suspect(SuspectKind.OTHER_CLASS, *place, score, *there))
    area = np.prod(objects.boxes[:, 2:] - objects.boxes[:, :2], axis=1)
    starts = np.searchsorted(matching.images, np.arange(len(matching.image_ids) + 1))
    unfound = np.flatnonzero(objects.counted & (matching.finder < 0))
    for row in unfound[np.argsort(-area[unfound], kind="stable")].tolist():
        image, label = int(objects.images[row]), int(objects.classes[row])
        rivals = matching.boxes[starts[image] : starts[image + 1]]
        if pairwise_iou(objects.boxes[row][None], rivals).max(initial=0) < NEVER_NEAR:
            place = int(matching.image_ids[image]), objects.boxes[row], label
            suspect = Suspect(SuspectKind.NEVER_FOUND, *place, None, int(objects.ids[row]), label)
            found[SuspectKind.NEVER_FOUND].append(suspect)
    return found


def write_suspects(
    folder: Path, analysis: Analysis, suspects: Sequence[Suspect], file_name: Callable[[int], str]
) -> None:
    """Write ``suspects.csv``, ``coco_results.json`` and ``label_studio.json`` into a folder.

    The csv has all suspects; the COCO results have the boxes to take over, those that a detection stands for; Label
    Studio's json has a task for each image with all its suspects as predictions, each with its reason.

    Args:
        folder: It is made.
        analysis: Of the model.
        suspects: What to write.
        file_name: Gives the file name of an image by its id.

    Raises:
        MobiledetError: It can't be written.
    """
    names, matching = analysis.matching.names, analysis.matching
    write_csv(folder / "suspects.csv", [_row(one, names, file_name(one.image_id)) for one in suspects])
    results = [
        {
            "image_id": one.image_id,
            "category_id": int(matching.category_ids[one.class_row]),
            "bbox": _xywh(one),
            "score": round(one.score, 6),
        }
        for one in suspects
        if one.score is not None
    ]
    write_json(folder / "coco_results.json", results)
    by_image: dict[int, list[Suspect]] = defaultdict(list)
    for one in suspects:
        by_image[one.image_id].append(one)
    sizes = dict(zip(matching.image_ids.tolist(), matching.sizes.tolist(), strict=True))
    tasks = [_task(file_name(key), sizes[key], rows, names, analysis.name) for key, rows in by_image.items()]
    write_json(folder / "label_studio.json", tasks)


def _xywh(one: Suspect) -> list[float]:
    x1, y1, x2, y2 = one.box.tolist()
    return [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)]


def _row(one: Suspect, names: Sequence[str], file: str) -> dict[str, Any]:
    x, y, width, height = _xywh(one)
    return {
        "file": file,
        "image_id": one.image_id,
        "why": one.kind.code,
        "class": names[one.class_row],
        "labelled": "" if one.labelled_row is None else names[one.labelled_row],
        "score": "" if one.score is None else round(one.score, 4),
        "annotation_id": "" if one.annotation_id is None else one.annotation_id,
        "x": x,
        "y": y,
        "width": width,
        "height": height,
    }


def _task(
    file: str, size: Sequence[int], suspects: Sequence[Suspect], names: Sequence[str], model: str
) -> dict[str, Any]:
    """A task of Label Studio with predictions (rectangles in percent of the image), to be imported as JSON."""
    height, width = size
    found = []
    for number, one in enumerate(suspects):
        x, y, wide, high = _xywh(one)
        value = {
            "x": 100 * x / width,
            "y": 100 * y / height,
            "width": 100 * wide / width,
            "height": 100 * high / height,
        }
        region = {
            "id": f"suspect{number}",
            "type": "rectanglelabels",
            "from_name": "label",
            "to_name": "image",
            "original_width": width,
            "original_height": height,
            "image_rotation": 0,
            "value": {**value, "rotation": 0, "rectanglelabels": [names[one.class_row]]},
            "meta": {"text": [one.kind.text]},
        }
        found.append(region if one.score is None else {**region, "score": one.score})
    best = max((one.score or 0.0 for one in suspects), default=0.0)
    prediction = {"model_version": model, "score": best, "result": found}
    return {"data": {"image": file}, "predictions": [prediction]}

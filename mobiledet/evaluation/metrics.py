"""COCO metrics of detections: the twelve figures of the COCO detection challenge, and AP for each class.

The figures are those of pycocotools and of faster-coco-eval, which computes the same ones in C++; whichever is
installed does the matching. Category ids are the data set's own here, gaps and all.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from mobiledet.data.annotation_checks import is_ignored
from mobiledet.errors import DataError, MissingDependencyError, install_extra
from mobiledet.evaluation.thresholds import xywh_ious
from mobiledet.utils.text import count

Backend = Literal["auto", "faster-coco-eval", "pycocotools"]

FIGURE_ROWS = (
    ("AP", "IoU 0.50:0.95", "AR1", "1 detection per image and class"),
    ("AP50", "IoU 0.50", "AR10", "10 detections"),
    ("AP75", "IoU 0.75", "AR100", "100 detections"),
    ("APs", "small, under 32x32 px", "ARs", "100 detections, small"),
    ("APm", "medium", "ARm", "100 detections, medium"),
    ("APl", "large, over 96x96 px", "ARl", "100 detections, large"),
)
"""The twelve figures as a table shows them: names and what they are, two in a row."""

COCO_MAX_DETECTIONS = 100
"""Detections per image and class that COCO counts."""

OUT_OF_RANGE = 1e15
"""An area above COCO's largest range, which ends at 1e10 square pixels."""

LEAST_OVERLAP = 0.49
"""Just below the least IoU of a match, 0.5, which the backends compute in another way."""

_FULL_TABLE = 25
_SHORT_TABLE = 10


class ClassMetrics(TypedDict):
    """One class: ``id`` and ``name`` from the data set, AP and AP50 in 0..1, and how many boxes stand behind them.

    ``boxes`` counts the objects to be found, so neither crowds nor ignored ones, ``detections`` the results; AP is None
    without boxes.
    """

    id: int
    name: str
    AP: float | None
    AP50: float | None
    boxes: int
    detections: int


@dataclass(frozen=True)
class Metrics:
    """What COCO reports, each figure in 0..1, or None where nothing in the ground truth defines it.

    Attributes:
        AP: Mean over classes of average precision, itself the mean over IoU 0.50, 0.55 .. 0.95.
        AP50: The same at IoU 0.50 alone; AP75 at IoU 0.75 alone.
        APs: AP of objects with an area below 32 x 32 pixels; APl above 96 x 96, APm between.
        AR1: Mean over classes and IoU of the recall of the best detection per image and class.
        AR10: Recall of the best ten.
        AR100: Recall of the best hundred, which is also the most that AP looks at.
        ARs: AR100 of small objects, and ARm, ARl likewise.
        per_class: One entry for each category, by rising id.
        images: Images scored.
        max_detections: How many detections per image and class counted at most, which COCO sets to 100; where it is
            another number, that is meant by AR100.
    """

    AP: float | None
    AP50: float | None
    AP75: float | None
    APs: float | None
    APm: float | None
    APl: float | None
    AR1: float | None
    AR10: float | None
    AR100: float | None
    ARs: float | None
    ARm: float | None
    ARl: float | None
    per_class: list[ClassMetrics]
    images: int
    max_detections: int = COCO_MAX_DETECTIONS

    def to_json_dict(self) -> dict[str, Any]:
        """Plain types only, ready for ``json.dump``; an undefined figure is None, JSON's null."""
        return asdict(self)

    @classmethod
    def from_json_dict(cls, plain: Mapping[str, Any]) -> Metrics:
        """Undo `to_json_dict`; other keys, as metrics.json has them, are ignored."""
        return cls(**{field.name: plain[field.name] for field in fields(cls) if field.name in plain})


def score_detections(
    ground_truth: dict[str, Any],
    results: list[dict[str, Any]],
    *,
    backend: Backend = "auto",
    max_detections: int = COCO_MAX_DETECTIONS,
) -> Metrics:
    """COCO's box metrics of some results, computed without printing anything and without touching the inputs.

    As in COCO, at most the best 100 detections per image and class count, crowd boxes are neither to be found nor
    false when hit, and sizes go by the annotation's ``area`` (``w * h`` where it has none). Annotation ids are
    renumbered, because both backends take an id of 0 for "unmatched".

    Objects marked ``ignore`` (VOC's difficult ones) count as in VOC: they are not to be found, and any number of
    detections that match them, by the usual overlap, are neither right nor false. pycocotools and faster-coco-eval
    replace ``ignore`` by ``iscrowd`` and score such objects like all others.

    Args:
        ground_truth: A COCO dict: ``images``, ``annotations`` (xywh boxes in pixels) and ``categories``.
        results: COCO result dicts: ``image_id``, the data set's own ``category_id``, ``bbox`` xywh, ``score``.
        backend: "auto" prefers faster-coco-eval and falls back on pycocotools.
        max_detections: How many detections per image and class count, the best ones; at least 10.

    Raises:
        DataError: No images or no categories, or an entry that can't be scored.
        MissingDependencyError: The backend, or with "auto" either, is not installed.
    """
    image_ids = {int(image["id"]) for image in ground_truth.get("images", ())}
    names = {int(category["id"]): str(category["name"]) for category in ground_truth.get("categories", ())}
    if not image_ids or not names:
        counts = f"{count(len(image_ids), 'image')} and {count(len(names), 'class', 'classes')}"
        raise DataError(f"nothing to score: the ground truth has {counts}; check that the file is the one meant")
    category_ids = sorted(names)
    annotations = enumerate(ground_truth.get("annotations", ()))
    truth = [_entry(f"annotations[{index}]", index + 1, row, image_ids, names) for index, row in annotations]
    found = [_entry(f"results[{index}]", index + 1, row, image_ids, names) for index, row in enumerate(results)]
    boxes = Counter(row["category_id"] for row in truth if not row["iscrowd"] and not row["ignore"])
    truth = _out_of_range(truth, found)
    precision, recall = _run(_load(backend), sorted(image_ids), category_ids, truth, found, max_detections)
    detections = Counter(row["category_id"] for row in found)
    per_class = [
        ClassMetrics(
            id=key,
            name=names[key],
            AP=_mean(precision[:, :, index, 0, -1]),
            AP50=_mean(precision[0, :, index, 0, -1]),
            boxes=boxes[key],
            detections=detections[key],
        )
        for index, key in enumerate(category_ids)
    ]
    small, medium, large = 1, 2, 3  # the backends' order of area ranges; 0 is all of them
    return Metrics(
        AP=_mean(precision[..., 0, -1]),
        AP50=_mean(precision[0, ..., 0, -1]),
        AP75=_mean(precision[5, ..., 0, -1]),
        APs=_mean(precision[..., small, -1]),
        APm=_mean(precision[..., medium, -1]),
        APl=_mean(precision[..., large, -1]),
        AR1=_mean(recall[..., 0, 0]),
        AR10=_mean(recall[..., 0, 1]),
        AR100=_mean(recall[..., 0, 2]),
        ARs=_mean(recall[..., small, -1]),
        ARm=_mean(recall[..., medium, -1]),
        ARl=_mean(recall[..., large, -1]),
        per_class=per_class,
        images=len(image_ids),
        max_detections=max_detections,
    )


def format_metrics(metrics: Metrics) -> str:
    """The twelve figures and AP by class as a table for the screen, at most 100 columns wide, figures in 0..1.

    Up to 25 classes are listed from best to worst; of more, the best ten beside the worst ten, and classes without
    boxes are only counted. "-" is undefined.
    """
    classes = sorted(metrics.per_class, key=lambda row: -1.0 if row["AP"] is None else row["AP"], reverse=True)
    listed = classes if len(classes) <= _FULL_TABLE else [row for row in classes if row["AP"] is not None]
    boxes = sum(row["boxes"] for row in classes)
    figures = asdict(metrics)
    counts = (
        count(metrics.images, "image"),
        count(boxes, "box", "boxes"),
        count(len(classes), "class", "classes"),
    )
    lines = [", ".join(counts), "", f"{'average precision':<41}average recall, IoU 0.50:0.95"]
    for left, left_text, right, right_text in FIGURE_ROWS:
        half = f"  {left:<5} {left_text:<22}{_figure(figures[left])}"
        right_text = right_text.replace("100", str(metrics.max_detections))
        right_name = right.replace("100", str(metrics.max_detections))
        lines.append(f"{half}      {right_name:<5} {right_text:<33}{_figure(figures[right])}")
    lines.append("")
    if len(listed) <= _FULL_TABLE:
        lines += _class_table("class", listed)
    else:
        best = _class_table(f"best {_SHORT_TABLE} classes", listed[:_SHORT_TABLE])
        worst = _class_table(f"worst {_SHORT_TABLE} classes", listed[: -_SHORT_TABLE - 1 : -1])
        lines += [f"{left}    {right}" for left, right in zip(best, worst, strict=True)]
    if absent := len(classes) - len(listed):
        lines.append(f"{count(absent, 'class', 'classes')} without a box, not listed and left out of the means")
    return "\n".join(lines)


def _class_table(title: str, rows: list[ClassMetrics]) -> list[str]:
    return [f"{title:<22} {'AP':>6} {'AP50':>6} {'boxes':>6}"] + [
        f"{_fit(row['name'], 22)} {_figure(row['AP'])} {_figure(row['AP50'])} {row['boxes']:>6}" for row in rows
    ]


def _fit(text: str, width: int) -> str:
    """``text`` on exactly ``width`` terminal columns; East Asian characters take two, combining ones none."""
    shown, used = "", 0
    for char in " ".join(text.split()):
        columns = 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if used + columns > width:
            break
        shown, used = shown + char, used + columns
    return shown + " " * (width - used)


def _figure(value: float | None) -> str:
    return f"{'-':>6}" if value is None else f"{value:6.3f}"


def _entry(place: str, number: int, row: dict[str, Any], image_ids: set[int], names: dict[int, str]) -> dict[str, Any]:
    """What the backends need of an annotation or of a result (which has a score), as a new dict with its own id."""
    is_result = place.startswith("results")
    try:
        image_id, category_id = int(row["image_id"]), int(row["category_id"])
        x, y, width, height = (float(edge) for edge in row["bbox"])
        score = float(row["score"]) if is_result else 1.0
        # A result's size is its box's; an annotation's is its own area, in COCO that of the outline.
        area = width * height if is_result or row.get("area") is None else float(row["area"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{place} can't be scored, a field is missing or odd: {error!r} in {row!r:.200}") from error
    place = f"{place} (image {image_id})"
    if image_id not in image_ids:
        raise DataError(f"{place}: no such image in the ground truth; score the split the entry came from")
    if category_id not in names:
        raise DataError(f"{place}: no category {category_id} in the ground truth; use the ids of the data set")
    if not all(map(math.isfinite, (x, y, width, height, score, area))):
        raise DataError(f"{place}: box {row['bbox']}, score {score} or area {area} is not finite; drop the entry")
    crowd = 0 if is_result else int(row.get("iscrowd") or 0)
    entry = {"id": number, "image_id": image_id, "category_id": category_id, "iscrowd": crowd}
    ignore = not is_result and is_ignored(row)
    return {**entry, "bbox": [x, y, width, height], "area": area, "score": score, "ignore": ignore}


def _out_of_range(truth: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ground truth in which ignored objects are of a size that no range of areas holds, one for each detection on them.

    The backends overwrite ``ignore``; objects out of range are what they do leave out. One such object takes one
    detection, a second would be false.
    """
    if not any(row["ignore"] for row in truth):
        return truth
    by_class: dict[tuple[int, int], list[list[float]]] = defaultdict(list)
    for row in found:
        by_class[row["image_id"], row["category_id"]].append(row["bbox"])
    rows = []
    for row in truth:
        copies = 1
        if row["ignore"] and not row["iscrowd"]:
            row = {**row, "area": OUT_OF_RANGE}
            near = by_class.get((row["image_id"], row["category_id"]), [])
            copies = max(1, int((xywh_ious(row["bbox"], near) >= LEAST_OVERLAP).sum()))
        rows += [row] * copies
    return [{**row, "id": number} for number, row in enumerate(rows, 1)]


def _load(backend: Backend) -> tuple[Any, Any]:
    """The classes ``COCO`` and ``COCOeval`` of a backend; imported late, for neither is cheap."""
    with contextlib.suppress(ImportError):
        if backend in ("auto", "faster-coco-eval"):
            faster = importlib.import_module("faster_coco_eval")
            return faster.COCO, faster.COCOeval_faster
    with contextlib.suppress(ImportError):
        if backend in ("auto", "pycocotools"):
            cocoeval = importlib.import_module("pycocotools.cocoeval")
            return importlib.import_module("pycocotools.coco").COCO, cocoeval.COCOeval
    wanted = "faster-coco-eval or pycocotools" if backend == "auto" else backend
    raise MissingDependencyError(f"scoring needs {wanted}, which is missing; {install_extra('score')}")


def _run(
    classes: tuple[Any, Any],
    image_ids: list[int],
    category_ids: list[int],
    truth: list[Any],
    found: list[Any],
    max_detections: int,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision ``(10, 101, K, 4, 3)`` and recall ``(10, K, 4, 3)`` over IoU, recall, class, area, detections."""
    index_class, evaluator_class = classes
    images, categories = [{"id": key} for key in image_ids], [{"id": key} for key in category_ids]
    # pycocotools reports its progress with print.
    with contextlib.redirect_stdout(io.StringIO()):
        indices = []
        for annotations in (truth, found):
            # Filled by hand: loadRes of pycocotools fails on an empty list, and the constructor wants a file.
            index = index_class()
            index.dataset = {"images": images, "categories": categories, "annotations": annotations}
            index.createIndex()
            indices.append(index)
        evaluator = evaluator_class(*indices, iouType="bbox")
        evaluator.params.maxDets = [1, 10, max_detections]
        evaluator.evaluate()
        evaluator.accumulate()
    return np.asarray(evaluator.eval["precision"]), np.asarray(evaluator.eval["recall"])


def _mean(values: NDArray[np.float64]) -> float | None:
    """The mean of what is defined, the rest being -1; rounded, for the backends differ in the sixteenth digit."""
    defined = values[values > -1]
    return round(float(defined.mean()), 10) if defined.size else None

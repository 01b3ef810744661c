"""A model, a data set, its score: what the eval command and `mobiledet.evaluate` share."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobiledet.data.coco import CocoDataset
from mobiledet.evaluation.metrics import COCO_MAX_DETECTIONS, Metrics, score_detections
from mobiledet.evaluation.predictions import checkpoint_record, metrics_record, model_record, predict_dataset
from mobiledet.evaluation.thresholds import best_threshold
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.choose import exported_path
from mobiledet.runtime.detector import Detector
from mobiledet.structures import ImageArray
from mobiledet.utils.progress import progress_bar
from mobiledet.utils.text import count

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Score:
    """How a model does on a data set.

    Attributes:
        metrics: The COCO figures.
        threshold: The score with the best F1 over all classes; None without ground truth.
        results: All detections, as COCO results.
        record: The content of metrics.json: figures, threshold, and exactly which model they belong to.
        dataset: The images it was scored on.
        card: What the model says about itself.
        brightness: Mean grey level, 0..255, of each image by its id; empty where it wasn't measured.
    """

    metrics: Metrics
    threshold: float | None
    results: list[dict[str, Any]]
    record: dict[str, Any]
    dataset: CocoDataset
    card: ModelCard
    brightness: dict[int, float]


def most_counted(max_detections: int) -> int:
    """How many detections per image and class are scored of a model that gives so many per image."""
    return max(COCO_MAX_DETECTIONS, max_detections)


def warn_of_many_objects(dataset: CocoDataset, most: int) -> None:
    """Log a warning where images have more objects than can be found."""
    counts = [int((~dataset[index].target.iscrowd).sum()) for index in range(len(dataset))]
    if over := [objects for objects in counts if objects > most]:
        logger.warning(
            "%s with more than %d objects (up to %d), of which at most %d can be found and count; "
            "see model.postprocess.max_detections and --max-dets",
            count(len(over), "image"),
            most,
            max(over),
            most,
        )


def score_model(
    model: str,
    choose: Callable[[Mapping[str, Any]], CocoDataset],
    *,
    limit: int | None = None,
    max_detections: int | None = None,
    batch_size: int = 16,
    workers: int = 2,
    threads: int = 0,
    device: str = "auto",
    labels: str | Path | Sequence[str] | None = None,
    brightness: bool = False,
) -> Score:
    """Score a checkpoint or an exported model.

    Args:
        model: A checkpoint, a run folder, a name, or an exported file.
        choose: Gives the data to score on, from the model's own settings, which are plain data, or empty.
        limit: Only the first images.
        max_detections: How many detections per image and class count; None for COCO's 100, or as many as the model
            gives where these are more.
        batch_size: Images at once, of a model that takes any number.
        workers: Processes that read images for a checkpoint.
        threads: Processor threads; 0 takes all cores.
        device: Of PyTorch, or a provider of the exported model's runtime.
        labels: Names of the classes of a ``.tflite`` file that mobiledet didn't write.
        brightness: Measure that of the images, for a report.

    Raises:
        MobiledetError: The model or the data can't be used, or they have no class in common.
    """
    detector = Detector(model, threads=threads, provider=device, labels=labels)
    exported = exported_path(model, device)
    dataset = choose(detector.card.config)
    if limit is not None:
        dataset = dataset.first(limit)
    logger.info("%s", "\n".join(filter(None, (dataset.report.summary(), dataset.describe("scored on")))))
    levels: dict[int, float] = {}

    def measure(image_ids: Sequence[int], images: Sequence[ImageArray]) -> None:
        levels.update((key, float(image[::4, ::4].mean())) for key, image in zip(image_ids, images, strict=True))

    with progress_bar(total=len(dataset), unit="img") as bar:
        results = predict_dataset(
            detector,
            detector.names,
            dataset,
            batch_size=batch_size if exported is None else detector.card.batch or batch_size,
            workers=workers if exported is None else None,
            on_batch=bar.update,
            on_images=measure if brightness else None,
        )
    truth = dataset.coco_json()
    most = max_detections or most_counted(detector.card.max_detections)
    warn_of_many_objects(dataset, min(most, detector.card.max_detections))
    metrics, threshold = score_detections(truth, results, max_detections=most), best_threshold(truth, results)
    which = (
        checkpoint_record(Path(detector.card.origin["file"]), detector.card.config)
        if exported is None
        else model_record(str(exported), detector)
    )
    record = metrics_record(metrics, threshold, which)
    return Score(metrics, threshold, results, record, dataset, detector.card, levels)


def top_one(results: Sequence[Mapping[str, Any]], dataset: CocoDataset) -> float | None:
    """The share of images, of those with one class, whose best detection is of it; None where there are none.

    Args:
        results: COCO results, of a classifier for instance.
        dataset: What they were found in.
    """
    best: dict[int, Mapping[str, Any]] = {}
    for found in results:
        image_id = found["image_id"]
        best[image_id] = max(best.get(image_id, found), found, key=lambda one: one["score"])
    right = []
    for index in range(len(dataset)):
        labels = set(dataset.labels(index).tolist())
        if len(labels) == 1:
            found = best.get(dataset.image_id(index), {"category_id": None})
            right.append(found["category_id"] == dataset.categories[labels.pop() - 1].id)
    return sum(right) / len(right) if right else None

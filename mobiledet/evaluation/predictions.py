"""A model's detections in a whole data set, as COCO results with the data set's own category ids."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledet.detections import Detections
from mobiledet.errors import DataError
from mobiledet.evaluation.metrics import Metrics
from mobiledet.structures import ImageArray
from mobiledet.utils.text import alike_key, count, listing

if TYPE_CHECKING:
    from mobiledet.data.coco import Category, CocoDataset
    from mobiledet.runtime.detector import Detector

logger = logging.getLogger(__name__)

ImagesCallback = Callable[[Sequence[int], Sequence[ImageArray]], object]


def predict_dataset(
    detect: Callable[[list[ImageArray]], list[Detections]] | Detector,
    names: Sequence[str],
    dataset: CocoDataset,
    *,
    batch_size: int = 1,
    workers: int | None = None,
    on_batch: Callable[[int], object] | None = None,
    on_images: ImagesCallback | None = None,
) -> list[dict[str, Any]]:
    """COCO results of a whole data set; the model's classes are matched to the data set's by name.

    Args:
        detect: Images to their detections; with ``workers`` a Detector.
        names: The class names of these detections.
        dataset: The images.
        batch_size: Images at once.
        workers: Processes that read and resize images for a checkpoint, with PyTorch's loader; 0 does it in this
            process. None reads image by image and needs no PyTorch.
        on_batch: Called after each batch with its number of images; returning False stops there.
        on_images: Called with the ids of the images and their pixels, of the network's size where processes read them.

    Returns:
        ``image_id, category_id, bbox (xywh), score`` of every detection.

    Raises:
        DataError: Model and data have no class in common, or an image can't be read.
    """
    category_ids = match_categories(names, dataset.categories)
    known_ids = tuple(-1 if key is None else key for key in category_ids)
    found = (
        _read_here(detect, dataset, batch_size, on_images)
        if workers is None
        else _read_by_workers(detect, dataset, batch_size, workers, on_images)  # type: ignore[arg-type]
    )
    results: list[dict[str, Any]] = []
    for image_ids, batch in found:
        for image_id, detections in zip(image_ids, batch, strict=True):
            known = detections.keep([category_ids[label - 1] is not None for label in detections.labels])
            results += replace(known, category_ids=known_ids).to_coco(image_id)
        if on_batch is not None and on_batch(len(image_ids)) is False:
            break
    return results


def match_categories(names: Sequence[str], categories: Sequence[Category]) -> list[int | None]:
    """The data set's category id of each of the model's classes, by name; None where it has no such class.

    Names that only differ in case, spaces, underscores or the form of a letter are the same where only one class of
    either side can be meant. What is matched in this way, and the classes that the model doesn't know, are logged.

    Raises:
        DataError: Not one name is shared.
    """
    by_name = {category.name: category.id for category in categories}
    ids = [by_name.get(name) for name in names]
    left = {
        "model": _by_key(name for name in names if name not in by_name),
        "data": _by_key(name for name in by_name if name not in set(names)),
    }
    alike = {
        mine[0]: left["data"][key][0]
        for key, mine in left["model"].items()
        if len(mine) == len(left["data"].get(key, ())) == 1
    }
    ids = [by_name[alike[name]] if name in alike else found for name, found in zip(names, ids, strict=True)]
    if alike:
        pairs = listing(f"{mine!r} for {theirs!r}" for mine, theirs in alike.items())
        logger.warning("class names of the model taken for those of the data that are written otherwise: %s", pairs)
    unknown = [name for name in by_name if name not in set(names) and name not in alike.values()]
    if unknown and len(unknown) < len(by_name):
        logger.warning(
            "the model doesn't know %s of the data: %s; their objects count as not found",
            count(len(unknown), "class", "classes"),
            listing(map(repr, unknown), 10),
        )
    if all(found is None for found in ids):
        raise DataError(
            f"the model's classes ({listing(names)}) and the data's ({listing(by_name)}) "
            "have no name in common; take data with the classes it was trained on"
        )
    return ids


def _by_key(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        found[alike_key(name)].append(name)
    return found


def metrics_record(metrics: Metrics, threshold: float | None, model: dict[str, Any]) -> dict[str, Any]:
    """The content of metrics.json: the figures, and exactly which model they belong to.

    ``threshold`` is the score with the best F1; for ``model`` see :func:`model_record` and :func:`checkpoint_record`.
    """
    return {**metrics.to_json_dict(), "best_f1_threshold": threshold, "model": model}


def checkpoint_record(weights: Path, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Which weights and settings a checkpoint's figures belong to."""
    from mobiledet.config import config_from_plain, config_hash
    from mobiledet.utils.files import file_digest

    return {
        "file": str(weights),
        "sha256": file_digest(weights),
        "config_hash": config_hash(config_from_plain(settings)),
    }


def model_record(path: str, detector: Detector) -> dict[str, Any]:
    """Which file or folder an exported model's figures belong to, and the checkpoint it was made from."""
    digest, place = hashlib.sha256(), Path(path)
    for file in sorted(place.iterdir()) if place.is_dir() else [place]:
        if file.is_file():
            digest.update(file.read_bytes())
    return {
        "file": path,
        "sha256": digest.hexdigest(),
        "precision": detector.card.precision,
        "runtime": detector.backend.runtime,
        "checkpoint": dict(detector.card.origin),
    }


Batches = Iterator[tuple[list[int], list[Detections]]]


def _read_here(
    detect: Callable[[list[ImageArray]], list[Detections]],
    dataset: CocoDataset,
    batch_size: int,
    on_images: ImagesCallback | None,
) -> Batches:
    for start in range(0, len(dataset), batch_size):
        indices = range(start, min(start + batch_size, len(dataset)))
        image_ids, images = [dataset.image_id(index) for index in indices], [dataset.read(index) for index in indices]
        if on_images is not None:
            on_images(image_ids, images)
        yield image_ids, detect(images)


def _read_by_workers(
    detector: Detector, dataset: CocoDataset, batch_size: int, workers: int, on_images: ImagesCallback | None
) -> Batches:
    from mobiledet.data import loader

    resize = detector.card.resize
    if not resize.fixed:
        batch_size = 1  # beside a larger image, a smaller one would be padded, and scored a little differently
    sampler = loader.in_order(len(dataset), batch_size)
    with closing(loader.Batches(loader.DetectionImages(dataset, resize=resize), sampler, workers=workers)) as batches:
        for batch in batches:
            pixels = batch.images.permute(0, 2, 3, 1).numpy()  # type: ignore[union-attr]  # all of one size
            if on_images is not None:
                on_images(batch.image_ids, list(pixels))
            yield batch.image_ids, detector.detect_fitted(pixels, batch.geometries)

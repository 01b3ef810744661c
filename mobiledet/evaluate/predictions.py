"""A model's detections as results for a data set, classes matched by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mobiledet.data.images import read_image
from mobiledet.errors import DataError
from mobiledet.evaluate.metrics import detections_to_coco
from mobiledet.structures import Detections, ImageArray

if TYPE_CHECKING:
    from mobiledet.data.coco import Category, CocoDataset


class ClassMatching:
    """Which class of a model is which category of a data set.

    Args:
        names: The model's class names.
        categories: The data set's.

    Raises:
        DataError: not one name is shared.
    """

    def __init__(self, names: Sequence[str], categories: Sequence[Category]) -> None:
        self.category_ids = match_categories(names, categories)

    def results(self, image_id: int, detections: Detections) -> list[dict[str, Any]]:
        """``image_id, category_id, bbox (xywh), score`` of every detection whose class the data set has."""
        known = detections.keep([self.category_ids[label - 1] is not None for label in detections.labels])
        return detections_to_coco(image_id, known, [-1 if key is None else key for key in self.category_ids])


def detect_dataset(
    detect: Callable[[list[ImageArray]], list[Detections]],
    names: Sequence[str],
    dataset: CocoDataset,
    *,
    batch: int = 1,
    on_batch: Callable[[int], object] | None = None,
) -> list[dict[str, Any]]:
    """COCO results of a whole data set, with the data set's own category ids; needs no PyTorch.

    Args:
        detect: Pictures to their detections.
        names: The class names of these detections.
        dataset: The pictures.
        batch: Pictures given to ``detect`` at once.
        on_batch: Called after each batch with its number of pictures.

    Raises:
        DataError: model and data have no class in common, or a picture can't be read.
    """
    matching = ClassMatching(names, dataset.categories)
    results: list[dict[str, Any]] = []
    for start in range(0, len(dataset), batch):
        records = [dataset[index] for index in range(start, min(start + batch, len(dataset)))]
        pictures = [read_image(record.path, apply_orientation=record.apply_orientation) for record in records]
        for record, detections in zip(records, detect(pictures), strict=True):
            results += matching.results(record.image_id, detections)
        if on_batch is not None:
            on_batch(len(records))
    return results


def match_categories(names: Sequence[str], categories: Sequence[Category]) -> list[int | None]:
    """The data set's category id of each of the model's classes, by name; None where it has no such class.

    Raises:
        DataError: not one name is shared.
    """
    by_name = {category.name: category.id for category in categories}
    ids = [by_name.get(name) for name in names]
    if all(found is None for found in ids):
        raise DataError(
            f"the model's classes ({_some(names)}) and the data's ({_some([c.name for c in categories])}) "
            "have no name in common; take data with the classes it was trained on"
        )
    return ids


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:6])
    return f"{shown}, ... {len(names)} in all" if len(names) > 6 else shown

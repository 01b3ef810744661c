"""A PyTorch data set of one's own, in place of a folder of images and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobiledet.data.checks import CocoColumns
from mobiledet.data.coco import CocoDataset
from mobiledet.data.faults import CheckReport
from mobiledet.errors import DataError
from mobiledet.structures import RANGE_SLACK, BoolArray, FloatArray, ImageArray, IntArray
from mobiledet.utils.progress import progress_bar


class DetectionDataset(Protocol):
    """What torchvision's detection references use: an image and ``{"boxes", "labels"}`` by index.

    Images are ``(3, H, W)`` tensors (uint8, or floats from 0 to 1), ``(H, W, 3)`` uint8 RGB arrays or PIL images;
    boxes ``(N, 4)`` xyxy in pixels; labels ``(N,)`` in ``1..K``. What ``iscrowd`` ``(N,)``, if there, marks is neither
    trained on nor scored. An attribute ``classes`` gives the K names.
    """

    def __getitem__(self, index: int, /) -> tuple[Any, Any]:
        """Image and target at ``index``."""

    def __len__(self) -> int:
        """How many there are."""


def from_torch(dataset: DetectionDataset, name: str = "train_data", names: Sequence[str] | None = None) -> CocoDataset:
    """A data set that is trained on and scored like one from a folder; images are read from ``dataset`` when needed.

    Every item is looked at once, for its size and its boxes, which must not change from one look to the next: random
    changes belong into ``augment``.

    Args:
        dataset: The images and targets.
        name: What to call it in messages.
        names: The K class names; None takes ``dataset.classes``, or "class 1" and so on.

    Raises:
        DataError: An item isn't an image and a target, or its boxes and labels can't be right.
    """
    sizes, boxes, labels, crowds = [], [], [], []
    for index in progress_bar(range(len(dataset)), what=f"looking at {name}"):
        image, target = _item(dataset, index, name)
        sizes.append(image.shape[:2])
        boxes.append(target[0])
        labels.append(target[1])
        crowds.append(target[2])
    if not sizes:
        raise DataError(f"{name} has no images")
    highest = int(max((int(found.max(initial=0)) for found in labels), default=0))
    given = names if names is not None else getattr(dataset, "classes", None)
    classes = (
        tuple(map(str, given)) if given is not None else tuple(f"class {label}" for label in range(1, highest + 1))
    )
    if highest > len(classes):
        raise DataError(f"{name} has label {highest}, but names only {len(classes)} classes; labels are 1..K")
    counts = [len(found) for found in labels]
    flat = np.concatenate(boxes).astype(np.float64).reshape(-1, 4)
    flat[:, 2:] -= flat[:, :2]
    total = len(flat)
    columns = CocoColumns(
        offsets=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes_xywh=flat,
        labels=np.concatenate(labels).astype(np.int64),
        iscrowd=np.concatenate(crowds),
        ignore=np.zeros(total, np.bool_),
        areas=flat[:, 2] * flat[:, 3],
        annotation_ids=np.arange(1, total + 1),
        emptied=np.zeros(len(sizes), np.bool_),
        category_ids=np.arange(1, len(classes) + 1),
        names=classes,
        image_ids=np.arange(1, len(sizes) + 1),
        file_names=[f"{index}" for index in range(len(sizes))],
        sizes=np.array(sizes, np.int64).reshape(-1, 2),
        upright=np.zeros(len(sizes), np.bool_),
    )
    report = CheckReport(name)
    report.images, report.boxes, report.classes = len(sizes), total, len(classes)
    return CocoDataset(
        columns,
        annotation_file=Path(name),
        image_dir=Path(name),
        report=report,
        reader=lambda file_name: _pixels(dataset[int(file_name)][0], f"{name}[{file_name}]"),
    )


def _item(
    dataset: DetectionDataset, index: int, name: str
) -> tuple[ImageArray, tuple[FloatArray, IntArray, BoolArray]]:
    place = f"{name}[{index}]"
    try:
        image, target = dataset[index]
        boxes = np.asarray(target["boxes"], np.float32).reshape(-1, 4)
        labels = np.asarray(target["labels"]).reshape(-1)
        crowd = np.asarray(target.get("iscrowd", np.zeros(len(labels)))).reshape(-1).astype(np.bool_)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise DataError(
            f'{place} is not an image and a target {{"boxes": (N, 4), "labels": (N,)}}: {type(error).__name__}: {error}'
        ) from error
    pixels = _pixels(image, place)
    height, width = pixels.shape[:2]
    if not len(boxes) == len(labels) == len(crowd):
        raise DataError(f"{place} has {len(boxes)} boxes and {len(labels)} labels, and {len(crowd)} values of iscrowd")
    if len(labels) and (not np.issubdtype(labels.dtype, np.integer) or labels.min() < 1):
        raise DataError(f"{place}: labels must be whole numbers from 1 (0 is background), not {labels.tolist()[:5]}")
    if not np.isfinite(boxes).all() or (boxes[:, 2:] <= boxes[:, :2]).any():
        raise DataError(f"{place}: boxes must be x1, y1, x2, y2 with x1 < x2 and y1 < y2, not {boxes.tolist()[:2]}")
    if len(boxes) and (boxes[:, :2].max(axis=0) >= (width, height)).any():
        raise DataError(f"{place}: a box lies outside of its image of {width}x{height} pixels; boxes are in pixels")
    return pixels, (boxes, labels, crowd)


def _pixels(image: Any, place: str) -> ImageArray:
    """An item's image as ``(H, W, 3)`` uint8 RGB."""
    is_tensor = hasattr(image, "detach")
    if is_tensor:
        image = image.detach().cpu().numpy()
    elif not isinstance(image, np.ndarray):
        image = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    if is_tensor and image.ndim == 3 and image.shape[0] == 3:
        image = image.transpose(1, 2, 0)
    if is_tensor and np.issubdtype(image.dtype, np.floating):
        if image.size and not (image.min() >= -RANGE_SLACK and image.max() <= 1 + RANGE_SLACK):
            raise DataError(f"{place}: float images must lie in 0..1, not {image.min():.4g}..{image.max():.4g}")
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise DataError(f"{place}: an image of shape {image.shape} and type {image.dtype}; see DetectionDataset")
    return np.ascontiguousarray(image)

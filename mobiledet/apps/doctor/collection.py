"""All splits of a data set as one table of images and one of boxes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mobiledet.data.coco import CocoDataset, ImageRecord
from mobiledet.errors import DataError
from mobiledet.structures import BoolArray, FloatArray, IntArray
from mobiledet.utils.text import listing


@dataclass(frozen=True)
class Collection:
    """N images and M boxes; images of a split lie together, boxes of an image too.

    Attributes:
        datasets: name of each split -> its data, in the order the rows come in.
        names: K class names.
        split: ``(N,)`` number of each image's split.
        index: ``(N,)`` number of each image within its split.
        sizes: ``(N, 2)`` heights and widths of the images as they are read.
        offsets: ``(N + 1,)``; image ``i`` has the boxes ``offsets[i]:offsets[i + 1]``.
        boxes: ``(M, 4)`` xyxy in the pixels of their images.
        labels: ``(M,)`` in ``1..K``.
        iscrowd: ``(M,)``: crowds, and boxes marked difficult or ignore; neither trained on nor scored.
    """

    datasets: Mapping[str, CocoDataset]
    names: tuple[str, ...]
    split: IntArray
    index: IntArray
    sizes: IntArray
    offsets: IntArray
    boxes: FloatArray
    labels: IntArray
    iscrowd: BoolArray

    def __len__(self) -> int:
        return len(self.split)

    @property
    def splits(self) -> tuple[str, ...]:
        """Names of the splits; ``splits[split[row]]`` is that of an image."""
        return tuple(self.datasets)

    @cached_property
    def image(self) -> IntArray:
        """``(M,)`` row of each box's image."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @cached_property
    def counts(self) -> IntArray:
        """``(N,)`` boxes of each image, without crowds."""
        return np.bincount(self.image[~self.iscrowd], minlength=len(self)).astype(np.int64)

    def record(self, row: int) -> ImageRecord:
        """The image of a row."""
        return self.datasets[self.splits[self.split[row]]][int(self.index[row])]

    def place(self, row: int) -> str:
        """``split/file name`` of an image, as the report names it."""
        return f"{self.splits[self.split[row]]}/{self.record(row).path.name}"

    def rows(self, split: str) -> IntArray:
        """The rows of a split's images; none for a split that isn't there."""
        return np.flatnonzero(np.array(self.splits)[self.split] == split)

    def class_counts(self) -> IntArray:
        """``(splits, K)`` boxes of each class in each split, without crowds."""
        real = ~self.iscrowd
        counts = np.zeros((len(self.splits), len(self.names)), np.int64)
        np.add.at(counts, (self.split[self.image[real]], self.labels[real] - 1), 1)
        return counts


def collect(datasets: Mapping[str, CocoDataset]) -> Collection:
    """Put the splits of a data set together; train comes first, then val, then the others.

    Raises:
        DataError: no split, or splits whose classes differ.
    """
    if not datasets:
        raise DataError("there are no splits to look at; name a data set with images")
    order = sorted(datasets, key=lambda name: ({"train": 0, "val": 1}.get(name, 2), name))
    names = datasets[order[0]].names
    for split in order:
        if datasets[split].names != names:
            raise DataError(
                f"split {split!r} has other classes than {order[0]!r} ({listing(datasets[split].names)}, not "
                f"{listing(names)}); give every split's file the same list of categories"
            )
    records = [datasets[split][i] for split in order for i in range(len(datasets[split]))]
    lengths = [len(datasets[split]) for split in order]
    targets = [record.target for record in records]
    return Collection(
        datasets={split: datasets[split] for split in order},
        names=names,
        split=np.repeat(np.arange(len(order)), lengths),
        index=np.concatenate([np.arange(length) for length in lengths]).astype(np.int64),
        sizes=np.array([(r.height, r.width) for r in records], np.int64).reshape(-1, 2),
        offsets=np.concatenate([[0], np.cumsum([len(target) for target in targets])]).astype(np.int64),
        boxes=np.concatenate([np.zeros((0, 4), np.float32), *(target.boxes for target in targets)]),
        labels=np.concatenate([np.zeros(0, np.int64), *(target.labels for target in targets)]),
        iscrowd=np.concatenate([np.zeros(0, np.bool_), *(target.iscrowd for target in targets)]),
    )

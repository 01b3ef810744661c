"""AP beside the times: every model detects in the same pictures, after the measuring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobiledet.data.coco import CocoDataset


def open_data(root: Path, split: str, limit: int | None) -> CocoDataset:
    """The pictures to score on.

    Raises:
        DataError: they aren't there or can't be used.
    """
    from mobiledet.data.opening import open_split

    dataset = open_split(root, split)
    return dataset if limit is None else dataset.first(limit)


def average_precision(dataset: CocoDataset, results: Path) -> float | None:
    """COCO's AP in points of 100; None where the data defines none.

    Args:
        dataset: What was detected in.
        results: A file of COCO results.

    Raises:
        MissingDependencyError: no package that scores is installed.
    """
    from mobiledet.evaluate.metrics import score_detections

    found: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8"))
    score = score_detections(dataset.coco_json(), found).AP
    return None if score is None else round(100 * score, 3)

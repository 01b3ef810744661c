"""Scoring anything that detects, checkpoint or exported file, on a data set; PyTorch is loaded for checkpoints only."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledet.evaluate.metrics import Metrics
from mobiledet.evaluate.predictions import detect_dataset
from mobiledet.runtime.detector import Detector
from mobiledet.runtime.network import exported_format

if TYPE_CHECKING:
    from mobiledet.config import Config
    from mobiledet.data.coco import CocoDataset


@dataclass(frozen=True)
class Contestant:
    """A model to be scored.

    Attributes:
        results: Data set, and what to call after each batch with its number of pictures, to COCO results.
        config: What it was trained with, as plain types.
        record: Exactly which weights these are.
    """

    results: Callable[[CocoDataset, Callable[[int], object]], list[dict[str, Any]]]
    config: dict[str, Any]
    record: dict[str, Any]


def open_contestant(
    path: str, *, device: str = "auto", threads: int = 0, batch_size: int = 16, workers: int = 2
) -> Contestant:
    """Whatever ``path`` means, ready to be scored.

    Args:
        path: A checkpoint, a run folder, pretrained weights by name, or an exported file or folder.
        device: Of PyTorch, or a provider of the runtime.
        threads: Of the network; 0 takes all cores.
        batch_size: Pictures at once, for checkpoints; exported files have their own.
        workers: Processes that read pictures, for checkpoints.

    Raises:
        MobiledetError: it can't be used.
    """
    if exported_format(path) is not None:
        return _exported(path, device, threads)
    from mobiledet.runtime.pytorch import load_predictor
    from mobiledet.train.precision import choose_device, set_threads

    set_threads(threads)
    predictor, config, content = load_predictor(path, device=choose_device(device, setting="--device "))

    def results(dataset: CocoDataset, on_batch: Callable[[int], object]) -> list[dict[str, Any]]:
        found = predictor.predict_dataset(
            dataset, batch_size=batch_size, workers=workers, on_batch=lambda count: on_batch(count) is not False
        )
        return found or []

    return Contestant(results, config.plain(), weights_record(content["path"], config))


def metrics_record(metrics: Metrics, threshold: float | None, model: dict[str, Any]) -> dict[str, Any]:
    """What metrics.json holds: the figures, and exactly which model they belong to."""
    return {**metrics.to_json_dict(), "best_f1_threshold": threshold, "model": model}


def weights_record(weights: Path, config: Config) -> dict[str, Any]:
    """Which weights and settings a checkpoint's figures belong to."""
    from mobiledet.config import config_hash
    from mobiledet.utils.files import file_digest

    return {"file": str(weights), "sha256": file_digest(weights), "config_hash": config_hash(config)}


def _exported(path: str, device: str, threads: int) -> Contestant:
    detector = Detector(path, threads=threads, provider=None if device in ("auto", "cpu") else device)

    def results(dataset: CocoDataset, on_batch: Callable[[int], object]) -> list[dict[str, Any]]:
        return detect_dataset(detector, detector.names, dataset, batch=detector.card.batch, on_batch=on_batch)

    record = {
        "file": path,
        "sha256": _digest(Path(path)),
        "precision": detector.card.precision,
        "runtime": detector.network.runtime,
        "checkpoint": dict(detector.card.origin),
    }
    return Contestant(results, dict(detector.card.config), record)


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the files of a folder one after the other, by name."""
    digest = hashlib.sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()

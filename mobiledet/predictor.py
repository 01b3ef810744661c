"""One call: picture in, detections out; and the same call over a whole data set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mobiledet.checkpoint import load_checkpoint
from mobiledet.config import Config, config_from_plain
from mobiledet.data.coco import Category, CocoDataset
from mobiledet.data.loader import Batch, Batches, PictureSet, PlainSampler, Sample, collate
from mobiledet.data.transforms import fit_image
from mobiledet.errors import CheckpointError, DataError
from mobiledet.evaluation import detections_to_coco
from mobiledet.models.build import build_detector
from mobiledet.models.detector import Detector
from mobiledet.pretrained.store import resolve_weights
from mobiledet.structures import Detections, ImageArray, Target


class Predictor:
    """Runs a detector on pictures of any size.

    Args:
        model: The network; it is put into evaluation mode.
        names: Its ``K`` class names.
        device: Where it runs.
    """

    def __init__(self, model: Detector, names: Sequence[str], *, device: torch.device | str = "cpu") -> None:
        self.names = tuple(names)
        self.device = torch.device(device)
        # Channels-last halves the time of depthwise convolutions on a CPU.
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def __call__(self, image: ImageArray) -> Detections:
        """Detections in one RGB picture ``(H, W, 3)`` uint8, in its own pixels, best first."""
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype.name != "uint8":
            raise ValueError(f"a picture is (H, W, 3) uint8 RGB, not {image.shape} {image.dtype}")
        fitted, geometry = fit_image(image, self.model.resize)
        return self.predict_batch(collate([Sample(fitted, Target.empty(), geometry, 0)]))[0]

    def predict_batch(self, batch: Batch) -> list[Detections]:
        """Detections of every picture of a batch, in pixels of the pictures as they were read."""
        with torch.inference_mode():
            found = self.model(batch.images_on(self.device))
        return [
            Detections(
                geometry.to_original(one["boxes"].cpu().numpy()),
                one["scores"].cpu().numpy(),
                one["labels"].cpu().numpy(),
                self.names,
            )
            for one, geometry in zip(found, batch.geometries, strict=True)
        ]

    def predict_dataset(
        self,
        dataset: CocoDataset,
        *,
        batch_size: int = 16,
        workers: int = 0,
        on_batch: Callable[[int], bool] | None = None,
    ) -> list[dict[str, Any]] | None:
        """COCO results of a whole data set, with the data set's own category ids.

        Args:
            dataset: The pictures. Its classes are matched to the model's by name.
            batch_size: Pictures at once.
            workers: Processes that read pictures.
            on_batch: Called after each batch with its number of pictures; returning False gives up.

        Returns:
            ``image_id, category_id, bbox (xywh), score`` of every detection; None when ``on_batch`` gave up.

        Raises:
            DataError: model and data have no class in common, or a picture can't be read.
        """
        category_ids = match_categories(self.names, dataset.categories)
        pictures = PictureSet(dataset, resize=self.model.resize)
        if not self.model.resize.fixed:
            batch_size = 1  # beside a larger picture, a smaller one would be padded, and scored a little differently
        results: list[dict[str, Any]] = []
        for batch in Batches(pictures, PlainSampler(len(dataset), batch_size=batch_size), workers=workers):
            for image_id, detections in zip(batch.image_ids, self.predict_batch(batch), strict=True):
                known = detections.keep([category_ids[label - 1] is not None for label in detections.labels])
                results += detections_to_coco(image_id, known, [i if i is not None else -1 for i in category_ids])
            if on_batch is not None and not on_batch(len(batch.image_ids)):
                return None
        return results


def load_predictor(path: str | Path, *, device: torch.device | str = "cpu") -> tuple[Predictor, Config, dict[str, Any]]:
    """A predictor from a checkpoint, a run folder (for its ``best.pt``) or pretrained weights by name.

    Returns:
        The predictor, the config it was trained with, and the checkpoint's content, its file under ``path``.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, no detector, or doesn't fit its own config.
        DownloadError: pretrained weights aren't here and can't be fetched.
    """
    path = resolve_weights(path)
    content = load_checkpoint(path)
    if "config" not in content:
        raise CheckpointError(
            f"{path}: a backbone without a detection head, it finds nothing yet; "
            f"train from it: python tools/train.py configs/finetune_ssd.py model.init={path}"
        )
    config = config_from_plain(content["config"])
    model = build_detector(config.model)
    content["path"] = path
    weights = content["ema"] or content["model"]
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: its weights don't fit its config: {str(error).splitlines()[0]}") from None
    names = [category["name"] for category in content["categories"]]
    return Predictor(model, names, device=device), config, content


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

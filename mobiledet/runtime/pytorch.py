"""One call: picture in, detections out; and the same call over a whole data set."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from mobiledet import __version__
from mobiledet.config import Config, config_from_plain
from mobiledet.data.coco import CocoDataset
from mobiledet.data.loader import Batch, Batches, PictureSet, PlainSampler, Sample, collate
from mobiledet.errors import CheckpointError, ModelFileError
from mobiledet.evaluate.predictions import ClassMatching
from mobiledet.models.build import build_detector
from mobiledet.models.cost import detector_cost
from mobiledet.models.detection_model import DetectionModel
from mobiledet.preprocess import check_picture, fit_image
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.network import Found
from mobiledet.runtime.timing import time_halves
from mobiledet.structures import Detections, ImageArray, Target
from mobiledet.utils.files import file_digest
from mobiledet.weights.checkpoint import load_checkpoint
from mobiledet.weights.store import resolve_weights


class Predictor:
    """Runs a detector on pictures of any size.

    Args:
        model: The network; it is put into evaluation mode.
        names: Its ``K`` class names.
        device: Where it runs.
    """

    def __init__(self, model: DetectionModel, names: Sequence[str], *, device: torch.device | str = "cpu") -> None:
        self.names = tuple(names)
        self.device = torch.device(device)
        # Channels-last halves the time of depthwise convolutions on a CPU.
        self.model = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def __call__(self, image: ImageArray) -> Detections:
        """Detections in one RGB picture ``(H, W, 3)`` uint8, in its own pixels, best first."""
        check_picture(image)
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
        matching = ClassMatching(self.names, dataset.categories)
        pictures = PictureSet(dataset, resize=self.model.resize)
        if not self.model.resize.fixed:
            batch_size = 1  # beside a larger picture, a smaller one would be padded, and scored a little differently
        results: list[dict[str, Any]] = []
        for batch in Batches(pictures, PlainSampler(len(dataset), batch_size=batch_size), workers=workers):
            for image_id, detections in zip(batch.image_ids, self.predict_batch(batch), strict=True):
                results += matching.results(image_id, detections)
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


class CheckpointNetwork:
    """A checkpoint behind the same calls as an exported file.

    Args:
        path: A checkpoint, a run folder, or pretrained weights by name.
        threads: Processor threads of PyTorch in this whole process; 0 takes all cores.
        provider: A device of PyTorch, such as ``"cpu"``; None for a GPU if there is one.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, no detector, or doesn't fit its own config.
        DownloadError: pretrained weights aren't here and can't be fetched.
        ModelFileError: there is no such device.
    """

    def __init__(self, path: str | Path, *, threads: int = 0, provider: str | None = None) -> None:
        torch.set_num_threads(threads or os.cpu_count() or 1)
        self.runtime = f"PyTorch {torch.__version__}"
        try:
            device = torch.device(provider or ("cuda" if torch.cuda.is_available() else "cpu"))
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ModelFileError(f"PyTorch can't use {provider!r} here: {str(error).splitlines()[0]}") from None
        predictor, config, content = load_predictor(path, device=device)
        self.predictor = predictor
        self.card = checkpoint_card(predictor.model, config, content)

    def run(self, pictures: ImageArray, score_threshold: float, iou_threshold: float) -> Found:
        """Detections in pictures ``(B, H, W, 3)`` of the network's size."""
        model = self.predictor.model
        with torch.inference_mode():
            candidates = model.candidates(self._batch(pictures))
            found = model.postprocess.fixed(candidates, score_threshold, iou_threshold)
        return Found(*(tensor.cpu().numpy() for tensor in found))

    def stages(self, pictures: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` (up to decoded boxes) and ``decode+nms`` (the rest)."""
        model, card = self.predictor.model, self.card
        with torch.inference_mode():
            return time_halves(
                lambda: model.candidates(self._batch(pictures)),
                lambda candidates: model.postprocess.fixed(candidates, card.score_threshold, card.iou_threshold),
                rounds,
            )

    def _batch(self, pictures: ImageArray) -> torch.Tensor:
        return torch.from_numpy(pictures).to(self.predictor.device).permute(0, 3, 1, 2)


def checkpoint_card(model: DetectionModel, config: Config, content: Mapping[str, Any]) -> ModelCard:
    """The card of a detector as it stands in its checkpoint.

    Args:
        model: The network.
        config: The checkpoint's config.
        content: The checkpoint, its file under ``path``.
    """
    cost = detector_cost(model)
    fill = tuple(round(float(value)) for value in config.model.mean)
    return ModelCard(
        names=tuple(category["name"] for category in content["categories"]),
        category_ids=tuple(category["id"] for category in content["categories"]),
        resize=model.resize,
        fill=(fill[0], fill[1], fill[2]),
        score_threshold=model.postprocess.score_threshold,
        iou_threshold=model.postprocess.iou_threshold,
        max_detections=model.postprocess.max_detections,
        shown_threshold=content.get("threshold"),
        head=config.model.head.kind,
        gmacs=round(cost.gmacs, 4),
        params=round(cost.params_m * 1e6),
        config=config.plain(),
        origin={"file": str(content["path"]), "sha256": file_digest(content["path"])},
        versions={"mobiledet": __version__, "torch": torch.__version__},
    )

"""A checkpoint, run by PyTorch; and the devices and threads that PyTorch computes with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mobiledet.config import config_from_plain
from mobiledet.errors import CheckpointError, ConfigError
from mobiledet.models.build import build_detector
from mobiledet.models.cost import detector_cost
from mobiledet.models.detection_model import DetectionModel
from mobiledet.models.quantization import imitate_int8
from mobiledet.runtime.base import RawDetections
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.timing import time_halves
from mobiledet.structures import ImageArray, Size
from mobiledet.utils.files import file_digest
from mobiledet.version import __version__
from mobiledet.weights.checkpoint import load_checkpoint
from mobiledet.weights.store import resolve_weights
from mobiledet.weights.transfer import check_content


class PyTorchBackend:
    """A detection model behind the same calls as an exported file.

    The model is put into evaluation mode; for its card see :func:`model_card`.
    """

    def __init__(self, model: DetectionModel, card: ModelCard, *, device: torch.device | str = "cpu") -> None:
        self.runtime = f"PyTorch {torch.__version__}"
        self.card = card
        self.device = torch.device(device)
        # Channels-last halves the time of depthwise convolutions on a CPU.
        self.model: DetectionModel = model.to(self.device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]

    def run(self, images: ImageArray, score_threshold: float, iou_threshold: float) -> RawDetections:
        """Detections in images ``(B, H, W, 3)`` of the network's size."""
        with torch.inference_mode():
            candidates = self.model.candidates(self._batch(images))
            found = self.model.postprocess.fixed(candidates, score_threshold, iou_threshold)
        return RawDetections(*(tensor.cpu().numpy() for tensor in found))

    def stages(self, images: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` (up to decoded boxes) and ``decode+nms`` (the rest)."""
        postprocess, card = self.model.postprocess, self.card
        with torch.inference_mode():
            return time_halves(
                lambda: self.model.candidates(self._batch(images)),
                lambda candidates: postprocess.fixed(candidates, card.score_threshold, card.iou_threshold),
                rounds,
            )

    def _batch(self, images: ImageArray) -> torch.Tensor:
        return torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2)


def open_checkpoint(
    path: str | Path, *, threads: int = 0, provider: str | None = None, input_size: Size | None = None
) -> PyTorchBackend:
    """Load a checkpoint, a run folder (for its ``best.pt``) or pretrained weights by name.

    Args:
        path: File, folder or name.
        threads: Processor threads of PyTorch in this whole process; 0 takes all cores.
        provider: A device of PyTorch, such as ``"cpu"``; None for a GPU if there is one.
        input_size: ``(height, width)`` of the network's input instead of what it was trained at. Anchors keep their
            pixels, as what the network has learned does.

    Raises:
        CheckpointError: The checkpoint is missing, damaged, no detector, or doesn't fit its own config.
        ConfigError: There is no such device.
        DownloadError: Pretrained weights aren't here and can't be fetched.
    """
    set_threads(threads)
    device = choose_device(provider or "auto", setting="--device ")
    path = resolve_weights(path)
    content = load_checkpoint(path)
    if "config" not in content:
        raise CheckpointError(
            f"{path}: a backbone without a detection head, it finds nothing yet; "
            f"train from it: mobiledet train finetune_ssd model.init={path}"
        )
    check_content(content, str(path))
    config = config_from_plain(content["config"])
    made = config.model
    if input_size is not None:
        larger = min(made.network_size) / min(input_size)
        head = made.head.with_anchors_scaled(larger)
        made = made.model_copy(update={"input_size": input_size, "rho": 1.0, "head": head})
    model = build_detector(made, weights_follow=True)
    model.load_state_dict(content.get("ema") or content["model"])
    categories, cost = content["categories"], detector_cost(model)
    imitate_int8(model, content.get("ranges"))
    names, category_ids = ([category[key] for category in categories] for key in ("name", "id"))
    card = replace(
        model_card(model, names, category_ids),
        shown_threshold=content.get("threshold"),
        head=config.model.head.kind,
        gmacs=round(cost.gmacs, 4),
        params=round(cost.params_m * 1e6),
        config=config.plain(),
        origin={"file": str(path), "sha256": file_digest(path)},
        versions={"mobiledet": __version__, "torch": torch.__version__},
    )
    return PyTorchBackend(model, card, device=device)


def model_card(model: DetectionModel, names: Sequence[str], category_ids: Sequence[int] = ()) -> ModelCard:
    """The card of a model in memory: how it is fed and read, but neither its cost nor where it comes from."""
    red, green, blue = (round(value) for value in model.mean.flatten().tolist())
    return ModelCard(
        names=tuple(names),
        category_ids=tuple(category_ids),
        resize=model.resize,
        fill=(red, green, blue),
        score_threshold=model.postprocess.score_threshold,
        iou_threshold=model.postprocess.iou_threshold,
        max_detections=model.postprocess.max_detections,
    )


def choose_device(name: str, *, setting: str) -> torch.device:
    """The device of a name; ``"auto"`` takes a GPU when there is one.

    Args:
        name: Such as ``"cuda"``.
        setting: What the user set it with, for the message, such as ``"train.device="``.

    Raises:
        ConfigError: There is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise ConfigError(f"{setting}{name}: no such device here; take auto or cpu") from None
    return device


def set_threads(threads: int) -> int:
    """Set PyTorch's processor threads; 0 takes every core this process may use. Returns the number."""
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or available)
    return threads or available

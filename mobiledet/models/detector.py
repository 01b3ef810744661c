"""Backbone and head, joined: pictures in, losses or detections out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobiledet.models.mobilenet_v1 import MobileNetV1
from mobiledet.postprocess import Postprocess
from mobiledet.structures import Candidates, ImageGeometry, Size


class Head(Protocol):
    """What a detection head offers; SSD and Faster R-CNN alike."""

    num_classes: int

    def loss(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[Size], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Named training losses."""

    def candidates(self, features: Mapping[str, Tensor], image_sizes: Sequence[Size]) -> Candidates:
        """Decoded boxes and foreground scores."""


class Detector(nn.Module):
    """A detector called like torchvision's: ``model(images, targets)`` trains, ``model(images)`` detects.

    Args:
        backbone: The feature extractor.
        head: :class:`mobiledet.models.ssd.SSDHead` or another with its ``loss`` and ``candidates``.
        postprocess: From candidates to detections.
        network_size: ``(height, width)`` that pictures are resized to.
        mean: RGB mean, of pixels 0..255.
        std: RGB divisor, of pixels 0..255.
    """

    mean: Tensor
    inverse_std: Tensor

    def __init__(
        self,
        *,
        backbone: MobileNetV1,
        head: nn.Module,
        postprocess: Postprocess,
        network_size: Size,
        mean: Sequence[float] = (127.5, 127.5, 127.5),
        std: Sequence[float] = (127.5, 127.5, 127.5),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.postprocess = postprocess
        self.network_size = network_size
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("inverse_std", 1 / torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor | Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """Losses when there are targets, detections when there are none.

        Args:
            images: A uint8 batch ``(B, 3, H, W)`` of RGB pixels already at ``network_size`` (what the loader gives);
                or a list of pictures ``(3, H_i, W_i)`` of any size, uint8 0..255 or float 0..1, as torchvision's
                detectors take.
            targets: Per picture ``boxes`` ``(N, 4)`` xyxy in pixels of that picture, ``labels`` ``(N,)`` int64 in
                ``1..K``, and optionally ``iscrowd`` ``(N,)`` bool.

        Returns:
            With targets a dict of named scalar losses; without, a list of dicts with ``boxes`` (pixels of the
            picture given), ``scores`` and ``labels``, best first.

        Raises:
            ValueError: a picture or a target has the wrong shape, or a label lies outside ``1..K``.
        """
        batch, sizes = self._batch(images)
        network_sizes = [self.network_size] * len(batch)
        if targets is not None:
            fitted = self._fit_targets(targets, sizes)
            features = self.features(batch)
            losses: dict[str, Tensor] = self.head.loss(features, network_sizes, fitted)  # type: ignore[operator]
            return losses
        detections = self.postprocess(self.candidates(batch))
        for detection, size in zip(detections, sizes, strict=True):
            if size != self.network_size:
                scale = torch.from_numpy(ImageGeometry(size, self.network_size).scale)
                detection["boxes"] = detection["boxes"] / scale.to(detection["boxes"].device)
        return detections

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        """Feature maps of RGB pixels 0..255 ``(B, 3, H, W)``; normalisation happens here."""
        features: dict[str, Tensor] = self.backbone((batch.float() - self.mean) * self.inverse_std)
        return features

    def candidates(self, batch: Tensor) -> Candidates:
        """Decoded boxes and scores of RGB pixels 0..255 ``(B, 3, H, W)`` at ``network_size``."""
        sizes = [(batch.shape[2], batch.shape[3])] * len(batch)
        candidates: Candidates = self.head.candidates(self.features(batch), sizes)  # type: ignore[operator]
        return candidates

    def _batch(self, images: Tensor | Sequence[Tensor]) -> tuple[Tensor, list[Size]]:
        """Pixels 0..255 ``(B, 3, *network_size)``, and each picture's own (height, width)."""
        if isinstance(images, Tensor):
            if images.dim() != 4 or images.shape[1] != 3:
                raise ValueError(f"a batch has shape (B, 3, H, W), not {tuple(images.shape)}")
            if images.dtype == torch.uint8 and tuple(images.shape[2:]) == self.network_size:
                return images, [self.network_size] * len(images)
            images = list(images)
        if len(images) == 0:
            raise ValueError("no pictures: the list of images is empty")
        fitted, sizes = [], []
        for index, image in enumerate(images):
            if image.dim() != 3 or image.shape[0] != 3 or image.numel() == 0:
                raise ValueError(f"images[{index}] has shape {tuple(image.shape)}, not (3, height, width)")
            pixels = image.float() if image.dtype == torch.uint8 else image * 255.0
            sizes.append((image.shape[1], image.shape[2]))
            fitted.append(F.interpolate(pixels[None], self.network_size, mode="bilinear", align_corners=False)[0])
        return torch.stack(fitted), sizes

    def _fit_targets(self, targets: Sequence[Mapping[str, Tensor]], sizes: Sequence[Size]) -> list[dict[str, Tensor]]:
        """Targets with boxes in network pixels, their shapes and labels checked."""
        if len(targets) != len(sizes):
            raise ValueError(f"{len(sizes)} pictures but {len(targets)} targets")
        fitted = []
        num_classes = int(self.head.num_classes)  # type: ignore[arg-type]
        for index, (target, size) in enumerate(zip(targets, sizes, strict=True)):
            boxes, labels = target["boxes"], target["labels"]
            if boxes.dim() != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
                raise ValueError(
                    f"targets[{index}]: boxes {tuple(boxes.shape)} and labels {tuple(labels.shape)} "
                    "must be (N, 4) and (N,)"
                )
            if labels.numel() and not (int(labels.min()) >= 1 and int(labels.max()) <= num_classes):
                raise ValueError(
                    f"targets[{index}]: labels {labels.tolist()} must lie in 1..{num_classes} (0 is background)"
                )
            if size != self.network_size:
                scale = torch.from_numpy(ImageGeometry(size, self.network_size).scale)
                boxes = boxes * scale.to(boxes.device)
            fitted.append({**target, "boxes": boxes.float()})
        return fitted

"""Backbone and head, joined: images in, losses or detections out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobiledet.models.base import Backbone, Head
from mobiledet.models.postprocess import Postprocess
from mobiledet.structures import Candidates, ImageGeometry, ResizeRule, Size


class DetectionModel(nn.Module):
    """A detector called like torchvision's: ``model(images, targets)`` trains, ``model(images)`` detects.

    Args:
        backbone: The feature extractor.
        head: Everything behind its feature maps; see `mobiledet.models.base.Head`.
        postprocess: From candidates to detections.
        resize: How large images become.
        mean: RGB mean, of pixels 0..255.
        std: RGB divisor, of pixels 0..255.
    """

    mean: Tensor
    inverse_std: Tensor

    def __init__(
        self,
        *,
        backbone: Backbone,
        head: Head,
        postprocess: Postprocess,
        resize: ResizeRule,
        mean: Sequence[float] = (127.5, 127.5, 127.5),
        std: Sequence[float] = (127.5, 127.5, 127.5),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.postprocess = postprocess
        self.resize = resize
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("inverse_std", 1 / torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor | Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """Losses when there are targets, detections when there are none.

        Args:
            images: A uint8 batch ``(B, 3, H, W)`` of RGB pixels, or a list of images ``(3, H_i, W_i)`` of any size,
                uint8 0..255 or float 0..1, as torchvision's detectors take. Those that have the network's size
                already (what the loader gives) aren't touched.
            targets: Per image ``boxes`` ``(N, 4)`` xyxy in pixels of that image, ``labels`` ``(N,)`` int64 in
                ``1..K``, and optionally ``iscrowd`` ``(N,)`` bool.

        Returns:
            With targets a dict of named scalar losses; without, a list of dicts with ``boxes`` (pixels of the
            image given), ``scores`` and ``labels``, best first.

        Raises:
            ValueError: an image or a target has the wrong shape, or a label lies outside ``1..K``.
        """
        batch, geometries = self._batch(images)
        network_sizes = [geometry.network_size for geometry in geometries]
        if targets is not None:
            fitted = self._fit_targets(targets, geometries)
            features = self.features(batch)
            return self.head.loss(features, network_sizes, fitted)
        detections = self.postprocess(self.candidates(batch, network_sizes))
        for detection, geometry in zip(detections, geometries, strict=True):
            if geometry.original_size != geometry.network_size:
                scale = torch.from_numpy(geometry.scale)
                detection["boxes"] = detection["boxes"] / scale.to(detection["boxes"].device)
        return detections

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        """Feature maps of RGB pixels 0..255 ``(B, 3, H, W)``; normalisation happens here."""
        features: dict[str, Tensor] = self.backbone((batch.float() - self.mean) * self.inverse_std)
        return features

    def candidates(self, batch: Tensor, sizes: Sequence[Size] | None = None) -> Candidates:
        """Decoded boxes and scores of RGB pixels 0..255 ``(B, 3, H, W)``.

        Args:
            batch: Images in the network's size.
            sizes: ``(height, width)`` of each inside the batch; None where they fill it.
        """
        sizes = sizes or [(batch.shape[2], batch.shape[3])] * len(batch)
        return self.head.candidates(self.features(batch), sizes)

    @property
    def network_size(self) -> Size:
        """``(height, width)`` of the network's input; where images keep their shape, that of a square one."""
        return self.resize.size

    def backbone_parts(self) -> list[Backbone]:
        """The backbone, and the stretch of it that the head runs on proposals, if it does."""
        return [module for module in self.modules() if isinstance(module, Backbone)]

    def freeze(self, *, stages: int = 0, norm: bool = False) -> None:
        """Stop training the first ``stages`` layers of the backbone, and with ``norm`` its every batch-norm."""
        for part in self.backbone_parts():
            part.freeze(stages=stages, norm=norm)

    def _batch(self, images: Tensor | Sequence[Tensor]) -> tuple[Tensor, list[ImageGeometry]]:
        """Pixels 0..255 ``(B, 3, H, W)``, and how each image was fitted; smaller ones lie at the top left."""
        if isinstance(images, Tensor):
            if images.dim() != 4 or images.shape[1] != 3:
                raise ValueError(f"a batch has shape (B, 3, H, W), not {tuple(images.shape)}")
            size = (images.shape[2], images.shape[3])
            if images.dtype == torch.uint8 and images.numel() and size == self.resize(size):
                return images, [ImageGeometry(size, size)] * len(images)
            images = list(images)
        if len(images) == 0:
            raise ValueError("no images: the list of images is empty")
        fitted, geometries = [], []
        for index, image in enumerate(images):
            if image.dim() != 3 or image.shape[0] != 3 or image.numel() == 0:
                raise ValueError(f"images[{index}] has shape {tuple(image.shape)}, not (3, height, width)")
            size = (image.shape[1], image.shape[2])
            geometry = ImageGeometry(size, self.resize(size))
            geometries.append(geometry)
            pixels = image.float() if image.dtype == torch.uint8 else image * 255.0
            if size != geometry.network_size:
                pixels = F.interpolate(pixels[None], geometry.network_size, mode="bilinear", align_corners=False)[0]
            fitted.append(pixels)
        return self._stack(fitted), geometries

    def _stack(self, images: Sequence[Tensor]) -> Tensor:
        """Images as one batch, the smaller ones filled up with the mean, which the network sees as nothing."""
        height, width = (max(image.shape[side] for image in images) for side in (1, 2))
        if all(image.shape[1:] == (height, width) for image in images):
            return torch.stack(list(images))
        batch = self.mean.to(images[0].dtype).expand(len(images), -1, height, width).clone()
        for index, image in enumerate(images):
            batch[index, :, : image.shape[1], : image.shape[2]] = image
        return batch

    def _fit_targets(
        self, targets: Sequence[Mapping[str, Tensor]], geometries: Sequence[ImageGeometry]
    ) -> list[dict[str, Tensor]]:
        """Targets with boxes in network pixels, their shapes and labels checked."""
        if len(targets) != len(geometries):
            raise ValueError(f"{len(geometries)} images but {len(targets)} targets")
        fitted = []
        num_classes = self.head.num_classes
        for index, (target, geometry) in enumerate(zip(targets, geometries, strict=True)):
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
            if geometry.original_size != geometry.network_size:
                scale = torch.from_numpy(geometry.scale)
                boxes = boxes * scale.to(boxes.device)
            fitted.append({**target, "boxes": boxes.float()})
        return fitted

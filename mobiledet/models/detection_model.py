"""Backbone and head, joined: images in, losses or detections out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobiledet.errors import ConfigError
from mobiledet.models.base import Backbone, Head
from mobiledet.models.postprocess import Postprocess
from mobiledet.structures import RANGE_SLACK, Candidates, ImageGeometry, ResizeRule, Size


class DetectionModel(nn.Module):
    """A detector called like torchvision's: in training mode it gives losses, in evaluation mode detections.

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
        """Losses in training mode, detections in evaluation mode.

        Args:
            images: A uint8 batch ``(B, 3, H, W)`` of RGB pixels, or a list of images ``(3, H_i, W_i)`` of any size,
                uint8 0..255 or float 0..1, as torchvision's detectors take. Those that have the network's size
                already (what the loader gives) aren't touched.
            targets: Per image ``boxes`` ``(N, 4)`` xyxy in pixels of that image, ``labels`` ``(N,)`` whole numbers in
                ``1..K``, and optionally ``iscrowd`` ``(N,)`` bool. Not looked at in evaluation mode.

        Returns:
            In training mode a dict of named scalar losses; in evaluation mode a list of dicts with ``boxes`` (pixels
            of the image given), ``scores`` and ``labels``, best first.

        Raises:
            ValueError: An image or a target has the wrong shape, type or range, a box has no area, a label lies
                outside ``1..K``, or targets are missing in training mode.
        """
        if self.training:
            if targets is None:
                raise ValueError("training mode needs targets; call model.eval() first to detect")
            return self.losses(images, targets)
        batch, geometries = self._batch(images)
        network_sizes = [geometry.network_size for geometry in geometries]
        detections = self.postprocess(self.candidates(batch, network_sizes))
        for detection, geometry in zip(detections, geometries, strict=True):
            if geometry.original_size != geometry.network_size:
                scale = torch.from_numpy(geometry.scale)
                detection["boxes"] = detection["boxes"] / scale.to(detection["boxes"].device)
        return detections

    def losses(self, images: Tensor | Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """What `forward` returns in training mode, in either mode: in evaluation mode norms use their statistics."""
        batch, geometries = self._batch(images)
        fitted = self._fit_targets(targets, geometries)
        return self.head.loss(self.features(batch), [geometry.network_size for geometry in geometries], fitted)

    def features(self, batch: Tensor) -> dict[str, Tensor]:
        """Feature maps of RGB pixels 0..255 ``(B, 3, H, W)``; normalisation happens here."""
        normalised = (batch.float() - self.mean) * self.inverse_std
        features: dict[str, Tensor] = self.backbone(normalised.to(self.mean.dtype))  # that of the weights
        return features

    def candidates(self, batch: Tensor, sizes: Sequence[Size] | None = None) -> Candidates:
        """Decoded boxes and scores of RGB pixels 0..255 ``(B, 3, H, W)``.

        Args:
            batch: Images in the network's size.
            sizes: ``(height, width)`` of each inside the batch; None where they fill it.
        """
        if sizes is None:
            count: object = batch.shape[0]  # unknown, and no int, while a graph for any number of images is exported
            sizes = [(batch.shape[2], batch.shape[3])] * (count if isinstance(count, int) else 1)
        return self.head.candidates(self.features(batch), sizes)

    @property
    def network_size(self) -> Size:
        """``(height, width)`` of the network's input; where images keep their shape, that of a square one."""
        return self.resize.size

    def backbone_parts(self) -> list[Backbone]:
        """The backbone, and the stretch of it that the head runs on proposals, if it does."""
        return [module for module in self.modules() if isinstance(module, Backbone)]

    def freeze(self, *, stages: int = 0, norm: bool = False) -> None:
        """Stop training the first ``stages`` layers of the backbone, and with ``norm`` its every batch-norm.

        Raises:
            ConfigError: There is nothing to freeze in this backbone.
        """
        for part in self.backbone_parts():
            part.freeze(stages=stages, norm=norm)
        if (stages or norm) and not (isinstance(self.backbone, Backbone) and self.backbone.is_frozen):
            raise ConfigError(
                f"{type(self.backbone).__name__} has no {'stages' if stages else 'batch-norm'} to freeze: derive it "
                "from mobiledet.models.base.Backbone and let stages() give its layers, or freeze it yourself"
            )

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
        _check_images(images)
        fitted, geometries = [], []
        for image in images:
            size = (image.shape[1], image.shape[2])
            geometry = ImageGeometry(size, self.resize(size))
            geometries.append(geometry)
            pixels = image.float() if image.dtype == torch.uint8 else image.float() * 255
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
        for index, target in enumerate(targets):
            boxes, labels = (target.get(name) for name in ("boxes", "labels"))
            if not isinstance(boxes, Tensor) or not isinstance(labels, Tensor):
                raise ValueError(f"targets[{index}]: boxes and labels must be tensors, not {list(target)}")
            if boxes.dim() != 2 or boxes.shape[1] != 4 or labels.shape != boxes.shape[:1]:
                raise ValueError(
                    f"targets[{index}]: boxes {tuple(boxes.shape)} and labels {tuple(labels.shape)} "
                    "must be (N, 4) and (N,)"
                )
            if labels.numel() and (labels.is_floating_point() or labels.dtype == torch.bool):
                raise ValueError(f"targets[{index}]: labels must be whole numbers, not {labels.dtype}")
        fitted = [{**target, "boxes": target["boxes"].float(), "labels": target["labels"].long()} for target in targets]
        self._check_values(fitted)
        for target, geometry in zip(fitted, geometries, strict=True):
            if geometry.original_size != geometry.network_size:
                target["boxes"] = target["boxes"] * torch.from_numpy(geometry.scale).to(target["boxes"].device)
        return fitted

    def _check_values(self, targets: Sequence[Mapping[str, Tensor]]) -> None:
        """Boxes and labels of the whole batch at once, so that a GPU is waited for once."""
        boxes, labels = (torch.cat([target[name] for target in targets]) for name in ("boxes", "labels"))
        is_box = boxes.isfinite().all(dim=1) & (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
        is_class = (labels >= 1) & (labels <= self.head.num_classes)
        is_pixels = (boxes > 1).any().expand(len(boxes))
        faults = torch.stack([~is_box, ~is_class, ~is_pixels])
        if not faults.any():
            return
        kind, row = faults.nonzero()[0].tolist()
        image, first = 0, 0
        while row >= first + len(targets[image]["boxes"]):
            first += len(targets[image]["boxes"])
            image += 1
        texts = (
            f"box {boxes[row].tolist()} must be x1, y1, x2, y2 in pixels with x1 < x2 and y1 < y2",
            f"label {int(labels[row])} must lie in 1..{self.head.num_classes} (0 is background)",
            "all boxes lie in 0..1; they must be in pixels: multiply them by width and height",
        )
        raise ValueError(f"targets[{image}]: {texts[kind]}")


def _check_images(images: Sequence[Tensor]) -> None:
    """Make sure that images are RGB, uint8 0..255 or float 0..1; enhancing and resizing may leave that a little.

    Raises:
        ValueError: They have another shape or type, or are normalised already.
    """
    for index, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise ValueError(f"images[{index}] must be a tensor (3, height, width), not {type(image).__name__}")
        if image.dim() != 3 or image.shape[0] != 3 or image.numel() == 0:
            raise ValueError(f"images[{index}] has shape {tuple(image.shape)}, not (3, height, width)")
        if image.dtype != torch.uint8 and not image.is_floating_point():
            raise ValueError(f"images[{index}] is {image.dtype}; it must be uint8 0..255 or float 0..1")
    floats = [(index, image) for index, image in enumerate(images) if image.is_floating_point()]
    if not floats:
        return
    ends = torch.stack([torch.stack(image.detach().float().aminmax()) for _, image in floats]).tolist()
    for (index, _), (low, high) in zip(floats, ends, strict=True):
        if not (low >= -RANGE_SLACK and high <= 1 + RANGE_SLACK):
            raise ValueError(
                f"images[{index}] has values from {low:.4g} to {high:.4g}; float images must lie in 0..1 and are "
                "normalised by the model: divide by 255, or leave Normalize out"
            )

"""Image classification as detection: one box around the whole image, and its scores (Howard et al. 2017, Table 1).

So whatever trains, teaches, scores, runs and exports a detector does the same with a classifier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mobiledet.models.base import Backbone, BaseBackboneConfig, BaseHeadConfig, ClassRows, Head
from mobiledet.structures import Candidates, Size


class ClassifierConfig(BaseHeadConfig):
    """Global average pooling and one linear layer; a sigmoid per class, so that an image may show none or several."""

    kind: Literal["classifier"] = "classifier"
    strides: ClassVar[tuple[int, ...]] = (32,)

    def build(
        self,
        backbone: Backbone,
        settings: BaseBackboneConfig,  # noqa: ARG002 - it has no layers that share them
        *,
        image_size: Size,  # noqa: ARG002 - any will do
        num_classes: int,
    ) -> ClassifierHead:
        """The head with fresh weights."""
        return ClassifierHead(backbone.feature_info[-1].channels, num_classes)


class ClassifierHead(Head):
    """The end of the paper's classifier.

    Args:
        channels: Of the backbone's last map.
        num_classes: K.
    """

    parts: ClassVar[Mapping[str, str]] = {"classifier": "linear."}

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.linear = nn.Linear(channels, num_classes)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.constant_(self.linear.bias, -math.log(num_classes))  # at first about one class an image

    def loss(
        self,
        features: Mapping[str, Tensor],
        image_sizes: Sequence[Size],  # noqa: ARG002 - boxes only carry the classes of their image
        targets: Sequence[Mapping[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Binary cross-entropy, summed over classes: an image shows the classes of its boxes, as far as they score."""
        logits = self._logits(features)
        wanted = torch.zeros_like(logits)
        for row, target in zip(wanted, targets, strict=True):
            scores = target.get("scores")
            if scores is None:
                scores = F.one_hot(target["labels"] - 1, self.num_classes)
            if "iscrowd" in target:
                scores = scores[~target["iscrowd"]]
            if len(scores):
                row.copy_(scores.amax(dim=0))
        loss = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum")
        return {"classification": loss / len(logits)}

    def candidates(self, features: Mapping[str, Tensor], image_sizes: Sequence[Size]) -> Candidates:
        """One box ``(B, 1, 4)`` around each image and its scores ``(B, 1, K)``."""
        scores = self._logits(features).sigmoid()[:, None]
        height, width = image_sizes[0]
        corners = torch.tensor([0.0, 0.0, width, height], device=scores.device)
        return Candidates(scores[..., :1] * 0 + corners, scores)  # not expand, which ncnn's converter gets wrong

    def class_rows(self) -> dict[str, ClassRows]:
        """One row a class."""
        return {f"linear.{part}": ClassRows(1, background=False) for part in ("weight", "bias")}

    def _logits(self, features: Mapping[str, Tensor]) -> Tensor:
        (last,) = features.values()
        logits: Tensor = self.linear(last.mean(dim=(2, 3))).float()
        return logits

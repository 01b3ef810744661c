"""What a backbone and a head offer: the contracts of `mobiledet.models.detection_model.DetectionModel`.

A new backbone or head is one file: its settings (a subclass of `BaseBackboneConfig` or `BaseHeadConfig`,
named in ``BACKBONES`` or ``HEADS`` of `mobiledet.models.model_config`) and its module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mobiledet.errors import ConfigError
from mobiledet.models.layers import DEFAULT_STYLE, LayerStyle
from mobiledet.structures import Candidates, Size
from mobiledet.utils.settings import Strict

TRIED_SCALES = (0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)
TRIED_RATIOS = tuple(value for ratio in (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0) for value in (ratio, 1 / ratio))
"""What is tried on boxes that a head's own anchors don't fit."""

MOST_VALUES = 9
"""Scales or aspect ratios of anchors, at the most."""


@dataclass(frozen=True)
class FeatureInfo:
    """One feature map: its name, channels, and how many image pixels one step covers."""

    name: str
    channels: int
    stride: int


class Backbone(nn.Module, ABC):
    """A feature extractor.

    Attributes:
        feature_info: What `forward` returns, in its order.
    """

    feature_info: list[FeatureInfo]

    def __init__(self) -> None:
        super().__init__()
        self._frozen_stages, self._frozen_norm = 0, False

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Feature maps of a batch.

        Args:
            images: ``(B, 3, H, W)`` float, normalised.

        Returns:
            Name to ``(B, channels, ceil(H / stride), ceil(W / stride))``, in the order of ``feature_info``.
        """

    def stages(self) -> Sequence[nn.Module]:
        """The parts that can be frozen one after the other, counted from the image."""
        return list(self.children())

    def freeze(self, *, stages: int = 0, norm: bool = False) -> None:
        """Stop training the first ``stages`` parts, and with ``norm`` every batch-norm.

        Frozen norms also stop following the batch: they run on their stored statistics.
        """
        self._frozen_stages, self._frozen_norm = stages, norm
        for module in self._frozen_modules():
            for parameter in module.parameters():
                parameter.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Backbone:
        """Like `torch.nn.Module.train`, but frozen parts stay in evaluation mode."""
        super().train(mode)
        for module in self._frozen_modules():
            module.eval()
        return self

    @property
    def is_frozen(self) -> bool:
        """Whether there is something that `freeze` stopped."""
        return any(True for module in self._frozen_modules() for _ in module.parameters())

    def _frozen_modules(self) -> list[nn.Module]:
        frozen = list(self.stages()[: max(0, self._frozen_stages)])
        if self._frozen_norm:
            frozen += [module for module in self.modules() if isinstance(module, _BatchNorm)]
        return frozen


class BaseBackboneConfig(Strict):
    """Settings of a backbone.

    A subclass other than the default one has a field ``kind: Literal["..."]``, its name in config files.
    """

    kind_name: ClassVar[str]
    """The name in config files."""
    dictated: ClassVar[tuple[str, ...]] = ()
    """Settings that weights to start from decide."""
    quantizable: ClassVar[bool] = False
    """Whether it consists of `ConvNormAct` alone, whose INT8 rounding training can imitate."""

    @property
    def summary(self) -> str:
        """A few words for the log."""
        return self.kind_name

    @property
    def style(self) -> LayerStyle:
        """Padding and batch-norm settings, which a head's own layers share."""
        return DEFAULT_STYLE

    def build(self, strides: Sequence[int]) -> Backbone:
        """The backbone, returning the deepest map of each of these strides.

        Raises:
            ConfigError: It has no map of such a stride.
        """
        raise NotImplementedError

    def build_after(self, stride: int) -> Backbone:
        """The layers behind the deepest map of a stride, to its end, as a second stage runs them on each proposal.

        Raises:
            ConfigError: There are none.
        """
        raise ConfigError(f"backbone {self.kind_name!r} has no layers behind stride {stride} for a second stage")

    def scaled(self, channels: int, minimum: int) -> int:  # noqa: ARG002 - a backbone without a width ignores it
        """Channels of a head's extra layer at this backbone's width, at least ``minimum``."""
        return channels


class ClassRows(NamedTuple):
    """How the rows of a tensor belong to classes: anchor by anchor, class by class, ``values`` rows each.

    With ``background``, the rows of background come before those of the first class.
    """

    values: int
    background: bool


class Head(nn.Module, ABC):
    """A detection head: everything behind the backbone's feature maps.

    A head that runs the end of the backbone on each proposal holds it as ``second_stage``.

    Attributes:
        num_classes: Object classes ``K``, without background.
        parts: Name for people -> beginning of the names of its tensors, for the table of transferred weights.
        needs_inner_nms: Whether boxes are suppressed inside the head, which not every runtime can do.
    """

    num_classes: int
    parts: ClassVar[Mapping[str, str]] = {"head": ""}
    needs_inner_nms: ClassVar[bool] = False

    @abstractmethod
    def loss(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[Size], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Training losses of a batch.

        Args:
            features: The backbone's maps by name, each ``(B, C_i, H_i, W_i)``.
            image_sizes: ``(height, width)`` of each image inside the batch, which may be larger.
            targets: Per image ``boxes`` ``(N, 4)`` xyxy in network pixels, ``labels`` ``(N,)`` in ``1..K`` and
                optionally ``iscrowd`` ``(N,)`` and ``scores`` ``(N, K)``, what each object is to score in each class;
                all images of a batch have them or none.

        Returns:
            Named scalar losses.
        """

    @abstractmethod
    def candidates(self, features: Mapping[str, Tensor], image_sizes: Sequence[Size]) -> Candidates:
        """Decoded boxes in network pixels, clipped to the image, and foreground scores; see `Candidates`."""

    def class_rows(self) -> dict[str, ClassRows]:
        """Name of a tensor -> how its rows belong to classes; a class known by name to old weights keeps its rows."""
        return {}


def with_background(scores: Tensor) -> Tensor:
    """Scores ``(M, K)`` in 0..1 as probabilities ``(M, K + 1)``, what they leave of 1 being background's, in front."""
    shares = scores / scores.sum(dim=1, keepdim=True).clamp(min=1)
    return torch.cat([1 - shares.sum(dim=1, keepdim=True), shares], dim=1)


def with_another(values: tuple[float, ...], tried: Sequence[float]) -> list[tuple[float, ...]]:
    """Scales or ratios with one more, each of those tried that is none of them yet."""
    new = [value for value in tried if all(abs(value / known - 1) > 0.05 for known in values)]
    return [tuple(sorted((*values, value))) for value in new] if len(values) < MOST_VALUES else []


class BaseHeadConfig(Strict):
    """Settings of a head. A subclass has a field ``kind: Literal["..."]``, its name in config files."""

    if TYPE_CHECKING:
        kind: str

    any_image_size: ClassVar[bool] = False
    """Whether the images of a batch may differ in size."""
    dictated: ClassVar[tuple[str, ...]] = ()
    """Settings that weights of the same kind decide where the recipe leaves them alone."""
    flexible: ClassVar[tuple[str, ...]] = ()
    """Those of them that a recipe may also set to something else than the weights have."""
    quantizable: ClassVar[bool] = False
    """Whether it consists of `ConvNormAct` and last convolutions, whose INT8 rounding training can imitate."""

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the backbone's maps that it looks at, ascending."""
        raise NotImplementedError

    def build(self, backbone: Backbone, settings: BaseBackboneConfig, *, image_size: Size, num_classes: int) -> Head:
        """The head with fresh weights.

        Args:
            backbone: Built with this head's ``strides``.
            settings: The backbone's.
            image_size: ``(height, width)`` of the network's input in pixels.
            num_classes: Object classes ``K``, without background.
        """
        raise NotImplementedError

    def with_anchors_scaled(self, factor: float) -> BaseHeadConfig:  # noqa: ARG002
        """The same settings with anchors ``factor`` times as large, as shares of the input; one without anchors stays.

        Raises:
            ModelFileError: Its weights are of no use at another input size.
        """
        return self

    @property
    def anchor_iou(self) -> float:
        """Overlap from which an anchor is one of an object."""
        return 0.5

    def anchor_maps(self, network_size: Size, image_size: Size) -> list[Tensor]:  # noqa: ARG002
        """Its anchors in an image of a size: ``(rows, columns, n, 4)`` xyxy of each map; none of a head without any.

        Args:
            network_size: ``(height, width)`` of the network's input.
            image_size: Of the image in it, which differs where images keep their shape.
        """
        return []

    def anchor_changes(self) -> list[dict[str, Any]]:
        """Small changes of its settings that give other anchors, to be tried on boxes."""
        return []

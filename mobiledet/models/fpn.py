"""A head with a feature pyramid (Lin et al. 2017, arXiv 1612.03144), light enough for MobileNetV1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator
from torch import nn

from mobiledet.models.base import TRIED_RATIOS, TRIED_SCALES, BaseBackboneConfig, with_another
from mobiledet.models.layers import DepthwiseSeparable, LayerStyle
from mobiledet.models.maps import Pyramid
from mobiledet.models.ssd import SSDFamily
from mobiledet.ops.anchors import AnchorShape
from mobiledet.utils.settings import PositiveFloat, PositiveInt

MIN_CHANNELS = 32
"""Of the pyramid of a thin backbone: all classes are told from so many values."""

_ANCHORS = ("num_maps", "aspect_ratios", "scale_min", "scale_max")


class FPNConfig(SSDFamily):
    """Maps of strides 8 to 128 from Conv5, Conv11 and Conv13, each knowing what the coarser ones see.

    Scores, losses and decoding are SSD's.
    """

    kind: Literal["fpn"] = "fpn"
    strides: ClassVar[tuple[int, ...]] = (8, 16, 32)
    dictated: ClassVar[tuple[str, ...]] = ("channels", "tower", "scores", *_ANCHORS)
    flexible: ClassVar[tuple[str, ...]] = _ANCHORS[1:]

    channels: PositiveInt = 64
    """Of every map of the pyramid; scaled by alpha like the backbone."""
    num_maps: Annotated[int, Field(ge=3, le=7)] = 5
    """Three, and those behind the last, each halving the one before."""
    tower: Annotated[int, Field(ge=0, le=4)] = 1
    """Depthwise-separable layers of each predictor before its last convolution."""
    aspect_ratios: tuple[PositiveFloat, ...] = (1.0, 2.0, 1 / 2)
    """Width over height of the anchors of a location, all of one area."""
    scale_min: Annotated[float, Field(gt=0, le=1)] = 0.06
    scale_max: Annotated[float, Field(gt=0, le=1)] = 0.9
    """Anchor sizes of the highest- and lowest-resolution map, as a share of the input's shorter side; those of the maps
    between them grow by one factor, about 2."""
    match_iou: Annotated[float, Field(gt=0, lt=1)] = 0.4
    """A square halfway between two maps' anchors overlaps either by no more than 0.5, wherever it stands."""

    @model_validator(mode="after")
    def _check(self) -> FPNConfig:
        if self.scale_min >= self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} must be below scale_max {self.scale_max}")
        if not self.aspect_ratios:
            raise ValueError("aspect_ratios must not be empty")
        return self

    def build_layers(self, in_channels: Sequence[int], settings: BaseBackboneConfig) -> Pyramid:
        """The pyramid with fresh weights."""
        channels = settings.scaled(self.channels, min(MIN_CHANNELS, self.channels))
        return Pyramid(in_channels=in_channels, channels=channels, num_maps=self.num_maps, style=settings.style)

    def predictor_layers(self, channels: int, style: LayerStyle) -> list[nn.Module]:
        """The tower."""
        return [DepthwiseSeparable(channels, channels, style=style) for _ in range(self.tower)]

    def anchor_shapes(self) -> list[list[AnchorShape]]:
        """Every aspect ratio at one scale, which grows from map to map by one factor."""
        growth = (self.scale_max / self.scale_min) ** (1 / (self.num_maps - 1))
        return [[(self.scale_min * growth**k, ratio) for ratio in self.aspect_ratios] for k in range(self.num_maps)]

    def anchor_changes(self) -> list[dict[str, Any]]:
        """Another minimum scale, one more aspect ratio."""
        scales: list[dict[str, Any]] = [{"scale_min": scale} for scale in TRIED_SCALES if scale < self.scale_max]
        return scales + [{"aspect_ratios": ratios} for ratios in with_another(self.aspect_ratios, TRIED_RATIOS)]

"""Settings of a whole detector, and the backbones and heads there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from pydantic_core import PydanticCustomError

from mobiledet.models.base import BaseBackboneConfig, BaseHeadConfig
from mobiledet.models.classifier import ClassifierConfig
from mobiledet.models.faster_rcnn import FasterRCNNConfig
from mobiledet.models.fpn import FPNConfig
from mobiledet.models.mobilenet_v1 import BackboneConfig
from mobiledet.models.ssd import SSDConfig, SSDLiteConfig
from mobiledet.structures import ResizeRule
from mobiledet.utils.settings import Fraction, PositiveInt, Side, SizeField, Strict
from mobiledet.utils.text import did_you_mean

BACKBONES: tuple[type[BaseBackboneConfig], ...] = (BackboneConfig,)
"""Every backbone; the first is the default, which config files needn't name. Another one is added here."""

HEADS: tuple[type[BaseHeadConfig], ...] = (SSDConfig, SSDLiteConfig, FPNConfig, FasterRCNNConfig, ClassifierConfig)
"""Every head. Another one is added here."""


def kind_of(member: type[BaseBackboneConfig] | type[BaseHeadConfig]) -> str:
    """The name of a backbone or head in config files."""
    if issubclass(member, BaseBackboneConfig):
        return member.kind_name
    return str(member.model_fields["kind"].default)


def _backbone(value: Any) -> Any:
    return _of_kind(value, BACKBONES)


def _head(value: Any) -> Any:
    return _of_kind(value, HEADS)


def _of_kind(value: Any, members: tuple[type[BaseBackboneConfig], ...] | tuple[type[BaseHeadConfig], ...]) -> Any:
    """Settings given as a mapping, as an instance of the member that their ``kind`` names."""
    if not isinstance(value, Mapping):
        return value
    kinds = {kind_of(member): member for member in members}
    kind = value.get("kind", next(iter(kinds)))
    if kind not in kinds:
        known = ", ".join(map(repr, kinds))
        hint = did_you_mean(str(kind), kinds)
        raise PydanticCustomError(
            "unknown_kind",
            "kind must be one of {known}, not {kind}{hint}",
            {"known": known, "kind": repr(kind), "hint": f"; {hint}" if hint else ""},
        )
    member = kinds[kind]
    if "kind" not in member.model_fields:
        value = {key: setting for key, setting in value.items() if key != "kind"}
    return member.model_validate(value)


class PostprocessConfig(Strict):
    """From candidates to detections."""

    score_threshold: Fraction = 0.01
    """Kept low because mAP counts the whole ranking; what is drawn or shown has its own threshold."""
    iou_threshold: Annotated[float, Field(gt=0, le=1)] = 0.6
    candidates: PositiveInt = 500
    """Best (box, class) pairs of an image that enter non-maximum suppression: fixed, so that it can be exported. From
    400 on, AP and AR no longer changed on COCO, blood cell and chess images."""
    max_detections: PositiveInt = 100
    class_agnostic: bool = False
    """Boxes of different classes suppress each other, too: one class an object, at the price of AP, which counts second
    guesses; see docs/training.md."""
    vote_iou: Annotated[float, Field(gt=0, le=1)] | None = None
    """Each detection's box becomes the mean of all candidates of its class that overlap it more than this (Gidaris and
    Komodakis 2015, section 3.2), weighted by score and by how much more; None leaves it alone. What others read from a
    ``.tflite`` file is never voted on."""


class ModelConfig(Strict):
    """Everything needed to rebuild a detector and to prepare its images."""

    backbone: Annotated[SerializeAsAny[BaseBackboneConfig], BeforeValidator(_backbone)] = BackboneConfig()
    head: Annotated[SerializeAsAny[BaseHeadConfig], BeforeValidator(_head)] = SSDConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    input_size: SizeField = (300, 300)
    """(height, width) of the network's input before rho."""
    resize: Literal["stretch", "shorter_side"] = "stretch"
    """Every image is stretched to ``input_size``; or it keeps its shape and its shorter side gets that of
    ``input_size``, which only Faster R-CNN can do."""
    longest_side: Side = 1024
    """With ``resize="shorter_side"``: the longer side never exceeds this (before rho)."""
    match_aspect: bool = False
    """Give ``input_size`` the shape of the training images, with as many pixels; done when training starts."""
    rho: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Resolution multiplier: both sides of ``input_size`` are multiplied by it."""
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (
        127.5,
        127.5,
        127.5,
    )
    """The network sees ``(pixel - mean) / std`` of RGB pixels 0..255."""
    num_classes: PositiveInt | None = None
    """Object classes without background; filled in from the data set."""
    init: str | None = None
    """Weights to start from: a checkpoint, a run folder, or a name from mobiledet weights list. They decide width,
    padding and image scale, and for the same kind of head its layers and anchors, where these are left alone here."""

    @property
    def network_size(self) -> tuple[int, int]:
        """(height, width) that the network really sees: ``input_size`` times ``rho``, at least 32."""
        height, width = self.input_size
        return max(32, round(height * self.rho)), max(32, round(width * self.rho))

    @property
    def resize_rule(self) -> ResizeRule:
        """How large any image becomes."""
        longest = max(32, round(self.longest_side * self.rho)) if self.resize == "shorter_side" else None
        return ResizeRule(self.network_size, longest)

    @property
    def quantizable(self) -> bool:
        """Whether training can imitate the INT8 rounding of its layers."""
        return self.backbone.quantizable and self.head.quantizable

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.resize == "shorter_side":
            if not self.head.any_image_size:
                raise ValueError(f"resize 'shorter_side' gives images of many sizes, which {self.head.kind} can't take")
            if self.match_aspect:
                raise ValueError("match_aspect is for resize 'stretch'; with 'shorter_side' images keep their shape")
            if self.longest_side < min(self.input_size):
                raise ValueError(f"longest_side {self.longest_side} is below the shorter side of {self.input_size}")
        return self

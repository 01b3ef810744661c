"""The SSD head (Liu et al. 2016) and SSDLite (Sandler et al. 2018) on two backbone maps and four extra ones."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from mobiledet.models.base import (
    TRIED_RATIOS,
    TRIED_SCALES,
    Backbone,
    BaseBackboneConfig,
    BaseHeadConfig,
    ClassRows,
    Head,
    with_another,
    with_background,
)
from mobiledet.models.distributed import batch_share
from mobiledet.models.layers import ConvNormAct, LayerStyle
from mobiledet.models.maps import ExtraLayers, MapLayers
from mobiledet.ops.anchors import AnchorSetting, AnchorShape, feature_map_sizes, grid_anchors
from mobiledet.ops.boxes import CROWD_COVERAGE, clip_boxes, decode_boxes, encode_boxes, pairwise_coverage, pairwise_iou
from mobiledet.ops.matching import BACKGROUND, match_anchors
from mobiledet.ops.sampling import hard_negatives
from mobiledet.structures import Candidates, Size
from mobiledet.utils.settings import PositiveFloat, PositiveInt

PRIOR = 0.01
"""Score that an untrained head gives every class, so that the first steps aren't spent on unlearning 0.5."""

MIN_EXTRA_CHANNELS = 16
"""TensorFlow's floor for the extra layers of a thin SSD."""

FINE_CHANNELS = 64
"""Of the fine map; scaled by alpha like the backbone, and at least half of them."""
MIN_FINE_CHANNELS = 32

_FINE_STRIDE, _STRIDES = 8, (16, 32)
_SHARES = ("scale_min", "scale_max", "lowest_scale")  # of the input's shorter side
_ANCHORS = ("aspect_ratios", "scale_min", "scale_max", "reduce_lowest", "lowest_scale")


class SSDFamily(BaseHeadConfig):
    """Scores and losses of heads that predict from every anchor of every map at once."""

    quantizable: ClassVar[bool] = True

    scores: Literal["sigmoid", "softmax"] = "sigmoid"
    """One independent sigmoid per class, or a softmax over the classes and background."""
    match_iou: Annotated[float, Field(gt=0, lt=1)] = 0.5
    negative_ratio: PositiveFloat = 3.0
    """Hard negatives per matched anchor that enter the classification loss."""
    box_loss_weight: PositiveFloat = 1.0

    def build(
        self,
        backbone: Backbone,
        settings: BaseBackboneConfig,
        *,
        image_size: Size,  # noqa: ARG002 - anchors are shares of any size
        num_classes: int,
    ) -> SSDHead:
        """The head with fresh weights."""
        layers = self.build_layers([info.channels for info in backbone.feature_info], settings)
        return SSDHead(self, extra_layers=layers, num_classes=num_classes, style=settings.style)

    def build_layers(self, in_channels: Sequence[int], settings: BaseBackboneConfig) -> MapLayers:
        """Everything between the backbone's maps, of so many channels, and the predictors."""
        raise NotImplementedError

    def predictor_layers(self, channels: int, style: LayerStyle) -> list[nn.Module]:  # noqa: ARG002
        """What a predictor has before its last convolution."""
        return []

    def with_anchors_scaled(self, factor: float) -> SSDFamily:
        """The same settings with anchors ``factor`` times as large."""
        scaled = {name: factor * share for name in _SHARES if (share := getattr(self, name, None)) is not None}
        return self.model_copy(update=scaled)

    def anchor_shapes(self) -> list[list[AnchorShape]]:
        """Shapes of the anchors at each location, a list per map."""
        raise NotImplementedError

    def map_sizes(self, network_size: Size) -> list[Size]:
        """``(rows, columns)`` of each map."""
        return feature_map_sizes(self.strides, len(self.anchor_shapes()), network_size)

    @property
    def anchor_iou(self) -> float:
        """Overlap from which an anchor is one of an object."""
        return self.match_iou

    def anchor_maps(self, network_size: Size, image_size: Size) -> list[Tensor]:  # noqa: ARG002
        """Its anchors ``(rows, columns, n, 4)`` of each map."""
        shapes, sizes = self.anchor_shapes(), self.map_sizes(network_size)
        return [grid_anchors(s, size, network_size).view(*size, -1, 4) for s, size in zip(shapes, sizes, strict=True)]


class _FormulaConfig(SSDFamily):
    """What SSD and SSDLite have in common: the extra maps, and anchors by SSD's formula."""

    dictated: ClassVar[tuple[str, ...]] = ("extra_channels", "scores", "fine_map", *_ANCHORS)
    flexible: ClassVar[tuple[str, ...]] = ("fine_map", *_ANCHORS)
    depthwise: ClassVar[bool]

    extra_channels: tuple[tuple[PositiveInt, PositiveInt], ...] = ((256, 512), (128, 256), (128, 256), (64, 128))
    """(1x1, 3x3 stride 2) channels of each extra pair; scaled by alpha like the backbone."""
    aspect_ratios: tuple[PositiveFloat, ...] = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
    """Width over height of a location's boxes; the interpolated square comes on top."""
    scale_min: Annotated[float, Field(gt=0, le=1)] = 0.2
    scale_max: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Box sizes of the highest- and lowest-resolution map, as a share of the input's shorter side."""
    reduce_lowest: bool = True
    """Three boxes instead of six on the highest-resolution map, which has many locations (TensorFlow's choice)."""
    lowest_scale: Annotated[float, Field(gt=0, le=1)] | None = None
    """Size of the square among those three; None for half of ``scale_min``. TensorFlow's is 0.1 whatever scale_min."""
    fine_map: bool | Literal["auto"] = False
    """One more map of stride 8 with anchors of its own, from Conv5 and Conv11, for objects smaller than the others;
    "auto" adds it where training images have enough of those."""

    @model_validator(mode="after")
    def _check(self) -> _FormulaConfig:
        if self.scale_min >= self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} must be below scale_max {self.scale_max}")
        if not self.extra_channels or not self.aspect_ratios:
            raise ValueError("extra_channels and aspect_ratios must not be empty")
        return self

    @property
    def strides(self) -> tuple[int, ...]:
        """Those of Conv11 and Conv13, and of Conv5 for the fine map."""
        return (_FINE_STRIDE, *_STRIDES) if self.fine_map is True else _STRIDES

    def build_layers(self, in_channels: Sequence[int], settings: BaseBackboneConfig) -> MapLayers:
        """The pairs of convolutions that grow the extra maps, and the fine one."""
        channels = [
            (settings.scaled(squeeze, MIN_EXTRA_CHANNELS), settings.scaled(expand, MIN_EXTRA_CHANNELS))
            for squeeze, expand in self.extra_channels
        ]
        return ExtraLayers(
            in_channels=in_channels,
            channels=channels,
            depthwise=self.depthwise,
            style=settings.style,
            fine_channels=settings.scaled(FINE_CHANNELS, MIN_FINE_CHANNELS) if self.fine_map is True else None,
        )

    def predictor_layers(self, channels: int, style: LayerStyle) -> list[nn.Module]:
        """None in SSD, a 3x3 depthwise one in SSDLite."""
        return [ConvNormAct(channels, channels, kernel_size=3, groups=channels, style=style)] if self.depthwise else []

    def anchor_shapes(self) -> list[list[AnchorShape]]:
        """SSD's; see `AnchorSetting`."""
        settings = {name: getattr(self, name) for name in _ANCHORS}
        return AnchorSetting(num_maps=self._formula_maps, fine_map=self.fine_map is True, **settings).shapes()

    def map_sizes(self, network_size: Size) -> list[Size]:
        """Those of the formula, and the fine one."""
        sizes = feature_map_sizes(_STRIDES, self._formula_maps, network_size)
        return sizes + (feature_map_sizes((_FINE_STRIDE,), 1, network_size) if self.fine_map is True else [])

    @property
    def _formula_maps(self) -> int:
        return len(_STRIDES) + len(self.extra_channels)

    def anchor_changes(self) -> list[dict[str, Any]]:
        """Another minimum scale, all anchors on the highest-resolution map or three, one more aspect ratio or map."""
        least = [scale for scale in TRIED_SCALES if scale < self.scale_max]
        scales = [{"scale_min": scale, "reduce_lowest": reduce} for scale in least for reduce in (True, False)]
        ratios = [{"aspect_ratios": ratios} for ratios in with_another(self.aspect_ratios, TRIED_RATIOS)]
        return [*scales, *ratios, *([] if self.fine_map is True else [{"fine_map": True}])]


class SSDConfig(_FormulaConfig):
    """SSD head (Liu et al. 2016) on Conv11, Conv13 and four extra maps."""

    depthwise: ClassVar[bool] = False
    kind: Literal["ssd"] = "ssd"


class SSDLiteConfig(_FormulaConfig):
    """SSD with depthwise-separable 3x3 predictors and extra layers (Sandler et al. 2018, section 6.2)."""

    depthwise: ClassVar[bool] = True
    kind: Literal["ssdlite"] = "ssdlite"


class SSDHead(Head):
    """Predicts, for every anchor of every map, class scores and the offset from the anchor to the object.

    A predictor is one 1x1 convolution (the paper's cost table follows from it), in SSDLite a 3x3 depthwise-separable
    pair.

    Args:
        settings: Anchors, scores and losses.
        extra_layers: Make the maps that are predicted from of the backbone's.
        num_classes: Object classes ``K``, without background.
        style: Padding and batch-norm settings of the depthwise predictors.
    """

    parts: ClassVar[Mapping[str, str]] = {
        "extra layers": "extra_layers.",
        "box predictors": "bbox_predictors.",
        "class predictors": "cls_predictors.",
    }

    def __init__(
        self,
        settings: SSDFamily,
        *,
        extra_layers: MapLayers,
        num_classes: int,
        style: LayerStyle,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.extra_layers = extra_layers
        self.anchor_shapes = settings.anchor_shapes()
        self.num_classes = num_classes
        self.num_outputs = num_classes + (settings.scores == "softmax")
        self.cls_predictors = nn.ModuleList()
        self.bbox_predictors = nn.ModuleList()
        for channels, shapes in zip(extra_layers.out_channels, self.anchor_shapes, strict=True):
            for predictors, values in ((self.cls_predictors, self.num_outputs), (self.bbox_predictors, 4)):
                layers = settings.predictor_layers(channels, style)
                predictors.append(_predictor(layers, channels, len(shapes) * values))
        if settings.scores == "sigmoid":
            for module in self.cls_predictors:
                last = list(module.modules())[-1]
                nn.init.constant_(last.bias, -math.log((1 - PRIOR) / PRIOR))  # type: ignore[arg-type]
        self._anchors: dict[tuple[object, ...], Tensor] = {}

    def loss(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[Size], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Training losses of a batch; see `Head.loss`. SSD wants images of one size.

        Returns:
            ``classification`` and ``box``: scalars, each divided by the batch's number of matched anchors.
        """
        cls_logits, bbox_deltas, anchors = self._predict(features, image_sizes)
        matches = [self._match(target, anchors) for target in targets]
        labels = torch.stack([match[0] for match in matches])
        ignored = torch.stack([match[1] for match in matches])
        positive = labels > 0
        box_targets = torch.cat([match[2] for match in matches])
        classification, background = self._classification_losses(cls_logits, labels)
        if "scores" in targets[0]:  # an object counts as much as it is to score
            scores = torch.cat([match[3] for match in matches if match[3] is not None])
            weight = scores.amax(dim=1)
            classification = classification.masked_scatter(positive, self._soft_losses(cls_logits[positive], scores))
            num_matched = batch_share(weight.sum())
            box_losses = F.smooth_l1_loss(bbox_deltas[positive], box_targets, reduction="none").sum(dim=1)
            box_loss = (box_losses * weight).sum()
        else:
            num_matched = batch_share(positive.sum())
            box_loss = F.smooth_l1_loss(bbox_deltas[positive], box_targets, reduction="sum")
        negative = hard_negatives(background.detach(), positive, ignored, self.settings.negative_ratio)
        chosen = torch.where(positive, classification, background)[positive | negative]
        return {
            "classification": chosen.sum() / num_matched,
            "box": self.settings.box_loss_weight * box_loss / num_matched,
        }

    def candidates(self, features: Mapping[str, Tensor], image_sizes: Sequence[Size]) -> Candidates:
        """Every anchor's decoded box and scores.

        Returns:
            Boxes ``(B, A, 4)`` in network pixels, clipped to it, and scores ``(B, A, K)``.
        """
        cls_logits, bbox_deltas, anchors = self._predict(features, image_sizes)
        boxes = clip_boxes(decode_boxes(bbox_deltas, anchors), image_sizes[0])
        if self.settings.scores == "sigmoid":
            return Candidates(boxes, cls_logits.sigmoid())
        return Candidates(boxes, cls_logits.softmax(dim=-1)[..., 1:])

    def class_rows(self) -> dict[str, ClassRows]:
        """The last layer of each class predictor."""
        last = {
            id(parameter) for module in self.cls_predictors for parameter in list(module.modules())[-1].parameters()
        }
        rows = ClassRows(1, background=self.settings.scores == "softmax")
        return {name: rows for name, parameter in self.named_parameters() if id(parameter) in last}

    def anchors(self, map_sizes: Sequence[Size], image_size: Size, device: torch.device | None = None) -> Tensor:
        """All anchors ``(A, 4)`` xyxy in network pixels, map by map; kept between calls."""
        key = (tuple(map_sizes), image_size, device)
        if key not in self._anchors:
            grids = [
                grid_anchors(shapes, map_size, image_size)
                for shapes, map_size in zip(self.anchor_shapes, map_sizes, strict=True)
            ]
            self._anchors[key] = torch.cat(grids).to(device)
        return self._anchors[key]

    def _predict(self, features: Mapping[str, Tensor], image_sizes: Sequence[Size]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits ``(B, A, K or K + 1)``, offsets ``(B, A, 4)`` and anchors ``(A, 4)``, float32."""
        if len(set(image_sizes)) != 1:
            raise ValueError(f"this head needs network inputs of one size, not {sorted(set(image_sizes))}")
        maps = self.extra_layers(list(features.values()))
        cls_logits = [
            _per_anchor(predict(x), self.num_outputs) for predict, x in zip(self.cls_predictors, maps, strict=True)
        ]
        bbox_deltas = [_per_anchor(predict(x), 4) for predict, x in zip(self.bbox_predictors, maps, strict=True)]
        map_sizes = [(x.shape[2], x.shape[3]) for x in maps]
        anchors = self.anchors(map_sizes, image_sizes[0], maps[0].device)
        return torch.cat(cls_logits, dim=1).float(), torch.cat(bbox_deltas, dim=1).float(), anchors

    def _match(self, target: Mapping[str, Tensor], anchors: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Labels ``(A,)`` (0 background) and ignored ``(A,)``; offsets ``(M, 4)`` and scores of the matched anchors."""
        boxes, labels, scores = target["boxes"], target["labels"], target.get("scores")
        crowd = target.get("iscrowd")
        ignored = torch.zeros(len(anchors), dtype=torch.bool, device=anchors.device)
        if crowd is not None and bool(crowd.any()):
            covered = pairwise_coverage(boxes[crowd.bool()], anchors) > CROWD_COVERAGE
            ignored = covered.any(dim=0)
            boxes, labels = boxes[~crowd.bool()], labels[~crowd.bool()]
            scores = None if scores is None else scores[~crowd.bool()]
        matched = match_anchors(pairwise_iou(boxes, anchors), self.settings.match_iou)
        positive = matched != BACKGROUND
        anchor_labels = torch.zeros_like(matched)
        objects = matched[positive]
        anchor_labels[positive] = labels[objects]
        offsets = encode_boxes(boxes[objects], anchors[positive])
        return anchor_labels, ignored & ~positive, offsets, None if scores is None else scores[objects]

    def _classification_losses(self, cls_logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Loss of every anchor for its own label, and for being background: both ``(B, A)``."""
        if self.settings.scores == "softmax":
            log_prob = cls_logits.log_softmax(dim=-1)
            return -log_prob.gather(2, labels[..., None])[..., 0], -log_prob[..., 0]
        # Binary cross-entropy against all zeros is softplus(x); turning one target to 1 subtracts its logit.
        background = F.softplus(cls_logits).sum(dim=-1)
        own = cls_logits.gather(2, (labels - 1).clamp(min=0)[..., None])[..., 0]
        return background - own, background

    def _soft_losses(self, cls_logits: Tensor, scores: Tensor) -> Tensor:
        """Cross-entropy ``(M,)`` of logits ``(M, K or K + 1)`` with the scores ``(M, K)`` that they are to give."""
        if self.settings.scores == "softmax":
            return F.cross_entropy(cls_logits, with_background(scores), reduction="none")
        return F.softplus(cls_logits).sum(dim=-1) - (cls_logits * scores).sum(dim=-1)


def _predictor(layers: Sequence[nn.Module], channels: int, out_channels: int) -> nn.Module:
    """The layers, none or some, and a 1x1 convolution."""
    conv = nn.Conv2d(channels, out_channels, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)  # type: ignore[arg-type]
    return nn.Sequential(*layers, conv) if layers else conv


def _per_anchor(prediction: Tensor, values: int) -> Tensor:
    """``(B, n * values, H, W)`` to ``(B, H * W * n, values)``: the order of `grid_anchors`."""
    return prediction.permute(0, 2, 3, 1).reshape(prediction.shape[0], -1, values)

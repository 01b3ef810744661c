"""The Faster R-CNN head (Ren et al. 2015) on MobileNetV1, as in the MobileNets paper (Howard et al. 2017, section 4.6).

Proposals come from the map of Conv11; each is cropped from that map, and the backbone's last two layers classify it.
Matching, sampling and losses follow torchvision's. Its anchors and proposals don't serve: its anchor generator rounds
300 / 19 down to a stride of 15, and its proposals vary in number, which can't be exported.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from mobiledet.errors import ModelFileError
from mobiledet.models.base import (
    TRIED_RATIOS,
    TRIED_SCALES,
    Backbone,
    BaseBackboneConfig,
    BaseHeadConfig,
    ClassRows,
    FeatureInfo,
    Head,
    with_another,
    with_background,
)
from mobiledet.models.distributed import batch_share
from mobiledet.models.layers import DepthwiseSeparable, LayerStyle
from mobiledet.ops.anchors import rpn_anchor_sizes, rpn_anchors
from mobiledet.ops.boxes import (
    CODER_WEIGHTS,
    CROWD_COVERAGE,
    clip_boxes,
    decode_boxes,
    encode_boxes,
    pairwise_coverage,
    pairwise_iou,
    xyxy_to_cxcywh,
)
from mobiledet.ops.matching import BACKGROUND, IGNORED, match_by_thresholds
from mobiledet.ops.nms import best_boxes
from mobiledet.ops.roi_align import roi_align
from mobiledet.ops.sampling import balanced_sample
from mobiledet.structures import Candidates, Size
from mobiledet.utils.settings import PositiveFloat, PositiveInt

RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
"""The proposal network's offsets aren't scaled."""

RPN_OBJECT_IOU, RPN_BACKGROUND_IOU = 0.7, 0.3
"""An anchor is an object from the first overlap on, background below the second, and left out between them."""

RPN_SAMPLES, RPN_OBJECTS = 256, 0.5
"""Anchors of an image that the proposal network is trained on, and the largest share of objects among them."""

FOREGROUND_IOU = 0.5
"""Overlap from which a proposal is trained as the object, not as background."""

ROI_OBJECTS = 0.25
"""Largest share of objects among the proposals that the second stage is trained on."""

BETA = 1 / 9
"""Offset below which smooth L1 is quadratic (Girshick 2015)."""

MIN_PROPOSAL_SIDE = 1.0
"""Proposals thinner than this, in network pixels, hold nothing to look at."""

MIN_OBJECT_SIDE = 0.01
"""Objects thinner than this, in network pixels, are left out: their offsets would be infinite."""

SAMPLES_PER_CELL = 2
"""Points per side that RoIAlign averages in a cell of the crop."""


class FasterRCNNConfig(BaseHeadConfig):
    """Faster R-CNN (Ren et al. 2015): proposals from Conv11, each cropped and classified by Conv12 and Conv13."""

    strides: ClassVar[tuple[int, ...]] = (16,)
    any_image_size: ClassVar[bool] = True
    dictated: ClassVar[tuple[str, ...]] = ("rpn", "crop_size", "anchor_scales", "aspect_ratios")
    flexible: ClassVar[tuple[str, ...]] = ("crop_size", "anchor_scales", "aspect_ratios")

    kind: Literal["faster_rcnn"] = "faster_rcnn"
    anchor_scales: tuple[Annotated[float, Field(gt=0, le=2)], ...] = (0.1, 0.2, 0.4, 0.8)
    """Sizes of the proposal network's anchors, as a share of the input's shorter side."""
    aspect_ratios: tuple[PositiveFloat, ...] = (0.5, 1.0, 2.0)
    """Width over height of the anchors."""
    rpn: Literal["conv", "depthwise"] = "conv"
    """The proposal network's 3x3 layer: a full convolution, or a depthwise-separable one at a ninth of the cost."""
    proposals: Annotated[int, Field(gt=0, le=10_000)] = 300
    """Regions of an image that reach the second stage."""
    crop_size: Annotated[int, Field(ge=2, le=56)] = 14
    """Side of what RoIAlign cuts out of the feature map for a region; the second stage starts by halving it."""
    proposal_candidates: PositiveInt = 2000
    """Best anchors of an image that enter the non-maximum suppression of proposals."""
    proposal_iou: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Two proposals that overlap more are one."""
    rois_per_image: PositiveInt = 64
    """Proposals of an image that the second stage is trained on, at most a quarter of them objects."""
    rpn_loss_weight: PositiveFloat = 1.0
    box_loss_weight: PositiveFloat = 1.0

    @model_validator(mode="after")
    def _check(self) -> FasterRCNNConfig:
        if not self.anchor_scales or not self.aspect_ratios:
            raise ValueError("anchor_scales and aspect_ratios must not be empty")
        return self

    def build(
        self, backbone: Backbone, settings: BaseBackboneConfig, *, image_size: Size, num_classes: int
    ) -> FasterRCNNHead:
        """The head with fresh weights."""
        return FasterRCNNHead(
            self,
            feature=backbone.feature_info[-1],
            second_stage=settings.build_after(self.strides[-1]),
            anchor_sizes=rpn_anchor_sizes(self.anchor_scales, self.aspect_ratios, min(image_size)),
            num_classes=num_classes,
            style=settings.style,
        )

    def with_anchors_scaled(self, factor: float) -> FasterRCNNConfig:  # noqa: ARG002
        """Refused."""
        raise ModelFileError("--input-size isn't for a Faster R-CNN of a fixed size; export it as it is")

    @property
    def anchor_iou(self) -> float:
        """The proposal network gives every object the anchors that overlap it best; these should be as good."""
        return FOREGROUND_IOU

    def anchor_maps(self, network_size: Size, image_size: Size) -> list[Tensor]:
        """Its anchors ``(rows, columns, n, 4)``, on one map."""
        stride = self.strides[-1]
        rows, columns = (math.ceil(side / stride) for side in image_size)
        sizes = rpn_anchor_sizes(self.anchor_scales, self.aspect_ratios, min(network_size))
        return [rpn_anchors(sizes, (rows, columns), stride).view(rows, columns, -1, 4)]

    def anchor_changes(self) -> list[dict[str, Any]]:
        """One more scale or aspect ratio."""
        scales = [{"anchor_scales": each} for each in with_another(self.anchor_scales, TRIED_SCALES)]
        return scales + [{"aspect_ratios": each} for each in with_another(self.aspect_ratios, TRIED_RATIOS)]


class ProposalNetwork(nn.Module):
    """The layers that find proposals: a 3x3 convolution, then objectness and offsets of each anchor."""

    def __init__(self, channels: int, num_anchors: int, *, depthwise: bool, style: LayerStyle) -> None:
        super().__init__()
        # Nested as in torchvision, whose names checkpoints have: conv.0.0.weight.
        self.conv: nn.Module = nn.Sequential(nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU()))
        self.cls_logits = nn.Conv2d(channels, num_anchors, 1)
        self.bbox_pred = nn.Conv2d(channels, num_anchors * 4, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.normal_(layer.weight, std=0.01)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if depthwise:  # last, so that a seed gives the same weights in either case
            self.conv = DepthwiseSeparable(channels, channels, style=style)

    def forward(self, feature_map: Tensor) -> tuple[Tensor, Tensor]:
        """``(B, C, H, W)`` to objectness ``(B, n, H, W)`` and offsets ``(B, n * 4, H, W)``, anchor by anchor."""
        features = self.conv(feature_map)
        return self.cls_logits(features), self.bbox_pred(features)


class FasterRCNNHead(Head):
    """Proposes regions, then classifies each and corrects its box.

    Args:
        settings: Proposals, samples and losses.
        feature: The backbone's map that everything looks at.
        second_stage: The layers that see each crop; ends in one map.
        anchor_sizes: ``(height, width)`` in network pixels of a location's anchors.
        num_classes: Object classes ``K``, without background.
        style: Padding and batch-norm settings of a depthwise proposal network.
    """

    parts: ClassVar[Mapping[str, str]] = {
        "proposal network": "rpn.",
        "second stage": "second_stage.",
        "box predictor": "bbox_predictor.",
        "class predictor": "cls_predictor.",
    }
    needs_inner_nms: ClassVar[bool] = True

    def __init__(
        self,
        settings: FasterRCNNConfig,
        *,
        feature: FeatureInfo,
        second_stage: Backbone,
        anchor_sizes: Sequence[Size],
        num_classes: int,
        style: LayerStyle,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.feature = feature
        self.anchor_sizes = list(anchor_sizes)
        self.num_classes = num_classes
        depthwise = settings.rpn == "depthwise"
        self.rpn = ProposalNetwork(feature.channels, len(anchor_sizes), depthwise=depthwise, style=style)
        self.second_stage = second_stage
        channels = second_stage.feature_info[-1].channels
        self.cls_predictor = nn.Linear(channels, num_classes + 1)
        self.bbox_predictor = nn.Linear(channels, num_classes * 4)
        for layer, spread in ((self.cls_predictor, 0.01), (self.bbox_predictor, 0.001)):
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)
        self._anchors: dict[tuple[object, ...], Tensor] = {}

    def loss(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[Size], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Training losses of a batch; see `Head.loss`.

        Returns:
            ``objectness`` and ``proposal_box`` of the proposal network, ``classification`` and ``box`` of the second
            stage: scalars, each a mean over what was sampled.
        """
        feature_map = features[self.feature.name]
        objectness, bbox_deltas, anchors = self._rpn(feature_map)
        objects, crowds = zip(*(_split_crowd(target, self.num_classes) for target in targets), strict=True)
        objectness_loss, proposal_loss = self._rpn_loss(objectness, bbox_deltas, anchors, objects, crowds)
        proposals, scores = self._propose(objectness.detach(), bbox_deltas.detach(), anchors, image_sizes)
        real = [boxes[found > 0] for boxes, found in zip(proposals, scores, strict=True)]
        classification_loss, box_loss = self._roi_loss(feature_map, real, objects, crowds)
        return {
            "objectness": self.settings.rpn_loss_weight * objectness_loss,
            "proposal_box": self.settings.rpn_loss_weight * proposal_loss,
            "classification": classification_loss,
            "box": self.settings.box_loss_weight * box_loss,
        }

    def candidates(self, features: Mapping[str, Tensor], image_sizes: Sequence[Size]) -> Candidates:
        """Every proposal's scores and its box for each class.

        Returns:
            Boxes ``(B, P, K, 4)`` in network pixels, clipped to the image, and scores ``(B, P, K)``. Where an image
            has fewer than P proposals, the rest scores 0.
        """
        feature_map = features[self.feature.name]
        proposals, found = self._propose(*self._rpn(feature_map), image_sizes)
        cls_logits, bbox_deltas = self._second_stage(feature_map, list(proposals))
        batch, count = proposals.shape[:2]
        scores = cls_logits.softmax(dim=-1)[:, 1:].reshape(batch, count, self.num_classes)
        deltas = bbox_deltas.reshape(batch, count, self.num_classes, 4)
        boxes = decode_boxes(deltas, proposals[:, :, None])
        return Candidates(_clip_each(boxes, image_sizes), scores * (found > 0)[:, :, None])

    def class_rows(self) -> dict[str, ClassRows]:
        """Both predictors: background has scores but no box."""
        rows = {"cls_predictor": ClassRows(1, background=True), "bbox_predictor": ClassRows(4, background=False)}
        return {f"{layer}.{kind}": rows[layer] for layer in rows for kind in ("weight", "bias")}

    def anchors(self, map_size: Size, device: torch.device | None = None) -> Tensor:
        """All anchors ``(A, 4)`` xyxy in network pixels; kept between calls."""
        key = (map_size, device)
        if key not in self._anchors:
            if len(self._anchors) > 100:  # images of any shape come by
                self._anchors.clear()
            self._anchors[key] = rpn_anchors(self.anchor_sizes, map_size, self.feature.stride).to(device)
        return self._anchors[key]

    def _rpn(self, feature_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Objectness logits ``(B, A)``, offsets ``(B, A, 4)`` and anchors ``(A, 4)``, float32."""
        objectness, bbox_deltas = self.rpn(feature_map)
        batch, _, height, width = objectness.shape
        objectness = objectness.permute(0, 2, 3, 1).reshape(batch, -1)
        # Channels are anchor by anchor, four offsets each.
        bbox_deltas = bbox_deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4)
        return objectness.float(), bbox_deltas.float(), self.anchors((height, width), feature_map.device)

    def _propose(
        self, objectness: Tensor, bbox_deltas: Tensor, anchors: Tensor, image_sizes: Sequence[Size]
    ) -> tuple[Tensor, Tensor]:
        """The best regions of each image, from what `_rpn` gives: boxes ``(B, P, 4)`` and scores ``(B, P)``.

        Best first; boxes and scores of 0 where an image has fewer.
        """
        logits, top = objectness.topk(min(self.settings.proposal_candidates, objectness.shape[1]), dim=1)
        deltas = bbox_deltas.gather(1, top[:, :, None].expand(-1, -1, 4))
        boxes = _clip_each(decode_boxes(deltas, anchors[top], RPN_WEIGHTS), image_sizes)
        large = ((boxes[..., 2:] - boxes[..., :2]) >= MIN_PROPOSAL_SIDE).all(dim=-1)
        # A sigmoid is above 0 but for rounding; the floor keeps "found" and "not found" apart.
        scores = logits.sigmoid().clamp(min=1e-6) * large
        found, index = best_boxes(boxes, scores, self.settings.proposal_iou, self.settings.proposals)
        proposals = boxes.gather(1, index[:, :, None].expand(-1, -1, 4)) * (found > 0)[:, :, None]
        missing = self.settings.proposals - found.shape[1]
        return F.pad(proposals, (0, 0, 0, missing)), F.pad(found, (0, missing))

    def _second_stage(self, feature_map: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits ``(R, K + 1)`` and offsets ``(R, K * 4)``, float32, of all boxes of all images."""
        crops = roi_align(
            feature_map, boxes, size=self.settings.crop_size, stride=self.feature.stride, samples=SAMPLES_PER_CELL
        )
        pooled = self.second_stage(crops)[self.second_stage.feature_info[-1].name].mean(dim=(2, 3))
        return self.cls_predictor(pooled).float(), self.bbox_predictor(pooled).float()

    def _rpn_loss(
        self,
        objectness: Tensor,
        bbox_deltas: Tensor,
        anchors: Tensor,
        objects: Sequence[dict[str, Tensor]],
        crowds: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Objectness and box loss of ``RPN_SAMPLES`` anchors of each image (Ren et al., section 3.1.3)."""
        positive, negative, offsets, wanted = [], [], [], []
        for target, crowd in zip(objects, crowds, strict=True):
            iou = pairwise_iou(target["boxes"], anchors)
            matched = match_by_thresholds(iou, RPN_OBJECT_IOU, RPN_BACKGROUND_IOU, best_for_each=True)
            matched[(matched == BACKGROUND) & _covered(anchors, crowd)] = IGNORED
            chosen = balanced_sample(matched >= 0, matched == BACKGROUND, RPN_SAMPLES, RPN_OBJECTS)
            positive.append(chosen[0])
            negative.append(chosen[1])
            boxes = target["boxes"][matched[chosen[0]]]
            wanted.append(target["scores"].amax(dim=1)[matched[chosen[0]]])
            offsets.append(encode_boxes(boxes, anchors[chosen[0]], RPN_WEIGHTS))
        is_object, is_background = torch.stack(positive), torch.stack(negative)
        count = is_object.sum() + is_background.sum()
        weight = count / batch_share(count)  # 1, but for several processes
        if count == 0:
            return objectness.sum() * 0, bbox_deltas.sum() * 0
        box_loss = F.smooth_l1_loss(bbox_deltas[is_object], torch.cat(offsets), beta=BETA, reduction="sum") / count
        logits = torch.cat([objectness[is_object], objectness[is_background]])
        labels = torch.cat([*wanted, torch.zeros_like(objectness[is_background])])
        return F.binary_cross_entropy_with_logits(logits, labels) * weight, box_loss * weight

    def _roi_loss(
        self,
        feature_map: Tensor,
        proposals: list[Tensor],
        objects: Sequence[dict[str, Tensor]],
        crowds: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Classification and box loss of ``rois_per_image`` proposals of each image, the true boxes among them."""
        regions, labels, offsets, wanted = [], [], [], []
        for found, target, crowd in zip(proposals, objects, crowds, strict=True):
            boxes = torch.cat([found, target["boxes"]])
            iou = pairwise_iou(target["boxes"], boxes)
            matched = match_by_thresholds(iou, FOREGROUND_IOU, FOREGROUND_IOU)
            matched[(matched == BACKGROUND) & _covered(boxes, crowd)] = IGNORED
            positive, negative = balanced_sample(
                matched >= 0, matched == BACKGROUND, self.settings.rois_per_image, ROI_OBJECTS
            )
            sampled, chosen = boxes[positive | negative], matched[positive | negative]
            regions.append(sampled)
            is_object = chosen >= 0
            own = torch.zeros_like(chosen)
            own[is_object] = target["labels"][chosen[is_object]]
            labels.append(own)
            scores = target["scores"].new_zeros(len(chosen), self.num_classes)
            scores[is_object] = target["scores"][chosen[is_object]]
            wanted.append(scores)
            offsets.append(_roi_offsets(target["boxes"][chosen[is_object]], sampled[is_object]))
        label = torch.cat(labels)
        weight = len(label) / batch_share(label.new_tensor(len(label)))
        if not len(label):
            nothing = feature_map.sum() * 0
            for module in (self.second_stage, self.cls_predictor, self.bbox_predictor):
                nothing = sum(
                    (parameter.sum() * 0 for parameter in module.parameters()), nothing
                )  # all have a gradient
            return nothing, nothing
        cls_logits, bbox_deltas = self._second_stage(feature_map, regions)
        is_object = label > 0
        own_deltas = bbox_deltas.reshape(len(label), -1, 4)[is_object, label[is_object] - 1]
        box_loss = F.smooth_l1_loss(own_deltas, torch.cat(offsets), beta=BETA, reduction="sum") / len(label)
        return F.cross_entropy(cls_logits, with_background(torch.cat(wanted))) * weight, box_loss * weight


def _roi_offsets(boxes: Tensor, proposals: Tensor) -> Tensor:
    """As `encode_boxes`, rounded as torchvision does it: a seed gives the training it always gave."""
    box, region = xyxy_to_cxcywh(boxes), xyxy_to_cxcywh(proposals)
    weights = boxes.new_tensor(CODER_WEIGHTS)
    shift = weights[:2] * (box[:, :2] - region[:, :2]) / region[:, 2:]
    return torch.cat([shift, weights[2:] * torch.log(box[:, 2:] / region[:, 2:])], dim=1)


def _split_crowd(target: Mapping[str, Tensor], num_classes: int) -> tuple[dict[str, Tensor], Tensor]:
    """Objects (``boxes``, ``labels``, ``scores``) and crowd regions ``(C, 4)`` of an image."""
    boxes, labels = target["boxes"], target["labels"]
    crowd = target["iscrowd"].bool() if "iscrowd" in target else torch.zeros_like(labels, dtype=torch.bool)
    real = ~crowd & ((boxes[:, 2:] - boxes[:, :2]) >= MIN_OBJECT_SIDE).all(dim=1)
    scores = target["scores"] if "scores" in target else F.one_hot(labels - 1, num_classes).float()
    return {"boxes": boxes[real], "labels": labels[real], "scores": scores[real]}, boxes[crowd]


def _covered(boxes: Tensor, crowd: Tensor) -> Tensor:
    """Which of ``(N, 4)`` lie in a crowd region: ``(N,)`` bool."""
    return (pairwise_coverage(crowd, boxes) > CROWD_COVERAGE).any(dim=0)


def _clip_each(boxes: Tensor, image_sizes: Sequence[Size]) -> Tensor:
    """Boxes ``(B, ..., 4)`` cut off at the edges of their image."""
    if len(set(image_sizes)) == 1:
        return clip_boxes(boxes, image_sizes[0])
    return torch.stack([clip_boxes(one, size) for one, size in zip(boxes, image_sizes, strict=True)])

"""The Faster R-CNN head (Ren et al. 2015) on MobileNetV1, as in the MobileNets paper (Howard et al. 2017, section 4.6).

Proposals come from the map of Conv11; each is cropped from that map, and the backbone's last two layers judge it.
Who is matched and sampled in training, and the losses, are torchvision's. Anchors and proposals are not: its anchor
generator rounds 300 / 19 down to a stride of 15, and its proposals vary in number, which can't be exported.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.roi_heads import RoIHeads, fastrcnn_loss
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead

from mobiledet.models.layers import DEFAULT_STYLE, DepthwiseSeparable, LayerStyle
from mobiledet.models.mobilenet_v1 import FeatureInfo, MobileNetV1
from mobiledet.ops.anchors import rpn_anchors
from mobiledet.ops.boxes import CROWD_COVERAGE, clip_boxes, decode_boxes, encode_boxes, pairwise_coverage, pairwise_iou
from mobiledet.ops.nms import best_boxes
from mobiledet.ops.roi_align import roi_align
from mobiledet.structures import Candidates, Size

RPN_WEIGHTS = (1.0, 1.0, 1.0, 1.0)
"""The proposal network's offsets aren't scaled."""

FOREGROUND_IOU = 0.5
"""Overlap from which a proposal is trained as the object, not as background."""

MIN_PROPOSAL_SIDE = 1.0
"""Proposals thinner than this, in network pixels, hold nothing to look at."""

MIN_OBJECT_SIDE = 0.01
"""Objects thinner than this, in network pixels, can't be told from nothing: their offsets would be infinite."""

SAMPLES_PER_CELL = 2
"""Points per side that RoIAlign averages in a cell of the crop."""


class DepthwiseRPNHead(RPNHead):  # type: ignore[misc]
    """torchvision's proposal layers with a depthwise-separable 3x3 convolution."""

    def __init__(self, in_channels: int, num_anchors: int, style: LayerStyle) -> None:
        super().__init__(in_channels, num_anchors)
        self.conv = DepthwiseSeparable(in_channels, in_channels, style=style)


class FasterRCNNHead(nn.Module):
    """Proposes regions, then classifies each and corrects its box.

    Args:
        feature: The backbone's map that everything looks at.
        second_stage: The layers that see each crop; ends in one map.
        anchor_sizes: ``(height, width)`` in network pixels of a location's anchors.
        num_classes: Object classes ``K``, without background.
        rpn: A full 3x3 convolution or a depthwise-separable one.
        proposals: Regions of a picture that reach the second stage.
        crop_size: Side of a region's crop, in cells.
        proposal_candidates: Best anchors of a picture that enter non-maximum suppression.
        proposal_iou: Two proposals that overlap more are one.
        rois_per_image: Proposals of a picture that the second stage is trained on, at most a quarter of them objects.
        rpn_loss_weight: Weight of both losses of the proposal network.
        box_loss_weight: Weight of the second stage's box loss.
        style: Padding and batch-norm settings of a depthwise proposal network.
    """

    scores: Literal["softmax"] = "softmax"

    def __init__(
        self,
        *,
        feature: FeatureInfo,
        second_stage: MobileNetV1,
        anchor_sizes: Sequence[Size],
        num_classes: int,
        rpn: Literal["conv", "depthwise"] = "conv",
        proposals: int = 300,
        crop_size: int = 14,
        proposal_candidates: int = 2000,
        proposal_iou: float = 0.7,
        rois_per_image: int = 64,
        rpn_loss_weight: float = 1.0,
        box_loss_weight: float = 1.0,
        style: LayerStyle = DEFAULT_STYLE,
    ) -> None:
        super().__init__()
        self.feature = feature
        self.anchor_sizes = list(anchor_sizes)
        self.num_classes = num_classes
        self.num_proposals = proposals
        self.crop_size = crop_size
        self.proposal_candidates = proposal_candidates
        self.proposal_iou = proposal_iou
        self.rpn_loss_weight = rpn_loss_weight
        self.box_loss_weight = box_loss_weight
        if rpn == "depthwise":
            self.rpn: RPNHead = DepthwiseRPNHead(feature.channels, len(anchor_sizes), style)
        else:
            self.rpn = RPNHead(feature.channels, len(anchor_sizes))
        self.second_stage = second_stage
        channels = second_stage.feature_info[-1].channels
        self.cls_predictor = nn.Linear(channels, num_classes + 1)
        self.bbox_predictor = nn.Linear(channels, num_classes * 4)
        for layer, spread in ((self.cls_predictor, 0.01), (self.bbox_predictor, 0.001)):
            nn.init.normal_(layer.weight, std=spread)
            nn.init.zeros_(layer.bias)
        self._anchors: dict[tuple[object, ...], Tensor] = {}
        # Of these two only matching, sampling and losses are used: no layers, no thresholds of detections.
        self._rpn_training = RegionProposalNetwork(
            None,
            None,
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={},
            post_nms_top_n={},
            nms_thresh=proposal_iou,
        )
        self._roi_training = RoIHeads(
            None,
            None,
            None,
            fg_iou_thresh=FOREGROUND_IOU,
            bg_iou_thresh=FOREGROUND_IOU,
            batch_size_per_image=rois_per_image,
            positive_fraction=0.25,
            bbox_reg_weights=None,
            score_thresh=0.0,
            nms_thresh=0.5,
            detections_per_img=0,
        )

    def loss(
        self, features: Mapping[str, Tensor], image_sizes: Sequence[Size], targets: Sequence[Mapping[str, Tensor]]
    ) -> dict[str, Tensor]:
        """Training losses of a batch.

        Args:
            features: The backbone's maps; the one named by ``feature`` is used, ``(B, C, H, W)``.
            image_sizes: ``(height, width)`` of each picture inside the batch, which may be larger.
            targets: Per picture ``boxes`` ``(N, 4)`` xyxy in network pixels, ``labels`` ``(N,)`` in ``1..K`` and
                optionally ``iscrowd`` ``(N,)``.

        Returns:
            ``objectness`` and ``proposal_box`` of the proposal network, ``classification`` and ``box`` of the second
            stage: scalars, each a mean over what was sampled.
        """
        feature_map = features[self.feature.name]
        objectness, bbox_deltas, anchors = self._rpn(feature_map)
        objects, crowds = zip(*(_split_crowd(target) for target in targets), strict=True)
        objectness_loss, proposal_loss = self._rpn_loss(objectness, bbox_deltas, anchors, objects, crowds)
        proposals, scores = self._propose(objectness.detach(), bbox_deltas.detach(), anchors, image_sizes)
        real = [boxes[found > 0] for boxes, found in zip(proposals, scores, strict=True)]
        classification_loss, box_loss = self._roi_loss(feature_map, real, objects, crowds)
        return {
            "objectness": self.rpn_loss_weight * objectness_loss,
            "proposal_box": self.rpn_loss_weight * proposal_loss,
            "classification": classification_loss,
            "box": self.box_loss_weight * box_loss,
        }

    def candidates(self, features: Mapping[str, Tensor], image_sizes: Sequence[Size]) -> Candidates:
        """Every proposal's scores and its box for each class.

        Args:
            features: The backbone's maps; the one named by ``feature`` is used, ``(B, C, H, W)``.
            image_sizes: ``(height, width)`` of each picture inside the batch, which may be larger.

        Returns:
            Boxes ``(B, P, K, 4)`` in network pixels, clipped to the picture, and scores ``(B, P, K)``. Where a picture
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

    def anchors(self, map_size: Size, device: torch.device | None = None) -> Tensor:
        """All anchors ``(A, 4)`` xyxy in network pixels; kept between calls."""
        key = (map_size, device)
        if key not in self._anchors:
            if len(self._anchors) > 100:  # pictures of any shape come by
                self._anchors.clear()
            self._anchors[key] = rpn_anchors(self.anchor_sizes, map_size, self.feature.stride).to(device)
        return self._anchors[key]

    def _rpn(self, feature_map: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Objectness logits ``(B, A)``, offsets ``(B, A, 4)`` and anchors ``(A, 4)``, float32."""
        [objectness], [bbox_deltas] = self.rpn([feature_map])
        batch, _, height, width = objectness.shape
        objectness = objectness.permute(0, 2, 3, 1).reshape(batch, -1)
        # Channels are anchor by anchor, four offsets each.
        bbox_deltas = bbox_deltas.permute(0, 2, 3, 1).reshape(batch, -1, 4)
        return objectness.float(), bbox_deltas.float(), self.anchors((height, width), feature_map.device)

    def _propose(
        self, objectness: Tensor, bbox_deltas: Tensor, anchors: Tensor, image_sizes: Sequence[Size]
    ) -> tuple[Tensor, Tensor]:
        """The best regions of each picture.

        Args:
            objectness: ``(B, A)`` logits.
            bbox_deltas: ``(B, A, 4)``.
            anchors: ``(A, 4)``.
            image_sizes: Of each picture.

        Returns:
            Boxes ``(B, P, 4)`` and scores ``(B, P)``, best first; boxes and scores of 0 where a picture has fewer.
        """
        logits, top = objectness.topk(min(self.proposal_candidates, objectness.shape[1]), dim=1)
        deltas = bbox_deltas.gather(1, top[:, :, None].expand(-1, -1, 4))
        boxes = _clip_each(decode_boxes(deltas, anchors[top], RPN_WEIGHTS), image_sizes)
        large = ((boxes[..., 2:] - boxes[..., :2]) >= MIN_PROPOSAL_SIDE).all(dim=-1)
        # A sigmoid is above 0 but for rounding; the floor keeps "found" and "not found" apart.
        scores = logits.sigmoid().clamp(min=1e-6) * large
        found, index = best_boxes(boxes, scores, self.proposal_iou, self.num_proposals)
        proposals = boxes.gather(1, index[:, :, None].expand(-1, -1, 4)) * (found > 0)[:, :, None]
        missing = self.num_proposals - found.shape[1]
        return F.pad(proposals, (0, 0, 0, missing)), F.pad(found, (0, missing))

    def _second_stage(self, feature_map: Tensor, boxes: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Class logits ``(R, K + 1)`` and offsets ``(R, K * 4)``, float32, of all boxes of all pictures."""
        crops = roi_align(feature_map, boxes, size=self.crop_size, stride=self.feature.stride, samples=SAMPLES_PER_CELL)
        judged = self.second_stage(crops)[self.second_stage.outputs[-1]].mean(dim=(2, 3))
        return self.cls_predictor(judged).float(), self.bbox_predictor(judged).float()

    def _rpn_loss(
        self,
        objectness: Tensor,
        bbox_deltas: Tensor,
        anchors: Tensor,
        objects: Sequence[dict[str, Tensor]],
        crowds: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        labels, matched = self._rpn_training.assign_targets_to_anchors([anchors] * len(objects), list(objects))
        for label, crowd in zip(labels, crowds, strict=True):
            label[(label == 0) & _covered(anchors, crowd)] = -1  # neither object nor background
        if not any(bool((label >= 0).any()) for label in labels):
            return objectness.sum() * 0, bbox_deltas.sum() * 0
        offsets = [encode_boxes(boxes, anchors, RPN_WEIGHTS) for boxes in matched]
        losses: tuple[Tensor, Tensor] = self._rpn_training.compute_loss(
            objectness.reshape(-1, 1), bbox_deltas.reshape(-1, 4), labels, offsets
        )
        return losses

    def _roi_loss(
        self,
        feature_map: Tensor,
        proposals: list[Tensor],
        objects: Sequence[dict[str, Tensor]],
        crowds: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        fair = [
            boxes[~_covered(boxes, crowd) | (pairwise_iou(boxes, target["boxes"]) >= FOREGROUND_IOU).any(dim=1)]
            for boxes, target, crowd in zip(proposals, objects, crowds, strict=True)
        ]
        boxes, _, labels, offsets = self._roi_training.select_training_samples(fair, list(objects))
        if not any(len(one) for one in labels):
            return feature_map.sum() * 0, feature_map.sum() * 0
        cls_logits, bbox_deltas = self._second_stage(feature_map, boxes)
        # torchvision's loss expects a box for background, too; it is never looked at.
        losses: tuple[Tensor, Tensor] = fastrcnn_loss(cls_logits, F.pad(bbox_deltas, (4, 0)), labels, offsets)
        return losses


def _split_crowd(target: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Objects (``boxes``, ``labels``) and crowd regions ``(C, 4)`` of a picture."""
    boxes, labels = target["boxes"], target["labels"]
    crowd = target["iscrowd"].bool() if "iscrowd" in target else torch.zeros_like(labels, dtype=torch.bool)
    real = ~crowd & ((boxes[:, 2:] - boxes[:, :2]) >= MIN_OBJECT_SIDE).all(dim=1)
    return {"boxes": boxes[real], "labels": labels[real]}, boxes[crowd]


def _covered(boxes: Tensor, crowd: Tensor) -> Tensor:
    """Which of ``(N, 4)`` lie in a crowd region: ``(N,)`` bool."""
    return (pairwise_coverage(crowd, boxes) > CROWD_COVERAGE).any(dim=0)


def _clip_each(boxes: Tensor, image_sizes: Sequence[Size]) -> Tensor:
    """Boxes ``(B, ..., 4)`` cut off at the edges of their picture."""
    if len(set(image_sizes)) == 1:
        return clip_boxes(boxes, image_sizes[0])
    return torch.stack([clip_boxes(one, size) for one, size in zip(boxes, image_sizes, strict=True)])

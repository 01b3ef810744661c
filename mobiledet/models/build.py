"""The only reader of model configs: puts the parts together."""

from __future__ import annotations

from torch import nn

from mobiledet.config.schema import (
    BackboneConfig,
    FasterRCNNConfig,
    ModelConfig,
    SSDConfig,
    SSDLiteConfig,
)
from mobiledet.errors import ConfigError
from mobiledet.models.detection_model import DetectionModel
from mobiledet.models.extra_layers import ExtraLayers
from mobiledet.models.faster_rcnn import FasterRCNNHead
from mobiledet.models.layers import LayerStyle
from mobiledet.models.mobilenet_v1 import MobileNetV1, scale_channels
from mobiledet.models.postprocess import Postprocess
from mobiledet.models.ssd import SSDHead
from mobiledet.ops.anchors import rpn_anchor_sizes, ssd_anchor_shapes

MIN_EXTRA_CHANNELS = 16
"""TensorFlow's floor for the extra layers of a thin SSD."""


def build_detector(config: ModelConfig) -> DetectionModel:
    """A detector with fresh weights.

    Raises:
        ConfigError: ``num_classes`` isn't known yet; it comes from the data set.
    """
    if config.num_classes is None:
        raise ConfigError("model.num_classes is not set; it comes from the data set, or give it: model.num_classes=80")
    head: nn.Module
    if isinstance(config.head, FasterRCNNConfig):
        backbone = build_backbone(config.backbone, outputs=("conv11",))
        head = _build_faster_rcnn(config.head, config, backbone, config.num_classes)
    else:
        backbone = build_backbone(config.backbone, outputs=("conv11", "conv13"))
        head = _build_ssd(config.head, config.backbone, backbone, config.num_classes)
    return DetectionModel(
        backbone=backbone,
        head=head,
        postprocess=Postprocess(**config.postprocess.model_dump()),
        resize=config.resize_rule,
        mean=config.mean,
        std=config.std,
    )


def build_backbone(config: BackboneConfig, *, outputs: tuple[str, ...], first: str = "conv0") -> MobileNetV1:
    """A MobileNetV1, or the stretch of it from ``first`` on, that returns the maps ``outputs``."""
    return MobileNetV1(
        alpha=config.alpha, min_channels=config.min_channels, first=first, outputs=outputs, style=_style(config)
    )


def _build_faster_rcnn(
    head: FasterRCNNConfig, model: ModelConfig, backbone: MobileNetV1, num_classes: int
) -> FasterRCNNHead:
    return FasterRCNNHead(
        feature=backbone.feature_info[-1],
        second_stage=build_backbone(model.backbone, first="conv12", outputs=("conv13",)),
        anchor_sizes=rpn_anchor_sizes(head.anchor_scales, head.aspect_ratios, min(model.network_size)),
        num_classes=num_classes,
        rpn=head.rpn,
        proposals=head.proposals,
        crop_size=head.crop_size,
        proposal_candidates=head.proposal_candidates,
        proposal_iou=head.proposal_iou,
        rois_per_image=head.rois_per_image,
        rpn_loss_weight=head.rpn_loss_weight,
        box_loss_weight=head.box_loss_weight,
        style=_style(model.backbone),
    )


def _build_ssd(
    head: SSDConfig | SSDLiteConfig, backbone_config: BackboneConfig, backbone: MobileNetV1, num_classes: int
) -> SSDHead:
    style = _style(backbone_config)
    in_channels = [info.channels for info in backbone.feature_info]
    alpha = backbone_config.alpha
    extra_layers = ExtraLayers(
        in_channels=in_channels[-1],
        channels=[
            (scale_channels(squeeze, alpha, MIN_EXTRA_CHANNELS), scale_channels(expand, alpha, MIN_EXTRA_CHANNELS))
            for squeeze, expand in head.extra_channels
        ],
        depthwise=head.kind == "ssdlite",
        style=style,
    )
    anchor_shapes = ssd_anchor_shapes(
        len(in_channels) + len(extra_layers.out_channels),
        scale_min=head.scale_min,
        scale_max=head.scale_max,
        aspect_ratios=head.aspect_ratios,
        reduce_lowest=head.reduce_lowest,
        lowest_scale=head.lowest_scale,
    )
    return SSDHead(
        in_channels=in_channels,
        extra_layers=extra_layers,
        anchor_shapes=anchor_shapes,
        num_classes=num_classes,
        scores=head.scores,
        predictor="depthwise" if head.kind == "ssdlite" else "1x1",
        match_iou=head.match_iou,
        negative_ratio=head.negative_ratio,
        box_loss_weight=head.box_loss_weight,
        style=style,
    )


def _style(config: BackboneConfig) -> LayerStyle:
    return LayerStyle(config.padding, config.norm_epsilon, config.norm_momentum)

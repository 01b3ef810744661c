"""From a model's settings to the model."""

from __future__ import annotations

from mobiledet.errors import ConfigError
from mobiledet.models.detection_model import DetectionModel
from mobiledet.models.model_config import ModelConfig
from mobiledet.models.postprocess import Postprocess


def build_detector(config: ModelConfig) -> DetectionModel:
    """A detector with fresh weights.

    Raises:
        ConfigError: ``num_classes`` isn't known yet (it comes from the data set), or the backbone has no map that the
            head looks at.
    """
    if config.num_classes is None:
        raise ConfigError("model.num_classes is not set; it comes from the data set, or give it: model.num_classes=80")
    backbone = config.backbone.build(config.head.strides)
    head = config.head.build(backbone, config.backbone, image_size=config.network_size, num_classes=config.num_classes)
    return DetectionModel(
        backbone=backbone,
        head=head,
        postprocess=Postprocess(**config.postprocess.model_dump()),
        resize=config.resize_rule,
        mean=config.mean,
        std=config.std,
    )

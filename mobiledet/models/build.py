"""From a model's settings to the model."""

from __future__ import annotations

from mobiledet.errors import ConfigError
from mobiledet.models.detection_model import DetectionModel
from mobiledet.models.model_config import ModelConfig
from mobiledet.models.postprocess import Postprocess


def build_detector(config: ModelConfig, *, weights_follow: bool = False) -> DetectionModel:
    """A detector with fresh weights.

    Args:
        config: Its settings. ``num_classes`` doesn't count background, which torchvision's does.
        weights_follow: The caller loads weights itself, so ``config.init`` isn't needed.

    Raises:
        ConfigError: ``num_classes`` isn't known yet (it comes from the data set), the backbone has no map that the
            head looks at, or ``init`` is set, which only training loads.
    """
    if config.init is not None and not weights_follow:
        raise ConfigError(
            f"model.init={config.init} is loaded by mobiledet.train, which knows the classes; for a detector as it is, "
            f"take mobiledet.Detector({config.init!r}); for fresh weights, leave init out"
        )
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

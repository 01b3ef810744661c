"""Typed configuration: what a recipe can say, and how files and overrides become one."""

from mobiledet.config.loading import apply_overrides, config_from_plain, config_hash, load_config
from mobiledet.config.schema import (
    AugmentConfig,
    Config,
    DataConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)
from mobiledet.models.classifier import ClassifierConfig
from mobiledet.models.faster_rcnn import FasterRCNNConfig
from mobiledet.models.fpn import FPNConfig
from mobiledet.models.mobilenet_v1 import BackboneConfig
from mobiledet.models.model_config import ModelConfig, PostprocessConfig
from mobiledet.models.ssd import SSDConfig, SSDLiteConfig
from mobiledet.utils.settings import ReadingConfig

__all__ = [
    "AugmentConfig",
    "BackboneConfig",
    "ClassifierConfig",
    "Config",
    "DataConfig",
    "FPNConfig",
    "FasterRCNNConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PostprocessConfig",
    "ReadingConfig",
    "SSDConfig",
    "SSDLiteConfig",
    "ScheduleConfig",
    "TrainConfig",
    "apply_overrides",
    "config_from_plain",
    "config_hash",
    "load_config",
]

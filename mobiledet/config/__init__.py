"""Typed configuration: what a recipe can say, and how files and overrides become one."""

from mobiledet.config.loading import apply_overrides, config_from_plain, config_hash, load_config
from mobiledet.config.schema import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DataConfig,
    FasterRCNNConfig,
    HeadConfig,
    ModelConfig,
    OptimizerConfig,
    PostprocessConfig,
    ScheduleConfig,
    SSDConfig,
    SSDLiteConfig,
    TrainConfig,
)

__all__ = [
    "AugmentConfig",
    "BackboneConfig",
    "Config",
    "DataConfig",
    "FasterRCNNConfig",
    "HeadConfig",
    "ModelConfig",
    "OptimizerConfig",
    "PostprocessConfig",
    "SSDConfig",
    "SSDLiteConfig",
    "ScheduleConfig",
    "TrainConfig",
    "apply_overrides",
    "config_from_plain",
    "config_hash",
    "load_config",
]

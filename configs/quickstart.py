"""A small SSD on generated pictures: what `make quickstart` trains.

Command:  make quickstart
Hardware: 2 CPU cores
"""

from mobiledet.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    SSDConfig,
    TrainConfig,
)

config = Config(
    model=ModelConfig(backbone=BackboneConfig(alpha=0.5), head=SSDConfig(), input_size=(160, 192)),
    data=DataConfig(root="data/shapes", augment=AugmentConfig.light(), workers=1),
    optimizer=OptimizerConfig(name="adamw", lr=3e-3, weight_decay=0.05),
    schedule=ScheduleConfig(epochs=24, batch_size=32, policy="cosine", warmup_steps=100, val_every=4),
    train=TrainConfig(ema_decay=0.998),
)

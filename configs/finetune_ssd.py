"""A detector for your own pictures, from one that knows COCO."""

from mobiledet.config import (
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)

config = Config(
    model=ModelConfig(init="ssd_mobilenet_v1_075_coco"),
    data=DataConfig(root="data/mine", hold_out=0.15, augment=AugmentConfig()),
    optimizer=OptimizerConfig(name="adamw", lr=0.001, weight_decay=0.05, backbone_lr_scale=0.3),
    schedule=ScheduleConfig(epochs=None, pictures=12_000, batch_size=16, warmup_steps=100, val_every=4, patience=None),
    train=TrainConfig(ema_decay=0.99),
)

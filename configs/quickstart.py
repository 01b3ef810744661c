"""A small SSD on generated images, from nothing: what `make quickstart` trains.

Command:  make quickstart
Hardware: 2 CPU cores; see the README for the time and AP measured
Why so:   objects fill 15 to 75 % of small images, so the lowest map gets six anchors, and pairs count as matched from
          IoU 0.35: with few anchors on a coarse map, a stricter limit leaves objects to one badly fitting anchor each.
          More pixels at alpha 0.25 learned faster than fewer at alpha 0.5 for the same cost.
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
    model=ModelConfig(
        backbone=BackboneConfig(alpha=0.25),
        head=SSDConfig(reduce_lowest=False, scale_min=0.18, match_iou=0.35, box_loss_weight=2.0),
        input_size=(192, 240),
    ),
    data=DataConfig(root="data/shapes", augment=AugmentConfig(crop=0, expand=0, color=0), workers=1),
    optimizer=OptimizerConfig(name="adamw", lr=0.012, weight_decay=0.05),
    schedule=ScheduleConfig(epochs=17, batch_size=16, policy="cosine", warmup_steps=100, val_every=8),
    train=TrainConfig(ema_decay=0.998),
)

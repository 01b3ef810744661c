"""SSD-300 on MobileNetV1 0.5: about a third of the cost of alpha 1, for a Raspberry Pi.

Command:  mobiledet train ssd_mobilenet_a05 data.root=path/to/coco
Cost:     0.352 GMACs, 2.06 M parameters with 90 classes
AP:       not yet trained on COCO by us
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
    model=ModelConfig(backbone=BackboneConfig(alpha=0.5), head=SSDConfig(), input_size=(300, 300)),
    data=DataConfig(root="data/coco", augment=AugmentConfig.light()),
    optimizer=OptimizerConfig(name="sgd", lr=0.02, momentum=0.9, weight_decay=5e-4),
    schedule=ScheduleConfig(epochs=120, batch_size=32, policy="cosine", warmup_steps=1000),
    train=TrainConfig(ema_decay=0.9998),
)

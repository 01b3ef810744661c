"""A feature pyramid on MobileNetV1 1.0 at 320x320: maps of strides 8 to 128, for small objects.

Source:   Lin et al. 2017, made light by depthwise-separable layers, on the backbone of Howard et al. 2017
Command:  mobiledet train fpn_mobilenet_a1 data.root=path/to/coco
Cost:     1.272 GMACs, 3.48 M parameters with 90 classes
AP:       not yet trained on COCO by us
"""

from mobiledet.config import (
    BackboneConfig,
    Config,
    DataConfig,
    FPNConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)

config = Config(
    model=ModelConfig(backbone=BackboneConfig(alpha=1.0), head=FPNConfig(), input_size=(320, 320)),
    data=DataConfig(root="data/coco"),
    optimizer=OptimizerConfig(name="sgd", lr=0.02, momentum=0.9, weight_decay=5e-4),
    schedule=ScheduleConfig(epochs=120, batch_size=32, policy="cosine", warmup_steps=1000),
    train=TrainConfig(ema_decay=0.9998),
)

"""SSDLite-300 on MobileNetV1 1.0: depthwise-separable predictors with a 3x3 view, fewer parameters than SSD.

Source:   Sandler et al. 2018, section 6.2, on the backbone of Howard et al. 2017
Command:  mobiledet train ssdlite_mobilenet_a1 data.root=path/to/coco
Cost:     1.212 GMACs, 5.23 M parameters with 90 classes
AP:       not yet trained on COCO by us
"""

from mobiledet.config import (
    BackboneConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    SSDLiteConfig,
    TrainConfig,
)

config = Config(
    model=ModelConfig(backbone=BackboneConfig(alpha=1.0), head=SSDLiteConfig(), input_size=(300, 300)),
    data=DataConfig(root="data/coco"),
    optimizer=OptimizerConfig(name="sgd", lr=0.02, momentum=0.9, weight_decay=5e-4),
    schedule=ScheduleConfig(epochs=120, batch_size=32, policy="cosine", warmup_steps=1000),
    train=TrainConfig(ema_decay=0.9998),
)

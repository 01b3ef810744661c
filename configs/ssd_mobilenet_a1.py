"""SSD-300 on MobileNetV1 1.0: the paper's COCO detector (Howard et al. 2017, table 13).

Command:  mobiledet train ssd_mobilenet_a1 data.root=path/to/coco
Cost:     1.236 GMACs, 6.81 M parameters with 90 classes (paper: 1.2 billion, 6.8 million)
AP:       not yet trained on COCO by us (paper: 19.3 on COCO test-dev, from ImageNet weights)
"""

from mobiledet.config import (
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
    model=ModelConfig(backbone=BackboneConfig(alpha=1.0), head=SSDConfig(), input_size=(300, 300)),
    data=DataConfig(root="data/coco"),
    optimizer=OptimizerConfig(name="sgd", lr=0.02, momentum=0.9, weight_decay=5e-4),
    schedule=ScheduleConfig(epochs=120, batch_size=32, policy="cosine", warmup_steps=1000),
    train=TrainConfig(ema_decay=0.9998),
)

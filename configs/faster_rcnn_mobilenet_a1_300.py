"""Faster R-CNN on MobileNetV1 1.0 at 300x300: the paper's COCO detector (Howard et al. 2017, table 13).

Command:  mobiledet train faster_rcnn_mobilenet_a1_300 data.root=path/to/coco \
              model.init=mobilenet_v1_1.0_224
Cost:     25.2 GMACs, 6.07 M parameters with 90 classes (paper: 25.2 billion, 6.1 million); 23.5 of them judge 300 crops
AP:       not yet trained on COCO by us (paper: 16.4 on COCO, from ImageNet weights)
"""

from mobiledet.config import (
    BackboneConfig,
    Config,
    DataConfig,
    FasterRCNNConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    TrainConfig,
)

config = Config(
    model=ModelConfig(backbone=BackboneConfig(alpha=1.0), head=FasterRCNNConfig(), input_size=(300, 300)),
    data=DataConfig(root="data/coco"),
    optimizer=OptimizerConfig(name="sgd", lr=0.01, momentum=0.9, weight_decay=1e-4),
    schedule=ScheduleConfig(epochs=24, batch_size=8, policy="cosine", warmup_steps=1000),
    train=TrainConfig(ema_decay=0.9998),
)

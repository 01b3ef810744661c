"""Faster R-CNN on MobileNetV1 1.0 at 600 pixels: the paper's COCO detector (Howard et al. 2017, table 13).

Command:  mobiledet train faster_rcnn_mobilenet_a1_600 data.root=path/to/coco \
              model.init=mobilenet_v1_1.0_224
Cost:     30.5 GMACs of a square image, 6.07 M parameters with 90 classes (paper: 30.5 billion, 6.1 million)
AP:       not yet trained on COCO by us (paper: 19.8 on COCO, from ImageNet weights)

Images keep their shape: the shorter side becomes 600 pixels, unless the longer one would exceed 1024.
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
    model=ModelConfig(
        backbone=BackboneConfig(alpha=1.0),
        head=FasterRCNNConfig(),
        input_size=(600, 600),
        resize="shorter_side",
        longest_side=1024,
    ),
    data=DataConfig(root="data/coco"),
    optimizer=OptimizerConfig(name="sgd", lr=0.005, momentum=0.9, weight_decay=1e-4),
    schedule=ScheduleConfig(epochs=24, batch_size=4, policy="cosine", warmup_steps=1000),
    train=TrainConfig(ema_decay=0.9998),
)

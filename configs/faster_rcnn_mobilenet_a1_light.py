"""Faster R-CNN on MobileNetV1 1.0 that a laptop can train: smaller crops, fewer proposals.

Command:  mobiledet train faster_rcnn_mobilenet_a1_light data.root=path/to/data \
              model.init=mobilenet_v1_1.0_224
Hardware: 2 CPU cores; 205 images took 25.5 minutes beside other work, reading and scoring included
Cost:     6.4 GMACs with 90 classes (the full one at 300x300: 25.2)
AP:       blood cells (BCCD) test 0.580, AP50 0.912, from ImageNet weights; SSD from the same: 0.539, 0.902
Why so:   stride 16 needs more pixels than SSD for small objects: at 336x448 only 42 % of the platelets had a proposal
          at IoU 0.7. Suppression at IoU 0.5 instead of 0.6 is worth 0.04 AP50: second stages find an object many times.
"""

from mobiledet.config import (
    AugmentConfig,
    BackboneConfig,
    Config,
    DataConfig,
    FasterRCNNConfig,
    ModelConfig,
    OptimizerConfig,
    PostprocessConfig,
    ScheduleConfig,
    TrainConfig,
)

config = Config(
    model=ModelConfig(
        backbone=BackboneConfig(alpha=1.0),
        head=FasterRCNNConfig(
            crop_size=7,
            proposals=150,
            proposal_candidates=1000,
            rpn="depthwise",
            anchor_scales=(0.06, 0.12, 0.25, 0.5),
            rois_per_image=64,
            box_loss_weight=2.0,
        ),
        input_size=(480, 480),
        match_aspect=True,
        postprocess=PostprocessConfig(iou_threshold=0.5),
    ),
    data=DataConfig(root="data/mine", hold_out=0.15, augment=AugmentConfig(crop=0.5, expand=0.2, color=0.8)),
    optimizer=OptimizerConfig(name="adamw", lr=0.0007, weight_decay=0.05, backbone_lr_scale=0.3),
    schedule=ScheduleConfig(epochs=None, pictures=5_000, batch_size=4, warmup_steps=200, val_every=6),
    train=TrainConfig(ema_decay=0.99, freeze_stages=4),
)

"""A classifier of images, or of their attributes, from an ImageNet backbone: MobileNetV1 with a sigmoid per class.

Command:  mobiledet train classify data.root=photos      (a folder of images for each class, or a csv; docs/training.md)
          mobiledet train classify data.root=photos model.init=none model.backbone.alpha=0.25 train.teacher=RUN
Cost:     0.185 GMACs at alpha 1, 128x128 pixels, 13 classes
AP:       mean average precision, 1.0 being all images of a class before all others; see docs/training.md
Why so:   as in Howard et al. 2017, section 4.5: a small network learns the scores of a large one, on labelled and
          unlabelled images. A crop keeps the class of its image, however little is left of it.
"""

from mobiledet.config import (
    AugmentConfig,
    ClassifierConfig,
    Config,
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    PostprocessConfig,
    ReadingConfig,
    ScheduleConfig,
    TrainConfig,
)

config = Config(
    model=ModelConfig(
        init="mobilenetv1_100",
        head=ClassifierConfig(),
        input_size=(128, 128),
        postprocess=PostprocessConfig(score_threshold=0.001),
    ),
    data=DataConfig(
        root="data/mine",
        reading=ReadingConfig(classes_of="images"),
        hold_out=0.15,
        augment=AugmentConfig(crop=0.5, expand=0, color=0.5, min_visible=0),
    ),
    optimizer=OptimizerConfig(name="adamw", lr=0.003, weight_decay=0.05, backbone_lr_scale=0.3),
    schedule=ScheduleConfig(epochs=None, pictures=12_000, batch_size=32, warmup_steps=50, val_every=5),
    train=TrainConfig(ema_decay=0.99),
)

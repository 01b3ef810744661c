"""What a recipe can say: typed, frozen, and with no key that nobody reads.

A config file is Python holding one ``config = Config(...)``. Every class here rejects unknown keys; see
:mod:`mobiledet.config.loading` for how files and ``key=value`` overrides become a :class:`Config`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from mobiledet.structures import ResizeRule

PositiveInt = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
SizeField = tuple[PositiveInt, PositiveInt]


class Strict(BaseModel):
    """Base of every config class: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )


class BackboneConfig(Strict):
    """MobileNetV1 (Howard et al. 2017)."""

    alpha: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Width multiplier: every layer has ``max(min_channels, int(alpha * channels))`` channels."""
    min_channels: PositiveInt = 8
    """Least channels of a layer; the paper's code has 8, TensorFlow's detection configs 16."""
    padding: Literal["symmetric", "tensorflow"] = "symmetric"
    """How strided convolutions pad: one pixel on each side, or TensorFlow's SAME (asymmetric on even sizes)."""
    norm_momentum: Annotated[float, Field(gt=0, le=1)] = 0.03
    """Weight of the newest batch in batch-norm's running statistics (PyTorch's convention)."""
    norm_epsilon: Annotated[float, Field(gt=0)] = 1e-3


class _SSDFamily(Strict):
    """What SSD and SSDLite have in common."""

    extra_channels: tuple[tuple[PositiveInt, PositiveInt], ...] = ((256, 512), (128, 256), (128, 256), (64, 128))
    """(1x1, 3x3 stride 2) channels of each extra pair; scaled by alpha like the backbone."""
    aspect_ratios: tuple[Annotated[float, Field(gt=0)], ...] = (1.0, 2.0, 1 / 2, 3.0, 1 / 3)
    """Width over height of a location's boxes; the interpolated square comes on top."""
    scale_min: Annotated[float, Field(gt=0, le=1)] = 0.2
    scale_max: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Box sizes of the lowest and highest map, as a share of the input's shorter side."""
    reduce_lowest: bool = True
    """Three boxes instead of six on the lowest map, where locations are many (TensorFlow's choice)."""
    lowest_scale: Annotated[float, Field(gt=0, le=1)] | None = None
    """Size of the square among those three; None for half of ``scale_min``. TensorFlow's is 0.1 whatever scale_min."""
    scores: Literal["sigmoid", "softmax"] = "sigmoid"
    """One independent sigmoid per class, or a softmax over the classes and background."""
    match_iou: Annotated[float, Field(gt=0, lt=1)] = 0.5
    negative_ratio: Annotated[float, Field(gt=0)] = 3.0
    """Hard negatives per matched anchor that enter the classification loss."""
    box_loss_weight: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _check(self) -> _SSDFamily:
        if self.scale_min >= self.scale_max:
            raise ValueError(f"scale_min {self.scale_min} must be below scale_max {self.scale_max}")
        if not self.extra_channels or not self.aspect_ratios:
            raise ValueError("extra_channels and aspect_ratios must not be empty")
        return self


class SSDConfig(_SSDFamily):
    """SSD head (Liu et al. 2016) on Conv11, Conv13 and four extra maps."""

    kind: Literal["ssd"] = "ssd"


class SSDLiteConfig(_SSDFamily):
    """SSD with depthwise-separable 3x3 predictors and extra layers (Sandler et al. 2018, section 6.2)."""

    kind: Literal["ssdlite"] = "ssdlite"


class FasterRCNNConfig(Strict):
    """Faster R-CNN (Ren et al. 2015): proposals from Conv11, each cropped and judged by Conv12 and Conv13."""

    kind: Literal["faster_rcnn"] = "faster_rcnn"
    anchor_scales: tuple[Annotated[float, Field(gt=0, le=2)], ...] = (0.1, 0.2, 0.4, 0.8)
    """Sizes of the proposal network's anchors, as a share of the input's shorter side."""
    aspect_ratios: tuple[Annotated[float, Field(gt=0)], ...] = (0.5, 1.0, 2.0)
    """Width over height of the anchors."""
    rpn: Literal["conv", "depthwise"] = "conv"
    """The proposal network's 3x3 layer: a full convolution, or a depthwise-separable one at a ninth of the cost."""
    proposals: PositiveInt = 300
    """Regions of a picture that reach the second stage."""
    crop_size: Annotated[int, Field(ge=2)] = 14
    """Side of what RoIAlign cuts out of the feature map for a region; the second stage starts by halving it."""
    proposal_candidates: PositiveInt = 2000
    """Best anchors of a picture that enter the non-maximum suppression of proposals."""
    proposal_iou: Annotated[float, Field(gt=0, le=1)] = 0.7
    """Two proposals that overlap more are one."""
    rois_per_image: PositiveInt = 64
    """Proposals of a picture that the second stage is trained on, at most a quarter of them objects."""
    rpn_loss_weight: Annotated[float, Field(gt=0)] = 1.0
    box_loss_weight: Annotated[float, Field(gt=0)] = 1.0

    @model_validator(mode="after")
    def _check(self) -> FasterRCNNConfig:
        if not self.anchor_scales or not self.aspect_ratios:
            raise ValueError("anchor_scales and aspect_ratios must not be empty")
        return self


HeadConfig = Annotated[SSDConfig | SSDLiteConfig | FasterRCNNConfig, Field(discriminator="kind")]


class PostprocessConfig(Strict):
    """From candidates to detections."""

    score_threshold: Fraction = 0.01
    """Kept low because mAP counts the whole ranking; what is drawn or shown has its own threshold."""
    iou_threshold: Annotated[float, Field(gt=0, le=1)] = 0.6
    candidates: PositiveInt = 500
    """Best (box, class) pairs of a picture that enter non-maximum suppression: fixed, so that it can be exported. From
    400 on, AP and AR no longer changed on COCO, blood cell and chess pictures."""
    max_detections: PositiveInt = 100


class ModelConfig(Strict):
    """Everything needed to rebuild a detector and to prepare its pictures."""

    backbone: BackboneConfig = BackboneConfig()
    head: HeadConfig = SSDConfig()
    postprocess: PostprocessConfig = PostprocessConfig()
    input_size: SizeField = (300, 300)
    """(height, width) of the network's input before rho."""
    resize: Literal["stretch", "shorter_side"] = "stretch"
    """Every picture is stretched to ``input_size``; or it keeps its shape and its shorter side gets that of
    ``input_size``, which only Faster R-CNN can do."""
    longest_side: PositiveInt = 1024
    """With ``resize="shorter_side"``: the longer side never exceeds this (before rho)."""
    match_aspect: bool = False
    """Give ``input_size`` the shape of the training pictures, with as many pixels; done when training starts."""
    rho: Annotated[float, Field(gt=0, le=4)] = 1.0
    """Resolution multiplier: both sides of ``input_size`` are multiplied by it."""
    mean: tuple[float, float, float] = (127.5, 127.5, 127.5)
    std: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = (
        127.5,
        127.5,
        127.5,
    )
    """The network sees ``(pixel - mean) / std`` of RGB pixels 0..255."""
    num_classes: PositiveInt | None = None
    """Object classes without background; filled in from the data set."""
    init: str | None = None
    """Weights to start from: a checkpoint, a run folder, or a name from tools/weights.py list. They decide width,
    padding and picture scale, and for the same kind of head its layers and anchors, where these are left alone here."""

    @property
    def network_size(self) -> tuple[int, int]:
        """(height, width) that the network really sees: ``input_size`` times ``rho``, at least 32."""
        height, width = self.input_size
        return max(32, round(height * self.rho)), max(32, round(width * self.rho))

    @property
    def resize_rule(self) -> ResizeRule:
        """How large any picture becomes."""
        from mobiledet.structures import ResizeRule  # brings NumPy, which reading a config needn't load

        longest = max(32, round(self.longest_side * self.rho)) if self.resize == "shorter_side" else None
        return ResizeRule(self.network_size, longest)

    @model_validator(mode="after")
    def _check(self) -> ModelConfig:
        if self.resize == "shorter_side":
            if self.head.kind != "faster_rcnn":
                raise ValueError(
                    f"resize 'shorter_side' gives pictures of many sizes, which {self.head.kind} can't take"
                )
            if self.match_aspect:
                raise ValueError("match_aspect is for resize 'stretch'; with 'shorter_side' pictures keep their shape")
            if self.longest_side < min(self.input_size):
                raise ValueError(f"longest_side {self.longest_side} is below the shorter side of {self.input_size}")
        return self


class AugmentConfig(Strict):
    """Random changes of training pictures; see :mod:`mobiledet.data.transforms` for what each does."""

    crop: Fraction = 0.5
    """Chance of SSD's random crop (Liu et al., section 2.2)."""
    expand: Fraction = 0.5
    """Chance of shrinking a picture that isn't cropped onto a mean-coloured canvas."""
    expand_max: Annotated[float, Field(ge=1, le=8)] = 3.0
    flip: Fraction = 0.5
    color: Fraction = 0.8
    """Chance of changing brightness, contrast, saturation and hue."""
    min_visible: Fraction = 0.3
    """A box of which a crop leaves less than this share is dropped."""

    @classmethod
    def none(cls) -> AugmentConfig:
        """The pictures as they are."""
        return cls(crop=0, expand=0, flip=0, color=0)

    @classmethod
    def light(cls) -> AugmentConfig:
        """For small models, which underfit before they overfit (Howard et al., section 3.2)."""
        return cls(crop=0.3, expand=0.2, expand_max=2.0, flip=0.5, color=0.3)


class DataConfig(Strict):
    """Where the pictures are and how they are fed."""

    root: str = "data/coco"
    """Folder in COCO layout; see docs/data.md."""
    train_split: str = "train"
    val_split: str | None = "val"
    """None trains without scoring."""
    train_annotations: str | None = None
    train_images: str | None = None
    val_annotations: str | None = None
    val_images: str | None = None
    """Explicit files and folders, for data that doesn't follow the layout."""
    hold_out: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the training pictures kept apart for scoring, where the data set has no validation split."""
    limit: PositiveInt | None = None
    """Only the first pictures of each split, for trying things out."""
    augment: AugmentConfig = AugmentConfig()
    workers: Annotated[int, Field(ge=0, le=64)] = 2
    """Processes that read pictures; any number gives the same batches."""
    cache: bool = False
    """Keep decoded pictures in memory (needs about 1 MB a picture)."""


class OptimizerConfig(Strict):
    """How weights move."""

    name: Literal["sgd", "adamw", "rmsprop"] = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.01
    """Peak learning rate for the whole batch (``schedule.batch_size * schedule.accumulate`` pictures)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Not applied to depthwise filters, norms and biases (Howard et al., section 3.2)."""
    backbone_lr_scale: Annotated[float, Field(ge=0)] = 1.0
    clip_norm: Annotated[float, Field(gt=0)] | None = 10.0
    """Largest gradient norm; None for no clipping."""


class ScheduleConfig(Strict):
    """How long, and how fast at each moment."""

    epochs: PositiveInt | None = 60
    """Passes over the training pictures; None chooses them so that about ``pictures`` are seen."""
    pictures: PositiveInt = 12_000
    """Length of training where ``epochs`` is None: pictures seen, whatever the size of the data set."""
    batch_size: PositiveInt = 16
    accumulate: PositiveInt = 1
    """Batches whose gradients are averaged into one step."""
    policy: Literal["cosine", "step", "constant"] = "cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 500
    """Steps of linear warm-up; never more than a tenth of the run."""
    step_epochs: tuple[PositiveInt, ...] = ()
    step_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    final_lr: Fraction = 0.01
    """Where cosine ends, as a share of the peak."""
    val_every: PositiveInt = 1
    """Epochs between scorings of the validation split; the last epoch is always scored."""
    patience: PositiveInt | None = None
    """Stop after this many scorings without a better AP; None trains to the end."""

    @property
    def num_epochs(self) -> int:
        """Passes over the training pictures.

        Raises:
            ValueError: they are still to be chosen by the size of the data set.
        """
        if self.epochs is None:
            raise ValueError("schedule.epochs isn't chosen yet")
        return self.epochs

    def for_pictures(self, count: int) -> ScheduleConfig:
        """The schedule with ``epochs`` chosen for a data set of ``count`` pictures, if it isn't yet.

        Few pictures are seen more often, but not without end: what is gained by the hundredth time is learned by
        heart. Of many, each is seen at least 8 times.
        """
        if self.epochs is not None:
            return self
        return self.model_copy(update={"epochs": min(max(round(self.pictures / max(1, count)), 8), 100)})

    @model_validator(mode="after")
    def _check(self) -> ScheduleConfig:
        if self.policy == "step" and not self.step_epochs:
            raise ValueError("policy 'step' needs step_epochs, for example step_epochs=(40, 55)")
        if list(self.step_epochs) != sorted(set(self.step_epochs)):
            raise ValueError(f"step_epochs {self.step_epochs} must increase")
        return self


class TrainConfig(Strict):
    """How the loop runs."""

    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """'auto' takes bfloat16 where the processor or GPU computes in it, else float32; float16 is for GPUs."""
    channels_last: bool = True
    device: str = "auto"
    threads: Annotated[int, Field(ge=0)] = 0
    """Processor threads of the network; 0 takes all cores. Resuming is bit-exact at the same number."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of the averaged weights that are scored and saved as best; 0 turns averaging off."""
    freeze_stages: Annotated[int, Field(ge=0, le=14)] = 0
    """Backbone layers kept as they are, counted from the picture: 1 freezes Conv0, 14 all of it."""
    freeze_norm: bool = False
    """Batch-norm of the backbone keeps its statistics, scale and shift."""
    max_bad_steps: PositiveInt = 20
    """Non-finite losses or gradients in a row before training gives up."""
    tensorboard: bool = False
    output: str = "runs"
    """Folder of run folders: ``<output>/<name>/<number>``."""


class Config(Strict):
    """One recipe."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "unnamed"
    """Names the run folder; the config file's own name when not given."""
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    train: TrainConfig = TrainConfig()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    def plain(self) -> dict[str, Any]:
        """The config as dicts, lists, strings and numbers, fit for JSON and for a checkpoint."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        return plain

"""What a recipe can say: typed, frozen, and with no key that nobody reads.

A config file is Python holding one ``config = Config(...)``. Every class here rejects unknown keys; see
`mobiledet.config.loading` for how files and ``key=value`` overrides become a `Config`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mobiledet.models.model_config import ModelConfig
from mobiledet.utils.settings import Fraction, PositiveFloat, PositiveInt, ReadingConfig, Strict


class AugmentConfig(Strict):
    """Random changes of training images; see `mobiledet.data.transforms` for what each does."""

    crop: Fraction = 0.5
    """Chance of SSD's random crop (Liu et al., section 2.2)."""
    expand: Fraction = 0.5
    """Chance of shrinking an image that isn't cropped onto a mean-coloured canvas."""
    expand_max: Annotated[float, Field(ge=1, le=8)] = 3.0
    flip: Fraction = 0.5
    """Chance of mirroring left and right; where it isn't set, training takes 0 for classes with names in pairs such as
    "left arrow" and "right arrow"."""
    mosaic: Fraction = 0.0
    """Chance of joining an image with three others, each as large as the network's input, around a random centre; what
    is cut out of it and shrunk is chosen by ``crop`` and ``expand`` (Bochkovskiy et al. 2020, YOLOv4)."""
    copy_small: Fraction = 0.0
    """Chance of pasting one to four copies of an image's small objects, below 32x32 pixels of the network's input were
    the image not cropped, where no object is (Kisantal et al. 2019)."""
    color: Fraction = 0.8
    """Chance of changing brightness, contrast, saturation and hue."""
    min_visible: Fraction = 0.3
    """A box of which a crop leaves less than this share is dropped."""

    @classmethod
    def none(cls) -> AugmentConfig:
        """The images as they are."""
        return cls(crop=0, expand=0, flip=0, color=0)

    @classmethod
    def light(cls) -> AugmentConfig:
        """For small models, which underfit before they overfit (Howard et al., section 3.2)."""
        return cls(crop=0.3, expand=0.2, expand_max=2.0, color=0.3)


class DataConfig(Strict):
    """Where the images are and how they are fed."""

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
    reading: ReadingConfig = ReadingConfig()
    hold_out: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the training images kept apart for scoring, where the data set has no validation split."""
    unlabelled: str | None = None
    """Folder of more images, without labels, for which ``train.teacher`` gives the targets."""
    limit: PositiveInt | None = None
    """Only the first images of each split, for trying things out."""
    augment: AugmentConfig = AugmentConfig()
    workers: Annotated[int, Field(ge=0, le=64)] = 2
    """Processes that read images; any number gives the same batches."""
    cache: bool = False
    """Keep decoded images in memory (needs about 1 MB an image)."""


class OptimizerConfig(Strict):
    """How weights move."""

    name: Literal["sgd", "adamw", "rmsprop"] = "sgd"
    lr: PositiveFloat = 0.01
    """Peak learning rate for the whole batch (``schedule.batch_size * schedule.accumulate`` images)."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 5e-4
    """Not applied to depthwise filters, norms and biases (Howard et al., section 3.2)."""
    backbone_lr_scale: Annotated[float, Field(ge=0)] = 1.0
    clip_norm: PositiveFloat | None = 10.0
    """Largest gradient norm; None for no clipping."""


class ScheduleConfig(Strict):
    """How long, and how fast at each moment."""

    epochs: PositiveInt | None = 60
    """Passes over the training images; None chooses them so that about ``pictures`` are seen."""
    pictures: PositiveInt = 12_000
    """Length of training where ``epochs`` is None: images seen, whatever the size of the data set; 8 to 100 epochs."""
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
        """Passes over the training images.

        Raises:
            ValueError: they are still to be chosen by the size of the data set.
        """
        if self.epochs is None:
            raise ValueError("schedule.epochs isn't chosen yet")
        return self.epochs

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
    devices: PositiveInt = 1
    """Processes that train together on this machine, each on a GPU of its own or a part of the processor's cores; the
    command line starts them. For several machines see docs/distributed.md."""
    sync_norm: bool = False
    """Batch-norm sees the images of all processes instead of its own."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.999
    """Of the averaged weights that are scored and saved as best; 0 turns averaging off."""
    freeze_stages: Annotated[int, Field(ge=0, le=14)] = 0
    """Backbone layers kept as they are, counted from the image: 1 freezes Conv0, 14 all of it."""
    freeze_norm: bool = False
    """Batch-norm of the backbone keeps its statistics, scale and shift."""
    quantize: bool | PositiveInt = False
    """Epochs at the end that round as INT8 files do, so that the weights fit them; true is a fifth of all."""
    teacher: str | tuple[str, ...] | None = None
    """A detector whose scores and boxes are learned beside the labels: a checkpoint, an exported file, or NanoDet-Plus;
    of several the mean (Howard et al., section 4.5)."""
    teacher_weight: Fraction = 0.5
    """Its share in what labelled images teach; unlabelled ones are taught by it alone."""
    max_bad_steps: PositiveInt = 20
    """Non-finite losses or gradients in a row before training gives up."""
    loggers: tuple[Literal["tensorboard", "mlflow", "wandb"], ...] = ()
    """Where the figures go besides results.csv; nothing leaves the machine unless you have set it up."""
    tensorboard: bool = False
    """The same as ``tensorboard`` among ``loggers``."""
    output: str = "runs"
    """Folder of run folders: ``<output>/<name>/<number>``."""

    @property
    def teachers(self) -> tuple[str, ...]:
        """``teacher`` as the names of none, one or several."""
        return (self.teacher,) if isinstance(self.teacher, str) else self.teacher or ()


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

    @property
    def float_epochs(self) -> int:
        """Epochs before those that round as INT8 files do; all without ``train.quantize``."""
        epochs, quantized = self.schedule.num_epochs, self.train.quantize
        if isinstance(quantized, bool):
            quantized = max(1, round(epochs / 5)) if quantized else 0
        return max(0, epochs - quantized)

    def plain(self) -> dict[str, Any]:
        """The config as dicts, lists, strings and numbers, fit for JSON and for a checkpoint."""
        plain: dict[str, Any] = self.model_dump(mode="json")
        return plain

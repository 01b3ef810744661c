"""What `import mobiledet` offers besides the classes: training, scoring and exporting by one call each.

The same code as the commands of the same names. Nothing here prints, and nothing ends the process: what goes wrong is
raised, as a `mobiledet.errors.MobiledetError` whose text says what to do. Progress is logged, under the name mobiledet.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledet.errors import need_extra
from mobiledet.utils.machine import share_cores

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from mobiledet.config import Config
    from mobiledet.data.coco import CocoDataset
    from mobiledet.data.opening import Splits
    from mobiledet.data.torch_dataset import DetectionDataset
    from mobiledet.data.transforms import Augment
    from mobiledet.evaluation.metrics import Metrics
    from mobiledet.exporters.agreement import AgreementReport
    from mobiledet.models.base import BaseBackboneConfig, BaseHeadConfig
    from mobiledet.training.hooks import Callback


@dataclass(frozen=True)
class TrainResult:
    """What a training run left.

    Attributes:
        folder: The run folder.
        best: The averaged weights with the best AP; None where nothing was scored yet.
        last: What ``resume`` continues from; None after a stop before the first save.
        metrics: The content of metrics.json: the COCO figures of ``best``, AP by class, ``best_f1_threshold``; None
            where nothing was scored.
        finished: Whether it trained to its end; False after Ctrl-C or a callback that returned False, saved.
    """

    folder: Path
    best: Path | None
    last: Path | None
    metrics: dict[str, Any] | None
    finished: bool


def train(
    config: str | Path | Config = "finetune_ssd",
    overrides: Mapping[str, Any] | None = None,
    *,
    resume: str | Path | None = None,
    on_step: Callback | None = None,
    on_epoch: Callback | None = None,
    train_data: DetectionDataset | None = None,
    val_data: DetectionDataset | None = None,
    augment: Augment | None = None,
    optimizer: Callable[[list[dict[str, Any]], float], Optimizer] | None = None,
    schedule: Callable[[int, int], float] | None = None,
    backbone: BaseBackboneConfig | None = None,
    head: BaseHeadConfig | None = None,
) -> TrainResult:
    """Train a detector.

    Args:
        config: A recipe by name, a config file, or a `Config`.
        overrides: Settings to change, as ``{"data.root": "my photos", "schedule.epochs": 20}``.
        resume: Run folder of an interrupted run to continue, exactly; ``config`` is that run's own then.
        on_step: Called after every optimiser step with ``epoch``, ``step``, ``images`` and the losses ``loss/...``;
            returning False saves and stops.
        on_epoch: Called after every epoch with its line of results.csv; returning False saves and stops.
        train_data: A PyTorch data set to train on instead of a folder, see `DetectionDataset`.
        val_data: One to score on; where it is missing, ``data.hold_out`` of ``train_data`` is kept apart for it.
        augment: A function or albumentations transforms in place of the recipe's augmentation.
        optimizer: ``optimizer(groups, lr)`` gives a torch optimiser for parameter groups with ``weight_decay`` and
            ``lr_scale``, in place of the recipe's.
        schedule: ``schedule(step, steps)`` gives the learning rate of a step as a share of the peak.
        backbone: Settings of a backbone, one's own included, which this process then knows by its kind.
        head: The same for a head.

    Raises:
        MobiledetError: The config, the data or the folder can't be used.
    """
    need_extra("train")
    share_cores()  # before the config's modules load torch
    from mobiledet.config import Config as ConfigType
    from mobiledet.config import load_config
    from mobiledet.training.hooks import Hooks
    from mobiledet.training.start import recorded_config, resume_run, start_run
    from mobiledet.training.stopping import GentleStop

    hooks = Hooks(on_step, on_epoch, augment, optimizer, schedule)
    _know(backbone, head)
    if resume is not None:
        folder = Path(resume)
        data = None if train_data is None else _own_data(recorded_config(folder), train_data, val_data)
        resume_run(folder, overrides or (), data=data, hooks=hooks, stop=GentleStop())
        return _result(folder)
    recipe = config if isinstance(config, ConfigType) else load_config(config)
    recipe = _changed(recipe, overrides, backbone, head)
    data = None if train_data is None else _own_data(recipe, train_data, val_data)
    folder, _ = start_run(recipe, data=data, hooks=hooks, stop=GentleStop())
    return _result(folder)


def evaluate(
    model: str | Path,
    data: str | Path | DetectionDataset | None = None,
    *,
    split: str = "val",
    limit: int | None = None,
    max_detections: int | None = None,
    batch_size: int = 16,
    workers: int = 2,
    threads: int = 0,
    device: str = "auto",
    labels: str | Path | Sequence[str] | None = None,
) -> Metrics:
    """Score a model: the twelve COCO figures and AP by class.

    Args:
        model: A checkpoint, a run folder, a name, or an exported file.
        data: Folder of a data set, or a PyTorch data set; None takes the data that the model was trained on.
        split: Which part of it.
        limit: Only its first images.
        max_detections: How many detections per image and class count; None for COCO's 100, or as many as the model
            gives where these are more.
        batch_size: Images at once, of a model that takes any number.
        workers: Processes that read images for a checkpoint.
        threads: Processor threads; 0 takes all cores.
        device: Of PyTorch, or a provider of the exported model's runtime.
        labels: Names of the classes of a ``.tflite`` file that mobiledet didn't write: a text file, or the names.

    Raises:
        MobiledetError: The model or the data can't be used, or they have no class in common.
    """
    from mobiledet.runtime.choose import check_installed

    check_installed(model, device)
    need_extra("score")
    share_cores()
    from mobiledet.data.opening import open_recorded_split, open_split
    from mobiledet.data.torch_dataset import from_torch
    from mobiledet.evaluation.scoring import score_model
    from mobiledet.exporters.agreement import warn_of_other_processor

    def choose(settings: Mapping[str, Any]) -> CocoDataset:
        if data is None:
            return open_recorded_split(settings, split)
        if isinstance(data, str | Path):
            return open_split(Path(data), split)
        return from_torch(data, "data")

    warn_of_other_processor(model)
    score = score_model(
        str(model),
        choose,
        limit=limit,
        max_detections=max_detections,
        batch_size=batch_size,
        workers=workers,
        threads=threads,
        device=device,
        labels=labels,
    )
    return score.metrics


def export(
    model: str | Path,
    output: str | Path,
    *,
    format: str | None = None,
    int8: bool = False,
    calibration: str | Path | Sequence[str | Path] = (),
    data: str | Path | None = None,
    split: str = "val",
    batch: int | None = 1,
    nms: bool = True,
    opset: int | None = None,
    max_detections: int | None = None,
    input_size: tuple[int, int] | None = None,
    force: bool = False,
    threads: int = 0,
) -> AgreementReport:
    """Write a detector as a file that runs without PyTorch, and prove that it finds the same.

    Args:
        model: A checkpoint, a run folder, or pretrained weights by name.
        output: ``model.onnx``, ``model.tflite``, or a folder for the formats that write one; must not exist.
        format: "onnx", "openvino", "ncnn", "litert", ...; None goes by the ending of the file, or of the folder's name.
        int8: Quantise.
        calibration: Real images, files or folders, to measure ranges on; ``int8`` needs some, but for a
            model trained with ``train.quantize``.
        data: Folder of a data set to score both on, too.
        split: Which part of it.
        batch: Images at once; None for any number.
        nms: Whether the model itself suppresses overlapping boxes; otherwise it ends in all boxes and scores.
        opset: Version of ONNX's operators; None for the usual one.
        max_detections: Most of an image; None as trained.
        input_size: ``(height, width)``, for models whose images keep their shape.
        force: Keep the file even if it finds too little.
        threads: Processor threads; 0 takes all cores.

    Raises:
        MobiledetError: It can't be made, or finds too little.
    """
    need_extra("export")
    from mobiledet.data.opening import open_split
    from mobiledet.exporters.base import ExportOptions
    from mobiledet.exporters.choose import format_of
    from mobiledet.exporters.exporting import export_model

    output = Path(output)
    named = [calibration] if isinstance(calibration, str | Path) else calibration
    options = ExportOptions(
        format=format or format_of(output),
        int8=int8,
        calibration=[Path(path) for path in named],
        batch=batch,
        suppressed=nms,
        opset=opset,
        max_detections=max_detections,
        input_size=input_size,
        dataset=None if data is None else open_split(Path(data), split),
        force=force,
        threads=threads,
    )
    return export_model(str(model), output, options)


def _changed(
    config: Config,
    overrides: Mapping[str, Any] | None,
    backbone: BaseBackboneConfig | None,
    head: BaseHeadConfig | None,
) -> Config:
    from mobiledet.config import apply_overrides

    own = {name: part for name, part in (("backbone", backbone), ("head", head)) if part is not None}
    if own:
        config = config.model_copy(update={"model": config.model.model_copy(update=own)})
    return apply_overrides(config, overrides or {})


def _know(backbone: BaseBackboneConfig | None, head: BaseHeadConfig | None) -> None:
    """Let this process know kinds of one's own, so that checkpoints with them can be read."""
    from mobiledet.models import model_config

    if backbone is not None and type(backbone) not in model_config.BACKBONES:
        model_config.BACKBONES = (*model_config.BACKBONES, type(backbone))
    if head is not None and type(head) not in model_config.HEADS:
        model_config.HEADS = (*model_config.HEADS, type(head))


def _own_data(config: Config, train: DetectionDataset, val: DetectionDataset | None) -> Splits:
    from mobiledet.data.opening import Splits, complete_splits
    from mobiledet.data.torch_dataset import from_torch

    ours = from_torch(train)
    theirs = None if val is None else from_torch(val, "val_data", ours.names)
    return complete_splits(config.data, Splits(ours, theirs), seed=config.seed)


def _result(folder: Path) -> TrainResult:
    from mobiledet.weights.checkpoint import load_latest

    latest = load_latest(folder)
    best, last, metrics = (folder / name for name in ("best.pt", "last.pt", "metrics.json"))
    return TrainResult(
        folder,
        best if best.exists() else None,
        last if last.exists() else None,
        json.loads(metrics.read_text(encoding="utf-8")) if metrics.exists() else None,
        bool(latest and latest["training"]["progress"]["finished"]),
    )

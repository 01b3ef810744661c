"""What an exporter offers, and what it is asked for."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mobiledet.runtime.base import Runtime
from mobiledet.runtime.card import ModelCard
from mobiledet.structures import ImageArray, Size

if TYPE_CHECKING:
    from mobiledet.data.coco import CocoDataset
    from mobiledet.models.detection_model import DetectionModel

Method = Literal["minmax", "percentile"]


@dataclass(frozen=True)
class ExportOptions:
    """What to make of a checkpoint.

    Attributes:
        format: Name of the runtime that is to run it, see :data:`mobiledet.exporters.choose.EXPORTERS`.
        int8: Quantise.
        calibration: Files and folders of images to measure ranges on.
        calibration_images: How many of them are taken, evenly spread.
        method: How ranges are chosen, for ONNX.
        keep_float: Layers that aren't quantised, for ONNX.
        batch: Images at once; None for any number.
        suppressed: Whether the model itself suppresses overlapping boxes; otherwise it ends in all boxes and scores.
        opset: Version of ONNX's operators; None for the usual one.
        max_detections: Of an image; None for the checkpoint's own.
        labels: A file to write, too: the class names as `ModelCard.label_map` gives them.
        input_size: ``(height, width)`` of the network's input; None for the model's own.
        images: Files and folders to compare on; none for generated ones.
        dataset: To score both on.
        max_ap_loss: In points of 100; None for 0.5, and 1.5 with INT8.
        force: Keep a file that exceeds a limit.
        threads: Of the comparison; 0 takes all cores.
    """

    format: str = "onnx"
    int8: bool = False
    calibration: Sequence[Path] = ()
    calibration_images: int = 60
    method: Method = "minmax"
    keep_float: Sequence[str] = ()
    batch: int | None = 1
    suppressed: bool = True
    opset: int | None = None
    max_detections: int | None = None
    labels: Path | None = None
    input_size: Size | None = None
    images: Sequence[Path] = ()
    dataset: CocoDataset | None = None
    max_ap_loss: float | None = None
    force: bool = False
    threads: int = 0


@dataclass(frozen=True)
class Exporter:
    """Writes models for one runtime.

    A file with an exporter imports torch, and whatever else writing needs, inside its functions: the command line reads
    the list of exporters before anything is known to be installed.

    Attributes:
        runtime: Runs what is written. Its name is that of the format.
        write: Writes a new file or folder: the model, the card of what is written, the path, the options, and for INT8
            batches ``(B, H, W, 3)`` of calibration images; none where the model was trained in INT8 and has its ranges.
        packages: What must be importable to write.
        int8_packages: What must be importable for INT8, beyond that; None where INT8 isn't offered.
        extra: The extra of ``setup.py`` that brings them.
        batches: Whether a model can take several images at once.
        choices: Which of the options ``--no-nms``, ``--opset`` and ``--batch dynamic`` it knows.
        compared: Other models in the folder that is written, which are compared with the checkpoint, too.
        layer_errors: For INT8 with single layers kept in float: model, card and calibration batches to a dict with
            ``name`` and ``error`` for each layer, worst first; None where layers can't be chosen.
    """

    runtime: Runtime
    write: Callable[[DetectionModel, ModelCard, Path, ExportOptions, Sequence[ImageArray]], None]
    packages: tuple[str, ...]
    int8_packages: tuple[str, ...] | None = None
    extra: str = "export-all"
    batches: bool = True
    choices: frozenset[str] = frozenset()
    compared: tuple[str, ...] = ()
    layer_errors: Callable[[DetectionModel, ModelCard, Sequence[ImageArray]], list[dict[str, Any]]] | None = None

    @property
    def name(self) -> str:
        """Name of the format."""
        return self.runtime.name


@contextlib.contextmanager
def quiet(*loggers: str) -> Iterator[None]:
    """Silence other people's exporters: nothing on stdout, no warnings, only errors from the named loggers.

    What goes wrong is raised, and what is of use to the user the package reports itself.
    """
    named = [logging.getLogger(name) for name in loggers]
    levels = [logger.level for logger in named]
    for logger in named:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(named, levels, strict=True):
            logger.setLevel(level)

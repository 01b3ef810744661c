"""What every way of running a model offers, and what each of their files is built from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from mobiledet.errors import MissingDependencyError, ModelFileError, install_extra
from mobiledet.ops.numpy_boxes import best_detections
from mobiledet.runtime.card import ModelCard
from mobiledet.structures import FloatArray, ImageArray, IntArray


class RawDetections(NamedTuple):
    """Detections of a batch in network pixels; where an image has fewer than N, the rest scores 0.

    ``boxes`` ``(B, N, 4)`` xyxy, ``scores`` ``(B, N)`` best first, ``labels`` ``(B, N)`` in ``1..K``.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray


class Backend(Protocol):
    """A loaded model."""

    card: ModelCard
    runtime: str
    """Name and version of what runs it, such as ``"onnxruntime 1.31.1"``."""

    def run(self, images: ImageArray, score_threshold: float, iou_threshold: float) -> RawDetections:
        """Detections in images ``(B, H, W, 3)`` of the network's size; may be called from several threads."""

    def stages(self, images: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` and ``decode+nms``; how time is attributed depends on the runtime."""


@dataclass(frozen=True)
class Runtime:
    """A way of running exported models, as :data:`mobiledet.runtime.choose.RUNTIMES` lists them.

    Attributes:
        name: What ``--format`` calls it, such as ``"onnx"``.
        suffix: Ending of the file that holds or describes the network, such as ``".xml"``.
        open: Loads a model: its path, and by name ``threads``, ``provider`` and ``spin``, as ``Detector`` has them.
        folder_file: Name of that file where a model is a folder; None where the file is the model.
        package: The Python package that it needs; None where Python and NumPy do.
        instead: Packages any of which will do as well.
        extra: The extra of ``setup.py`` that brings the package; None where the base install does, or nothing.
        takes_labels: Whether ``open`` takes ``labels``, too: names of the classes of a file that doesn't have them.
    """

    name: str
    suffix: str
    open: Callable[..., Backend]
    folder_file: str | None = None
    package: str | None = None
    instead: tuple[str, ...] = ()
    extra: str | None = None
    takes_labels: bool = False

    def recognises(self, path: Path) -> bool:
        """Whether ``path`` means a model of this kind."""
        if path.suffix == self.suffix:
            return True
        return self.folder_file is not None and (path / self.folder_file).is_file()

    def check_installed(self, path: Path) -> None:
        """Make sure that the package is there, before it is loaded to run ``path``.

        Raises:
            MissingDependencyError: It isn't.
        """
        if self.package is not None and not any(map(find_spec, (self.package, *self.instead))):
            how = install_extra(self.extra) if self.extra else f"pip install {self.package}"
            raise MissingDependencyError(
                f"{path}: running it needs the package {self.package}, which is not installed; {how}"
            )

    def model_path(self, path: Path) -> Path:
        """The file or folder that is the model, also where a file inside the folder was named."""
        return path.parent if self.folder_file is not None and path.suffix == self.suffix else path


def read_model(path: Path) -> bytes:
    """The content of a model's file.

    Raises:
        ModelFileError: It can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelFileError(f"{path}: can't be read: {error.strerror}") from None


class Suppression(NamedTuple):
    """Settings of suppression that no field of the card holds: see `mobiledet.models.postprocess.Postprocess`."""

    candidates: int
    class_agnostic: bool = False
    vote_iou: float | None = None

    @classmethod
    def of(cls, card: ModelCard, place: Path) -> Suppression:
        """What a card's config says; files of older versions know the first of them only.

        Raises:
            ModelFileError: It doesn't.
        """
        try:
            settings = card.config["model"]["postprocess"]
            vote_iou = settings.get("vote_iou")
            return cls(
                int(settings["candidates"]),
                settings.get("class_agnostic") is True,
                None if vote_iou is None else float(vote_iou),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise ModelFileError(
                f"{place}: its card lacks config.model.postprocess.candidates; export it again"
            ) from None


def suppress(
    card: ModelCard,
    boxes: FloatArray,
    scores: FloatArray,
    *,
    score_threshold: float,
    iou_threshold: float,
    settings: Suppression,
) -> RawDetections:
    """Detections from boxes ``(B, A, 4)`` and scores ``(B, A, K)``, for models that end there."""
    found = [
        best_detections(
            *image,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            max_detections=card.max_detections,
            **settings._asdict(),
        )
        for image in zip(boxes, scores, strict=True)
    ]
    return RawDetections(*(np.stack(part) for part in zip(*found, strict=True)))


def check_batch(images: ImageArray, card: ModelCard) -> None:
    """Make sure that images fit the network.

    Raises:
        ValueError: They have another shape or type.
    """
    wanted = (card.batch or max(1, len(images)), *card.resize.size, 3)
    if images.shape != wanted or images.dtype != np.uint8:
        raise ValueError(f"this network takes uint8 images {wanted}, not {images.shape} {images.dtype}")


THRESHOLDS = ("score_threshold", "iou_threshold")
OUTPUTS = ("boxes", "scores", "labels")
"""Names in an exported graph; one without suppression has no thresholds and no labels."""


def graph_inputs(images: ImageArray, *thresholds: float) -> dict[str, Any]:
    """The inputs of an exported graph, by their names in it."""
    values = (np.array(value, np.float32) for value in thresholds)
    return {"images": images, **dict(zip(THRESHOLDS, values, strict=False))}

"""What every way of running a network offers, and the choice between them by what a path holds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from mobiledet.errors import MissingDependencyError, ModelFileError, install_extra
from mobiledet.runtime.card import ModelCard
from mobiledet.structures import FloatArray, ImageArray, IntArray
from mobiledet.weights.catalogue import find_source, no_such_model

OPENVINO_FILE = "model.xml"
NCNN_FILE = "model.ncnn.param"


class Found(NamedTuple):
    """Detections of a batch in network pixels; where a picture has fewer than N, the rest scores 0.

    ``boxes`` ``(B, N, 4)`` xyxy, ``scores`` ``(B, N)`` best first, ``labels`` ``(B, N)`` in ``1..K``.
    """

    boxes: FloatArray
    scores: FloatArray
    labels: IntArray


class Network(Protocol):
    """A loaded model."""

    card: ModelCard
    runtime: str
    """Name and version of what runs it, such as ``"onnxruntime 1.31.1"``."""

    def run(self, pictures: ImageArray, score_threshold: float, iou_threshold: float) -> Found:
        """Detections in pictures ``(B, H, W, 3)`` of the network's size; may be called from several threads."""

    def stages(self, pictures: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` and ``decode+nms``; how they were told apart is the runtime's affair."""


def open_network(path: str | Path, *, threads: int = 0, provider: str | None = None, spin: bool = True) -> Network:
    """Load whatever ``path`` is: an ONNX file, an OpenVINO or ncnn folder, a checkpoint, or pretrained weights by name.

    Args:
        path: File, folder or name.
        threads: Processor threads; 0 takes all cores.
        provider: Where it runs: an execution provider of ONNX Runtime, a device of OpenVINO or of PyTorch.
        spin: Whether ONNX Runtime's threads keep their cores busy while they wait for the next call.

    Raises:
        ModelFileError: There is no such file, or it is damaged or foreign.
        MissingDependencyError: The package that runs it isn't installed.
        MobiledetError: A checkpoint can't be used.
    """
    if threads < 0:
        raise ValueError(f"threads is {threads}; give 0 for all cores, or their number")
    place = Path(path)
    kind = exported_format(place)
    if kind == "onnx":
        from mobiledet.runtime.onnx import OnnxNetwork

        return OnnxNetwork(_existing(place), threads=threads, provider=provider, spin=spin)
    if kind == "openvino":
        from mobiledet.runtime.openvino import OpenvinoNetwork

        return OpenvinoNetwork(_existing(place), threads=threads, provider=provider)
    if kind == "ncnn":
        from mobiledet.runtime.ncnn import NcnnNetwork

        return NcnnNetwork(_existing(place), threads=threads, provider=provider)
    if place.suffix == ".bin":
        raise ModelFileError(f"{place}: only the weights of a model; name the folder that holds it")
    try:
        from mobiledet.runtime.pytorch import CheckpointNetwork
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("mobiledet"):
            raise
        if not place.exists() and find_source(str(path)) is None:
            raise no_such_model(str(path)) from None
        if place.suffix == ".tflite":
            raise ModelFileError(
                f"{place}: a TensorFlow Lite file is imported first (python tools/weights.py import) and then exported "
                "(python tools/export.py), on a computer with PyTorch"
            ) from None
        raise MissingDependencyError(
            f"{path}: a checkpoint needs {error.name}, which is not installed; export it where it was trained "
            f"(python tools/export.py best.pt -o model.onnx), or {install_extra('train')}"
        ) from None
    return CheckpointNetwork(path, threads=threads, provider=provider)


def exported_format(path: str | Path) -> Literal["onnx", "openvino", "ncnn"] | None:
    """What kind of exported model a path means; None for a checkpoint, a name, or anything else."""
    place = Path(path)
    if place.suffix == ".onnx":
        return "onnx"
    if place.suffix == ".xml" or (place / OPENVINO_FILE).is_file():
        return "openvino"
    if place.suffix == ".param" or (place / NCNN_FILE).is_file():
        return "ncnn"
    return None


def need(package: str, extra: str | None, place: Path) -> MissingDependencyError:
    """The error for a runtime that isn't installed."""
    how = install_extra(extra) if extra else f"pip install {package}"
    return MissingDependencyError(f"{place}: running it needs the package {package}, which is not installed; {how}")


def check_batch(pictures: NDArray[np.uint8], card: ModelCard) -> None:
    """Make sure that pictures fit a network of fixed shape.

    Raises:
        ValueError: they don't.
    """
    wanted = (card.batch, *card.resize.size, 3)
    if pictures.shape != wanted or pictures.dtype != np.uint8:
        raise ValueError(f"this network takes uint8 pictures {wanted}, not {pictures.shape} {pictures.dtype}")


def _existing(path: Path) -> Path:
    if not path.exists():
        raise ModelFileError(f"no model {str(path)!r}; python tools/export.py best.pt -o {path} makes one")
    return path

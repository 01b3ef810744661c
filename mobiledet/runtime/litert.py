"""A TensorFlow Lite detector, ours or one that ends as the Object Detection API's, in LiteRT or what came before it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.errors import CheckpointError, ModelFileError
from mobiledet.runtime.base import RawDetections, Runtime, check_batch, read_model
from mobiledet.runtime.card import is_whole
from mobiledet.runtime.tflite_results import Network, open_results
from mobiledet.runtime.timing import time_halves
from mobiledet.structures import FloatArray, ImageArray
from mobiledet.utils.machine import usable_cores
from mobiledet.utils.processes import without_lines
from mobiledet.weights.catalogue import PretrainedSource
from mobiledet.weights.tflite.contents import check_graph, read_contents

INTERPRETERS = {
    "ai_edge_litert": "ai_edge_litert.interpreter",
    "tflite_runtime": "tflite_runtime.interpreter",
    "tensorflow": "tensorflow.lite",
}
"""Packages that run such files, the newest first, and the module of each that has the ``Interpreter``."""

_EDGE_TPU = b"edgetpu-custom-op"
"""The operation that edgetpu_compiler puts in place of a network."""


class LitertBackend:
    """A model in LiteRT.

    Most arguments are those of :class:`mobiledet.runtime.detector.Detector`; ``spin`` has no effect here. Of other
    people's files suppression is part: a call can ask for higher scores than the file keeps, not for another overlap.

    Args:
        path: The file.
        source: The pretrained detector that it is; it is then suppressed here, as its converted weights are.

    Raises:
        ModelFileError: The file is damaged or ends otherwise, the names don't fit, or there is no such provider.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        provider: str | None = None,
        spin: bool = True,  # noqa: ARG002 - every runtime is opened with it
        labels: str | Path | Sequence[str] | None = None,
        source: PretrainedSource | None = None,
    ) -> None:
        if (provider or "cpu").lower() != "cpu":
            raise ModelFileError(f"LiteRT has no provider {provider!r} here; it has cpu")
        interpreter_class, self.runtime = find_interpreter()
        content = read_model(path)
        if content[4:8] != b"TFL3":
            raise ModelFileError(f"{path}: not a TensorFlow Lite file ({len(content):,} bytes); copy it again")
        if is_whole(content) is False:
            raise ModelFileError(f"{path}: damaged, its checksum doesn't match its content; copy or export it again")
        if _EDGE_TPU in content:
            raise ModelFileError(f"{path}: compiled for an Edge TPU; name the file that it was compiled from")
        try:
            check_graph(content)
            about = read_contents(content)
            with without_lines(b"INFO: "):
                self._interpreter: Any = interpreter_class(model_content=content, num_threads=threads or usable_cores())
                self._interpreter.allocate_tensors()
            self._network = Network(self._interpreter, about, path)
            self._results = open_results(self._network, labels, source)
        except CheckpointError as error:
            raise ModelFileError(f"{path}: {error}") from None
        except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as error:  # damage leads anywhere
            reason = " ".join(str(error).split())[:200]
            raise ModelFileError(f"{path}: LiteRT can't open it ({reason}); copy or export it again") from None
        self._mean, self._std = (np.array(part, np.float32) for part in about.normalisation)
        self._lock = threading.Lock()  # an interpreter holds one image at a time
        self.card = self._results.card

    def run(self, images: ImageArray, score_threshold: float, iou_threshold: float) -> RawDetections:
        """Detections in images ``(1, H, W, 3)`` of the network's size."""
        check_batch(images, self.card)
        return self._results.read(self._invoke(images), score_threshold, iou_threshold)

    def stages(self, images: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` and ``decode+nms``, which other people's files do within ``network``."""
        thresholds = self.card.score_threshold, self.card.iou_threshold
        times = time_halves(
            lambda: self._invoke(images), lambda values: self._results.read(values, *thresholds), rounds
        )
        return {"network": sum(times.values())} if self._results.suppressed else times

    def _invoke(self, images: ImageArray) -> list[FloatArray]:
        """Real values of what is read after a run."""
        fitted, tensors = self._fitted(images), self._results.tensors
        with self._lock:
            self._interpreter.set_tensor(self._network.input["index"], fitted)
            try:
                self._interpreter.invoke()
            except RuntimeError as error:
                reason = " ".join(str(error).split())[:200]
                raise ModelFileError(f"{self._network.path}: LiteRT can't run it ({reason}); copy it again") from None
            stored = [self._interpreter.get_tensor(tensor) for tensor in tensors]
        return [self._network.real(tensor, values) for tensor, values in zip(tensors, stored, strict=True)]

    def _fitted(self, images: ImageArray) -> Any:
        """Pixels as the network takes them: the 256 steps of a quantised input are those of pixels."""
        if self._network.input["dtype"] == np.float32:
            return (images - self._mean) / self._std
        return images if self._network.input["dtype"] == np.uint8 else (images ^ 128).view(np.int8)


def find_interpreter() -> tuple[Any, str]:
    """The class that runs files, and what it is: ``"LiteRT 2.1.0"``. One of `INTERPRETERS` must be installed."""
    package = next(package for package in INTERPRETERS if find_spec(package) is not None)
    name = "LiteRT" if package == "ai_edge_litert" else "TensorFlow Lite"
    return import_module(INTERPRETERS[package]).Interpreter, f"{name} {import_module(package).__version__}"


LITERT = Runtime(
    name="litert",
    suffix=".tflite",
    open=LitertBackend,
    package="ai_edge_litert",
    instead=tuple(INTERPRETERS)[1:],
    extra="litert",
    takes_labels=True,
)

FRIGATE_MODEL = "model.tflite"


def _open_folder(path: Path, **settings: Any) -> LitertBackend:
    return LitertBackend(path / FRIGATE_MODEL, **settings)


FRIGATE = replace(LITERT, name="frigate", open=_open_folder, folder_file=FRIGATE_MODEL, takes_labels=False)
"""A folder for Frigate, see :mod:`mobiledet.exporters.frigate`; of the models in it, the one that needs no OpenVINO."""

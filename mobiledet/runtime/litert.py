"""A TensorFlow Lite detector, run by LiteRT: one of ours, or any that ends in TFLite_Detection_PostProcess.

Of our own files, boxes and scores are taken from before that operation and suppressed here, as everywhere else: the
operation's fast way looks at the best class of a box only, and its regular one loses a class where it runs on several
threads (class 2 on two, class 4 on four; LiteRT 2.1). Of other people's files its results are taken as they are.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.errors import CheckpointError, ModelFileError
from mobiledet.runtime.base import RawDetections, Runtime, candidates_in, check_batch, read_model, suppress
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.onnx import is_whole
from mobiledet.runtime.timing import time_halves
from mobiledet.structures import FloatArray, ImageArray, ResizeRule
from mobiledet.utils.machine import usable_cores
from mobiledet.utils.processes import without_lines
from mobiledet.weights.coco_classes import output_categories
from mobiledet.weights.tflite.graph import POSTPROCESS, packed_labels, packed_text

CARD_FILE = "mobiledet.json"
"""In the archive behind the flatbuffer, where TensorFlow Lite's metadata has its files."""

_LARGEST_LOG = float(np.log(1000 / 16))
"""As in :mod:`mobiledet.ops.boxes`."""


class LitertBackend:
    """A model in LiteRT.

    The arguments are those of :class:`mobiledet.runtime.detector.Detector`; ``spin`` has no effect here. Of other
    people's files suppression is part: a call can ask for higher scores than the file keeps, not for another overlap.

    Raises:
        ModelFileError: The file is damaged or ends otherwise, its classes have no names, or there is no such provider.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        provider: str | None = None,
        spin: bool = True,  # noqa: ARG002 - every runtime is opened with it
    ) -> None:
        from ai_edge_litert.interpreter import Interpreter

        if (provider or "cpu").lower() != "cpu":
            raise ModelFileError(f"LiteRT has no provider {provider!r} here; it has cpu")
        self.runtime = f"LiteRT {version('ai-edge-litert')}"
        self.path = path
        content = read_model(path)
        if content[4:8] != b"TFL3":
            raise ModelFileError(f"{path}: not a TensorFlow Lite file ({len(content):,} bytes); copy it again")
        if is_whole(content) is False:
            raise ModelFileError(f"{path}: damaged, its checksum doesn't match its content; copy or export it again")
        try:
            with without_lines(b"INFO: "):
                self._interpreter: Any = Interpreter(model_content=content, num_threads=threads or usable_cores())
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelFileError(f"{path}: LiteRT can't open it ({reason}); copy or export it again") from None
        self._lock = threading.Lock()  # an interpreter holds one image at a time
        ends = [op for op in self._interpreter._get_ops_details() if op["op_name"] == POSTPROCESS]
        given = self._interpreter.get_input_details()
        shape = [int(side) for side in given[0]["shape"]]
        if len(ends) != 1 or len(given) != 1 or len(shape) != 4 or shape[0] != 1 or shape[3] != 3:
            raise ModelFileError(f"{path}: not a detector that takes one RGB image and ends in {POSTPROCESS}")
        self._input = given[0]
        self._candidates, self._outputs = ([int(index) for index in ends[0][side]] for side in ("inputs", "outputs"))
        try:
            card, names = packed_text(content, CARD_FILE), packed_labels(content)
        except CheckpointError as error:
            raise ModelFileError(f"{path}: {error}; copy it again") from None
        self._ours = card is not None
        if card is not None:
            self.card = ModelCard.from_json(card, str(path))
            self._most_candidates = candidates_in(self.card, path)
        else:
            self.card = self._card_of_another(names, ResizeRule((shape[1], shape[2])))
            self._labels = np.zeros(max(self.card.category_ids) + 1, np.int64)
            self._labels[list(self.card.category_ids)] = np.arange(1, len(self.card.names) + 1)
            self._labels = self._labels[1:]  # the operation counts without background
        model = self.card.config.get("model", {})
        self._mean, self._std = (np.array(model.get(key, (127.5,) * 3), np.float32) for key in ("mean", "std"))

    def run(self, images: ImageArray, score_threshold: float, iou_threshold: float) -> RawDetections:
        """Detections in images ``(1, H, W, 3)`` of the network's size."""
        check_batch(images, self.card)
        return self._read(self._invoke(images), score_threshold, iou_threshold)

    def stages(self, images: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` (up to the file's own results) and ``decode+nms`` (the rest)."""
        thresholds = self.card.score_threshold, self.card.iou_threshold
        return time_halves(lambda: self._invoke(images), lambda results: self._read(results, *thresholds), rounds)

    def _invoke(self, images: ImageArray) -> list[Any]:
        """What goes into the last operation, of our own files; what comes out of it, of others."""
        with self._lock:
            self._interpreter.set_tensor(self._input["index"], self._fitted(images))
            self._interpreter.invoke()
            return [
                self._interpreter.get_tensor(index) for index in (self._candidates if self._ours else self._outputs)
            ]

    def _read(self, results: list[Any], score_threshold: float, iou_threshold: float) -> RawDetections:
        height, width = self.card.resize.size
        scale = np.array([width, height, width, height], np.float32)
        if not self._ours:
            if iou_threshold != self.card.iou_threshold:
                raise ValueError(f"{self.path}: suppression is part of the file; iou_threshold can't be changed")
            shares, classes, scores, count = (result[0] for result in results)
            places = classes.astype(np.int64).clip(0, len(self._labels) - 1)
            kept = (
                (np.arange(len(scores)) < count) & (self._labels[places] > 0) & (scores >= max(score_threshold, 1e-9))
            )
            boxes = shares[:, [1, 0, 3, 2]].clip(0, 1) * scale
            return RawDetections(boxes[None, kept], scores[None, kept], self._labels[places][None, kept])
        deltas, scores, anchors = results[0][0], results[1][0], results[2]
        # All as (y, x, height, width) in shares of the image.
        size = np.exp(np.minimum(deltas[:, 2:] / 5, _LARGEST_LOG)) * anchors[:, 2:]
        centre = deltas[:, :2] / 10 * anchors[:, 2:] + anchors[:, :2]
        boxes = np.concatenate([centre - size / 2, centre + size / 2], axis=1)[:, [1, 0, 3, 2]].clip(0, 1) * scale
        return suppress(
            self.card,
            boxes,
            scores[:, -len(self.card.names) :],  # without background, where that has a column
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            candidates=self._most_candidates,
        )

    def _card_of_another(self, names: tuple[str, ...] | None, resize: ResizeRule) -> ModelCard:
        details = {detail["index"]: detail for detail in self._interpreter.get_tensor_details()}
        try:
            categories = output_categories(int(details[self._candidates[1]]["shape"][-1]) - 1, names)
        except CheckpointError as error:
            raise ModelFileError(f"{self.path}: {error}") from None
        return ModelCard(
            tuple(str(category["name"]) for category in categories),
            tuple(int(category["id"]) for category in categories),
            resize,
            max_detections=int(details[self._outputs[0]]["shape"][1]),
            precision="float32" if self._input["dtype"] == np.float32 else "int8",
        )

    def _fitted(self, images: ImageArray) -> FloatArray | ImageArray:
        if self._input["dtype"] == np.uint8:
            return images
        normalised: FloatArray = (images - self._mean) / self._std
        if self._input["dtype"] == np.float32:
            return normalised
        scale, zero_point = self._input["quantization"]
        stored: ImageArray = np.clip(np.rint(normalised / scale + zero_point), -128, 127).astype(self._input["dtype"])
        return stored


LITERT = Runtime(name="litert", suffix=".tflite", open=LitertBackend, package="ai_edge_litert", extra="litert")

FRIGATE_MODEL = "model.tflite"


def _open_folder(path: Path, **settings: Any) -> LitertBackend:
    return LitertBackend(path / FRIGATE_MODEL, **settings)


FRIGATE = replace(LITERT, name="frigate", open=_open_folder, folder_file=FRIGATE_MODEL)
"""A folder for Frigate, see :mod:`mobiledet.exporters.frigate`; of the models in it, the one that needs no OpenVINO."""

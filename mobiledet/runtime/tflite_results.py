"""What a TensorFlow Lite detector gives, as detections.

Every file ends in ``TFLite_Detection_PostProcess``, which decodes and suppresses. Of our own files, boxes and scores
are taken from before it and suppressed here, as everywhere else: its fast way looks at the best class of a box only,
and its regular one loses a class where it runs on several threads (class 2 on two, class 4 on four; LiteRT 2.1). Of
other people's files its results are taken as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledet.errors import CheckpointError, ModelFileError
from mobiledet.ops.numpy_boxes import SMALLEST
from mobiledet.runtime.base import RawDetections, Suppression, suppress
from mobiledet.runtime.card import ModelCard
from mobiledet.structures import FloatArray, IntArray, ResizeRule
from mobiledet.weights.catalogue import PretrainedSource
from mobiledet.weights.class_lists import output_categories, read_class_list
from mobiledet.weights.tflite.contents import BOX_SCALES, POSTPROCESS, FileContents

CANDIDATES = 500
"""How many (box, class) pairs of a pretrained detector enter suppression: as by default in training."""

RESULTS = ("boxes", "classes", "scores", "number")
"""What the last operation gives."""

INPUT_TYPES = (np.uint8, np.int8, np.float32)

_LARGEST_LOG = float(np.log(1000 / 16))
"""As in :mod:`mobiledet.ops.boxes`."""

_STORING = ("QUANTIZE", "DEQUANTIZE", "RESHAPE", "SQUEEZE", "CAST")
"""Operations that leave a result what it is, and only store it otherwise."""


class Network:
    """The network in an interpreter: the image it takes, and what its last operation takes and gives.

    Attributes:
        input: The input, as the interpreter describes it.
        size: ``(height, width)`` of the image.
        before: What the last operation takes: encoded boxes, scores, anchors.
        slots: Classes, used or not.
        background: Scores of a box that come before those of the classes: 1, or 0.

    Raises:
        ModelFileError: It isn't a detector that takes one RGB image and ends in that operation.
    """

    def __init__(self, interpreter: Any, about: FileContents, path: Path) -> None:
        self.about, self.path = about, path
        self._tensors = {int(detail["index"]): detail for detail in interpreter.get_tensor_details()}
        self._ops = interpreter._get_ops_details()
        self._outputs = [int(detail["index"]) for detail in interpreter.get_output_details()]
        self.input, *more = interpreter.get_input_details()
        shape, dtype = self.input["shape"], self.input["dtype"]
        free = -1 in self.input["shape_signature"][1:]  # such as the height and width
        if more or free or len(shape) != 4 or shape[0] != 1 or shape[3] != 3 or dtype not in INPUT_TYPES:
            sides = _sides(self.input["shape_signature"])
            raise ModelFileError(
                f"{path}: takes {sides} {dtype.__name__}{' and more' * bool(more)}; only detectors that take one RGB "
                "image of fixed size, 1xHEIGHTxWIDTHx3, as uint8, int8 or float32 are run"
            )
        self.size = int(shape[1]), int(shape[2])
        ends = [op for op in self._ops if op["op_name"] == POSTPROCESS]
        if len(ends) != 1:
            given = " and ".join(_sides(self._tensors[index]["shape"]) for index in self._outputs)
            raise ModelFileError(
                f"{path}: its outputs are {given}, and nothing in it says how they become boxes; only detectors that "
                f"end in {POSTPROCESS} are run, as the Object Detection API's export_tflite_graph_tf2.py writes them"
            )
        self.before, self._after = (tuple(map(int, ends[0][side])) for side in ("inputs", "outputs"))
        outputs = int(self._tensors[self.before[1]]["shape"][-1])
        self.slots = int(about.postprocess.get("num_classes", outputs - 1))
        self.background = outputs - self.slots
        if self.slots < 1 or self.background not in (0, 1):
            raise ModelFileError(f"{path}: has {outputs} scores a box for {self.slots} classes; convert it again")

    def after(self) -> tuple[int, ...]:
        """The outputs of the file that hold boxes, classes, scores and their number, whatever their order."""
        found = tuple(tensor for tensor in map(self._output, self._after) if tensor is not None)
        if len(found) != len(RESULTS):
            raise ModelFileError(
                f"{self.path}: not all results of {POSTPROCESS} ({', '.join(RESULTS)}) are its outputs, or unknown "
                "operations follow; convert it again"
            )
        return found

    def _output(self, tensor: int) -> int | None:
        """The output of the file that a result becomes."""
        for _ in self._ops:
            if tensor in self._outputs:
                return tensor
            users = [op for op in self._ops if op["op_name"] in _STORING and tensor in op["inputs"]]
            if not users:
                return None
            tensor = int(users[0]["outputs"][0])
        return None

    def real(self, tensor: int, stored: NDArray[Any]) -> FloatArray:
        """Real values of what is stored in a tensor."""
        scale, zero_point = self._tensors[tensor]["quantization"]
        values: FloatArray = stored.astype(np.float32, copy=False)
        return (values - np.float32(zero_point)) * np.float32(scale) if scale else values

    def card(self, labels: str | Path | Sequence[str] | None) -> ModelCard:
        """The card of other people's file; without ``labels``, with the names packed into it, or COCO's."""
        categories = output_categories(self.slots, self.about.labels if labels is None else read_class_list(labels))
        convs = [op for op in self._ops if op["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D")]
        stored = self._tensors[int(convs[0]["inputs"][1])]["dtype"] if convs else np.float32
        return ModelCard(
            tuple(str(category["name"]) for category in categories),
            tuple(int(category["id"]) for category in categories),
            ResizeRule(self.size),
            iou_threshold=round(float(self.about.postprocess.get("nms_iou_threshold", 0.6)), 6),
            precision="float32" if stored == np.float32 else "int8",
            gmacs=round(sum(map(self._mult_adds, convs)) / 1e9, 4),
        )

    def shape(self, tensor: int) -> tuple[int, ...]:
        """Dimensions of a tensor."""
        return tuple(map(int, self._tensors[tensor]["shape"]))

    def _mult_adds(self, conv: Any) -> int:
        weights, out = (self.shape(int(conv[side][place])) for side, place in (("inputs", 1), ("outputs", 0)))
        return math.prod(out[1:]) * math.prod(weights[1:3]) * (weights[3] if conv["op_name"] == "CONV_2D" else 1)


class CandidateResults:
    """Encoded boxes, scores and anchors, decoded and suppressed here.

    Args:
        card: Of the model.
        network: The network.
        columns: Which scores are those of the classes.
        suppression: Its settings.
    """

    suppressed = False

    def __init__(self, card: ModelCard, network: Network, columns: IntArray, suppression: Suppression) -> None:
        self.card, self.tensors = card, network.before
        self._columns, self._suppression = columns, suppression
        options = network.about.postprocess
        self._scales = np.array([options.get(key, scale) for key, scale in BOX_SCALES.items()], np.float32)

    def read(self, values: Sequence[FloatArray], score_threshold: float, iou_threshold: float) -> RawDetections:
        """Detections in one image, from the real values of ``tensors``."""
        height, width = self.card.resize.size
        # All as (y, x, height, width) in shares of the image.
        offsets, anchors = values[0][0] / self._scales, values[2]
        size = np.exp(np.minimum(offsets[:, 2:], _LARGEST_LOG)) * anchors[:, 2:]
        centre = offsets[:, :2] * anchors[:, 2:] + anchors[:, :2]
        shares = np.concatenate([centre - size / 2, centre + size / 2], axis=1)[:, [1, 0, 3, 2]].clip(0, 1)
        return suppress(
            self.card,
            shares[None] * np.array([width, height, width, height], np.float32),
            values[1][:1, :, self._columns],
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            settings=self._suppression,
        )


class FinishedResults:
    """The detections that the file itself gives."""

    suppressed = True

    def __init__(self, card: ModelCard, network: Network) -> None:
        self.tensors, self._path = network.after(), network.path
        self.card = replace(card, max_detections=math.prod(network.shape(self.tensors[2])))
        self._labels = np.zeros(network.slots, np.int64)  # 0: outputs without a class
        self._labels[np.array(card.category_ids) - 1] = np.arange(1, len(card.names) + 1)

    def read(self, values: Sequence[FloatArray], score_threshold: float, iou_threshold: float) -> RawDetections:
        """Detections in one image, from the real values of ``tensors``.

        Raises:
            ValueError: Another overlap is asked for than the file's own.
        """
        if iou_threshold != self.card.iou_threshold:
            raise ValueError(f"{self._path}: suppression is part of the file; iou_threshold can't be changed")
        height, width = self.card.resize.size
        number = round(float(values[3].ravel()[0]))  # beyond it there is whatever was in memory
        shares, classes, scores = (
            part.reshape(-1, side)[:number] for part, side in zip(values[:3], (4, 1, 1), strict=True)
        )
        labels = self._labels[np.rint(classes[:, 0]).astype(np.int64).clip(0, len(self._labels) - 1)]
        kept = (labels > 0) & (scores[:, 0] >= max(score_threshold, SMALLEST))
        boxes = shares[:, [1, 0, 3, 2]].clip(0, 1) * np.array([width, height, width, height], np.float32)
        return RawDetections(boxes[None, kept], scores[None, kept, 0], labels[None, kept])


def open_results(
    network: Network, labels: str | Path | Sequence[str] | None, source: PretrainedSource | None
) -> CandidateResults | FinishedResults:
    """How to read a network's results; the arguments are those of :class:`mobiledet.runtime.litert.LitertBackend`.

    Raises:
        ModelFileError: The card, the names or the file's end can't be used.
    """
    path, card = network.path, network.about.card
    if card is not None:
        own = ModelCard.from_json(card, str(path))
        if own.resize.size != network.size or len(own.names) != network.slots:
            raise ModelFileError(f"{path}: its model card is of another network; export it again")
        return CandidateResults(own, network, np.arange(network.slots) + network.background, Suppression.of(own, path))
    try:
        foreign = network.card(labels)
        foreign.check()
    except CheckpointError as error:
        raise ModelFileError(f"{path}: {error}") from None
    if source is not None:
        foreign = replace(foreign, shown_threshold=source.threshold)
        columns = np.array(foreign.category_ids) - 1 + network.background
        return CandidateResults(foreign, network, columns, Suppression(CANDIDATES))
    return FinishedResults(foreign, network)


def _sides(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))

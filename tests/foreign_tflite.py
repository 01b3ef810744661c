"""Detectors as other people's converters write them, so small that their scores are the pixels of the image.

Each pixel of a 2x3 image is an anchor, and its three colours are that anchor's scores. What the file makes of pixels,
where scores begin and how results are stored can so be read off the detections.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
import pytest

HEIGHT, WIDTH = 2, 3
ANCHORS = HEIGHT * WIDTH
RESULTS = ("boxes", "classes", "scores", "number")

PIXEL_IS_SCORE = (0.0, 255.0)
"""Mean and deviation with which a float network gets scores from pixels."""


def corners() -> np.ndarray:
    """Boxes ``(6, 4)`` xyxy of the anchors in pixels: a pixel each, in reading order."""
    y, x = np.divmod(np.arange(ANCHORS), WIDTH)
    return np.stack([x, y, x + 1, y + 1], axis=1).astype(np.float32)


def write_foreign(
    path: Path,
    *,
    taken: str = "FLOAT32",
    background: bool = True,
    stored: str = "FLOAT32",
    order: Sequence[str] = RESULTS,
    after: str | None = None,
    ending: bool = True,
    mean_std: tuple[float, float] | None = PIXEL_IS_SCORE,
    label_files: Mapping[str, tuple[str, Sequence[str]]] | None = None,
    most: int = 4,
    inputs: int = 1,
) -> Path:
    """Write a detector.

    Args:
        path: File to write.
        taken: How images are taken: ``"FLOAT32"``, ``"UINT8"``, ``"INT8"``, or what can't be.
        background: Whether the first of three scores is the background's, which leaves two classes.
        stored: How results are stored: float, or by a QUANTIZE operation each.
        order: Of the outputs, of which there may be fewer.
        after: An operation that follows the boxes, such as ``"ABS"``.
        ending: Without, boxes and scores are the outputs.
        mean_std: Normalisation by the metadata; None for a file without metadata.
        label_files: Name of each packed file -> its language, and the names in it.
        most: Detections at most.
        inputs: How many.
    """
    tflite_file = pytest.importorskip("mobiledet.exporters.tflite_file", reason="ai-edge-litert isn't installed")
    builder, quantization = tflite_file.FileBuilder(), tflite_file.Quantization
    step = {"UINT8": quantization.of(1 / 255, 0), "INT8": quantization.of(1 / 255, -128)}.get(taken)
    given = [builder.tensor(f"image{k}", (1, HEIGHT, WIDTH, 3), taken, step) for k in range(inputs)]
    pixels = given[0]
    if taken != "FLOAT32":
        pixels = builder.tensor("real", (1, HEIGHT, WIDTH, 3), "FLOAT32")
        builder.op("DEQUANTIZE", [given[0]], [pixels], version=2)
    shape = builder.tensor("shape", (3,), "INT32", None, np.array([1, ANCHORS, 3], np.int32))
    scores = builder.tensor("scores", (1, ANCHORS, 3), "FLOAT32")
    builder.op("RESHAPE", [pixels, shape], [scores], options={"newShape": [1, ANCHORS, 3]})
    x1, y1, x2, y2 = (corners() / (WIDTH, HEIGHT, WIDTH, HEIGHT)).T
    places = np.stack([(y1 + y2) / 2, (x1 + x2) / 2, y2 - y1, x2 - x1], axis=1).astype(np.float32)
    anchors = builder.tensor("anchors", (ANCHORS, 4), "FLOAT32", None, places)
    nothing = np.zeros((1, ANCHORS, 4), np.float32)
    offsets = builder.tensor("offsets", nothing.shape, "FLOAT32", None, nothing)
    if ending:
        found = _end(builder, [offsets, scores, anchors], 3 - background, most)
        if after is not None:
            changed = builder.tensor("after", (1, most, 4), "FLOAT32")
            builder.op(after, [found[0]], [changed])
            found[0] = changed
        by_name = dict(zip(RESULTS, [_stored(builder, part, stored, most) for part in found], strict=True))
        outputs = [by_name[name] for name in order]
    else:
        outputs = [offsets, scores]
    files = label_files or {}
    if mean_std is not None:
        builder.metadata("TFLITE_METADATA", metadata(mean_std, {name: where for name, (where, _) in files.items()}))
    packed = {name: "".join(f"{line}\n" for line in lines) for name, (_, lines) in files.items()}
    path.write_bytes(builder.finish(given, outputs, packed))
    return path


def _end(builder: Any, inputs: list[int], classes: int, most: int) -> list[int]:
    shapes = [(1, most, 4), (1, most), (1, most), (1,)]
    found = [builder.tensor(f"StatefulPartitionedCall:{k}", shape, "FLOAT32") for k, shape in enumerate(shapes)]
    options = {
        "max_detections": most,
        "max_classes_per_detection": 1,
        "nms_score_threshold": 1e-8,
        "nms_iou_threshold": 0.5,
        "num_classes": classes,
        **{"y_scale": 10.0, "x_scale": 10.0, "h_scale": 5.0, "w_scale": 5.0},
    }
    builder.op("TFLite_Detection_PostProcess", inputs, found, custom_options=options)
    return found


def _stored(builder: Any, part: int, dtype: str, most: int) -> int:
    from mobiledet.exporters.tflite_file import Quantization

    if dtype == "FLOAT32":
        return part
    tensor = builder._graph.tensors[part]
    # Shares and scores up to 1, classes and their number up to 10.
    ends = 1 if tensor.name[-1] in "02r" else 10
    out = builder.tensor(
        f"{tensor.name}_q", tensor.shape, dtype, Quantization.of(ends / 255, 0 if dtype == "UINT8" else -128)
    )
    builder.op("QUANTIZE", [part], [out])
    return out


def metadata(mean_std: tuple[float, float], label_files: Mapping[str, str]) -> bytes:
    """TensorFlow Lite metadata: how the image is normalised, and a file of class names for each language."""
    b = flatbuffers.Builder(256)

    def table(fields: Mapping[int, int], bytes_: Mapping[int, int] = {}) -> int:
        b.StartObject(9)
        for slot, offset in fields.items():
            b.PrependUOffsetTRelativeSlot(slot, offset, 0)
        for slot, value in bytes_.items():
            b.PrependUint8Slot(slot, value, 0)
        return int(b.EndObject())

    def tables(offsets: Sequence[int]) -> int:
        b.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            b.PrependUOffsetTRelative(offset)
        return int(b.EndVector())

    mean, std = (b.CreateNumpyVector(np.array([value], np.float32)) for value in mean_std)
    unit = table({1: table({0: mean, 1: std})}, {0: 1})
    image = table({4: tables([unit])})
    files = []
    for name, language in label_files.items():
        fields = {0: b.CreateString(name)} | ({3: b.CreateString(language)} if language else {})
        files.append(table(fields, {2: 3}))
    outputs = [table({}), table({6: tables(files)})]
    graph = table({2: tables([image]), 3: tables(outputs)})
    b.Finish(table({3: tables([graph])}), b"M001")
    return bytes(b.Output())


def with_packed(model: bytes, files: Mapping[str, str]) -> bytes:
    """A file with more texts packed behind it."""
    stream = io.BytesIO(model)
    with zipfile.ZipFile(stream, "a") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return stream.getvalue()

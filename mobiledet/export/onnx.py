"""Tracing a detector to an ONNX graph, and writing the graph as one file that describes itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxscript import opset18

from mobiledet.errors import ModelFileError
from mobiledet.export.graph import DetectionGraph, example
from mobiledet.export.quiet import quiet
from mobiledet.models.detection_model import DetectionModel
from mobiledet.runtime.card import KEY, ModelCard
from mobiledet.runtime.checksum import BLANK, MARK, seal
from mobiledet.structures import Size

OPSET = 18
op: Any = opset18  # its annotations know no constants
INPUTS = ("images", "score_threshold", "iou_threshold")
OUTPUTS = ("boxes", "scores", "labels")


def trace_onnx(model: DetectionModel, *, size: Size, batch: int = 1) -> onnx.ModelProto:
    """A detector as an ONNX graph of fixed shape.

    Args:
        model: Trained.
        size: ``(height, width)`` of the network's input.
        batch: Pictures at once.

    Returns:
        Inputs ``images`` ``(B, H, W, 3)`` uint8 RGB, ``score_threshold`` and ``iou_threshold``, scalars; outputs
        ``boxes`` ``(B, N, 4)`` float32 xyxy in network pixels, ``scores`` ``(B, N)`` and ``labels`` ``(B, N)`` int64.
    """
    graph = DetectionGraph(model).eval()
    with quiet("torch.onnx", "onnxscript", "onnx_ir"), torch.no_grad():
        program = torch.onnx.export(
            graph,
            example(size, batch),
            dynamo=True,
            input_names=INPUTS,
            output_names=OUTPUTS,
            opset_version=OPSET,
            custom_translation_table={torch.ops.mobiledet.suppress.default: _suppress},
            external_data=False,
            verbose=False,
        )
    if program is None:  # only ever for a call with a file name
        raise ModelFileError("PyTorch's exporter returned nothing")
    traced: onnx.ModelProto = program.model_proto
    return traced


def write_onnx(graph: onnx.ModelProto, card: ModelCard, path: Path) -> None:
    """Write a graph with its card, default thresholds and checksum, all of it or nothing.

    Raises:
        ModelFileError: it can't be written.
    """
    graph = _without_traces(graph)
    for name, value in (("score_threshold", card.score_threshold), ("iou_threshold", card.iou_threshold)):
        # An input that also has a value may be left out when running.
        graph.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    helper.set_model_props(graph, {KEY: card.to_json(), "checksum": (MARK + BLANK).decode()})
    graph.producer_name, graph.producer_version = "mobiledet", card.versions.get("mobiledet", "")
    write_whole(path, seal(graph.SerializeToString()))


def write_whole(path: Path, content: bytes) -> None:
    """Write a file, all of it or nothing.

    Raises:
        ModelFileError: it can't be written.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise ModelFileError(f"{path}: can't be written: {error.strerror}") from None


def _suppress(boxes: Any, scores: Any, iou_threshold: Any, limit: int) -> Any:
    """ONNX's own suppression in the place of :func:`mobiledet.ops.nms.suppress`."""
    one = op.Constant(value_ints=[1])
    selected = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, one),
        op.Constant(value_ints=[limit]),
        op.Reshape(iou_threshold, one),
        op.Constant(value_floats=[0.0]),
    )
    # Rows of (picture, class, box); everything is of class 0 here.
    places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    nothing = op.ConstantOfShape(op.Shape(scores), value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
    found = op.Expand(op.Constant(value_float=1.0), op.Shape(selected, start=0, end=1))
    return op.Greater(op.ScatterND(nothing, places, found), op.Constant(value_float=0.5))


def _without_traces(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the exporter's notes on where each node came from: paths of this machine, half of the nodes."""
    clean = onnx.ModelProto()
    clean.CopyFrom(graph)
    for node in clean.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*clean.graph.value_info, *clean.graph.input, *clean.graph.output]:
        del value.metadata_props[:]
    for tensor in clean.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    return clean


def constants(graph: onnx.ModelProto) -> dict[str, Any]:
    """Name to array of every stored tensor."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}

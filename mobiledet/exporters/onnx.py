"""Writing a detector as one ONNX file that describes itself."""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledet.errors import ModelFileError
from mobiledet.exporters.base import Exporter, ExportOptions, quiet
from mobiledet.runtime.card import KEY, ModelCard
from mobiledet.runtime.onnx import BLANK, MARK, ONNX, OnnxBackend, seal
from mobiledet.structures import FloatArray, ImageArray, Size

if TYPE_CHECKING:
    import onnx

    from mobiledet.models.detection_model import DetectionModel

logger = logging.getLogger(__name__)

OPSET = 18


def trace_onnx(model: DetectionModel, *, size: Size, batch: int = 1) -> onnx.ModelProto:
    """A detector as an ONNX graph of fixed shape.

    Returns:
        Inputs ``images`` ``(B, H, W, 3)`` uint8 RGB, ``score_threshold`` and ``iou_threshold``, scalars; outputs
        ``boxes`` ``(B, N, 4)`` float32 xyxy in network pixels, ``scores`` ``(B, N)`` and ``labels`` ``(B, N)`` int64.
    """
    import torch

    from mobiledet.exporters.graph import DetectionGraph

    graph = DetectionGraph(model).eval()
    example = (torch.zeros(batch, *size, 3, dtype=torch.uint8), torch.tensor(0.01), torch.tensor(0.6))
    logger.info("tracing ...")
    with quiet("torch.onnx", "onnxscript", "onnx_ir"), torch.no_grad():
        program = torch.onnx.export(
            graph,
            example,
            dynamo=True,
            input_names=("images", "score_threshold", "iou_threshold"),
            output_names=("boxes", "scores", "labels"),
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
    """Write a graph with its card, default thresholds and checksum.

    Raises:
        OSError: It can't be written.
    """
    from onnx import TensorProto, helper

    graph = _without_traces(graph)
    for name, value in (("score_threshold", card.score_threshold), ("iou_threshold", card.iou_threshold)):
        # An input that also has a value may be left out when running.
        graph.graph.initializer.append(helper.make_tensor(name, TensorProto.FLOAT, [], [value]))
    helper.set_model_props(graph, {KEY: card.to_json(), "checksum": (MARK + BLANK).decode()})
    graph.producer_name, graph.producer_version = "mobiledet", card.versions.get("mobiledet", "")
    path.write_bytes(seal(graph.SerializeToString()))


def _write(
    model: DetectionModel, card: ModelCard, path: Path, options: ExportOptions, calibration: Sequence[ImageArray]
) -> None:
    graph = trace_onnx(model, size=card.resize.size, batch=card.batch)
    if options.int8:
        from mobiledet.exporters.int8 import quantise
        from mobiledet.models.quantization import trained_ranges

        ranges = trained_ranges(model)
        if ranges is None:
            logger.info("measuring ranges on %d images ...", len(calibration) * card.batch)
        graph = quantise(graph, calibration, ranges=ranges, method=options.method, keep_float=options.keep_float)
    write_onnx(graph, card, path)


def _layer_errors(model: DetectionModel, card: ModelCard, images: Sequence[ImageArray]) -> list[dict[str, Any]]:
    """How far scores move when only one layer is quantised: the mean difference as a fraction of the mean score."""
    from mobiledet.exporters.int8 import layer_names, quantise

    def scores(graph: onnx.ModelProto) -> FloatArray:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "layer.onnx"
            write_onnx(graph, card, path)
            backend = OnnxBackend(path)
        return np.stack([backend.run(batch, 0.0, card.iou_threshold).scores for batch in images])

    graph = trace_onnx(model, size=card.resize.size, batch=card.batch)
    layers, exact = layer_names(graph), scores(graph)
    errors = []
    for layer in layers:
        one = quantise(graph, images, keep_float=[name for name in layers if name != layer])
        error = float(np.abs(scores(one) - exact).mean() / max(1e-9, float(exact.mean())))
        errors.append({"name": layer, "error": round(error, 6)})
    return sorted(errors, key=lambda entry: -float(str(entry["error"])))


def _suppress(boxes: Any, scores: Any, iou_threshold: Any, limit: int) -> Any:
    """ONNX's own suppression in the place of :func:`mobiledet.ops.nms.suppress`."""
    from onnx import TensorProto, helper
    from onnxscript import opset18

    op: Any = opset18  # its annotations know no constants
    one = op.Constant(value_ints=[1])
    selected = op.NonMaxSuppression(
        boxes,
        op.Unsqueeze(scores, one),
        op.Constant(value_ints=[limit]),
        op.Reshape(iou_threshold, one),
        op.Constant(value_floats=[0.0]),
    )
    # Rows of (image, class, box); everything is of class 0 here.
    places = op.Gather(selected, op.Constant(value_ints=[0, 2]), axis=1)
    nothing = op.ConstantOfShape(op.Shape(scores), value=helper.make_tensor("zero", TensorProto.FLOAT, [1], [0.0]))
    found = op.Expand(op.Constant(value_float=1.0), op.Shape(selected, start=0, end=1))
    return op.Greater(op.ScatterND(nothing, places, found), op.Constant(value_float=0.5))


def _without_traces(graph: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the exporter's notes on where each node came from: paths of this machine, half of the nodes."""
    clean = copy.deepcopy(graph)
    for node in clean.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    for value in [*clean.graph.value_info, *clean.graph.input, *clean.graph.output]:
        del value.metadata_props[:]
    for tensor in clean.graph.initializer:
        tensor.doc_string = ""
        del tensor.metadata_props[:]
    return clean


ONNX_EXPORTER = Exporter(
    runtime=ONNX,
    write=_write,
    packages=("onnx", "onnxscript", "onnxruntime"),
    int8_packages=(),
    extra="export",
    trained_ranges=True,
    layer_errors=_layer_errors,
)

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
from mobiledet.runtime.base import OUTPUTS, THRESHOLDS
from mobiledet.runtime.card import BLANK, KEY, MARK, ModelCard, seal
from mobiledet.runtime.onnx import ONNX, OnnxBackend
from mobiledet.structures import FloatArray, ImageArray, Size

if TYPE_CHECKING:
    import onnx

    from mobiledet.models.detection_model import DetectionModel

logger = logging.getLogger(__name__)

OPSET = 18
"""What graphs are traced in."""

OPSETS = range(12, 22)
"""What they can be written in: below lacks operators, above ONNX Runtime 1.32 has no RoiAlign."""

AXES_INPUT_SINCE = {"Squeeze": 13, "Unsqueeze": 13, "ReduceMax": 18, "ReduceMean": 18, "ReduceMin": 18}
"""Operators whose axes were an attribute before that opset."""

NEEDLESS_ATTRIBUTES = {"allowzero": 14, "noop_with_empty_axes": 18}
"""What came with that opset and changes nothing here: no shape holds a 0, and axes are given."""

DOCUMENTATION = {
    "images": "uint8 RGB pixels, batch x height x width x 3",
    "boxes": "float32 x1, y1, x2, y2 in pixels of the input",
    "scores": "float32 in 0..1; of detections the best come first, and 0 means that there is none",
    "labels": "int64; 1 is the first of the names, 0 would be background",
}
"""What inputs and outputs hold; programs that show graphs show it."""


def trace_onnx(model: DetectionModel, *, size: Size, batch: int | None = 1, suppressed: bool = True) -> onnx.ModelProto:
    """A detector as an ONNX graph.

    Args:
        model: The detector.
        size: ``(height, width)`` of its images.
        batch: How many of them it takes at once; None for any number.
        suppressed: Whether it ends in detections, or before suppression.

    Returns:
        Inputs ``images`` ``(B, H, W, 3)`` uint8 RGB, ``score_threshold`` and ``iou_threshold``, scalars; outputs
        ``boxes`` ``(B, N, 4)`` float32 xyxy in network pixels, ``scores`` ``(B, N)`` and ``labels`` ``(B, N)`` int64.
        Where it isn't suppressed the input ``images`` alone; outputs ``boxes`` ``(B, A, 4)`` and ``scores``
        ``(B, A, K)``.

    Raises:
        ModelFileError: The head can't be written like that.
    """
    import torch

    from mobiledet.exporters.graph import DetectionGraph, ImageCandidateGraph

    kind = type(model.head).__name__
    if model.head.needs_inner_nms and not suppressed:
        raise ModelFileError(
            f"{kind} can't be exported without suppression: its two stages have one between them; leave --no-nms out"
        )
    if model.head.needs_inner_nms and batch is None:
        raise ModelFileError(
            f"{kind} can't be exported for any number of images: its second stage takes them one by one; use --batch N"
        )
    graph = (DetectionGraph if suppressed else ImageCandidateGraph)(model).eval()
    # From a single image a trace would conclude that there is always one.
    images = torch.zeros(2 if batch is None else batch, *size, 3, dtype=torch.uint8)
    thresholds = (torch.tensor(0.01), torch.tensor(0.6)) if suppressed else ()
    free = {0: torch.export.Dim("batch")} if batch is None else None
    logger.info("tracing ...")
    with quiet("torch.onnx", "onnxscript", "onnx_ir"), torch.no_grad():
        program = torch.onnx.export(
            graph,
            (images, *thresholds),
            dynamo=True,
            input_names=("images", *THRESHOLDS[: len(thresholds)]),
            output_names=OUTPUTS if suppressed else OUTPUTS[:2],
            dynamic_shapes=(free, *(None for _ in thresholds)),
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    if program is None:  # only ever for a call with a file name
        raise ModelFileError("PyTorch's exporter returned nothing")
    traced: onnx.ModelProto = program.model_proto
    return traced


def write_onnx(graph: onnx.ModelProto, card: ModelCard, path: Path, *, opset: int = OPSET) -> None:
    """Write a graph with its card, thresholds, class names and checksum.

    Raises:
        ModelFileError: The graph can't be written in that opset.
        OSError: It can't be written.
    """
    from onnx import helper, numpy_helper

    graph = _without_traces(graph)
    for value in [value for value in graph.graph.input if value.name in THRESHOLDS]:
        # Constants in the file, so that other programs need not know them; OnnxBackend makes inputs of them again.
        graph.graph.initializer.append(
            numpy_helper.from_array(np.array(getattr(card, value.name), np.float32), value.name)
        )
        graph.graph.input.remove(value)
    graph = _in_opset(graph, opset)
    for value in [*graph.graph.input, *graph.graph.output]:
        value.doc_string = DOCUMENTATION[value.name]
    # Beside the card what others' programs look for: names counted from 0, and height and width.
    plain = {"names": str(dict(enumerate(card.names))), "imgsz": str(list(card.resize.size))}
    helper.set_model_props(graph, {**plain, KEY: card.to_json(), "checksum": (MARK + BLANK).decode()})
    graph.producer_name, graph.producer_version = "mobiledet", card.versions.get("mobiledet", "")
    path.write_bytes(seal(graph.SerializeToString()))


def _in_opset(graph: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """A graph of :data:`OPSET` written in another one. What is newer changes none of the operators used.

    Raises:
        ModelFileError: An operator isn't in it, or not with these settings.
    """
    from onnx import checker, helper

    from mobiledet.exporters.int8 import constants, with_nodes

    values = constants(graph)
    for node in graph.graph.node:
        if opset < AXES_INPUT_SINCE.get(node.op_type, 0) and len(node.input) == 2:
            node.attribute.append(helper.make_attribute("axes", values[node.input.pop()].tolist()))
        for attribute in [entry for entry in node.attribute if opset < NEEDLESS_ATTRIBUTES.get(entry.name, 0)]:
            node.attribute.remove(attribute)
    graph = with_nodes(graph, graph.graph.node)
    next(entry for entry in graph.opset_import if not entry.domain).version = opset
    graph.ir_version = helper.find_min_ir_version_for(graph.opset_import)
    try:
        checker.check_model(graph)
    except checker.ValidationError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelFileError(
            f"opset {opset} can't hold this model ({reason}); leave --opset out, or raise it"
        ) from None
    return graph


def _write(
    model: DetectionModel, card: ModelCard, path: Path, options: ExportOptions, calibration: Sequence[ImageArray]
) -> None:
    opset = OPSET if options.opset is None else options.opset
    if opset not in OPSETS:
        raise ModelFileError(f"--opset {opset}: choose one from {OPSETS[0]} to {OPSETS[-1]}")
    graph = trace_onnx(model, size=card.resize.size, batch=card.batch, suppressed=options.suppressed)
    if options.int8:
        from mobiledet.exporters.int8 import quantise
        from mobiledet.models.quantization import trained_ranges

        ranges = trained_ranges(model)
        if ranges is None:
            logger.info("measuring ranges on %d images ...", sum(map(len, calibration)))
        graph = quantise(graph, calibration, ranges=ranges, method=options.method, keep_float=options.keep_float)
    write_onnx(graph, card, path, opset=opset)


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
    choices=frozenset({"--no-nms", "--opset", "--batch dynamic"}),
    layer_errors=_layer_errors,
)

"""TensorFlow's SSD MobileNetV1 detectors, from their .tflite file to a config and weights of ours.

Width, input size, pixel scale, extra layers, classes and anchors are read from the file. Whatever our network needs to
compute the same is checked, and the file refused where it differs.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobiledet.config import ModelConfig, SSDConfig
from mobiledet.errors import CheckpointError
from mobiledet.models.mobilenet_v1 import layer_of_stride, scale_channels
from mobiledet.models.ssd import MIN_EXTRA_CHANNELS
from mobiledet.ops.anchors import AnchorSetting
from mobiledet.weights.class_lists import ClassList, output_categories
from mobiledet.weights.tflite.contents import BOX_SCALES, POSTPROCESS
from mobiledet.weights.tflite.graph import Reals, TFLiteGraph, TFLiteOp
from mobiledet.weights.tflite.mobilenet import FoldedConv, find_backbone, folded_conv, folded_state

_DIGITS = (*sorted(itertools.product((1, 2, 3), repeat=2), key=sum), (4, 4), (6, 6))
"""To how many digits the smallest and the largest scale are rounded, roundest first."""


def is_ssd(graph: TFLiteGraph) -> bool:
    """Whether the graph ends as TensorFlow's detectors do."""
    return any(op.kind == POSTPROCESS for op in graph.ops)


def import_ssd(
    graph: TFLiteGraph, labels: ClassList | None = None
) -> tuple[ModelConfig, dict[str, Tensor], list[dict[str, Any]]]:
    """Config, weights and categories of a detector.

    Args:
        graph: Of the file.
        labels: Class names in the order of the outputs, with or without a first line for background; None takes
            those packed into the file, or COCO's for a detector with COCO's 90 outputs.

    Raises:
        CheckpointError: It isn't an SSD on MobileNetV1, or one that our network can't reproduce.
    """
    end = next(op for op in graph.ops if op.kind == POSTPROCESS)
    _check_box_coder(end)
    backbone = find_backbone(graph)
    boxes = _predictors(graph, end.inputs[0], "boxes")
    logits = _producer(graph, end.inputs[1], "scores")
    if logits.kind != "LOGISTIC":
        raise CheckpointError(f"its scores come from {logits.kind}; only sigmoid scores (LOGISTIC) can be imported")
    scores = _predictors(graph, logits.inputs[0], "scores")
    maps = [op.inputs[0] for op in boxes]
    backbone_maps = [backbone.output(layer_of_stride(stride)) for stride in SSDConfig().strides]
    if maps != [op.inputs[0] for op in scores] or maps[:2] != backbone_maps:
        raise CheckpointError("its predictors don't use Conv11, Conv13 and the maps after it, as SSD's do")
    outputs = graph.tensors[logits.inputs[0]].shape[-1]
    background = _background_columns(end, outputs)
    _check_predictors(graph, boxes, scores, outputs)
    anchors = _anchor_settings(graph, end, boxes, backbone.input_size)
    extra = _extra_layers(graph, maps[1:])
    categories = output_categories(outputs - background, labels or graph.about.labels)
    config = ModelConfig(
        backbone=backbone.config,
        head=SSDConfig(extra_channels=_extra_channels(extra, backbone.config.alpha), **anchors),
        input_size=backbone.input_size,
        mean=backbone.normalisation.mean,
        std=backbone.normalisation.std,
        num_classes=len(categories),
    )
    epsilon = backbone.config.norm_epsilon
    state: dict[str, Tensor] = {}
    for name, layer in backbone.layers.items():
        state |= folded_state(f"backbone.{name}", layer, epsilon)
    for index, pair in enumerate(extra):
        for part, layer in enumerate(pair):
            state |= folded_state(f"head.extra_layers.pairs.{index}.{part}", layer, epsilon)
    columns = [category["id"] - 1 + background for category in categories]
    for index, (box_op, class_op) in enumerate(zip(boxes, scores, strict=True)):
        box, score = (folded_conv(graph, op, f"predictor {index}", relu6=False) for op in (box_op, class_op))
        # TensorFlow predicts (dy, dx, dh, dw), we (dx, dy, dw, dh).
        state |= _pick_rows(f"head.bbox_predictors.{index}", box, 4, [1, 0, 3, 2])
        state |= _pick_rows(f"head.cls_predictors.{index}", score, outputs, columns)
    return config, state, categories


def stored_anchors(graph: TFLiteGraph) -> Reals:
    """The file's own anchors ``(A, 4)`` as fractions of the image: centre y, centre x, height, width."""
    end = next(op for op in graph.ops if op.kind == POSTPROCESS)
    values = graph.tensors[end.inputs[2]].values if len(end.inputs) > 2 else None
    if values is None or values.ndim != 2 or values.shape[1] != 4:
        raise CheckpointError("its anchors aren't stored as (number, 4); convert it with export_tflite_ssd_graph")
    if not (len(values) and np.isfinite(values).all() and values[:, 2:].min() > 0):
        raise CheckpointError("its anchors aren't all above 0 high and wide; convert it with export_tflite_ssd_graph")
    return values


def _check_box_coder(end: TFLiteOp) -> None:
    if len(end.inputs) != 3:
        raise CheckpointError(f"{POSTPROCESS} has {len(end.inputs)} inputs instead of boxes, scores and anchors")
    found = {key: float(end.options.get(key, math.nan)) for key in BOX_SCALES}
    if any(not math.isclose(found[key], BOX_SCALES[key], rel_tol=1e-3) for key in BOX_SCALES):
        raise CheckpointError(f"its box coder has scales {found}; only 10, 10, 5, 5 can be imported")


def _producer(graph: TFLiteGraph, tensor: int, what: str) -> TFLiteOp:
    """What computes a tensor, whatever shape it is given afterwards."""
    op = graph.producer(tensor)
    while op is not None and op.kind in ("RESHAPE", "SQUEEZE"):
        op = graph.producer(op.inputs[0])
    if op is None:
        raise CheckpointError(f"its {what} are not computed by the file")
    return op


def _predictors(graph: TFLiteGraph, tensor: int, what: str) -> list[TFLiteOp]:
    """The 1x1 convolutions whose reshaped outputs are concatenated to a tensor, in that order."""
    op = _producer(graph, tensor, what)
    if op.kind != "CONCATENATION":
        raise CheckpointError(f"its {what} come from {op.kind}, not from several concatenated maps as SSD's")
    found = []
    for part in op.inputs:
        conv = _producer(graph, part, what)
        kernel = graph.weight_shape(conv)[1:3]
        if conv.kind != "CONV_2D" or kernel != (1, 1) or conv.stride != (1, 1):
            raise CheckpointError(f"its {what} are predicted by {conv.kind} {kernel}, not by a 1x1 CONV_2D")
        found.append(conv)
    return found


def _background_columns(end: TFLiteOp, outputs: int) -> int:
    """How many of a box's scores come before those of the classes: one for background, or none."""
    classes = end.options.get("num_classes", outputs - 1)
    if classes < 1 or outputs - classes not in (0, 1):
        raise CheckpointError(
            f"it has {outputs} scores a box for {classes} classes; only one for each and one for background can be read"
        )
    return int(outputs - classes)


def _check_predictors(graph: TFLiteGraph, boxes: list[TFLiteOp], scores: list[TFLiteOp], outputs: int) -> None:
    """Four values and all scores for each box."""
    for index, (box, score) in enumerate(zip(boxes, scores, strict=True)):
        values, columns = (graph.tensors[op.outputs[0]].shape[-1] for op in (box, score))
        if values % 4 or values // 4 * outputs != columns:
            raise CheckpointError(f"predictor {index}: {values} box values don't fit {columns} scores")


def _extra_layers(graph: TFLiteGraph, maps: list[int]) -> list[tuple[FoldedConv, FoldedConv]]:
    """The pair of convolutions between each map and the next."""
    pairs = []
    for index, (source, target) in enumerate(itertools.pairwise(maps)):
        halve = graph.producer(target)
        reduce = graph.producer(halve.inputs[0]) if halve is not None else None
        ops = [op for op in (reduce, halve) if op is not None]
        found = [(op.kind, graph.weight_shape(op)[1:3], op.stride) for op in ops]
        if found != [("CONV_2D", (1, 1), (1, 1)), ("CONV_2D", (3, 3), (2, 2))] or ops[0].inputs[0] != source:
            raise CheckpointError(f"extra map {index + 1} isn't made by a 1x1 and a 3x3 stride 2 convolution, as SSD's")
        pair = [
            folded_conv(graph, op, f"extra {index} {kernel}") for op, kernel in zip(ops, ("1x1", "3x3"), strict=True)
        ]
        pairs.append((pair[0], pair[1]))
    return pairs


def _extra_channels(pairs: list[tuple[FoldedConv, FoldedConv]], alpha: float) -> tuple[tuple[int, int], ...]:
    """Channels before scaling by alpha: SSD's own where they fit, else any that give what is there."""
    found = [(len(reduce.bias), len(halve.bias)) for reduce, halve in pairs]

    unscaled = tuple((math.ceil(a / alpha), math.ceil(b / alpha)) for a, b in found)
    for channels in (SSDConfig().extra_channels, unscaled):
        if [tuple(scale_channels(n, alpha, MIN_EXTRA_CHANNELS) for n in pair) for pair in channels] == found:
            return channels
    raise CheckpointError(f"its extra layers have channels {found}, fewer than {MIN_EXTRA_CHANNELS}")


def _anchor_settings(
    graph: TFLiteGraph, end: TFLiteOp, boxes: list[TFLiteOp], input_size: tuple[int, int]
) -> dict[str, Any]:
    """Settings of :class:`SSDConfig` whose anchors are the stored ones, to within what they are stored to."""
    stored, tensor = stored_anchors(graph), graph.tensors[end.inputs[2]]
    step = float(tensor.scale[0]) if len(tensor.scale) else 1e-5
    if tensor.dtype == "FLOAT16":
        step = 2.0**-10 * float(np.abs(stored).max())
    maps = [graph.tensors[op.inputs[0]].shape[1:3] for op in boxes]
    # The predictor tells how many there are at a location; their total alone may divide in several ways.
    counts = [graph.tensors[op.outputs[0]].shape[3] // 4 for op in boxes]
    if len(stored) != sum(rows * columns * count for (rows, columns), count in zip(maps, counts, strict=True)):
        raise CheckpointError(f"its {len(stored)} anchors aren't {counts} for each location of maps {maps}")
    shorter = np.array([min(input_size) / side for side in input_size])
    sides: list[Reals] = []
    start = 0
    for (rows, columns), count in zip(maps, counts, strict=True):
        block = stored[start : start + rows * columns * count].reshape(rows * columns, count, 4)
        start += rows * columns * count
        _check_centres(block, (rows, columns), step)
        # All locations of a map have the same shapes; what differs is rounding.
        sides.append(np.median(block[..., 2:], axis=0))
        if np.abs(block[..., 2:] - sides[-1]).max() > step:
            raise CheckpointError(f"the anchors of its {rows}x{columns} map aren't the same at each location")
    return _formula(sides, shorter, step, float(stored.max()) if len(tensor.scale) else math.inf)


def _check_centres(block: Reals, map_size: tuple[int, int], step: float) -> None:
    rows, columns = map_size
    y, x = np.meshgrid((np.arange(rows) + 0.5) / rows, (np.arange(columns) + 0.5) / columns, indexing="ij")
    wanted = np.stack([y.ravel(), x.ravel()], axis=-1)[:, None]
    if np.abs(block[..., :2] - wanted).max() > step:
        raise CheckpointError(
            f"the anchors of its {rows}x{columns} map aren't centred on the map's cells, as SSD's are"
        )


def _formula(sides: list[Reals], shorter: Reals, step: float, largest: float) -> dict[str, Any]:
    """``scale_min``, ``scale_max``, aspect ratios and whether the first map has fewer anchors: the simplest that fit.

    ``sides`` are the ``(n, 2)`` heights and widths of each map's anchors as fractions of the image, stored to ``step``
    and cut off at ``largest``; ``shorter`` is the image's shorter side as a fraction of its height and of its width.
    """
    if (
        len({len(map_sides) for map_sides in sides[1:]}) != 1
        or len(sides[0]) not in (3, len(sides[1]))
        or min(map(len, sides)) < 2
    ):
        raise CheckpointError(f"its anchors don't follow SSD's formula ({[len(s) for s in sides]} at a location)")
    shaped = np.stack(sides[1:])[:, :-1] / shorter
    ratios = [float(ratio) for ratio in np.median(shaped[..., 1] / shaped[..., 0], axis=0)]
    reduced = len(sides[0]) == 3 and len(sides[1]) != 3
    scales = [float(np.median(np.sqrt((map_sides / shorter).prod(axis=1)[:-1]))) for map_sides in sides]
    if reduced:
        scales[0] = float(np.sqrt((sides[0] / shorter).prod(axis=1)[1:]).mean())
    smallest = float(np.sqrt((sides[0][0] / shorter).prod()))
    slope, lowest = np.polyfit(np.arange(len(scales)), scales, 1)
    highest = lowest + slope * (len(scales) - 1)
    best, nearest = math.inf, {"scale_min": float(lowest), "scale_max": float(highest)}
    for simple, digits in itertools.product((True, False), _DIGITS):
        settings: dict[str, Any] = {
            "scale_min": round(float(lowest), digits[0]),
            "scale_max": round(float(highest), digits[1]),
            "aspect_ratios": tuple(_simple_ratio(ratio) if simple else ratio for ratio in ratios),
            "reduce_lowest": reduced,
        }
        if reduced and abs(smallest - settings["scale_min"] / 2) > step + 1e-4:
            settings["lowest_scale"] = round(smallest, 2)
        if not 0 < settings["scale_min"] < settings["scale_max"] <= 1:
            continue
        far = 0.0
        for shapes, theirs in zip(AnchorSetting(num_maps=len(sides), **settings).shapes(), sides, strict=True):
            ours = np.array([(s / math.sqrt(r), s * math.sqrt(r)) for s, r in shapes]) * shorter
            far = max(far, float(np.abs(np.minimum(ours, largest) - theirs).max()))
        if far <= 0.5 * step + 1e-4:
            return settings
        if far < best:
            best, nearest = far, settings
    if best <= step:
        return nearest
    raise CheckpointError(f"its anchors don't follow SSD's formula (off by {best:.3f} of the image at {nearest})")


def _simple_ratio(ratio: float) -> float:
    """The simple fraction that a measured ratio is nearest to."""
    candidates = [a / b for a in range(1, 7) for b in range(1, 7)]
    return min(candidates, key=lambda candidate: abs(math.log(candidate / ratio)))


def _pick_rows(prefix: str, layer: FoldedConv, values: int, rows: list[int]) -> dict[str, Tensor]:
    """A predictor's weights with some of the ``values`` rows of each anchor, in a new order."""
    anchors = len(layer.bias) // values
    index = torch.tensor([anchor * values + row for anchor in range(anchors) for row in rows])
    return {f"{prefix}.weight": layer.weight[index].clone(), f"{prefix}.bias": layer.bias[index].clone()}

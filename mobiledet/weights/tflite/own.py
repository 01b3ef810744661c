"""Files that mobiledet export wrote, back to the checkpoint they were made from: their card says what that was."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mobiledet.config import Config, config_from_plain
from mobiledet.errors import CheckpointError, ConfigError
from mobiledet.models.build import build_detector
from mobiledet.models.layers import ConvNormAct
from mobiledet.weights.tflite.graph import TFLiteGraph
from mobiledet.weights.tflite.mobilenet import FoldedConv, folded_state, stored_conv


def import_own(graph: TFLiteGraph) -> tuple[Config, dict[str, Tensor], list[dict[str, Any]], float | None]:
    """Config, weights, categories and display threshold of a file with our card.

    Batch-norm stays folded. Weights of a float file are the checkpoint's, those of an INT8 file as near as 8 bits come.

    Raises:
        CheckpointError: The card is damaged or of another version, or the file doesn't hold what it speaks of.
    """
    try:
        card = json.loads(graph.about.card or "")
        config = config_from_plain(card["config"])
        names, ids = card["names"], card["category_ids"] or range(1, len(card["names"]) + 1)
        categories = [{"id": int(number), "name": str(name)} for number, name in zip(ids, names, strict=True)]
        model, threshold = build_detector(config.model, weights_follow=True), card["shown_threshold"]
    except (ValueError, TypeError, LookupError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"its model card is damaged, or of another version ({error!s:.200})") from None
    state: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, ConvNormAct):
            layer = _layer(graph, f"{name}.conv", module.conv)
            if name == "backbone.layers.conv0":
                layer = _with_exact_mean(graph, layer, config)
            state |= folded_state(name, layer, module.norm.eps)
        elif isinstance(module, nn.Conv2d) and module.bias is not None:
            layer = _layer(graph, name, module)
            rows = torch.arange(len(layer.bias))
            if ".bbox_predictors." in name:  # TensorFlow predicts (dy, dx, dh, dw), we (dx, dy, dw, dh)
                rows = rows.view(-1, 4)[:, [1, 0, 3, 2]].flatten()
            state |= {f"{name}.weight": layer.weight[rows], f"{name}.bias": layer.bias[rows]}
    return config, state, categories, threshold


def _layer(graph: TFLiteGraph, name: str, conv: nn.Conv2d) -> FoldedConv:
    """The convolution that export called so."""
    op = next((op for op in graph.ops if op.outputs and graph.tensors[op.outputs[0]].name == name), None)
    if op is None:
        raise CheckpointError(f"its model card speaks of a layer {name}, which it lacks; export it again")
    layer = stored_conv(graph, op, name)
    if layer.weight.shape != conv.weight.shape:
        raise CheckpointError(f"its model card speaks of another layer {name} than it has; export it again")
    return layer


def _with_exact_mean(graph: TFLiteGraph, layer: FoldedConv, config: Config) -> FoldedConv:
    """The first layer for the config's own mean: in INT8 files it is for the nearest whole number."""
    given = graph.tensors[graph.inputs[0]]
    if not len(given.zero_point):
        return layer
    mean, std = config.model.mean[0], config.model.std[0]
    shift = (float(given.zero_point[0]) - mean) / std
    return replace(layer, bias=layer.bias - shift * layer.weight.sum(dim=(1, 2, 3)))

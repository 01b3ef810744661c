"""Costs as text and CSV: by network, by layer, by stage, by kind of layer."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mobiledet.models.cost import Cost, LayerCost

_STAGES = (
    (r"backbone\.layers\.(conv\d+)\.", r"\1"),
    (r"backbone\.", "backbone"),
    (r"head\.extra_layers\.", "extra layers"),
    (r"head\.rpn\.", "proposals"),
    (r"head\.second_stage\.layers\.(conv\d+)\.", r"\1"),
    (r"head\..*predictor", "predictors"),
    (r"classifier", "classifier"),
)


@dataclass(frozen=True)
class StageCost:
    """Layers that belong together.

    Attributes:
        name: Such as ``"conv7"`` or ``"predictors"``.
        mult_adds: Multiply-adds of one picture, all runs together.
        params: Weights, biases and norms.
        runs: How often it runs for one picture.
    """

    name: str
    mult_adds: int
    params: int
    runs: int


def stages(cost: Cost) -> list[StageCost]:
    """The network's stages in the order they run."""
    found: dict[tuple[str, int], list[LayerCost]] = {}
    for layer in cost.layers:
        found.setdefault((_stage(layer.name), layer.runs), []).append(layer)
    return [
        StageCost(name, sum(layer.mult_adds for layer in layers), sum(layer.params for layer in layers), runs)
        for (name, runs), layers in found.items()
    ]


def cost_table(costs: Mapping[str, Cost]) -> str:
    """A line per network."""
    width = max(len(name) for name in costs)
    lines = [f"{'':{width}}  {'input':>9}  {'GMACs':>7}  {'params M':>8}"]
    for name, cost in costs.items():
        height, wide = cost.input_size
        lines.append(f"{name:{width}}  {f'{height}x{wide}':>9}  {cost.gmacs:7.3f}  {cost.params_m:8.2f}")
    return "\n".join(lines)


def stage_table(cost: Cost) -> str:
    """A line per stage: what it costs, and its share."""
    total, params = max(1, sum(s.mult_adds for s in stages(cost))), max(1, sum(s.params for s in stages(cost)))
    lines = [f"{'stage':<14}{'runs':>6}  {'M mult-adds':>11}  {'share':>6}  {'parameters':>10}  {'share':>6}"]
    lines += [
        f"{stage.name:<14}{stage.runs:6}  {stage.mult_adds / 1e6:11.2f}  {stage.mult_adds / total:6.1%}"
        f"  {stage.params:10,}  {stage.params / params:6.1%}"
        for stage in stages(cost)
    ]
    return "\n".join(lines)


def layer_table(cost: Cost) -> str:
    """A line per layer, in the order they run.

    The last column is what a depthwise-separable pair costs beside one full convolution in its place:
    ``1 / N + 1 / D_K^2`` (Howard et al. 2017, section 3.1).
    """
    ratios = separable_ratios(cost)
    width = max(len(layer.name) for layer in cost.layers)
    lines = [
        f"{'layer':{width}}  {'kind':<11}  {'output':>14}  {'runs':>4}  {'M mult-adds':>11}  {'parameters':>10}"
        "  of a full convolution"
    ]
    for layer in cost.layers:
        output = "x".join(str(side) for side in layer.output)
        ratio = f"  {ratios[layer.name]:.4f}" if layer.name in ratios else ""
        lines.append(
            f"{layer.name:{width}}  {layer.kind:<11}  {output:>14}  {layer.runs:4}  {layer.mult_adds / 1e6:11.3f}"
            f"  {layer.params:10,}{ratio}"
        )
    return "\n".join(lines)


def separable_ratios(cost: Cost) -> dict[str, float]:
    """Cost of each depthwise-separable pair as a share of a full convolution's, by the name of its pointwise layer."""
    layers = {layer.name: layer for layer in cost.layers}
    ratios = {}
    for name, depthwise in layers.items():
        pointwise = layers.get(name.replace(".depthwise.", ".pointwise."))
        if not depthwise.kind.endswith(" dw") or pointwise is None or pointwise is depthwise:
            continue
        side = int(depthwise.kind.split()[1].split("x")[0])
        places = math.prod(depthwise.output[1:])
        full = side * side * depthwise.output[0] * pointwise.output[0] * places * depthwise.runs
        ratios[pointwise.name] = (depthwise.mult_adds + pointwise.mult_adds) / full
    return ratios


def shares_by_kind(cost: Cost) -> dict[str, tuple[float, float]]:
    """Share of the mult-adds and of the parameters in each kind of layer, ``"conv 1x1"`` for instance."""
    total = max(1, sum(layer.mult_adds for layer in cost.layers))
    params = max(1, sum(layer.params for layer in cost.layers))
    kinds = dict.fromkeys(layer.kind for layer in cost.layers)
    return {
        kind: (
            sum(layer.mult_adds for layer in cost.layers if layer.kind == kind) / total,
            sum(layer.params for layer in cost.layers if layer.kind == kind) / params,
        )
        for kind in kinds
    }


def costs_csv(costs: Mapping[str, Cost]) -> str:
    """A row per layer of every network, with a header."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["network", "input", "stage", "layer", "kind", "output", "runs", "mult_adds", "params"])
    for name, cost in costs.items():
        size = "x".join(map(str, cost.input_size))
        for layer in cost.layers:
            output = "x".join(map(str, layer.output))
            row = [_stage(layer.name), layer.name, layer.kind, output, layer.runs, layer.mult_adds, layer.params]
            writer.writerow([name, size, *row])
    return text.getvalue()


def _stage(name: str) -> str:
    for pattern, stage in _STAGES:
        if match := re.match(pattern, name):
            return match.expand(stage)
    return name.split(".")[0]

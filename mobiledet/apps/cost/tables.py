"""Costs as text, CSV and chart: by network, by layer, by stage, by kind of layer."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mobiledet.draw.figures import literal, save_figure
from mobiledet.models.cost import Cost, LayerCost
from mobiledet.utils.text import table

_STAGES = (
    (r"backbone\.layers\.(conv\d+)\.", r"\1"),
    (r"backbone\.", "backbone"),
    (r"head\.extra_layers\.", "extra layers"),
    (r"head\.rpn\.", "proposals"),
    (r"head\.second_stage\.layers\.(conv\d+)\.", r"\1"),
    (r"head\..*predictor", "predictors"),
    (r"classifier", "classifier"),
    (r"head\.(\w+)", r"\1"),
)
"""Patterns of layer names and the stages they belong to; the first that fits counts."""

_ONCE, _PER_PROPOSAL, _PARAMS = "#3b76af", "#e0532f", "#7a9e5f"


@dataclass(frozen=True)
class StageCost:
    """Layers that belong together: multiply-adds of one image, all ``runs`` together; weights, biases and norms."""

    name: str
    mult_adds: int
    params: int
    runs: int


def stages(cost: Cost) -> list[StageCost]:
    """The network's stages in the order they run."""
    found: dict[tuple[str, int], list[LayerCost]] = {}
    for layer in cost.layers:
        found.setdefault((_stage(layer.name), layer.runs), []).append(layer)
    return [StageCost(name, *_totals(layers), runs) for (name, runs), layers in found.items()]


def _totals(layers: Sequence[LayerCost]) -> tuple[int, int]:
    return sum(layer.mult_adds for layer in layers), sum(layer.params for layer in layers)


def cost_table(costs: Mapping[str, Cost]) -> str:
    """A line per network."""
    rows = [("", "input", "GMACs", "params M")]
    for name, cost in costs.items():
        rows.append((name, _shape(cost.input_size), f"{cost.gmacs:.3f}", f"{cost.params_m:.2f}"))
    return "\n".join(table(rows))


def stage_table(cost: Cost) -> str:
    """A line per stage: what it costs, and its share."""
    total, params = (max(1, number) for number in _totals(cost.layers))
    rows = [("stage", "runs", "M mult-adds", "share", "parameters", "share")]
    for stage in stages(cost):
        work = f"{stage.mult_adds / 1e6:.2f}", f"{stage.mult_adds / total:.1%}"
        rows.append((stage.name, str(stage.runs), *work, f"{stage.params:,}", f"{stage.params / params:.1%}"))
    return "\n".join(table(rows))


def layer_table(cost: Cost) -> str:
    """A line per layer, in the order they run.

    The last column is what a depthwise-separable pair costs beside one full convolution in its place:
    ``1 / N + 1 / D_K^2`` (Howard et al. 2017, section 3.1).
    """
    ratios = separable_ratios(cost)
    rows = [("layer", "kind", "output", "runs", "M mult-adds", "parameters", "of a full convolution")]
    for layer in cost.layers:
        ratio = f"{ratios[layer.name]:.4f}" if layer.name in ratios else ""
        work = str(layer.runs), f"{layer.mult_adds / 1e6:.3f}", f"{layer.params:,}"
        rows.append((layer.name, layer.kind, _shape(layer.output), *work, ratio))
    return "\n".join(table(rows, left=(0, 1, 6)))


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
    shares = {}
    mult_adds, params = _totals(cost.layers)
    for kind in dict.fromkeys(layer.kind for layer in cost.layers):
        own = _totals([layer for layer in cost.layers if layer.kind == kind])
        shares[kind] = own[0] / max(1, mult_adds), own[1] / max(1, params)
    return shares


def layer_rows(costs: Mapping[str, Cost]) -> list[dict[str, str | int]]:
    """A row per layer of every network, for a CSV file."""
    return [
        {
            "network": name,
            "input": _shape(cost.input_size),
            "stage": _stage(layer.name),
            "layer": layer.name,
            "kind": layer.kind,
            "output": _shape(layer.output),
            "runs": layer.runs,
            "mult_adds": layer.mult_adds,
            "params": layer.params,
        }
        for name, cost in costs.items()
        for layer in cost.layers
    ]


def _shape(sides: Iterable[int]) -> str:
    return "x".join(map(str, sides))


def _stage(name: str) -> str:
    for pattern, stage in _STAGES:
        if match := re.match(pattern, name):
            return match.expand(stage)
    return name.split(".")[0]


def plot_costs(costs: Mapping[str, Cost], path: Path) -> None:
    """Draw multiply-adds and parameters of every stage, a row of two panels per network.

    Raises:
        ImageError: ``path`` isn't a ``.png``, ``.svg`` or ``.pdf``, or can't be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = [stages(cost) for cost in costs.values()]
    heights = [0.22 * len(row) + 1.1 for row in rows]
    figure = Figure(figsize=(11, sum(heights) + 0.3), layout="constrained")
    panels = figure.subplots(len(rows), 2, squeeze=False, height_ratios=heights)
    for (name, cost), row, (left, right) in zip(costs.items(), rows, panels, strict=True):
        names = [f"{stage.name} x{stage.runs}" if stage.runs > 1 else stage.name for stage in row]
        places = range(len(row))
        height, width = cost.input_size
        colors = [_PER_PROPOSAL if stage.runs > 1 else _ONCE for stage in row]
        left.barh(places, [stage.mult_adds / 1e9 for stage in row], color=colors)
        left.set_title(f"{literal(name)}, {height}x{width}: {cost.gmacs:.3f} GMACs", fontsize=10, loc="left")
        left.set_xlabel("multiply-adds of one image, billions", fontsize=8)
        right.barh(places, [stage.params / 1e6 for stage in row], color=_PARAMS)
        right.set_title(f"{cost.params_m:.2f} M parameters", fontsize=10, loc="left")
        right.set_xlabel("parameters, millions", fontsize=8)
        for panel in (left, right):
            panel.set_yticks(places, names, fontsize=8)
            panel.invert_yaxis()
            panel.tick_params(axis="x", labelsize=8)
            panel.grid(axis="x", alpha=0.3)
            panel.set_axisbelow(True)
        if _PER_PROPOSAL in colors:
            handles = [Patch(color=_ONCE, label="once"), Patch(color=_PER_PROPOSAL, label="once per proposal")]
            left.legend(handles=handles, fontsize=8, loc="center right")
    save_figure(figure, path)

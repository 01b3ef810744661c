"""The cost of networks as a picture: a bar per stage."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

from mobiledet.apps.cost.tables import stages
from mobiledet.draw.boxes import write_bytes
from mobiledet.errors import ImageError, MissingDependencyError, install_extra
from mobiledet.models.cost import Cost

_ONCE, _PER_PROPOSAL, _PARAMS = "#3b76af", "#e0532f", "#7a9e5f"


def plot_costs(costs: Mapping[str, Cost], path: Path) -> None:
    """Draw multiply-adds and parameters of every stage, a row of two panels per network.

    Args:
        costs: Networks by name.
        path: Where the picture goes; ``.png``, ``.svg`` or ``.pdf``.

    Raises:
        ImageError: It can't be written.
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        raise MissingDependencyError(
            f"the chart needs matplotlib, which is missing; {install_extra('train')}"
        ) from error

    rows = [stages(cost) for cost in costs.values()]
    heights = [0.22 * len(row) + 1.1 for row in rows]
    figure = Figure(figsize=(11, sum(heights) + 0.3), layout="constrained")
    panels = figure.subplots(len(rows), 2, squeeze=False, height_ratios=heights)
    for (name, cost), row, (left, right) in zip(costs.items(), rows, panels, strict=True):
        names = [f"{stage.name} x{stage.runs}" if stage.runs > 1 else stage.name for stage in row]
        places = range(len(row))
        height, width = cost.input_size
        shown = name.replace("$", r"\$")  # matplotlib reads formulas between two of them
        colors = [_PER_PROPOSAL if stage.runs > 1 else _ONCE for stage in row]
        left.barh(places, [stage.mult_adds / 1e9 for stage in row], color=colors)
        left.set_title(f"{shown}, {height}x{width}: {cost.gmacs:.3f} GMACs", fontsize=10, loc="left")
        left.set_xlabel("multiply-adds of one picture, billions", fontsize=8)
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
            left.legend(
                handles=[Patch(color=_ONCE, label="once"), Patch(color=_PER_PROPOSAL, label="once per proposal")],
                fontsize=8,
                loc="center right",
            )
    data = io.BytesIO()
    try:
        figure.savefig(data, format=path.suffix[1:].lower() or "none", dpi=110)
    except ValueError as error:
        raise ImageError(f"{path}: can't draw as '{path.suffix}'; name it .png, .svg or .pdf") from error
    write_bytes(path, data.getvalue())

"""The boxes' widths and heights in network pixels, with the anchors drawn in."""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.apps.doctor.anchors import TINY, Boxes, anchor_grids, best_overlaps
from mobiledet.config import ModelConfig
from mobiledet.draw.figures import literal, save_figure

_SHOWN = 20000  # points drawn; more only make the file large
_MATCHED, _UNMATCHED, _ANCHOR = "#3b76af", "#e0532f", "#111111"


def plot_boxes(path: Path, title: str, boxes: Boxes, model: ModelConfig) -> None:
    """Draw boxes, at least one, the anchors of a model, and how well they overlap.

    Raises:
        ImageError: ``path`` can't be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    size, match_iou = model.network_size, model.head.anchor_iou
    grids = anchor_grids(model.head, size, boxes.extent)
    overlaps, xyxy = best_overlaps(boxes.xyxy, grids), boxes.xyxy
    figure = Figure(figsize=(13, 5.8), layout="constrained")
    figure.suptitle(literal(title), fontsize=12)
    scatter, histogram = figure.subplots(1, 2, width_ratios=(1.7, 1))
    step = max(1, -(-len(xyxy) // _SHOWN))
    wide, high = np.maximum(xyxy[::step, 2:] - xyxy[::step, :2], 0.5).T
    matched = overlaps[::step] >= match_iou
    total = float((overlaps >= match_iou).mean())
    alpha = float(np.clip(60 / np.sqrt(max(1, len(wide))), 0.12, 0.7))
    for mask, color, word, share in (
        (matched, _MATCHED, "matched by an anchor", total),
        (~matched, _UNMATCHED, "unmatched", 1 - total),
    ):
        label = f"box, {word}: {100 * share:.1f} %"
        dots: dict[str, Any] = {"s": 9, "linewidths": 0, "alpha": alpha, "rasterized": True}
        scatter.scatter(wide[mask], high[mask], color=color, label=label, **dots)
    style: dict[str, Any] = {"s": 46, "facecolors": "none", "edgecolors": _ANCHOR, "linewidths": 1.3}
    for number, (grid, marker) in enumerate(zip(grids, cycle("oDs^v<>pP*"), strict=False), 1):
        label = f"anchors of map {number} ({len(grid.centre_y)} x {len(grid.centre_x)})"
        scatter.scatter(grid.widths, grid.heights, marker=marker, label=label, **style)
    every = np.concatenate([wide, high, *(grid.widths for grid in grids), *(grid.heights for grid in grids)])
    low, top = min(4.0, 0.8 * float(every.min())), 1.25 * float(every.max())
    scatter.axvspan(low, TINY, color="0.88", zorder=0, label=f"under {TINY} pixels")
    scatter.axhspan(low, TINY, color="0.88", zorder=0)
    scatter.plot([low, top], [low, top], color="0.6", linewidth=0.8, linestyle=":", zorder=1)
    ticks = [t for t in (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048) if low <= t <= top]
    scatter.set(xscale="log", yscale="log", xlim=(low, top), ylim=(low, top), aspect="equal")
    for axis in (scatter.xaxis, scatter.yaxis):
        axis.set_ticks(ticks, labels=[str(t) for t in ticks])
        axis.set_minor_formatter(NullFormatter())
    where = f"input {size[0]} x {size[1]}" if model.resize_rule.fixed else f"shorter side {min(size)}"
    scatter.set_xlabel(f"width in network pixels ({where})")
    scatter.set_ylabel("height in network pixels")
    legend = scatter.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    for handle in legend.legend_handles[:2]:
        if handle is not None:
            handle.set_alpha(1)

    bins = np.linspace(0, 1, 41)
    histogram.hist(overlaps[overlaps >= match_iou], bins=bins.tolist(), color=_MATCHED, label="matched")
    histogram.hist(overlaps[overlaps < match_iou], bins=bins.tolist(), color=_UNMATCHED, label="unmatched")
    histogram.axvline(match_iou, color=_ANCHOR, linewidth=1, linestyle="--", label=f"IoU {match_iou:g}")
    histogram.set(xlabel="best IoU of a box with any anchor", ylabel="boxes", xlim=(0, 1))
    histogram.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, frameon=False)
    save_figure(figure, path)

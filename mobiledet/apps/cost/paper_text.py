"""The paper's cost tables beside ours, as text."""

from __future__ import annotations

import math

from mobiledet.apps.cost.paper import NOT_LISTED, PAPER_SHARES, paper_costs
from mobiledet.apps.cost.tables import separable_ratios, shares_by_kind
from mobiledet.models.cost import classifier_cost


def paper_text() -> str:
    """All tables as text, cell by cell."""
    rows = paper_costs()
    width = max(len(str(row["name"])) for row in rows)
    head = f"{'':{width}}  {'M mult-adds: paper':>18}  {'ours':>8}  {'ratio':>5}    "
    head += f"{'M params: paper':>15}  {'ours':>6}  ratio"
    lines: list[str] = []
    title = None
    for row in rows:
        if row["table"] != title:
            title = row["table"]
            lines += ["", str(title), head]
        cells = "    ".join(
            f"{cell['paper']:{wide}g}  "
            + (
                f"{_digits(cell['ours']):>{ours}}  {cell['ratio']:5.3f}"
                if cell["ours"] is not None
                else " " * (ours + 7)
            )
            for cell, wide, ours in ((row["mult_adds_m"], 18, 8), (row["params_m"], 15, 6))
        )
        note = f"   {'not derived: ' if row['mult_adds_m']['ours'] is None else ''}{row['note']}" if row["note"] else ""
        lines.append(f"{row['name']:{width}}  {cells}{note}".rstrip())
    return "\n".join([*lines[1:], "", *_shares_text(), "", *_ratios_text(), "", NOT_LISTED])


def _digits(value: float) -> str:
    return f"{value:.{max(0, 3 - math.floor(math.log10(value)))}f}" if value < 1000 else f"{value:.0f}"


def _shares_text() -> list[str]:
    ours = shares_by_kind(classifier_cost(1.0, 224))
    lines = ["Table 2: share of each kind of layer, 1.0 MobileNet-224"]
    lines.append(f"{'':13}  {'mult-adds: paper':>16}  {'ours':>7}    {'parameters: paper':>17}  {'ours':>7}")
    for kind, (mult_adds, params) in PAPER_SHARES.items():
        mine = ours[kind]
        lines.append(f"{kind:13}  {mult_adds:16.2%}  {mine[0]:7.2%}    {params:17.2%}  {mine[1]:7.2%}")
    printed = sum(mult_adds for mult_adds, _ in PAPER_SHARES.values())
    lines.append(f"{'sum':13}  {printed:16.2%}           (1.19% is surely 1.91%, its digits swapped)")
    return lines


def _ratios_text() -> list[str]:
    cost = classifier_cost(1.0, 224)
    layers = {layer.name: layer for layer in cost.layers}
    lines = ["Section 3.1: a separable layer as a share of a full convolution's mult-adds, 1.0 MobileNet-224"]
    lines.append(f"{'':13}  {'N':>5}  {'1/N + 1/9':>9}  {'counted':>8}")
    for name, ratio in separable_ratios(cost).items():
        channels = layers[name].output[0]
        lines.append(f"{name.split('.')[2]:13}  {channels:5}  {1 / channels + 1 / 9:9.4f}  {ratio:8.4f}")
    return lines

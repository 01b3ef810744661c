"""Static charts as SVG elements for a page: bars, points with names, lines, matrices; drawn by matplotlib.

Colours are those of `THEME`. In the element they are CSS variables, ``var(--blue)``, which `mobiledet.draw.html` sets
for light and for dark mode.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from mobiledet.draw.figures import any_letters, literal
from mobiledet.utils.text import shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THEME = {
    "ink": ("#1c2024", "#e6e8ea"),
    "soft": ("#62696f", "#a0a7ad"),
    "line": ("#d9dde0", "#3a4047"),
    "paper": ("#ffffff", "#16191c"),
    "tint": ("#f4f6f7", "#1f2327"),
    "good": ("#2e8b57", "#63c18b"),
    "bad": ("#c23a26", "#f0806f"),
    "blue": ("#3b76af", "#6aa7e0"),
    "orange": ("#d9772b", "#ee9a52"),
    "green": ("#6a9f4f", "#86bd6f"),
    "red": ("#b8453b", "#e77c72"),
    "violet": ("#8a63b0", "#b593d8"),
    "teal": ("#2a938e", "#56bdb7"),
    "gray": ("#a8a29b", "#8d8780"),
}
"""Name of each colour to its value in light and in dark mode."""

SERIES = ("blue", "orange", "green", "red", "violet", "teal")
"""Colours of the lines of a chart; further lines have the same again, dashed."""

WIDTH = 620.0
"""Width of every chart in its own units; on the page it is as wide as the text."""

_SIZE = 7.5  # of letters
_LETTER = 4.7  # width of one on average
_NAMES, _FIGURES = 150, 85  # left of bars: names; right of the longest: what is written at its end
_TEXT: dict[str, Any] = {"fontsize": _SIZE, "color": THEME["ink"][0], "va": "center_baseline"}
_SOFT: dict[str, Any] = {"fontsize": _SIZE, "color": THEME["soft"][0]}
_TIP = "tip: "


@dataclass(frozen=True)
class Bar:
    """One bar.

    Attributes:
        parts: Lengths of its parts, in order, by their kind.
        text: Written at its end.
        whisker: Where a thin line from its end goes to, if that is further.
        tips: What is shown when the mouse is over a part, by kind.
    """

    parts: Mapping[str, float]
    text: str
    whisker: float = 0.0
    tips: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A line over time.

    Attributes:
        name: What it is of.
        seconds: ``(N,)`` times, rising.
        values: ``(N,)`` values; None leaves a gap.
        series: Its number, which gives it its colour: the same one in all charts of a page.
        tip: What is shown when the mouse is over it.
    """

    name: str
    seconds: Sequence[float]
    values: Sequence[float | None]
    series: int
    tip: str = ""


@dataclass(frozen=True)
class Curve:
    """A line through points.

    Attributes:
        name: What it is of, for the legend and when the mouse is over it.
        x: ``(N,)``.
        y: ``(N,)``; NaN leaves a gap.
        color: Of `THEME`.
        width: Of the line, in units of the chart.
        dots: Mark the points.
        listed: Write its name in the legend.
        dashed: Draw it dashed.
        labels: ``(N,)`` what is written beside each point; none by default.
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: str
    width: float = 1.2
    dots: bool = False
    listed: bool = True
    dashed: bool = False
    labels: Sequence[str] = ()


def bar_chart(
    rows: Sequence[tuple[str, Sequence[Bar]]], colors: Mapping[str, str], *, unit: str, title: str, whisker: str = ""
) -> Markup:
    """Horizontal bars, one or several in a row, each divided into coloured parts.

    Args:
        rows: Name and bars of each row; at least one.
        colors: Kind of part to a name in `THEME`, in the order of the legend; kinds that never occur are omitted.
        unit: Of the lengths.
        title: For those who can't see the chart.
        whisker: What the thin lines stand for; empty where there are none.
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    gap = 12
    tall = 13 if max(len(bars) for _, bars in rows) == 1 else 9
    total = sum((tall + 1) * len(bars) + gap for _, bars in rows)
    figure, axes = _axes(total, left=_NAMES, right=_FIGURES, top=22, bottom=30)
    y, middles = gap / 2, []
    for _, bars in rows:
        middles.append(y + (tall + 1) * len(bars) / 2)
        for bar in bars:
            middle, x = y + tall / 2, 0.0
            for kind, value in bar.parts.items():
                # Never quite nothing: a part that is there can be found by the mouse.
                (patch,) = axes.barh([middle], [max(value, 1e-9)], tall, left=x, color=_color(colors[kind]))
                _tip(patch, bar.tips.get(kind, ""))
                x += value
            if bar.whisker > x:
                end = bar.whisker
                axes.plot([x, end, end, end], [middle, middle, middle - 3, middle + 3], color=_color("soft"), lw=0.8)
            place = (max(x, bar.whisker), middle)
            axes.annotate(literal(bar.text), place, (4, 0), textcoords="offset points", **_TEXT)
            y += tall + 1
        y += gap
    longest = max(max(sum(bar.parts.values()), bar.whisker) for _, bars in rows for bar in bars)
    axes.set_xlim(0, longest if longest > 0 else 1)
    axes.set_ylim(total, 0)
    axes.grid(axis="x")
    axes.set_xlabel(unit, loc="right", **_SOFT)
    axes.set_yticks(middles, [literal(shorten(name, 29)) for name, _ in rows])
    axes.tick_params(axis="y", labelcolor=_color("ink"), pad=6)
    used = {kind for _, bars in rows for bar in bars for kind in bar.parts}
    handles: list[Patch | Line2D] = [
        Patch(color=_color(color), label=kind) for kind, color in colors.items() if kind in used
    ]
    if whisker:
        handles.append(Line2D([], [], color=_color("soft"), lw=0.8, label=whisker))
    _legend(axes, handles, columns=len(handles))
    return _element(figure, title)


def point_chart(points: Sequence[tuple[str, float, float]], *, across: str, up: str, title: str) -> Markup:
    """Points, at least one, as name, x and y, with their names beside them; both axes begin at 0.

    ``across`` and ``up`` say what x and y are, ``title`` is for those who can't see the chart.
    """
    figure, axes = _axes(210, left=40, right=14, top=16, bottom=30)
    axes.set_xlim(0, max(1.05 * max(x for _, x, _ in points), 1e-9))
    axes.set_ylim(0, max(1.08 * max(y for _, _, y in points), 1.0))
    axes.grid()
    axes.set_xlabel(across, loc="right", **_SOFT)
    axes.set_title(up, loc="left", pad=4, **_SOFT)
    dots = [tuple(axes.transData.transform((x, y))) for _, x, y in points]
    taken = [(x - 4, x + 4, y) for x, y in dots]
    for (name, right, high), (x, y) in sorted(zip(points, dots, strict=True), key=lambda both: -both[0][2]):
        axes.scatter(right, high, s=22, color=_color("blue"), zorder=3)
        text = shorten(name, 45)
        wide = _LETTER * len(text)
        left = x + 6 if x + 6 + wide < WIDTH else x - 6 - wide
        line = _free_line(left, left + wide, y, taken)
        axes.annotate(
            literal(text),
            (x, y),
            (left, line),
            xycoords="figure pixels",
            textcoords="figure pixels",
            **_TEXT,
            arrowprops={"arrowstyle": "-", "color": _color("soft"), "lw": 0.6, "relpos": (0, 0.5), "shrinkA": 1}
            if line != y
            else None,
        )
    return _element(figure, title)


def line_chart(lines: Sequence[Line], *, unit: str, title: str, floor: bool = True, legend: bool = False) -> Markup:
    """Lines over time, with gaps where nothing is known.

    Args:
        lines: At least one, with at least one value.
        unit: Of the values.
        title: For those who can't see the chart.
        floor: Begin the axis at 0; else just below the values, and at least ten units tall.
        legend: Write the names of the lines above.
    """
    from matplotlib.lines import Line2D

    names = [literal(shorten(line.name, 60)) for line in lines]
    columns = max(1, int((WIDTH - 40) / (40 + _LETTER * max(map(len, names)))))
    top = 16 + (13 * math.ceil(len(lines) / columns) if legend else 0)
    figure, axes = _axes(90, left=40, right=14, top=top, bottom=30)
    last = max(line.seconds[-1] for line in lines)
    scale = 60 if last > 180 else 1
    for line in lines:
        values = [math.nan if value is None else value for value in line.values]
        (drawn,) = axes.plot([second / scale for second in line.seconds], values, **_line_style(line.series))
        _tip(drawn, line.tip or line.name)
    known = [value for line in lines for value in line.values if value is not None]
    low = 0.0 if floor else 5.0 * (min(known) // 5)
    axes.set_ylim(low, max(1.02 * max(known), 1e-3) if floor else max(max(known), low + 10))
    axes.set_xlim(0, last / scale)
    axes.grid()
    axes.set_xlabel("minutes" if scale > 1 else "seconds", loc="right", **_SOFT)
    axes.set_title(unit, loc="left", pad=4, **_SOFT)
    if legend:
        handles = [Line2D([], [], label=n, **_line_style(line.series)) for n, line in zip(names, lines, strict=True)]
        _legend(axes, handles, columns=columns, above=14)
    return _element(figure, title)


def curve_chart(
    curves: Sequence[Curve],
    *,
    across: str,
    up: str,
    title: str,
    mark: tuple[float, str] | None = None,
    x_range: tuple[float, float] = (0, 1),
    y_range: tuple[float, float] = (0, 1.02),
) -> Markup:
    """Curves, by default over shares, 0 to 1 both ways.

    Args:
        curves: At least one; later ones lie on top.
        across: What x is.
        up: What y is.
        title: For those who can't see the chart.
        mark: A value of x to mark by an upright line, and what it is.
        x_range: Ends of the axis across.
        y_range: Ends of the axis up.
    """
    from matplotlib.lines import Line2D

    listed = [curve for curve in curves if curve.listed]
    names = [literal(shorten(curve.name, 40)) for curve in listed]
    columns = max(1, int((WIDTH - 40) / (40 + _LETTER * max(map(len, names), default=1))))
    rows = math.ceil(len(listed) / columns)
    figure, axes = _axes(230, left=40, right=14, top=16 + 13 * rows, bottom=30)
    for curve in curves:
        dots = "o" if curve.dots else None
        (drawn,) = axes.plot(curve.x, curve.y, **_curve_style(curve), marker=dots, markersize=4)
        _tip(drawn, curve.name)
        for x, y, label in zip(curve.x, curve.y, curve.labels):  # noqa: B905  (there may be no labels)
            axes.annotate(literal(label), (x, y), (4, -6), textcoords="offset points", **_SOFT)
    if mark is not None:
        axes.plot([mark[0]] * 2, [0, 1], color=_color("soft"), lw=0.8, linestyle=(0, (3, 2)))
        left = mark[0] < 0.7
        place = {"xytext": (4 if left else -4, -6), "ha": "left" if left else "right"}
        axes.annotate(literal(mark[1]), (mark[0], 1), textcoords="offset points", **{**_TEXT, **place})
    axes.set_xlim(*x_range)
    axes.set_ylim(*y_range)
    axes.grid()
    axes.set_xlabel(across, loc="right", **_SOFT)
    axes.set_title(up, loc="left", pad=4, **_SOFT)
    if listed:
        handles = [Line2D([], [], label=name, **_curve_style(curve)) for name, curve in zip(names, listed, strict=True)]
        _legend(axes, handles, columns=columns, above=14)
    return _element(figure, title)


def matrix_chart(values: Sequence[Sequence[int]], names: Sequence[str], *, across: str, up: str, title: str) -> Markup:
    """Whole numbers in a square, the darker the larger their share of the row; green on the diagonal, orange beside it.

    Args:
        values: Rows from the top; the last row and column aren't on the diagonal.
        names: Of rows and columns.
        across: What columns are.
        up: What rows are.
        title: For those who can't see the chart.
    """
    from matplotlib.patches import Rectangle

    number = len(names)
    side = min(46.0, (WIDTH - _NAMES - 14) / number)
    right = WIDTH - _NAMES - side * number
    figure, axes = _axes(side * number, left=_NAMES, right=right, top=84, bottom=24)
    for i, row in enumerate(values):
        for k, value in enumerate(row):
            if value:
                color = _color("green" if i == k else "orange")
                cell = Rectangle((k, i), 1, 1, color=color, alpha=0.15 + 0.85 * value / sum(row), lw=0)
                _tip(axes.add_patch(cell), f"{names[i]} as {names[k]}: {value:,}")
                if side >= 20:
                    axes.annotate(f"{value:,}", (k + 0.5, i + 0.5), ha="center", **_TEXT)
    axes.set_xlim(0, number)
    axes.set_ylim(number, 0)
    axes.grid()
    axes.set_xticks(range(number), [])
    axes.set_yticks(range(number), [])
    style = {**_TEXT, "fontsize": min(_SIZE, 1.1 * side)}
    above = {**style, "ha": "center", "va": "bottom", "rotation": 90}
    for place, name in enumerate(names):
        text, offset = literal(shorten(name, 29 if side > 8 else 24)), place + 0.5
        axes.annotate(text, (0, offset), (-5, 0), textcoords="offset points", ha="right", **style)
        axes.annotate(text, (offset, 0), (0, 5), textcoords="offset points", **above)
    axes.set_xlabel(f"rows: {up}; columns: {across}", loc="left", **_SOFT)
    return _element(figure, title)


def svg_file(chart: Markup) -> str:
    """A chart as the content of a file of its own, on a background, light or dark as the viewer's system is."""
    light, dark = (" ".join(f"--{name}: {pair[mode]};" for name, pair in THEME.items()) for mode in (0, 1))
    style = f"<style>:root {{ {light} }} @media (prefers-color-scheme: dark) {{ :root {{ {dark} }} }}</style>"
    background = '<rect width="100%" height="100%" fill="var(--paper)"/>'
    element = chart.removeprefix('<div class="wide">').removesuffix("</div>")
    return re.sub(r"^<svg[^>]*>", lambda tag: f"{tag[0]}\n{style}\n{background}", element, count=1) + "\n"


def _axes(height: float, *, left: float, right: float, top: float, bottom: float) -> tuple[Figure, Axes]:
    """An empty chart whose plot is ``height`` tall, margins around it; a pixel is one unit of the SVG."""
    from matplotlib.figure import Figure

    whole = height + top + bottom
    figure = Figure(figsize=(WIDTH / 72, whole / 72), dpi=72)
    axes = figure.add_axes((left / WIDTH, bottom / whole, 1 - (left + right) / WIDTH, height / whole))
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(bottom=False, left=False, labelsize=_SIZE, labelcolor=_color("soft"))
    axes.tick_params(grid_color=_color("line"), grid_linewidth=0.7)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: Axes, handles: Sequence[object], *, columns: int, above: float = 4) -> None:
    height = axes.get_window_extent().height
    axes.legend(
        handles=handles,
        ncols=columns,
        loc="lower left",
        bbox_to_anchor=(0, 1 + above / height),
        borderaxespad=0,
        borderpad=0,
        frameon=False,
        fontsize=_SIZE,
        labelcolor=_color("soft"),
        handlelength=1.4,
        handleheight=0.9,
    )


def _curve_style(curve: Curve) -> dict[str, Any]:
    return {"color": _color(curve.color), "lw": curve.width, "linestyle": (0, (4, 2)) if curve.dashed else "-"}


def _line_style(series: int) -> dict[str, Any]:
    round_ = series // len(SERIES)
    dash = (0, (1 + 3 * round_, 2)) if round_ else "-"
    return {"color": _color(SERIES[series % len(SERIES)]), "lw": 1.2, "linestyle": dash}


def _free_line(start: float, end: float, y: float, taken: list[tuple[float, float, float]]) -> float:
    """A height near ``y`` where no text stands between ``start`` and ``end`` yet; it is taken then."""
    for offset in (0, 11, -11, 22, -22, 33, -33, 44, -44):
        if all(end < left or start > right or abs(y + offset - other) >= 10 for left, right, other in taken):
            y += offset
            break
    taken.append((start, end, y))
    return y


def _color(name: str) -> str:
    return THEME[name][0]


def _tip(artist: object, text: str) -> None:
    """Have a text shown when the mouse is over something drawn: `_element` makes a ``<title>`` of its id."""
    if text:
        artist.set_gid(_TIP + shorten(text, 200))  # type: ignore[attr-defined]


def _element(figure: Figure, title: str) -> Markup:
    """The figure as an ``<svg>`` element, which scrolls where a page is too narrow to read it, beside others in a page.

    Drawn twice it is the same text. Ids that could be there twice in a page are taken out, and so is the style that
    would apply to the whole page.
    """
    import matplotlib

    written = io.StringIO()
    with any_letters(), matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(written, format="svg", transparent=True, metadata=nothing)
    svg = re.sub(r".*?<svg[^>]*>\s*<defs>.*?</defs>", "", written.getvalue(), count=1, flags=re.DOTALL)
    # Nothing reaches beyond the plot that may not, so that nothing need be cut off.
    svg = re.sub(r' clip-path="[^"]*"|<clipPath.*?</clipPath>', "", svg, flags=re.DOTALL)
    svg = re.sub(r"<g id=(?:\"([^\"]*)\"|'([^']*)')>", lambda match: _group(match[1] or match[2]), svg)
    for name, (light, _) in THEME.items():
        svg = re.sub(rf"\b(fill|stroke): {light}\b", rf"\1: var(--{name})", svg)
    size = f"{WIDTH:g} {figure.get_figheight() * 72:g}"
    namespaces = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    about = f'role="img" aria-label="{escape(title)}" style="stroke-linejoin: round"'
    return Markup(f'<div class="wide"><svg {namespaces} viewBox="0 0 {size}" {about}>{svg.strip()}</div>')


def _group(name: str) -> str:
    return f"<g><title>{name.removeprefix(_TIP)}</title>" if name.startswith(_TIP) else "<g>"

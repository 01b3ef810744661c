"""The charts of the page, as SVG of our own: bars of latency by stage, and accuracy over latency."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from mobiledet.apps.benchmark.report import STAGES, Report, Row
from mobiledet.apps.benchmark.table import format_ms, shorten

WIDTH = 860

_NAMES, _FIGURES = 210, 120
"""Left and right of the bars: names, and the figures behind the longest of them."""

_ROW, _BAR = 34, 18

LETTER = 7.0
"""About as wide as a letter of the page's font, in pixels."""


def latency_chart(report: Report) -> str:
    """A bar for each model, as long as its median, divided as its stages are; a thin line goes to p95.

    Returns:
        An ``<svg>`` element, or nothing when nothing was measured.
    """
    rows = [row for row in report.rows if row.latency is not None]
    if not rows:
        return ""
    longest = max(max(row.latency.p95, row.latency.median) for row in rows if row.latency is not None)
    ticks = axis_ticks(longest)
    scale = (WIDTH - _NAMES - _FIGURES) / max(longest, ticks[-1])
    height = 30 + _ROW * len(rows) + 26
    parts = _legend(rows)
    for tick in ticks:
        x = _NAMES + tick * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="28" x2="{x:.1f}" y2="{height - 22}"/>')
        parts.append(f'<text class="small" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="small" x="{WIDTH - 4}" y="{height - 6}" text-anchor="end">ms</text>')
    for index, row in enumerate(rows):
        parts += _bar(row, 30 + _ROW * index, scale)
    return svg(height, "Median milliseconds of a call by stage", parts)


def accuracy_chart(report: Report) -> str:
    """A point for each model whose AP is known: milliseconds to the right, AP upwards.

    Returns:
        An ``<svg>`` element, or nothing without such a model.
    """
    points = [(row, row.latency.median, row.ap) for row in report.rows if row.latency and row.ap is not None]
    if not points:
        return ""
    height, left, bottom, top = 360, 60, 320, 20
    across, up = (
        axis_ticks(max(ms for _, ms, _ in points) * 1.05),
        axis_ticks(max(1.0, *(1.08 * ap for _, _, ap in points))),
    )
    scale_x, scale_y = (WIDTH - left - 20) / across[-1], (bottom - top) / up[-1]
    parts = []
    for tick in across:
        x = left + tick * scale_x
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="small" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in up:
        y = bottom - tick * scale_y
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{WIDTH - 20}" y2="{y:.1f}"/>')
        parts.append(f'<text class="small" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text class="small" x="{WIDTH - 20}" y="{bottom + 34}" text-anchor="end">median ms</text>')
    parts.append(f'<text class="small" x="{left - 8}" y="12" text-anchor="end">AP</text>')
    dots = [(left + ms * scale_x, bottom - ap * scale_y + 4) for _, ms, ap in points]
    taken = [(x - 6, x + 6, y) for x, y in dots]
    for row, ms, ap in sorted(points, key=lambda point: point[2], reverse=True):
        x, y = left + ms * scale_x, bottom - ap * scale_y
        text = f"{shorten(row.label, 30)} ({ap:.1f})"
        width = LETTER * len(text)
        start = x + 9 if x + 9 + width < WIDTH else x - 9 - width
        label = _free_line(start, start + width, y + 4, taken)
        if label != y + 4:
            anchor = start if start > x else start + width
            parts.append(f'<path class="whisker" d="M{x:.1f} {y:.1f}L{anchor:.1f} {label - 4:.1f}"/>')
        parts.append(f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="5"/>')
        parts.append(f'<text x="{start:.1f}" y="{label:.1f}">{escape(text)}</text>')
    return svg(height, "AP over median milliseconds of a call", parts)


def axis_ticks(longest: float) -> list[float]:
    """Round numbers from 0 to ``longest`` or a little more, about six of them."""
    longest = longest if math.isfinite(longest) and longest > 0 else 1.0
    rough = longest / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [round(step * index, 10) for index in range(math.ceil(longest / step - 1e-9) + 1)]


def _bar(row: Row, y: float, scale: float) -> list[str]:
    assert row.latency is not None
    total, x = row.latency.median, float(_NAMES)
    parts = [f'<text x="{_NAMES - 10}" y="{y + 14}" text-anchor="end">{escape(shorten(row.label, 27))}</text>']
    known = {name: row.stages.get(name) or 0.0 for name in STAGES}
    whole = sum(known.values())
    # The stages were timed at other moments than the whole; the bar has their shares of its own length.
    shares = {name: value / whole for name, value in known.items() if value > 0} if whole else {"all": 1.0}
    for name, share in shares.items():
        width = total * share * scale
        place = STAGES.index(name) if name in STAGES else len(STAGES)
        told = "" if name == "all" else f"{name} "
        title = escape(f"{row.label}: {told}{format_ms(total * share)} ms ({share:.0%})")
        parts.append(
            f'<rect class="s{place}" x="{x:.2f}" y="{y}" width="{max(0.3, width):.2f}" height="{_BAR}">'
            f"<title>{title}</title></rect>"
        )
        x += width
    end = max(x, _NAMES + row.latency.p95 * scale)
    middle = y + _BAR / 2
    parts.append(f'<path class="whisker" d="M{x:.1f} {middle}H{end:.1f}M{end:.1f} {middle - 5}v10"/>')
    parts.append(f'<text x="{end + 6:.1f}" y="{y + 14}">{format_ms(total)}, p95 {format_ms(row.latency.p95)}</text>')
    return parts


def _legend(rows: Sequence[Row]) -> list[str]:
    parts, x = [], float(_NAMES)
    names = [name for name in STAGES if any(row.stages.get(name) for row in rows)]
    for name in names:
        parts.append(f'<rect class="s{STAGES.index(name)}" x="{x:.0f}" y="4" width="12" height="12"/>')
        parts.append(f'<text class="small" x="{x + 17:.0f}" y="14">{escape(name)}</text>')
        x += 36 + LETTER * len(name)
    parts.append(f'<path class="whisker" d="M{x:.0f} 10h18m0 -5v10"/>')
    parts.append(f'<text class="small" x="{x + 24:.0f}" y="14">p95</text>')
    return parts


def _free_line(start: float, end: float, y: float, taken: list[tuple[float, float, float]]) -> float:
    """A line near ``y`` where no text stands between ``start`` and ``end`` yet; it is taken then."""
    for offset in (0, -15, 15, -30, 30, -45, 45, -60, 60):
        free = all(end < left or start > right or abs(y + offset - other) >= 14 for left, right, other in taken)
        if free:
            y += offset
            break
    taken.append((start, end, y))
    return y


def svg(height: float, title: str, parts: Sequence[str]) -> str:
    """The ``<svg>`` element around a chart's parts, ``WIDTH`` wide; ``title`` is for those who can't see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(title)}">' + "".join(parts) + "</svg>"
    )

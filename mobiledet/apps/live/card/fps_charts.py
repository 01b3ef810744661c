"""The charts of the FPS page, as SVG of our own."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mobiledet.apps.benchmark.charts import LETTER, WIDTH, axis_ticks, svg
from mobiledet.apps.benchmark.table import format_ms, shorten
from mobiledet.apps.live.card.fps_card import Card

COLOURS = 6
"""Boards with a colour of their own; further ones have the same again, dashed."""

STYLE = """
:root { --b0: #3b76af; --b1: #d9772b; --b2: #5d9a45; --b3: #b8453b; --b4: #8a63b0; --b5: #2a938e; }
@media (prefers-color-scheme: dark) {
  :root { --b0: #6aa7e0; --b1: #ee9a52; --b2: #86bd6f; --b3: #e77c72; --b4: #b593d8; --b5: #56bdb7; } }
.line { fill: none; stroke-width: 1.6; stroke-linejoin: round; }
.g0 { fill: var(--s2); } .g1 { fill: var(--s1); } .g2 { fill: var(--s3); }
.t0 { fill: var(--s3); } .t1 { fill: var(--s0); } .t2 { fill: var(--s1); } .t3 { fill: var(--b4); }
.t4 { fill: var(--b5); } .t5 { fill: var(--s2); }
""" + "".join(
    f".b{n} {{ stroke: var(--b{n}); }} .f{n} {{ fill: var(--b{n}); stroke: none; }}\n" for n in range(COLOURS)
)

_NAMES, _FIGURES = 240, 100
_ROW, _BAR = 34, 18
_MOST_POINTS = 430

_PERIODS = (("first minute", "first_minute"), ("last minute", "last_minute"), ("whole run", "overall"))

PARTS = ("grab", "resize", "network", "nms", "read", "draw")


def fps_chart(cards: Sequence[Card]) -> str:
    """Bars of the FPS in the first minute, in the last and over all, for each board.

    Returns:
        An ``<svg>`` element, or nothing when nothing was measured.
    """
    found = [(card, [(place, card.number("fps", key)) for place, (_, key) in enumerate(_PERIODS)]) for card in cards]
    found = [(card, [bar for bar in bars if bar[1] is not None]) for card, bars in found]
    found = [(card, bars) for card, bars in found if bars]
    if not found:
        return ""
    longest = max(fps or 0.0 for _, bars in found for _, fps in bars)
    height = 30 + sum(14 * len(bars) + 14 for _, bars in found) + 26
    parts, scale = _ground([name for name, _ in _PERIODS], "g", longest, height, "FPS")
    y = 30.0
    for card, bars in found:
        parts.append(_name(card, y + 7 * len(bars) + 4))
        for place, fps in bars:
            assert fps is not None
            told = escape(f"{card.label}, {_PERIODS[place][0]}: {fps:.1f} FPS")
            parts.append(
                f'<rect class="g{place}" x="{_NAMES}" y="{y:.0f}" width="{max(0.5, fps * scale):.1f}" height="12">'
                f'<title>{told}</title></rect><text class="small" x="{_NAMES + fps * scale + 6:.1f}" '
                f'y="{y + 10:.0f}">{fps:.1f}</text>'
            )
            y += 14
        y += 14
    return svg(height, "FPS in the first minute, in the last, and over the whole run", parts)


def stages_chart(cards: Sequence[Card]) -> str:
    """A bar for each board of its stages' medians, one after the other.

    Returns:
        An ``<svg>`` element, or nothing when nothing was measured.
    """
    rows = [(card, stage_parts(card)) for card in cards]
    rows = [(card, parts) for card, parts in rows if parts]
    if not rows:
        return ""
    height = 30 + _ROW * len(rows) + 26
    present = [name for name in PARTS if any(name in parts for _, parts in rows)]
    drawn, scale = _ground(present, "t", max(sum(parts.values()) for _, parts in rows), height, "ms", among=PARTS)
    for index, (card, parts) in enumerate(rows):
        y, x = 30 + _ROW * index, float(_NAMES)
        drawn.append(_name(card, y + 14))
        for name, value in parts.items():
            p95 = card.number("stages_ms", name, "p95")
            more = f", 95 % below {format_ms(p95)}" if p95 is not None and name != "network" else ""
            title = escape(f"{card.label}: {name} {format_ms(value)} ms{more}")
            drawn.append(
                f'<rect class="t{PARTS.index(name)}" x="{x:.2f}" y="{y}" width="{max(0.3, value * scale):.2f}" '
                f'height="{_BAR}"><title>{title}</title></rect>'
            )
            x += value * scale
        drawn.append(f'<text x="{x + 6:.1f}" y="{y + 14}">{format_ms(sum(parts.values()))}</text>')
    return svg(height, "Median milliseconds of each stage", drawn)


def stage_parts(card: Card) -> dict[str, float]:
    """Median milliseconds of the stages that are known, suppression taken out of the network."""
    found = {name: value for name in PARTS if (value := card.number("stages_ms", name, "p50")) is not None}
    if "nms" in found and "network" in found:
        found["nms"] = min(found["nms"], found["network"])
        found["network"] -= found["nms"]
    elif "nms" in found:
        del found["nms"]
    return {name: max(0.0, value) for name, value in found.items()}


def timeline_chart(cards: Sequence[Card], series: str, unit: str, *, floor: bool = True) -> str:
    """A line for each board over the time of its run.

    Args:
        cards: All boards of the page, so that each has its colour.
        series: Which line of the timeline.
        unit: What it is measured in.
        floor: Whether the axis begins at 0.

    Returns:
        An ``<svg>`` element, or nothing when nobody measured it.
    """
    lines = [
        (place, card.series(series), max(1e-3, card.number("timeline", "step_s") or 1.0))
        for place, card in enumerate(cards)
    ]
    lines = [(place, values, step) for place, values, step in lines if sum(v is not None for v in values) > 1]
    if not lines:
        return ""
    height, left, right, top, bottom = 170, 60, WIDTH - 20, 20, 140
    known = [value for _, values, _ in lines for value in values if value is not None]
    low, up = _upward(min(known), max(known), floor=floor)
    longest = max(len(values) * step for _, values, step in lines)
    minutes = longest > 180
    across = axis_ticks(longest / 60 if minutes else longest)
    scale_x = (right - left) / longest
    scale_y = (bottom - top) / max(up[-1] - low, 1e-9)
    parts = []
    for tick in across:
        x = left + tick * (60 if minutes else 1) * scale_x
        if x <= right + 1:
            parts.append(f'<line class="grid" x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{bottom}"/>')
            parts.append(f'<text class="small" x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in up:
        y = bottom - (tick - low) * scale_y
        parts.append(f'<line class="grid" x1="{left}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}"/>')
        parts.append(f'<text class="small" x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    parts.append(f'<text class="small" x="{left - 8}" y="11" text-anchor="end">{escape(unit)}</text>')
    unit_x = "minutes" if minutes else "seconds"
    parts.append(f'<text class="small" x="{right}" y="{bottom + 29}" text-anchor="end">{unit_x}</text>')
    for place, values, step in lines:
        path, each = _path(values, step)
        points = " ".join(
            f"{letter}{left + second * scale_x:.1f} {bottom - (value - low) * scale_y:.1f}"
            for letter, second, value in path
        )
        told = escape(f"{cards[place].label}" + (f", means of {each:g} s" if each > step else ""))
        parts.append(f'<path class="line b{place % COLOURS}"{_dash(place)} d="{points}"><title>{told}</title></path>')
    return svg(height, f"{unit} over the time of the run", parts)


def board_legend(cards: Sequence[Card]) -> str:
    """The line of each board and its name, as many in a row as fit."""
    parts, x, y = [], 60.0, 14.0
    for place, card in enumerate(cards):
        text = shorten(card.label, 60)
        width = 40 + LETTER * len(text)
        if x > 60 and x + width > WIDTH:
            x, y = 60.0, y + 18
        parts.append(f'<path class="line b{place % COLOURS}"{_dash(place)} d="M{x:.0f} {y - 4:.0f}h22"/>')
        parts.append(f'<text class="small" x="{x + 28:.0f}" y="{y:.0f}">{escape(text)}</text>')
        x += width
    return svg(y + 8, "Boards", parts)


def _upward(least: float, most: float, *, floor: bool) -> tuple[float, list[float]]:
    """Where an axis begins, and its round numbers; one that doesn't begin at 0 shows at least ten units."""
    if floor:
        return 0.0, axis_ticks(most * 1.02)
    low = 5.0 * (least // 5)
    ticks = [low + tick for tick in axis_ticks(max(10.0, most - low))]
    return low, ticks


def _path(values: Sequence[float | None], step: float) -> tuple[list[tuple[str, float, float]], float]:
    """Points ``(M or L, second, value)`` of a line with gaps where nothing is known, and the seconds of each point."""
    group = max(1, -(-len(values) // _MOST_POINTS))
    points: list[tuple[str, float, float]] = []
    gap = True
    for start in range(0, len(values), group):
        known = [value for value in values[start : start + group] if value is not None]
        if known:
            middle = (start + len(values[start : start + group]) / 2) * step
            points.append(("M" if gap else "L", middle, sum(known) / len(known)))
        gap = not known
    return points, group * step


def _ground(
    names: Sequence[str], kind: str, longest: float, height: float, unit: str, *, among: Sequence[str] | None = None
) -> tuple[list[str], float]:
    """Legend and grid under bars, and the pixels of one unit."""
    parts, x = [], float(_NAMES)
    for name in names:
        place = (among or names).index(name)
        parts.append(f'<rect class="{kind}{place}" x="{x:.0f}" y="4" width="12" height="12"/>')
        parts.append(f'<text class="small" x="{x + 17:.0f}" y="14">{escape(name)}</text>')
        x += 36 + LETTER * len(name)
    ticks = axis_ticks(longest)
    scale = (WIDTH - _NAMES - _FIGURES) / max(longest, ticks[-1])
    for tick in ticks:
        x = _NAMES + tick * scale
        parts.append(f'<line class="grid" x1="{x:.1f}" y1="24" x2="{x:.1f}" y2="{height - 22}"/>')
        parts.append(f'<text class="small" x="{x:.1f}" y="{height - 6}" text-anchor="middle">{tick:g}</text>')
    parts.append(f'<text class="small" x="{WIDTH - 4}" y="{height - 6}" text-anchor="end">{unit}</text>')
    return parts, scale


def _name(card: Card, y: float) -> str:
    label = escape(shorten(card.label, 29))
    return f'<text x="{_NAMES - 10}" y="{y:.0f}" text-anchor="end">{label}<title>{escape(card.label)}</title></text>'


def _dash(place: int) -> str:
    return "" if place < COLOURS else f' stroke-dasharray="{2 + 4 * (place // COLOURS)} 3"'

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from mobiledet.draw.svg import (
    SERIES,
    THEME,
    Bar,
    Curve,
    Line,
    bar_chart,
    curve_chart,
    line_chart,
    point_chart,
    svg_file,
)

SVG = "{http://www.w3.org/2000/svg}"
COLORS = {"a": "blue", "b": "orange", "unused": "red"}


def paths(chart: str, color: str) -> list[list[tuple[float, float]]]:
    """Corners of everything that is filled or drawn in a colour of the theme, in the chart's units."""
    found = []
    for path in ElementTree.fromstring(chart).iter(f"{SVG}path"):
        if f"var(--{color})" in (path.get("style") or ""):
            numbers = [float(number) for number in re.findall(r"-?[\d.]+", path.get("d") or "")]
            found.append(list(zip(numbers[::2], numbers[1::2], strict=True)))
    return found


def widths(chart: str, color: str) -> list[float]:
    """Widths of the bars of a colour; the legend's sample is the last one."""
    return [max(x for x, _ in path) - min(x for x, _ in path) for path in paths(chart, color)][:-1]


def texts(chart: str) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(chart).iter(f"{SVG}text")]


def test_bars_are_as_long_as_their_values() -> None:
    rows = [("slow", [Bar({"a": 30.0, "b": 10.0}, "40 ms")]), ("fast", [Bar({"a": 8.0, "b": 2.0}, "10 ms", 12.0)])]
    chart = bar_chart(rows, COLORS, unit="ms", title="Times", whisker="p95")
    first, second = widths(chart, "blue")
    assert first / second == pytest.approx(30 / 8, rel=0.01)
    assert widths(chart, "orange")[0] / first == pytest.approx(1 / 3, rel=0.01)
    assert {"slow", "fast", "40 ms", "10 ms", "ms", "a", "b", "p95"} <= set(texts(chart))
    assert "unused" not in texts(chart)


def test_a_row_can_have_several_bars_and_none_need_be_long() -> None:
    rows = [("one", [Bar({"a": 0.0}, "0.0"), Bar({"b": 0.0}, "0.0")]), ("two", [Bar({"b": 0.0}, "0")])]
    assert len(widths(bar_chart(rows, COLORS, unit="FPS", title="FPS"), "orange")) == 2


@pytest.mark.parametrize("odd", ["<script>&\"'", "$a$ and $b^", "二\n三", "x" * 300])
def test_names_are_shown_as_they_are_and_cut_when_long(odd: str) -> None:
    chart = bar_chart([(odd, [Bar({"a": 1.0}, odd[:5], tips={"a": odd})])], COLORS, unit="ms", title=odd)
    point_chart([(odd, 1.0, 2.0)], across="ms", up="AP", title=odd)
    line_chart([Line(odd, [0, 1], [1, 2], 0)], unit="FPS", title=odd, legend=True)
    shown = " ".join(odd.split())
    titles = [title.text for title in ElementTree.fromstring(chart).iter(f"{SVG}title")]
    assert shown in titles or len(odd) > 200
    assert shown in texts(chart) or len(odd) > 29


def test_points_lie_where_they_should_and_their_names_do_not_overlap() -> None:
    points = [("far", 20.0, 20.0), ("near", 10.0, 10.0), ("same", 10.0, 10.0)]
    chart = point_chart(points, across="ms", up="AP", title="AP")
    svg = ElementTree.fromstring(chart)
    dots = [(float(dot.get("x") or 0), float(dot.get("y") or 0)) for dot in svg.iter(f"{SVG}use")]
    (right, high), (left, low), same = dots  # the best first
    assert (left, low) == same
    assert (right - 40) / (left - 40) == pytest.approx(2, rel=0.01)
    assert high < low, "SVG counts downwards"
    names = {text.text: float(text.get("y") or 0) for text in svg.iter(f"{SVG}text")}
    assert abs(names["near"] - names["same"]) > 9


def test_curves_take_any_range_and_name_their_points() -> None:
    curves = [Curve("a", [5, 10], [40, 50], "blue", labels=["half", "whole"]), Curve("b", [5], [40], "red", dots=True)]
    chart = curve_chart(curves, across="ms", up="AP", title="AP", x_range=(0, 20), y_range=(30, 50))
    (x1, y1), (x2, y2) = paths(chart, "blue")[0]
    assert x2 - x1 == pytest.approx((620 - 54) / 4, rel=0.01)
    assert y1 - y2 == pytest.approx(115, rel=0.01)
    assert {"half", "whole"} <= set(texts(chart))


def test_a_dashed_curve_is_dashed_also_in_the_legend() -> None:
    charts = [
        curve_chart([Curve("a", [0, 1], [0, 1], "blue", dashed=dashed)], across="x", up="y", title="t")
        for dashed in (False, True)
    ]
    assert [chart.count("stroke-dasharray") for chart in charts] == [0, 2]


def test_a_chart_is_a_file_of_its_own_with_the_colours_of_both_modes() -> None:
    chart = svg_file(point_chart([("one", 1.0, 2.0)], across="ms", up="AP", title="AP"))
    root = ElementTree.fromstring(chart)
    assert root.tag == f"{SVG}svg"
    style = root.findtext(f"{SVG}style") or ""
    for name, (light, dark) in THEME.items():
        assert re.findall(rf"--{name}: (#\w+);", style) == [light, dark]
    assert set(re.findall(r"var\(--(\w+)\)", chart)) <= set(THEME)


def test_a_line_breaks_where_nothing_is_known() -> None:
    line = Line("Pi", [0.5, 1.5, 2.5, 3.5], [12.0, None, 13.5, 11.0], 0)
    chart = line_chart([line], unit="FPS", title="FPS")
    (drawn,) = [path for path in ElementTree.fromstring(chart).iter(f"{SVG}path") if "--blue" in path.get("style", "")]
    assert re.sub(r"[^ML]", "", drawn.get("d") or "") == "MML"
    assert "seconds" in texts(chart)


def test_lines_keep_their_colours_and_long_runs_count_minutes() -> None:
    lines = [Line(f"board {number}", [0, 300], [45, 46.0 + number], number) for number in range(8)]
    chart = line_chart(lines, unit="°C", title="Temperature", floor=False, legend=True)
    assert all(len(paths(chart, color)) >= 2 for color in SERIES), "a line and its sample"
    assert "stroke-dasharray" in chart
    assert {"minutes", "°C", "board 7", "46"} <= set(texts(chart))
    assert {"10", "20"}.isdisjoint(texts(chart)), "the axis begins near the values"


def test_charts_are_stable_and_can_stand_beside_others() -> None:
    def draw() -> str:
        return line_chart([Line("a", [0, 1], [1.0, math.pi], 0)], unit="FPS", title="FPS")

    assert draw() == draw()
    for banned in ("<?xml", "<style", "<metadata", "http://", "url("):
        assert banned not in draw().replace("http://www.w3.org/", "")
    ids = re.findall(r'\bid="([^"]*)"', draw())
    assert all(re.fullmatch(r"[a-z][0-9a-f]{8,}", name) for name in ids), "made of what is drawn"
    colors = set(re.findall(r"(?:fill|stroke): (#\w+)", draw()))
    assert not colors & {light for light, _ in THEME.values()}, "all follow light and dark mode"

"""The report as one HTML page with charts that needs nothing but itself: no network, no scripts."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from mobiledet.apps.benchmark.images import size_name
from mobiledet.apps.benchmark.report import STAGES, BenchmarkReport, Row
from mobiledet.apps.benchmark.tables import LONGEST_NAME, Column, cost_columns, model_columns, run_size, time_columns
from mobiledet.draw.html import Cell, bullets, facts, page, render, section, table
from mobiledet.draw.svg import Bar, bar_chart, point_chart
from mobiledet.utils.text import count, readable_ms, shorten

_COLORS = {"resize": "green", "network": "blue", "decode+nms": "orange", "rest": "gray", "whole call": "blue"}
_STATES = {"passed": "good", "failed": "bad", "damaged": "bad", "forced": "bad", "other model": "bad"}


def report_page(report: BenchmarkReport) -> str:
    """The page, as HTML."""

    def ranges(row: Row) -> str:
        return f"{row.versus.low:.2f} to {row.versus.high:.2f}" if row.versus else "-"

    times = time_columns(report)
    times.insert(4, Column("80 % of rounds", ranges))  # after "vs first"
    sections = [
        section(
            f"Latency, images of {size_name(report.settings.sizes[0])}",
            latency_chart(report),
            _table(report.rows, times),
            f"Milliseconds, {report.images}. A bar is the median of all calls, divided into stages. 'vs first': time "
            "relative to the first model, the median of all rounds and the range of the middle 80 % of them.",
        )
    ]
    if report.data is not None:
        about = f"AP in points of 100 on {report.data}."
        sections.append(section("Accuracy and latency", accuracy_chart(report), about))
    sections += [
        section("Models", _table(report.rows, model_columns(report)), *_certificates(report)),
        section("Work, memory, size", _table(report.rows, cost_columns())),
        section("Caveats", bullets(report.caveats())),
        section("Environment", _environment(report)),
    ]
    size = render("<p>{{ text }} each.</p>", text=f"{count(len(report.rows), 'detector')}, {run_size(report)}")
    return page("mobiledet benchmark", f"Detectors on {report.machine['processor']}", [size, *sections])


def latency_chart(report: BenchmarkReport) -> Markup:
    """An ``<svg>`` of a bar for each model, as long as its median, divided as its stages are; a thin line goes to p95.

    Empty when nothing was measured.
    """
    rows = []
    for row in report.rows:
        if row.latency is None:
            continue
        known = {name: value for name in STAGES if (value := row.stages.get(name))}
        whole = sum(known.values())
        # The stages were timed at other moments than the whole call; the bar shows their shares of its own length.
        parts = {name: row.latency.median * value / whole for name, value in known.items()}
        parts = parts or {"whole call": row.latency.median}
        tips = {
            name: f"{row.label}: {name} {readable_ms(value)} ms ({value / row.latency.median:.0%})"
            for name, value in parts.items()
        }
        text = f"{readable_ms(row.latency.median)}, p95 {readable_ms(row.latency.p95)}"
        rows.append((row.label, [Bar(parts, text, whisker=row.latency.p95, tips=tips)]))
    if not rows:
        return Markup()
    return bar_chart(rows, _COLORS, unit="ms", title="Milliseconds of a call by stage", whisker="p95")


def accuracy_chart(report: BenchmarkReport) -> Markup:
    """An ``<svg>`` of AP over latency, a point for each model that has both; empty when there is none."""
    points = [
        (f"{shorten(row.label, 30)} ({row.ap:.1f})", row.latency.median, row.ap)
        for row in report.rows
        if row.latency is not None and row.ap is not None
    ]
    if not points:
        return Markup()
    return point_chart(points, across="median ms", up="AP", title="AP over median milliseconds of a call")


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> Markup:
    def cell(column: Column, row: Row) -> Cell:
        text = column.cell(row)
        color = _STATES.get(text, "") if column.title == "certificate" else ""
        return Cell(text, " ".join(filter(None, ["text" if column.text else "", color])))

    names = [Cell(shorten(row.label, LONGEST_NAME), tip=row.label) for row in rows]
    head = [Cell("model"), *(Cell(column.title, "text" if column.text else "") for column in columns)]
    body = [[name, *(cell(column, row) for column in columns)] for name, row in zip(names, rows, strict=True)]
    return table(head, body)


def _certificates(report: BenchmarkReport) -> list[Markup]:
    """A sentence for each certificate with figures."""
    lines = []
    for row in report.rows:
        figures, parts = row.certificate.figures, []
        if "matched_share" in figures:
            parts.append(f"{figures['matched_share']:.1%} of the checkpoint's detections matched")
        if "largest_box_difference" in figures:
            parts.append(f"boxes differ by {figures['largest_box_difference']:.2g} px at most")
        if "largest_score_difference" in figures:
            parts.append(f"scores by {figures['largest_score_difference']:.2g}")
        if (ap := figures.get("ap", {})).keys() >= {"checkpoint", "model"}:
            parts.append(f"AP {ap['checkpoint']:.2f} became {ap['model']:.2f}")
        if parts:
            lines.append(f"Certificate of {row.label}, {row.certificate.state}: {', '.join(parts)}.")
    return [bullets(lines)] if lines else []


def _environment(report: BenchmarkReport) -> Markup:
    machine = report.machine
    return facts(
        {
            "Processor": machine["processor"],
            "Cores": machine["cores"],
            "Memory": f"{machine['memory_gib']} GiB" if machine["memory_gib"] is not None else "unknown",
            "System": machine["system"],
            "Python": machine["python"],
            "Packages": ", ".join(f"{name} {version}" for name, version in machine["packages"].items()),
            "Load before": "unknown" if machine["load_average"] is None else machine["load_average"],
            "Matrix product": f"{report.matrix['gmacs_per_s']:.1f} GMAC/s in float32, {report.matrix['runtime']}"
            if report.matrix
            else "not measured",
            "Command": render("<code>{{ command }}</code>", command=report.command),
        }
    )

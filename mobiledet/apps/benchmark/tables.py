"""The report's tables: their columns, for screen and page, and the report as text no wider than 120 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from mobiledet.apps.benchmark.images import size_name
from mobiledet.apps.benchmark.report import STAGES, BenchmarkReport, Row
from mobiledet.utils.text import count, readable_ms, shorten, table

WIDTH = 120
LONGEST_NAME = 26


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, what stands in it, and whether that is text rather than a number."""

    title: str
    cell: Callable[[Row], str]
    text: bool = False


def report_text(report: BenchmarkReport) -> str:
    """The complete report for the screen."""
    machine, settings = report.machine, report.settings
    paragraphs = [
        f"{machine['processor']}, {machine['cores']} cores; {machine['system']}; Python {machine['python']}; "
        f"{run_size(report)}",
        f"milliseconds, {report.images}; stages are for {size_name(settings.sizes[0])}",
    ]
    lines = "\n\n".join(textwrap.fill(line, WIDTH, break_long_words=False) for line in paragraphs).split("\n")
    for columns in (time_columns(report), cost_columns(), model_columns(report)):
        lines += [*table_lines(report.rows, columns), ""]
    for caveat in report.caveats():
        lines.append(textwrap.fill(caveat, WIDTH, initial_indent="- ", subsequent_indent="  "))
    return "\n".join(lines) + "\n"


def run_size(report: BenchmarkReport) -> str:
    """``1 thread, 10 rounds of 5 calls``."""
    settings = report.settings
    return f"{count(settings.threads, 'thread')}, {count(settings.rounds, 'round')} of {count(settings.calls, 'call')}"


def time_columns(report: BenchmarkReport) -> list[Column]:
    """End to end, then by stage, then the other sizes."""

    def latency(name: str) -> Column:
        return Column(name, lambda row: readable_ms(getattr(row.latency, name, None)))

    def size_column(size: str) -> Column:
        return Column(size, lambda row: readable_ms(row.times[size].median if size in row.times else None))

    return [
        *map(latency, ("median", "p90", "p95")),
        Column("vs first", lambda row: f"{row.versus.median:.2f}x" if row.versus else "-"),
        *(Column(name, partial(stage_text, name=name)) for name in STAGES),
        *map(size_column, map(size_name, report.settings.sizes[1:])),
    ]


def cost_columns() -> list[Column]:
    """Work, memory and size."""
    return [
        Column("GMACs", lambda row: _number(row.about.gmacs if row.about else None, ".3f")),
        Column("GMAC/s", lambda row: _number(row.gmacs_per_s, ".1f")),
        Column("% of peak", lambda row: _number(row.matrix_share, ".0%")),
        Column("cores", lambda row: _number(row.cores, ".2f")),
        Column("start ms", lambda row: _number(row.start_ms, ",.0f")),
        Column("peak MiB", lambda row: _number(row.peak_mib, ",.0f")),
        Column("grown MiB", lambda row: _number(row.grown_mib, ",.0f")),
        Column("file MB", lambda row: _number(row.file_bytes and row.file_bytes / 1e6, ".2f")),
    ]


def model_columns(report: BenchmarkReport) -> list[Column]:
    """What each model is, how accurate, and what its certificate says."""
    columns = [
        Column("runtime", lambda row: row.about.runtime if row.about else "-", text=True),
        Column("precision", lambda row: row.about.precision if row.about else "-", text=True),
        Column("input", lambda row: size_name(row.about.input_size) if row.about else "-"),
        Column("certificate", lambda row: row.certificate.state, text=True),
        Column("remark", _remark, text=True),
    ]
    if report.data is not None:
        columns.insert(3, Column("AP", lambda row: _number(row.ap, ".2f")))
    return columns


def table_lines(rows: Sequence[Row], columns: Sequence[Column]) -> list[str]:
    """A table, its columns aligned; those for which there is no room go into another one below."""
    names = ["model", *(shorten(row.label, LONGEST_NAME) for row in rows)]
    cells = [[column.title, *(shorten(column.cell(row), WIDTH // 3) for row in rows)] for column in columns]
    lines: list[str] = []
    first = 0
    while first < len(columns):
        last, used = first, max(map(len, names))
        while last < len(columns) and (last == first or used + 2 + max(map(len, cells[last])) <= WIDTH):
            used += 2 + max(map(len, cells[last]))
            last += 1
        left = [0, *(1 + index for index, column in enumerate(columns[first:last]) if column.text)]
        lines += ["", *table(list(zip(names, *cells[first:last], strict=True)), left)]
        first = last
    return lines[1:]


def stage_text(row: Row, name: str) -> str:
    """Milliseconds of a stage; ``in net`` where it can't be separated from the network."""
    value = row.stages.get(name)
    return "in net" if value is None and name in row.stages else readable_ms(value)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _remark(row: Row) -> str:
    if row.problem:
        return "incomplete, see below" if row.times else "failed, see below"
    return "speed only" if row.about is not None and "random weights" in row.about.note else ""

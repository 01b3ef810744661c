"""The report as text, no line wider than 120 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mobiledet.apps.benchmark.pictures import size_name
from mobiledet.apps.benchmark.report import STAGES, Report, Row
from mobiledet.utils.text import count

WIDTH = 120

LONGEST_NAME = 26


@dataclass(frozen=True)
class Column:
    """A column of a table: its heading, what stands in it, and whether that is text rather than a number."""

    title: str
    cell: Callable[[Row], str]
    text: bool = False


def report_text(report: Report) -> str:
    """The whole report for the screen."""
    first = size_name(report.settings.sizes[0])
    machine = report.machine
    lines = [
        f"{machine['processor']}, {machine['cores']} cores; {machine['system']}; Python {machine['python']}; "
        f"{count(report.settings.threads, 'thread')}, "
        f"{count(report.settings.rounds, 'round')} of {count(report.settings.calls, 'call')}",
        "",
        f"milliseconds, {report.pictures}; stages are for {first}",
        *table_lines(report.rows, time_columns(report)),
        "",
        *table_lines(report.rows, cost_columns()),
        "",
        *table_lines(report.rows, kind_columns(report)),
        "",
    ]
    wrapped = [textwrap.fill(line, WIDTH, break_long_words=False) for line in [lines[0], *lines[2:3]]]
    lines[0], lines[2] = wrapped
    for caveat in report.caveats():
        lines.append(textwrap.fill(caveat, WIDTH, initial_indent="- ", subsequent_indent="  "))
    return "\n".join(lines) + "\n"


def time_columns(report: Report) -> list[Column]:
    """End to end, then by stage, then the other sizes."""
    columns = [
        _milliseconds("median", lambda row: row.latency.median if row.latency else None),
        _milliseconds("p90", lambda row: row.latency.p90 if row.latency else None),
        _milliseconds("p95", lambda row: row.latency.p95 if row.latency else None),
        Column("vs first", lambda row: f"{row.versus.median:.2f}x" if row.versus else "-"),
        *(Column(name, lambda row, name=name: stage_text(row, name)) for name in STAGES),  # type: ignore[misc]
    ]
    for size in map(size_name, report.settings.sizes[1:]):
        columns.append(_milliseconds(size, lambda row, size=size: _median(row, size)))  # type: ignore[misc]
    return columns


def cost_columns() -> list[Column]:
    """Work, memory and size."""
    return [
        Column("GMACs", lambda row: _number(row.about.gmacs if row.about else None, ".3f")),
        Column("GMAC/s", lambda row: _number(row.gmacs_per_s, ".1f")),
        Column("of matmul", lambda row: _number(row.matrix_share, ".0%")),
        Column("cores", lambda row: _number(row.cores, ".2f")),
        Column("start ms", lambda row: _number(row.start_ms, ",.0f")),
        Column("peak MiB", lambda row: _number(row.peak_mib, ",.0f")),
        Column("grown MiB", lambda row: _number(row.grown_mib, ",.0f")),
        Column("file MB", lambda row: _number(row.file_bytes and row.file_bytes / 1e6, ".2f")),
    ]


def kind_columns(report: Report) -> list[Column]:
    """What it is, and what it is worth."""
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
    names = [shorten(row.label, LONGEST_NAME) for row in rows]
    left = max(5, *map(len, names)) if names else 5
    lines: list[str] = []
    rest = list(columns)
    while rest:
        used = left
        chosen: list[tuple[Column, list[str], int]] = []
        while rest:
            cells = [shorten(rest[0].cell(row), WIDTH // 3) for row in rows]
            width = max(map(len, [rest[0].title, *cells]))
            if chosen and used + 2 + width > WIDTH:
                break
            chosen.append((rest.pop(0), cells, width))
            used += 2 + width
        if lines:
            lines.append("")
        for index, name in enumerate(["model", *names]):
            texts = [name.ljust(left)]
            for column, cells, width in chosen:
                text = column.title if index == 0 else cells[index - 1]
                texts.append(text.ljust(width) if column.text else text.rjust(width))
            lines.append("  ".join(texts).rstrip())
    return lines


def stage_text(row: Row, name: str) -> str:
    """Milliseconds of a stage; ``in net`` where it can't be told from the network."""
    if name not in row.stages:
        return "-"
    value = row.stages[name]
    return "in net" if value is None else format_ms(value)


def format_ms(value: float | None) -> str:
    """Three digits, as far as they mean something; ``-`` for None."""
    if value is None:
        return "-"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}" if value < 1000 else f"{value:,.0f}"


def shorten(text: str, length: int) -> str:
    """``text`` on one line of at most ``length`` characters; what is too much is taken from the middle."""
    text = " ".join("".join(char if char.isprintable() else "?" for char in text).split())
    half = (length - 3) // 2
    return text if len(text) <= length else f"{text[: length - 3 - half]}...{text[-half:]}"


def _milliseconds(title: str, value: Callable[[Row], float | None]) -> Column:
    return Column(title, lambda row: format_ms(value(row)))


def _median(row: Row, size: str) -> float | None:
    return row.times[size].median if size in row.times else None


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _remark(row: Row) -> str:
    if row.problem:
        return "incomplete, see below" if row.times else "failed, see below"
    return "speed only" if row.about is not None and "random weights" in row.about.note else ""

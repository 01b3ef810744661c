"""The report as one HTML page that needs nothing but itself: no network, no scripts."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from mobiledet.apps.benchmark.charts import accuracy_chart, latency_chart
from mobiledet.apps.benchmark.pictures import size_name
from mobiledet.apps.benchmark.report import Report, Row
from mobiledet.apps.benchmark.table import LONGEST_NAME, Column, cost_columns, kind_columns, shorten, time_columns
from mobiledet.utils.text import count

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #62696f; --line: #d9dde0; --paper: #ffffff; --tint: #f4f6f7;
  --s0: #7fb069; --s1: #3b76af; --s2: #e0873c; --s3: #a8a29b; --s4: #3b76af; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --soft: #a0a7ad; --line: #3a4047; --paper: #16191c; --tint: #1f2327;
    --s0: #86bd6f; --s1: #5b9bd8; --s2: #ee9a52; --s3: #8d8780; --s4: #5b9bd8; } }
body { margin: 2rem auto; max-width: 72rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
.soft { color: var(--soft); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; font-size: 14px; }
th, td { padding: .3rem .5rem; border-bottom: 1px solid var(--line); text-align: right; }
th { background: var(--tint); font-weight: 600; }
th:first-child, td:first-child, .text { text-align: left; }
.passed { color: #2e8b57; } .failed, .damaged, .forced, .other { color: #d2452f; }
svg { width: 100%; height: auto; font: 12px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
svg text { fill: var(--ink); } svg .small { fill: var(--soft); font-size: 11px; }
.grid { stroke: var(--line); stroke-width: 1; } .whisker { stroke: var(--soft); fill: none; }
.point { fill: var(--s1); } .s0 { fill: var(--s0); } .s1 { fill: var(--s1); } .s2 { fill: var(--s2); }
.s3 { fill: var(--s3); } .s4 { fill: var(--s4); }
code { background: var(--tint); padding: .1rem .3rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem; } dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
"""


def report_page(report: Report) -> str:
    """The page, escaped throughout."""
    first = size_name(report.settings.sizes[0])
    sections = [
        section(
            f"Latency, pictures of {first}",
            latency_chart(report),
            _table(report.rows, [*time_columns(report), *_ranges()]),
            f"Milliseconds, {report.pictures}. The bar is the median of all calls, divided as the stages are.",
        )
    ]
    if report.data is not None:
        told = f"AP in points of 100 on {report.data}."
        sections.append(section("Accuracy and latency", accuracy_chart(report), told))
    sections += [
        section("What they are", _table(report.rows, kind_columns(report)), *_certificates(report)),
        section("Work, memory, size", _table(report.rows, cost_columns())),
        section("To be known", bullets(report.caveats())),
        section("Machine", _machine(report)),
    ]
    about = (
        f"<p>{len(report.rows)} detectors, {count(report.settings.threads, 'thread')}, "
        f"{count(report.settings.rounds, 'round')} of {count(report.settings.calls, 'call')} each.</p>"
    )
    heading = f"Detectors on {report.machine['processor']}"
    return document("mobiledet benchmark", heading, [about, *sections])


def document(title: str, heading: str, parts: Sequence[str], *, style: str = "") -> str:
    """A whole page of the house's style, with more of it in ``style``; ``parts`` are elements, escaped already."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n"
        f"<h1>{escape(heading)}</h1>\n" + "\n".join(parts) + "\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A chapter; parts that aren't elements are paragraphs."""
    inside = "\n".join(part if part.startswith("<") else f"<p>{escape(part)}</p>" for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{inside}\n</section>"


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> str:
    head = "".join(f"<th{_class(column)}>{escape(column.title)}</th>" for column in columns)
    body = []
    for row in rows:
        cells = "".join(_cell(column, row) for column in columns)
        name = escape(shorten(row.label, LONGEST_NAME))
        body.append(f'<tr><td title="{escape(row.label)}">{name}</td>{cells}</tr>')
    return (
        f'<div class="wide"><table><thead><tr><th>model</th>{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'
        "</div>"
    )


def _cell(column: Column, row: Row) -> str:
    text = column.cell(row)
    if column.title == "certificate":
        return f'<td class="text {escape(text.split()[0])}">{escape(text)}</td>'
    return f"<td{_class(column)}>{escape(text)}</td>"


def _class(column: Column) -> str:
    return ' class="text"' if column.text else ""


def _ranges() -> list[Column]:
    def text(row: Row) -> str:
        return f"{row.versus.low:.2f} to {row.versus.high:.2f}" if row.versus else "-"

    return [Column("vs first, 8 of 10 rounds", text)]


def _certificates(report: Report) -> list[str]:
    """A sentence for each certificate with figures."""
    lines = []
    for row in report.rows:
        figures, told = row.certificate.figures, []
        if "matched_share" in figures:
            told.append(f"{figures['matched_share']:.1%} of the checkpoint's detections found again")
        if "largest_box_difference" in figures:
            told.append(f"boxes differ by {figures['largest_box_difference']:.2g} px at most")
        if "largest_score_difference" in figures:
            told.append(f"scores by {figures['largest_score_difference']:.2g}")
        if (ap := figures.get("ap", {})).keys() >= {"checkpoint", "model"}:
            told.append(f"AP {ap['checkpoint']:.2f} became {ap['model']:.2f}")
        if told:
            lines.append(f"Certificate of {row.label}, {row.certificate.state}: {', '.join(told)}.")
    return [bullets(lines)] if lines else []


def bullets(lines: Sequence[str]) -> str:
    """A list of sentences, escaped."""
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>"


def _machine(report: Report) -> str:
    machine = report.machine
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    facts = {
        "Processor": machine["processor"],
        "Cores": machine["cores"],
        "Memory": f"{machine['memory_gib']} GiB" if machine["memory_gib"] is not None else "unknown",
        "System": machine["system"],
        "Python": machine["python"],
        "Packages": packages,
        "Load before": "unknown" if machine["load_average"] is None else machine["load_average"],
        "Matrix product": f"{report.matrix['gmacs_per_s']:.1f} GMAC/s in float32, {report.matrix['runtime']}"
        if report.matrix
        else "not measured",
    }
    entries = "".join(f"<dt>{escape(key)}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items())
    return f"<dl>{entries}<dt>Command</dt><dd><code>{escape(report.command)}</code></dd></dl>"

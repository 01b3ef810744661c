"""Two or more models on the same images: differences with paired intervals, and images where they disagree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mobiledet.apps.report.analysis import Analysis
from mobiledet.apps.report.images import OBJECT_COLORS, PageImages
from mobiledet.apps.report.page import STYLE, colour_legend
from mobiledet.draw.html import Cell, bullets, facts, image_rows, page, render, section, table
from mobiledet.draw.svg import Bar, Curve, bar_chart, curve_chart
from mobiledet.errors import DataError
from mobiledet.evaluation.curves import THRESHOLDS
from mobiledet.evaluation.error_analysis import KINDS
from mobiledet.evaluation.intervals import FIGURES, Interval, interval
from mobiledet.structures import BoolArray
from mobiledet.utils.text import count, readable_ms, shorten

COLORS = ("blue", "orange", "green", "red", "violet", "teal")
"""Of the models, in their order; further ones have the same again."""

SHOWN_IMAGES = 6
"""Images of each direction in which two models disagree."""

_FORMAT = "mobiledet benchmark"


@dataclass(frozen=True)
class Difference:
    """How much higher a figure is than the first model's, and how sure that is; None where it isn't defined.

    The resamples are the same for both models, so what makes images easy or hard for both cancels out.
    """

    value: float | None
    sure: Interval | None

    @property
    def kind(self) -> str:
        """``"good"`` or ``"bad"`` where the interval doesn't hold 0; else nothing."""
        if self.sure is None:
            return ""
        return "good" if self.sure.low > 0 else "bad" if self.sure.high < 0 else ""


def difference(first: Analysis, other: Analysis, name: str = "AP", class_row: int | None = None) -> Difference:
    """Of one of COCO's figures, or of one class's AP, which is never sure where the class is in few images."""
    values, samples = [], []
    for analysis in (first, other):
        metrics = analysis.score.metrics
        values.append(getattr(metrics, name) if class_row is None else metrics.per_class[class_row]["AP"])
        drawn = analysis.sampled
        samples.append(drawn.figures[name] if class_row is None else drawn.classes[:, class_row])
    if values[0] is None or values[1] is None:
        return Difference(None, None)
    both, value = min(map(len, samples)), values[1] - values[0]
    if class_row is not None and first.class_intervals[class_row] is None:  # too few images with this class
        return Difference(value, None)
    return Difference(value, interval(samples[1][:both] - samples[0][:both], value))


def found_objects(analysis: Analysis) -> BoolArray:
    """``(M,)`` which objects a model finds at its threshold."""
    found: BoolArray = analysis.matching.objects.counted.copy()
    found[analysis.missed()] = False
    return found


def disagreements(first: Analysis, other: Analysis, most: int = SHOWN_IMAGES) -> list[tuple[int, int]]:
    """Images where the first model finds most that the other misses: row of the image, and how many objects."""
    only = found_objects(first) & ~found_objects(other)
    counts = np.bincount(first.matching.objects.images[only], minlength=len(first.matching.image_ids))
    return [(row, int(counts[row])) for row in np.argsort(-counts, kind="stable")[:most].tolist() if counts[row]]


def comparison_page(
    analyses: Sequence[Analysis], images: PageImages, benchmarks: Sequence[Mapping[str, Any]] = ()
) -> str:
    """The page, as HTML.

    Args:
        analyses: Of at least two models; the others are compared with the first.
        images: Of the data set.
        benchmarks: Contents of JSON files of ``mobiledet benchmark``.

    Raises:
        DataError: The models were scored on different images.
    """
    first, others = analyses[0], analyses[1:]
    if any(one.score.dataset.fingerprint() != first.score.dataset.fingerprint() for one in others):
        raise DataError("the models were scored on different data; name it for all of them with --data")
    about = facts(
        {
            "Data": first.score.dataset.annotation_file,
            "Size": f"{count(first.score.metrics.images, 'image')}, {count(first.objects, 'object')}, "
            f"{count(len(first.matching.names), 'class', 'classes')}",
        }
    )
    parts = [
        about,
        render('<div class="worth">{{ part }}</div>', part=section("Which is better", bullets(_verdicts(analyses)))),
        _figures(analyses),
        _cost(analyses, benchmarks),
        _curves(analyses),
        _errors(analyses),
        _classes(analyses),
    ]
    for other in others:
        for one, two in ((other, first), (first, other)):
            rows = []
            for row, number in disagreements(one, two):
                pair = [shown for analysis in (one, two) if (shown := images.ground_truth(analysis, row)) is not None]
                name = images.name(int(one.matching.image_ids[row]))
                rows.append((pair, f"{name}: {count(number, 'object')} that only {one.name} finds"))
            if rows:
                title = f"Found by {one.name}, missed by {two.name}"
                text = f"What {one.name} finds on the left, and {two.name} on the right, each at its threshold."
                parts.append(section(title, text, colour_legend(OBJECT_COLORS), image_rows(rows)))
    parts.append(section("How it is computed", bullets(_NOTES)))
    return page("mobiledet: comparison", f"Comparison of {count(len(analyses), 'model')}", parts, style=STYLE)


_NOTES = (
    "Intervals of differences are paired: in each of the resamples both models are scored on the same images "
    "(bootstrap, 95 %). They say whether other images of the same kind would give the same order.",
    "Of 20 classes without any difference, one has an interval that doesn't hold 0 by chance: look at these as a hint.",
    "Precision, recall and what is found are at IoU 0.5, at each model's own confidence threshold with the best F1.",
)


def _verdicts(analyses: Sequence[Analysis]) -> list[str]:
    lines, first = [], analyses[0]
    for other in analyses[1:]:
        found = difference(first, other)
        if found.value is None or found.sure is None:
            lines.append(f"{other.name} and {first.name}: nothing can be said, there is too little to score on.")
            continue
        range_ = f"{found.value:+.3f} AP ({found.sure.low:+.3f} to {found.sure.high:+.3f})"
        if found.kind:
            word = "better" if found.kind == "good" else "worse"
            lines.append(f"{other.name} is {word} than {first.name}: {range_}.")
        else:
            lines.append(
                f"{other.name} and {first.name} can't be told apart on {count(first.score.metrics.images, 'image')}: "
                f"{range_}; choose by cost, or score on more images."
            )
    return lines


def _value(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _difference_cells(found: Difference) -> list[Cell]:
    sure = f"{found.sure.low:+.3f} to {found.sure.high:+.3f}" if found.sure else "-"
    return [Cell("-" if found.value is None else f"{found.value:+.3f}", found.kind), Cell(sure, "soft")]


def _heads(analyses: Sequence[Analysis]) -> list[Cell]:
    heads = [Cell(shorten(analyses[0].name, 30), tip=analyses[0].name)]
    for other in analyses[1:]:
        heads += [Cell(shorten(other.name, 30), tip=other.name), Cell("difference"), Cell("95 % interval")]
    return heads


def _figures(analyses: Sequence[Analysis]) -> Markup:
    rows = []
    for name in FIGURES:
        cells = [Cell(name), Cell(_value(getattr(analyses[0].score.metrics, name)))]
        for other in analyses[1:]:
            cells += [
                Cell(_value(getattr(other.score.metrics, name))),
                *_difference_cells(difference(analyses[0], other, name)),
            ]
        rows.append(cells)
    return section("The figures", table([Cell(""), *_heads(analyses)], rows))


def _classes(analyses: Sequence[Analysis]) -> Markup:
    first, rows = analyses[0], []
    for row, one in enumerate(first.score.metrics.per_class):
        if one["AP"] is None:
            continue
        cells, sort = [Cell(shorten(one["name"], 40)), Cell(f"{one['boxes']:,}"), Cell(_value(one["AP"]))], 0.0
        for other in analyses[1:]:
            found = difference(first, other, class_row=row)
            cells += [Cell(_value(other.score.metrics.per_class[row]["AP"])), *_difference_cells(found)]
            sort = max(sort, abs(found.value or 0.0))
        rows.append((sort, cells))
    rows.sort(key=lambda row: -row[0])
    head = [Cell("class"), Cell("objects"), *_heads(analyses)]
    return section(
        "Classes", "AP of each class, the largest difference first.", table(head, [cells for _, cells in rows])
    )


def _cost(analyses: Sequence[Analysis], benchmarks: Sequence[Mapping[str, Any]]) -> Markup:
    rows, sizes = [], set()
    for analysis in analyses:
        card, timed = analysis.score.card, timing_of(analysis, benchmarks)
        if timed.get("first_size") is not None:
            sizes.add(str(timed["first_size"]))
        times = timed.get("times", {}).get(timed.get("first_size"), {})
        peak = timed.get("peak_mib")
        rows.append(
            [
                Cell(shorten(analysis.name, 40), tip=analysis.name),
                Cell(_value(analysis.score.metrics.AP)),
                Cell(f"{card.resize.size[0]}x{card.resize.size[1]}"),
                Cell(card.precision),
                Cell(f"{card.gmacs:.2f}" if card.gmacs else "-"),
                Cell(f"{timed['file_bytes'] / 2**20:.1f}" if timed.get("file_bytes") else "-"),
                Cell(readable_ms(times.get("median"))),
                Cell(readable_ms(times.get("p95"))),
                Cell("-" if peak is None else f"{peak:.0f}"),
            ]
        )
    head = ("model", "AP", "input", "precision", "GMACs", "file MiB", "median ms", "p95 ms", "peak MiB")
    text = f"Times are from mobiledet benchmark, for images of {', '.join(sorted(sizes))}." if sizes else _NO_TIMES
    return section("Accuracy and cost", table([Cell(text) for text in head], rows), text)


_NO_TIMES = "No times: measure them with mobiledet benchmark A B --json FILE, and add --benchmark FILE here."


def timing_of(analysis: Analysis, benchmarks: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """What a benchmark measured of a model, the last one where several did; empty where none did."""
    own = {_path(name) for name in (analysis.model, analysis.score.record["model"]["file"])}
    found: Mapping[str, Any] = {}
    for benchmark in benchmarks:
        for row in benchmark["models"]:
            if own & {_path(name) for name in (row.get("target"), (row.get("about") or {}).get("file")) if name}:
                found = row
    return found


def _path(name: str) -> str:
    path = Path(name)
    return str(path.resolve()) if path.exists() else name


def check_benchmark(content: Any, place: Path) -> Mapping[str, Any]:
    """The content of a benchmark's JSON file.

    Raises:
        DataError: It is something else.
    """
    if not isinstance(content, dict) or content.get("format") != _FORMAT or not isinstance(content.get("models"), list):
        raise DataError(f"{place} is not a report of mobiledet benchmark; write one with mobiledet benchmark --json")
    return content


def _curves(analyses: Sequence[Analysis]) -> Markup:
    curves = [
        Curve(f"{one.name}: F1", THRESHOLDS.tolist(), one.curves.f1.tolist(), COLORS[row % len(COLORS)], width=1.8)
        for row, one in enumerate(analyses)
    ]
    precision = [
        Curve(
            one.name,
            one.curves.recall[known].tolist(),
            one.curves.precision[known].tolist(),
            COLORS[row % len(COLORS)],
            width=1.8,
        )
        for row, one in enumerate(analyses)
        if len(known := np.flatnonzero(np.isfinite(one.curves.precision)))
    ]
    return section(
        "Precision and recall",
        curve_chart(
            precision, across="recall", up="precision, all classes together, IoU 0.5", title="Precision over recall"
        )
        if precision
        else "There are no detections.",
        curve_chart(
            curves, across="confidence threshold", up="F1, all classes together", title="F1 over the threshold"
        ),
    )


def _errors(analyses: Sequence[Analysis]) -> Markup:
    colors = {f"{row + 1}: {one.name}": COLORS[row % len(COLORS)] for row, one in enumerate(analyses)}
    rows = []
    for number, kind in enumerate(KINDS):
        bars = []
        for name, one in zip(colors, analyses, strict=True):
            cost = 100 * float(one.costs[number])
            bars.append(Bar({name: cost}, f"{cost:.1f}", tips={name: f"{one.name}: {kind.label} {cost:.1f}"}))
        rows.append((kind.label, bars))
    about = "How much AP50 would rise if all errors of one kind were corrected (TIDE)."
    chart = bar_chart(rows, colors, unit="points of AP50", title="AP50 lost by kind of error")
    return section("What the lost AP is lost to", chart, about)

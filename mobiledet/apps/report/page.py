"""The report on one model as an HTML page that needs nothing but itself: no network, no scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath

import numpy as np
from markupsafe import Markup

from mobiledet.apps.report.advice import FEW_IMAGES, next_steps
from mobiledet.apps.report.analysis import Analysis, percent, what_went_wrong, worst_images
from mobiledet.apps.report.images import COLORS, DETECTION_COLORS, MISSED, OBJECT_COLORS, PageImages
from mobiledet.apps.report.suspects import Suspect, SuspectKind
from mobiledet.draw.boxes import Color
from mobiledet.draw.html import Cell, bullets, facts, image_rows, page, render, section, table
from mobiledet.draw.svg import Bar, Curve, bar_chart, curve_chart, matrix_chart
from mobiledet.evaluation.curves import THRESHOLDS, calibration, confusion_matrix
from mobiledet.evaluation.error_analysis import KINDS, PROPERTIES, ErrorKind
from mobiledet.evaluation.intervals import RECALLS, Interval, precision_of
from mobiledet.evaluation.metrics import FIGURE_ROWS
from mobiledet.structures import IntArray
from mobiledet.utils.text import count, listing, shorten

MATRIX_CLASSES = 30
"""Classes in the confusion matrix at most: those with the most confusions."""

LISTED_CURVES = 6
"""Classes up to which each has a curve in a colour of its own."""

SHOWN_SUSPECTS = 16
"""Of each kind, with a picture."""

_CLASS_COLORS = ("orange", "green", "red", "violet", "teal", "gray")
STYLE = """
.worth { border-left: 4px solid var(--blue); background: var(--tint); padding: .1rem 1rem; }
.key { display: inline-block; width: .9em; height: .9em; border: 1px solid var(--ink); vertical-align: -.1em; }
.keys span { margin-right: 1.1em; white-space: nowrap; }
.small .images { grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .8rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
"""


def report_page(analysis: Analysis, images: PageImages, suspects: dict[SuspectKind, list[Suspect]]) -> str:
    """The page, as HTML."""
    score = analysis.score
    about = facts(
        {
            "Model": score.record["model"]["file"],
            "Data": score.dataset.annotation_file,
            "Size": f"{count(score.metrics.images, 'image')}, {count(analysis.objects, 'object')}, "
            f"{count(len(analysis.matching.names), 'class', 'classes')}",
            "Network's input": f"{score.card.resize.size[0]}x{score.card.resize.size[1]} (height x width)",
            "AP": analysis.percent_sure("AP"),
            "Confidence threshold": f"{analysis.threshold:.2f}, where F1 is best"
            if score.threshold is not None
            else f"{analysis.threshold:.2f}, the usual one: there is none with the best F1",
        }
    )
    steps = [_with_code(advice.text) for advice in next_steps(analysis)]
    parts = [
        about,
        render(
            '<div class="worth">{{ part }}</div>', part=section("What to do next", bullets(steps) if steps else _EMPTY)
        ),
        _figures(analysis),
        _curves(analysis),
        _classes(analysis),
        _confusion(analysis),
        _errors(analysis),
        _groups(analysis),
        _calibration(analysis),
        _worst(analysis, images),
        *_suspects(analysis, images, suspects),
        section("How it is computed", bullets(_NOTES)),
    ]
    return page(f"mobiledet: {analysis.name}", f"Evaluation of {analysis.name}", parts, style=STYLE)


_EMPTY = "There are no objects in these images, so nothing can be measured."

_NOTES = (
    "AP and AR are COCO's, as mobiledet eval prints them. In brackets: 95 % bootstrap intervals over images, how far "
    "another set of as many images of the same kind would move a figure; they say nothing about other kinds of images.",
    "Everything but AP is counted at IoU 0.5. Crowds and objects marked ignore or difficult are neither objects nor "
    "mistakes.",
    "Kinds of errors: Bolya et al. 2020, TIDE (arXiv 2008.08115). The AP50 of each is what correcting it alone would "
    "gain; corrections overlap, so they don't add up.",
    "Lost AP by kinds of objects: each object's loss is one less the precision at which it is found (1 where it never "
    "is), averaged over IoU 0.50:0.95; the mean over the objects of each class is its lost AP.",
)


def _figures(analysis: Analysis) -> Markup:
    rows = []
    for left, left_text, right, right_text in FIGURE_ROWS:
        cells = (
            (name, text.replace("100", str(analysis.score.metrics.max_detections)))
            for name, text in ((left, left_text), (right, right_text))
        )
        rows.append([cell for name, text in cells for cell in _figure(analysis, name, text)])
    head = ["", "average precision", "AP", "95 % interval", "", "average recall", "AR", "95 % interval"]
    kinds = ["", "text", "", "", "text", "text", "", ""]
    images, sure = analysis.score.metrics.images, analysis.intervals["AP"]
    text = f"The set has {count(images, 'image')}. "
    if sure is None or images < FEW_IMAGES:
        text += "That is too few, or too little in them, to be sure of the figures."
    else:
        text += (
            f"Another {images:,} images of the same kind would give an AP within about {sure.half:.3f} of this one, "
            "nineteen times out of twenty."
        )
    return section("The figures", text, table([Cell(t, k) for t, k in zip(head, kinds, strict=True)], rows))


def _figure(analysis: Analysis, name: str, text: str) -> list[Cell]:
    value, sure = getattr(analysis.score.metrics, name), analysis.intervals[name]
    return [
        Cell(name, "text"),
        Cell(text, "text soft"),
        Cell("-" if value is None else f"{value:.3f}"),
        Cell(_between(sure if value is not None else None), "soft"),
    ]


def _curves(analysis: Analysis) -> Markup:
    matching = analysis.matching
    precision = precision_of(matching).interpolated()[0]
    known = np.flatnonzero(np.isfinite(precision).all(axis=1))
    if not len(known):
        return section("Precision and recall", _EMPTY)
    few = len(known) <= LISTED_CURVES
    curves = [
        Curve(
            f"{matching.names[row]} (AP50 {precision[row].mean():.3f})",
            RECALLS.tolist(),
            precision[row].tolist(),
            _CLASS_COLORS[place % len(_CLASS_COLORS)] if few else "gray",
            width=1.2 if few else 0.5,
            listed=few,
        )
        for place, row in enumerate(known.tolist())
    ]
    mean = precision[known].mean(axis=0)
    curves.append(
        Curve(f"mean of all classes (AP50 {mean.mean():.3f})", RECALLS.tolist(), mean.tolist(), "blue", width=2.4)
    )
    by_score = [
        Curve(name, THRESHOLDS.tolist(), values.tolist(), color, width=1.8)
        for name, values, color in (
            ("precision", analysis.curves.precision, "orange"),
            ("recall", analysis.curves.recall, "green"),
            ("F1", analysis.curves.f1, "blue"),
        )
    ]
    place = min(100, max(0, round(100 * analysis.threshold)))
    at = (
        f"From {analysis.threshold:.2f} on, {percent(analysis.curves.precision[place])} of the detections are right "
        f"and {percent(analysis.curves.recall[place])} of the objects are found: F1 {analysis.curves.f1[place]:.3f}."
    )
    mark = (
        (analysis.threshold, f"best F1 at {analysis.threshold:.2f}") if analysis.score.threshold is not None else None
    )
    return section(
        "Precision and recall",
        curve_chart(curves, across="recall", up="precision at IoU 0.5", title="Precision over recall by class"),
        "" if few else "Thin lines are the classes; their names and AP50 appear under the mouse.",
        curve_chart(
            by_score, across="confidence threshold", up="all classes, IoU 0.5", title="Over the threshold", mark=mark
        ),
        at if np.isfinite(analysis.curves.precision[place]) else f"Nothing scores {analysis.threshold:.2f} or more.",
    )


def _classes(analysis: Analysis) -> Markup:
    counts, rows = analysis.counts, []
    per_class = analysis.score.metrics.per_class
    order = sorted(
        range(len(per_class)), key=lambda k: -1.0 if per_class[k]["AP"] is None else per_class[k]["AP"] or 0.0
    )
    for k in reversed(order):
        row, sure = per_class[k], analysis.class_intervals[k]
        right, false, objects = int(counts.right[k]), int(counts.false[k]), int(counts.objects[k])
        if not objects and not false:
            continue
        rows.append(
            [
                Cell(shorten(row["name"], 40), tip=row["name"]),
                Cell("-" if row["AP"] is None else f"{row['AP']:.3f}"),
                Cell(_between(sure if row["AP"] is not None else None), "soft"),
                Cell("-" if row["AP50"] is None else f"{row['AP50']:.3f}"),
                Cell(f"{objects:,}"),
                Cell(f"{right:,}"),
                Cell(f"{false:,}"),
                Cell(percent(right / (right + false)) if right + false else "-"),
                Cell(percent(right / objects) if objects else "-"),
                Cell(f"{2 * right / (right + false + objects):.3f}"),
            ]
        )
    head = ("class", "AP", "95 % interval", "AP50", "objects", "right", "false", "precision", "recall", "F1")
    about = (
        f"Right, false, precision, recall and F1 at confidence threshold {analysis.threshold:.2f}, best class first."
    )
    return section("Classes", table([Cell(text) for text in head], rows) if rows else "", about)


def _confusion(analysis: Analysis) -> Markup:
    matrix, names = confusion_matrix(analysis.matching, analysis.threshold), analysis.matching.names
    off = matrix.copy()
    np.fill_diagonal(off, 0)
    used = np.flatnonzero((matrix.sum(axis=0) + matrix.sum(axis=1))[:-1])
    if not len(used):
        return section("Confusion", "No object, and no detection at the threshold.")
    between = off[:-1, :-1].sum(axis=0) + off[:-1, :-1].sum(axis=1)
    chosen = used[np.argsort(-between[used], kind="stable")[:MATRIX_CLASSES]]
    rows: IntArray = np.append(np.sort(chosen), len(names))
    chart = matrix_chart(
        matrix[np.ix_(rows, rows)].tolist(),
        [*(names[row] for row in rows[:-1].tolist()), "background"],
        across="what it is detected as",
        up="what it is",
        title="Confusion matrix",
    )
    pairs = [divmod(int(cell), len(names)) for cell in np.argsort(-off[:-1, :-1].ravel(), kind="stable")[:10]]
    most = [f"{off[i, k]} {names[i]} as {names[k]}" for i, k in pairs if off[i, k]]
    about = (
        f"At confidence threshold {analysis.threshold:.2f} and IoU 0.5. Last row: detections of nothing that is "
        "labelled or still to be found; last column: objects that are missed."
    )
    left_out = f" The {len(chosen)} classes of {len(used)} with the most confusions." if len(chosen) < len(used) else ""
    return section(
        "Confusion", chart, about + left_out, f"Most often: {listing(most, 10)}." if most else "No confusions."
    )


def _errors(analysis: Analysis) -> Markup:
    shown = analysis.matching.scores >= analysis.threshold
    bars, rows = [], []
    for number, kind in enumerate(KINDS):
        cost, sure = analysis.costs[number], analysis.cost_intervals[number]
        between = f" ({max(0, 100 * sure.low):.1f} to {100 * sure.high:.1f})" if sure else ""
        special = kind in (ErrorKind.FALSE_POSITIVES, ErrorKind.FALSE_NEGATIVES)
        tip = f"{kind.label}: {kind.description}"
        color = "for comparison" if special else "kinds of errors"
        bars.append((kind.label, [Bar({color: 100 * cost}, f"{100 * cost:.1f}{between}", tips={color: tip})]))
        if not special:
            kinds = analysis.errors.kinds == number
            all_of = analysis.errors.missed.sum() if kind is ErrorKind.MISSED else kinds.sum()
            here = len(analysis.missed()) if kind is ErrorKind.MISSED else (kinds & shown).sum()
            cells = [f"{all_of:,}", f"{here:,}"]
            rows.append([Cell(kind.label), Cell(kind.description, "text soft"), *(Cell(text) for text in cells)])
    chart = bar_chart(
        bars,
        {"kinds of errors": "red", "for comparison": "gray"},
        unit="points of AP50",
        title="AP50 lost by kind of error",
    )
    head = [Cell("kind"), Cell("what", "text"), Cell("at any score"), Cell(f"at {analysis.threshold:.2f} or more")]
    about = (
        "How much AP50 would rise if all errors of one kind were corrected (TIDE). Missed objects at the threshold "
        "include those that only a weaker or misplaced detection comes near."
    )
    return section("What the lost AP is lost to", chart, about, table(head, rows))


def _groups(analysis: Analysis) -> Markup:
    blocks: list[Markup] = []
    for name, groups in analysis.groups.items():
        if not groups:
            continue
        whole, rows = sum(group.objects for group in groups), []
        for group in groups:
            sure = f"{percent(max(0.0, group.sure.low))} to {percent(min(1.0, group.sure.high))}" if group.sure else "-"
            rows.append(
                [
                    Cell(group.text),
                    Cell(f"{group.objects:,}"),
                    Cell(percent(group.objects / whole)),
                    Cell(percent(group.found)),
                    Cell(f"{group.loss:.3f}"),
                    Cell(percent(group.share)),
                    Cell(sure, "soft"),
                ]
            )
        blocks.append(render("<h3>{{ title }}</h3>", title=PROPERTIES[name]))
        head = ("", "objects", "share of all", "found", "loss of each", "share of the lost AP", "95 % interval")
        blocks.append(table([Cell(text) for text in head], rows))
    about = (
        f"Found at confidence threshold {analysis.threshold:.2f}; 'loss of each' is 1 where no object is ever found."
    )
    return section("On which objects", about, *blocks) if blocks else section("On which objects", _EMPTY)


def _calibration(analysis: Analysis) -> Markup:
    found = calibration(analysis.matching)
    if not len(found.counts):
        return section("Are the scores to be believed?", "There are no detections.")
    curves = [
        Curve("a score is as often right as it says", [0, 1], [0, 1], "gray", width=0.8),
        Curve("measured", found.scores.tolist(), found.right.tolist(), "blue", width=1.8, dots=True),
    ]
    rows = [
        [Cell(f"{score:.2f}"), Cell(percent(right)), Cell(f"{number:,}")]
        for score, right, number in zip(found.scores, found.right, found.counts.tolist(), strict=True)
    ]
    return section(
        "Are the scores to be believed?",
        curve_chart(curves, across="score", up="share that is right", title="Share of right detections over the score"),
        f"Expected calibration error {found.error:.3f}, over {count(int(found.counts.sum()), 'detection')} of score "
        "0.05 or more. Below the gray line, scores promise too much; above it, too little.",
        table([Cell("mean score"), Cell("right"), Cell("detections")], rows),
    )


def _worst(analysis: Analysis, images: PageImages) -> Markup:
    rows = []
    for row in worst_images(analysis):
        shown = (images.ground_truth(analysis, row), images.detections(analysis, row))
        if pair := [one for one in shown if one is not None]:
            rows.append((pair, f"{pair[0][0].rpartition(', ')[0]}: {what_went_wrong(analysis, row)}"))
    if not rows:
        return section("The worst images", "There is no mistake in any image.")
    about = (
        f"{count(len(rows), 'image')} with the most mistakes, weighed by their share: ground truth on the left, "
        f"detections from {analysis.threshold:.2f} on on the right."
    )
    return section("The worst images", about, colour_legend({**OBJECT_COLORS, **DETECTION_COLORS}), image_rows(rows))


def colour_legend(colors: Mapping[str, Color]) -> Markup:
    """What colours of boxes mean."""
    return render(
        '<p class="keys soft">{% for name, color in colors.items() %}<span><i class="key" style="background: '
        'rgb{{ color }}"></i> {{ name }}</span> {% endfor %}</p>',
        colors=colors,
    )


def _suspects(analysis: Analysis, images: PageImages, suspects: dict[SuspectKind, list[Suspect]]) -> Sequence[Markup]:
    names, blocks = analysis.matching.names, list[Markup]()
    colors = {SuspectKind.UNLABELLED: COLORS[KINDS.index(ErrorKind.BACKGROUND)], SuspectKind.NEVER_FOUND: MISSED}
    for kind, found in suspects.items():
        if not found:
            continue
        rows = []
        for one in found[:SHOWN_SUSPECTS]:
            color = colors.get(kind, COLORS[KINDS.index(ErrorKind.CLASSIFICATION)])
            text = names[one.class_row] + ("" if one.score is None else f" {one.score:.2f}")
            if kind is SuspectKind.OTHER_CLASS and one.labelled_row is not None:
                text += f", labelled {names[one.labelled_row]}"
            text += f", {PurePath(images.name(one.image_id)).name}"
            if crop := images.crop(one.image_id, one.box, color):
                rows.append(([(text, crop)], text))
        blocks.append(render("<h3>{{ title }} ({{ n }})</h3>", title=kind.text, n=f"{len(found):,}"))
        blocks.append(render('<div class="small">{{ rows }}</div>', rows=image_rows(rows)))
    about = (
        "Where model and labels disagree one of them is wrong. mobiledet eval --suspects FOLDER writes all of these as "
        "a table, as COCO results and as predictions for Label Studio, to look through and take over."
    )
    return [section("Suspected label errors", about if blocks else "None.", *blocks)]


def _between(sure: Interval | None) -> str:
    """An interval of a figure; "-" also where all resamples are equal, which happens where there is hardly anything."""
    if sure is None or sure.high - sure.low < 1e-9:
        return "-"
    return f"{max(0.0, sure.low):.3f} to {min(1.0, sure.high):.3f}"


def _with_code(text: str) -> Markup:
    """What stands between backticks, as code."""
    parts = text.split("`")
    return render(
        "{% for part in parts %}{% if loop.index is even %}<code>{{ part }}</code>{% else %}{{ part }}{% endif %}"
        "{% endfor %}",
        parts=parts,
    )

"""What to do next: sentences computed from an analysis, each with its number and tied to an option that exists.

A rule gives its sentence only where the figures carry it: enough objects or detections, and the near end of the
bootstrap interval beyond a bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from mobiledet.apps.report.analysis import Analysis, percent
from mobiledet.evaluation.curves import confusion_matrix
from mobiledet.evaluation.error_analysis import KINDS, SMALL_SIDES, ErrorKind, Group, group_text, object_properties
from mobiledet.evaluation.thresholds import DEFAULT_THRESHOLD
from mobiledet.utils.text import count

ENOUGH = 30
"""Objects from which on a rule looks at a group."""

ENOUGH_ERRORS = 20
"""Wrong detections at the threshold from which on a rule looks at a kind of errors."""

FEW_IMAGES = 20
"""Images below which an interval is itself a rough guess."""

MOST = 6
"""Sentences at most."""

MOST_ENLARGED = 1.75
"""No larger input than by this factor is recommended: costs rise by its square."""


WORTHWHILE = 0.25
"""Share of the small objects that a larger input must lift out of this size."""


class Rule(Enum):
    """Kinds of sentences; the value stays the same between versions."""

    SMALL_OBJECTS = "small-objects"
    UNLABELLED = "unlabelled"
    CONFUSION = "confusion"
    LOCALISATION = "localisation"
    DUPLICATES = "duplicates"
    OVERLAPPING = "overlapping"
    AT_BORDER = "at-border"
    DARK = "dark"
    WEAK_CLASSES = "weak-classes"
    LARGEST = "largest"
    THRESHOLD = "threshold"
    CERTAINTY = "certainty"


@dataclass(frozen=True)
class Advice:
    """A sentence, and how much AP (0..1) speaks for it."""

    rule: Rule
    text: str
    weight: float = 0.0


def next_steps(analysis: Analysis) -> list[Advice]:
    """Up to six sentences: what costs most, up to three remedies by how much speaks for them, threshold, certainty."""
    if not analysis.objects:
        return []
    remedies = [advice for rule in _REMEDIES if (advice := rule(analysis)) is not None]
    remedies.sort(key=lambda advice: -advice.weight)
    always = [_largest(analysis), *remedies[: MOST - 3], _threshold(analysis), _certainty(analysis)]
    return [advice for advice in always if advice is not None]


def _points(value: float) -> str:
    return f"{100 * value:.1f}"


def _range(analysis: Analysis, kind: ErrorKind) -> str:
    value, sure = analysis.cost(kind)
    return f"{_points(value)} points of AP50 ({_points(max(0.0, sure.low))} to {_points(sure.high)})"


def _shown(analysis: Analysis, kind: ErrorKind) -> int:
    """How many detections at the threshold are errors of a kind."""
    return int((analysis.errors.kinds[analysis.wrong()] == KINDS.index(kind)).sum())


def _setting(analysis: Analysis, *keys: str, default: Any = None) -> Any:
    """A setting of the recipe that the model was trained with."""
    value: Any = analysis.score.card.config
    for key in keys:
        if not isinstance(value, dict) or key not in value:
            return default
        value = value[key]
    return value


def _largest(analysis: Analysis) -> Advice | None:
    main = [kind for kind in KINDS if kind not in (ErrorKind.FALSE_POSITIVES, ErrorKind.FALSE_NEGATIVES)]
    kind = max(main, key=lambda one: analysis.cost(one)[0])
    if analysis.cost(kind)[1].low <= 0:
        return None
    return Advice(
        Rule.LARGEST,
        f"The most AP50 is lost to errors of the kind '{kind.label}' ({kind.description}): {_range(analysis, kind)}.",
    )


def _group(analysis: Analysis, name: str, number: int) -> Group | None:
    """A group of objects, by its place among all groups of a property, if there are enough of them."""
    wanted = group_text(name, number)
    found = next((group for group in analysis.groups.get(name, ()) if group.text == wanted), None)
    return found if found is not None and found.objects >= ENOUGH else None


def _costly(group: Group | None, *, share: float, beyond: float) -> bool:
    """Whether surely that share of the loss is on a group, and an object of it loses that many times what others do."""
    if group is None or group.sure is None or group.beyond is None:
        return False
    return group.sure.low >= share and group.beyond.low >= beyond


def _share(group: Group) -> str:
    low, high = (group.sure.low, group.sure.high) if group.sure else (0.0, 1.0)
    return f"{percent(group.share)} of the lost AP ({percent(low)} to {percent(high)})"


def _lost_ap(analysis: Analysis, group: Group) -> float:
    """How much AP is lost on a group."""
    return group.share * (1 - (analysis.score.metrics.AP or 0.0))


def _small_objects(analysis: Analysis) -> Advice | None:
    sizes, resize = analysis.matching.sizes, analysis.score.card.resize
    own = math.sqrt(float(np.median(sizes.prod(axis=1))))
    now = math.sqrt(resize.size[0] * resize.size[1])
    factor = min(MOST_ENLARGED, own / now)
    if factor < 1.2:  # the images themselves have no more pixels to show
        return None
    height, width = (32 * max(1, round(side * factor / 32)) for side in resize.size)
    grown = math.sqrt(height * width) / now
    sides = object_properties(analysis.matching, resize, {})["size"]
    for place, side in enumerate(SMALL_SIDES):
        group = _group(analysis, "size", place)
        if group is None or not _costly(group, share=0.1, beyond=1.1):
            continue
        lifted = float((sides[group.mask] * grown >= side).mean())
        if lifted >= WORTHWHILE:
            return Advice(
                Rule.SMALL_OBJECTS,
                f"{_share(group)} is on the {group.objects:,} small objects ({group.text} at this input size): "
                f"training with `model.input_size={height},{width}` makes {percent(lifted)} of them larger than {side} "
                f"px, at about {grown**2:.1f} times the cost.",
                _lost_ap(analysis, group),
            )
    return None


def _unlabelled(analysis: Analysis) -> Advice | None:
    number = _shown(analysis, ErrorKind.BACKGROUND)
    value, sure = analysis.cost(ErrorKind.BACKGROUND)
    if number < ENOUGH_ERRORS or sure.low < 0.01:
        return None
    return Advice(
        Rule.UNLABELLED,
        f"{number:,} detections at {analysis.threshold:.2f} or more lie where nothing is labelled, and background "
        f"errors cost {_range(analysis, ErrorKind.BACKGROUND)}: look at them below; `--suspects FOLDER` hands those "
        "that are objects to a labelling tool, and those that aren't need more images like them in training.",
        value,
    )


def _confusion(analysis: Analysis) -> Advice | None:
    value, sure = analysis.cost(ErrorKind.CLASSIFICATION)
    matrix = confusion_matrix(analysis.matching, analysis.threshold)[:-1, :-1].copy()
    np.fill_diagonal(matrix, 0)
    if not matrix.size or sure.low < 0.005:
        return None
    truth, taken = divmod(int(matrix.argmax()), len(matrix))
    number, objects = int(matrix[truth, taken]), int(analysis.counts.objects[truth])
    if number < 5 or _least_share(number, objects) < 0.1:
        return None
    names = analysis.matching.names
    return Advice(
        Rule.CONFUSION,
        f"{number} of {objects:,} objects of class '{names[truth]}' are detected as '{names[taken]}', and wrong "
        f"classes cost {_range(analysis, ErrorKind.CLASSIFICATION)}: check their "
        "labels (`--suspects FOLDER`), and train on more images with both.",
        value,
    )


def _least_share(number: int, of: int) -> float:
    """The lower end of Wilson's 95 % interval of a share."""
    share, z = number / of, 1.96
    middle = share + z * z / (2 * of)
    return (middle - z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))) / (1 + z * z / of)


def _localisation(analysis: Analysis) -> Advice | None:
    value, sure = analysis.cost(ErrorKind.LOCALISATION)
    others = [analysis.cost(kind)[0] for kind in (ErrorKind.CLASSIFICATION, ErrorKind.BACKGROUND, ErrorKind.MISSED)]
    if _shown(analysis, ErrorKind.LOCALISATION) < ENOUGH_ERRORS or sure.low < 0.03 or value < max(others):
        return None
    return Advice(
        Rule.LOCALISATION,
        f"Boxes that are too far off cost {_range(analysis, ErrorKind.LOCALISATION)}, more than any other kind: "
        "`mobiledet check` on the training data says whether the anchors fit its boxes.",
        value,
    )


def _duplicates(analysis: Analysis) -> Advice | None:
    value, sure = analysis.cost(ErrorKind.DUPLICATE)
    now = analysis.score.card.iou_threshold
    if _shown(analysis, ErrorKind.DUPLICATE) < ENOUGH_ERRORS or sure.low < 0.01 or now <= 0.4:
        return None
    return Advice(
        Rule.DUPLICATES,
        f"Second boxes on objects that are found cost {_range(analysis, ErrorKind.DUPLICATE)}: suppress more of them "
        f"with `model.postprocess.iou_threshold={now - 0.1:.2g}` (now {now:.2g}).",
        value,
    )


def _overlapping(analysis: Analysis) -> Advice | None:
    group, now = _group(analysis, "overlap", 2), analysis.score.card.iou_threshold
    if group is None or not _costly(group, share=0.05, beyond=1.25) or now >= 0.7:
        return None
    return Advice(
        Rule.OVERLAPPING,
        f"{_share(group)} is on the {group.objects:,} objects that overlap another one by IoU 0.3 or more; suppression "
        f"may remove their boxes: try `model.postprocess.iou_threshold=0.7` (now {now:.2g}).",
        _lost_ap(analysis, group),
    )


def _at_border(analysis: Analysis) -> Advice | None:
    group, now = _group(analysis, "border", 0), _setting(analysis, "data", "augment", "crop")
    if group is None or not _costly(group, share=0.05, beyond=1.25) or now is None or now >= 0.5:
        return None
    return Advice(
        Rule.AT_BORDER,
        f"{_share(group)} is on the {group.objects:,} objects that the image's border cuts: `data.augment.crop=0.5` "
        f"(now {now:g}) shows training more of these.",
        _lost_ap(analysis, group),
    )


def _dark(analysis: Analysis) -> Advice | None:
    group, now = _group(analysis, "brightness", 0), _setting(analysis, "data", "augment", "color")
    if group is None or not _costly(group, share=0.05, beyond=1.25) or now is None or now >= 0.8:
        return None
    return Advice(
        Rule.DARK,
        f"{_share(group)} is on the {group.objects:,} objects in dark images: `data.augment.color=0.8` (now {now:g}) "
        "varies brightness more, and more dark images in training help further.",
        _lost_ap(analysis, group),
    )


def _weak_classes(analysis: Analysis) -> Advice | None:
    whole, weak = analysis.score.metrics.AP or 0.0, []
    for row, sure in zip(analysis.score.metrics.per_class, analysis.class_intervals, strict=True):
        if sure is not None and row["AP"] is not None and row["boxes"] >= ENOUGH and sure.high < whole / 2:
            weak.append((row["AP"], row["name"], row["boxes"]))
    if not weak:
        return None
    weak.sort()
    listed = ", ".join(f"'{name}' {value:.3f} ({boxes} objects)" for value, name, boxes in weak[:3])
    return Advice(
        Rule.WEAK_CLASSES,
        f"{count(len(weak), 'class', 'classes')} with enough objects to be sure: AP below half the mean, {whole:.3f}; "
        f"weakest are {listed}. `mobiledet check` says how many boxes of them there are to train on.",
        sum(whole - value for value, _, _ in weak) / len(analysis.matching.names),
    )


def _threshold(analysis: Analysis) -> Advice | None:
    if analysis.score.threshold is None:
        return None
    right, false, objects = (
        int(v.sum()) for v in (analysis.counts.right, analysis.counts.false, analysis.counts.objects)
    )
    place = round(100 * DEFAULT_THRESHOLD)
    usual = f"; at {DEFAULT_THRESHOLD:g}, {percent(analysis.curves.recall[place])} of the objects would be"
    return Advice(
        Rule.THRESHOLD,
        f"Show detections from {analysis.threshold:.2f} on (`--threshold {analysis.threshold:.2f}` of predict and "
        f"webcam): there {percent(right / max(1, right + false))} of them are right and {percent(right / objects)} of "
        f"the objects are found{usual if abs(analysis.threshold - DEFAULT_THRESHOLD) >= 0.1 else ''}.",
    )


def _certainty(analysis: Analysis) -> Advice | None:
    sure, images = analysis.intervals["AP"], len(analysis.matching.image_ids)
    if sure is None:
        return None
    wanted = 0.02
    if images < FEW_IMAGES:
        return Advice(
            Rule.CERTAINTY,
            f"{count(images, 'image')} are too few to be sure of anything here: by chance alone AP moves by "
            f"±{sure.half:.3f} or more. Label more for validation before you compare settings.",
        )
    more = (
        f"; about {images * (sure.half / wanted) ** 2:,.0f} images would make it ±{wanted:g}"
        if sure.half > wanted
        else ""
    )
    return Advice(
        Rule.CERTAINTY,
        f"With {images:,} images AP is sure to about ±{sure.half:.3f}{more}. To choose between two models, name both "
        "in one `mobiledet eval A B --report FILE`: compared image by image they need fewer.",
    )


_REMEDIES: tuple[Callable[[Analysis], Advice | None], ...] = (
    _small_objects,
    _unlabelled,
    _confusion,
    _localisation,
    _duplicates,
    _overlapping,
    _at_border,
    _dark,
    _weak_classes,
)

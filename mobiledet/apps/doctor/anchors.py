"""Boxes and anchors: those of the recipe that is going to be trained, at its input, at larger ones, and better ones.

A box overlaps the anchors of one shape best at the grid point nearest to its centre, since the overlap falls with the
distance along either axis. So the best of some thousand anchors is found among one per map and shape, exactly, and
without building the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.recipe import JudgedRecipe
from mobiledet.apps.doctor.report import Code, Section, percent
from mobiledet.config import ModelConfig
from mobiledet.models.base import BaseHeadConfig
from mobiledet.structures import BoolArray, FloatArray, Size
from mobiledet.utils.text import count

ACCEPTED = 0.05  # share of boxes that may stay without a matching anchor, or tiny
RARE = 10  # boxes of a class below which it weighs less than others
TINY = 8  # a box narrower or lower than this many network pixels is hard to detect
_FACTORS = (1.25, 1.5, 2.0)  # of the input's sides that are tried
_SAMPLE = 8000  # boxes that a search looks at
_STEP = 0.01  # share of boxes that a change of the anchors must bring
_WORTH = 0.03  # share of boxes that advice must bring
_WORTH_A_HEAD = 0.2  # the same of other anchors than those that a trained head has learned with
_GROUPS = (0, 8, 16, 32, 64, 128, np.inf)


@dataclass(frozen=True)
class AnchorGrid:
    """The anchors of one map in network pixels: ``(shapes,)`` sizes at ``(columns,)`` x ``(rows,)`` grid points."""

    centre_x: FloatArray
    centre_y: FloatArray
    widths: FloatArray
    heights: FloatArray


def anchor_grids(head: BaseHeadConfig, network_size: Size, image_size: Size | None = None) -> list[AnchorGrid]:
    """The anchors of each map in an image of a size, as training makes them; none of a head without any."""
    grids = []
    for anchors in head.anchor_maps(network_size, image_size or network_size):
        boxes = anchors.numpy()
        centres = (boxes[..., 0, :2] + boxes[..., 0, 2:]) / 2
        widths, heights = (boxes[0, 0, :, 2:] - boxes[0, 0, :, :2]).T
        grids.append(AnchorGrid(centres[0, :, 0], centres[:, 0, 1], widths, heights))
    return grids


def best_overlaps(boxes: FloatArray, grids: Sequence[AnchorGrid]) -> FloatArray:
    """For each box ``(M, 4)`` in network pixels its highest IoU with any anchor: ``(M,)`` in ``[0, 1]``."""
    best = np.zeros(len(boxes), np.float32)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    for grid in grids:
        x = _nearest(grid.centre_x, (boxes[:, 0] + boxes[:, 2]) / np.float32(2))
        y = _nearest(grid.centre_y, (boxes[:, 1] + boxes[:, 3]) / np.float32(2))
        for width, height in zip(grid.widths, grid.heights, strict=True):
            shared_x = np.minimum(boxes[:, 2], x + width / 2) - np.maximum(boxes[:, 0], x - width / 2)
            shared_y = np.minimum(boxes[:, 3], y + height / 2) - np.maximum(boxes[:, 1], y - height / 2)
            shared = np.maximum(shared_x, 0) * np.maximum(shared_y, 0)
            np.maximum(best, shared / (areas + width * height - shared), out=best)
    return best


def best_shape_overlaps(boxes: FloatArray, grids: Sequence[AnchorGrid]) -> FloatArray:
    """As `best_overlaps` if there were a grid point in the centre of every box: no finer grid can do better."""
    best = np.zeros(len(boxes), np.float32)
    wide, high = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    for grid in grids:
        for width, height in zip(grid.widths, grid.heights, strict=True):
            shared = np.minimum(wide, width) * np.minimum(high, height)
            np.maximum(best, shared / (wide * high + width * height - shared), out=best)
    return best


def _nearest(centres: FloatArray, values: FloatArray) -> FloatArray:
    """The entry of ascending, evenly spaced ``centres`` nearest to each value."""
    if len(centres) == 1:
        return np.broadcast_to(centres, values.shape)
    step = (centres[-1] - centres[0]) / (len(centres) - 1)
    index = np.clip(np.rint((values - centres[0]) / step), 0, len(centres) - 1).astype(np.int64)
    nearest: FloatArray = centres[index]
    return nearest


@dataclass(frozen=True)
class Fit:
    """How well the anchors of a recipe, perhaps with further options, fit the boxes.

    Attributes:
        options: what is added to the recipe, as ``key=value``; empty for nothing.
        size: ``(height, width)`` of the network's input.
        input: the input in words.
        pixels: of an image in the network, in the mean; multiply-adds are proportional to them.
        unmatched: share of boxes that no anchor overlaps enough; this and the next are means over the classes.
        misshapen: share of boxes whose size and shape no anchor has, wherever it stands: more pixels don't help these.
        tiny: share of boxes narrower or lower than `TINY` network pixels.
    """

    options: str
    size: Size
    input: str
    pixels: float
    unmatched: float
    misshapen: float
    tiny: float

    @property
    def sufficient(self) -> bool:
        """Whether nearly all boxes are matched and large enough."""
        return self.unmatched <= ACCEPTED and self.tiny <= ACCEPTED

    @property
    def lacking(self) -> float:
        """What is to be made small: boxes without an anchor, and tiny ones."""
        return self.unmatched + self.tiny


@dataclass(frozen=True)
class Boxes:
    """The boxes of a data set inside a network.

    Attributes:
        xyxy: ``(M, 4)`` in network pixels, of all boxes but crowds, in order.
        weights: ``(M,)``; each class weighs the same, as in the AP, but for one of fewer than `RARE` boxes.
        extent: ``(height, width)`` that holds every image.
        pixels: of an image, in the mean.
    """

    xyxy: FloatArray
    weights: FloatArray
    extent: Size
    pixels: float

    def share(self, mask: BoolArray) -> float:
        """Share of the boxes for which ``(M,)`` is true."""
        return float(np.average(mask, weights=self.weights))


def boxes_in_network(collection: Collection, model: ModelConfig) -> Boxes:
    """The boxes as the network of a model, complete, sees them."""
    sizes, which = np.unique(collection.sizes, axis=0, return_inverse=True)
    inside = np.array([model.resize_rule((height, width)) for height, width in sizes.tolist()], np.float64)
    inside = inside.reshape(-1, 2)[which.ravel()]
    real = ~collection.iscrowd
    scale = (inside / collection.sizes)[collection.image[real]][:, [1, 0, 1, 0]]
    height, width = inside.max(axis=0, initial=1).astype(int).tolist()
    pixels = float(inside.prod(axis=1).mean()) if len(inside) else 1.0
    labels = collection.labels[real]
    weights = 1 / np.maximum(np.bincount(labels), RARE)[labels]
    xyxy = (collection.boxes[real] * scale).astype(np.float32)
    return Boxes(xyxy, weights.astype(np.float32), (height, width), pixels)


def fit_boxes(boxes: Boxes, model: ModelConfig, options: str = "") -> Fit:
    """How well boxes, at least one, are covered by the anchors of a model; ``options`` say what made it."""
    grids, least = anchor_grids(model.head, model.network_size, boxes.extent), model.head.anchor_iou
    rule = model.resize_rule
    sides = (boxes.xyxy[:, 2:] - boxes.xyxy[:, :2]).min(axis=1)
    return Fit(
        options,
        model.network_size,
        "x".join(map(str, model.network_size)) if rule.fixed else f"shorter side {min(rule.size)}",
        boxes.pixels,
        boxes.share(best_overlaps(boxes.xyxy, grids) < least),
        boxes.share(best_shape_overlaps(boxes.xyxy, grids) < least),
        boxes.share(sides < TINY),
    )


def better_anchors(boxes: Boxes, model: ModelConfig) -> str:
    """Options that match more boxes at the same input; empty where none do.

    Searched greedily on a sample, as long as a step matches 1 % more of the boxes.
    """
    step = max(1, len(boxes.xyxy) // _SAMPLE)
    sample = replace(boxes, xyxy=boxes.xyxy[::step], weights=boxes.weights[::step])

    def missed(head: BaseHeadConfig) -> float:
        grids = anchor_grids(head, model.network_size, boxes.extent)
        return sample.share(best_overlaps(sample.xyxy, grids) < head.anchor_iou)

    best, least = model.head, missed(model.head)
    while least > ACCEPTED / 2 and (changes := best.anchor_changes()):
        trials = [best.model_copy(update=change) for change in changes]
        scores = [missed(trial) for trial in trials]
        step = int(np.argmin(scores))
        if least - scores[step] < _STEP:
            break
        best, least = trials[step], scores[step]
    changed = [name for name in type(best).model_fields if getattr(best, name) != getattr(model.head, name)]
    return " ".join(f"model.head.{name}={_value(getattr(best, name))}" for name in changed)


def _value(value: Any) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, tuple):
        return ",".join(map(_value, value))
    return str(value).lower() if isinstance(value, bool) else f"{value:.4g}"


def describe_inputs(collection: Collection, recipe: JudgedRecipe) -> Section:
    """Boxes and anchors of the recipe, with larger inputs, and with better anchors."""
    section = Section("Boxes and anchors")
    model = recipe.model()
    boxes = boxes_in_network(collection, model)
    section.data = {"recipe": recipe.name, "input_size": list(model.network_size), "match_iou": model.head.anchor_iou}
    if not len(boxes.xyxy) or not anchor_grids(model.head, model.network_size):
        what = "boxes to compare with the anchors" if not len(boxes.xyxy) else "anchors in this head to compare with"
        section.say(f"There are no {what}.")
        return section
    overlaps = best_overlaps(boxes.xyxy, anchor_grids(model.head, model.network_size, boxes.extent))
    unmatched = overlaps < model.head.anchor_iou
    here = fit_boxes(boxes, model)
    low, middle = np.percentile(overlaps, (10, 50))
    side = " (height x width)" if model.resize_rule.fixed else ""
    section.say(
        f"{recipe.name} trains at {here.input} pixels{side}. There {percent(1 - float(unmatched.mean()))} of "
        f"{count(len(overlaps), 'box', 'boxes')} get an anchor: one that overlaps them by IoU "
        f"{model.head.anchor_iou:g} or more. Each of the others is given the best anchor that is left, from which the "
        f"network learns little. Best IoU with an anchor: median {middle:.2f}, below {low:.2f} for 10 % of the boxes."
    )
    section.data |= {"unmatched": here.unmatched, "misshapen": here.misshapen, "tiny": here.tiny}
    section.data["best_iou"] = {f"p{q}": round(float(np.percentile(overlaps, q)), 4) for q in (5, 10, 25, 50, 75, 90)}
    _by_size(section, boxes.xyxy, unmatched)
    _by_class(section, collection, boxes.xyxy, unmatched)
    words = better_anchors(boxes, model) if here.unmatched > ACCEPTED else ""
    inputs = ["", *(recipe.larger_input(factor) for factor in _FACTORS)]
    fits = [_trial(collection, recipe, size) for size in inputs]
    others = [_trial(collection, recipe, f"{size} {words}") for size in inputs] if words else []
    if words and here.unmatched - others[0].unmatched < (_WORTH_A_HEAD if recipe.head_is_trained else _WORTH):
        others = []
    _other_inputs(section, fits, others)
    _advise(section, boxes.xyxy, fits, others[0] if others else None, recipe)
    return section


def _trial(collection: Collection, recipe: JudgedRecipe, options: str) -> Fit:
    model = recipe.model(*options.split())
    return fit_boxes(boxes_in_network(collection, model), model, options.strip())


def _by_size(section: Section, boxes: FloatArray, unmatched: BoolArray) -> None:
    extent = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    rows = []
    section.data["by_size"] = []
    for low, high in pairwise(_GROUPS):
        inside = (extent >= low) & (extent < high)
        name = f"{low:g} to {high:g}" if np.isfinite(high) else f"{low:g} and more"
        if inside.any():
            share = float(unmatched[inside].mean())
            rows.append((name, f"{inside.sum():,}", percent(float(inside.mean())), percent(share)))
            section.data["by_size"].append({"size": name, "boxes": int(inside.sum()), "unmatched": share})
    section.show(("size (square root of area, network pixels)", "boxes", "of all", "without anchor"), rows)


def _by_class(section: Section, collection: Collection, boxes: FloatArray, unmatched: BoolArray) -> None:
    labels = collection.labels[~collection.iscrowd]
    wide_high = boxes[:, 2:] - boxes[:, :2]
    rows = []
    section.data["by_class"] = {}
    for k, name in enumerate(collection.names, 1):
        own = labels == k
        if own.any():
            share = float(unmatched[own].mean())
            wide, high = np.median(wide_high[own], axis=0)
            rows.append((share, (name, f"{own.sum():,}", f"{wide:.0f} x {high:.0f}", percent(share))))
            section.data["by_class"][name] = {"boxes": int(own.sum()), "unmatched": share}
    rows.sort(key=lambda row: -row[0])
    worst = [cells for _, cells in rows[:15]]
    section.show(("class", "boxes", "median width x height", "without anchor"), worst)
    if rest := rows[15:]:
        section.say(f"and {len(rest)} classes with fewer boxes without anchor; report.json has all")


def _other_inputs(section: Section, fits: Sequence[Fit], others: Sequence[Fit]) -> None:
    """A table of the recipe's input and larger ones, with its anchors and, where there are any, with better ones."""
    rows = [["input", "cost", "with an anchor", "wrong shape", f"under {TINY} pixels"]]
    if others:
        rows[0].insert(3, "with better anchors")
    section.data["inputs"] = []
    for row, fit in enumerate(fits):
        cost = fit.pixels / fits[0].pixels
        matched = [percent(1 - each.unmatched) for each in (fit, *others[row : row + 1])]
        mark = "" if row else " (the recipe's)"
        rows.append([f"{fit.input}{mark}", f"{cost:.2f}", *matched, percent(fit.misshapen), percent(fit.tiny)])
        shares = {"unmatched": fit.unmatched, "misshapen": fit.misshapen, "tiny": fit.tiny}
        better = {"unmatched_better_anchors": (others or fits)[row].unmatched}
        section.data["inputs"].append({"size": list(fit.size), "cost": round(cost, 4), **shares, **better})
    section.say(
        "The recipe's input and larger ones; shares of boxes are means over the classes, as AP is. Cost is the number "
        "of input pixels, to which multiply-adds are proportional. A box of the wrong shape matches none of these "
        "anchors wherever they stand, so that more pixels alone don't help it:"
    )
    section.show(rows[0], rows[1:])


def _advise(section: Section, boxes: FloatArray, fits: Sequence[Fit], better: Fit | None, recipe: JudgedRecipe) -> None:
    """What to add to the recipe: a larger input, other anchors; each with what it brings."""
    here = fits[0]
    matched = f"{percent(1 - here.unmatched)} of the boxes (mean of the classes) get an anchor at {here.input}"
    larger = _cheapest(fits)
    section.data["recommended_input"] = list((larger or here).size)
    section.data["anchors"] = {"overrides": better.options, "unmatched": better.unmatched} if better else None
    if here.sufficient or not (larger or better):
        rest = "" if here.sufficient else "; no larger input or other anchors tried do much better"
        section.find(Code.INPUT_SIZE_SUITS, f"{matched}, and {percent(here.tiny)} are under {TINY} pixels{rest}")
        return
    if larger is not None:
        tiny = f", {percent(larger.tiny)} instead of {percent(here.tiny)} under {TINY} pixels" if here.tiny else ""
        remedy = f"{_gain(larger, here)}{tiny}, at {larger.pixels / here.pixels:.1f} times the cost"
        section.find(Code.INPUT_SIZE, f"{matched}, and {percent(here.tiny)} are under {TINY} pixels", remedy)
    if better is not None:
        wide, high = (boxes[:, 2:] - boxes[:, :2]).T
        long = float(((wide > 3.5 * high) | (high > 3.5 * wide)).mean())
        shapes = f" ({percent(long)} have one side more than 3.5 times as long as the other)" if long > ACCEPTED else ""
        cause = (
            f"the anchors are the problem rather than the pixels: {percent(here.misshapen)} of the boxes have a size "
            f"or shape that none of the anchors has{shapes}"
            if here.misshapen >= here.unmatched / 2
            else f"the grid is too coarse for {percent(here.unmatched - here.misshapen)} of the boxes"
        )
        section.find(Code.ANCHORS, f"{matched}; {cause}", f"{_gain(better, here)}{recipe.price(better.options)}")


def _cheapest(fits: Sequence[Fit]) -> Fit | None:
    """The smallest larger input that leaves little to gain; None where the recipe's is as good."""
    here, *larger = fits
    least = min(fit.lacking for fit in larger)
    good = next(fit for fit in larger if fit.lacking <= least + _WORTH)
    return good if not here.sufficient and here.lacking - good.lacking >= _WORTH else None


def _gain(fit: Fit, here: Fit) -> str:
    return f"{fit.options}: {percent(1 - fit.unmatched)} instead of {percent(1 - here.unmatched)} get an anchor"

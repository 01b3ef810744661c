"""Boxes and anchors: at the configured input size, at others, and with anchors that fit the boxes better.

A box overlaps the anchors of one shape best at the grid point nearest to its centre, since the overlap falls with the
distance along either axis. So the best of some thousand anchors is found among one per map and shape, exactly, and
without building the network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from mobiledet.apps.doctor.collection import Collection
from mobiledet.apps.doctor.report import Code, Section, percent
from mobiledet.config import ModelConfig
from mobiledet.errors import ConfigError
from mobiledet.ops.anchors import AnchorSetting, grid_anchors
from mobiledet.structures import BoolArray, FloatArray, IntArray, Size
from mobiledet.utils.text import count

ACCEPTED = 0.05  # share of boxes that may stay without a matching anchor, or tiny
TINY = 8  # a box narrower or lower than this many network pixels is hard to detect
SIDES = (160, 224, 300, 384, 448, 512)  # of the square inputs that are tried; the other inputs have the same areas
_SQUARE_ENOUGH = 1.15  # no input of its own for a median image nearer to a square than this
_SAMPLE = 8000  # boxes that a search looks at
_SCALES = (0.04, 0.06, 0.08, 0.1, 0.12, 0.15, 0.2, 0.25, 0.3)
_RATIOS = (1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
_MOST_RATIOS = 9
_WORTH = 0.01  # share of boxes that one more ratio must bring
_GROUPS = (0, 8, 16, 32, 64, 128, np.inf)


def setting_of(model: ModelConfig) -> AnchorSetting:
    """What determines the anchors of a model, apart from its input's size.

    Raises:
        ConfigError: its head has no anchors that can be checked.
    """
    setting = model.head.anchor_setting()
    if setting is None:
        raise ConfigError(f"model.head.kind is {model.head.kind!r}, whose anchors can't be checked; name an SSD recipe")
    return setting


def overrides(setting: AnchorSetting, usual: AnchorSetting) -> str:
    """The settings ``key=value`` that change ``usual`` into ``setting``; empty when they are the same."""
    words = []
    if setting.aspect_ratios != usual.aspect_ratios:
        words.append(f"model.head.aspect_ratios={','.join(f'{ratio:.4g}' for ratio in setting.aspect_ratios)}")
    if setting.scale_min != usual.scale_min:
        words.append(f"model.head.scale_min={setting.scale_min:g}")
    if setting.reduce_lowest != usual.reduce_lowest:
        words.append(f"model.head.reduce_lowest={str(setting.reduce_lowest).lower()}")
    return " ".join(words)


@dataclass(frozen=True)
class AnchorGrid:
    """The anchors of one map in network pixels: ``(shapes,)`` sizes at ``(columns,)`` x ``(rows,)`` grid points."""

    centre_x: FloatArray
    centre_y: FloatArray
    widths: FloatArray
    heights: FloatArray


def anchor_grids(setting: AnchorSetting, network_size: Size) -> list[AnchorGrid]:
    """The anchors of each map, as `mobiledet.ops.anchors` makes them."""
    grids = []
    for shapes, (rows, columns) in zip(setting.shapes(), setting.map_sizes(network_size), strict=True):
        anchors = grid_anchors(shapes, (rows, columns), network_size).numpy().reshape(rows, columns, len(shapes), 4)
        centres = (anchors[..., 0, :2] + anchors[..., 0, 2:]) / 2
        widths, heights = (anchors[0, 0, :, 2:] - anchors[0, 0, :, :2]).T
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
    """How well the boxes are covered at one input size.

    Attributes:
        size: ``(height, width)`` of the network's input.
        cost: its pixels, and so about its multiply-adds, relative to the configured input's.
        unmatched: share of boxes that no anchor overlaps enough.
        misshapen: share of boxes whose size and shape no anchor has, wherever it stands: more pixels don't help these.
        tiny: share of boxes narrower or lower than `TINY` network pixels.
    """

    size: Size
    cost: float
    unmatched: float
    misshapen: float
    tiny: float

    @property
    def sufficient(self) -> bool:
        """Whether nearly all boxes are matched and large enough."""
        return self.unmatched <= ACCEPTED and self.tiny <= ACCEPTED


def boxes_in_network(collection: Collection, size: Size) -> FloatArray:
    """``(M', 4)`` xyxy in network pixels of all boxes but crowds, in order."""
    real = ~collection.iscrowd
    scale = (np.array(size) / collection.sizes[collection.image[real]])[:, [1, 0, 1, 0]]
    return (collection.boxes[real] * scale).astype(np.float32)


def fit_boxes(boxes: FloatArray, size: Size, setting: AnchorSetting, *, reference: Size) -> Fit:
    """How well boxes ``(M, 4)``, at least one, in the network pixels of ``size``, are covered there."""
    grids = anchor_grids(setting, size)
    sides = (boxes[:, 2:] - boxes[:, :2]).min(axis=1)
    return Fit(
        size,
        size[0] * size[1] / (reference[0] * reference[1]),
        float((best_overlaps(boxes, grids) < setting.match_iou).mean()),
        float((best_shape_overlaps(boxes, grids) < setting.match_iou).mean()),
        float((sides < TINY).mean()),
    )


def input_of_shape(pixels: int, aspect: float) -> Size:
    """``(height, width)`` with about so many pixels, ``width / height`` about ``aspect``, both multiples of 16."""
    height, width = (max(1, round(side / 16)) * 16 for side in ((pixels / aspect) ** 0.5, (pixels * aspect) ** 0.5))
    return height, width


def candidate_sizes(sizes: Sequence[Size] | IntArray, chosen: Size) -> list[Size]:
    """Inputs to try: squares, the configured one, and some with the images' own proportions.

    Args:
        sizes: ``(N, 2)`` heights and widths of the images.
        chosen: the configured input.
    """
    heights, widths = np.asarray(sizes, np.float64).T
    aspect = float(np.clip(np.median(widths / heights), 1 / 4, 4))
    candidates = {(side, side) for side in SIDES} | {chosen}
    if max(aspect, 1 / aspect) > _SQUARE_ENOUGH:
        candidates |= {input_of_shape(side * side, aspect) for side in SIDES}
    return sorted(candidates, key=lambda size: (size[0] * size[1], size))


def better_anchors(boxes: FloatArray, size: Size, setting: AnchorSetting) -> AnchorSetting:
    """A setting that matches more boxes: other minimum scale, all anchors on the highest-resolution map, more ratios.

    Searched greedily on a sample, as long as a step matches 1 % more of the boxes.
    """
    sample = boxes[:: max(1, len(boxes) // _SAMPLE)]

    def missed(trial: AnchorSetting) -> float:
        return float((best_overlaps(sample, anchor_grids(trial, size)) < trial.match_iou).mean())

    best, least = setting, missed(setting)
    pool = [value for ratio in _RATIOS for value in (ratio, 1 / ratio)]
    while least > ACCEPTED / 2:
        scales = [scale for scale in _SCALES if scale < best.scale_max]
        trials = [replace(best, scale_min=s, reduce_lowest=reduce) for s in scales for reduce in (True, False)]
        if len(best.aspect_ratios) < _MOST_RATIOS:
            new = [r for r in pool if all(abs(r / known - 1) > 0.05 for known in best.aspect_ratios)]
            trials += [replace(best, aspect_ratios=(*best.aspect_ratios, ratio)) for ratio in new]
        scores = [missed(trial) for trial in trials]
        step = int(np.argmin(scores))
        if least - scores[step] < _WORTH:
            break
        best, least = trials[step], scores[step]
    return best


def describe_inputs(collection: Collection, setting: AnchorSetting, chosen: Size) -> Section:
    """Boxes and anchors at the chosen input, other inputs, and better anchors."""
    section = Section("Boxes and anchors")
    boxes = boxes_in_network(collection, chosen)
    section.data = {"input_size": list(chosen), "match_iou": setting.match_iou}
    if not len(boxes):
        section.say("There are no boxes to compare with the anchors.")
        return section
    overlaps = best_overlaps(boxes, anchor_grids(setting, chosen))
    unmatched = overlaps < setting.match_iou
    here = fit_boxes(boxes, chosen, setting, reference=chosen)
    low, middle = np.percentile(overlaps, (10, 50))
    section.say(
        f"At an input of {_size(chosen)} pixels (height x width), {percent(here.unmatched)} of "
        f"{count(len(boxes), 'box', 'boxes')} overlap no anchor by IoU {setting.match_iou:g} or more (SSD then assigns "
        f"each box the best anchor that is left, from which it learns little). Best IoU with an anchor: median "
        f"{middle:.2f}, below {low:.2f} for 10 % of the boxes. {percent(here.tiny)} of the boxes are narrower or lower "
        f"than {TINY} network pixels."
    )
    section.data |= {"unmatched": here.unmatched, "misshapen": here.misshapen, "tiny": here.tiny}
    section.data["best_iou"] = {f"p{q}": round(float(np.percentile(overlaps, q)), 4) for q in (5, 10, 25, 50, 75, 90)}
    _by_size(section, boxes, unmatched)
    _by_class(section, collection, boxes, unmatched)
    better = better_anchors(boxes, chosen, setting) if here.unmatched > ACCEPTED else setting
    sizes = candidate_sizes(collection.sizes, chosen)
    inputs = {size: boxes_in_network(collection, size) for size in sizes}
    fits = [fit_boxes(inputs[size], size, setting, reference=chosen) for size in sizes]
    others = fits if better == setting else [fit_boxes(inputs[s], s, better, reference=chosen) for s in sizes]
    _other_inputs(section, fits, others, here)
    words, price = overrides(better, setting), _price(better, setting)
    _advise_input(section, fits, others, words, price, here)
    if here.unmatched > ACCEPTED:
        _advise_anchors(section, boxes, here, words, price, next(fit for fit in others if fit.size == here.size))
    return section


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


def _other_inputs(section: Section, fits: Sequence[Fit], others: Sequence[Fit], here: Fit) -> None:
    """A table of the inputs with the configured anchors and, where these differ, with better ones."""
    rows = [["input", "cost", "without anchor", "better anchors", "wrong shape", f"under {TINY} pixels"]]
    section.data["inputs"] = []
    for fit, other in zip(fits, others, strict=True):
        mark = " (configured)" if fit.size == here.size else ""
        shares = {
            "unmatched": fit.unmatched,
            "unmatched_better_anchors": other.unmatched,
            "misshapen": fit.misshapen,
            "tiny": fit.tiny,
        }
        rows.append([f"{_size(fit.size)}{mark}", f"{fit.cost:.2f}", *map(percent, shares.values())])
        section.data["inputs"].append({"size": list(fit.size), "cost": round(fit.cost, 4), **shares})
    if others is fits:
        rows = [[*row[:3], *row[4:]] for row in rows]
    section.say(
        "Other inputs; cost is the number of input pixels, to which multiply-adds are proportional. A box of the wrong "
        "shape matches none of these anchors wherever they stand, so that more pixels alone don't help it:"
    )
    section.show(rows[0], rows[1:])


def _price(better: AnchorSetting, setting: AnchorSetting) -> str:
    """What other anchors cost, as the end of a remedy: predictors for another number of them must be trained anew."""
    maps = list(zip(better.shapes(), setting.shapes(), strict=True))
    changed = sum(len(new) != len(old) for new, old in maps)
    where = "" if changed == len(maps) else f" on {changed} of {len(maps)} maps"
    return f"; the pretrained head is not used then{where}" if changed else ""


def _advise_input(
    section: Section, fits: Sequence[Fit], others: Sequence[Fit], words: str, price: str, here: Fit
) -> None:
    """The cheapest input at which nearly all boxes have an anchor; with better anchors where these are needed."""
    enough, enough_with = (next((fit for fit in tried if fit.sufficient), None) for tried in (fits, others))
    most = percent(ACCEPTED)
    usual = f"at most {most} of the boxes without an anchor and at most {most} under {TINY} pixels"
    if enough is not None:
        section.data["recommended_input"] = list(enough.size)
        if enough.size == here.size:
            section.find(Code.INPUT_SIZE_SUITS, f"{_size(here.size)} is the smallest input tried that leaves {usual}")
            return
        text = f"the smallest input tried that leaves {usual} is {_size(enough.size)}, {_cost(enough, here)}"
        remedy = f"{_setting(enough)}{'; more pixels still show more detail' if enough.cost < 1 else ''}"
        section.find(Code.INPUT_SIZE_SUITS if here.sufficient else Code.INPUT_SIZE, text, remedy)
        return
    best = enough_with or _worthwhile(others, here)
    section.data["recommended_input"] = list(best.size)
    left = f"{percent(best.unmatched)} of the boxes without an anchor and {percent(best.tiny)} under {TINY} pixels"
    with_these = f"with these anchors no input tried leaves {usual}"
    if best.size == here.size:
        section.find(Code.INPUT_SIZE, f"{with_these}, and none does much better than {_size(here.size)}")
        return
    text = f"{with_these}; {_size(best.size)}{' with better ones' if words else ''}, {_cost(best, here)}, leaves {left}"
    section.find(Code.INPUT_SIZE, text, f"{_setting(best)} {words}".strip() + price)


def _worthwhile(fits: Sequence[Fit], here: Fit) -> Fit:
    """The cheapest input, not below the configured one's cost, that comes close to the best; if it can be, that one."""
    least = min(fit.unmatched + fit.tiny for fit in fits)
    good = [fit for fit in fits if fit.unmatched + fit.tiny <= least + ACCEPTED]
    larger = [fit for fit in good if fit.cost >= 1] or good
    return next((fit for fit in larger if fit.size == here.size), larger[0])


def _advise_anchors(section: Section, boxes: FloatArray, here: Fit, words: str, price: str, better: Fit) -> None:
    """Whether anchors or pixels are the cause, and anchors that match more boxes at the same input."""
    wide, high = (boxes[:, 2:] - boxes[:, :2]).T
    long = float(((wide > 3.5 * high) | (high > 3.5 * wide)).mean())
    shapes = f" ({percent(long)} have one side more than 3.5 times as long as the other)" if long > ACCEPTED else ""
    cause = (
        f"the anchors are the problem rather than the pixels: {percent(here.misshapen)} of the boxes have a size or "
        f"shape that none of the anchors has{shapes}"
        if here.misshapen >= here.unmatched / 2
        else f"the grid is too coarse for {percent(here.unmatched - here.misshapen)} of the boxes: more pixels help"
    )
    section.data["anchors"] = {"overrides": words, "unmatched": better.unmatched} if words else None
    text = f"{percent(here.unmatched)} of the boxes match no anchor at {_size(here.size)}; {cause}"
    remedy = (
        f"{words} would leave {percent(better.unmatched)} unmatched{price}"
        if words
        else "no other anchors tried match more"
    )
    section.find(Code.ANCHORS, text, remedy)


def _cost(fit: Fit, here: Fit) -> str:
    return f"at {fit.cost:.2f} times the cost of {_size(here.size)}"


def _setting(fit: Fit) -> str:
    return f"model.input_size={fit.size[0]},{fit.size[1]}"


def _size(size: Size) -> str:
    return f"{size[0]} x {size[1]}"

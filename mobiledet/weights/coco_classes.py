"""COCO's 80 classes under their official ids, 1 to 90 with gaps; the classes of a detector with numbered outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mobiledet.errors import CheckpointError

# In the order of their ids; "-" stands for an id without a class, "_" for a space.
_NAMES = """
person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign parking_meter bench
bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie suitcase frisbee skis
snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle - wine_glass cup fork
knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed -
dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator - book
clock vase scissors teddy_bear hair_drier toothbrush
"""

COCO_SLOTS = 90
"""The largest id: TensorFlow's detectors have one output for each of 1..90, used or not, and one for background."""

_UNUSED = ("-", "???", "n/a")
"""How label files mark an output without a class."""


def coco_categories() -> list[dict[str, Any]]:
    """``[{"id": 1, "name": "person"}, ...]``, 80 of them."""
    return [
        {"id": slot, "name": name.replace("_", " ")} for slot, name in enumerate(_NAMES.split(), start=1) if name != "-"
    ]


def output_categories(slots: int, labels: Sequence[str] | None) -> list[dict[str, Any]]:
    """Every class that is used, its column as its id; outputs without a class are left out.

    Args:
        slots: Outputs of the detector, without background.
        labels: Names in their order, with or without a first line for background; None takes COCO's for 90 outputs,
            else numbers.

    Raises:
        CheckpointError: The names don't fit.
    """
    coco = coco_categories()
    if labels is None:
        return coco if slots == COCO_SLOTS else [{"id": slot, "name": f"class_{slot}"} for slot in range(1, slots + 1)]
    if len(labels) == slots + 1:  # some files begin with a line for background
        labels = labels[1:]
    if slots == COCO_SLOTS and len(labels) == len(coco):
        # Label files of COCO often list its 80 classes without the gaps between their ids.
        used = [{"id": category["id"], "name": name} for category, name in zip(coco, labels, strict=True)]
    elif len(labels) == slots:
        used = [{"id": slot, "name": name} for slot, name in enumerate(labels, 1) if name.casefold() not in _UNUSED]
    else:
        raise CheckpointError(
            f"it has {slots} classes, but there are {len(labels)} names; give --labels a text file of {slots} lines"
        )
    names = [category["name"] for category in used]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled or not used:
        raise CheckpointError(f"its class names must exist and differ; repeated: {', '.join(doubled) or 'none'}")
    return used

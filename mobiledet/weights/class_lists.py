"""Lists of class names, as people keep them beside a detector, and the class of each of its numbered outputs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from mobiledet.errors import CheckpointError
from mobiledet.utils.encodings import text_of
from mobiledet.utils.text import clean_name, count

ClassList: TypeAlias = tuple[str, ...] | Mapping[int, str]
"""Names in the order of the outputs, with or without one for background before them; or by number, from 1 on."""

# COCO's, in the order of their ids. "-" stands for an id without a class, "_" for a space.
_COCO = """
person bicycle car motorcycle airplane bus train truck boat traffic_light fire_hydrant - stop_sign parking_meter bench
bird cat dog horse sheep cow elephant bear zebra giraffe - backpack umbrella - - handbag tie suitcase frisbee skis
snowboard sports_ball kite baseball_bat baseball_glove skateboard surfboard tennis_racket bottle - wine_glass cup fork
knife spoon bowl banana apple sandwich orange broccoli carrot hot_dog pizza donut cake chair couch potted_plant bed -
dining_table - - toilet - tv laptop mouse remote keyboard cell_phone microwave oven toaster sink refrigerator - book
clock vase scissors teddy_bear hair_drier toothbrush
"""

COCO_SLOTS = 90
"""The largest id: TensorFlow's detectors have an output for each of 1..90, used or not."""

_UNUSED = ("-", "???", "n/a")
"""How lists mark an output without a class."""

_BACKGROUND = (*_UNUSED, "background", "__background__", "unlabeled", "none")
"""How the line for background reads, where a list begins with one."""

_NUMBERED = re.compile(r"(\d{1,6})(?:\s*[:,]\s*|\s+)(\S.*)")
_ITEM = re.compile(r"\bitem\s*\{(.*?)\}", re.DOTALL)
_FIELD = re.compile(r"\b(id|name|display_name)\s*:\s*(?:'(.*?)'|\"(.*?)\"|(\d{1,6}))")


def read_class_list(labels: str | Path | Sequence[str]) -> ClassList:
    """The names in a text file, see `parse_class_list`, or given as they are.

    Raises:
        CheckpointError: The file can't be read, or there are no names.
    """
    if not isinstance(labels, str | Path):
        found: ClassList = tuple(clean_name(str(name)) for name in labels)
        place = "labels"
    else:
        place = str(labels)
        try:
            found = parse_class_list(text_of(Path(labels).read_bytes()))
        except OSError as error:
            raise CheckpointError(f"{place}: can't be read as a list of class names: {error.strerror}") from None
    if not found:
        raise CheckpointError(f"{place}: has no class names; write one a line, in the order of the outputs")
    return found


def parse_class_list(text: str) -> ClassList:
    """The names in a text: one a line, ``0 name`` or ``0: name`` a line, or TensorFlow's label map (``.pbtxt``).

    Numbers count from 0, as the classes of ``TFLite_Detection_PostProcess`` do, where there is a 0 that isn't the
    background; otherwise from 1, as COCO's ids do.
    """
    if items := _ITEM.findall(text):
        fields = [{name: one or two or number for name, one, two, number in _FIELD.findall(item)} for item in items]
        named = [(item.get("id", ""), item.get("display_name") or item.get("name", "")) for item in fields]
        return {int(number): clean_name(name) for number, name in named if number and name}
    lines = [name for line in text.splitlines() if (name := clean_name(line))]
    pairs = [(int(found[1]), found[2]) for line in lines if (found := _NUMBERED.fullmatch(line))]
    numbers, names = [number for number, _ in pairs], [name for _, name in pairs if name.casefold() not in _UNUSED]
    # Names may themselves begin with numbers: 1 cent, 2 cent, 1 euro.
    if not pairs or len(pairs) < len(lines) or numbers != sorted(set(numbers)) or len(set(names)) < len(names):
        return tuple(lines)
    first = int(numbers[0] == 0 and pairs[0][1].casefold() not in _BACKGROUND)
    return {number + first: name for number, name in pairs if number + first}


def coco_categories() -> list[dict[str, Any]]:
    """``[{"id": 1, "name": "person"}, ...]``, 80 of them."""
    return [
        {"id": slot, "name": name.replace("_", " ")} for slot, name in enumerate(_COCO.split(), start=1) if name != "-"
    ]


def output_categories(slots: int, labels: ClassList | None) -> list[dict[str, Any]]:
    """Every class that is used, the number of its output as its id; outputs without a class are left out.

    Args:
        slots: Outputs of the detector, without background.
        labels: Their names; None takes COCO's for 90 outputs, else numbers.

    Raises:
        CheckpointError: The names don't fit.
    """
    if labels is None:
        if slots == COCO_SLOTS:
            return coco_categories()
        return [{"id": slot, "name": f"class_{slot}"} for slot in range(1, slots + 1)]
    by_number = labels if isinstance(labels, Mapping) else _numbered(labels, slots)
    if outside := [number for number in by_number if not 1 <= number <= slots]:
        raise CheckpointError(
            f"names are numbered up to {max(outside)} (counted from 1), and it has {slots} classes; give labels "
            "(--labels) a list of those"
        )
    used = [{"id": slot, "name": name} for slot, name in sorted(by_number.items()) if name.casefold() not in _UNUSED]
    names = [str(category["name"]) for category in used]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled or not used:
        raise CheckpointError(f"its class names must exist and differ; repeated: {', '.join(doubled) or 'none'}")
    return used


def _numbered(names: Sequence[str], slots: int) -> dict[int, str]:
    if len(names) == slots + 1 and names[0].casefold() in _BACKGROUND:
        names = names[1:]
    coco = coco_categories()
    if slots == COCO_SLOTS and len(names) == len(coco):
        # Lists of COCO's classes often leave out the gaps between their ids.
        return {int(category["id"]): name for category, name in zip(coco, names, strict=True)}
    if len(names) != slots:
        raise CheckpointError(
            f"{count(len(names), 'name')} for its {slots} classes; give labels (--labels) a list of {slots} names"
        )
    return dict(enumerate(names, start=1))

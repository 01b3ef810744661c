"""COCO's 80 classes under their official ids, 1 to 90 with gaps."""

from __future__ import annotations

from typing import Any

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


def coco_categories() -> list[dict[str, Any]]:
    """``[{"id": 1, "name": "person"}, ...]``, 80 of them."""
    return [
        {"id": slot, "name": name.replace("_", " ")} for slot, name in enumerate(_NAMES.split(), start=1) if name != "-"
    ]

"""What every class of settings is made of; heads and backbones, whose settings lie beside their code, use it too."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from mobiledet.structures import MAX_SIDE

PositiveInt = Annotated[int, Field(gt=0)]
Side = Annotated[int, Field(gt=0, le=MAX_SIDE)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _both_sides(size: object) -> object:
    """One number stands for both sides; ``"416x320"`` is 416 pixels high."""
    if isinstance(size, str):
        sides = size.lower().split("x")
        size = [int(side) for side in sides] if all(side.isdecimal() for side in sides) else size
    if isinstance(size, int):
        size = [size]
    return [*size, *size] if isinstance(size, list | tuple) and len(size) == 1 else size


SizeField = Annotated[tuple[Side, Side], BeforeValidator(_both_sides)]
"""``(height, width)`` in pixels; one number means a square."""


class Strict(BaseModel):
    """Base of every config class: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )


class ReadingConfig(Strict):
    """Answers to what a data set in a foreign format leaves open; they are asked for where it does.

    Here, since reading data sets needs nothing else of the config, which loads the models.
    """

    classes_of: Literal["objects", "images"] = "objects"
    """What has a class: objects in images, by a box each; or images as a whole, by the folder they are in or a csv."""
    rows: Literal["auto", "box", "polygon", "corners", "top_left"] = "auto"
    """What YOLO's rows hold behind the class: the box's centre and size, and what else stands there is left out; points
    of a polygon; ``x1 y1 x2 y2``; or the top left corner and the size."""
    doubtful: Literal["leave_out", "background"] = "leave_out"
    """What becomes of images whose labels are all unusable, or may be missing."""
    orientation: Literal["auto", "upright", "stored"] = "auto"
    """How images with an EXIF rotation that their size can't confirm were labelled: as the others of the set, and
    upright where these say nothing; upright; or as stored."""
    boxes: Literal["auto", "xywh"] = "auto"
    """How COCO's boxes are written: as COCO has them, unless they fit their images in another form and not in this one;
    or as COCO has them, whatever they look like."""
    strict: bool | None = None
    """Refuse a data set with faults that can't be repaired, instead of skipping and reporting what they are in. By
    default training and scoring do so where a folder has COCO's layout."""
    outside: bool = False
    """Follow paths in a data.yaml, a list or the like that lead out of the data set's folder."""

"""What every class of settings is made of; heads and backbones, whose settings lie beside their code, use it too."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
SizeField = tuple[PositiveInt, PositiveInt]
"""``(height, width)`` in pixels."""


class Strict(BaseModel):
    """Base of every config class: frozen, no unknown keys, no NaN."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True, use_attribute_docstrings=True
    )

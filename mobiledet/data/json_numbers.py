"""Numbers as JSON files hold them: as text, as 1.0, as true, too large, or not at all."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import numpy as np

from mobiledet.structures import BoolArray, IntArray


def whole_numbers(values: list[Any]) -> tuple[IntArray, BoolArray, BoolArray]:
    """Each value as a whole number (0 where it is none), whether it is one, and whether it had to be converted."""
    if set(map(type, values)) <= {int}:
        with suppress(OverflowError):
            return np.array(values, np.int64), np.ones(len(values), np.bool_), np.zeros(len(values), np.bool_)
    numbers = [_whole_number(value) for value in values]
    good = np.array([number is not None for number in numbers], np.bool_)
    converted = good & np.array([type(value) is not int for value in values], np.bool_)
    return np.array([number or 0 for number in numbers], np.int64), good, converted


def _whole_number(value: object) -> int | None:
    number = value if type(value) is int else None
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,18}\s*", value):
        number = int(value)
    if isinstance(value, float) and value.is_integer():
        number = int(value)
    return number if number is not None and abs(number) < 2**63 else None


def repeats(values: IntArray) -> BoolArray:
    """Which values have already occurred further up."""
    repeated = np.ones(len(values), np.bool_)
    repeated[np.unique(values, return_index=True)[1]] = False
    return repeated


def four_floats(values: list[Any]) -> list[float]:
    """Each value as a float: not a number where it is none (text and truth values too), infinite where too large."""

    def number(value: object) -> float:
        try:
            return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else np.nan
        except OverflowError:
            return np.inf

    return [number(value) for value in values]

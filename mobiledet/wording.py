"""Words for people, put together by numbers."""

from __future__ import annotations


def count(number: int, what: str, plural: str = "") -> str:
    """A number and its noun: 1 box, 2 boxes, 1,234 pictures."""
    return f"{number:,} {what if number == 1 else plural or what + 's'}"

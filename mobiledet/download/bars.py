"""Progress of long transfers, for people at a terminal."""

from __future__ import annotations

import sys
from typing import Any


def bytes_bar(what: str, total: int | None, *, done: int = 0) -> Any:
    """A tqdm bar that counts bytes, with rate and time left; None off a terminal or without tqdm.

    Args:
        what: what it says in front.
        total: bytes in all, if known.
        done: bytes that are there from the start.
    """
    if not sys.stderr.isatty():
        return None
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(desc=what, total=total, initial=done, unit="B", unit_scale=True, unit_divisor=1024)

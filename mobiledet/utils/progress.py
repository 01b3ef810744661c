"""One progress bar for everything that takes long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def progress_bar(items: Iterable[Any] | None = None, *, what: str = "", show: bool = True, **options: Any) -> Any:
    """A tqdm bar on standard error, shown only if that is a terminal.

    Args:
        items: What to go through; without it the bar is moved by its ``update``.
        what: What it says in front.
        show: False for no bar at all; the items are passed through.
        **options: Passed on to tqdm: ``total``, ``initial``, ``unit``, ``unit_scale``, ...
    """
    from tqdm import tqdm

    return tqdm(items, desc=what or None, leave=False, disable=None if show else True, **options)


def bytes_bar(what: str, total: int | None, *, done: int = 0, show: bool = True) -> Any:
    """A `progress_bar` that counts bytes, of which ``done`` are there from the start."""
    return progress_bar(what=what, show=show, total=total, initial=done, unit="B", unit_scale=True, unit_divisor=1024)

"""One progress bar for everything that takes long."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def progress_bar(items: Iterable[Any] | None = None, *, what: str = "", show: bool = True, **options: Any) -> Any:
    """A tqdm bar on standard error, which stays away where that isn't a terminal.

    Args:
        items: What to go through; without it the bar is moved by its ``update``.
        what: What it says in front.
        show: False for no bar at all; the items come all the same.
        **options: Passed on to tqdm: ``total``, ``initial``, ``unit``, ``unit_scale``, ...
    """
    from tqdm import tqdm

    return tqdm(items, desc=what or None, leave=False, disable=None if show else True, **options)

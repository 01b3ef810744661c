"""The time of the network apart from that of decoding and suppression, in the two ways that runtimes allow."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def time_halves(network: Callable[[], T], rest: Callable[[T], object], rounds: int) -> dict[str, float]:
    """Median milliseconds of ``network`` and ``decode+nms``, where they are two calls."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        found = network()
        middle = time.perf_counter()
        rest(found)
        times.append((middle - start, time.perf_counter() - middle))
    first, second = (statistics.median(part) * 1e3 for part in zip(*times, strict=True))
    return {"network": first, "decode+nms": second}


def time_shares(run: Callable[[], object], rounds: int, network_share: Callable[[], float]) -> dict[str, float]:
    """Median milliseconds of ``network`` and ``decode+nms``, where one call does both and a profile splits its time.

    The network's share is asked for afterwards, since profiling slows everything a little.
    """
    whole = []
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        whole.append((time.perf_counter() - start) * 1e3)
    median, share = statistics.median(whole), network_share()
    return {"network": median * share, "decode+nms": median * (1 - share)}

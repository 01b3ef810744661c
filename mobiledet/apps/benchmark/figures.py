"""From single times to the figures that are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Spread:
    """Milliseconds of one call, over all calls of all rounds.

    Attributes:
        median: Half of the calls took less.
        p90: Nine of ten took less.
        p95: Nineteen of twenty took less.
        calls: How many there were.
        round_medians: The median of each round, in order.
    """

    median: float
    p90: float
    p95: float
    calls: int
    round_medians: tuple[float, ...]


@dataclass(frozen=True)
class Ratio:
    """How long one takes of another's time, compared round by round, so that slow moments of the machine cancel out.

    Attributes:
        median: Over the rounds; 2 is twice as long.
        low: A tenth of the rounds lie below.
        high: A tenth of the rounds lie above.
    """

    median: float
    low: float
    high: float


def spread(rounds: Sequence[Sequence[float]]) -> Spread | None:
    """The figures of some rounds of calls; None where there is no call."""
    times = [time for round_ in rounds for time in round_]
    if not times:
        return None
    median, p90, p95 = (round(float(value), 4) for value in np.percentile(times, [50, 90, 95]))
    medians = tuple(round(float(np.median(round_)), 4) for round_ in rounds if len(round_))
    return Spread(median, p90, p95, len(times), medians)


def ratio(ours: Sequence[float], base: Sequence[float]) -> Ratio | None:
    """One's round medians over another's; None unless they come from the same rounds."""
    if not len(ours) or len(ours) != len(base) or min(base) <= 0:
        return None
    ratios = np.asarray(ours) / np.asarray(base)
    low, median, high = (round(float(value), 4) for value in np.percentile(ratios, [10, 50, 90]))
    return Ratio(median, low, high)


def shared_out(whole: float, blocks: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """The stages of a call.

    Stages are timed in blocks of their own, each with the whole beside it. The machine may have been slower then, so
    only the median share of the whole is taken from them.

    Args:
        whole: Milliseconds of the call.
        blocks: Milliseconds by stage and of the ``whole``. None marks a stage that is inside the one before it.

    Returns:
        Milliseconds by stage, None as given, and what is left as ``rest``; together they are the whole.
    """
    blocks = [block for block in blocks if block["whole"]]
    if not blocks:
        return {}
    shares: dict[str, float | None] = {}
    for name in blocks[0]:
        values = [value / (block["whole"] or 1.0) for block in blocks if (value := block[name]) is not None]
        if name != "whole":
            shares[name] = float(np.median(values)) if values else None
    total = max(1.0, sum(share or 0.0 for share in shares.values()))  # above 1 by chance only
    stages = {name: None if share is None else round(whole * share / total, 4) for name, share in shares.items()}
    return {**stages, "rest": round(max(0.0, whole - sum(value or 0.0 for value in stages.values())), 4)}

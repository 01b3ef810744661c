"""The result of a benchmark: from single times to figures by model, the machine, and what a reader must know."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.apps.benchmark.images import size_name
from mobiledet.apps.benchmark.measuring import MATRIX_BASELINE, Outcome, Settings
from mobiledet.utils.text import count

FORMAT = "mobiledet benchmark"
VERSION = 1
STAGES = ("resize", "network", "decode+nms", "rest")
BUSY = 0.3  # a load average from which the machine counts as busy with something else


@dataclass(frozen=True)
class Spread:
    """Milliseconds of one call over all calls of all rounds: median, percentiles, and the median of each round."""

    median: float
    p90: float
    p95: float
    calls: int
    round_medians: tuple[float, ...]


@dataclass(frozen=True)
class Ratio:
    """Time relative to another model's, compared round by round, so that slow moments of the machine cancel out.

    The median over the rounds, 2 being twice as long; a tenth of the rounds lie below ``low``, a tenth above ``high``.
    """

    median: float
    low: float
    high: float


@dataclass(kw_only=True)
class Row(Outcome):
    """What was measured of one candidate, and the figures made of it.

    Attributes:
        times: Size of the images to the milliseconds of a call; only the sizes that were measured.
        first_size: Of ``times``, the size that stages and comparisons are for.
        versus: Its time relative to the first row's.
        stages: Milliseconds by stage; None marks one that is part of the one before it.
        gmacs_per_s: Billions of multiply-adds a second in the network stage.
        matrix_share: The same as a share of the float32 matrix product's.
        start_ms: Median milliseconds from the start of a process to its first detection.
        grown_mib: Of the peak memory, what the runtime and the model added.
        cores: Cores kept busy, median.
    """

    times: dict[str, Spread]
    first_size: str
    versus: Ratio | None
    stages: dict[str, float | None]
    gmacs_per_s: float | None
    matrix_share: float | None
    start_ms: float | None
    grown_mib: float | None
    cores: float | None

    @property
    def latency(self) -> Spread | None:
        """Milliseconds of a call for the first size."""
        return self.times.get(self.first_size)

    def to_json_dict(self) -> dict[str, Any]:
        """As plain types, without the measurements that figures stand for."""
        plain = asdict(self)
        for measurements in ("rounds", "busy", "before_mib"):
            del plain[measurements]
        return {**plain.pop("candidate"), **plain}


@dataclass(frozen=True)
class BenchmarkReport:
    """All results of one benchmark.

    Attributes:
        rows: In the order they were named.
        settings: How it was measured.
        machine: See :func:`mobiledet.utils.machine.describe_machine`; ``load_average`` is before the start.
        matrix: The float32 matrix product: ``ms``, ``gmacs_per_s`` and ``runtime``; None where it failed.
        images: Where the images come from.
        data: What AP was measured on; None without.
        skipped: A line for each peer that isn't installed.
        command: As it was typed.
    """

    rows: tuple[Row, ...]
    settings: Settings
    machine: dict[str, Any]
    matrix: dict[str, Any] | None
    images: str
    data: str | None = None
    skipped: tuple[str, ...] = ()
    command: str = field(default_factory=lambda: shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))

    @property
    def failed(self) -> bool:
        """Whether a model (not a peer) is incomplete."""
        return any(row.problem and row.candidate.kind not in ("torchvision", "ultralytics") for row in self.rows)

    def to_json_dict(self) -> dict[str, Any]:
        """As plain types."""
        settings = asdict(self.settings)
        settings["sizes"] = [size_name(size) for size in self.settings.sizes]
        del settings["command"]
        return {
            "format": FORMAT,
            "version": VERSION,
            "command": self.command,
            "machine": self.machine,
            "settings": settings,
            "pictures": self.images,
            "data": self.data,
            "matrix_product": self.matrix,
            "models": [row.to_json_dict() for row in self.rows],
            "left_out": list(self.skipped),
            "caveats": self.caveats(),
        }

    def caveats(self) -> list[str]:
        """What must be known to read the figures, a sentence each."""
        first, threads = size_name(self.settings.sizes[0]), self.settings.threads
        speed = "which could not be measured"
        if self.matrix is not None:
            speed = f"{self.matrix['gmacs_per_s']:.1f} GMAC/s"
            if len(medians := self.matrix["ms"]["round_medians"]) > 1:
                speed += f", which varied by {max(medians) / min(medians) - 1:.0%} between rounds"
        lines = [
            "Times are milliseconds from a uint8 RGB image in memory to detections in its own pixels, without reading "
            f"and decoding the file. Sizes are height x width; stages are for {first}, as shares of the median. All "
            "models took turns within one run: compare them with each other, not with other runs.",
            "Each model keeps the thresholds and the number of detections it was scored with; the number of boxes in "
            "an image changes the time of NMS.",
            "The start is a whole new process, Python and imports included, with its files in the system's cache.",
            f"Processor only, {count(threads, 'thread')} each. GMAC/s is that of the network stage; '% of peak' "
            f"compares it with NumPy's float32 matrix product on as many threads: {speed}.",
        ]
        about = [(row.label, row.about) for row in self.rows if row.about is not None]
        if any("int8" in one.precision or "uint8" in one.precision for _, one in about):
            lines.append(
                "INT8 models are compared with the matrix product in float32, too: a processor's own INT8 rate is "
                "higher, so a share above 100 % is possible."
            )
        if any(row.stages.get("network") is not None and row.stages.get("decode+nms", 0) is None for row in self.rows):
            lines.append(
                "'in net': decoding and NMS can't be separated from the network there; its time includes them."
            )
        lines += [f"{label}: {one.note}." for label, one in about if one.note]
        for row in self.rows:
            if row.cores is not None and row.cores > threads + 0.2:
                lines.append(
                    f"{row.label}: kept {row.cores:.1f} cores busy; its runtime ignores the limit of --threads."
                )
            if row.problem:
                lines.append(f"Incomplete: {row.problem}")
        load = self.machine.get("load_average")
        if load is not None and load >= BUSY:
            lines.append(
                f"The machine was busy at the start (load average {load:.1f} on {self.machine.get('cores')} cores): "
                "measure again when it is idle."
            )
        return [*lines, *self.skipped]


def make_report(
    outcomes: Sequence[Outcome],
    settings: Settings,
    machine: dict[str, Any],
    *,
    images: str,
    data: str | None = None,
    skipped: Sequence[str] = (),
) -> BenchmarkReport:
    """Figures from what was measured; the arguments are as in `BenchmarkReport`."""
    matrix = next((_matrix(outcome) for outcome in outcomes if outcome.candidate is MATRIX_BASELINE), None)
    outcomes = [outcome for outcome in outcomes if outcome.candidate is not MATRIX_BASELINE]
    first = size_name(settings.sizes[0])
    base = next((outcome.rounds[first] for outcome in outcomes if first in outcome.rounds), [])
    rows = tuple(_row(outcome, first, base, matrix) for outcome in outcomes)
    return BenchmarkReport(rows, settings, machine, matrix, images, data, tuple(skipped))


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


def divide(whole: float, blocks: Sequence[dict[str, float | None]]) -> dict[str, float | None]:
    """The stages of a call.

    Stages are timed in blocks of their own, each with the whole call beside it. The machine may have been slower
    then, so only the median share of the whole is taken from them.

    Args:
        whole: Milliseconds of the call.
        blocks: Milliseconds by stage and of the ``whole``. None marks a stage that is part of the one before it.

    Returns:
        Milliseconds by stage, None as given, and what remains as ``rest``; together they are the whole.
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


def _row(outcome: Outcome, first: str, base: list[list[float]], matrix: dict[str, Any] | None) -> Row:
    times = {size: found for size, rounds in outcome.rounds.items() if (found := spread(rounds)) is not None}
    basis, own = spread(base), times.get(first)
    stages = divide(own.median, outcome.stage_blocks) if own else {}
    gmacs, network = outcome.about and outcome.about.gmacs, stages.get("network")
    rate = round(1e3 * gmacs / network, 3) if gmacs and network else None
    start, cores = spread([outcome.starts_ms[1:] or outcome.starts_ms]), spread([outcome.busy])
    before, peak = outcome.before_mib, outcome.peak_mib
    grown = None if before is None or peak is None else round(peak - before, 1)
    return Row(
        **vars(outcome),
        times=times,
        first_size=first,
        versus=ratio(own.round_medians, basis.round_medians) if own and basis else None,
        stages=stages,
        gmacs_per_s=rate,
        matrix_share=round(rate / matrix["gmacs_per_s"], 4) if rate and matrix else None,
        start_ms=start.median if start else None,
        grown_mib=grown,
        cores=cores.median if cores else None,
    )


def _matrix(outcome: Outcome) -> dict[str, Any] | None:
    found = spread(next(iter(outcome.rounds.values()), []))
    about = outcome.about
    if found is None or about is None or about.gmacs is None:
        return None
    rate = round(1e3 * about.gmacs / found.median, 3)
    return {"runtime": about.runtime, "gmacs_per_s": rate, "ms": asdict(found)}

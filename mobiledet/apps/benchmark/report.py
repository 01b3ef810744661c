"""The result of a benchmark: figures by model, the machine, and what a reader must know."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from mobiledet.apps.benchmark.contenders import CertificateSummary
from mobiledet.apps.benchmark.figures import Ratio, Spread, ratio, shared_out, spread
from mobiledet.apps.benchmark.measuring import MATRIX, Outcome, Settings
from mobiledet.apps.benchmark.pictures import size_name
from mobiledet.apps.benchmark.subjects import About

FORMAT = "mobiledet benchmark"
VERSION = 1

STAGES = ("resize", "network", "decode+nms", "rest")

BUSY = 0.3
"""A load average from which the machine counts as busy with something else."""


@dataclass(frozen=True)
class Row:
    """The figures of one contender.

    Attributes:
        label: How it is called.
        kind: What runs it; see :class:`mobiledet.apps.benchmark.contenders.Contender`.
        target: Path or name as given.
        about: What it said about itself; None where it never opened.
        certificate: The one beside it.
        times: Size of the pictures to the milliseconds of a call; without the sizes it never came to.
        first_size: Of ``times``, the size that stages and comparisons are for.
        versus: Its time as a multiple of the first row's.
        stages: Milliseconds by stage; None marks one that is inside the one before it.
        stage_blocks: The measurements behind them, each with its ``whole``.
        gmacs_per_s: Billions of multiply-adds a second in the network stage.
        matrix_share: The same as a share of a float32 matrix product's.
        start_ms: Median milliseconds from the start of a process to its first detection.
        starts_ms: All of them.
        peak_mib: The most memory of the worker; None where the system doesn't tell.
        grown_mib: Of that, what the runtime and the model added.
        file_bytes: Size on disk.
        cores: Cores kept busy, median.
        ap: COCO's AP in points of 100.
        problem: Why it is incomplete.
    """

    label: str
    kind: str
    target: str
    about: About | None
    certificate: CertificateSummary
    times: dict[str, Spread]
    first_size: str
    versus: Ratio | None
    stages: dict[str, float | None]
    stage_blocks: tuple[dict[str, float | None], ...]
    gmacs_per_s: float | None
    matrix_share: float | None
    start_ms: float | None
    starts_ms: tuple[float, ...]
    peak_mib: float | None
    grown_mib: float | None
    file_bytes: int | None
    cores: float | None
    ap: float | None
    problem: str | None

    @property
    def latency(self) -> Spread | None:
        """Milliseconds of a call for the first size."""
        return self.times.get(self.first_size)


@dataclass(frozen=True)
class Report:
    """Everything.

    Attributes:
        rows: In the order they were named.
        settings: How it was measured.
        machine: See :func:`mobiledet.utils.machine.describe_machine`; ``load_average`` is before the start.
        matrix: The float32 matrix product: ``ms``, ``gmacs_per_s`` and ``runtime``; None where it failed.
        pictures: Where the pictures come from.
        data: What AP was measured on; None without.
        left_out: A line for each peer that isn't there.
        command: As it was typed.
    """

    rows: tuple[Row, ...]
    settings: Settings
    machine: dict[str, Any]
    matrix: dict[str, Any] | None
    pictures: str
    data: str | None = None
    left_out: tuple[str, ...] = ()
    command: str = field(default_factory=lambda: shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))

    @property
    def failed(self) -> bool:
        """Whether a model (no peer) is incomplete."""
        return any(row.problem and row.kind not in ("torchvision", "ultralytics") for row in self.rows)

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
            "pictures": self.pictures,
            "data": self.data,
            "matrix_product": self.matrix,
            "models": [asdict(row) for row in self.rows],
            "left_out": list(self.left_out),
            "caveats": self.caveats(),
        }

    def _wander(self) -> str:
        """How far the processor's own speed went up and down."""
        if self.matrix is None or len(medians := self.matrix["ms"]["round_medians"]) < 2:
            return ""
        return f" The processor's own speed varied by {max(medians) / min(medians) - 1:.0%} between rounds."

    def caveats(self) -> list[str]:
        """What must be known to read the figures, a sentence each."""
        first = size_name(self.settings.sizes[0])
        lines = [
            "Times are milliseconds from a uint8 RGB picture in memory to detections in its own pixels; reading and "
            "decoding the file is not in them. Sizes are height x width; stages are for "
            f"{first}, as shares of the median. All models took turns within one run, so compare them with each other, "
            "not with other runs." + self._wander(),
            "Each model keeps the thresholds and the number of detections it was scored with; the number of boxes in a "
            "picture changes the time of NMS.",
            "The start is a whole new process, Python and imports included, with its files in the system's cache.",
            f"Processor only, {self.settings.threads} thread{'s' * (self.settings.threads > 1)} each. GMAC/s is the "
            "network stage's; 'of matmul' compares it with NumPy's float32 matrix product on as many threads"
            + (
                f" ({self.matrix['gmacs_per_s']:.1f} GMAC/s)."
                if self.matrix is not None
                else ", which could not be measured."
            ),
        ]
        about = [(row.label, row.about) for row in self.rows if row.about is not None]
        if any("int8" in one.precision or "uint8" in one.precision for _, one in about):
            lines.append(
                "INT8 models are compared with float32's matrix product, too: a processor's own INT8 rate is higher, "
                "so a share above 100 % is no mistake."
            )
        if any(row.stages.get("network") is not None and row.stages.get("decode+nms", 0) is None for row in self.rows):
            lines.append("'in net': decoding and NMS can't be told from the network there, and are part of its time.")
        lines += [f"{label}: {one.note}." for label, one in about if one.note]
        for row in self.rows:
            if row.cores is not None and row.cores > self.settings.threads + 0.2:
                lines.append(f"{row.label}: kept {row.cores:.1f} cores busy; its runtime takes more threads than told.")
            if row.problem:
                lines.append(f"Incomplete: {row.problem}")
        load = self.machine.get("load_average")
        if load is not None and load >= BUSY:
            lines.append(
                f"The machine was busy when it began (load average {load:.1f} on {self.machine.get('cores')} cores): "
                "measure again when it is idle."
            )
        return [*lines, *self.left_out]


def make_report(
    outcomes: Sequence[Outcome],
    settings: Settings,
    machine: dict[str, Any],
    *,
    pictures: str,
    data: str | None = None,
    left_out: Sequence[str] = (),
) -> Report:
    """Figures from what was measured."""
    measured = next((outcome for outcome in outcomes if outcome.contender is MATRIX), None)
    matrix = _matrix(measured) if measured is not None else None
    outcomes = [outcome for outcome in outcomes if outcome.contender is not MATRIX]
    first = size_name(settings.sizes[0])
    base = next((outcome.times[first] for outcome in outcomes if first in outcome.times), [])
    rows = tuple(_row(outcome, first, base, matrix) for outcome in outcomes)
    return Report(rows, settings, machine, matrix, pictures, data, tuple(left_out))


def _row(outcome: Outcome, first: str, base: list[list[float]], matrix: dict[str, Any] | None) -> Row:
    times = {size: found for size, rounds in outcome.times.items() if (found := spread(rounds)) is not None}
    basis, own = spread(base), times.get(first)
    stages = shared_out(own.median, outcome.stages) if own else {}
    gmacs, network = outcome.about and outcome.about.gmacs, stages.get("network")
    rate = round(1e3 * gmacs / network, 3) if gmacs and network else None
    starts = outcome.starts[1:] or outcome.starts
    start = spread([starts])
    grown = None
    if outcome.peak_mib is not None and outcome.before_mib is not None:
        grown = round(outcome.peak_mib - outcome.before_mib, 1)
    cores = spread([outcome.cores])
    return Row(
        label=outcome.contender.label,
        kind=outcome.contender.kind,
        target=outcome.contender.target,
        about=outcome.about,
        certificate=outcome.certificate,
        times=times,
        first_size=first,
        versus=ratio(own.round_medians, basis.round_medians) if own and basis else None,
        stages=stages,
        stage_blocks=tuple(outcome.stages),
        gmacs_per_s=rate,
        matrix_share=round(rate / matrix["gmacs_per_s"], 4) if rate and matrix else None,
        start_ms=start.median if start else None,
        starts_ms=tuple(outcome.starts),
        peak_mib=outcome.peak_mib,
        grown_mib=grown,
        file_bytes=outcome.file_bytes,
        cores=cores.median if cores else None,
        ap=outcome.ap,
        problem=outcome.problem,
    )


def _matrix(outcome: Outcome) -> dict[str, Any] | None:
    found = spread(next(iter(outcome.times.values()), []))
    if found is None or outcome.about is None or outcome.about.gmacs is None:
        return None
    return {
        "runtime": outcome.about.runtime,
        "gmacs_per_s": round(1e3 * outcome.about.gmacs / found.median, 3),
        "ms": asdict(found),
    }

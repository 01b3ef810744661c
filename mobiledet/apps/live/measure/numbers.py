"""The current numbers, as window and browser show them."""

from __future__ import annotations

from dataclasses import dataclass, field

from mobiledet.apps.live.sources.base import SourceState


@dataclass(frozen=True)
class LiveNumbers:
    """Numbers over the last two seconds, and counts since the start. None where nothing is known.

    Attributes:
        fps: Frames processed per second.
        age_ms: Median age of a frame when its boxes were ready.
        age_p95_ms: 95th percentile of it.
        stages_ms: Median milliseconds of ``grab``, ``resize``, ``network`` (with decoding and suppression), ``draw``.
        processed: Frames processed so far.
        seconds: Since the first boxes.
        cpu_percent: Of all cores together, 0..100, by this program and its capture process.
        memory_mib: Memory of the same.
        temperature_c: Of the processor, in degrees Celsius.
        throttled: Causes that slow the board down just now, such as ``"under-voltage"``; empty when nothing does.
        source: State of the source.
    """

    fps: float | None = None
    age_ms: float | None = None
    age_p95_ms: float | None = None
    stages_ms: dict[str, float] = field(default_factory=dict)
    processed: int = 0
    seconds: float = 0.0
    cpu_percent: float | None = None
    memory_mib: float | None = None
    temperature_c: float | None = None
    throttled: tuple[str, ...] = ()
    source: SourceState = field(default_factory=SourceState)

"""What a live run is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mobiledet.apps.live.sources.kinds import SourceOptions


@dataclass(frozen=True)
class LiveOptions:
    """What a live run is asked to do.

    Attributes:
        model_name: What the user called the model, for titles and reports.
        source: What `open_source` takes.
        source_options: How the source is read.
        threads: Processor threads of the network; 0 takes all cores.
        provider: Where the network runs; None for the processor.
        threshold: Least score shown; None takes what suits the model best, or 0.3.
        classes: Names of the classes shown; none shows all.
        labels: Whether names and scores are written at the boxes.
        window: Whether to open a window, if there is a display.
        serve: Port of the browser view; None for none, 0 for any that is free.
        host: Address that the browser view is reached at.
        save: Annotated video to write.
        detections: JSON lines to write.
        report: Report to write.
        label: What the board is called in the report.
        snapshots: Folder for snapshots.
        max_frames: Stop after so many pictures.
        max_seconds: Stop so long after the first boxes.
        started: When the program was started, on the clock of ``time.monotonic``.
        command: The command line's words, for the report.
    """

    model_name: str
    source: str
    source_options: SourceOptions = field(default_factory=SourceOptions)
    threads: int = 0
    provider: str | None = None
    threshold: float | None = None
    classes: Sequence[str] = ()
    labels: bool = True
    window: bool = True
    serve: int | None = None
    host: str = "127.0.0.1"
    save: Path | None = None
    detections: Path | None = None
    report: Path | None = None
    label: str = ""
    snapshots: Path = Path("runs/snapshots")
    max_frames: int | None = None
    max_seconds: float | None = None
    started: float = 0.0
    command: Sequence[str] = ()

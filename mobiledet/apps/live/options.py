"""What a live run is asked to do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mobiledet.apps.live.events.sending import EventOptions
from mobiledet.apps.live.pacing import Pacing
from mobiledet.apps.live.scene.shapes import Scene
from mobiledet.apps.live.sources.base import SourceOptions


@dataclass(frozen=True)
class LiveOptions:
    """What a live run is asked to do, as the command line's help describes it.

    ``threads`` 0 takes all cores; no ``provider`` is the processor; ``label_file`` names the classes of a .tflite file
    that isn't ours; no ``threshold`` is what suits the model best; no ``classes`` shows all; ``serve`` is a port, 0 for
    any that is free, and without it there is no browser view; without a ``token`` there is a new one where others
    reach the host; pages of ``allow_frames`` may show the view in a frame, and ``allow_hosts`` are further names of
    this machine. With ``track``, objects have ids, and are counted at the lines and in the zones of ``scene``, which is
    kept in ``scene_file`` when the page changes it. Several ``sources`` share the model; their files are numbered.
    ``started`` is when the program was, on the clock of ``time.monotonic``; ``command`` is kept for the report.
    """

    model_name: str
    sources: Sequence[str]
    source_options: SourceOptions = field(default_factory=SourceOptions)
    threads: int = 0
    provider: str | None = None
    label_file: Path | None = None
    threshold: float | None = None
    classes: Sequence[str] = ()
    labels: bool = True
    window: bool = True
    serve: int | None = None
    host: str = "127.0.0.1"
    token: str = ""
    allow_frames: Sequence[str] = ()
    allow_hosts: Sequence[str] = ()
    track: bool = False
    scene: Scene = field(default_factory=Scene)
    scene_file: Path | None = None
    events: EventOptions = field(default_factory=EventOptions)
    pacing: Pacing = field(default_factory=Pacing)
    save: Path | None = None
    detections: Path | None = None
    report: Path | None = None
    label: str = ""
    snapshots: Path = Path("runs/snapshots")
    max_frames: int | None = None
    max_seconds: float | None = None
    started: float = 0.0
    command: Sequence[str] = ()

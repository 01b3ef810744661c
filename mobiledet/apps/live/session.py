"""A live run from start to finish: opens what was asked for, runs until it ends, and completes the files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mobiledet.apps.live.card.report import make_report
from mobiledet.apps.live.events.sending import EventOptions, EventSending
from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.measure.board import BoardMonitor
from mobiledet.apps.live.measure.meter import Meter
from mobiledet.apps.live.pipeline import Pipeline
from mobiledet.apps.live.save.json_lines import STDOUT, JsonLines, detection_record
from mobiledet.apps.live.save.video_saver import VideoSaver
from mobiledet.apps.live.scene.following import Follower
from mobiledet.apps.live.scene.shapes import Scene
from mobiledet.apps.live.show.display_check import DisplayProbe
from mobiledet.apps.live.sources.base import SourceOptions
from mobiledet.apps.live.sources.opening import open_source
from mobiledet.apps.live.stopping import LiveStop
from mobiledet.apps.live.view import SNAPSHOT_QUALITY, Painter, View, ViewSettings
from mobiledet.draw.boxes import jpeg_bytes
from mobiledet.errors import MobiledetError, need_extra
from mobiledet.evaluation.thresholds import DEFAULT_THRESHOLD, LOWEST
from mobiledet.runtime.detector import Detector
from mobiledet.utils.addresses import is_address
from mobiledet.utils.files import create_run_folder, refuse_existing, write_json
from mobiledet.utils.machine import load_average
from mobiledet.utils.text import did_you_mean, listing

logger = logging.getLogger(__name__)

_PORT = 8080
"""Port of the browser view that replaces a window."""


@dataclass(frozen=True)
class LiveOptions:
    """What a live run is asked to do, as the command line's help describes it.

    ``threads`` 0 takes all cores; no ``provider`` is the processor; ``label_file`` names the classes of a .tflite file
    that isn't ours; no ``threshold`` is what suits the model best; no ``classes`` shows all; ``serve`` is a port, 0 for
    any that is free, and without it there is no browser view; without a ``token`` there is a new one where others
    reach the host. With ``track``, objects have ids, and are counted at the lines and in the zones of ``scene``, which
    is kept in ``scene_file`` when the page changes it.
    ``started`` is when the program was, on the clock of ``time.monotonic``; ``command`` is kept for the report.
    """

    model_name: str
    source: str
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
    track: bool = False
    scene: Scene = field(default_factory=Scene)
    scene_file: Path | None = None
    events: EventOptions = field(default_factory=EventOptions)
    save: Path | None = None
    detections: Path | None = None
    report: Path | None = None
    label: str = ""
    snapshots: Path = Path("runs/snapshots")
    max_frames: int | None = None
    max_seconds: float | None = None
    started: float = 0.0
    command: Sequence[str] = ()


class LiveRun:
    """One run of a detector over a source, with everything that shows and keeps its results.

    What is known to fail is refused when this is made: a model may take half a minute to load.

    Raises:
        MobiledetError: There is no such source, a file can't be written, or serving needs a package.
    """

    def __init__(self, options: LiveOptions) -> None:
        for path in (options.save, options.detections, options.report):
            refuse_existing(path if path != STDOUT else None)
        options.events.check()
        if options.track:
            need_extra("track")
        self.options = options
        self.source = open_source(options.source, options.source_options)
        self.source.check()
        if options.serve is not None:
            from mobiledet.apps.live.web.server import check_token

            need_extra("serve")
            check_token(options.token)
        self._stack = ExitStack()
        self.problems: list[str] = []
        """Files that couldn't be completed, and why; the others are complete."""

    def run(self, model: str | Path, stop: LiveStop) -> dict[str, Any]:
        """Run until the source ends, a limit is reached or somebody stops it; in the main thread.

        Returns:
            The report, which has been written too where that was asked for.

        Raises:
            MobiledetError: Something can't be opened, or the source failed; what was written by then is complete.
        """
        with self._stack:
            self._open(model)
            self.pipeline.start()
            self._show(stop)
            self.pipeline.join()
            self._finish(stop)
        if self.pipeline.error is not None:
            raise self.pipeline.error
        return self.report

    def _open(self, model: str | Path) -> None:
        """Open everything that may fail before the first frame is processed."""
        options = self.options
        self._load = load_average()
        # The source comes first: a camera needs time to start, and the model is loaded meanwhile.
        self._stack.callback(self.source.close)
        self.source.start()
        probe = DisplayProbe() if options.window else None
        self.detector = Detector(
            model,
            threads=options.threads,
            provider=options.provider,
            score_threshold=LOWEST,
            labels=options.label_file,
            # Spinning would keep cores busy that reading, drawing and encoding need, and would heat a board up.
            spin=False,
        )
        self.settings = ViewSettings(
            threshold=(self.detector.card.shown_threshold or DEFAULT_THRESHOLD)
            if options.threshold is None
            else max(options.threshold, LOWEST),
            names=self.detector.names,
            classes=_labels(options.classes, self.detector.names),
            labels=options.labels,
            scene=options.scene,
        )
        board = BoardMonitor(child=lambda: getattr(self.source, "pid", None))
        board.start()
        self._stack.callback(board.close)
        self.meter = Meter(started=options.started, source=self.source.state, board=board.reading)
        painter = Painter(self.settings, on_draw=self.meter.drawn)
        problem, self.screen = (None, None) if probe is None else probe.result()
        self.window, serve, save = self._outputs(problem)
        recorders: list[Callable[[Result], object]] = []
        self.saver = None
        self.logs: list[JsonLines] = []
        if options.detections is not None:
            log = JsonLines(options.detections)
            self._stack.callback(log.close)
            self.logs.append(log)
            recorders.append(lambda result: log.put(detection_record(result, self.settings)))
        self.events = None
        if options.events:
            self.events = EventSending(
                options.events,
                source=self.source.name,
                name=options.label,
                snapshot=lambda result: jpeg_bytes(painter.paint(result), SNAPSHOT_QUALITY),
            )
            self._stack.callback(self.events.close)
            self.logs += [self.events.log] if self.events.log is not None else []
            recorders.append(self.events.record)
        if save is not None:
            fps = self.source.state().fps
            self.saver = VideoSaver(save, painter=painter, fps=fps, live=self.source.live)
            self._stack.callback(self.saver.close, drop_unsaved=lambda: True)
            recorders.append(self.saver.put)
        self.pipeline = Pipeline(
            self.source,
            self.detector,
            settings=self.settings,
            meter=self.meter,
            recorders=recorders,
            follow=Follower(self.settings).follow if options.track else None,
            max_frames=options.max_frames,
            max_seconds=options.max_seconds,
        )
        self._stack.callback(self.pipeline.join)
        name = self.source.name
        title = f"{options.model_name} on {name if '://' in name else Path(name).name or name}"
        self.view = View(self.pipeline.results, painter, self.meter.numbers, title)
        self.served = serve is not None
        if serve is not None:
            self._serve(serve)

    def _outputs(self, problem: str | None) -> tuple[bool, int | None, Path | None]:
        """Whether to open a window, the port to serve at and the video to save, also where there is no display."""
        options = self.options
        if not options.window or problem is None:
            return options.window, options.serve, options.save
        logger.warning("no window: %s", problem)
        if options.serve is not None or options.save or options.detections or options.report or options.events:
            return False, options.serve, options.save
        if self.source.live:
            return False, _PORT, None
        folder = create_run_folder(Path("runs"), "webcam", remedy="name a video with --save FOLDER/out.mp4")
        self._stack.callback(_remove_if_empty, folder)
        save = folder / "detections.mp4"
        logger.info("saving to %s instead", save)
        return False, None, save

    def _serve(self, port: int) -> None:
        from mobiledet.apps.live.web.server import ViewServer

        server = ViewServer(self.view, host=self.options.host, port=port, token=self.options.token)
        server.start()
        self._stack.callback(server.close)
        logger.info("watch at %s", server.url)

    def _show(self, stop: LiveStop) -> None:
        """Until the end: show the window in this thread, or wait."""
        if not self.window:
            if not self.served:
                logger.info("%s; Ctrl-C stops", self.view.title)
            while not stop.asked.is_set() and not self.pipeline.ended.wait(0.2):
                if any(log.broken.is_set() for log in self.logs):  # nobody reads standard output any more
                    break
            return
        from mobiledet.apps.live.show.window import Window

        window = Window(
            self.view,
            snapshots=self.options.snapshots,
            on_shown=self.meter.shown,
            screen=self.screen,
            hold=not self.source.live and self.source.state().frames == 1,  # a single image would only flash
        )
        window.run(stop.asked, self.pipeline.ended.is_set)

    def _finish(self, stop: LiveStop) -> None:
        """Complete the files and write the report; an error with one doesn't stop the others."""
        self.meter.end()  # a camera goes on while files are finished
        if self.saver is not None:
            with self._noting_problems():
                self.saver.close(drop_unsaved=lambda: stop.drop_unsaved)
                logger.info("%s", self.saver.summary())
        for part in (*self.logs, self.events):
            if part is not None:
                with self._noting_problems():
                    part.close()
        figures, saver, options, source = self.meter.figures(), self.saver, self.options, self.source
        saved, missed, thinned = (saver.saved, saver.missed, saver.thinned) if saver is not None else (0, 0, 0)
        figures["frames"] |= {"saved": saved, "not_saved": missed + thinned, "thinned": thinned}
        newest = self.pipeline.results.get()
        self.report = make_report(
            figures,
            detector=self.detector,
            source=source,
            model_name=options.model_name,
            settings={
                "threads": options.threads,
                "threshold": self.settings.threshold,
                "window": self.window,
                "serve": self.served,
                "save": options.save.suffix.lstrip(".") if options.save else None,
            },
            last=newest[1] if newest is not None and options.report is not None and not stop.drop_unsaved else None,
            label=options.label,
            command=options.command,
            secrets={options.token: "TOKEN"} | ({options.source: source.name} if is_address(source.name) else {}),
            load=self._load,
        )
        failed = self.pipeline.error is not None and not self.meter.processed
        if options.report is not None and not failed:
            with self._noting_problems():
                write_json(options.report, self.report)

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except MobiledetError as error:
            self.problems.append(str(error))


def _remove_if_empty(folder: Path) -> None:
    """A run that failed before its first frame leaves nothing behind."""
    with suppress(OSError):
        folder.rmdir()


def _labels(classes: Sequence[str], names: tuple[str, ...]) -> set[int] | None:
    """Labels of classes by name, upper and lower case being alike; None for no names, which shows all."""
    known = {name.casefold(): label for label, name in enumerate(names, start=1)}
    for name in classes:
        if name.casefold() not in known:
            hint = did_you_mean(name, names, otherwise=f"it knows {listing(names, 12)}")
            raise MobiledetError(f"--classes: the model has no class {name!r}; {hint}")
    return {known[name.casefold()] for name in classes} or None

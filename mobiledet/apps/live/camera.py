"""One source of a live run: its pipeline, its settings and meter, and the files that its results go to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from mobiledet.apps.live.card.report import make_report
from mobiledet.apps.live.events.sending import EventSending
from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.measure.board import BoardMonitor
from mobiledet.apps.live.measure.history import History
from mobiledet.apps.live.measure.meter import Meter
from mobiledet.apps.live.options import LiveOptions
from mobiledet.apps.live.pacing import Motion
from mobiledet.apps.live.pipeline import Pipeline
from mobiledet.apps.live.save.json_lines import STDOUT, JsonLines, detection_record, refuse_existing_lines
from mobiledet.apps.live.save.video_saver import VideoSaver
from mobiledet.apps.live.scene.following import Follower
from mobiledet.apps.live.scene.shapes import Scene, read_scene, write_scene
from mobiledet.apps.live.sources.opening import open_source
from mobiledet.apps.live.stopping import LiveStop
from mobiledet.apps.live.view import SNAPSHOT_QUALITY, Painter, View, ViewSettings
from mobiledet.draw.boxes import jpeg_bytes
from mobiledet.errors import MobiledetError, need_extra
from mobiledet.evaluation.thresholds import DEFAULT_THRESHOLD, LOWEST
from mobiledet.runtime.detector import Detector
from mobiledet.utils.files import refuse_existing, write_json
from mobiledet.utils.text import did_you_mean, listing

logger = logging.getLogger(__name__)


class Camera:
    """Runs a detector over one source, with everything that keeps its results.

    What is known to fail is refused when this is made: a model may take half a minute to load.

    Args:
        options: Of the whole run.
        number: Of this source among several, from 1, which then is in the names of its files; None for the only one.

    Raises:
        MobiledetError: There is no such source, or a file can't be written.
    """

    def __init__(self, options: LiveOptions, number: int | None = None) -> None:
        self.options = options = options if number is None else _numbered(options, number)
        refuse_existing_lines(options.detections)
        for path in (options.save, options.report):
            refuse_existing(path)
        options.events.check()
        if options.track:
            need_extra("track")
        self.scene = options.scene
        if options.scene_file is not None and options.scene_file.exists():
            kept = read_scene(options.scene_file)
            self.scene = Scene({**kept.lines, **self.scene.lines}, {**kept.zones, **self.scene.zones})
        self.source = open_source(options.sources[0], options.source_options)
        self.source.check()
        self.saver: VideoSaver | None = None
        self.logs: list[JsonLines] = []
        self.events: EventSending | None = None

    @property
    def title(self) -> str:
        """The model and the source, for people."""
        name = self.source.name
        return f"{self.options.model_name} on {name if '://' in name else Path(name).name or name}"

    @property
    def pid(self) -> int | None:
        """The process that captures; None while there is none."""
        return getattr(self.source, "pid", None)

    def start_source(self, stack: ExitStack) -> None:
        """Begin to capture: a camera needs time to start, and the model is loaded meanwhile."""
        stack.callback(self.source.close)
        self.source.start()

    def open(
        self,
        detectors: Sequence[Detector],
        board: BoardMonitor,
        stack: ExitStack,
        *,
        save: Path | None,
        turn: AbstractContextManager[object],
    ) -> None:
        """Open everything that may fail before the first frame is processed; ``stack`` closes it.

        ``save`` is the video to write; ``turn`` is held while the detector runs, which other cameras have, too.
        """
        options, detector = self.options, detectors[0]
        self.detector, self.deadline = detector, options.pacing.deadline(detectors)
        self.settings = ViewSettings(
            threshold=(detector.card.shown_threshold or DEFAULT_THRESHOLD)
            if options.threshold is None
            else max(options.threshold, LOWEST),
            names=detector.names,
            classes=_labels(options.classes, detector.names),
            labels=options.labels,
            scene=self.scene,
        )
        self.meter = Meter(started=options.started, source=self.source.state, board=board.reading)
        painter = Painter(self.settings, on_draw=self.meter.drawn)
        recorders: list[Callable[[Result], object]] = []
        if options.detections is not None:
            log = JsonLines(options.detections)
            stack.callback(log.close)
            self.logs.append(log)
            source = {"source": self.source.name} if options.detections == STDOUT else {}
            recorders.append(lambda result: log.put({**detection_record(result, self.settings), **source}))
        history = History() if options.track else None
        if history is not None:
            recorders.append(history.add)
        if options.events:
            self.events = EventSending(
                options.events,
                source=self.source.name,
                name=options.label,
                snapshot=lambda result: jpeg_bytes(painter.paint(result), SNAPSHOT_QUALITY),
            )
            for part in self.events.parts:
                stack.callback(part.close)
            self.logs += [self.events.log] if self.events.log is not None else []
            recorders.append(self.events.record)
        if save is not None:
            fps = options.pacing.fps(self.source.state().fps)
            self.saver = VideoSaver(save, painter=painter, fps=fps, live=self.source.live)
            stack.callback(self.saver.close, drop_unsaved=lambda: True)
            recorders.append(self.saver.put)
        self.follower = Follower(self.settings) if options.track else None
        self.pipeline = Pipeline(
            self.source,
            detector,
            settings=self.settings,
            meter=self.meter,
            recorders=recorders,
            follow=self.follower.follow if self.follower is not None else None,
            rate=options.pacing.rate(),
            motion=Motion() if options.pacing.motion else None,
            deadline=self.deadline,
            turn=turn,
            max_frames=options.max_frames,
            max_seconds=options.max_seconds,
        )
        stack.callback(self.pipeline.join)
        self.view = View(
            self.pipeline.results,
            painter,
            self.meter.numbers,
            self.title,
            tracked=options.track,
            save_scene=partial(write_scene, options.scene_file) if options.scene_file is not None else None,
            history=history,
        )

    def finish(
        self,
        stop: LiveStop,
        problems: list[str],
        *,
        settings: dict[str, Any],
        load: float | None,
        secrets: dict[str, str],
    ) -> dict[str, Any]:
        """Complete the files and write the report; an error with one doesn't stop the others.

        Args:
            stop: Whether there is no time left.
            problems: Gets what couldn't be completed, and why.
            settings: Of the whole run, for the report.
            load: Of the machine before the run.
            secrets: What of the command may not be in the report, and what stands for it.
        """

        @contextmanager
        def noting_problems() -> Iterator[None]:
            try:
                yield
            except MobiledetError as error:
                problems.append(str(error))

        self.meter.end()  # a camera goes on while files are finished
        if self.saver is not None:
            with noting_problems():
                self.saver.close(drop_unsaved=lambda: stop.drop_unsaved)
                logger.info("%s", self.saver.summary())
        for part in (*self.logs, *(self.events.parts if self.events is not None else ())):
            with noting_problems():
                part.close()
        figures, saver, options, source = self.meter.figures(), self.saver, self.options, self.source
        saved, missed, thinned = (saver.saved, saver.missed, saver.thinned) if saver is not None else (0, 0, 0)
        figures["frames"] |= {"saved": saved, "not_saved": missed + thinned, "thinned": thinned}
        if self.deadline is not None:
            figures["deadline"] = self.deadline.figures()
        newest = self.pipeline.results.get()
        if self.follower is not None:
            counts = newest[1].counts if newest is not None else {}
            figures |= {"objects": dict(self.follower.objects), "counts": counts}
        report = make_report(
            figures,
            detector=self.detector,
            source=source,
            model_name=options.model_name,
            settings={
                "threads": options.threads,
                "threshold": self.settings.threshold,
                **settings,
                "save": options.save.suffix.lstrip(".") if options.save else None,
            },
            last=newest[1] if newest is not None and options.report is not None and not stop.drop_unsaved else None,
            label=options.label,
            command=options.command,
            secrets=secrets,
            load=load,
        )
        failed = self.pipeline.error is not None and not self.meter.processed
        if options.report is not None and not failed:
            with noting_problems():
                write_json(options.report, report)
        return report


def _numbered(options: LiveOptions, number: int) -> LiveOptions:
    """The options of one of several sources: its number is in the names of its files, and in what a broker gets."""

    def own(path: Path | None) -> Path | None:
        return path if path is None or path == STDOUT else path.with_name(f"{path.stem}_{number}{path.suffix}")

    events = replace(options.events, file=own(options.events.file), number=number)
    return replace(
        options,
        sources=options.sources[number - 1 : number],
        events=events,
        scene_file=own(options.scene_file),
        save=own(options.save),
        detections=own(options.detections),
        report=own(options.report),
    )


def _labels(classes: Sequence[str], names: tuple[str, ...]) -> set[int] | None:
    """Labels of classes by name, upper and lower case being alike; None for no names, which shows all."""
    known = {name.casefold(): label for label, name in enumerate(names, start=1)}
    for name in classes:
        if name.casefold() not in known:
            hint = did_you_mean(name, names, otherwise=f"it knows {listing(names, 12)}")
            raise MobiledetError(f"--classes: the model has no class {name!r}; {hint}")
    return {known[name.casefold()] for name in classes} or None

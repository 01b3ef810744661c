"""A live run from start to finish: opens what was asked for, runs until it ends, and completes the files."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from mobiledet.apps.live.camera import Camera
from mobiledet.apps.live.grid import Turns, grid_view
from mobiledet.apps.live.measure.board import BoardMonitor
from mobiledet.apps.live.options import LiveOptions
from mobiledet.apps.live.show.display_check import DisplayProbe
from mobiledet.apps.live.stopping import LiveStop
from mobiledet.errors import need_extra
from mobiledet.evaluation.thresholds import LOWEST
from mobiledet.runtime.detector import Detector
from mobiledet.utils.addresses import is_address, without_user
from mobiledet.utils.files import create_run_folder
from mobiledet.utils.machine import load_average

logger = logging.getLogger(__name__)

_PORT = 8080
"""Port of the browser view that replaces a window."""


class LiveRun:
    """One run of a detector over one or more sources, with everything that shows and keeps its results.

    What is known to fail is refused when this is made: a model may take half a minute to load.

    Raises:
        MobiledetError: There is no such source, a file can't be written, or serving needs a package.
    """

    def __init__(self, options: LiveOptions) -> None:
        self.options = options
        several = len(options.sources) > 1
        self.cameras = [Camera(options, index + 1 if several else None) for index in range(len(options.sources))]
        if options.serve is not None:
            from mobiledet.apps.live.web.server import check_guests, check_token

            need_extra("serve")
            check_token(options.token)
            check_guests(options.allow_frames, options.allow_hosts)
        self._stack = ExitStack()
        self.problems: list[str] = []
        """Files that couldn't be completed, and why; the others are complete."""

    def run(self, models: Sequence[str | Path], stop: LiveStop) -> list[dict[str, Any]]:
        """Run until the sources end, a limit is reached or somebody stops it; in the main thread.

        Of several ``models``, sizes of one detector, the one that keeps the deadline runs.

        Returns:
            The report of each source, which has been written too where that was asked for.

        Raises:
            MobiledetError: Something can't be opened, or a source failed; what was written by then is complete.
        """
        with self._stack:
            self._open(models)
            for camera in self.cameras:
                camera.pipeline.start()
            self._show(stop)
            for camera in self.cameras:
                camera.pipeline.join()
            options, settings = self.options, {"window": self.window, "serve": self.served}
            names = {camera.options.sources[0]: camera.source.name for camera in self.cameras}
            secrets = {options.token: "TOKEN", options.events.webhook: "WEBHOOK"}
            secrets |= {given: name for given, name in names.items() if is_address(name)}
            secrets[options.events.mqtt] = without_user(options.events.mqtt)
            reports = [
                camera.finish(stop, self.problems, settings=settings, load=self._load, secrets=secrets)
                for camera in self.cameras
            ]
        for camera in self.cameras:
            if camera.pipeline.error is not None:
                raise camera.pipeline.error
        return reports

    def _open(self, models: Sequence[str | Path]) -> None:
        """Open everything that may fail before the first frame is processed."""
        options = self.options
        self._load = load_average()
        for camera in self.cameras:
            camera.start_source(self._stack)
        probe = DisplayProbe() if options.window else None
        detectors = [
            Detector(
                model,
                threads=options.threads,
                provider=options.provider,
                score_threshold=LOWEST,
                labels=options.label_file,
                # Spinning would keep cores busy that reading, drawing and encoding need, and would heat a board up.
                spin=False,
            )
            for model in models
        ]
        board = BoardMonitor(children=lambda: [camera.pid for camera in self.cameras])
        board.start()
        self._stack.callback(board.close)
        problem, self.screen = (None, None) if probe is None else probe.result()
        self.window, serve, instead = self._outputs(problem)
        turn = Turns()
        for camera in self.cameras:
            camera.open(detectors, board, self._stack, save=instead or camera.options.save, turn=turn)
        views = [camera.view for camera in self.cameras]
        self.view = views[0] if len(views) == 1 else grid_view(views)
        self.served = serve is not None
        if serve is not None:
            self._serve(serve)

    def _outputs(self, problem: str | None) -> tuple[bool, int | None, Path | None]:
        """Whether to open a window, the port to serve at, and the video to save instead where there is no display."""
        options = self.options
        if not options.window or problem is None:
            return options.window, options.serve, None
        logger.warning("no window: %s", problem)
        if options.serve is not None or options.save or options.detections or options.report or options.events:
            return False, options.serve, None
        if len(self.cameras) > 1 or self.cameras[0].source.live:
            return False, _PORT, None
        folder = create_run_folder(Path("runs"), "webcam", remedy="name a video with --save FOLDER/out.mp4")
        self._stack.callback(_remove_if_empty, folder)
        save = folder / "detections.mp4"
        logger.info("saving to %s instead", save)
        return False, None, save

    def _serve(self, port: int) -> None:
        from mobiledet.apps.live.web.server import ViewServer

        options = self.options
        server = ViewServer(
            [camera.view for camera in self.cameras],
            grid=self.view if len(self.cameras) > 1 else None,
            host=options.host,
            port=port,
            token=options.token,
            allow_frames=options.allow_frames,
            allow_hosts=options.allow_hosts,
        )
        server.start()
        self._stack.callback(server.close)
        logger.info("watch at %s", server.url)

    def _show(self, stop: LiveStop) -> None:
        """Until the end: show the window in this thread, or wait."""
        pipelines = [camera.pipeline for camera in self.cameras]
        if not self.window:
            if not self.served:
                logger.info("%s; Ctrl-C stops", self.view.title)
            while not stop.asked.is_set() and not all(pipeline.ended.wait(0.2) for pipeline in pipelines):
                if any(log.broken.is_set() for camera in self.cameras for log in camera.logs):
                    break  # nobody reads standard output any more
            return
        from mobiledet.apps.live.show.window import Window

        only = self.cameras[0] if len(self.cameras) == 1 else None
        window = Window(
            self.view,
            snapshots=self.options.snapshots,
            on_shown=only.meter.shown if only else None,
            screen=self.screen,
            # A single image would only flash.
            hold=only is not None and not only.source.live and only.source.state().frames == 1,
        )
        window.run(stop.asked, lambda: all(pipeline.ended.is_set() for pipeline in pipelines))


def _remove_if_empty(folder: Path) -> None:
    """A run that failed before its first frame leaves nothing behind."""
    with suppress(OSError):
        folder.rmdir()

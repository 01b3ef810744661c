"""The thread that takes frames, runs the detector on them and hands the results on; it never waits for drawing."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import numpy as np

from mobiledet.apps.live.deadline import Deadline
from mobiledet.apps.live.frames import Frame, Newest, Result
from mobiledet.apps.live.measure.meter import Meter
from mobiledet.apps.live.pacing import Motion, Rate
from mobiledet.apps.live.sources.base import EndOfSource, Source
from mobiledet.apps.live.view import ViewSettings
from mobiledet.detections import Detections
from mobiledet.runtime.detector import Detector

logger = logging.getLogger(__name__)

_WAIT_S = 0.1
"""Seconds between two checks whether to stop, while waiting."""


class Pipeline:
    """Runs a detector over a source.

    The source captures in its own thread or process, the network runs in a thread of this pipeline, and whoever shows
    results does so in theirs. With a live source the newest frame is processed and those that came meanwhile are
    dropped, so delay doesn't grow; any other source is processed frame by frame.

    The source is started already, or before `start`. ``turn`` is held while the detector runs, which others may
    use. ``rate`` and ``motion`` say which frames aren't looked at, ``deadline`` chooses the detector that runs.
    ``follow`` adds identities, counts and events to each result;
    ``recorders`` are called with every one, in order, and with a live source they mustn't wait. It stops after
    ``max_frames`` frames, or ``max_seconds`` seconds after the first boxes, pauses included.
    """

    def __init__(
        self,
        source: Source,
        detector: Detector,
        *,
        settings: ViewSettings,
        meter: Meter,
        recorders: Sequence[Callable[[Result], object]] = (),
        follow: Callable[[Result], Result] | None = None,
        turn: AbstractContextManager[object] | None = None,
        rate: Rate | None = None,
        motion: Motion | None = None,
        deadline: Deadline | None = None,
        max_frames: int | None = None,
        max_seconds: float | None = None,
    ) -> None:
        self.source, self.detector, self.settings, self.meter = source, detector, settings, meter
        self.recorders, self.follow, self.turn = tuple(recorders), follow, turn or nullcontext()
        self.rate, self.motion, self.deadline = rate, motion, deadline
        self.max_frames, self.max_seconds = max_frames, max_seconds
        self.results: Newest[Result] = Newest()
        self.error: BaseException | None = None
        """The error that ended it, if any."""
        self._stop = threading.Event()
        self.ended = threading.Event()
        """Set when the last result is there."""
        self._end: float | None = None
        self._found: Detections | None = None
        """In the frame that was looked at last."""
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._ticker = threading.Thread(target=self._tick, name="meter", daemon=True)

    def start(self) -> None:
        """Begin, in the background."""
        self._thread.start()
        self._ticker.start()

    def join(self, timeout: float | None = None) -> None:
        """Ask it to end, which it does after the frame it is processing, and wait until its threads are gone."""
        self._stop.set()
        for thread in (self._thread, self._ticker):
            if thread.is_alive():
                thread.join(timeout)

    def _run(self) -> None:
        try:
            # A first call, which is slower than the others, while the source is still on its way.
            self._detect(Frame(np.zeros((*self.detector.card.resize.size, 3), np.uint8), 0, time.monotonic(), 0.0))
            self.meter.begin()
            self._loop()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()
            self.results.close()

    def _loop(self) -> None:
        paused = False
        while not self._stop.is_set() and not self._done():
            if self.settings.paused != paused:
                paused = not paused
                self.source.pause(paused)
                self.meter.pause(paused)
            if paused and not self.source.live:
                self._stop.wait(_WAIT_S / 4)
                continue
            try:
                frame = self.source.take(_WAIT_S)
            except EndOfSource:
                break
            if frame is None:
                continue
            if paused:
                self.meter.passed_over += 1
                continue
            if self.rate is not None and not self.rate.due(frame):
                self.meter.not_due += 1
                continue
            result = self._look(frame)
            if self.follow is not None:
                start = time.monotonic()
                result = self.follow(result)
                ready = time.monotonic()
                result = replace(result, ready=ready, stages_ms=result.stages_ms | {"track": (ready - start) * 1e3})
            if self._end is None and self.max_seconds is not None:
                self._end = result.ready + self.max_seconds
            if self.deadline is not None and "network" in result.stages_ms:
                self.deadline.note(result)
            self.meter.record(result)
            self.results.put(result)
            for record in self.recorders:
                record(result)

    def _done(self) -> bool:
        enough = self.max_frames is not None and self.meter.processed >= self.max_frames
        return enough or (self._end is not None and time.monotonic() >= self._end)

    def _look(self, frame: Frame) -> Result:
        """What is in a frame; where nothing has moved, what was there before."""
        if self.motion is None:
            return self._detect(frame)
        start = time.monotonic()
        moved = self.motion.moved(frame)
        stages_ms = {"motion": (time.monotonic() - start) * 1e3}
        if self._found is not None and not moved:
            self.meter.still += 1
            return Result(frame, self._found, time.monotonic(), stages_ms)
        result = self._detect(frame)
        self._found = result.detections
        return replace(result, stages_ms=stages_ms | result.stages_ms)

    def _detect(self, frame: Frame) -> Result:
        detector = self.detector if self.deadline is None else self.deadline.detector
        with self.turn:
            detections, stages_ms = detector.detect_timed(frame.image)
        return Result(frame, detections, time.monotonic(), stages_ms)

    def _tick(self) -> None:
        """Keep the meter's clock going while no frames come."""
        while not self.ended.wait(_WAIT_S * 2):
            self.meter.tick()

"""Saves an annotated video of a live run."""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.save.video_file import VideoFile
from mobiledet.apps.live.view import Painter
from mobiledet.data.videos import usable_fps
from mobiledet.errors import MobiledetError
from mobiledet.structures import ImageArray
from mobiledet.utils.text import count

logger = logging.getLogger(__name__)

FASTEST = 30
"""Most frames per second of a live video."""

STILLS = 1.0
"""Images of a folder per second."""

LONGEST_STILL = 5.0
"""Seconds that a frame is repeated while no other arrives; the rest of a longer gap is left out."""

_SHARE = 0.4
"""Share of a core that encoding a live video may take; its rate is chosen accordingly."""

_LOOK_S = 0.1
"""Seconds between two checks whether unsaved frames are to be dropped."""

_EARLY, _LATE = -0.75, 1.0
"""By how many frames of the video a frame may be early or late: earlier, it is dropped; later, the last is repeated.

The range is wider than one frame, so that a camera whose clock differs a little doesn't cause both all the time.
"""

_QUEUE_BYTES, _QUEUE_LENGTH = 64 * 2**20, 32


class VideoSaver:
    """Draws and encodes in a thread of its own.

    A file's frames are all saved, at the file's rate (30 per second where it names no plausible one). A live
    source is saved at a fixed rate, since OpenCV writes no other, with frames repeated and dropped by their time
    stamps: the video plays in real time, whether the detector is slow or the camera stalls. The rate is the
    source's, at most 30, or less where encoding is too slow for that (`video_file` says how slow).
    Where it still can't keep up, frames are missed, and counted.

    Args:
        path: A new ``.mp4``, ``.webm`` or ``.avi`` file. It has this name once it is complete, not before.
        painter: Draws the boxes.
        fps: Frames per second of the source, where known.
        live: Whether frames are dropped rather than waited for.

    Raises:
        MobiledetError: It can't be written there, or not in this format.
    """

    def __init__(self, path: Path, *, painter: Painter, fps: float | None, live: bool) -> None:
        self.path = path
        self.live = live
        self.saved = 0
        """Frames in the video, each counted once."""
        self.thinned = 0
        """Live frames that fell between two of the video's."""
        self.cut_seconds = 0.0
        """By how much a live video is shorter than what it shows."""
        self.error: MobiledetError | None = None
        """What went wrong; the video ends there."""
        self._file = VideoFile(path)
        self._painter = painter
        self._fps = usable_fps(fps, least=0.1)
        self._changed = threading.Condition()
        self._queue: deque[Result] = deque()
        self._offered = 0
        self._closing = self._drop = self._reported = False
        self._room = _QUEUE_LENGTH
        self._done: Path | None = None
        self._thread = threading.Thread(target=self._run, name="video saver", daemon=True)
        self._thread.start()

    @property
    def missed(self) -> int:
        """Frames that came too fast, or after an error; exact once it is closed."""
        return self._offered - self.saved - self.thinned - len(self._queue)

    def put(self, result: Result) -> bool:
        """Queue this frame to be saved with its boxes: whether it was taken.

        A live one is refused when too many wait; others wait for room.
        """
        room = self._room = min(_QUEUE_LENGTH, max(4, _QUEUE_BYTES // max(1, result.frame.image.nbytes)))
        with self._changed:
            self._offered += 1
            if not self.live:
                self._changed.wait_for(lambda: len(self._queue) < room or self._closing or self.error is not None)
            if self._closing or self.error is not None or len(self._queue) >= room:
                return False
            self._queue.append(result)
            self._changed.notify_all()
            return True

    def close(self, *, drop_unsaved: Callable[[], bool] = lambda: False) -> None:
        """Save the frames that wait, and complete the file. May be called twice.

        Once ``drop_unsaved``, which is called repeatedly, returns True, frames that still wait are dropped.

        Raises:
            MobiledetError: Something went wrong; the message says where the frames saved until then are. Raised once.
        """
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        while self._thread.is_alive():
            if drop_unsaved() and not self._drop:
                with self._changed:
                    self._drop = True
                    self._queue.clear()
            self._thread.join(_LOOK_S)
        if self.error is not None and not self._reported:
            self._reported = True
            raise MobiledetError(self.summary())

    def summary(self) -> str:
        """The outcome in one line, once it is closed."""
        if self._done is None and self.error is not None:
            rest = self._file.partial
            named = str(rest) in str(self.error) or not rest.exists()
            return str(self.error) if named else f"{self.error}; the frames saved so far are in {rest}"
        if self._done is None:
            return f"{self.path} wasn't written: there was no frame"
        if self.error is not None:
            return f"{self.error}; {self._done} plays up to there"
        file = self._file
        text = f"{self._done}: {file.seconds:.1f} s at {file.fps:g} frames/s, {file.codec.name}, {file.codec.plays}"
        if self.missed:
            why = "stopped before they were saved" if self._drop else "encoding is slower than the camera"
            text += f"; {count(self.missed, 'frame')} not saved, {why}"
        if self.cut_seconds > 1:
            text += f"; pauses and gaps of {self.cut_seconds:.0f} s are left out"
        return text

    def _run(self) -> None:
        try:
            self._save_live() if self.live else self._save_all()
        except Exception as error:
            self._fail(error)
        try:
            self._done = self._file.finish()
        except Exception as error:
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        """Keep and log the first error; let whoever waits for room go on."""
        logger.debug("saving ended", exc_info=error)
        if not isinstance(error, MobiledetError):
            error = MobiledetError(f"{self.path}: the video can't be written: {' '.join(str(error).split())}")
        with self._changed:
            if self.error is not None:
                return
            self.error = error
            self._queue.clear()
            self._changed.notify_all()
        logger.warning("%s", error)

    def _results(self) -> Iterator[Result]:
        """The queued results, until it is closed and empty."""
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                if not self._queue:
                    return
                result = self._queue.popleft()
                self._changed.notify_all()
            yield result

    def _save_all(self) -> None:
        for result in self._results():
            image = self._painter.paint(result)
            if self._file.size is None:
                default = STILLS if result.frame.name else FASTEST
                self._file.open(image.shape[:2], default if self._fps is None else self._fps)
            self._file.write(image)
            self.saved += 1

    def _save_live(self) -> None:
        start, last = 0.0, None
        for result in self._results():
            moment = result.frame.grabbed
            if last is None:
                image = self._painter.paint(result)
                self._file.open(image.shape[:2], self._rate(image))
                start = moment
            else:
                late = (moment - start) * self._file.fps - self._file.written
                if late < _EARLY:
                    self.thinned += 1
                    continue
                start += self._repeat(last, int(late) if late >= _LATE else 0)
                if self._drop:
                    return
                image = self._painter.paint(result)
            self._file.write(image)
            self.saved += 1
            last = image

    def _rate(self, image: ImageArray) -> float:
        """Frames per second that encoding can keep up with on this machine."""
        wanted = min(float(FASTEST), self._fps or FASTEST)
        took = self._file.milliseconds(image)
        possible = max(1, math.floor(_SHARE * 1e3 / max(took, 0.1)))
        if possible >= wanted:
            return wanted
        logger.info("%s: %s frames per second, since encoding one takes %.0f ms here", self.path, possible, took)
        return float(possible)

    def _repeat(self, image: ImageArray, times: int) -> float:
        """Repeat a frame; returns the seconds left out, because the gap is too long or encoding is behind already."""
        fps = self._file.fps
        with self._changed:
            # An encoder that is behind would fall further behind by filling all gaps.
            behind = len(self._queue) > self._room // 2
        most = 0 if behind else min(times, round(LONGEST_STILL * fps))
        for _ in range(most):
            if self._drop:
                break
            self._file.write(image)
        cut = (times - most) / fps
        self.cut_seconds += cut
        return cut

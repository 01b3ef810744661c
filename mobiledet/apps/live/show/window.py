"""The window of a live view: shows the newest result, and acts on keys."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from enum import Enum
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mobiledet.apps.live.frames import Result
from mobiledet.apps.live.measure.meter import LiveNumbers
from mobiledet.apps.live.show.display_check import quiet_qt
from mobiledet.apps.live.show.overlay import draw_banner, draw_enlarged, draw_help, draw_note, draw_panel, enlargement
from mobiledet.apps.live.stopping import StopFlag
from mobiledet.apps.live.view import View
from mobiledet.draw.boxes import write_image
from mobiledet.errors import ImageError
from mobiledet.structures import ImageArray, Size

_LOG = logging.getLogger(__name__)

_NAME = "mobiledet"  # OpenCV's handle for the window; what people read is its title
_TURN = 0.02  # seconds between two looks at the keyboard
_NUMBERS_EVERY = 0.2  # seconds; numbers that change faster can't be read
_NOTE_FOR = 2.0
_STEP = 0.05
_EMPTY: Size = (480, 640)
_USUAL: Size = (720, 1280)
_SCREEN_SHARE = 0.85
_PANELS = ("short", "detail", "none")

# Codes differ between the window systems OpenCV was built for: Qt and GTK, Windows, macOS.
_SPECIAL_KEYS = {
    **dict.fromkeys((0xFF52, 0x260000, 0xF700, 0xFFAB, 0xFF97), "+"),
    **dict.fromkeys((0xFF54, 0x280000, 0xF701, 0xFFAD, 0xFF99), "-"),
}
_SAME_KEYS = {"\x1b": "q", "=": "+", "_": "-", "i": "p", "?": "h"}


class StopReason(Enum):
    """What ended a window."""

    KEY = "key"
    CLOSED = "closed"
    """Its frame's close button, or the window system."""
    STOPPED = "stopped"
    """A signal."""
    END = "end"
    """The source has ended."""


class Window:
    """Shows results as they arrive, with their numbers; everything in it happens in the main thread.

    Args:
        view: What is shown; the keyboard changes its settings.
        snapshots: Folder for frames saved with ``s``; made when the first one is.
        on_shown: Called with each result that has appeared on the screen, and when it did.
        screen: ``(height, width)`` of the screen, for the window's first size.
        hold: Whether the last frame stays until a key is pressed, as a single image should.
    """

    def __init__(
        self,
        view: View,
        *,
        snapshots: Path,
        on_shown: Callable[[Result, float], None] | None = None,
        screen: Size | None = None,
        hold: bool = False,
    ) -> None:
        self._view, self._settings = view, view.settings
        self._snapshots, self._on_shown = snapshots, on_shown
        self._screen, self._hold = screen, hold
        self._result: Result | None = None
        self._number = 0
        self._numbers = LiveNumbers()
        self._numbers_due = 0.0
        self._panel, self._help, self._full = _PANELS[0], False, False
        self._note, self._note_until = "", 0.0
        self._look: tuple[Any, ...] = ()
        self._started = 0.0
        self._ended = False
        self._seen = False

    def run(self, stop: StopFlag, ended: Callable[[], bool]) -> StopReason:
        """Show results until something ends it: what that was. Opens the window and closes it; in the main thread.

        ``ended`` is whether the last result has arrived; it is still shown.

        Raises:
            RuntimeError: called in another thread, where windows don't work.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("a window can be opened in the main thread only")
        quiet_qt()
        self._started = time.monotonic()
        try:
            self._open()
            return self._turn_until_over(stop, ended)
        finally:
            with contextlib.suppress(cv2.error):
                cv2.destroyAllWindows()
                cv2.waitKey(1)

    def _turn_until_over(self, stop: StopFlag, ended: Callable[[], bool]) -> StopReason:
        while not stop.is_set():
            # Read before looking for a result: the last one may arrive in between.
            self._ended = ended()
            fresh = self._next_result(stop)
            if (now := time.monotonic()) >= self._numbers_due:
                self._numbers, self._numbers_due = self._view.numbers(), now + _NUMBERS_EVERY
            self._draw_if_changed()
            reason = self._listen()
            if fresh and self._on_shown is not None and self._result is not None and reason is not StopReason.CLOSED:
                self._on_shown(self._result, time.monotonic())
            if reason is not None:
                return reason
            if self._ended and not fresh and not (self._hold and self._result is not None):
                return StopReason.END
        return StopReason.STOPPED

    def _next_result(self, stop: StopFlag) -> bool:
        """Wait a moment for a newer result; whether there is one."""
        results = self._view.results
        frozen = self._settings.paused and self._result is not None  # the frame on the screen is to stay there
        got = None if frozen else results.get(self._number, timeout=0.0 if self._ended or results.closed else _TURN)
        if got is None:
            if frozen or results.closed:
                stop.wait(_TURN)
            return False
        if self._result is None:
            self._resize(got[1].frame.image.shape[:2])
            self._say("h: list of keys")
        self._number, self._result = got
        return True

    def _banner(self) -> str:
        """Why nothing moves; empty while frames arrive, or none is expected."""
        if self._result is None:
            waited = time.monotonic() - self._started
            return self._numbers.source.message or f"waiting for the first frame ({waited:.0f} s)"
        if self._ended or self._settings.paused or self._numbers.source.connected:
            return ""
        return self._numbers.source.message

    def _draw_if_changed(self) -> None:
        if time.monotonic() >= self._note_until:
            self._note = ""
        paused, banner = self._settings.paused, self._banner()
        keys = self._panel, self._help, self._full, self._note
        look = (self._number, self._settings.revision, self._numbers, banner, keys)
        if look == self._look:
            return
        self._look = look
        canvas = self._base_image().copy()
        if banner:
            draw_banner(canvas, banner)
        if self._help:
            draw_help(canvas)
        elif self._panel != "none" and self._result is not None:
            draw_panel(canvas, self._numbers, self._settings, detail=self._panel == "detail")
        if paused:
            draw_note(canvas, "paused", corner=True)
        if self._note:
            draw_note(canvas, self._note)
        if self._full and self._screen is not None:
            canvas = _fill(canvas, self._screen)
        cv2.imshow(_NAME, cv2.cvtColor(canvas, cv2.COLOR_RGB2BGR))

    def _base_image(self) -> ImageArray:
        """The frame with its boxes, before any text is written on it."""
        result = self._result
        if result is None:
            return np.full((*_EMPTY, 3), 40, np.uint8)
        factor = enlargement(result.frame.image.shape[:2])
        if factor == 1:
            return self._view.painter.paint(result)
        return draw_enlarged(result, self._settings, factor)

    def _listen(self) -> StopReason | None:
        """Let the window handle its events for a moment, and act on a key; returns why to end, if there is a reason."""
        # Not pollKey: it loses what sets arrows apart from letters.
        code = cv2.waitKeyEx(1)
        if not self._is_open():
            return StopReason.CLOSED
        key = key_name(code)
        if key == "q":
            return StopReason.KEY
        self._act(key)
        return None

    def _act(self, key: str) -> None:
        settings = self._settings
        if key == " ":
            settings.paused = not settings.paused
        elif key in ("+", "-"):
            settings.threshold += _STEP if key == "+" else -_STEP
            self._say(f"threshold {settings.threshold:.2f}")
        elif key == "l":
            settings.labels = not settings.labels
            self._say(f"names {'on' if settings.labels else 'off'}")
        elif key == "p":
            self._panel = _PANELS[(_PANELS.index(self._panel) + 1) % len(_PANELS)]
        elif key == "h":
            self._help = not self._help
        elif key == "f":
            self._full = not self._full
            mode = cv2.WINDOW_FULLSCREEN if self._full else cv2.WINDOW_NORMAL
            with contextlib.suppress(cv2.error):
                cv2.setWindowProperty(_NAME, cv2.WND_PROP_FULLSCREEN, mode)
        elif key == "s":
            self._save_snapshot()

    def _save_snapshot(self) -> None:
        if self._result is None:
            self._say("there is no frame yet")
            return
        try:
            path = save_snapshot(self._snapshots, self._view.painter.paint(self._result))
        except ImageError as error:
            _LOG.warning("%s", error)
            self._say(str(error))
        else:
            _LOG.info("saved %s", path)
            self._say(f"saved {path}")

    def _say(self, text: str) -> None:
        self._note, self._note_until = text, time.monotonic() + _NOTE_FOR

    def _open(self) -> None:
        cv2.namedWindow(_NAME, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL)
        title = f"mobiledet: {self._view.title}"
        cv2.setWindowTitle(_NAME, title.encode("utf-8", "replace").decode())  # OpenCV crashes at a lone surrogate
        self._resize(_EMPTY)

    def _resize(self, size: Size) -> None:
        """Make the window fit a frame, and the screen."""
        height, width = (side * enlargement(size) for side in size)
        screen = self._screen or _USUAL
        share = _SCREEN_SHARE if self._screen else 1.0
        factor = min(1.0, share * screen[0] / height, share * _one_screen(screen)[1] / width)
        cv2.resizeWindow(_NAME, max(1, round(width * factor)), max(1, round(height * factor)))

    def _is_open(self) -> bool:
        try:
            visible = cv2.getWindowProperty(_NAME, cv2.WND_PROP_VISIBLE) >= 1
        except cv2.error:  # Qt, once its last window is gone
            visible = False
        # Some window systems can't tell; there a window that was never seen open isn't taken for closed.
        self._seen = self._seen or visible
        return visible or not self._seen


def _one_screen(screen: Size) -> Size:
    """Two screens side by side count as one; a window has half of it."""
    return screen[0], min(screen[1], round(screen[0] * 16 / 9))


def _fill(image: ImageArray, screen: Size) -> ImageArray:
    """Add black borders up to the shape of the screen; the window system would make them white."""
    height, width = image.shape[:2]
    tall, wide = _one_screen(screen)
    x, y = max(0, round(height * wide / tall) - width), max(0, round(width * tall / wide) - height)
    filled: ImageArray = cv2.copyMakeBorder(image, y // 2, y - y // 2, x // 2, x - x // 2, cv2.BORDER_CONSTANT)
    return filled


def key_name(code: int) -> str:
    """The key of a code from ``cv2.waitKeyEx``: its letter in lower case, or an empty text if it does nothing."""
    if code < 0:
        return ""
    for known in (code, code & 0xFFFF):  # GTK puts shift and lock keys into higher bits
        if known in _SPECIAL_KEYS:
            return _SPECIAL_KEYS[known]
    letter = chr(code & 0xFFFF).lower() if code & 0xFFFF < 128 else ""
    return _SAME_KEYS.get(letter, letter)


def save_snapshot(folder: Path, image: ImageArray) -> Path:
    """Save a frame ``(H, W, 3)`` uint8 RGB as a JPEG named after the current time; nothing is overwritten.

    Raises:
        ImageError: It can't be written.
    """
    now = time.strftime("%Y%m%d-%H%M%S")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number in count(1):
            path = folder / f"snapshot_{now}{f'_{number}' if number > 1 else ''}.jpg"
            with contextlib.suppress(FileExistsError):
                path.touch(exist_ok=False)  # the name is ours, whoever else saves into this folder
                break
    except OSError as error:
        raise ImageError(f"{folder}: can't be written ({error.strerror}); choose another folder") from error
    try:
        write_image(path, image)
    except BaseException:
        path.unlink()
        raise
    return path

"""What every live source offers, whether camera, stream, video file or folder of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledet.apps.live.frames import Frame

if TYPE_CHECKING:
    from mobiledet.structures import Size


def usable_fps(value: float | None, least: float = 0.01) -> float | None:
    """A plausible frame rate, ``least..480`` frames a second; else None.

    Streams and cameras that don't know theirs report 0, 1000 or 90000.
    """
    return float(value) if value is not None and least <= value <= 480 else None


def is_utf8(path: Path) -> bool:
    """Whether a file's name can be given to OpenCV, which crashes on one that isn't UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


class EndOfSource(Exception):  # noqa: N818 - no error, as StopIteration is none
    """The last frame of a file or folder has been taken."""


@dataclass(frozen=True)
class SourceState:
    """How a source is doing.

    Attributes:
        connected: Whether frames are coming.
        message: Why not, and what is being done about it, as a person reads it on the screen; empty when connected.
        captured: Frames it has given so far, dropped ones included.
        dropped: Frames replaced by newer ones before anyone took them.
        skipped: Frames that were there but couldn't be read.
        reconnects: How often it reconnected.
        size: ``(height, width)`` of its frames, once known.
        fps: Frames a second that it reports; None where it doesn't.
        frames: Frames it holds; None where that isn't known or it has no end.
    """

    connected: bool = False
    message: str = ""
    captured: int = 0
    dropped: int = 0
    skipped: int = 0
    reconnects: int = 0
    size: Size | None = None
    fps: float | None = None
    frames: int | None = None


class Source(ABC):
    """Gives frames one after the other.

    A live source (camera, stream, file with its own clock) gives the newest frame and counts those that it replaced.
    Any other gives every frame and waits for whoever takes them.

    Attributes:
        name: What the user called it, without passwords.
        live: Whether the newest frame wins.
    """

    name: str
    live: bool

    def check(self) -> None:  # noqa: B027 - most sources can't know
        """Refuse at once what needn't be opened to know that it is missing.

        Raises:
            SourceError: There is no such camera.
        """

    @abstractmethod
    def start(self) -> None:
        """Begin to capture, in the background.

        Raises:
            SourceError: What it should read doesn't exist or can't be opened, as far as that is known at once.
        """

    @abstractmethod
    def take(self, timeout: float) -> Frame | None:
        """The next frame; None if there is none within ``timeout`` seconds. For one caller.

        Raises:
            EndOfSource: There won't be any more.
            SourceError: It can't be read at all.
        """

    @abstractmethod
    def state(self) -> SourceState:
        """How it is doing; may be asked from any thread, and answers at once."""

    @abstractmethod
    def close(self) -> None:
        """Release the device, end all processes and threads, within about a second. Harmless when done twice."""

    def pause(self, paused: bool) -> None:  # noqa: B027 - most sources can't
        """Stop a file's clock, or start it again; a camera goes on, and its frames are dropped."""

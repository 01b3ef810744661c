"""What every source of pictures offers, whether camera, stream, video file or folder."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from mobiledet.apps.live.frames import Frame
from mobiledet.structures import Size


def usable_fps(value: float | None, least: float = 0.01) -> float | None:
    """Pictures a second if that can be meant: a number in ``least..480``; else None.

    Streams and cameras that don't know say 0, 1000 or 90000.
    """
    return float(value) if value is not None and least <= value <= 480 else None


def is_utf8(path: Path) -> bool:
    """Whether a file's name can be given to OpenCV, which crashes at one that isn't UTF-8."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


class EndOfSource(Exception):  # noqa: N818 - no error, as StopIteration is none
    """The last picture of a file or folder has been taken."""


@dataclass(frozen=True)
class SourceState:
    """How a source is doing.

    Attributes:
        connected: Whether pictures are coming.
        message: Why not, and what is being done about it, as a person reads it on the screen; empty when connected.
        captured: Pictures it has given so far, dropped ones included.
        dropped: Pictures replaced by newer ones before anyone took them.
        skipped: Pictures that were there but couldn't be read.
        reconnects: How often it came back.
        size: ``(height, width)`` of its pictures, once known.
        fps: Pictures a second that it says it gives; None where it doesn't say.
        frames: Pictures it holds; None where that isn't known or it has no end.
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
    """Gives pictures one after the other.

    A live source (camera, stream, file with its own clock) gives the newest picture and counts those that it replaced.
    Any other gives every picture and waits for whoever takes them.

    Attributes:
        name: What the user called it, passwords left out.
        live: Whether the newest wins.
    """

    name: str
    live: bool

    def check(self) -> None:  # noqa: B027 - most sources can't tell
        """Refuse at once what needn't be opened to know that it isn't there.

        Raises:
            SourceError: there is no such camera.
        """

    @abstractmethod
    def start(self) -> None:
        """Begin to capture, in the background.

        Raises:
            SourceError: what it should read doesn't exist or can't be opened, as far as that can be told at once.
        """

    @abstractmethod
    def take(self, timeout: float) -> Frame | None:
        """The next picture; None if there is none within ``timeout`` seconds. For one caller.

        Raises:
            EndOfSource: there won't be any more.
            SourceError: it turned out that it can't be read at all.
        """

    @abstractmethod
    def state(self) -> SourceState:
        """How it is doing; may be asked from any thread, and answers at once."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the device, end all processes and threads, within about a second. Harmless when done twice."""

    def pause(self, paused: bool) -> None:  # noqa: B027 - most sources can't
        """Stop a file's clock, or start it again; a camera goes on, its pictures are dropped."""

"""What every live source offers, whether camera, stream, video file or folder of images, and what a kind of them is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mobiledet.apps.live.frames import Frame
from mobiledet.apps.live.sources.capture_devices import CaptureJob, Device
from mobiledet.errors import SourceError

if TYPE_CHECKING:
    from mobiledet.structures import Size


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


@dataclass(frozen=True)
class SourceOptions:
    """How a source is read. None and False leave it to the source.

    Attributes:
        width: Pixels asked of a camera.
        height: The same; both or none.
        fps: Frames a second asked of a camera, or the clock of a file with ``realtime``.
        mjpg: Whether a camera is asked to send JPEG.
        realtime: Whether a file is read by its own clock, the newest frame winning.
        loop: Whether a file starts again at its end.
        stall_s: Seconds of silence after which a camera or stream is considered lost.

    Raises:
        SourceError: A value is out of range.
    """

    width: int | None = None
    height: int | None = None
    fps: float | None = None
    mjpg: bool = False
    realtime: bool = False
    loop: bool = False
    stall_s: float | None = None

    def __post_init__(self) -> None:
        for name, least, most, unit in (
            ("width", 1, 10_000, "pixels"),
            ("height", 1, 10_000, "pixels"),
            ("fps", 0.01, 1000, "frames a second"),
            ("stall_s", 0.5, 3600, "seconds"),
        ):
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise SourceError(f"{flag(name)} {value:g} must be between {least} and {most} {unit}")
        if (self.width is None) != (self.height is None):
            raise SourceError("--width and --height go together; give both, or none")

    def given(self) -> list[str]:
        """Names of the options that aren't left to the source."""
        return [name for name, value in vars(self).items() if value not in (None, False)]


def flag(name: str) -> str:
    """What an option of `SourceOptions` is called on the command line: ``--stall`` for ``stall_s``."""
    return f"--{name.removesuffix('_s')}"


@dataclass(frozen=True)
class SourceKind:
    """A kind of live source: what its file adds to `opening.SOURCES`. Nothing else lists the kinds.

    Attributes:
        name: Its name, different from all others.
        plural: What messages call sources of this kind, as in "--loop is for video files".
        examples: What a user may write for it, for the help and for suggestions after a typo.
        options: Names of the fields of `SourceOptions` that it takes.
        recognises: Whether a text means a source of this kind; asked only if no kind before it in `SOURCES` does. May
            raise `SourceError` for a text that means nothing else and is wrong.
        open: The source that a text means, not started. Raises `SourceError` for a text that is wrong.
        device: Opens the device in the capture process, for kinds whose sources are a `CaptureSource`. Raises
            `CaptureFailedError`.
    """

    name: str
    plural: str
    examples: tuple[str, ...]
    options: frozenset[str]
    recognises: Callable[[str], bool]
    open: Callable[[str, SourceOptions], Source]
    device: Callable[[CaptureJob], Device] | None = None

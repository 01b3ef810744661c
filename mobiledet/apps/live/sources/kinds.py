"""What one kind of live source contributes, and the options that a source may take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mobiledet.apps.live.sources.base import Source
from mobiledet.apps.live.sources.capture_devices import CaptureJob, Device
from mobiledet.errors import SourceError

_LARGEST = 10_000


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
            ("width", 1, _LARGEST, "pixels"),
            ("height", 1, _LARGEST, "pixels"),
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

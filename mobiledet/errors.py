"""Exceptions raised by the package.

Every message is one sentence a user can act on: it names the value, the place and the remedy. Library code
raises these; only `mobiledet.cli` turns them into an exit status.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from importlib.util import find_spec


class MobiledetError(Exception):
    """Base of every error that is the input's fault, not the program's."""


class ConfigError(MobiledetError):
    """A configuration file, key or value that can't be used."""


class DataError(MobiledetError):
    """A data set that can't be trained on or scored."""


class ImageFault(Enum):
    """What is wrong with an image file."""

    MISSING = "missing"
    UNREADABLE = "unreadable"
    NOT_AN_IMAGE = "not an image"
    TRUNCATED = "truncated"
    DAMAGED = "damaged"
    TOO_LARGE = "too large"


class ImageError(DataError):
    """An image that is missing, unreadable, truncated or can't be written.

    Attributes:
        fault: What is wrong with it.
    """

    def __init__(self, message: str, fault: ImageFault = ImageFault.DAMAGED) -> None:
        super().__init__(message)
        self.fault = fault


class WorkerError(DataError):
    """A process that reads images died."""


class CheckpointError(MobiledetError):
    """A checkpoint that is missing, damaged, foreign or can't be written."""


class TrainingError(MobiledetError):
    """Training can't go on: for example too many non-finite steps in a row."""


class OtherProcessError(TrainingError):
    """Of several processes that train together another one stopped or was lost; that one says why."""


class OtherProcessDataError(OtherProcessError, DataError):
    """That of the other process was a `DataError`."""


class OtherProcessWorkerError(OtherProcessDataError, WorkerError):
    """That of the other process was a `WorkerError`."""


class MissingDependencyError(MobiledetError):
    """A package of an optional extra is not installed."""


class DownloadError(MobiledetError):
    """A file that can't be fetched or isn't the file expected, or an archive that can't be unpacked."""


class ModelFileError(MobiledetError):
    """An exported model that is missing, damaged, foreign or can't be made."""


class SourceError(MobiledetError):
    """A camera, stream, video or folder that can't be opened or read."""


NEEDED = {
    "train": ("torch", "torchvision", "pydantic", "albumentations"),
    "export": ("torch", "torchvision", "pydantic"),  # each format's own packages are looked for once it is known
    "serve": ("aiohttp",),
    "score": ("pydantic", "yaml"),
    "track": ("trackers", "yaml"),
    "mqtt": ("paho.mqtt",),
}
"""Packages that tell whether an extra of ``setup.py`` is installed."""


def need_extra(extra: str, packages: Sequence[str] = ()) -> None:
    """Make sure, before any work, that packages of an extra are installed; loads none of them.

    Args:
        extra: Name of the extra.
        packages: Those that are needed; none stands for what `NEEDED` lists.

    Raises:
        MissingDependencyError: One is missing.
    """
    for package in packages or NEEDED[extra]:
        if find_spec(package) is None:
            raise MissingDependencyError(
                f"the package {package!r} is not installed; get it with: {install_extra(extra)}"
            )


def install_extra(extra: str) -> str:
    """What to type for the packages of an extra of ``setup.py``, for the end of a message."""
    return f'pip install "mobiledet[{extra}]"'

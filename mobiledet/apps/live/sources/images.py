"""Images: one, or a folder of them."""

from __future__ import annotations

import logging
from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledet.apps.live.sources.base import SourceKind
from mobiledet.apps.live.sources.reading import FILE_OPTIONS, ReadResult, ReadSource
from mobiledet.errors import ImageError, SourceError
from mobiledet.utils.addresses import file_path

if TYPE_CHECKING:
    from mobiledet.structures import ImageArray

logger = logging.getLogger(__name__)

IMAGES_PER_S = 1.0
"""How fast images follow each other when no rate is asked for."""


class ImageSource(ReadSource):
    """An image, or a folder of them, in the order of their names; they may differ in size.

    A broken one is counted, reported once, and skipped. By a clock there are ``fps`` of them a second, `IMAGES_PER_S`
    if that is None. Arguments as of `ReadSource`.
    """

    _files: tuple[Path, ...] = ()

    def open(self) -> None:
        """Find the images; there must be some."""
        from mobiledet.data.images import find_images

        try:
            self._files = tuple(find_images([self.path]))
        except ImageError as error:
            raise SourceError(str(error)) from None
        except OSError as error:
            raise SourceError(f"{self.path} can't be read: {error.strerror}; give yourself permission") from None
        self._broken: dict[Path, str] = {}
        self.interval = 1 / (self.wanted_fps or IMAGES_PER_S)
        self.frames = None if self.loop else len(self._files)
        self.fps = 1 / self.interval if self.live else None

    def read(self) -> Generator[ReadResult, None, None]:
        """The images, once or for ever."""
        number = 0
        while True:
            for file in self._files:
                if file not in self._broken:
                    yield ReadResult(partial(self._load, file), number * self.interval, name=file.name)
                    number += 1
            if len(self._broken) == len(self._files):
                first = next(iter(self._broken.values()))
                which = f"none of the {len(self._files)} images can be read; the first: " if self._files[1:] else ""
                raise SourceError(which + first)
            if not self.loop:
                return

    def _load(self, file: Path) -> ImageArray | None:
        from mobiledet.data.images import read_image

        try:
            return read_image(file)
        except ImageError as error:
            self._broken[file] = str(error)
            logger.warning("skipped: %s", error)
            return None


def _recognises(text: str) -> bool:
    path = file_path(text)
    try:
        if path.is_dir():
            return True
        if not path.is_file():
            return False
        with path.open("rb") as file:
            head = file.read(512)
    except (OSError, ValueError):
        return False  # whoever opens it as a video reports the cause
    from mobiledet.data.image_headers import image_format

    return image_format(head) is not None


IMAGES = SourceKind(
    name="images",
    plural="images",
    examples=("an image", "a folder of images"),
    options=FILE_OPTIONS,
    recognises=_recognises,
    open=ImageSource.from_text,
)

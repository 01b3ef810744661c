"""Still pictures: one, or a folder of them."""

from __future__ import annotations

import logging
from collections.abc import Generator
from functools import partial
from pathlib import Path

from mobiledet.apps.live.sources.reading import Found, ReadSource
from mobiledet.data.images import find_images, read_image
from mobiledet.errors import ImageError, SourceError
from mobiledet.structures import ImageArray

logger = logging.getLogger(__name__)

PICTURES_PER_S = 1.0
"""How fast pictures follow each other when nothing else is asked for."""


class PictureSource(ReadSource):
    """A picture, or a folder of them, in the order of their names; they may differ in size.

    A broken one is counted, told once, and left out.

    Args:
        path: The picture or folder.
        name: What users know it by; None for its path.
        realtime: Whether they come by a clock, the newest winning.
        fps: Pictures a second of that clock, `PICTURES_PER_S` if None.
        loop: Whether to start again at the end; positions go on growing.
    """

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        realtime: bool = False,
        fps: float | None = None,
        loop: bool = False,
    ) -> None:
        super().__init__(name or str(path), realtime=realtime)
        self.path = path
        self.interval = 1 / (fps or PICTURES_PER_S)
        self._loop = loop
        self._files: list[Path] = []
        self._broken: dict[Path, str] = {}

    def open(self) -> None:
        """Find the pictures.

        Raises:
            SourceError: there are none.
        """
        try:
            self._files = find_images([self.path])
        except ImageError as error:
            raise SourceError(str(error)) from None
        except OSError as error:
            raise SourceError(f"{self.path} can't be read: {error.strerror}; give yourself permission") from None
        self.frames = None if self._loop else len(self._files)
        self.fps = 1 / self.interval if self.live else None

    def pictures(self) -> Generator[Found, None, None]:
        """Its pictures, once or for ever."""
        number = 0
        while True:
            for file in self._files:
                if file not in self._broken:
                    yield Found(partial(self._load, file), number * self.interval, name=file.name)
                    number += 1
            if len(self._broken) == len(self._files):
                first = next(iter(self._broken.values()))
                which = f"none of the {len(self._files)} pictures can be read; the first: " if self._files[1:] else ""
                raise SourceError(which + first)
            if not self._loop:
                return

    def _load(self, file: Path) -> ImageArray | None:
        try:
            return read_image(file)
        except ImageError as error:
            self._broken[file] = str(error)
            logger.warning("left out: %s", error)
            return None

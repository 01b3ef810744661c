"""From what a user writes to the source that is meant."""

from __future__ import annotations

from mobiledet.apps.live.sources.base import Source, SourceKind, SourceOptions, flag
from mobiledet.apps.live.sources.cameras import CAMERAS
from mobiledet.apps.live.sources.images import IMAGES
from mobiledet.apps.live.sources.raspberry_pi import PI_CAMERAS
from mobiledet.apps.live.sources.streams import STREAMS
from mobiledet.apps.live.sources.video_files import VIDEO_FILES
from mobiledet.errors import SourceError
from mobiledet.utils.addresses import file_path
from mobiledet.utils.text import did_you_mean, nearest, printable, shorten

SOURCES: tuple[SourceKind, ...] = (CAMERAS, PI_CAMERAS, STREAMS, IMAGES, VIDEO_FILES)
"""All kinds of sources; the first that recognises a text opens it. To add one, write its file and name it here."""


def source_examples() -> str:
    """What a user may write, one example of each form: ``"camera:0, ..., a video file"``."""
    return ", ".join(example for kind in SOURCES for example in kind.examples)


def open_source(text: str, options: SourceOptions | None = None) -> Source:
    """The source that a text names; not started yet.

    Args:
        text: ``0``, ``camera:1``, ``/dev/video0``, ``picamera2``, ``rtsp://...``, a video file, an image or a folder
            of images. A file or folder that is called like a camera is written ``./0``.
        options: How it is read.

    Raises:
        SourceError: It names nothing that can be read, or an option makes no sense for it.
    """
    options = options or SourceOptions()
    text = text.strip()
    if not text:
        raise SourceError(f"no source is named; name one of: {source_examples()}")
    if "\0" in text:
        raise SourceError(f"{printable(text)} is not a valid source; remove the null character")
    kind = next((kind for kind in SOURCES if kind.recognises(text)), None)
    if kind is None:
        raise SourceError(f"{shorten(text, 200)} doesn't exist; {_suggestion(text)}")
    for name in options.given():
        if name not in kind.options:
            takers = " and ".join(other.plural for other in SOURCES if name in other.options)
            raise SourceError(f"{flag(name)} is for {takers}, not for {kind.plural}; leave it out")
    return kind.open(text, options)


def _suggestion(text: str) -> str:
    """What a text that nothing recognises may have meant."""
    if hint := did_you_mean(text, [example for kind in SOURCES for example in kind.examples]):
        return hint
    path = file_path(text)
    if not path.parent.is_dir():
        return f"there is no folder {str(path.parent)!r}"
    if "*" in text or "?" in text:
        return "name the folder; all images in it are read"
    try:
        near = nearest(path.name, [entry.name for entry in path.parent.iterdir()], 0.75)
    except OSError:
        near = None
    return f"did you mean {str(path.parent / near)!r}?" if near else f"name one of: {source_examples()}"

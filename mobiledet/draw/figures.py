"""Saving figures of matplotlib: as files in any of its formats, without windows and global state."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mobiledet.errors import ImageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path, *, dpi: int = 110) -> None:
    """Write a figure in the format its name asks for, making the folder; a file of that name is replaced whole.

    Args:
        figure: Made as ``matplotlib.figure.Figure``, not by pyplot, which opens windows and keeps every figure.
        path: ``.png``, ``.svg`` or ``.pdf``.
        dpi: Pixels per inch of a ``.png``.

    Raises:
        ImageError: Unknown extension, or a path that can't be written.
    """
    from mobiledet.draw.boxes import write_encoded  # here, since pages need no OpenCV

    data = io.BytesIO()
    try:
        with any_letters():
            figure.savefig(data, format=path.suffix[1:].lower() or "none", dpi=dpi)
    except ValueError as error:
        raise ImageError(f"{path}: can't draw as '{path.suffix}'; name it .png, .svg or .pdf") from error
    write_encoded(path, data.getvalue())


def literal(text: str) -> str:
    """Text for a figure as it stands: matplotlib would read what is between two dollar signs as a formula."""
    return text.replace("$", r"\$")


@contextmanager
def any_letters() -> Iterator[None]:
    """Accept names in letters that matplotlib's font lacks without a warning; they are drawn as boxes."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield

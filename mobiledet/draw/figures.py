"""Figures of matplotlib as files, without windows and global state; the curves of a training run."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mobiledet.errors import DataError, ImageError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def save_figure(figure: Figure, path: Path, *, dpi: int = 110) -> None:
    """Write a figure in the format its name asks for, making the folder; a file of that name is replaced whole.

    It is made as ``matplotlib.figure.Figure``, not by pyplot, which opens windows and keeps every figure.

    Raises:
        ImageError: ``path`` isn't a ``.png``, ``.svg`` or ``.pdf``, or can't be written.
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


def plot_history(rows: Sequence[Mapping[str, float | int | None]], path: Path, title: str) -> None:
    """Draw the curves of a training run side by side: losses, average precision, learning rate.

    Args:
        rows: One mapping per epoch: ``epoch``, ``lr``, any ``loss/<name>`` and, of the validation images,
            ``val_loss/<name>``, ``val/AP`` and ``val/AP50`` (0..1). What is missing, None or not a number is skipped.
        path: File to write; ``.png``, ``.svg`` or ``.pdf``.
        title: Written above the curves.

    Raises:
        DataError: No rows, or none of the figures above in any.
        ImageError: It can't be written.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    def curve(key: str) -> NDArray[np.float64]:
        return np.array([np.nan if (value := row.get(key)) is None else value for row in rows], np.float64)

    losses = list(dict.fromkeys(key for row in rows for key in row if key.startswith(("loss/", "val_loss/"))))
    wanted = {"loss": losses, "average precision": ["val/AP", "val/AP50"], "learning rate": ["lr"]}
    known = {name: {key: curve(key) for key in keys if np.isfinite(curve(key)).any()} for name, keys in wanted.items()}
    panels = {name: curves for name, curves in known.items() if curves}
    if not panels:
        raise DataError(f"{title}: no curve to draw in {len(rows)} rows; train for an epoch first")
    epochs = np.where(np.isfinite(curve("epoch")), curve("epoch"), np.arange(1, len(rows) + 1))

    figure = Figure(figsize=(4.6 * len(panels), 3.8), layout="constrained")
    figure.suptitle(literal(title), fontsize=12)
    for place, (name, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place, title=name, xlabel="epoch")
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        axes.set_xlim(epochs.min() - 0.5, epochs.max() + 0.5)
        for key, values in curves.items():
            given = np.isfinite(values)
            # Points where there are few: measured every so many epochs, or one epoch old.
            style, label = "o-" if given.sum() <= 30 else "-", key.rpartition("/")[2]
            (line,) = axes.plot(epochs[given], values[given], style, label=label, markersize=3)
            if key.startswith("val_loss/"):  # in the colour of the training's
                same = next((other for other in axes.lines if other.get_label() == label), line)
                line.set(linestyle="--", label=f"{label}, validation", color=same.get_color())
        finite = np.concatenate(list(curves.values()))
        finite = finite[np.isfinite(finite)]
        if name == "loss" and finite.min() > 0 and finite.max() > 10 * finite.min():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            axes.set_ylim(min(0.0, 1.1 * finite.min()), 1.1 * finite.max() if finite.max() > 0 else 1.0)
        if (best := curves.get("val/AP")) is not None:
            at = int(np.nanargmax(best))
            axes.set_title(f"AP, best {best[at]:.3f} in epoch {epochs[at]:g}")
        if name != "learning rate":
            axes.legend(fontsize=8)
    save_figure(figure, path, dpi=120)

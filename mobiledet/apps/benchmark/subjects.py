"""What a worker measures: a model of ours, a peer, or a plain matrix product."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from mobiledet.errors import MobiledetError
from mobiledet.structures import Detections, ImageArray, Size

MATRIX = 1024
"""Side of the matrices whose product shows what the processor can do."""


@dataclass(frozen=True)
class About:
    """What a loaded subject says about itself.

    Attributes:
        runtime: Name and version of what runs it.
        precision: Such as ``"float32"``.
        input_size: ``(height, width)`` of the network's own input.
        batch: Pictures it takes at once; times are of one of them.
        gmacs: Multiply-adds of one picture, in billions; None where not counted yet.
        names: Class names; empty where it knows none, or its weights are random.
        file: The checkpoint behind a name or a run folder.
        checkpoint: SHA-256 of the checkpoint it was made from, as far as it says.
        note: What a reader of its times must know.
    """

    runtime: str
    precision: str = "float32"
    input_size: Size = (0, 0)
    batch: int = 1
    gmacs: float | None = None
    names: tuple[str, ...] = ()
    file: str | None = None
    checkpoint: str | None = None
    note: str = ""


class Subject(Protocol):
    """Something loaded that can be timed."""

    about: About

    def call(self, picture: ImageArray) -> object:
        """The whole way, picture to detections in its pixels; as many pictures at once as the batch says."""

    def stages(self, picture: ImageArray, rounds: int) -> dict[str, float | None]:
        """Median milliseconds of ``whole``, ``resize``, ``network``, ``decode+nms`` for one picture.

        None marks a stage that can't be told from the one before it, and is in there.
        """

    def detect(self, pictures: Sequence[ImageArray]) -> list[Detections]:
        """Detections, to be scored."""

    def count(self) -> float | None:
        """Multiply-adds in billions where counting them takes time of its own; called last."""


def open_subject(kind: str, target: str, threads: int) -> Subject:
    """Load a subject.

    Args:
        kind: ``"model"``, ``"matrix"``, or a peer.
        target: The path or name; empty for peers without one.
        threads: Processor threads.

    Raises:
        MobiledetError: it can't be opened.
    """
    if kind == "model":
        return OwnModel(target, threads)
    if kind == "matrix":
        return MatrixProduct()
    from mobiledet.apps.benchmark.peers import open_peer

    return open_peer(kind, target, threads)


class OwnModel:
    """A model of ours, through the same calls that a user makes.

    Args:
        target: Anything that the Detector takes.
        threads: Processor threads.
    """

    def __init__(self, target: str, threads: int) -> None:
        from mobiledet.runtime.choose import find_runtime
        from mobiledet.runtime.detector import Detector

        # Of its own accord a checkpoint would take a GPU; this is about processors.
        self.detector = Detector(target, threads=threads, provider=None if find_runtime(target) else "cpu")
        card = self.detector.card
        self.about = About(
            runtime=self.detector.backend.runtime,
            precision=card.precision,
            input_size=card.resize.size,
            batch=card.batch,
            gmacs=card.gmacs or None,
            names=card.names,
            file=None if find_runtime(target) else card.origin.get("file"),
            checkpoint=card.origin.get("sha256"),
            note=f"{card.batch} pictures at once, times are of one" if card.batch > 1 else "",
        )

    def call(self, picture: ImageArray) -> object:
        """See :class:`Subject`."""
        return self.detector([picture] * self.about.batch)

    def stages(self, picture: ImageArray, rounds: int) -> dict[str, float | None]:
        """See :class:`Subject`."""
        batch = self.about.batch
        whole = median_ms(lambda: self.call(picture), rounds) / batch
        resize = median_ms(lambda: self.detector.fit(picture), rounds)
        fitted, _ = self.detector.fit(picture)
        inner = self.detector.backend.stages(np.repeat(fitted[None], batch, axis=0), rounds)
        return {"whole": whole, "resize": resize, **{name: value / batch for name, value in inner.items()}}

    def detect(self, pictures: Sequence[ImageArray]) -> list[Detections]:
        """See :class:`Subject`."""
        return self.detector(list(pictures))

    def count(self) -> float | None:
        """See :class:`Subject`."""
        return None


class MatrixProduct:
    """NumPy's product of two square float32 matrices: what the processor does when nothing holds it up."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._a, self._b = (generator.standard_normal((MATRIX, MATRIX), np.float32) for _ in range(2))
        self._out = np.empty_like(self._a)
        self.about = About(f"numpy {np.__version__}", gmacs=MATRIX**3 / 1e9)

    def call(self, picture: ImageArray) -> object:  # noqa: ARG002
        """One product."""
        return np.matmul(self._a, self._b, out=self._out)

    def stages(self, picture: ImageArray, rounds: int) -> dict[str, float | None]:
        """It has none."""
        return {"whole": median_ms(lambda: self.call(picture), rounds)}

    def detect(self, pictures: Sequence[ImageArray]) -> list[Detections]:
        """It can't."""
        raise MobiledetError(f"a matrix product finds nothing in {len(pictures)} pictures")

    def count(self) -> float | None:
        """See :class:`Subject`."""
        return None


def median_ms(call: Callable[[], Any], rounds: int) -> float:
    """Median milliseconds of a call, after one that isn't counted."""
    call()
    return float(np.median([time_ms(call) for _ in range(rounds)]))


def time_ms(call: Callable[[], Any]) -> float:
    """Milliseconds of one call."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def load_picture(path: str) -> ImageArray:
    """A picture as the parent saved it."""
    picture: ImageArray = np.load(Path(path), allow_pickle=False)
    return picture

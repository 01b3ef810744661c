"""What a worker measures: any model that can be timed, our own models, and a plain matrix product."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mobiledet.detections import Detections
from mobiledet.errors import MobiledetError
from mobiledet.evaluation.metrics import COCO_MAX_DETECTIONS
from mobiledet.runtime.card import ModelCard
from mobiledet.structures import ImageArray, Size

MATRIX_SIDE = 1024  # of the matrices whose product shows what the processor can do


@dataclass(frozen=True)
class About:
    """What a loaded model says about itself.

    Attributes:
        runtime: Name and version of what runs it.
        precision: Such as ``"float32"``.
        input_size: ``(height, width)`` of the network's own input.
        batch: Images it takes at once; times are of one of them.
        gmacs: Multiply-adds of one image, in billions; None where not counted yet.
        names: Class names; empty where it knows none, or its weights are random.
        file: The file or folder behind a name or a run folder.
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


class MeasuredModel(ABC):
    """Something loaded that can be timed."""

    about: About

    @abstractmethod
    def call(self, image: ImageArray) -> object:
        """All steps from an image to detections in its pixels; for a whole batch of it where the model takes one."""

    @abstractmethod
    def stages(self, image: ImageArray, rounds: int) -> dict[str, float | None]:
        """Median milliseconds of ``whole``, ``resize``, ``network``, ``decode+nms`` for one image.

        None marks a stage that can't be separated from the one before it, and is part of that one's time.
        """

    def detect(self, images: Sequence[ImageArray]) -> list[Detections]:
        """Detections, to be scored; a `MobiledetError` where its weights are random, or it isn't a detector."""
        raise MobiledetError(f"{self.about.runtime}: there is nothing to score in {len(images)} images")

    def count(self) -> float | None:
        """Multiply-adds in billions, where counting them takes time of its own; called last. None: see ``about``."""
        return None


class DetectorModel(MeasuredModel):
    """A model of ours, anything that the Detector takes, through the same calls that a user makes."""

    def __init__(self, target: str, threads: int, labels: str | None = None) -> None:
        from mobiledet.runtime.choose import exported_path, takes_labels
        from mobiledet.runtime.detector import Detector

        exported = exported_path(target)
        # By default a checkpoint would take a GPU; this is about processors.
        self.detector = Detector(
            target,
            threads=threads,
            provider="cpu" if exported is None else None,
            labels=labels if labels is not None and takes_labels(target) else None,
        )
        card = self.detector.card
        self.about = About(
            runtime=self.detector.backend.runtime,
            precision=card.precision,
            input_size=card.resize.size,
            batch=card.batch or 1,
            gmacs=card.gmacs or None,
            names=card.names,
            file=card.origin.get("file") if exported is None else str(exported),
            checkpoint=card.origin.get("sha256"),
            note=_note(card),
        )

    def call(self, image: ImageArray) -> object:
        """See :class:`MeasuredModel`."""
        return self.detector([image] * self.about.batch)

    def stages(self, image: ImageArray, rounds: int) -> dict[str, float | None]:
        """See :class:`MeasuredModel`."""
        batch = self.about.batch
        whole = median_ms(lambda: self.call(image), rounds) / batch
        resize = median_ms(lambda: self.detector.fit(image), rounds)
        fitted, _ = self.detector.fit(image)
        inner = self.detector.backend.stages(np.repeat(fitted[None], batch, axis=0), rounds)
        stages: dict[str, float | None] = {"decode+nms": None}  # other people's .tflite files suppress in the network
        return {"whole": whole, "resize": resize, **stages, **{name: part / batch for name, part in inner.items()}}

    def detect(self, images: Sequence[ImageArray]) -> list[Detections]:
        """See :class:`MeasuredModel`."""
        return self.detector(list(images))


def _note(card: ModelCard) -> str:
    if card.max_detections < COCO_MAX_DETECTIONS:
        return f"{card.max_detections} detections at most, also for AP"
    return f"{card.batch} images at once, times are of one" if (card.batch or 1) > 1 else ""


class MatrixProduct(MeasuredModel):
    """NumPy's product of two square float32 matrices: what the processor does when nothing slows it down."""

    def __init__(self) -> None:
        generator = np.random.default_rng(0)
        self._a, self._b = (generator.standard_normal((MATRIX_SIDE, MATRIX_SIDE), np.float32) for _ in range(2))
        self._out = np.empty_like(self._a)
        self.about = About(f"numpy {np.__version__}", input_size=(1, 1), gmacs=MATRIX_SIDE**3 / 1e9)

    def call(self, image: ImageArray) -> object:  # noqa: ARG002
        """One product."""
        return np.matmul(self._a, self._b, out=self._out)

    def stages(self, image: ImageArray, rounds: int) -> dict[str, float | None]:
        """It has none."""
        return {"whole": median_ms(lambda: self.call(image), rounds)}


def median_ms(call: Callable[[], Any], rounds: int) -> float:
    """Median milliseconds of a call, after one that isn't counted."""
    call()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))

"""One call for every kind of model: image in, detections out."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, overload

import numpy as np

from mobiledet.data.images import ImageSource, load_image
from mobiledet.data.videos import read_video
from mobiledet.detections import ClassNames, Detections
from mobiledet.preprocess import check_image, fit_image
from mobiledet.runtime.base import Backend, RawDetections
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.choose import open_backend
from mobiledet.runtime.tracking import LOWEST_SCORE, Tracker
from mobiledet.structures import ImageArray, ImageGeometry

MOST_AT_ONCE = 16
"""Images of a list that a network for any number of them gets at once: their feature maps take memory."""


class Detector:
    """Finds objects in images of any size.

    Loading is done once; afterwards one detector may be called from several threads at the same time.

    Args:
        model: An exported ``.onnx`` or ``.tflite`` file, an OpenVINO or ncnn folder, a checkpoint, a run folder, or
            pretrained weights by name; PyTorch is loaded for the last three only, and a pretrained detector runs
            without it as well, in LiteRT. Or a backend that is loaded already.
        threads: Processor threads; 0 takes all cores.
        provider: Where it runs: an execution provider of ONNX Runtime, a device of OpenVINO or of PyTorch. None or
            ``"auto"`` takes the processor, and for checkpoints a GPU if there is one.
        score_threshold: Minimum score of a detection; None takes the one the model was scored with, which is low
            (``card.shown_threshold`` is better for display).
        iou_threshold: Overlap from which two boxes of one class are one object; None takes the model's own.
        spin: Whether ONNX Runtime's threads keep their cores busy for some 50 ms after a call, waiting for the next:
            faster when call follows call, a waste of power when images come from a camera.
        labels: Names of the classes of a ``.tflite`` file that mobiledet didn't write: a text file, see
            :func:`mobiledet.weights.class_lists.parse_class_list`, or the names themselves in the order of its outputs.
            They win over names that are packed into it.

    Raises:
        ModelFileError: There is no such file, it is damaged or foreign, or ``labels`` don't fit it.
        MissingDependencyError: The package that runs it isn't installed.
        MobiledetError: A checkpoint can't be used.
        ValueError: A threshold outside 0..1, or a negative number of threads.

    Example:
        >>> detector = Detector("model.onnx", score_threshold=0.4)  # doctest: +SKIP
        >>> detector(image).boxes  # doctest: +SKIP
    """

    def __init__(
        self,
        model: str | Path | Backend,
        *,
        threads: int = 0,
        provider: str | None = None,
        score_threshold: float | None = None,
        iou_threshold: float | None = None,
        spin: bool = True,
        labels: str | Path | Sequence[str] | None = None,
    ) -> None:
        for what, value in (("score_threshold", score_threshold), ("iou_threshold", iou_threshold)):
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{what} is {value}; it must lie between 0 and 1")
        self.backend: Backend = (
            open_backend(model, threads=threads, provider=provider, spin=spin, labels=labels)
            if isinstance(model, str | Path)
            else model
        )
        self._score_threshold = score_threshold
        self._iou_threshold = iou_threshold

    @property
    def card(self) -> ModelCard:
        """What the model says about itself."""
        return self.backend.card

    @property
    def names(self) -> ClassNames:
        """The names of all classes; those of detections are ``detections.class_names``."""
        return ClassNames(self.card.names)

    @property
    def score_threshold(self) -> float:
        """Minimum score of a detection."""
        return self.card.score_threshold if self._score_threshold is None else self._score_threshold

    @property
    def iou_threshold(self) -> float:
        """Overlap from which two boxes of one class are one object."""
        return self.card.iou_threshold if self._iou_threshold is None else self._iou_threshold

    @overload
    def __call__(self, images: ImageSource) -> Detections: ...

    @overload
    def __call__(self, images: list[Any] | tuple[Any, ...]) -> list[Detections]: ...

    @overload
    def __call__(self, images: Iterator[Any]) -> Iterator[Detections]: ...

    def __call__(self, images: Any) -> Detections | list[Detections] | Iterator[Detections]:
        """Detections in one image, or in each of several.

        Args:
            images: A path or address, the content of a file, a PIL image or an array ``(H, W, 3)`` uint8 RGB; a list of
                those, or an iterator, which is read a batch at a time.

        Returns:
            For each image the detections in its own pixels, best first: one `Detections`, a list, or an iterator.

        Raises:
            ImageError: An image can't be read.
            ValueError: An array has another shape or type.
        """
        if isinstance(images, list | tuple):
            return list(self._detect_all(iter(images)))
        if isinstance(images, Iterator):
            return self._detect_all(images)
        return next(self._detect_all(iter([images])))

    def stream(self, source: str | Path | int, *, track: bool = False) -> Iterator[tuple[ImageArray, Detections]]:
        """Each frame of a video with its detections, to the end; every frame, however long it takes.

        (``mobiledet webcam`` is for watching: it drops frames that come too fast, reconnects and measures.)

        Args:
            source: A video file, an address of a stream, or the number of a camera.
            track: Whether objects get ids that stay, ``detections.track_ids``; see
                :class:`mobiledet.runtime.tracking.Tracker`.

        Yields:
            The frame ``(H, W, 3)`` uint8 RGB and what was found in it.

        Raises:
            SourceError: The source can't be opened or read.
            MissingDependencyError: Tracking needs the extra ``track``.
        """
        if not track:
            for _, frame in read_video(source):
                yield frame, self(frame)
            return
        threshold = self.card.shown_threshold if self._score_threshold is None else self._score_threshold
        tracker = Tracker() if threshold is None else Tracker(threshold)
        lowest = Detector(self.backend, score_threshold=LOWEST_SCORE, iou_threshold=self._iou_threshold)
        for seconds, frame in read_video(source):
            yield frame, tracker.update(lowest(frame), seconds).above(tracker.threshold)

    def _detect_all(self, images: Iterator[Any]) -> Iterator[Detections]:
        while some := [load_image(image) for image in islice(images, self._batch_size)]:
            fitted, geometries = zip(*(self.fit(image) for image in some), strict=True)
            yield from self.detect_fitted(self._batch(fitted), geometries)

    def detect_timed(self, image: ImageArray) -> tuple[Detections, dict[str, float]]:
        """Detections in one RGB image ``(H, W, 3)`` uint8, and the milliseconds of the three steps.

        They are ``resize``, ``network`` (with decoding and suppression) and ``read`` (back to the image's pixels).

        Raises:
            ValueError: The image has another shape or type.
        """
        check_image(image)
        start = time.perf_counter()
        fitted, geometry = self.fit(image)
        batch = self._batch([fitted])
        resized = time.perf_counter()
        found = self.backend.run(batch, self.score_threshold, self.iou_threshold)
        ran = time.perf_counter()
        detections = self._read(found, [geometry])[0]
        steps = {"resize": resized - start, "network": ran - resized, "read": time.perf_counter() - ran}
        return detections, {name: seconds * 1e3 for name, seconds in steps.items()}

    def fit(self, image: ImageArray) -> tuple[ImageArray, ImageGeometry]:
        """An image in the network's size, and how to undo that."""
        return fit_image(image, self.card.resize, fill=self.card.fill)

    def detect_fitted(self, batch: ImageArray, geometries: Sequence[ImageGeometry]) -> list[Detections]:
        """Detections in images that are fitted already.

        Args:
            batch: ``(B, H, W, 3)`` uint8 RGB in the network's size.
            geometries: How each image was fitted; where there are fewer than ``B``, the rest of the batch is padding.

        Returns:
            For each geometry the detections in pixels of the image as it was given, best first.
        """
        return self._read(self.backend.run(batch, self.score_threshold, self.iou_threshold), geometries)

    @property
    def _batch_size(self) -> int:
        # Only a checkpoint takes images of changing size; it gets them one by one.
        return (self.card.batch or MOST_AT_ONCE) if self.card.resize.fixed else 1

    def _batch(self, fitted: Sequence[ImageArray]) -> ImageArray:
        """Fitted images as one batch of the network's, filled up with black ones where it takes a fixed number."""
        batch = np.zeros((self.card.batch or len(fitted), *fitted[0].shape), np.uint8)
        batch[: len(fitted)] = fitted
        return batch

    def _read(self, found: RawDetections, geometries: Sequence[ImageGeometry]) -> list[Detections]:
        detections = []
        for index, geometry in enumerate(geometries):
            count = int(np.count_nonzero(found.scores[index] > 0))  # the best come first, nothing scores 0
            detections.append(
                Detections(
                    geometry.to_original(found.boxes[index, :count]),
                    found.scores[index, :count],
                    found.labels[index, :count],
                    self.names,
                    self.card.category_ids,
                )
            )
        return detections

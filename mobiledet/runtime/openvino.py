"""An exported OpenVINO folder, run by OpenVINO."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.errors import ModelFileError
from mobiledet.runtime.base import RawDetections, Runtime, Suppression, check_batch, graph_inputs, suppress
from mobiledet.runtime.folder import read_folder_card
from mobiledet.runtime.timing import time_halves, time_shares
from mobiledet.structures import FloatArray, ImageArray

MODEL_FILE = "model.xml"
PRECISIONS = ("F32", "BF16", "F16")

META_DEVICES = ("AUTO", "HETERO", "MULTI", "BATCH")
"""Devices that OpenVINO doesn't list, because they pass the work on to others."""

LAST_LAYERS = ("Convolution", "FullyConnected", "MatMul")
"""Kinds of nodes whose last run ends the network; what comes after is decoding and suppression."""


class OpenvinoBackend:
    """A model in OpenVINO.

    It computes in float32, as it was scored. Left to itself OpenVINO takes bfloat16 on processors that have it: 0.6 of
    the time, and scores that move by 0.003 in the median but by up to 0.3 (SSD, 80 classes, 8 images). Ask for it
    with ``provider="cpu:bf16"``. Layers that are INT8 in the file stay INT8.

    The arguments are those of :class:`mobiledet.runtime.detector.Detector`; ``spin`` has no effect here.

    Raises:
        ModelFileError: Something is missing, damaged or foreign, or there is no such device.
    """

    def __init__(
        self,
        path: Path,
        *,
        threads: int = 0,
        provider: str | None = None,
        spin: bool = True,  # noqa: ARG002 - every runtime is opened with it
    ) -> None:
        openvino = import_openvino()
        self.runtime = f"openvino {openvino.__version__.split('-')[0]}"
        self.path = path / MODEL_FILE if path.is_dir() else path
        self.card = read_folder_card(self.path.parent, (self.path.name, self.path.with_suffix(".bin").name))
        self._core = openvino.Core()
        self._device, self._settings = _device(self._core, provider or "cpu", threads)
        self._network = self._compile()
        # 3; 2 without suppression; 1 as Frigate wants it, see mobiledet.exporters.frigate
        self._outputs = len(self._network.outputs)
        self._suppression = Suppression.of(self.card, path) if self._outputs == 2 else Suppression(0)
        self._idle: list[Any] = []  # infer requests that no thread uses just now; they share weights and cores

    def run(self, images: ImageArray, score_threshold: float, iou_threshold: float) -> RawDetections:
        """Detections in images ``(B, H, W, 3)`` of the network's size."""
        check_batch(images, self.card)
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._network.create_infer_request()
        try:
            # The outputs are copies: a request writes its next ones over these.
            found = request.infer(self._inputs(images, score_threshold, iou_threshold), share_inputs=True)
            return self._read(found, score_threshold, iou_threshold)
        finally:
            self._idle.append(request)

    def stages(self, images: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` and ``decode+nms``: the whole, split as OpenVINO's own counters have it.

        Counting slows every node down a little, so only the proportion is taken from it.
        """
        thresholds = self.card.score_threshold, self.card.iou_threshold
        feeds, request = self._inputs(images, *thresholds), self._network.create_infer_request()
        if self._outputs == 2:
            return time_halves(
                lambda: request.infer(feeds, share_inputs=True), lambda found: self._read(found, *thresholds), rounds
            )
        return time_shares(
            lambda: request.infer(feeds, share_inputs=True), rounds, lambda: self._profile(feeds, rounds)
        )

    def _inputs(self, images: ImageArray, score_threshold: float, iou_threshold: float) -> dict[str, Any]:
        if self._outputs == 3:
            return graph_inputs(images, score_threshold, iou_threshold)
        if self._outputs == 1 and iou_threshold != self.card.iou_threshold:
            raise ValueError(f"{self.path}: suppression is part of the file; iou_threshold can't be changed")
        return graph_inputs(images)

    def _read(self, found: Any, score_threshold: float, iou_threshold: float) -> RawDetections:
        if self._outputs == 1:
            return self._read_rows(found[0][0, 0], score_threshold)
        if self._outputs == 2:
            return suppress(
                self.card,
                found["boxes"],
                found["scores"],
                score_threshold=score_threshold,
                iou_threshold=iou_threshold,
                settings=self._suppression,
            )
        return RawDetections(found["boxes"], found["scores"], found["labels"].astype(np.int64, copy=False))

    def _read_rows(self, rows: FloatArray, score_threshold: float) -> RawDetections:
        """Detections from rows ``image, class, score, x1, y1, x2, y2``, in shares of the image."""
        height, width = self.card.resize.size
        rows = rows[rows[:, 2] >= max(score_threshold, 1e-9)]
        boxes = rows[:, 3:] * np.array([width, height, width, height], np.float32)
        return RawDetections(boxes[None], rows[None, :, 2], rows[None, :, 1].astype(np.int64) + 1)

    def _profile(self, feeds: dict[str, Any], rounds: int) -> float:
        """The network's share of a run."""
        request, shares = self._compile(PERF_COUNT=True).create_infer_request(), []
        for _ in range(rounds):
            request.infer(feeds, share_inputs=True)
            shares.append(_network_share(request.profiling_info))
        return float(np.median(shares))

    def _compile(self, **settings: Any) -> Any:
        try:
            return self._core.compile_model(str(self.path), self._device, {**self._settings, **settings})
        except (RuntimeError, TypeError) as error:  # of its own it has none
            raise ModelFileError(
                f"{self.path}: OpenVINO can't run it on {self._device}: {one_line(error)}; "
                "export it again with this version, or take another device"
            ) from None


@contextmanager
def without_telemetry() -> Iterator[None]:
    """What is imported inside finds no ``openvino_telemetry``.

    Merely importing OpenVINO would otherwise write an identifier into the user's home and send it to Google Analytics,
    unasked, from a forked process. OpenVINO itself carries the stand-in that it takes where the package is absent.
    """
    name = "openvino_telemetry"
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]


def import_openvino() -> Any:
    """The package ``openvino``, imported so that it doesn't report home."""
    with without_telemetry():
        import openvino
    return openvino


def one_line(error: Exception) -> str:
    """OpenVINO's error on one line: its last line with text; those before it name places in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[-1] if lines else type(error).__name__)[:200]


def _device(core: Any, provider: str, threads: int) -> tuple[str, dict[str, Any]]:
    """The device that ``provider`` names, and the settings to compile for it with."""
    device, _, precision = provider.upper().rpartition(":")
    if not device or precision not in PRECISIONS:
        device, precision = provider.upper(), "F32"
    kind = device.split(":")[0]
    if device != "CPU":  # which is always there, and looking for others takes time
        there = core.available_devices
        if device not in there and kind not in META_DEVICES:
            raise ModelFileError(
                f"OpenVINO has no device {provider!r} here; it has {', '.join(there).lower()}, "
                "each also with ':bf16' or ':f16' behind it"
            )
    settings: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision.lower()}
    if kind == "CPU":
        # Pinned, the threads of two processes would sit on the same cores, and half of the machine be idle.
        settings["ENABLE_CPU_PINNING"] = False
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
    return device, settings


def _network_share(nodes: list[Any]) -> float:
    """Share of the time up to the last layer with weights; ``nodes`` stand in the order they ran in."""
    network = total = 0.0
    for node in nodes:
        total += node.real_time.total_seconds()
        if node.node_type in LAST_LAYERS:
            network = total
    return network / total if total else 1.0


OPENVINO = Runtime(
    name="openvino", suffix=".xml", open=OpenvinoBackend, folder_file=MODEL_FILE, package="openvino", extra="openvino"
)

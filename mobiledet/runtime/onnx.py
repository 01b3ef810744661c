"""An exported ONNX file, run by ONNX Runtime."""

from __future__ import annotations

import json
import os
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.errors import ModelFileError
from mobiledet.runtime.base import (
    THRESHOLDS,
    RawDetections,
    Runtime,
    Suppression,
    check_batch,
    graph_inputs,
    read_model,
    suppress,
)
from mobiledet.runtime.card import KEY, ModelCard, is_whole
from mobiledet.runtime.timing import time_halves, time_shares
from mobiledet.structures import ImageArray

LAST_LAYERS = ("Conv", "Gemm", "MatMul")
"""Kernels whose last run ends the network; what comes after is decoding and suppression."""

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
"""Short names, as PyTorch has them."""

_TWO_PRODUCTS = (
    b'\x08\x04:V\n\x18\n\x01a\n\x01b\x12\x01c"\rMatMulInteger\x12\x01p*\r\x08\x02\x08\x01\x10\x03B\x01bJ\x02\x7f\x7fZ'
    b"\x13\n\x01a\x12\x0e\n\x0c\x08\x02\x12\x08\n\x02\x08\x01\n\x02\x08\x02b\x13\n\x01c\x12\x0e\n\x0c\x08\x06\x12\x08\n\x02\x08\x01"
    b"\n\x02\x08\x01B\x04\n\x00\x10\n"
)
"""An ONNX file: the matrix product of uint8 ``a`` ``(1, 2)`` and the int8 column (127, 127)."""


class OnnxBackend:
    """A model in ONNX Runtime.

    The arguments are those of :class:`mobiledet.runtime.detector.Detector`; a provider is named ``"cuda"`` or
    ``"CUDAExecutionProvider"``.

    Raises:
        ModelFileError: The file is damaged or foreign, or there is no such provider.
    """

    def __init__(self, path: Path, *, threads: int = 0, provider: str | None = None, spin: bool = True) -> None:
        import onnxruntime

        self.runtime = f"onnxruntime {onnxruntime.__version__}"
        self._threads, self._spin = threads, spin
        self._provider = PROVIDERS.get((provider or "cpu").lower(), provider)
        if self._provider not in onnxruntime.get_available_providers():
            there = ", ".join(onnxruntime.get_available_providers())
            raise ModelFileError(f"ONNX Runtime has no provider {self._provider!r} here; it has {there}")
        self.path = path
        content = read_model(path)
        if is_whole(content) is False:
            raise ModelFileError(f"{path}: damaged, its checksum doesn't match its content; copy or export it again")
        self._session = self._open(content)
        try:
            properties = self._session.get_modelmeta().custom_metadata_map
        except UnicodeDecodeError:
            raise ModelFileError(f"{path}: its model card is damaged; copy or export it again") from None
        if KEY not in properties:
            raise ModelFileError(
                f"{path}: an ONNX file, but not one that mobiledet export wrote; it doesn't say what its numbers mean"
            )
        self.card = card = ModelCard.from_json(properties[KEY], str(path))
        shape = self._session.get_inputs()[0].shape  # free dimensions are text
        wanted = (card.batch, *card.resize.size, 3)
        if len(shape) != 4 or any(
            isinstance(side, int) and side != own for side, own in zip(shape, wanted, strict=True)
        ):
            raise ModelFileError(
                f"{path}: its model card says {wanted}, its network takes {tuple(shape)}; export it again"
            )

        self._suppresses = "labels" in [output.name for output in self._session.get_outputs()]
        self._suppression = Suppression(0) if self._suppresses else Suppression.of(card, path)

    def run(self, images: ImageArray, score_threshold: float, iou_threshold: float) -> RawDetections:
        """Detections in images ``(B, H, W, 3)`` of the network's size."""
        check_batch(images, self.card)
        thresholds = score_threshold, iou_threshold
        if not self._suppresses:
            return self._suppress(self._session.run(None, graph_inputs(images)), *thresholds)
        return RawDetections(*self._session.run(None, graph_inputs(images, *thresholds)))

    def stages(self, images: ImageArray, rounds: int) -> dict[str, float]:
        """Median milliseconds of ``network`` and ``decode+nms``: the whole, split as ONNX Runtime's profiler has it.

        Profiling slows every kernel down a little, so only the proportion is taken from it.
        """
        thresholds = self.card.score_threshold, self.card.iou_threshold
        if not self._suppresses:
            feeds = graph_inputs(images)
            return time_halves(
                lambda: self._session.run(None, feeds), lambda found: self._suppress(found, *thresholds), rounds
            )
        feeds = graph_inputs(images, *thresholds)
        return time_shares(lambda: self._session.run(None, feeds), rounds, lambda: self._profile(feeds, rounds))

    def _suppress(self, found: list[Any], score_threshold: float, iou_threshold: float) -> RawDetections:
        return suppress(
            self.card,
            *found,
            score_threshold=score_threshold,
            iou_threshold=iou_threshold,
            settings=self._suppression,
        )

    def _profile(self, feeds: dict[str, Any], rounds: int) -> float:
        """The network's share of a run."""
        with tempfile.TemporaryDirectory() as folder:
            session = self._open(read_model(self.path), profile=os.path.join(folder, "profile"))  # noqa: PTH118
            for _ in range(rounds):
                session.run(None, feeds)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return _network_share(events)

    def _open(self, content: bytes, *, profile: str | None = None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self._threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if sums_saturate():
            options.add_session_config_entry("session.x64quantprecision", "1")
        if not self._spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if profile is not None:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        try:
            return onnxruntime.InferenceSession(with_threshold_inputs(content), options, providers=[self._provider])
        except Exception as error:  # its exceptions share no base class of their own
            reason = " ".join(str(error).split())[:200]
            raise ModelFileError(
                f"{self.path}: not an ONNX file, or damaged ({len(content):,} bytes: {reason}); copy or export it again"
            ) from None


@cache
def sums_saturate() -> bool:
    """Whether ONNX Runtime's INT8 layers lose the upper part of large sums on this processor.

    On x86 without VNNI it adds pairs of uint8 times int8 in 16 bits: the same file finds other things there, unless
    exact sums are asked for. Those double the time where there is VNNI, so that they aren't asked for always. The
    runtime itself decides, by one such pair: that is right on every processor, system, version and emulator.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(_TWO_PRODUCTS, options, providers=["CPUExecutionProvider"])
    (total,) = session.run(None, {"a": np.full((1, 2), 255, np.uint8)})
    return bool(total[0, 0] != 2 * 255 * 127)


def with_threshold_inputs(content: bytes) -> bytes:
    """An ONNX file whose constants ``score_threshold`` and ``iou_threshold``, if it has them, are optional inputs, too.

    They aren't in the file, because other programs warn of constants that can be changed. What protocol buffers hold
    twice is one message with the content of both, so that the inputs can be put behind the file.
    """
    inputs = b""
    for name in THRESHOLDS:
        text = bytes([len(name)]) + name.encode()
        declared = (
            b"\n" + text + b"\x12\x06\n\x04\x08\x01\x12\x00"
        )  # a ValueInfoProto: name, and float without dimensions
        if b"B" + text in content and declared not in content:  # the constant's name, a field of its TensorProto
            inputs += b"Z" + bytes([len(declared)]) + declared  # GraphProto.input
    return content + b":" + bytes([len(inputs)]) + inputs if inputs else content  # ModelProto.graph


def _network_share(events: list[dict[str, Any]]) -> float:
    """Share of the time up to the last layer with weights, over all runs of a profile."""
    network = total = since_layer = 0.0
    for event in events:
        if event.get("cat") == "Session" and event["name"] == "model_run":
            since_layer = 0.0
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        total += event["dur"]
        since_layer += event["dur"]
        if any(kind in event["args"]["op_name"] for kind in LAST_LAYERS):
            network += since_layer
            since_layer = 0.0
    return network / total if total else 1.0


ONNX = Runtime(name="onnx", suffix=".onnx", open=OnnxBackend, package="onnxruntime")

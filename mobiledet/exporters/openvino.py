"""Writing a detector as a folder that OpenVINO runs, in float32 or quantised by NNCF."""

from __future__ import annotations

import io
import itertools
import json
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledet.errors import MissingDependencyError, ModelFileError
from mobiledet.exporters.base import Exporter, ExportOptions, quiet
from mobiledet.runtime.base import graph_inputs
from mobiledet.runtime.card import KEY, ModelCard
from mobiledet.runtime.folder import write_folder_card
from mobiledet.runtime.openvino import MODEL_FILE, OPENVINO, import_openvino, one_line, without_telemetry
from mobiledet.structures import ImageArray

if TYPE_CHECKING:
    import onnx

    from mobiledet.models.detection_model import DetectionModel

logger = logging.getLogger(__name__)

LAYERS = ("Convolution", "GroupConvolution", "MatMul")
"""What is worth computing in INT8. The arithmetic on boxes around them is too fine for 256 steps."""

SUBSET = 300
"""Images that NNCF looks at by default; its own choice, too."""


def write_openvino(graph: onnx.ModelProto | Any, card: ModelCard, folder: Path) -> None:
    """Write ``model.xml``, ``model.bin`` and ``card.json``.

    Args:
        graph: As :func:`mobiledet.exporters.onnx.trace_onnx` gives it, in float or quantised (QDQ); or the
            ``openvino.Model`` of :func:`quantise_openvino`.
        card: What the model says about itself; it also stands in the ``.xml``.
        folder: A new one.

    Raises:
        ModelFileError: OpenVINO can't read the graph, or can't write it.
        OSError: The folder exists, or can't be written.
    """
    model = graph if isinstance(graph, import_openvino().Model) else _convert(graph)
    folder.mkdir()
    save_openvino(model, card, folder / MODEL_FILE)


def save_openvino(model: Any, card: ModelCard, xml: Path) -> None:
    """Write an ``openvino.Model`` into a folder that is there: ``xml``, its ``.bin`` and ``card.json``.

    Raises:
        ModelFileError: OpenVINO can't write it.
        OSError: The folder can't be written to.
    """
    # In plain ASCII: XML doesn't take every character that a class name may hold.
    model.set_rt_info(json.dumps(json.loads(card.to_json())), [KEY, "card"])
    try:
        import_openvino().save_model(model, str(xml), compress_to_fp16=False)
    except RuntimeError as error:  # a full disk, for example, which it doesn't name
        raise ModelFileError(
            f"{xml.parent}: OpenVINO can't write it: {one_line(error)}; make sure that the disk has room"
        ) from None
    write_folder_card(xml.parent, card, (xml.name, xml.with_suffix(".bin").name))


def quantise_openvino(graph: onnx.ModelProto, images: Iterable[ImageArray], *, subset: int = SUBSET) -> Any:
    """A graph with its layers in INT8, by NNCF's post-training quantisation.

    Decoding and suppression stay in float.

    Args:
        graph: In float, as :func:`mobiledet.exporters.onnx.trace_onnx` gives it.
        images: Batches ``(B, H, W, 3)`` uint8 of the graph's input, like those it will see. All that are used are
            held in memory.
        subset: Most of them that are used.

    Returns:
        An ``openvino.Model`` for :func:`write_openvino`.

    Raises:
        ModelFileError: There are no images, or they don't fit.
        MissingDependencyError: OpenVINO or NNCF isn't installed.
    """
    model = _convert(graph)
    wanted = tuple(int(side) for side in model.input("images").shape)
    batches = list(itertools.islice(images, subset))
    if not batches:
        raise ModelFileError(
            "quantising needs images to calibrate with, and there are none; name some with --calibration"
        )
    for index, batch in enumerate(batches):
        if batch.shape != wanted or batch.dtype != np.uint8:
            raise ModelFileError(
                f"calibration images [{index}] are {batch.shape} {batch.dtype}; this graph takes {wanted} uint8"
            )
    nncf = _import_nncf()
    others = [node.get_friendly_name() for node in model.get_ops() if node.get_type_name() not in LAYERS]
    logger.info("measuring ranges on %d images ...", sum(map(len, batches)))
    with quiet("nncf", "torch.utils.cpp_extension"):
        return nncf.quantize(
            model,
            nncf.Dataset(batches, lambda batch: graph_inputs(batch, *(0.01, 0.6)[: len(model.inputs) - 1])),
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
        )


def _write(
    model: DetectionModel, card: ModelCard, path: Path, options: ExportOptions, calibration: Sequence[ImageArray]
) -> None:
    write_openvino(openvino_model(model, card, options, calibration), card, path)


def openvino_model(
    model: DetectionModel, card: ModelCard, options: ExportOptions, calibration: Sequence[ImageArray]
) -> Any:
    """A detector as an ``openvino.Model``; the arguments are those of an exporter's ``write``."""
    from mobiledet.exporters.int8 import quantise
    from mobiledet.exporters.onnx import trace_onnx
    from mobiledet.models.quantization import trained_ranges

    graph = trace_onnx(model, size=card.resize.size, batch=card.batch, suppressed=options.suppressed)
    if options.int8 and (ranges := trained_ranges(model)) is not None:
        return _convert(quantise(graph, (), ranges=ranges))
    return quantise_openvino(graph, calibration) if options.int8 else _convert(graph)


def _convert(graph: onnx.ModelProto) -> Any:
    openvino = import_openvino()
    try:
        with quiet(""):  # it leaves the root logger at errors only
            return openvino.convert_model(io.BytesIO(graph.SerializeToString()))
    except Exception as error:  # its exceptions share no base class of their own
        raise ModelFileError(
            f"OpenVINO {openvino.__version__} can't read the exported graph: {one_line(error)}"
        ) from None


def _import_nncf() -> Any:
    try:
        with without_telemetry(), quiet("nncf", "torch.utils.cpp_extension"):
            import nncf
    except ImportError:
        raise MissingDependencyError(
            "quantising for OpenVINO needs the package nncf, which is not installed; pip install nncf"
        ) from None
    return nncf


OPENVINO_EXPORTER = Exporter(
    runtime=OPENVINO,
    write=_write,
    packages=("onnx", "onnxscript", "onnxruntime", "openvino"),
    int8_packages=("nncf",),
    choices=frozenset({"--no-nms"}),
)

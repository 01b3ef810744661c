"""Writing a detector as a folder that OpenVINO runs, in float32 or quantised by NNCF."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledet.errors import MissingDependencyError, ModelFileError
from mobiledet.export.quiet import quiet
from mobiledet.runtime.card import KEY, ModelCard
from mobiledet.runtime.folder import write_folder_card
from mobiledet.runtime.openvino import MODEL_FILE, import_openvino, one_line, without_telemetry
from mobiledet.structures import ImageArray

if TYPE_CHECKING:
    import onnx

LAYERS = ("Convolution", "GroupConvolution", "MatMul")
"""What is worth computing in INT8. Around them stands arithmetic on boxes, which 256 steps are too coarse for."""

SUBSET = 300
"""Pictures that NNCF looks at by default; its own choice, too."""


def write_openvino(graph: onnx.ModelProto | Any, card: ModelCard, folder: Path) -> None:
    """Write ``model.xml``, ``model.bin`` and ``card.json``, all of them or nothing.

    Args:
        graph: As :func:`mobiledet.export.onnx.trace_onnx` gives it, in float or quantised (QDQ); or the
            ``openvino.Model`` of :func:`quantise_openvino`.
        card: What the model says about itself; it also stands in the ``.xml``.
        folder: A new one.

    Raises:
        ModelFileError: the folder exists or can't be written, or OpenVINO can't read the graph.
        MissingDependencyError: OpenVINO isn't installed.
    """
    openvino = import_openvino(folder)
    with new_folder(folder) as work:
        model = graph if isinstance(graph, openvino.Model) else _convert(graph)
        # In plain ASCII: XML doesn't take every character that a class name may hold.
        model.set_rt_info(json.dumps(json.loads(card.to_json())), [KEY, "card"])
        xml = work / MODEL_FILE
        try:
            openvino.save_model(model, str(xml), compress_to_fp16=False)
        except RuntimeError as error:  # a full disk, for example, which it doesn't name
            raise ModelFileError(f"{folder}: OpenVINO can't write it: {one_line(error)}; is there room?") from None
        write_folder_card(work, card, (xml.name, xml.with_suffix(".bin").name))


def quantise_openvino(graph: onnx.ModelProto, pictures: Iterable[ImageArray], *, subset: int = SUBSET) -> Any:
    """A graph with its layers in INT8, by NNCF's post-training quantisation.

    Decoding and suppression stay in float.

    Args:
        graph: In float, as :func:`mobiledet.export.onnx.trace_onnx` gives it.
        pictures: Batches ``(B, H, W, 3)`` uint8 of the graph's input, like those it will see. All that are used are
            held in memory.
        subset: Most of them that are used.

    Returns:
        An ``openvino.Model`` for :func:`write_openvino`.

    Raises:
        ModelFileError: there are no pictures, or they don't fit.
        MissingDependencyError: OpenVINO or NNCF isn't installed.
    """
    model = _convert(graph)
    wanted = tuple(int(side) for side in model.input("images").shape)
    batches = list(itertools.islice(pictures, subset))
    if not batches:
        raise ModelFileError("quantising needs pictures to calibrate with, and there are none; name some")
    for index, batch in enumerate(batches):
        if batch.shape != wanted or batch.dtype != np.uint8:
            raise ModelFileError(
                f"calibration pictures [{index}] are {batch.shape} {batch.dtype}; this graph takes {wanted} uint8"
            )
    nncf = _import_nncf()
    others = [node.get_friendly_name() for node in model.get_ops() if node.get_type_name() not in LAYERS]
    thresholds = {"score_threshold": np.array(0.01, np.float32), "iou_threshold": np.array(0.6, np.float32)}
    with quiet("nncf", "torch.utils.cpp_extension"):
        return nncf.quantize(
            model,
            nncf.Dataset(batches, lambda batch: {"images": batch, **thresholds}),
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=others, validate=False),
        )


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``folder`` when all is written.

    Raises:
        ModelFileError: ``folder`` exists, or can't be written.
    """
    if folder.exists() or folder.is_symlink():
        raise ModelFileError(f"{folder} exists already; name another, or remove it first")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as temporary:
            work = Path(temporary) / folder.name
            work.mkdir()
            yield work
            for path in work.iterdir():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
            work.rename(folder)
    except OSError as error:
        raise ModelFileError(f"{folder}: can't be written: {error.strerror or error}") from None


def _convert(graph: onnx.ModelProto) -> Any:
    openvino = import_openvino(Path("openvino"))
    try:
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

"""Writing a detector as a folder that ncnn runs, by pnnx."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobiledet.errors import MissingDependencyError, ModelFileError
from mobiledet.exporters.base import Exporter, ExportOptions
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.folder import write_folder_card
from mobiledet.runtime.ncnn import MODEL_FILE, NCNN, WEIGHTS_FILE, NcnnBackend
from mobiledet.structures import ImageArray, Size

if TYPE_CHECKING:
    from torch import Tensor

    from mobiledet.exporters.graph import CandidateGraph
    from mobiledet.models.detection_model import DetectionModel

MAX_SCORE_DIFFERENCE = 1e-3
MAX_BOX_DIFFERENCE = 1e-3
"""As a fraction of the input's longer side. Rounding stays a thousand times below either."""


def write_ncnn(model: DetectionModel, card: ModelCard, folder: Path) -> None:
    """Write ``model.ncnn.param``, ``model.ncnn.bin`` and ``card.json``.

    Weights are float32. The network ends at decoded boxes and scores; suppression is the runtime's.

    Raises:
        ModelFileError: ncnn can't run this head, the card has more than one image at once, or what pnnx made doesn't
            find what the model finds.
        OSError: The folder exists, or can't be written.
        MissingDependencyError: pnnx or ncnn isn't installed.
    """
    import torch

    from mobiledet.exporters.graph import CandidateGraph

    if model.head.needs_inner_nms:
        raise ModelFileError(
            f"ncnn can't run {card.head}: it has no suppression, and this head needs one between its two stages; "
            "export to onnx or openvino"
        )
    if card.batch != 1:
        raise ModelFileError(f"ncnn takes one image at once, not {card.batch}; export with a batch of 1")
    size = card.resize.size
    graph = CandidateGraph(model).eval()
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    with torch.no_grad():
        wanted = graph(torch.from_numpy(noise).permute(2, 0, 1)[None].float())
    folder.mkdir()
    _convert(graph, size, folder)
    write_folder_card(folder, card, (MODEL_FILE, WEIGHTS_FILE))
    _check(NcnnBackend(folder, threads=1).candidates(noise), wanted, size)


def _write(
    model: DetectionModel,
    card: ModelCard,
    path: Path,
    options: ExportOptions,  # noqa: ARG001 - what others are written with
    calibration: Sequence[ImageArray],  # noqa: ARG001
) -> None:
    write_ncnn(model, card, path)


def _convert(graph: CandidateGraph, size: Size, folder: Path) -> None:
    """Put pnnx's ``.param`` and ``.bin`` into ``folder``."""
    import torch

    try:
        import pnnx
    except ImportError:
        raise MissingDependencyError(
            "exporting to ncnn needs the package pnnx, which is not installed; pip install pnnx"
        ) from None
    pixels = torch.zeros(1, 3, *size)
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # tracing is deprecated, but what pnnx reads
        # Export settles all sizes first. A trace alone keeps their arithmetic, and pnnx rounds -(-3 // 2) towards zero:
        # TensorFlow's padding then goes wrong without a word.
        flat = torch.export.export(graph, (pixels,)).module()
        traced = torch.jit.trace(flat, pixels, check_trace=False)  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(Path(temporary) / "model.pt"))
        command = [pnnx.EXEC_PATH, "model.pt", f"inputshape=[1,3,{size[0]},{size[1]}]f32", "fp16=0"]
        try:
            done = subprocess.run(command, cwd=temporary, capture_output=True, text=True, errors="replace", check=False)
        except OSError as error:
            raise ModelFileError(f"{pnnx.EXEC_PATH} doesn't start: {error.strerror}; install pnnx again") from None
        made = [Path(temporary) / name for name in (MODEL_FILE, WEIGHTS_FILE)]
        if done.returncode or not all(path.is_file() for path in made):
            reason = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-1][:200]
            raise ModelFileError(f"pnnx failed with status {done.returncode}: {reason}; export to onnx or openvino")
        for path in made:
            shutil.copyfile(path, folder / path.name)


def _check(found: tuple[np.ndarray, np.ndarray], wanted: tuple[Tensor, Tensor], size: Size) -> None:
    """Make sure that the converted network gives what the model gives: pnnx drops what it doesn't know."""
    limits = (("boxes", MAX_BOX_DIFFERENCE * max(size)), ("scores", MAX_SCORE_DIFFERENCE))
    for (what, limit), is_, tensor in zip(limits, found, wanted, strict=True):
        should = tensor[0].numpy()
        difference = float(np.abs(is_ - should).max()) if is_.shape == should.shape else float("inf")
        if not difference <= limit:
            raise ModelFileError(
                f"pnnx converted this network wrongly: {what} differ by {difference:.3g}; export to onnx or openvino"
            )


NCNN_EXPORTER = Exporter(runtime=NCNN, write=_write, packages=("ncnn", "pnnx"), batches=False)

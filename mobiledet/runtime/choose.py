"""Which runtime a model needs: decided by what its path holds."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mobiledet.errors import MissingDependencyError, ModelFileError, install_extra
from mobiledet.runtime.base import Backend, Runtime, read_model
from mobiledet.runtime.litert import FRIGATE, LITERT
from mobiledet.runtime.ncnn import NCNN
from mobiledet.runtime.onnx import ONNX
from mobiledet.runtime.openvino import OPENVINO
from mobiledet.utils.addresses import is_address
from mobiledet.weights.catalogue import PretrainedSource, find_source, no_such_model
from mobiledet.weights.tflite.contents import CARD_FILE

RUNTIMES: tuple[Runtime, ...] = (ONNX, OPENVINO, NCNN, LITERT, FRIGATE)
"""Everything that runs exported models. Checkpoints are run by PyTorch, see :mod:`mobiledet.runtime.pytorch`."""

CHECKPOINT_PACKAGES = ("torch", "torchvision", "pydantic")
"""What running a checkpoint takes."""


def find_runtime(path: str | Path) -> Runtime | None:
    """What runs the exported model that a path means; None for a checkpoint, a name, or anything else."""
    return next((runtime for runtime in RUNTIMES if runtime.recognises(Path(path))), None)


def open_backend(
    path: str | Path,
    *,
    threads: int = 0,
    provider: str | None = None,
    spin: bool = True,
    labels: str | Path | Sequence[str] | None = None,
) -> Backend:
    """Load an exported model, a checkpoint, or pretrained weights by name.

    The arguments are those of :class:`mobiledet.runtime.detector.Detector`.

    Raises:
        ModelFileError: There is no such file, or it is damaged or foreign.
        MissingDependencyError: The package that runs it isn't installed.
        MobiledetError: A checkpoint can't be used.
    """
    if threads < 0:
        raise ValueError(f"threads is {threads}; give 0 for all cores, or their number")
    place, provider = Path(path), None if provider == "auto" else provider
    check_installed(path, provider)
    runtime = find_runtime(place)
    options: dict[str, Any] = {"threads": threads, "provider": provider, "spin": spin}
    if runtime is not None and not place.exists():
        raise ModelFileError(f"no model {str(place)!r}; mobiledet export best.pt -o {place} makes one")
    if labels is not None:
        if not takes_labels(place):
            raise ModelFileError(
                f"{path}: knows the names of its classes; leave labels (--labels) out, which are for files without"
            )
        options["labels"] = labels
    if runtime is not None:
        return runtime.open(place, **options)
    if (source := published_file(path, provider)) is not None:
        return LITERT.open(_fetched(source), source=source, **options)
    if place.suffix == ".bin":
        raise ModelFileError(f"{place}: only the weights of a model; name the folder that holds it")
    from mobiledet.runtime.pytorch import open_checkpoint

    return open_checkpoint(path, threads=threads, provider=provider)


def takes_labels(model: str | Path) -> bool:
    """Whether the classes of a model can be named by ``labels``: a .tflite file that mobiledet didn't write."""
    runtime = find_runtime(model)
    return runtime is not None and runtime.takes_labels and CARD_FILE.encode() not in read_model(Path(model))


def published_file(model: str | Path, provider: str | None = None) -> PretrainedSource | None:
    """The detector of a name where it runs from its publisher's own file: without PyTorch, on the processor.

    With PyTorch, a name is a checkpoint, converted from that file.
    """
    source = None if Path(model).exists() else find_source(str(model))
    runs = source is not None and source.what == "detector" and provider in (None, "auto", "cpu")
    return source if runs and _missing_for_checkpoints() else None


def _missing_for_checkpoints() -> str | None:
    return next((package for package in CHECKPOINT_PACKAGES if find_spec(package) is None), None)


def exported_path(model: str | Path, provider: str | None = None) -> Path | None:
    """The file or folder that runs without PyTorch when a `Detector` is given ``model``; None for a checkpoint."""
    if (source := published_file(model, provider)) is not None:
        return _fetched(source)
    runtime = find_runtime(model)
    return None if runtime is None else runtime.model_path(Path(model))


def _fetched(source: PretrainedSource) -> Path:
    from mobiledet.weights.store import fetch_weights  # here: most models are files already

    return fetch_weights(source)


def check_installed(model: str | Path, provider: str | None = None) -> None:
    """Make sure that what runs a model is installed, before anything else is looked at; loads nothing.

    Raises:
        ModelFileError: Without PyTorch: there is no such model, or none that can run here.
        MissingDependencyError: A package is missing.
    """
    place = Path(model)
    if is_address(str(model)):
        raise no_such_model(str(model))
    if (runtime := find_runtime(place)) is not None:
        runtime.check_installed(place)
        return
    if published_file(model, provider) is not None:
        LITERT.check_installed(place)
        return
    if (missing := _missing_for_checkpoints()) is None:
        return
    if not place.exists() and find_source(str(model)) is None:
        raise no_such_model(str(model))
    raise MissingDependencyError(
        f"{model}: a checkpoint needs {missing}, which is not installed; export it where it was trained "
        f"(mobiledet export best.pt -o model.onnx), or {install_extra('train')}"
    )

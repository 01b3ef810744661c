"""Which runtime a model needs: decided by what its path holds."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from mobiledet.errors import MissingDependencyError, ModelFileError, install_extra
from mobiledet.runtime.base import Backend, Runtime
from mobiledet.runtime.litert import FRIGATE, LITERT
from mobiledet.runtime.ncnn import NCNN
from mobiledet.runtime.onnx import ONNX
from mobiledet.runtime.openvino import OPENVINO
from mobiledet.utils.addresses import is_address
from mobiledet.weights.catalogue import find_source, no_such_model

RUNTIMES: tuple[Runtime, ...] = (ONNX, OPENVINO, NCNN, LITERT, FRIGATE)
"""Everything that runs exported models. Checkpoints are run by PyTorch, see :mod:`mobiledet.runtime.pytorch`."""

CHECKPOINT_PACKAGES = ("torch", "torchvision", "pydantic")
"""What running a checkpoint takes."""


def find_runtime(path: str | Path) -> Runtime | None:
    """What runs the exported model that a path means; None for a checkpoint, a name, or anything else."""
    return next((runtime for runtime in RUNTIMES if runtime.recognises(Path(path))), None)


def open_backend(path: str | Path, *, threads: int = 0, provider: str | None = None, spin: bool = True) -> Backend:
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
    check_installed(path)
    if (runtime := find_runtime(place)) is not None:
        if not place.exists():
            raise ModelFileError(f"no model {str(place)!r}; mobiledet export best.pt -o {place} makes one")
        return runtime.open(place, threads=threads, provider=provider, spin=spin)
    if place.suffix == ".bin":
        raise ModelFileError(f"{place}: only the weights of a model; name the folder that holds it")
    from mobiledet.runtime.pytorch import open_checkpoint

    return open_checkpoint(path, threads=threads, provider=provider)


def check_installed(model: str | Path) -> None:
    """Make sure that what runs a model is installed, before anything else is looked at; loads nothing.

    Raises:
        ModelFileError: Without PyTorch: there is no such model, or it is none that could be run here.
        MissingDependencyError: A package is missing.
    """
    place = Path(model)
    if is_address(str(model)):
        raise no_such_model(str(model))
    if (runtime := find_runtime(place)) is not None:
        runtime.check_installed(place)
        return
    missing = next((package for package in CHECKPOINT_PACKAGES if find_spec(package) is None), None)
    if missing is None:
        return
    if not place.exists() and find_source(str(model)) is None:
        raise no_such_model(str(model))
    raise MissingDependencyError(
        f"{model}: a checkpoint needs {missing}, which is not installed; export it where it was trained "
        f"(mobiledet export best.pt -o model.onnx), or {install_extra('train')}"
    )

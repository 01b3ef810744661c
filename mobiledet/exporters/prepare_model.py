"""Pretrained weights by name, in the form that runs fastest: exported once, and kept beside the downloaded files."""

from __future__ import annotations

import logging
import tempfile
from importlib.util import find_spec
from pathlib import Path

from mobiledet.errors import MissingDependencyError, MobiledetError
from mobiledet.runtime.choose import find_runtime
from mobiledet.utils.files import cache_folder
from mobiledet.version import __version__
from mobiledet.weights.catalogue import find_source, no_such_model

logger = logging.getLogger(__name__)

_FORM = 1
"""To be raised when exports change without a new version, so that older ones aren't used."""


def prepare_model(model: str, *, threads: int = 0) -> str | Path:
    """What to give a `Detector` for live use: an exported file instead of a name, anything else as it is.

    The first call with a name exports it, which takes some ten seconds and the packages of the extra ``export``; later
    ones need neither. Without those packages, but with PyTorch, the name is given back, which runs at a third of the
    speed.

    Raises:
        ModelFileError: There is no such file, and no PyTorch either, which knows further kinds.
        MissingDependencyError: A name that isn't exported yet, and no PyTorch to do it.
        MobiledetError: The weights can't be fetched.
    """
    place = Path(model)
    source = None if place.exists() else find_source(model)
    if source is None:
        unknown = find_runtime(place) is None and not place.exists() and find_spec("torch") is None
        if unknown or not model.strip():
            # The runtime reports the same, but only once a camera is open; and takes an empty name for a folder.
            raise no_such_model(model)
        return model
    exported = cache_folder() / "exports" / f"{source.name}-{__version__}-{_FORM}.onnx"
    if exported.exists():
        return exported
    if find_spec("torch") is None:
        raise MissingDependencyError(
            f"{model}: fetching and converting it needs PyTorch, which is not installed; on a computer with it, run "
            f"mobiledet export {model} -o coco.onnx, copy the file here and name it: --model coco.onnx"
        )
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        logger.info(
            '%s runs in PyTorch; with pip install "mobiledet[export]" it is exported once and runs three times as fast',
            model,
        )
        return model
    try:
        exported.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=exported.parent):
            pass
    except OSError as error:
        logger.info("%s runs in PyTorch: %s can't be written to: %s", model, exported.parent, error.strerror)
        return model
    logger.info("%s is exported once, to %s", model, exported)
    try:
        from mobiledet.exporters.base import ExportOptions
        from mobiledet.exporters.exporting import export_model

        export_model(model, exported, ExportOptions(threads=threads))
    except MobiledetError:
        if exported.exists():  # another process was first
            return exported
        raise
    return exported

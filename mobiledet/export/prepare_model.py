"""Pretrained weights by name, in the form that runs fastest here: exported once, kept beside the fetched files."""

from __future__ import annotations

import logging
import tempfile
from importlib.util import find_spec
from pathlib import Path

from mobiledet import __version__
from mobiledet.errors import MissingDependencyError, MobiledetError
from mobiledet.runtime.choose import find_runtime
from mobiledet.utils.files import cache_folder
from mobiledet.weights.catalogue import find_source, no_such_model

logger = logging.getLogger(__name__)

_FORM = 1
"""Raised when exports change otherwise than with the version, so that older ones aren't used."""


def ready_model(model: str, *, threads: int = 0) -> str | Path:
    """What to give a `Detector` for live use: an exported file instead of a name, anything else as it is.

    The first call with a name exports it, which takes some ten seconds and the packages of the extra ``export``; later
    ones need neither. Without those packages, but with PyTorch, the name is given back, which runs at a third of the
    speed.

    Args:
        model: A path, or pretrained weights by name.
        threads: Processor threads of the comparison that ends an export.

    Raises:
        ModelFileError: no such file, and no PyTorch that could know better.
        MissingDependencyError: a name, nothing exported yet, and no PyTorch here to do it.
        MobiledetError: the weights can't be fetched.
    """
    place = Path(model)
    source = None if place.exists() else find_source(model)
    if source is None:
        unknown = find_runtime(place) is None and not place.exists() and find_spec("torch") is None
        if unknown or not model.strip():
            # The runtime would say the same, but only once a camera is open; and an empty name is a folder to it.
            raise no_such_model(model)
        return model
    exported = cache_folder() / "exports" / f"{source.name}-{__version__}-{_FORM}.onnx"
    if exported.exists():
        return exported
    if find_spec("torch") is None:
        raise MissingDependencyError(
            f"{model}: fetching and converting it needs PyTorch, which is not installed; where it is, make a file with "
            f"python tools/export.py {model} -o coco.onnx, copy it here and name it: --model coco.onnx"
        )
    if find_spec("onnx") is None or find_spec("onnxscript") is None:
        logger.info(
            '%s runs in PyTorch; with pip install -e ".[export]" it is exported once and runs three times as fast',
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
        from mobiledet.export.base import ExportOptions
        from mobiledet.export.exporting import export_model

        export_model(model, exported, ExportOptions(threads=threads))
    except MobiledetError:
        if exported.exists():  # another process was first
            return exported
        raise
    return exported

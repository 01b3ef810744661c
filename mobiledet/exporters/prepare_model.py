"""Pretrained weights by name, in the form that runs fastest: exported once, and kept beside the downloaded files."""

from __future__ import annotations

import logging
import tempfile
from importlib.util import find_spec
from pathlib import Path

from mobiledet.errors import MobiledetError
from mobiledet.runtime.choose import check_installed, published_file
from mobiledet.utils.files import cache_folder
from mobiledet.version import __version__
from mobiledet.weights.catalogue import PretrainedSource, find_source, no_such_model

logger = logging.getLogger(__name__)

_FORM = 1
"""To be raised when exports change without a new version, so that older ones aren't used."""


def check_runnable(model: str, *, provider: str | None = None) -> None:
    """Make sure, before a camera is opened or anything fetched, that the packages that a live run needs are there.

    Args:
        model: What `prepare_model` or a `Detector` is going to be given.
        provider: Where it will run; a name is exported only for the processor, None.

    Raises:
        ModelFileError: There is no such file or name; with PyTorch, only its Detector finds out.
        MissingDependencyError: A package is missing.
    """
    if not model.strip():
        raise no_such_model(model)  # as a path it means this folder
    source = None if Path(model).exists() else find_source(model)
    if source is None or provider is not None or not _exported_file(source).exists():
        check_installed(model, provider)


def prepare_model(model: str, *, threads: int = 0) -> str | Path:
    """What to give a `Detector` for live use: an exported file instead of a name, anything else as it is.

    The first call with a name exports it, which takes some ten seconds and the packages of the extra ``export``; later
    ones need neither. Without those packages the name is given back: without PyTorch it runs from its publisher's own
    file, with it at a third of the speed.

    Raises:
        ModelFileError: There is no such file or name.
        MissingDependencyError: A package is missing, see `check_runnable`.
        MobiledetError: The weights can't be fetched.
    """
    check_runnable(model)
    source = None if Path(model).exists() else find_source(model)
    if source is None:
        return model
    exported = _exported_file(source)
    if exported.exists():
        return exported
    if published_file(model) is not None:
        return model
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


def _exported_file(source: PretrainedSource) -> Path:
    return cache_folder() / "exports" / f"{source.name}-{__version__}-{_FORM}.onnx"

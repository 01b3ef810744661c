"""From a weights file of another project to a checkpoint of ours."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from mobiledet.config import Config
from mobiledet.errors import CheckpointError
from mobiledet.utils.files import file_digest
from mobiledet.version import __version__
from mobiledet.weights.catalogue import SOURCES
from mobiledet.weights.imagenet import import_classifier, import_timm
from mobiledet.weights.tflite.graph import read_tflite
from mobiledet.weights.tflite.ssd import import_ssd, is_ssd

logger = logging.getLogger(__name__)


def import_weights(path: Path, *, labels: Path | None = None, name: str | None = None) -> dict[str, Any]:
    """Read a TensorFlow Lite detector or classifier, or timm's MobileNetV1.

    Args:
        path: A ``.tflite`` or ``.safetensors`` file.
        labels: Text file with a detector's class names, one a line in the order of its outputs.
        name: Of the config inside; by default the file's own.

    Returns:
        The content of a checkpoint, for :func:`.checkpoint.save_checkpoint`: a detector's, or a backbone's.

    Raises:
        CheckpointError: It can't be read, or is another network.
        MissingDependencyError: A package that reads it isn't installed.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {str(path)!r} to import; name a .tflite or .safetensors file")
    content: dict[str, Any] = {"mobiledet": __version__}
    if path.suffix == ".safetensors":
        content |= import_timm(path).payload()
    else:
        graph, names = read_tflite(path), _read_labels(labels)
        try:
            if is_ssd(graph):
                config, state, categories = import_ssd(graph, names)
                plain = Config(name=name or _safe(path.stem), model=config).plain()
                content |= {"config": plain, "categories": categories, "model": state, "ema": None, "epoch": 0}
                content["folded"] = True
            else:
                content |= import_classifier(graph).payload()
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}") from None
        except Exception as error:  # shapes and connections in a damaged file can be anything
            raise CheckpointError(
                f"{path}: a damaged TensorFlow Lite file, or another network ({type(error).__name__}); copy it again"
            ) from None
    digest = file_digest(path)
    content["source"] = {"file": path.name, "sha256": digest}
    known = next((source for source in SOURCES if source.sha256 == digest), None)
    if known is not None:  # measured by us, whatever it is called
        content["threshold"] = known.threshold
    return content


def describe_weights(content: dict[str, Any]) -> str:
    """One line about what was imported."""
    if "config" in content:
        model = content["config"]["model"]
        height, width = model["input_size"]
        return (
            f"SSD on MobileNetV1 alpha {model['backbone']['alpha']:g}, {height}x{width} pixels, "
            f"{len(content['categories'])} classes"
        )
    height, width = content["input_size"]
    classes = len(content["classifier"]["bias"]) if content["classifier"] else 0
    what = f"classifier of {classes} classes" if classes else "features without a classifier"
    return f"MobileNetV1 alpha {content['backbone']['alpha']:g}, {height}x{width} pixels, {what}"


def _read_labels(path: Path | None) -> tuple[str, ...] | None:
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: can't be read as a list of class names: {error}") from None
    names = tuple(line.strip() for line in lines if line.strip())
    if not names:
        raise CheckpointError(f"{path}: has no class names; write one a line, in the order of the outputs")
    return names


def _safe(stem: str) -> str:
    """A file's name as the name of a config."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in stem).lstrip("._-")
    return kept or "imported"

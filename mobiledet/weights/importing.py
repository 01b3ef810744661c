"""From a weights file of another project to a checkpoint of ours."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledet.config import Config
from mobiledet.errors import CheckpointError
from mobiledet.utils.files import file_digest
from mobiledet.version import __version__
from mobiledet.weights.catalogue import SOURCES
from mobiledet.weights.class_lists import read_class_list
from mobiledet.weights.imagenet import import_classifier, import_frozen, import_timm
from mobiledet.weights.tflite.graph import read_tflite
from mobiledet.weights.tflite.own import import_own
from mobiledet.weights.tflite.ssd import import_ssd, is_ssd

if TYPE_CHECKING:
    from torch import Tensor

logger = logging.getLogger(__name__)


def import_weights(path: Path, *, labels: Path | None = None, name: str | None = None) -> dict[str, Any]:
    """Read a TensorFlow Lite detector, ours or others', or classifier, a frozen TensorFlow one, or timm's MobileNetV1.

    Args:
        path: A ``.tflite``, ``.pb`` or ``.safetensors`` file.
        labels: Text file with a detector's class names, see :func:`.class_lists.parse_class_list`.
        name: Of the config inside; by default the file's own.

    Returns:
        The content of a checkpoint, for :func:`.checkpoint.save_checkpoint`: a detector's, or a backbone's.

    Raises:
        CheckpointError: It can't be read, or is another network.
        MissingDependencyError: A package that reads it isn't installed.
    """
    if not path.is_file():
        raise CheckpointError(f"no file {str(path)!r} to import; name a .tflite, .pb or .safetensors file")
    content: dict[str, Any] = {"mobiledet": __version__}
    if path.suffix in (".safetensors", ".pb"):
        content |= (import_timm if path.suffix == ".safetensors" else import_frozen)(path).payload()
    else:
        graph, names = read_tflite(path), None if labels is None else read_class_list(labels)
        try:
            if graph.about.card is not None:
                if names is not None:
                    raise CheckpointError(
                        "written by mobiledet export with its classes' names; leave labels (--labels) out"
                    )
                config, state, categories, content["threshold"] = import_own(graph)
                content |= _detector(config, state, categories)
            elif is_ssd(graph):
                model, state, categories = import_ssd(graph, names)
                content |= _detector(Config(name=name or _safe(path.stem), model=model), state, categories)
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


def _detector(config: Config, state: dict[str, Tensor], categories: list[dict[str, Any]]) -> dict[str, Any]:
    plain = config.plain()
    return {"config": plain, "categories": categories, "model": state, "ema": None, "epoch": 0, "folded": True}


def describe_weights(content: dict[str, Any]) -> str:
    """One line about what was imported."""
    if "config" in content:
        model = content["config"]["model"]
        height, width = model["input_size"]
        head = {"ssdlite": "SSDLite", "fpn": "FPN"}.get(model["head"]["kind"], "SSD")
        return (
            f"{head} on MobileNetV1 alpha {model['backbone']['alpha']:g}, {height}x{width} pixels, "
            f"{len(content['categories'])} classes"
        )
    height, width = content["input_size"]
    classes = len(content["classifier"]["bias"]) if content["classifier"] else 0
    what = f"classifier of {classes} classes" if classes else "features without a classifier"
    return f"MobileNetV1 alpha {content['backbone']['alpha']:g}, {height}x{width} pixels, {what}"


def _safe(stem: str) -> str:
    """A file's name as the name of a config."""
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in stem).lstrip("._-")
    return kept or "imported"

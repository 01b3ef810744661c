"""mobiledet: object detection around a MobileNetV1 backbone, small enough to own."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mobiledet.version import __version__

if TYPE_CHECKING:
    from mobiledet.api import TrainResult, evaluate, export, train
    from mobiledet.detections import Detections
    from mobiledet.runtime.detector import Detector

__all__ = ["Detections", "Detector", "TrainResult", "__version__", "evaluate", "export", "train"]

# Nothing leaves the machine unasked. These packages report home, or look there for a newer version, as soon as they are
# imported. Here is the one place that runs before every import of them, also in processes that are started. OpenVINO's
# telemetry takes no variable, see mobiledet.runtime.openvino.
for _variable in ("ORT_DISABLE_TELEMETRY", "NO_ALBUMENTATIONS_UPDATE"):
    os.environ.setdefault(_variable, "1")

_PLACES = {"Detections": "detections", "Detector": "runtime.detector"}


def __getattr__(name: str) -> Any:
    """What the package offers, brought in when first asked for: importing it stays cheap."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES.get(name, 'api')}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])

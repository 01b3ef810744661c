"""mobiledet: object detection around a MobileNetV1 backbone, small enough to own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mobiledet.detections import Detections
    from mobiledet.runtime.detector import Detector

__version__ = "0.1.0"

__all__ = ["Detections", "Detector", "__version__"]


def __getattr__(name: str) -> Any:
    """``Detector`` and ``Detections``, brought in when first asked for: importing the package stays cheap."""
    if name == "Detector":
        from mobiledet.runtime.detector import Detector

        return Detector
    if name == "Detections":
        from mobiledet.detections import Detections

        return Detections
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

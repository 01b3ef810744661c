"""mobiledet: object detection around a MobileNetV1 backbone, small enough to own."""

from __future__ import annotations

__version__ = "0.1.0"

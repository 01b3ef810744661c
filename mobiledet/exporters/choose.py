"""The formats that a checkpoint can be exported to."""

from __future__ import annotations

from mobiledet.errors import ModelFileError
from mobiledet.exporters.base import Exporter
from mobiledet.exporters.ncnn import NCNN_EXPORTER
from mobiledet.exporters.onnx import ONNX_EXPORTER
from mobiledet.exporters.openvino import OPENVINO_EXPORTER

EXPORTERS: tuple[Exporter, ...] = (ONNX_EXPORTER, OPENVINO_EXPORTER, NCNN_EXPORTER)
"""Everything that ``--format`` offers."""


def find_exporter(name: str) -> Exporter:
    """The exporter of that name.

    Raises:
        ModelFileError: There is none.
    """
    found = {exporter.name: exporter for exporter in EXPORTERS}
    if name not in found:
        raise ModelFileError(f"there is no format {name!r}; choose from {', '.join(found)}")
    return found[name]

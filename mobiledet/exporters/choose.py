"""The formats that a checkpoint can be exported to."""

from __future__ import annotations

from pathlib import Path

from mobiledet.errors import ModelFileError
from mobiledet.exporters.base import Exporter
from mobiledet.exporters.frigate import FRIGATE_EXPORTER
from mobiledet.exporters.litert import LITERT_EXPORTER
from mobiledet.exporters.ncnn import NCNN_EXPORTER
from mobiledet.exporters.onnx import ONNX_EXPORTER
from mobiledet.exporters.openvino import OPENVINO_EXPORTER

EXPORTERS: tuple[Exporter, ...] = (
    ONNX_EXPORTER,
    OPENVINO_EXPORTER,
    NCNN_EXPORTER,
    LITERT_EXPORTER,
    FRIGATE_EXPORTER,
)
"""Everything that ``--format`` offers."""


def format_of(output: Path) -> str:
    """The format that a name ends with, such as ``m.tflite`` or ``m_openvino``; "onnx" where it ends with none."""
    for exporter in EXPORTERS:
        suffix = exporter.runtime.suffix if exporter.runtime.folder_file is None else exporter.name
        if output.name.endswith(suffix):
            return exporter.name
    return EXPORTERS[0].name


def find_exporter(name: str) -> Exporter:
    """The exporter of that name.

    Raises:
        ModelFileError: There is none.
    """
    found = {exporter.name: exporter for exporter in EXPORTERS}
    if name not in found:
        raise ModelFileError(f"there is no format {name!r}; choose from {', '.join(found)}")
    return found[name]

"""Writing a folder for Frigate (frigate.video): a model for each of its detectors, the class names, a config.

What its detectors feed and read is from its source, stored versions from 0.12 to 0.17.2 (``frigate/detectors/plugins``
and ``load_labels``): uint8 RGB pixels ``(1, height, width, 3)`` of square parts of the camera's image. ``cpu`` and
``edgetpu`` take the four outputs of TFLite_Detection_PostProcess in their usual order, ``openvino`` one output
``(1, 1, N, 7)`` of rows ``image, class, score, x1, y1, x2, y2`` in shares of the image, best first. All look classes up
in one file of names as they are, so these count from 0 everywhere. Of what scores less than 0.4 nothing is used, nor of
more than 20 detections.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobiledet.exporters.base import Exporter, ExportOptions
from mobiledet.exporters.litert import check_model, write_litert
from mobiledet.exporters.openvino import OPENVINO_EXPORTER, openvino_model, save_openvino
from mobiledet.runtime.card import ModelCard
from mobiledet.runtime.litert import FRIGATE, FRIGATE_MODEL
from mobiledet.runtime.openvino import import_openvino
from mobiledet.structures import ImageArray
from mobiledet.utils.text import count

if TYPE_CHECKING:
    from mobiledet.models.detection_model import DetectionModel

logger = logging.getLogger(__name__)

OPENVINO_FILE = "openvino.xml"

LOWEST_SCORE = 0.4
"""Frigate drops what scores less, whatever its config says."""

CONFIG = """\
# For Frigate's config.yml. The paths are those inside its container, where /config is the folder of config.yml.
detectors:
  cpu:
    type: cpu
    num_threads: 2

model:
  path: /config/{folder}/{model}
  labelmap_path: /config/{folder}/labelmap.txt
  width: {width}
  height: {height}
  input_tensor: nhwc
  input_pixel_format: rgb
  model_type: ssd

objects:
  track: {names}{filters}

# On an Intel or AMD processor OpenVINO is faster (device: GPU for Intel's):
# detectors:
#   openvino:
#     type: openvino
#     device: CPU
# model:
#   path: /config/{folder}/{openvino}
#
# With a Coral, once its file has been compiled (README.md):
# detectors:
#   coral:
#     type: edgetpu
#     device: usb
# model:
#   path: /config/{folder}/{compiled}
"""

README = """\
# A detector for Frigate

{classes}, {width}x{height} pixels, {precision}.

| file | for |
|---|---|
| `{model}` | Frigate's detector `cpu`; compiled, `edgetpu` |
| `openvino.xml`, `openvino.bin` | its detector `openvino` |
| `labelmap.txt` | the class names, for all of them |
| `config.yml` | what to copy into Frigate's own config.yml |
| `card.json` | mobiledet, which runs these models, too |

1. Copy this folder to where Frigate's config.yml is, which the container sees as /config. (If it is elsewhere, mount
   it: `-v $PWD/{folder}:/config/{folder}:ro`.)
2. Copy `detectors`, `model` and `objects` from `config.yml` here into Frigate's, replacing those. Only one kind of
   detector can be used at a time.
3. Restart Frigate and look at its log.

{coral}

Frigate tracks only what `objects: track:` lists, by the names of labelmap.txt; other names are dropped with a warning.
It uses no detection that scores less than {lowest}. By default it tracks objects from a `min_score` of 0.5 on and
reports those whose median score reaches a `threshold` of 0.7; where config.yml sets both, it is to the score with the
best F1, or {lowest} if that is lower.
"""

CORAL = """\
For a Coral: install edgetpu_compiler on an x86-64 Debian or Ubuntu (https://coral.ai/docs/edgetpu/compiler), then in
this folder

    edgetpu_compiler {model}

It writes `{compiled}`; name that in config.yml."""

NO_CORAL = "A Coral computes in INT8 only: export again with --int8 --calibration and images like those it will see."


def _write(
    model: DetectionModel, card: ModelCard, path: Path, options: ExportOptions, calibration: Sequence[ImageArray]
) -> None:
    check_model(model)
    height, width = card.resize.size
    if height != width:
        logger.warning(
            "Frigate looks at square parts of the image, and some versions of its openvino detector refuse other "
            "inputs: objects will look stretched to a network of %dx%d; train with a square model.input_size",
            height,
            width,
        )
    rows = _rows(openvino_model(model, card, options, calibration), card)
    path.mkdir()
    save_openvino(rows, card, path / OPENVINO_FILE)
    write_litert(model, card, path / FRIGATE_MODEL, options, calibration, pixels=True)
    for name, text in _texts(card, path.name).items():
        (path / name).write_text(text, encoding="utf-8")


def _rows(model: Any, card: ModelCard) -> Any:
    """The ``openvino.Model`` with its thresholds as they are in the card and all results in one output."""
    openvino = import_openvino()
    from openvino import opset8 as ops

    images = model.input("images").get_node()
    for name, value in (("score_threshold", card.score_threshold), ("iou_threshold", card.iou_threshold)):
        constant = ops.constant(np.array(value, np.float32))
        model.input(name).get_node().output(0).replace(constant.output(0))
    boxes, scores, labels = (model.output(name).get_node().input_value(0) for name in ("boxes", "scores", "labels"))
    height, width = card.resize.size
    shares = ops.divide(boxes, ops.constant(np.array([width, height, width, height], np.float32)))
    column = ops.constant(np.array(2))
    scores = ops.unsqueeze(scores, column)
    classes = ops.unsqueeze(ops.subtract(ops.convert(labels, "f32"), np.float32(1)), column)
    found = ops.concat([ops.multiply(scores, np.float32(0)), classes, scores, shares], 2)
    return openvino.Model([ops.unsqueeze(found, ops.constant(np.array(1)))], [images], "mobiledet")


def _texts(card: ModelCard, folder: str) -> dict[str, str]:
    """The content of each text file."""
    height, width = card.resize.size
    names = [line.split(" ", 1)[1] for line in card.label_map().splitlines()]
    quoted = [json.dumps(name) for name in names]  # YAML reads JSON's strings
    values = {
        "folder": folder,
        "model": FRIGATE_MODEL,
        "openvino": OPENVINO_FILE,
        "compiled": FRIGATE_MODEL.replace(".tflite", "_edgetpu.tflite"),
        "width": width,
        "height": height,
    }
    filters = ""
    if card.shown_threshold is not None:
        score = max(LOWEST_SCORE, round(card.shown_threshold, 2))
        lines = (f"\n    {name}: {{min_score: {score}, threshold: {score}}}" for name in quoted)
        filters = f"\n  filters:{''.join(lines)}"
    coral = CORAL if card.precision == "int8" else NO_CORAL
    return {
        "labelmap.txt": card.label_map(),
        "config.yml": CONFIG.format(**values, names=f"[{', '.join(quoted)}]", filters=filters),
        "README.md": README.format(
            **values,
            classes=count(len(names), "class", "classes"),
            precision=card.precision,
            lowest=LOWEST_SCORE,
            coral=coral.format(**values),
        ),
    }


FRIGATE_EXPORTER = Exporter(
    runtime=FRIGATE,
    write=_write,
    packages=("ai_edge_litert", *OPENVINO_EXPORTER.packages),
    int8_packages=OPENVINO_EXPORTER.int8_packages,
    batches=False,
    compared=(OPENVINO_FILE,),
)

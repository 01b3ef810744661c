"""What exported models find on an older processor: scored here, and once more where qemu plays the other processor.

    sudo apt install qemu-user-static
    python benchmarks/older_processor.py model_int8.onnx model_openvino_int8 --data path/to/coco --limit 40

Haswell (2013), the default, has AVX2 but no VNNI, as most laptops sold until 2020. Emulated, an image takes about a
second; times of an emulator say nothing, and none are printed. "with saturating sums" is how ONNX Runtime computes
there by itself, see `mobiledet.runtime.onnx.sums_saturate`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mobiledet.cli.common import at_least, existing, run_and_exit
from mobiledet.detections import Detections
from mobiledet.errors import MissingDependencyError, MobiledetError
from mobiledet.exporters.agreement import compare
from mobiledet.utils.text import table

SATURATING = "import mobiledet.runtime.onnx as o, mobiledet.cli.main as m; o.sums_saturate = lambda: False; m.main()"


def main() -> None:
    """Score and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=existing, metavar="model", help="exported file or folder")
    parser.add_argument("--data", type=existing, required=True, metavar="ROOT", help="COCO folder, scored on val")
    parser.add_argument("--limit", type=at_least(1), default=40, metavar="N", help="first N images (%(default)s)")
    parser.add_argument("--cpu", default="Haswell", help="what qemu plays; qemu-x86_64 -cpu help lists them")
    arguments = parser.parse_args()
    qemu = shutil.which("qemu-x86_64") or shutil.which("qemu-x86_64-static")
    if qemu is None:
        raise MissingDependencyError("qemu-x86_64 is not installed; on Debian: apt install qemu-user-static")

    own, saturating = [sys.executable, "-m", "mobiledet"], [sys.executable, "-c", SATURATING]
    emulated = [qemu, "-cpu", arguments.cpu]
    rows = [["model", "processor", "AP", "matched", "largest difference of scores", "mean"]]
    for model in arguments.models:
        ways = {"this one": own, arguments.cpu: emulated + own}
        if model.suffix == ".onnx":
            ways[f"{arguments.cpu}, with saturating sums"] = emulated + saturating
        reference = None
        for name, command in ways.items():
            ap, found = evaluate(command, model, arguments.data, arguments.limit)
            reference = reference or found
            images = sorted(reference.keys() | found.keys())
            same = compare(
                *([some.get(image, NOTHING) for image in images] for some in (reference, found)), threshold=0.3
            )
            largest, mean = f"{same.largest_score_difference:.4f}", f"{same.mean_score_difference:.4f}"
            rows.append([str(model), name, f"{100 * ap:.2f}", f"{same.matched_share:.2%}", largest, mean])
    print("\n".join(table(rows, left=(0, 1))))


def evaluate(command: Sequence[str], model: Path, data: Path, limit: int) -> tuple[float, dict[int, Detections]]:
    """AP of a model, and its detections by the number of the image."""
    with tempfile.TemporaryDirectory() as folder:
        figures, results = Path(folder) / "figures.json", Path(folder) / "results.json"
        words = ["eval", model, "--data", data, "--limit", limit, "--threads", 1, "--json", figures]
        done = subprocess.run(
            [*command, *map(str, words), "--results", results],
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )
        if done.returncode:
            raise MobiledetError(f"{model}: {done.stderr.strip()}")
        rows: list[dict[str, Any]] = json.loads(results.read_text(encoding="utf-8"))
        ap: float = json.loads(figures.read_text(encoding="utf-8"))["AP"]
    images: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        images.setdefault(row["image_id"], []).append(row)
    return ap, {image: _detections(found) for image, found in images.items()}


def _detections(rows: Sequence[dict[str, Any]]) -> Detections:
    boxes = np.array([row["bbox"] for row in rows], np.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    scores = np.array([row["score"] for row in rows], np.float32)
    return Detections(boxes, scores, np.array([row["category_id"] for row in rows], np.int64))


NOTHING = _detections([])

if __name__ == "__main__":
    run_and_exit(main)

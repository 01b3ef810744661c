"""SSD at every width and input size, float and INT8, beside the COCO detector in LiteRT: milliseconds in one run.

    python benchmarks/sizes.py --images path/to/coco/val2017 --litert coco.tflite --rounds 15 --json sizes.json

Weights are random, their norms adapted to the images; that matters for suppression only, which has little to do
here. From a uint8 image in memory to detections in its pixels, 80 classes, by ONNX Runtime. All take turns within a
round, so that a slow moment of the machine hits all of them; "beside LiteRT" is the median of the ratio within a
round. docs/raspberry-pi.md estimates a board's time, which is not a measurement, as its published time for that LiteRT
model times the ratio of each INT8 model to the one of 0.75 at 300 here.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ALPHAS = (0.25, 0.5, 0.75, 1.0)
SIZES = (160, 192, 224, 300)


def main() -> None:
    """Parse arguments, build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--images",
        type=Path,
        required=True,
        help="real images, for INT8's ranges and the calls",
    )
    parser.add_argument("--litert", type=Path, required=True, help="the COCO detector's .tflite")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--alphas", type=float, nargs="+", default=ALPHAS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()

    from mobiledet.data.images import find_images, read_image
    from mobiledet.runtime.detector import Detector

    images = [read_image(path) for path in find_images([arguments.images])[:16]]
    rows: list[dict[str, Any]] = []
    calls: list[Callable[[int], Any]] = []
    peer = Detector(arguments.litert, threads=arguments.threads)
    rows.append({"model": "LiteRT, COCO detector 0.75, 300, INT8"})
    calls.append(lambda number: peer(images[number % len(images)]))
    with tempfile.TemporaryDirectory() as folder:
        for alpha in arguments.alphas:
            for size in arguments.sizes:
                for precision, gmacs, path in exported(alpha, size, images, Path(folder)):
                    detector = Detector(path, threads=arguments.threads, score_threshold=0.05)
                    rows.append({"alpha": alpha, "size": size, "precision": precision, "gmacs": gmacs})
                    calls.append(lambda number, detector=detector: detector(images[number % len(images)]))  # type: ignore[misc]
        times = measure(calls, arguments.rounds)
    for row, mine in zip(rows, times, strict=True):
        row["ms"] = round(statistics.median(mine), 2)
        row["beside_litert"] = round(statistics.median(a / b for a, b in zip(mine, times[0], strict=True)), 3)
        name = (
            row.get("model")
            or f"alpha {row['alpha']:4} size {row['size']} {row['precision']:8} {row['gmacs']:.3f} GMACs"
        )
        print(f"{name:45} {row['ms']:7.2f} ms  {row['beside_litert']:.2f}")
    drift = [statistics.median(column) for column in zip(*times, strict=True)]
    print(
        f"{arguments.threads} threads; the machine's speed varied by {max(drift) / min(drift) - 1:.0%} between rounds"
    )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"command": sys.argv, "rows": rows}, indent=2) + "\n", encoding="utf-8")


def exported(alpha: float, size: int, images: Sequence[Any], folder: Path) -> list[tuple[str, float, Path]]:
    """An SSD of random weights as float and INT8 files, with its multiply-adds in billions."""
    import numpy as np
    import torch

    from mobiledet.config import BackboneConfig, ModelConfig
    from mobiledet.exporters.int8 import quantise
    from mobiledet.exporters.onnx import trace_onnx, write_onnx
    from mobiledet.models.build import build_detector
    from mobiledet.models.cost import detector_cost
    from mobiledet.preprocess import fit_image
    from mobiledet.runtime.card import ModelCard

    torch.manual_seed(0)
    model = build_detector(ModelConfig(num_classes=80, backbone=BackboneConfig(alpha=alpha), input_size=(size, size)))
    fitted = [fit_image(image, model.resize)[0] for image in images]
    with torch.no_grad():
        # Without it activations fade away with depth, down to numbers that processors are slow with.
        for norm in (layer for layer in model.eval().modules() if isinstance(layer, torch.nn.BatchNorm2d)):
            norm.train().momentum = 1.0
        model.candidates(torch.from_numpy(np.stack(fitted)).permute(0, 3, 1, 2))
    gmacs = detector_cost(model.eval()).gmacs
    card = ModelCard(tuple(f"class {k}" for k in range(80)), tuple(range(1, 81)), model.resize)
    files = []
    for precision in ("float32", "int8"):
        path = folder / f"{alpha}-{size}-{precision}.onnx"
        graph = trace_onnx(model, size=(size, size))
        write_onnx(graph if precision == "float32" else quantise(graph, [image[None] for image in fitted]), card, path)
        files.append((precision, gmacs, path))
    return files


def measure(calls: Sequence[Callable[[int], Any]], rounds: int) -> list[list[float]]:
    """Milliseconds of each call, a median of five per round; all take turns."""
    times: list[list[float]] = [[] for _ in calls]
    for number in range(rounds + 1):
        for call, mine in zip(calls, times, strict=True):
            taken = []
            for repeat in range(5):
                start = time.perf_counter()
                call(number * 5 + repeat)
                taken.append((time.perf_counter() - start) * 1e3)
            if number:  # the first round warms up
                mine.append(statistics.median(taken))
    return times


if __name__ == "__main__":
    main()

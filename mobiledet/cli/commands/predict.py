"""Detect objects in images: writes drawn copies of them and one detections.json.

    mobiledet predict ssd_mobilenet_v1_075_coco image.jpg
    mobiledet predict runs/ssd_mobilenet_a1/1/best.pt image.jpg folder/ -o out/
    mobiledet predict model_int8.onnx image.jpg                # exported models need no PyTorch

Exit status: 0; 1 when something is wrong with the input. An image that can't be read is reported, and the others are
still done.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mobiledet.cli.common import EXIT_ERROR, fraction, model, thread_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("model", type=model, help="best.pt, a run folder, a name, or an exported file or folder")
    parser.add_argument("images", type=Path, nargs="+", help="images or folders of images")
    parser.add_argument(
        "-o", "--output", type=Path, help="folder for the results; must not hold any (default: runs/predict/<number>)"
    )
    parser.add_argument("--threshold", type=fraction, help="minimum score (default: the model's best, or 0.3)")
    parser.add_argument("--threads", type=thread_count, default=0, help="processor threads; 0 takes all cores")
    parser.add_argument("--device", default="auto", help="of PyTorch, or a provider of the exported model's runtime")


def run(arguments: argparse.Namespace) -> int:
    """Detect and write."""
    from mobiledet.apps.predict import write_predictions
    from mobiledet.data.images import find_images
    from mobiledet.evaluate.thresholds import DEFAULT_THRESHOLD
    from mobiledet.runtime.detector import Detector
    from mobiledet.utils.files import create_run_folder
    from mobiledet.utils.text import count

    paths = find_images(arguments.images)
    detector = Detector(arguments.model, threads=arguments.threads, provider=arguments.device)
    output = arguments.output or create_run_folder(Path("runs"), "predict", remedy="name a folder with -o")
    threshold = arguments.threshold
    if threshold is None:
        threshold = detector.card.shown_threshold or DEFAULT_THRESHOLD
    summary = write_predictions(detector, paths, output, category_ids=detector.card.category_ids, threshold=threshold)
    print(
        f"{count(summary.detections, 'detection')} (score >= {threshold:g}) in {count(summary.images, 'image')}: "
        f"{output}/, {output / 'detections.json'}"
    )
    for problem in summary.problems:
        print(f"error: {problem}", file=sys.stderr)
    return EXIT_ERROR if summary.problems else 0

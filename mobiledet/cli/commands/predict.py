"""Detect objects in images and videos: writes drawn copies of them and one detections.json.

    mobiledet predict ssd_mobilenet_v1_075_coco image.jpg
    mobiledet predict runs/mine/1 clip.mp4 photos/ "img*.jpg" https://host/a.jpg --classes cat dog -o out
    mobiledet predict model_int8.onnx photos/ --save-crops --save-txt      # exported models need no PyTorch

Exit status: 0; 1 when something is wrong with the input. An image that can't be read is reported, and the others are
still done.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mobiledet.cli.common import EXIT_ERROR, add_labels, at_least, fraction, model, new_file, thread_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("model", type=model, help="best.pt, a run folder, a name, or an exported file or folder")
    parser.add_argument("inputs", nargs="+", metavar="input", help="images, videos, folders, patterns, addresses")
    parser.add_argument(
        "-o", "--output", type=Path, help="folder for the results; must not hold any (default: runs/predict/<number>)"
    )
    parser.add_argument(
        "--threshold", type=fraction, help="minimum score shown (default: what suits the model best, or 0.5)"
    )
    add_labels(parser)
    parser.add_argument("--classes", nargs="+", default=[], metavar="NAME", help="only these classes")
    parser.add_argument("--threads", type=thread_count, default=0, help="processor threads; 0 takes all cores")
    parser.add_argument("--device", default="auto", help="of PyTorch, or a provider of the exported model's runtime")
    written = parser.add_argument_group("what is written")
    written.add_argument("--save-crops", action="store_true", help="each object as an image: crops/<class>/")
    written.add_argument("--save-txt", action="store_true", help="YOLO rows: labels/<image>.txt")
    written.add_argument("--results", type=new_file, metavar="FILE", help="all detections as COCO results (json)")
    written.add_argument("--no-draw", action="store_true", help="no drawn copies")
    written.add_argument("--no-labels", action="store_true", help="boxes without names and scores")
    written.add_argument(
        "--line-width", type=at_least(1), metavar="PIXELS", help="of the boxes (default: by image size)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Detect and write."""
    from mobiledet.apps.predict import PredictOptions, find_inputs, write_predictions
    from mobiledet.errors import MobiledetError
    from mobiledet.evaluation.thresholds import DEFAULT_THRESHOLD
    from mobiledet.runtime.choose import check_installed
    from mobiledet.runtime.detector import Detector
    from mobiledet.utils.files import create_run_folder
    from mobiledet.utils.text import count, did_you_mean, listing

    check_installed(arguments.model, arguments.device)
    inputs = find_inputs(arguments.inputs)
    detector = Detector(arguments.model, threads=arguments.threads, provider=arguments.device, labels=arguments.labels)
    for name in arguments.classes:
        if name not in detector.names:
            hint = did_you_mean(name, detector.names, otherwise=f"it knows {listing(detector.names)}")
            raise MobiledetError(f"the model has no class {name!r}; {hint}")
    output = arguments.output or create_run_folder(Path("runs"), "predict", remedy="name a folder with -o")
    threshold = arguments.threshold
    if threshold is None:
        threshold = detector.card.shown_threshold or DEFAULT_THRESHOLD
    options = PredictOptions(
        threshold=threshold,
        classes=tuple(arguments.classes),
        draw=not arguments.no_draw,
        labels=not arguments.no_labels,
        line_width=arguments.line_width,
        crops=arguments.save_crops,
        txt=arguments.save_txt,
        results=arguments.results,
    )
    summary = write_predictions(detector, inputs, output, options)
    print(
        f"{count(summary.detections, 'detection')} (score >= {threshold:g}) in {count(summary.images, 'image')}: "
        f"{output}/, {output / 'detections.json'}"
    )
    for problem in summary.problems:
        print(f"error: {problem}", file=sys.stderr)
    return EXIT_ERROR if summary.problems else 0

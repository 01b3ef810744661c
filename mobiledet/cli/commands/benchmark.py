"""Measure how fast detectors are on this machine, side by side, whole and by stage.

    mobiledet benchmark best.pt model.onnx model_openvino/ peer.tflite --json bench.json --html bench.html
    mobiledet benchmark model.onnx --peers all --threads 2 --data path/to/coco --limit 500

Each model runs in a process of its own; all take turns, so that slow moments of the machine affect all of them.
Exit status: 0; 1 when a model can't be opened or something else is wrong with the input, and also when a model failed
while it was measured and the others went on; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys

from mobiledet.cli.common import EXIT_ERROR, add_labels, existing, new_file
from mobiledet.errors import MobiledetError, need_extra
from mobiledet.utils.processes import EXIT_SIGNAL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("models", nargs="*", metavar="model", help="exported file or folder, checkpoint, name")
    add_labels(parser)
    parser.add_argument("--peers", metavar="NAMES", help="also torchvision, ultralytics (commas), or all")
    parser.add_argument("--threads", type=int, default=1, help="processor threads of each (default: %(default)s)")
    parser.add_argument("--sizes", metavar="HxW,...", help="of the images; own: the network's (480x640,720x1280,own)")
    parser.add_argument(
        "--images", "--pictures", type=existing, metavar="FOLDER", help="detect in these images (default: drawn ones)"
    )
    parser.add_argument("--rounds", type=int, default=10, help="turns of each model (default: %(default)s)")
    parser.add_argument("--calls", type=int, default=5, help="calls of a turn and size (default: %(default)s)")
    parser.add_argument("--starts", type=int, default=3, help="cold starts of each model (default: %(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for an answer (default: %(default)s)")
    parser.add_argument("--data", type=existing, metavar="ROOT", help="data with the models' classes, to measure AP on")
    parser.add_argument("--split", default="val", help="which part of it (default: %(default)s)")
    parser.add_argument("--limit", type=int, metavar="N", help="only its first N images")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write all figures here")
    parser.add_argument("--html", type=new_file, metavar="FILE", help="write a page with charts here")


def run(arguments: argparse.Namespace) -> int:
    """Measure and print."""
    if arguments.json and arguments.html and arguments.json.resolve() == arguments.html.resolve():
        raise MobiledetError(f"--json and --html both name {arguments.json}; give them different files")
    if arguments.data is not None:
        need_extra("score")
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(EXIT_SIGNAL + number))  # ends the workers on the way out

    from mobiledet.apps.benchmark.images import DEFAULT_SIZES, parse_sizes
    from mobiledet.apps.benchmark.measuring import Settings
    from mobiledet.apps.benchmark.run import run_benchmark, write_report
    from mobiledet.apps.benchmark.tables import report_text

    settings = Settings(
        threads=arguments.threads,
        rounds=arguments.rounds,
        calls=arguments.calls,
        starts=arguments.starts,
        sizes=parse_sizes(DEFAULT_SIZES if arguments.sizes is None else arguments.sizes),
        timeout=arguments.timeout,
        labels=None if arguments.labels is None else str(arguments.labels),
    )
    report = run_benchmark(
        arguments.models,
        settings,
        peers=arguments.peers,
        images=arguments.images,
        data=arguments.data,
        split=arguments.split,
        limit=arguments.limit,
    )
    print(report_text(report), end="", flush=True)
    write_report(report, json=arguments.json, html=arguments.html)
    return EXIT_ERROR if report.failed else 0

"""Score checkpoints or exported models on a COCO-format data set: the twelve COCO figures and AP by class.

    mobiledet eval runs/mine/1                                      # on the validation images it was trained with
    mobiledet eval model.onnx --data "my photos" --json metrics.json
    mobiledet eval runs/mine/1 --report report.html                 # why the score is what it is, on one page
    mobiledet eval a.onnx b.onnx --data "my photos" --report compare.html   # which is better, and how sure that is

Exit status: 0; 1 when something is wrong with the input.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobiledet.cli.common import UsageError, add_labels, at_least, existing, model, new_file, thread_count
from mobiledet.errors import need_extra
from mobiledet.utils.machine import share_cores

if TYPE_CHECKING:
    from mobiledet.data.coco import CocoDataset


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument(
        "models", nargs="+", metavar="model", type=model, help="best.pt, a run folder, a name, or an exported file"
    )
    parser.add_argument("--data", type=existing, metavar="ROOT", help="COCO folder (default: what it trained on)")
    parser.add_argument("--split", default="val", help="split to score (default: val)")
    parser.add_argument("--annotations", type=existing, help="annotation file, if not where COCO has it")
    parser.add_argument("--images", type=existing, help="image folder, if not where COCO has it")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="score only the first N images")
    parser.add_argument(
        "--max-dets",
        type=at_least(10),
        metavar="N",
        help="detections per image and class that count (default: COCO's 100, or more where the model gives more)",
    )
    add_labels(parser)
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the figures here")
    parser.add_argument("--results", type=new_file, metavar="FILE", help="write the detections here, as COCO results")
    parser.add_argument(
        "--report", type=new_file, metavar="FILE", help="write a page with the errors and what to do next"
    )
    parser.add_argument(
        "--suspects", type=new_file, metavar="FOLDER", help="write suspected label errors here, for labelling tools"
    )
    parser.add_argument(
        "--benchmark",
        type=existing,
        action="append",
        default=[],
        metavar="FILE",
        help="times for the comparison: the JSON of mobiledet benchmark; may be repeated",
    )
    parser.add_argument("--batch-size", type=at_least(1), default=16, help="of checkpoints")
    parser.add_argument("--workers", type=at_least(0), default=2)
    parser.add_argument("--threads", type=thread_count, default=0, help="processor threads; 0 takes all cores")
    parser.add_argument("--device", default="auto", help="of PyTorch, or a provider of the exported model's runtime")


def run(arguments: argparse.Namespace) -> None:
    """Score and print."""
    from mobiledet.runtime.choose import check_installed, takes_labels

    several = len(arguments.models) > 1
    if several and (arguments.json, arguments.results, arguments.suspects) != (None, None, None):
        raise UsageError("--json, --results and --suspects are of one model; name one, or leave them out")
    if arguments.benchmark and not (several and arguments.report):
        raise UsageError("--benchmark belongs to a comparison: name two models or more, and --report FILE")
    for name in arguments.models:
        check_installed(name, arguments.device)
    need_extra("score")
    share_cores()
    from mobiledet.data.opening import open_recorded_split, open_split
    from mobiledet.evaluation.metrics import format_metrics
    from mobiledet.evaluation.scoring import score_model, top_one
    from mobiledet.exporters.agreement import warn_of_other_processor
    from mobiledet.utils.files import write_json
    from mobiledet.utils.settings import ReadingConfig

    def choose(settings: Mapping[str, Any]) -> CocoDataset:
        named = arguments.annotations, arguments.images
        if arguments.data is None and (named == (None, None) or not settings):
            return open_recorded_split(settings, arguments.split)
        root = arguments.data or Path(settings["data"]["root"])
        trained_with = settings.get("data", {}).get("reading", {})
        reading = ReadingConfig(classes_of="images") if trained_with.get("classes_of") == "images" else None
        return open_split(root, arguments.split, annotations=named[0], images=named[1], reading=reading)

    benchmarks = [_read_benchmark(path) for path in arguments.benchmark]
    scores = []
    for name in arguments.models:
        warn_of_other_processor(name)
        score = score_model(
            name,
            choose,
            limit=arguments.limit,
            max_detections=arguments.max_dets,
            batch_size=arguments.batch_size,
            workers=arguments.workers,
            threads=arguments.threads,
            device=arguments.device,
            labels=arguments.labels if not several or takes_labels(name) else None,
            brightness=not several and arguments.report is not None,
        )
        scores.append(score)
        if several:
            print(f"{name}:")
        print(format_metrics(score.metrics))
        if score.threshold is not None:
            print(f"best F1 over all classes at score {score.threshold:.2f}")
        if score.card.head == "classifier" and (top := top_one(score.results, score.dataset)) is not None:
            print(f"top-1 of the images with one class: {top:.3f}")
        if several:
            print()
    if arguments.json is not None:
        write_json(arguments.json, scores[0].record)
    if arguments.results is not None:
        write_json(arguments.results, scores[0].results)
    if several and arguments.report is not None:
        from mobiledet.apps.report.write import write_comparison

        write_comparison(scores, arguments.models, arguments.report, benchmarks)
    elif arguments.report is not None or arguments.suspects is not None:
        from mobiledet.apps.report.write import write_report

        write_report(scores[0], arguments.models[0], page=arguments.report, suspects=arguments.suspects)


def _read_benchmark(path: Path) -> Mapping[str, Any]:
    """The content of a benchmark's JSON file; read before detection, which takes long."""
    import json

    from mobiledet.apps.report.comparison import check_benchmark

    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    return check_benchmark(content, path)

"""Score a checkpoint or an exported model on a COCO-format data set: the twelve COCO figures and AP by class.

mobiledet eval runs/mine/1                                      # on the validation images it was trained with
mobiledet eval model.onnx --data "my photos" --json metrics.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from mobiledet.cli.common import at_least, existing, model, new_file, thread_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("model", type=model, help="best.pt, a run folder, a name, or an exported file or folder")
    parser.add_argument("--data", type=existing, metavar="ROOT", help="COCO folder (default: what it trained on)")
    parser.add_argument("--split", default="val", help="split to score (default: val)")
    parser.add_argument("--annotations", type=existing, help="annotation file, if not where COCO has it")
    parser.add_argument("--images", type=existing, help="image folder, if not where COCO has it")
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="score only the first N images")
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the figures here")
    parser.add_argument("--results", type=new_file, metavar="FILE", help="write the detections here, as COCO results")
    parser.add_argument("--batch-size", type=at_least(1), default=16, help="of checkpoints")
    parser.add_argument("--workers", type=at_least(0), default=2)
    parser.add_argument("--threads", type=thread_count, default=0, help="processor threads; 0 takes all cores")
    parser.add_argument("--device", default="auto", help="of PyTorch, or a provider of the exported model's runtime")


def run(arguments: argparse.Namespace) -> None:
    """Score and print."""
    from mobiledet.config import config_from_plain
    from mobiledet.data.opening import open_recorded_split, open_split
    from mobiledet.evaluate.metrics import format_metrics, score_detections
    from mobiledet.evaluate.predictions import checkpoint_record, metrics_record, model_record, predict_dataset
    from mobiledet.evaluate.thresholds import best_threshold
    from mobiledet.runtime.choose import find_runtime
    from mobiledet.runtime.detector import Detector
    from mobiledet.utils.files import write_json
    from mobiledet.utils.progress import progress_bar

    detector = Detector(arguments.model, threads=arguments.threads, provider=arguments.device)
    exported = find_runtime(arguments.model) is not None
    config = config_from_plain(detector.card.config)
    if arguments.data is None and arguments.annotations is None and arguments.images is None:
        dataset = open_recorded_split(config, arguments.split)
    else:
        dataset = open_split(
            arguments.data or Path(config.data.root),
            arguments.split,
            annotations=arguments.annotations,
            images=arguments.images,
        )
    if arguments.limit is not None:
        dataset = dataset.first(arguments.limit)
    if summary := dataset.report.summary():
        print(summary, file=sys.stderr)
    with progress_bar(total=len(dataset), unit="img") as bar:
        results = predict_dataset(
            detector,
            detector.names,
            dataset,
            batch_size=detector.card.batch if exported else arguments.batch_size,
            workers=None if exported else arguments.workers,
            on_batch=bar.update,
        )
    truth = dataset.coco_json()
    metrics, threshold = score_detections(truth, results), best_threshold(truth, results)
    print(format_metrics(metrics))
    if threshold is not None:
        print(f"best F1 over all classes at score {threshold:.2f}")
    if arguments.json is not None:
        origin = Path(detector.card.origin["file"])
        record = model_record(arguments.model, detector) if exported else checkpoint_record(origin, config)
        write_json(arguments.json, metrics_record(metrics, threshold, record))
    if arguments.results is not None:
        write_json(arguments.results, results)

"""Look at a data set before training on it: what there is, what fits the anchors, what is twice, what looks wrong.

    mobiledet check path/to/data
    mobiledet check path/to/data model.input_size=512,512             # as train takes it
    mobiledet check path/to/data -o check --config ssd_mobilenet_a1
    mobiledet check path/to/data --model runs/ssd_mobilenet_a1/1      # finds unlabelled objects too

COCO, Pascal VOC and YOLO are recognised. Input and anchors are those of the recipe that you are going to train,
completed for this data as train does it. Writes report.txt, report.json, samples.jpg, boxes.png and, where there is
something to show, suspects.jpg and duplicates.jpg. Changes nothing in the data.

Exit status: 0 ready to train, maybe with advice; 1 can't be read, or a mistake in the command; 2 wrong arguments;
3 faults that need a decision, such as labels that had to be left out, the same image in train and val, a val split
without boxes, a class in val that train lacks.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from mobiledet.cli.common import (
    add_labels,
    add_reading,
    at_least,
    data_format,
    existing,
    model,
    new_file,
    reading_of,
    recipe,
    thread_count,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("data", type=existing, help="folder of the data set, or its data.yaml or COCO json")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the recipe to change")
    parser.add_argument(
        "-o", "--output", type=Path, metavar="FOLDER", help="new folder (default: check_<name>, not in the data)"
    )
    parser.add_argument(
        "--config", type=recipe, default="finetune_ssd", metavar="CONFIG", help="recipe to be trained (%(default)s)"
    )
    parser.add_argument("--model", type=model, metavar="CHECKPOINT", help="detector that looks for unlabelled objects")
    add_labels(parser)
    parser.add_argument("--json", type=new_file, metavar="FILE", help="write the figures here too")
    parser.add_argument("--format", type=data_format, help="format of the data, such as yolo (default: recognised)")
    add_reading(parser)
    parser.add_argument("--limit", type=at_least(1), metavar="N", help="look only at the first N images of each split")
    parser.add_argument("--threads", type=thread_count, default=0, help="processor threads; 0 takes all cores")
    parser.add_argument("--device", default="auto", help="where --model runs")


def run(arguments: argparse.Namespace) -> int:
    """Read, examine, print the report."""
    from mobiledet.apps.doctor.checkup import examine, free_folder, refuse_filled
    from mobiledet.apps.doctor.recipe import JudgedRecipe
    from mobiledet.config import apply_overrides, load_config
    from mobiledet.data.formats.choose import read_dataset, recognise
    from mobiledet.utils.files import write_json

    if arguments.output is not None:
        refuse_filled(arguments.output)
    config = apply_overrides(load_config(arguments.config), arguments.overrides)
    finder: dict[str, Any] = {}
    if arguments.model:
        from mobiledet.runtime.detector import Detector

        detector = Detector(
            arguments.model, threads=arguments.threads, provider=arguments.device, labels=arguments.labels
        )
        finder = {"detect": detector, "detected_names": detector.names}
    recognised = recognise(arguments.data, arguments.format, reading_of(arguments))
    folder = arguments.output or free_folder(recognised.tree.root)
    found = read_dataset(recognised, progress=True)
    splits = found.splits
    if arguments.limit is not None:
        splits = {name: dataset.first(arguments.limit) for name, dataset in splits.items()}
    settings = [*arguments.overrides, *(f"data.reading.{word}" for word in arguments.reading)]
    train = shlex.join(["mobiledet", "train", arguments.config, f"data.root={arguments.data}", *settings])
    report = examine(
        splits,
        folder,
        title=found.root.resolve().name or "data",
        recipe=JudgedRecipe(config, splits, shlex.join([arguments.config, *arguments.overrides]), train),
        format=found.format,
        log=found.log,
        limited=arguments.limit,
        progress=True,
        **finder,
    )
    if arguments.json is not None:
        write_json(arguments.json, report.to_json())
    text, _, verdict = report.to_text().rstrip().rpartition("\n")
    print(f"{text}\nwritten to {folder}/\n\n{verdict}")
    return report.exit_status

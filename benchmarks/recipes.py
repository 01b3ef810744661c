r"""Which recipe gives the better detector for the same processor time: several sets, several seeds, one table.

    python benchmarks/recipes.py finetune_ssd -o runs/recipes --images 1600 --set model.input_size=256,256 \
        --try "fast: optimizer.lr=0.002" --try "small: schedule.batch_size=4 optimizer.lr=0.0007"
    python benchmarks/recipes.py -o runs/recipes                     # the table of what was measured, again

Each change is trained on each set with each seed, and scored on images that training doesn't see or only chooses the
best epoch by. The recipe as it is is trained beside it. Processor seconds (of training with its scorings, reading and
starting, all processes together) are compared, not minutes, because several trainings share the machine; a change that
took over 10 % more than the recipe on the same set and seed is trained again with so many fewer images.

Sets, below MOBILEDET_TEST_DATA: bccd (cells, 205 images) and chess (13 classes, 606 images), from the SSD that knows
COCO, scored on val and test; bccd-third and chess-third, which have labels for every third of these images, the rest
being what ``data.unlabelled={unlabelled}`` names; bccd-small and chess-small, four images in each, so that objects are
half as large; and coco: 6,056 images of COCO train2017 at 256x256, from ImageNet weights of alpha 0.5, scored on 188 of
val2017.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from mobiledet.cli.common import run_and_exit
from mobiledet.config import apply_overrides, load_config
from mobiledet.data.opening import open_split
from mobiledet.errors import DataError
from mobiledet.evaluation.error_analysis import KINDS, ErrorAnalysis
from mobiledet.evaluation.intervals import mean_known, precision_of
from mobiledet.evaluation.matching import IOU_THRESHOLDS, match_detections
from mobiledet.evaluation.metrics import score_detections
from mobiledet.utils.files import write_json
from mobiledet.utils.machine import instruction_set, processor_name, read_text
from mobiledet.weights.checkpoint import save_checkpoint
from mobiledet.weights.importing import import_weights

DATA = Path(os.environ.get("MOBILEDET_TEST_DATA", Path(__file__).parents[2] / "shared"))

SSD, BACKBONE = "ssd_mobilenet_v1_0.75_300_coco_quant.tflite", "mobilenet_v1_0.5_160_quant.tflite"

UNCHANGED = "unchanged"
"""Name of the recipe as it is."""

MOST_TIME = 1.1
"""Times the recipe's processor seconds that a change may take before it gets fewer images."""

MOST_LOST = 0.5
"""Points of AP that a change may lose on a set."""

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")


@dataclass(frozen=True)
class TrainingSet:
    """Images to train on, and to score on.

    Attributes:
        settings: Overrides of the recipe, the first of them its folder.
        weights: File below the shared weights to start from.
        scored: (folder below the shared data, split) of each that is scored.
        share: Times the images of ``--images`` that are trained on.
        third: Whether only every third image has its labels, see `write_third`.
        joined: Whether four images become one, see `write_joined`.
    """

    settings: tuple[str, ...]
    weights: str
    scored: tuple[tuple[str, str], ...]
    share: float = 1.0
    third: bool = False
    joined: bool = False

    @property
    def root(self) -> Path:
        """Its folder."""
        return Path(self.settings[0].partition("=")[2])


def training_sets() -> dict[str, TrainingSet]:
    """Every set by its name."""
    data = DATA / "data"
    coco = (
        f"data.root={data / 'coco-256'}",
        f"data.val_annotations={data / 'coco-mini/annotations/instances_val2017.json'}",
        f"data.val_images={data / 'coco-mini/val2017'}",
        "model.match_aspect=false",
        "optimizer.backbone_lr_scale=1",
        "schedule.val_every=100",
    )
    sets = {"coco": TrainingSet(coco, BACKBONE, (("coco-mini", "val"),), share=4.0)}
    for name, folder in (("bccd", "bccd"), ("chess", "chess-yolo")):
        whole = TrainingSet((f"data.root={data / folder}",), SSD, ((folder, "val"), (folder, "test")))
        sets |= {name: whole, f"{name}-third": replace(whole, third=True), f"{name}-small": replace(whole, joined=True)}
    return sets


def write_third(root: Path, folder: Path) -> Path:
    """Every third training image and its labels, and all of val, as a COCO data set; the other images unlabelled.

    Args:
        root: The whole data set.
        folder: Where it's written, unless it is there.

    Returns:
        The folder of unlabelled images.
    """
    for split, part in (("train", "third"), ("val", "val"), ("train", "unlabelled")):
        images = folder / part
        if images.exists():
            continue
        images.mkdir(parents=True)
        dataset = open_split(root, split)
        chosen = [i for i in range(len(dataset)) if split == "val" or (i % 3 == 0) == (part == "third")]
        some = dataset.subset(chosen)
        content = some.coco_json()
        for record, row in zip(content["images"], (some[i] for i in range(len(some))), strict=True):
            record["file_name"] = row.path.name
            shutil.copyfile(row.path, images / row.path.name)  # links would lead out of the folder
        if part != "unlabelled":
            (folder / "annotations").mkdir(exist_ok=True)
            write_json(folder / "annotations" / f"{part}.json", content)
    return folder / "unlabelled"


def write_joined(root: Path, folder: Path) -> None:
    """Every split with four images in each, objects half as large, as a COCO data set, unless it is there.

    A training image is an image and three others at random; of val and test, each is in one.
    """
    for split in ("train", "val", "test"):
        if (folder / "annotations" / f"{split}.json").exists():
            continue
        (folder / split).mkdir(parents=True, exist_ok=True)
        (folder / "annotations").mkdir(exist_ok=True)
        dataset, random = open_split(root, split), np.random.default_rng(0)
        count = len(dataset)
        content: dict[str, Any] = {"images": [], "annotations": [], "categories": dataset.coco_json()["categories"]}
        for number in range(count if split == "train" else -(-count // 4)):
            chosen = (
                [number, *random.integers(count, size=3)] if split == "train" else range(4 * number, 4 * number + 4)
            )
            height, width = (side // 2 for side in (dataset[number].height, dataset[number].width))
            canvas = np.zeros((2 * height, 2 * width, 3), np.uint8)
            for place, index in enumerate(chosen):
                row, image = dataset[index % count], dataset.read(index % count)
                x, y = place % 2 * width, place // 2 * height
                canvas[y : y + height, x : x + width] = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
                scale = np.array([width / row.width, height / row.height])
                target = row.target
                for box, label in zip(target.boxes[~target.iscrowd], target.labels[~target.iscrowd], strict=True):
                    corner, sides = (box[:2] * scale + [x, y]).tolist(), ((box[2:] - box[:2]) * scale).tolist()
                    record = {"id": len(content["annotations"]) + 1, "image_id": number + 1, "iscrowd": 0}
                    record |= {"category_id": dataset.categories[label - 1].id, "bbox": corner + sides}
                    content["annotations"].append(record | {"area": sides[0] * sides[1]})
            name = f"{number:04d}.png"
            cv2.imwrite(str(folder / split / name), canvas[..., ::-1])
            content["images"].append({"id": number + 1, "file_name": name, "width": 2 * width, "height": 2 * height})
        write_json(folder / "annotations" / f"{split}.json", content)


@dataclass(frozen=True)
class Trial:
    """One training.

    Attributes:
        change: Its name.
        settings: What is changed, overrides.
        data: Name of the set.
        seed: Of the run.
        folder: Where the result is kept.
    """

    change: str
    settings: tuple[str, ...]
    data: str
    seed: int
    folder: Path

    @property
    def name(self) -> str:
        """Of its run and its files."""
        return f"{self.data}-{self.change}-{self.seed}"

    @property
    def file(self) -> Path:
        """Where its result is kept."""
        return self.folder / f"{self.name}.json"


def main() -> None:
    """Parse arguments, train what isn't there yet, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", nargs="?", help="a recipe by name or file (without one, only the tables)")
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder of the runs and their results")
    parser.add_argument("--try", dest="changes", action="append", default=[], metavar="NAME: KEY=VALUE ...")
    parser.add_argument("--set", dest="common", action="append", default=[], metavar="KEY=VALUE", help="in every run")
    parser.add_argument("--data", nargs="+", choices=sorted(training_sets()), default=["bccd", "chess", "coco"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--images", type=int, default=6000, help="images trained on; four times as many of coco")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at once, each with a thread and a reader")
    arguments = parser.parse_args()
    if arguments.recipe is not None:
        changes: dict[str, tuple[str, ...]] = {UNCHANGED: ()}
        for text in arguments.changes:
            name, colon, words = text.partition(":")
            if not colon or not name.replace("-", "").replace("_", "").isalnum():
                parser.error(f'--try {text!r} is not "NAME: KEY=VALUE ...", NAME of letters, digits, - and _')
            changes[name] = tuple(shlex.split(words))
            apply_overrides(load_config(arguments.recipe), [*arguments.common, *changes[name]])  # before hours of work
        trials = [
            Trial(name, (*arguments.common, *words), data, seed, arguments.output)
            for name, words in changes.items()
            for data in arguments.data
            for seed in arguments.seeds
        ]
        arguments.output.mkdir(parents=True, exist_ok=True)
        for weights in {training_sets()[data].weights for data in arguments.data}:
            imported = arguments.output / f"{weights}.pt"
            if not imported.exists():
                save_checkpoint(imported, import_weights(DATA / "weights" / weights))
        work = partial(run, arguments.recipe, arguments.images)
        with ThreadPoolExecutor(arguments.jobs) as pool:  # in their order, so that the recipe itself comes first
            list(pool.map(work, trials))
    print_tables(arguments.output)


def run(recipe: str, images: int, trial: Trial) -> None:
    """Train and score, unless that was done; a slow change again, with fewer images."""
    if trial.file.exists():
        return
    result = train(recipe, images, trial)
    recipe_file = trial.file.with_name(f"{trial.data}-{UNCHANGED}-{trial.seed}.json")
    if recipe_file.exists():
        ratio = result["cpu_seconds"] / json.loads(recipe_file.read_text(encoding="utf-8"))["cpu_seconds"]
        if ratio > MOST_TIME:
            print(f"{trial.name}: {ratio:.2f} times the recipe's seconds, again with fewer images")
            result = train(recipe, images / ratio, trial)
    write_json(trial.file, result)  # a figure that isn't defined, such as APl without large objects, is null
    print(f"{trial.name}: AP {result['figures']['AP']:.4f}, {result['cpu_seconds']:.0f} s")


def train(recipe: str, images: float, trial: Trial) -> dict[str, Any]:
    """Train in a process of its own; its figures and processor seconds."""
    where = training_sets()[trial.data]
    folders, unlabelled, folder = where.settings, Path(), trial.folder / trial.data
    if where.third:
        unlabelled, folders = write_third(where.root, folder), (f"data.root={folder}", "data.train_split=third")
    elif where.joined:
        write_joined(where.root, folder)
        folders = (f"data.root={folder}",)
    changes = [word.replace("{unlabelled}", str(unlabelled)) for word in trial.settings]
    there = len(open_split(where.root, "train"))
    if where.third and not any(word.startswith("data.unlabelled=") for word in changes):
        there = -(-there // 3)
    epochs = max(1, round(images * where.share / there))
    settings = [
        *folders,
        f"model.init={trial.folder / where.weights}.pt",
        f"schedule.epochs={epochs}",
        "data.workers=1",
        "train.threads=1",
        f"train.output={trial.folder / 'runs'}",
        f"name={trial.name}",
        f"seed={trial.seed}",
        *changes,
    ]
    log = trial.file.with_suffix(".log")
    with log.open("w") as stream:
        command = [sys.executable, "-m", "mobiledet", "train", recipe, *settings]
        process = subprocess.Popen(command, stdout=stream, stderr=stream)
        _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        last = log.read_text(encoding="utf-8").splitlines()[-1:]
        raise DataError(f"training failed, see {log}: {' '.join(last) or f'ended by signal or status {status}'}")
    run_folder = max((trial.folder / "runs" / trial.name).glob("[0-9]*"), key=lambda path: int(path.name))
    scores = [
        score(run_folder, folder if where.joined else DATA / "data" / data, split) for data, split in where.scored
    ]
    bfloat16 = "with" if "bf16" in read_text("/proc/cpuinfo") else "without"
    return {
        "data": trial.data,
        "change": trial.change,
        "settings": settings,
        "epochs": epochs,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "figures": {key: mean_of(scores, key) for key in scores[0]},
        "scores": scores,
        "processor": f"{processor_name()}, {instruction_set()}, {bfloat16} bfloat16",
    }


def score(folder: Path, data: Path, split: str) -> dict[str, float | None]:
    """COCO's figures, AP at each IoU, and AP50 lost to each kind of errors."""
    results = folder / f"{data.name}-{split}.json"
    command = [sys.executable, "-m", "mobiledet", "eval", str(folder / "best.pt"), "--data", str(data)]
    options = ["--split", split, "--results", str(results), "--threads", "1", "--workers", "1"]
    subprocess.run([*command, *options], check=True, capture_output=True)
    truth, found = open_split(data, split).coco_json(), json.loads(results.read_text(encoding="utf-8"))
    metrics, matching = score_detections(truth, found).to_json_dict(), match_detections(truth, found)
    figures = {key: metrics[key] for key in FIGURES}
    by_iou = precision_of(matching).by_class()
    figures |= {f"AP{100 * iou:.0f}": mean_known(row) for iou, row in zip(IOU_THRESHOLDS, by_iou, strict=True)}
    costs = ErrorAnalysis(matching).costs()
    return figures | {kind.label: float(cost) for kind, cost in zip(KINDS, costs, strict=True)}


def mean_of(figures: Sequence[Mapping[str, float | None]], key: str) -> float | None:
    """The mean of a figure where it is defined; None where it never is."""
    known = [value for one in figures if (value := one[key]) is not None]
    return statistics.mean(known) if known else None


def print_tables(folder: Path) -> None:
    """What was measured: a change a row, the mean over its seeds, and its gain over the recipe."""
    results: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for file in sorted(folder.glob("*.json")):
        one = json.loads(file.read_text(encoding="utf-8"))
        data, change = one["data"], one["change"]
        results[data][change].append(one)
    if not results:
        raise DataError(f"nothing was measured in {str(folder)!r}; name a recipe to train")
    processors = {one["processor"] for changes in results.values() for ones in changes.values() for one in ones}
    print(f"\nprocessor: {', '.join(sorted(processors))}")
    columns = [*FIGURES, *(f"AP{100 * iou:.0f}" for iou in IOU_THRESHOLDS if iou not in (0.5, 0.75))]
    columns += [kind.label for kind in KINDS]
    means: dict[str, dict[str, dict[str, float | None]]] = {}
    for data, changes in results.items():
        print_header(f"\n## {data}\n\n", ["change", "runs", "CPU s", *columns])
        means[data] = {}
        for change, ones in sorted(changes.items(), key=lambda item: item[0] != UNCHANGED):
            mean = {key: mean_of([one["figures"] for one in ones], key) for key in columns}
            seconds = statistics.mean(one["cpu_seconds"] for one in ones)
            cells = ["" if (value := mean[key]) is None else f"{100 * value:.1f}" for key in columns]
            print_row([change, str(len(ones)), f"{seconds:.0f}", *cells])
            means[data][change] = mean
    print_header("\n## gain in points of AP\n\n", ["change", *results, "mean", "mean AP75", "keep"])
    for change in dict.fromkeys(change for by_change in means.values() for change in by_change if change != UNCHANGED):
        gains, gains75 = (
            {
                data: 100 * ((by[change][key] or 0) - (by[UNCHANGED][key] or 0))
                for data, by in means.items()
                if {change, UNCHANGED} <= by.keys()
            }
            for key in ("AP", "AP75")
        )
        if not gains:
            continue
        gain, gain75 = statistics.mean(gains.values()), statistics.mean(gains75.values())
        kept = len(gains) == len(results) and gain > 0 and min(gains.values()) >= -MOST_LOST
        cells = [f"{gains[data]:+.1f}" if data in gains else "" for data in results]
        print_row([change, *cells, f"{gain:+.1f}", f"{gain75:+.1f}", "yes" if kept else "no"])


def print_header(title: str, names: Sequence[str]) -> None:
    """A title and the head of a Markdown table."""
    print(title, end="")
    print_row(names)
    print_row(["---"] * len(names))


def print_row(cells: Sequence[str]) -> None:
    """A row of it."""
    print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    run_and_exit(main)

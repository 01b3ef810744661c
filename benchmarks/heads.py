r"""Milliseconds of every head in one run: in PyTorch beside torchvision's, and exported, at every width, with AP.

    python benchmarks/heads.py pytorch --threads 1 --rounds 15 --json heads.json
    python benchmarks/heads.py export runs/heads --data path/to/bccd --checkpoints runs/*/1/best.pt
    python benchmarks/heads.py time runs/heads --images path/to/images --threads 1 2
    python benchmarks/heads.py report runs/heads --charts docs/images

``pytorch``: from an image of 480x640 uint8 pixels to detections in its pixels, for 80 classes. Weights are random,
which only matters for non-maximum suppression. Memory is the peak of a process of its own (from /proc, so on Linux),
less that of one that only imports PyTorch.

``export`` writes the checkpoints, as far as there is one for a head and a width, for ONNX Runtime, OpenVINO and LiteRT,
in float32 and INT8, and scores the latter on the data; what has no checkpoint gets random weights, and no AP. ``time``
takes them all in turns, in another order each round, so that a slow moment of the machine hits all of them; a turn is
one call that isn't counted and some that are, its median is kept. ``report`` prints the tables and draws AP over
milliseconds, of what was measured.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mobiledet.cli.common import existing, run_and_exit, thread_count
from mobiledet.utils.files import write_json, write_text
from mobiledet.utils.machine import describe_machine

OURS = (
    "configs/ssd_mobilenet_a1.py",
    "configs/ssdlite_mobilenet_a1.py",
    "configs/fpn_mobilenet_a1.py",
    "configs/faster_rcnn_mobilenet_a1_light.py",
    "configs/faster_rcnn_mobilenet_a1_300.py",
    "configs/faster_rcnn_mobilenet_a1_600.py",
)
PEERS = ("ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn")

COLORS = {"ssd": "blue", "ssdlite": "green", "fpn": "orange", "faster_rcnn": "red"}
"""Heads, with the colour of each in the charts."""

ALPHAS = (0.25, 0.5, 0.75, 1.0)
SIZE = (320, 320)
FORMATS = {"onnx": "ONNX Runtime", "openvino": "OpenVINO", "litert": "LiteRT"}
ENDS = {"onnx": ".onnx", "openvino": "_openvino", "litert": ".tflite"}
PRECISIONS = ("float32", "int8")
THRESHOLD = 0.3
"""Minimum score of what is detected while time is measured, as one would show it."""

IDLE = 0.06
"""Seconds between turns, in which the threads of ONNX Runtime stop waiting for the next call."""

Detect = Callable[[NDArray[np.uint8]], Any]

Models = dict[tuple[str, float], dict[tuple[str, str], dict[str, Any]]]
"""Head and alpha, then format and precision, to what was measured."""


def build(name: str) -> Detect:
    """A call from image to detections, by one of our configs or torchvision's detectors, for 80 classes."""
    import torch

    torch.manual_seed(0)
    if name in PEERS:
        from torchvision.models import get_model

        model = get_model(name, weights=None, weights_backbone=None, num_classes=81).eval()

        def detect(image: NDArray[np.uint8]) -> Any:
            with torch.inference_mode():
                return model([torch.from_numpy(image).permute(2, 0, 1).float() / 255])

        return detect
    from mobiledet.config import load_config
    from mobiledet.models.build import build_detector
    from mobiledet.runtime.detector import Detector
    from mobiledet.runtime.pytorch import PyTorchBackend, model_card

    config = load_config(name).model.model_copy(update={"num_classes": 80})
    model = build_detector(config)
    return Detector(PyTorchBackend(model, model_card(model, [str(label) for label in range(80)])))


def cost(name: str) -> float:
    """Billions of multiply-adds of the image."""
    import torch

    from mobiledet.models.cost import count_layers

    if name in PEERS:
        from torchvision.models import get_model

        model = get_model(name, weights=None, weights_backbone=None, num_classes=81)
        layers = count_layers(model, lambda x: model(list(x)), (480, 640))
    else:
        from mobiledet.config import load_config
        from mobiledet.models.build import build_detector

        detector = build_detector(load_config(name).model.model_copy(update={"num_classes": 80}), weights_follow=True)
        layers = count_layers(detector, lambda x: detector(x.to(torch.uint8)), (480, 640))
    return sum(layer.mult_adds for layer in layers) / 1e9


def peak_memory(name: str | None, threads: int, image: NDArray[np.uint8], answer: Any) -> None:
    """Put this process's peak memory in MiB, after three images, into ``answer``."""
    import torch
    import torchvision

    torch.set_num_threads(threads)
    assert torchvision.ops is not None
    if name is not None:
        detect = build(name)
        for _ in range(3):
            detect(image)
    # Not getrusage: its peak begins with that of the process this one was started from.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    answer.put(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def time_in_pytorch(arguments: argparse.Namespace) -> None:
    """Our heads beside torchvision's detectors, with random weights: milliseconds and memory."""
    import torch

    torch.set_num_threads(arguments.threads)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    names = [*OURS, *PEERS]
    detectors = {name: build(name) for name in names}
    times: dict[str, list[float]] = {name: [] for name in names}
    for round_ in range(arguments.rounds + 2):
        for name, detect in detectors.items():
            start = time.perf_counter()
            detect(image)
            if round_ >= 2:  # the first rounds warm up
                times[name].append(1e3 * (time.perf_counter() - start))
        print(f"round {round_ + 1}", end="\r", file=sys.stderr)

    context = multiprocessing.get_context("spawn")

    def memory(name: str | None) -> float:
        answer: Any = context.Queue()
        process = context.Process(target=peak_memory, args=(name, arguments.threads, image, answer))
        process.start()
        found: float = answer.get(timeout=300)
        process.join()
        return found

    base = memory(None)
    print(f"{arguments.threads} thread(s), {arguments.rounds} rounds, PyTorch {torch.__version__}")
    print(f"memory beyond the {base:.0f} MiB of importing PyTorch")
    print(f"{'':42}{'GMACs':>7}{'median ms':>11}{'fastest':>9}{'slowest':>9}{'MiB':>6}")
    figures = {}
    for name in names:
        found = {
            "gmacs": round(cost(name), 3),
            "median_ms": round(statistics.median(times[name]), 1),
            "fastest_ms": round(min(times[name]), 1),
            "slowest_ms": round(max(times[name]), 1),
            "memory_mib": round(memory(name) - base),
        }
        figures[name] = found
        print(
            f"{name:42}{found['gmacs']:7.2f}{found['median_ms']:11.1f}{found['fastest_ms']:9.1f}"
            f"{found['slowest_ms']:9.1f}{found['memory_mib']:6}"
        )
    if arguments.json is not None:
        text = {
            "threads": arguments.threads,
            "rounds": arguments.rounds,
            "torch": torch.__version__,
            "figures": figures,
        }
        arguments.json.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")


def write_exports(arguments: argparse.Namespace) -> None:
    """Write what isn't there yet of every head, width, format and precision; INT8 is scored where it was trained."""
    from mobiledet.data.opening import open_split
    from mobiledet.exporters.base import ExportOptions
    from mobiledet.exporters.exporting import export_model

    dataset = open_split(arguments.data, arguments.split)
    images = open_split(arguments.data, "train")
    calibration = [images[index].path for index in range(len(images))]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    trained = {_kind_of(path): path for path in arguments.checkpoints}
    for head in arguments.heads:
        for alpha in arguments.alphas:
            source = trained.get((head, alpha))
            for format, precision, path in exports(arguments.folder, head, alpha):
                if path.exists() or (head == "faster_rcnn" and format == "litert"):  # which can't hold one
                    continue
                print(f"{path.name}, {source or 'random weights'}", flush=True)
                options = ExportOptions(
                    format=format,
                    int8=precision == "int8",
                    calibration=calibration if precision == "int8" else (),
                    images=calibration[:4],
                    dataset=dataset if source is not None and precision == "int8" else None,
                    force=True,
                    threads=1,
                )
                export_model(source or random_checkpoint(arguments.folder, head, alpha, calibration), path, options)


def exports(folder: Path, head: str, alpha: float) -> Iterator[tuple[str, str, Path]]:
    """Format, precision and path of every file of a detector."""
    for format, end in ENDS.items():
        for precision in PRECISIONS:
            yield format, precision, folder / f"{head}-{alpha:g}-{precision}{end}"


def _kind_of(checkpoint: Path) -> tuple[str, float]:
    from mobiledet.config import config_from_plain
    from mobiledet.weights.checkpoint import load_checkpoint

    model = config_from_plain(load_checkpoint(checkpoint)["config"]).model
    return model.head.kind, float(model.backbone.model_dump()["alpha"])


def random_checkpoint(folder: Path, head: str, alpha: float, images: list[Path]) -> Path:
    """A detector of three classes with random weights, its norms adapted to some images; written once."""
    import torch

    from mobiledet.config import apply_overrides, load_config
    from mobiledet.data.images import read_image
    from mobiledet.models.build import build_detector
    from mobiledet.preprocess import fit_image
    from mobiledet.weights.checkpoint import save_checkpoint

    path = folder / f"{head}-{alpha:g}-random.pt"
    if path.exists():
        return path
    torch.manual_seed(0)
    recipe = "faster_rcnn_mobilenet_a1_light" if head == "faster_rcnn" else "finetune_ssd"
    settings = [f"model.input_size={SIZE[0]},{SIZE[1]}", f"model.backbone.alpha={alpha}", "model.num_classes=3"]
    if head != "faster_rcnn":
        settings.append(f"model.head.kind={head}")
    config = apply_overrides(load_config(recipe), [*settings, "model.match_aspect=false", "model.init=null"])
    model = build_detector(config.model)
    with torch.no_grad():
        # Without it activations fade away with depth, down to numbers that processors are slow with.
        for norm in (layer for layer in model.eval().modules() if isinstance(layer, torch.nn.BatchNorm2d)):
            norm.train().momentum = 1.0
        fitted = np.stack([fit_image(read_image(image), model.resize)[0] for image in images[:16]])
        model.candidates(torch.from_numpy(fitted).permute(0, 3, 1, 2))
    categories = [{"id": number, "name": f"class {number}"} for number in (1, 2, 3)]
    state = {"config": config.plain(), "categories": categories, "model": model.state_dict(), "ema": None, "epoch": 0}
    save_checkpoint(path, state)
    return path


def time_exports(arguments: argparse.Namespace) -> None:
    """Milliseconds of every file there is, with its costs and scores, into ``measured.json`` beside them."""
    from mobiledet.data.images import find_images, read_image
    from mobiledet.exporters.agreement import AgreementReport
    from mobiledet.runtime.detector import Detector

    images = [read_image(path) for path in find_images([arguments.images])[:16]]
    found = [
        {"head": head, "alpha": alpha, "format": format, "precision": precision, "path": path, "ms": {}}
        for head in COLORS
        for alpha in ALPHAS
        for format, precision, path in exports(arguments.folder, head, alpha)
        if path.exists()
    ]
    rows: list[dict[str, Any]] = [dict(row) for row in found]
    order = random.Random(0)
    drift = {}
    for threads in arguments.threads:
        detectors = [Detector(row["path"], threads=threads, score_threshold=THRESHOLD) for row in rows]
        times: list[list[float]] = [[] for _ in rows]
        for number in range(arguments.rounds + 1):
            print(f"{threads} threads, round {number} of {arguments.rounds}", end="\r", file=sys.stderr)
            for index in order.sample(range(len(rows)), len(rows)):
                taken = time_turn(detectors[index], images, arguments.calls)
                if number:  # the first round warms up
                    times[index].append(taken)
                if threads > 1:
                    time.sleep(IDLE)
        for row, mine in zip(rows, times, strict=True):
            row["ms"][str(threads)] = [round(float(value), 3) for value in np.quantile(mine, (0.25, 0.5, 0.75))]
        medians = [statistics.median(mine) for mine in times]
        pace = [statistics.median(b / m for b, m in zip(r, medians, strict=True)) for r in zip(*times, strict=True)]
        drift[str(threads)] = round(max(pace) / min(pace) - 1, 3)
        for row, detector in zip(rows, detectors, strict=True):
            row |= {"gmacs": round(detector.card.gmacs, 4), "params": detector.card.params}
    for row in rows:
        path = row.pop("path")
        report = AgreementReport.read(path)
        row["file"], row["ap"] = path.name, None if report is None else report.ap
    about = {
        "machine": describe_machine(),
        "command": sys.argv,
        "rounds": arguments.rounds,
        "calls": arguments.calls,
        "drift": drift,
    }
    write_json(arguments.folder / "measured.json", {**about, "rows": rows})
    print_report(arguments)


def time_turn(detect: Detect, images: list[NDArray[np.uint8]], calls: int) -> float:
    """Median milliseconds of some calls, after one that isn't counted."""
    detect(images[-1])
    taken = []
    for call in range(calls):
        start = time.perf_counter()
        detect(images[call % len(images)])
        taken.append(1e3 * (time.perf_counter() - start))
    return statistics.median(taken)


def print_report(arguments: argparse.Namespace) -> None:
    """The tables of what was measured, in Markdown; and the charts."""
    measured = json.loads((arguments.folder / "measured.json").read_text(encoding="utf-8"))
    kinds = [(format, precision) for format in FORMATS for precision in PRECISIONS]
    models: Models = {}
    for row in measured["rows"]:
        models.setdefault((row["head"], row["alpha"]), {})[row["format"], row["precision"]] = row
    heading = [f"{FORMATS[format]} {precision}" for format, precision in kinds]
    for threads in measured["drift"]:
        print(
            f"\n{threads} thread(s), ms: median (quartiles); pace of rounds within {measured['drift'][threads]:.0%}\n"
        )
        print_row(["head", "alpha", "GMACs", "M parameters", *heading])
        print_row(["---"] * (4 + len(kinds)))
        for (head, alpha), files in models.items():
            cells = []
            for kind in kinds:
                low, median, high = files[kind]["ms"][threads] if kind in files else (0, 0, 0)
                cells.append(f"{median:.1f} ({low:.1f}-{high:.1f})" if kind in files else "")
            first = next(iter(files.values()))
            print_row([f"`{head}`", f"{alpha:g}", f"{first['gmacs']:.3f}", f"{first['params'] / 1e6:.2f}", *cells])
    print("\nAP in points, and what INT8 gains on it\n")
    print_row(["head", "alpha", "checkpoint", *FORMATS.values()])
    print_row(["---"] * (3 + len(FORMATS)))
    for (head, alpha), files in models.items():
        scores = {format: row["ap"] for (format, _), row in files.items() if row["ap"]}
        if scores:
            cells = [f"{scores[format]['difference']:+.2f}" if format in scores else "" for format in FORMATS]
            print_row([f"`{head}`", f"{alpha:g}", f"{next(iter(scores.values()))['checkpoint']:.1f}", *cells])
    if getattr(arguments, "charts", None) is not None:
        for format in FORMATS:
            draw_chart(models, format, arguments.charts / f"heads-{format}.svg")


def print_row(cells: list[str]) -> None:
    """A row of a Markdown table."""
    print("|", " | ".join(cells), "|")


def draw_chart(models: Models, format: str, path: Path) -> None:
    """AP over milliseconds on one thread in one runtime: a curve a head and precision, a point a width."""
    from mobiledet.draw.svg import Curve, curve_chart, svg_file

    curves = []
    for head, color in COLORS.items():
        for precision, score in (("float32", "checkpoint"), ("int8", "model")):
            files = [found for (kind, _), found in models.items() if kind == head and (format, "int8") in found]
            scored = [(found[format, precision], found[format, "int8"]["ap"]) for found in files]
            scored = [(row, ap) for row, ap in scored if ap]
            curves.append(
                Curve(
                    f"{head}, {precision}",
                    [row["ms"]["1"][1] for row, _ in scored],
                    [ap[score] for _, ap in scored],
                    color,
                    width=1.5,
                    dots=True,
                    dashed=precision == "float32",
                    labels=[f"{row['alpha']:g}" for row, _ in scored],
                )
            )
    curves = [curve for curve in curves if curve.x]
    points = [y for curve in curves for y in curve.y]
    chart = curve_chart(
        curves,
        across=f"milliseconds of an image in {FORMATS[format]}, one thread",
        up="AP",
        title=f"AP over milliseconds of each head and alpha in {FORMATS[format]}",
        x_range=(0, 1.08 * max(x for curve in curves for x in curve.x)),
        y_range=(min(points) // 5 * 5, max(points) // 5 * 5 + 5),
    )
    write_text(path, svg_file(chart))


def main() -> None:
    """Parse arguments, and measure or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    pytorch = commands.add_parser("pytorch", help="in PyTorch, beside torchvision's detectors")
    pytorch.add_argument("--threads", type=thread_count, default=1)
    pytorch.add_argument("--rounds", type=int, default=15)
    pytorch.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    pytorch.set_defaults(run=time_in_pytorch)
    export = commands.add_parser("export", help="write and score the exported files")
    export.add_argument("folder", type=Path)
    export.add_argument(
        "--data", type=existing, required=True, help="to measure INT8's ranges on (train), and to score"
    )
    export.add_argument("--split", default="test", help="what is scored on (default: %(default)s)")
    export.add_argument("--checkpoints", type=existing, nargs="*", default=[], help="trained detectors")
    export.add_argument("--heads", nargs="+", choices=COLORS, default=list(COLORS))
    export.add_argument("--alphas", nargs="+", type=float, choices=ALPHAS, default=ALPHAS)
    export.set_defaults(run=write_exports)
    timed = commands.add_parser("time", help="take turns, and write measured.json")
    timed.add_argument("folder", type=existing)
    timed.add_argument("--images", type=existing, required=True, help="to detect in")
    timed.add_argument("--threads", type=thread_count, nargs="+", default=[1])
    timed.add_argument("--rounds", type=int, default=11)
    timed.add_argument("--calls", type=int, default=3, help="of a turn (default: %(default)s)")
    timed.set_defaults(run=time_exports)
    report = commands.add_parser("report", help="print what was measured")
    report.add_argument("folder", type=existing)
    report.add_argument("--charts", type=existing, metavar="FOLDER", help="draw AP over milliseconds here, as SVG")
    report.set_defaults(run=print_report)
    arguments = parser.parse_args()
    arguments.run(arguments)


if __name__ == "__main__":
    run_and_exit(main)

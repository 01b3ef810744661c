"""One image through both heads and torchvision's small detectors: milliseconds and memory, in one run.

python benchmarks/heads.py --threads 1 --rounds 15 --json heads.json

From an image of 480x640 uint8 pixels to detections in its pixels, for 80 classes. Weights are random, which only
matters for non-maximum suppression. The detectors take turns, so that a slow moment of the machine hits all of them;
memory is the peak of a process of its own (from
/proc, so on Linux), less that of one that only imports PyTorch.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

OURS = (
    "configs/ssd_mobilenet_a1.py",
    "configs/ssdlite_mobilenet_a1.py",
    "configs/fpn_mobilenet_a1.py",
    "configs/faster_rcnn_mobilenet_a1_light.py",
    "configs/faster_rcnn_mobilenet_a1_300.py",
    "configs/faster_rcnn_mobilenet_a1_600.py",
)
PEERS = ("ssdlite320_mobilenet_v3_large", "fasterrcnn_mobilenet_v3_large_320_fpn")

Detect = Callable[[NDArray[np.uint8]], Any]


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


def main() -> None:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    arguments = parser.parse_args()
    if arguments.threads < 1 or arguments.rounds < 3:
        parser.error("--threads must be at least 1, --rounds at least 3")

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


if __name__ == "__main__":
    main()

"""Training speed of SSD-300, alpha 1: our loop, the same network in a plain float32 loop, and end to end.

    python benchmarks/train_speed.py --data path/to/coco --split train --json train_speed.json

Three ways to train, and reading without training, in turn within one run, several rounds each, so that a drifting
machine is fair to all:

- plain:      the same network and optimiser, float32, contiguous (NCHW), one batch kept in memory; no EMA, no
              clipping, no guard against non-finite steps.
- ours:       our step (bfloat16 where the processor has it, channels-last, EMA, clipping, guard), same batch.
- end to end: our step with images read from disk, decoded and augmented by worker processes.
- reading:    the images of end to end, read by one process on one core: what feeds a GPU, core by core.

A network is no peer of itself, so torchvision's ssdlite320_mobilenet_v3_large is trained beside them (float32, its own
losses, one batch in memory), to say where this stands; it is another network of 0.6 GMACs at 320 pixels.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mobiledet.cli.common import run_and_exit
from mobiledet.utils.files import refuse_existing


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="COCO-format folder (default: 64 generated images of 480x640)")
    parser.add_argument("--split", default="train")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6, help="steps of each way in each round")
    parser.add_argument("--no-peer", action="store_true", help="leave torchvision's network out")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    refuse_existing(arguments.json)

    from mobiledet.utils.files import write_json

    with tempfile.TemporaryDirectory() as folder:
        data, split = arguments.data, arguments.split
        if data is None:
            from mobiledet.data.shapes import generate_shapes

            data = generate_shapes(Path(folder) / "shapes", train=64, val=1, size=(480, 640))
            split = "train"
        result = measure(data, split, arguments, Path(folder))
    print(table(result))
    if arguments.json is not None:
        write_json(arguments.json, result)


def measure(data: Path, split: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Images a second of each way, round by round."""
    import cv2
    import torch

    from mobiledet.config import apply_overrides, load_config
    from mobiledet.data.opening import open_data
    from mobiledet.models.build import build_detector
    from mobiledet.training.complete import complete
    from mobiledet.training.loop import train_step
    from mobiledet.training.run import Run
    from mobiledet.training.stopping import StopRequest

    config = apply_overrides(
        load_config(Path(__file__).resolve().parent.parent / "configs/ssd_mobilenet_a1.py"),
        [
            f"data.root={data}",
            f"data.train_split={split}",
            "data.val_split=none",
            f"data.workers={arguments.workers}",
            f"schedule.batch_size={arguments.batch_size}",
        ],
    )
    train, _ = open_data(config.data)
    config = complete(config, train)
    run = Run(config=config, folder=folder, train=train, val=None, stop=StopRequest())
    run.model.train()
    config = apply_overrides(config, ["data.workers=0"])
    reader = Run(config=config, folder=folder, train=train, val=None, stop=StopRequest())
    cv2.setNumThreads(0)

    def endless(run: Run) -> Iterator[Any]:
        epoch = 0
        while True:
            run.sampler.start(epoch)
            yield from run.batches
            epoch += 1

    stream, read_here = endless(run), endless(reader)
    batch = next(stream)
    plain = build_detector(config.model, weights_follow=True)
    optimizer = torch.optim.SGD(plain.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    images, targets = batch.images.contiguous(), batch.target_tensors()

    def plain_step() -> None:
        losses = plain(images, targets)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def our_step() -> None:
        train_step(run.trainer, [batch])

    def full_step() -> None:
        train_step(run.trainer, [next(stream)])

    def read() -> None:
        next(read_here)

    ways: dict[str, Callable[[], None]] = {
        "plain": plain_step,
        "ours": our_step,
        "end to end": full_step,
        "reading": read,
    }
    if not arguments.no_peer:
        ways["torchvision ssdlite320"] = peer_step(train.num_classes, arguments.batch_size)
    for step in ways.values():  # warm-up
        step()
        step()
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, step in ways.items():
            if name == "end to end":
                # Batches read ahead while the others ran would be free; use them up first.
                for _ in range(3 * max(1, arguments.workers)):
                    next(stream)
            start = time.perf_counter()
            for _ in range(arguments.steps):
                step()
            seconds = time.perf_counter() - start
            speeds[name].append(arguments.batch_size * arguments.steps / seconds)
    return {
        "precision": run.precision.name,
        "threads": run.threads,
        "workers": arguments.workers,
        "batch_size": arguments.batch_size,
        "pictures": f"{len(train)} of {train.annotation_file}",
        "images_per_second": speeds,
        "ours_over_plain": ratios(speeds["ours"], speeds["plain"]),
        "end_to_end_over_ours": ratios(speeds["end to end"], speeds["ours"]),
    }


def peer_step(num_classes: int, batch_size: int) -> Callable[[], None]:
    """A training step of torchvision's SSDlite on one batch in memory."""
    import torch
    from torchvision.models.detection import ssdlite320_mobilenet_v3_large

    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=num_classes + 1).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-4)
    images = [torch.rand(3, 320, 320) for _ in range(batch_size)]
    targets = [{"boxes": torch.tensor([[20.0, 30, 200, 250]]), "labels": torch.tensor([1])} for _ in images]

    def step() -> None:
        loss = sum(model(images, targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def ratios(above: list[float], below: list[float]) -> dict[str, float]:
    """Median and range of the ratio, round by round."""
    each = [a / b for a, b in zip(above, below, strict=True)]
    return {"median": statistics.median(each), "min": min(each), "max": max(each)}


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [
        f"SSD-300 alpha 1, batch {result['batch_size']}, {result['precision']}, {result['threads']} threads, "
        f"{result['workers']} workers; {result['pictures']}",
        f"{'':24}  img/s median (min to max)",
    ]
    for name, speeds in result["images_per_second"].items():
        lines.append(f"{name:24}  {statistics.median(speeds):6.1f} ({min(speeds):.1f} to {max(speeds):.1f})")
    for key, label in (("ours_over_plain", "ours / plain"), ("end_to_end_over_ours", "end to end / ours")):
        ratio = result[key]
        lines.append(f"{label:24}  {ratio['median']:6.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})")
    return "\n".join(lines)


if __name__ == "__main__":
    run_and_exit(main)

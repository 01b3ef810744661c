"""How well several processes share a training: calculated from a step's time and the network's speed, or measured here.

    python benchmarks/scaling.py ssd_mobilenet_a1 --step-ms 95
    python benchmarks/scaling.py ssd_mobilenet_a1 --data path/to/data --rounds 3 model.input_size=224

With a data set trainings of an epoch are measured in turn: one process with one thread, one with two, two with one. Of
the calculation nothing is measured but the size of the gradients. A ring all-reduce of G bytes over N processes moves
2 G (N - 1) / N bytes through each one's connection, which takes as long as the slowest connection needs, and 2 (N - 1)
times its latency. `DistributedDataParallel` begins while the backward pass, about two thirds of a step, goes on: only
what lasts longer than half of that counts. Every process takes a part of the batch as large as the time belongs to.
"""

from __future__ import annotations

import argparse
import csv
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

NETWORKS = {
    "NVLink, 300 GB/s": (300e9, 5e-6),
    "PCIe 4 x16, 20 GB/s": (20e9, 10e-6),
    "100 Gbit/s": (100e9 / 8, 20e-6),
    "25 Gbit/s": (25e9 / 8, 30e-6),
    "10 Gbit/s": (10e9 / 8, 50e-6),
    "1 Gbit/s": (1e9 / 8, 100e-6),
}
"""Bytes a second, and seconds until the first arrives: usual figures, not measured ones."""

PROCESSES = (1, 2, 4, 8, 16, 32, 64)
WAYS = ((1, 1), (1, 2), (2, 1))
"""Processes and threads of each, measured with --data."""

OVERLAPPED = 1 / 3
"""Share of a step in which the exchange costs nothing: half of the backward pass."""


def efficiency(processes: int, step: float, gradient: int, speed: float, latency: float) -> float:
    """Images a second of all processes, as a share of so many times those of one."""
    exchange = 2 * (processes - 1) * (gradient / processes / speed + latency)
    return step / (step + max(0.0, exchange - OVERLAPPED * step))


def measure(recipe: str, settings: list[str], data: Path, rounds: int) -> None:
    """Train an epoch in each way, in turn, and print images a second of all processes, from ``timing.csv``."""
    speeds: dict[tuple[int, int], list[tuple[float, float]]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for processes, threads in WAYS:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, str(REPOSITORY / "tools" / "train.py"), recipe, f"data.root={data}"]
                command += ["data.val_split=none", "schedule.epochs=1", "name=run", f"train.output={folder}"]
                command += [f"train.devices={processes}", f"train.threads={threads}", *settings]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
                rows = list(csv.DictReader((Path(folder) / "run/1/timing.csv").open()))
                exchange = max(float(row["communicating"]) for row in rows)
                speeds[processes, threads].append((float(rows[0]["images_per_second"]), exchange))
    for (processes, threads), measured in speeds.items():
        each = [speed for speed, _ in measured]
        print(
            f"{processes} process{'es' * (processes > 1):2} of {threads} thread{'s' * (threads > 1):1}"
            f"{statistics.median(each):8.1f} img/s ({min(each):.1f} to {max(each):.1f})"
            f"  {statistics.median(share for _, share in measured):6.1%} of the time in communication"
        )


def main() -> None:
    """Measure, or count the parameters and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="such as ssd_mobilenet_a1")
    parser.add_argument("settings", nargs="*", help="key=value, for what is measured")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--step-ms", type=float, help="of one process with its part of the batch")
    what.add_argument("--data", type=Path, help="data set to train on")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--classes", type=int, default=80)
    arguments = parser.parse_intermixed_args()
    if arguments.data is not None:
        measure(arguments.recipe, arguments.settings, arguments.data.resolve(), arguments.rounds)
        return

    from mobiledet.config import apply_overrides, load_config
    from mobiledet.models.build import build_detector

    config = apply_overrides(load_config(arguments.recipe), [f"model.num_classes={arguments.classes}"])
    gradient = 4 * sum(parameter.numel() for parameter in build_detector(config.model).parameters())
    print(f"{arguments.recipe}: gradients of {gradient / 1e6:.1f} MB, steps of {arguments.step_ms:g} ms")
    print(f"{'processes':<22}" + "".join(f"{count:>6}" for count in PROCESSES))
    for name, (speed, latency) in NETWORKS.items():
        shares = [efficiency(count, arguments.step_ms / 1e3, gradient, speed, latency) for count in PROCESSES]
        print(f"{name:<22}" + "".join(f"{share:>6.0%}" for share in shares))


if __name__ == "__main__":
    main()

"""Training speed with the cores to itself and beside a busy program, by how OpenMP's threads wait for each other.

    python benchmarks/threads.py --seconds 30 --rounds 2 --json threads.json

Each way trains the fine-tuning recipe on generated images, read by its worker processes, in a process of its own; all
take turns, so that a drifting machine is fair to all. "busy" has one endless loop running beside it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from mobiledet.cli.common import new_file, run_and_exit
from mobiledet.utils.files import write_json
from mobiledet.utils.text import table

WAYS: dict[str, dict[str, str]] = {
    "GOMP_SPINCOUNT=300000 (GCC's default)": {"GOMP_SPINCOUNT": "300000"},
    **{f"GOMP_SPINCOUNT={count}": {"GOMP_SPINCOUNT": str(count)} for count in (10_000, 2_000, 1_000)},
    "OMP_WAIT_POLICY=passive": {"OMP_WAIT_POLICY": "passive"},
}

TRAIN = """
import sys, time
import mobiledet
seconds, data, output = float(sys.argv[1]), sys.argv[2], sys.argv[3]
times = []
def on_step(row):
    times.append((time.perf_counter(), row["images"]))
    return times[-1][0] - times[0][0] < seconds
settings = {"data.root": data, "train.output": output, "model.init": None, "schedule.epochs": 1000,
            "schedule.val_every": 1000, "model.match_aspect": False, "model.input_size": (300, 300)}
mobiledet.train("finetune_ssd", settings, on_step=on_step)
print(sum(images for _, images in times[1:]) / (times[-1][0] - times[0][0]))
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30, help="of training, each time (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=new_file, metavar="FILE")
    arguments = parser.parse_args()

    from mobiledet.data.shapes import generate_shapes

    speeds: dict[str, dict[str, list[float]]] = {way: {"quiet": [], "busy": []} for way in WAYS}
    with tempfile.TemporaryDirectory() as folder:
        data = generate_shapes(Path(folder) / "shapes", train=200, val=2, size=(480, 640))
        for _ in range(arguments.rounds):
            for load in ("quiet", "busy"):
                for way, variables in WAYS.items():
                    speeds[way][load].append(train(data, Path(folder), arguments.seconds, variables, load == "busy"))
    rows = [["images a second", "quiet", "busy"]]
    for way, found in speeds.items():
        rows.append([way, *(f"{statistics.median(found[load]):.1f}" for load in ("quiet", "busy"))])
    print("\n".join(table(rows)))
    if arguments.json is not None:
        write_json(arguments.json, speeds)


def train(data: Path, folder: Path, seconds: float, variables: dict[str, str], busy: bool) -> float:
    """Images a second of one way."""
    loop = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
    try:
        done = subprocess.run(
            [sys.executable, "-c", TRAIN, str(seconds), str(data), str(folder / "runs")],
            env={**os.environ, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
    finally:
        if loop is not None:
            loop.kill()
            loop.wait()
    return float(json.loads(done.stdout))


if __name__ == "__main__":
    run_and_exit(main)

"""AP against minutes of training, several runs in one chart.

    python benchmarks/compare_runs.py runs/a/1 runs/b/1 -o compare.png --labels "from COCO" "from nothing"

Minutes are those of `timing.csv`: training, reading and scoring, on the machine that trained.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from mobiledet.cli.common import run_and_exit
from mobiledet.errors import DataError
from mobiledet.utils.files import refuse_existing


def main() -> None:
    """Parse arguments, print the table, draw the chart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("-o", "--output", type=Path, required=True, help="chart to write, .png or .svg")
    parser.add_argument("--labels", nargs="+", help="names of the runs (default: their folders)")
    arguments = parser.parse_args()
    labels = arguments.labels or [str(run) for run in arguments.runs]
    if len(labels) != len(arguments.runs):
        parser.error(f"{len(arguments.runs)} runs but {len(labels)} labels")
    if arguments.output.suffix not in (".png", ".svg"):
        parser.error("the chart must be .png or .svg")
    refuse_existing(arguments.output)
    curves = [read_curve(run) for run in arguments.runs]
    for label, curve in zip(labels, curves, strict=True):
        best = max(curve, key=lambda point: point[1])
        print(f"{label}: best AP {best[1]:.3f} after {best[0]:.1f} of {curve[-1][0]:.1f} minutes")
    draw(arguments.output, labels, curves)


def read_curve(run: Path) -> list[tuple[float, float]]:
    """(minutes, AP) of every scoring of a run."""
    from mobiledet.utils.files import read_csv

    seconds, minutes_at = 0.0, {}
    for row in read_csv(run / "timing.csv"):
        seconds += float(row["seconds"]) if row.get("rank", "0") == "0" else 0
        minutes_at[row["epoch"]] = seconds / 60
    results = read_csv(run / "results.csv")
    points = [(minutes_at[row["epoch"]], float(row["val/AP"])) for row in results if row.get("val/AP")]
    if not points:
        raise DataError(f"{run}: no scored epoch; name the folder of a run with a validation split")
    return points


def draw(path: Path, labels: list[str], curves: list[list[tuple[float, float]]]) -> None:
    """One line a run, its best point marked."""
    from matplotlib.figure import Figure

    from mobiledet.draw.figures import save_figure

    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.add_subplot(title="AP on the validation split", xlabel="minutes of training", ylabel="AP")
    axes.grid(alpha=0.3)
    for label, curve in zip(labels, curves, strict=True):
        minutes, values = zip(*curve, strict=True)
        (line,) = axes.plot(minutes, values, "o-", markersize=3, label=f"{label}: {max(values):.3f}")
        best = values.index(max(values))
        axes.plot(minutes[best], values[best], "o", markersize=7, color=line.get_color())
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.legend(loc="lower right")
    save_figure(figure, path, dpi=120)


if __name__ == "__main__":
    run_and_exit(main)

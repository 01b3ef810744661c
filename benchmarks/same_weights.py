"""Weights after an epoch in one, two and four processes, in float32 and in float64: what differs is rounding alone.

    python benchmarks/same_weights.py path/to/data

Training multiplies differences of rounding: in float32 two threads instead of one end elsewhere, too. So everything is
done in float64 as well, which the package itself has no setting for; there a difference in the recipe would stay, and
one of rounding be a hundred million times smaller. Batch-norm sees the whole batch (``train.sync_norm``).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

SETTINGS = (
    "data.limit=160 data.val_split=none data.workers=0 schedule.epochs=1 schedule.batch_size=8 model.input_size=128"
)
SETTINGS += " train.precision=float32 train.sync_norm=true schedule.warmup_steps=5 name=run"
WAYS = {"1 process": (1, 1), "2 processes": (2, 1), "4 processes": (4, 1), "1 process of 2 threads": (1, 2)}

# The real program; in float64 also where it asks for float32, but for IoU, whose bits are looked at as integers.
PROGRAM = """
import runpy, sys, torch
sys.path.insert(0, {repository!r})
if {double}:
    import mobiledet.training.run as training
    build, to_float32 = training.build_detector, torch.Tensor.float
    training.build_detector = lambda *given, **named: build(*given, **named).double()
    def to_float64(tensor):
        return tensor.double() if tensor.requires_grad or tensor.dtype == torch.uint8 else to_float32(tensor)
    torch.Tensor.float = to_float64
sys.argv[0] = {program!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def weights(program: Path, recipe: str, data: Path, processes: int, threads: int) -> dict[str, Any]:
    """Those at the end of a training."""
    from mobiledet.weights.checkpoint import load_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable]
        if processes > 1:
            command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        command += [str(program), recipe, f"data.root={data}", f"train.output={folder}", f"train.threads={threads}"]
        variables = os.environ | {"OMP_NUM_THREADS": str(threads)}
        subprocess.run([*command, *SETTINGS.split()], check=True, env=variables, capture_output=True)
        model: dict[str, Any] = load_checkpoint(Path(folder) / "run/1/last.pt")["model"]
        return model


def main() -> None:
    """Train in every way, print how far the weights are from those of one process."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--recipe", default="ssd_mobilenet_a025", help="(default: %(default)s)")
    arguments = parser.parse_args()
    print("relative difference to one process: of all weights (of the tensor that differs most)")
    for double in (False, True):
        with tempfile.TemporaryDirectory() as folder:
            program = Path(folder) / "program.py"
            text = PROGRAM.format(repository=str(REPOSITORY), double=double, program=str(REPOSITORY / "tools/train.py"))
            program.write_text(text, encoding="utf-8")
            reference: dict[str, Any] = {}
            for name, (processes, threads) in WAYS.items():
                found = weights(program, arguments.recipe, arguments.data.resolve(), processes, threads)
                reference = reference or found
                floats = [key for key, value in found.items() if value.is_floating_point()]
                apart = {key: float((found[key] - reference[key]).double().norm()) for key in floats}
                sizes = {key: float(reference[key].double().norm()) for key in floats}
                whole = sum(x**2 for x in apart.values()) ** 0.5 / sum(x**2 for x in sizes.values()) ** 0.5
                most = max(apart[key] / (sizes[key] + 1e-12) for key in floats)
                print(f"{'float64' if double else 'float32'}  {name:<24}{whole:.1e} ({most:.1e})", flush=True)


if __name__ == "__main__":
    main()

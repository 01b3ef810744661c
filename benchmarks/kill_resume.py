"""Kill trainings at random moments, resume them, and see that the result is that of one never interrupted.

    python benchmarks/kill_resume.py --kills 20 --seed 0
    python benchmarks/kill_resume.py --kills 20 --seed 0 --processes 2
    python benchmarks/kill_resume.py --kills 10 --seed 0 --processes 2 --signal INT

Every kill is SIGKILL to the whole process group: nothing gets a chance to clean up. A third of them come at any
moment, a third aim at the writing of a checkpoint (its temporary file is there), a third at scoring. A run that is
finished before the kills are used up is compared, and another one started. Compared are weights, averages, the
optimiser's memory, position and random states, bit by bit, and results.csv; and no temporary file and no process may
be left. Checkpoints are written twice a second rather than every ten minutes, so that most kills fall into an epoch
that is then resumed in its middle. With --processes torchrun trains in several, one of which is killed each time;
torchrun starts them again, and nobody resumes anything. With --signal INT or TERM the run is stopped as by Ctrl-C or by
a system that shuts down (here several processes are those of train.devices); it must then end by itself, with the
status that says so. Exit status: 0, or 1 when anything differs.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

TIMEOUT = 900.0
LOOK_SECONDS = 0.0005
NAME = "kill_resume"
RECIPE = f"""
from mobiledet.config import *
config = Config(
    name={NAME!r},
    model=ModelConfig(backbone=BackboneConfig(alpha=0.25), input_size=(96, 128)),
    data=DataConfig(workers=2, augment=AugmentConfig.light()),
    optimizer=OptimizerConfig(name="adamw", lr=3e-3),
    schedule=ScheduleConfig(batch_size=8, warmup_steps=20),
    train=TrainConfig(device="cpu", threads=1, precision="float32", ema_decay=0.99),
)
"""

# The real program, made to save often and to say when it scores.
PROGRAM = """
import runpy, sys
sys.path.insert(0, {repository!r})
import mobiledet.training.run as fit
fit.SAVE_SECONDS = 0.5
score = fit.Run._score
def announced(run):
    print("scoring begins", file=sys.stderr, flush=True)
    try:
        return score(run)
    finally:
        print("scoring ends", file=sys.stderr, flush=True)
fit.Run._score = announced
sys.argv[0] = {program!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@dataclass
class Tally:
    """What happened.

    Attributes:
        killed: Kills by what the training was doing.
        resumes: How often a run was taken up again.
        started_over: How often there was no run yet to take up.
        finished: Runs trained to their end and compared.
        differences: What was wrong; empty is good.
    """

    killed: Counter[str] = field(default_factory=Counter)
    resumes: int = 0
    started_over: int = 0
    finished: int = 0
    differences: list[str] = field(default_factory=list)

    @property
    def kills(self) -> int:
        """All of them."""
        return sum(self.killed.values())


class Training:
    """``tools/train.py`` with its workers, in a process group of its own; in several ``processes`` under torchrun."""

    def __init__(self, words: list[str], log: Path, processes: int = 1, restarts: int = 0) -> None:
        self.log = log
        self.started = time.time()
        self.log_start = log.stat().st_size if log.exists() else 0
        program = PROGRAM.format(repository=str(REPOSITORY), program=str(REPOSITORY / "tools" / "train.py"))
        command = [sys.executable, "-c", program]
        if processes > 1:
            script = log.with_name("program.py")
            script.write_text(program, encoding="utf-8")
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            command += [f"--max-restarts={restarts}", str(script)]
        with log.open("a") as file:
            self.process = subprocess.Popen(
                [*command, *words],
                cwd=REPOSITORY,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether it hasn't ended by itself."""
        return self.process.poll() is None

    def scoring(self) -> bool:
        """Whether its last word is that scoring begins."""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            text = file.read()
        return text.rfind(b"scoring begins") > text.rfind(b"scoring ends")

    def stop(self, by: signal.Signals) -> list[str]:
        """Stop it as Ctrl-C, a system that shuts down or the kernel does; return what is wrong with its end."""
        if by == signal.SIGTERM:
            self.process.terminate()
        else:
            os.killpg(self.process.pid, by)
        status = self.process.wait(timeout=TIMEOUT)
        # A shell says 128 more than the signal for both; 0: it was at its end.
        expected = (-by,) if by == signal.SIGKILL else (128 + by, -by, 0)
        wrong = [] if status in expected else [f"signal {by} ended it with status {status}"]
        end = time.monotonic() + 2
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.01)
        return wrong + [f"process {pid} survived" for pid in left]

    def processes(self) -> list[int]:
        """All that still work on it, zombies left out; the folder of the runs is in their command lines."""
        found = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if os.fsencode(self.log.parent) in path.read_bytes():
                    found.append(int(path.parent.name))
            except OSError:  # ended meanwhile
                continue
        return found

    def ranks(self) -> dict[int, int]:
        """The process of each rank; without those that are just being started."""
        found = {}
        for path in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/").glob("children"):
            for pid in map(int, path.read_text().split()):
                try:
                    variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
                except OSError:  # ended meanwhile
                    continue
                found.update({int(word[5:]): pid for word in variables if word.startswith(b"RANK=")})
        return found

    def wait(self) -> None:
        """Wait for its end; anything but success is the end of the benchmark."""
        status = self.process.wait(timeout=TIMEOUT)
        if status != 0:
            last_words = "\n".join(self.log.read_text(errors="replace").splitlines()[-30:])
            raise SystemExit(f"training ended with status {status}; the end of {self.log}:\n{last_words}")


def saving(folder: Path, since: float) -> bool:
    """Whether a checkpoint is being written; what a kill before ``since`` left behind doesn't count."""
    return any(_written(path) > since for path in folder.glob(".*.pt.*.tmp"))


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def next_folder(output: Path) -> Path:
    """Where a new run will be."""
    taken = [int(path.name) for path in (output / NAME).glob("[0-9]*")]
    return output / NAME / str(max(taken, default=0) + 1)


def wait_for_moment(training: Training, folder: Path, aim: str, rng: random.Random, longest: float) -> bool:
    """Wait until the kill is due; False when training ended before."""
    skip = rng.randrange(4)  # of the moments aimed at, so that not always the first is hit
    due = time.monotonic() + rng.uniform(0, longest)
    before = False
    while training.running:
        if aim == "any":
            now = time.monotonic() >= due
        else:
            now = saving(folder, training.started) if aim == "saving" else training.scoring()
            skip -= now and not before
        if now and (aim == "any" or skip < 0):
            time.sleep({"any": 0, "saving": 0.004, "scoring": 0.2}[aim] * rng.random())
            return training.running
        before = now
        time.sleep(LOOK_SECONDS if aim == "saving" else 0.005)
    return False


def compare(folder: Path, reference: Path) -> list[str]:
    """What differs between a finished run and the uninterrupted one."""
    from mobiledet.utils.files import file_digest
    from mobiledet.weights.checkpoint import load_checkpoint

    found = []
    for name in ("last.pt", "best.pt"):
        one, other = load_checkpoint(folder / name), load_checkpoint(reference / name)
        for key in sorted({*one, *other}):
            if not same(one.get(key), other.get(key)):
                found.append(f"{folder}: {name}: {key} differs")
    if (folder / "results.csv").read_bytes() != (reference / "results.csv").read_bytes():
        found.append(f"{folder}: results.csv differs")
    if file_digest(folder / "best.pt") not in (folder / "metrics.json").read_text():
        found.append(f"{folder}: metrics.json belongs to other weights than best.pt")
    found += [f"{path} was left behind" for path in folder.rglob("*.tmp")]
    return found


def same(one: Any, other: Any) -> bool:
    """Whether nested plain data and tensors are equal, bit by bit."""
    import torch

    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(x, y) for x, y in zip(one, other, strict=True))
    return bool(one == other)


def kill_and_resume(
    words: list[str],
    output: Path,
    reference: Path,
    kills: int,
    rng: random.Random,
    longest: float,
    by: signal.Signals,
    aims: tuple[str, ...],
) -> Tally:
    """Train run after run, killing and resuming, until the kills are used up; finish and compare every run."""
    tally = Tally()
    folder, begun = next_folder(output), False
    log = output / "log.txt"
    while True:
        training = Training(["--resume", str(folder)] if begun else words, log)
        aim = rng.choice(aims)
        if tally.kills < kills and wait_for_moment(training, folder, aim, rng, longest):
            doing = "saving" if saving(folder, training.started) else "scoring" if training.scoring() else "elsewhere"
            tally.differences += training.stop(by)
            tally.killed[doing] += 1
            begun = (folder / "config.json").exists()
            if begun:
                tally.resumes += 1
            else:
                tally.started_over += 1
                folder = next_folder(output)
            print(f"kill {tally.kills}: aimed at {aim}, was {doing} ({folder.name})", flush=True)
            continue
        training.wait()
        if left := training.processes():
            tally.differences.append(f"processes {left} outlived their training")
        tally.finished += 1
        tally.differences += compare(folder, reference)
        if tally.kills >= kills:
            return tally
        folder, begun = next_folder(output), False


def kill_ranks(
    words: list[str], output: Path, reference: Path, kills: int, rng: random.Random, longest: float, processes: int
) -> Tally:
    """Train run after run in several processes, killing one of them again and again; compare every run."""
    tally = Tally()
    while True:
        folder = next_folder(output)
        training = Training(words, output / "log.txt", processes, restarts=kills)
        while tally.kills < kills:
            aim = rng.choice(("any", "saving", "scoring"))
            if not wait_for_moment(training, folder, aim, rng, longest):
                break
            doing = "saving" if saving(folder, training.started) else "scoring" if training.scoring() else "elsewhere"
            ranks, rank = training.ranks(), rng.randrange(processes)
            if rank not in ranks:
                continue
            os.kill(ranks[rank], signal.SIGKILL)
            tally.killed[doing] += 1
            tally.resumes += 1
            print(f"kill {tally.kills}: process {rank}, aimed at {aim}, was {doing} ({folder.name})", flush=True)
            while training.running and training.ranks().get(rank) in (ranks[rank], None):
                time.sleep(0.05)
        training.wait()
        if left := training.processes():
            tally.differences.append(f"processes {left} outlived their training")
        tally.finished += 1
        # A run killed before it had begun leaves an empty folder behind, and the next one is another.
        last = max((path for path in (output / NAME).iterdir()), key=lambda path: int(path.name))
        tally.differences += compare(last, reference)
        if tally.kills >= kills:
            return tally


def main() -> int:
    """Train once undisturbed, then with kills; print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="how many (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="decides the moments (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=8, help="length of a run (default: %(default)s)")
    parser.add_argument("--images", type=int, default=240, help="images to train on (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=1, help="that train together (default: %(default)s)")
    parser.add_argument(
        "--longest-delay",
        type=float,
        default=12.0,
        metavar="SECONDS",
        help="until a kill at any moment; importing takes some three, and kills shall fall there, too (%(default)s)",
    )
    parser.add_argument("--signal", choices=("KILL", "INT", "TERM"), default="KILL", help="(default: %(default)s)")
    arguments = parser.parse_args()
    by, torchrun = signal.Signals[f"SIG{arguments.signal}"], arguments.processes > 1 and arguments.signal == "KILL"

    from mobiledet.data.shapes import generate_shapes

    with tempfile.TemporaryDirectory(prefix="mobiledet-kill-") as name:
        base = Path(name)
        os.environ["MOBILEDET_CACHE"] = str(base / "cache")
        val = max(4, arguments.images // 5)
        root = generate_shapes(base / "shapes", train=arguments.images, val=val, size=(96, 128), seed=1)
        recipe = base / "recipe.py"
        recipe.write_text(RECIPE, encoding="utf-8")
        output = base / "runs"
        words = [str(recipe), f"data.root={root}", f"schedule.epochs={arguments.epochs}", f"train.output={output}"]
        if not torchrun:
            words.append(f"train.devices={arguments.processes}")
        output.mkdir()
        begin = time.monotonic()
        reference = next_folder(output)
        Training(words, output / "log.txt", arguments.processes if torchrun else 1).wait()
        print(f"undisturbed run: {time.monotonic() - begin:.1f} s", flush=True)
        rng = random.Random(arguments.seed)
        if torchrun:
            tally = kill_ranks(
                words, output, reference, arguments.kills, rng, arguments.longest_delay, arguments.processes
            )
        else:
            # The processes of train.devices aren't those that say when they score.
            aims = ("any", "saving", "scoring") if arguments.processes == 1 else ("any", "saving")
            tally = kill_and_resume(words, output, reference, arguments.kills, rng, arguments.longest_delay, by, aims)

    print(f"\n{'kills':<34}{tally.kills:>4}")
    for doing in ("saving", "scoring", "elsewhere"):
        print(f"{'  while ' + doing:<34}{tally.killed[doing]:>4}")
    print(f"{'resumed':<34}{tally.resumes:>4}")
    print(f"{'killed before the run had begun':<34}{tally.started_over:>4}")
    print(f"{'runs finished and compared':<34}{tally.finished:>4}")
    print(f"{'identical to the undisturbed run':<34}{'no' if tally.differences else 'yes':>4}")
    for difference in tally.differences:
        print(f"  {difference}")
    return 1 if tally.differences else 0


if __name__ == "__main__":
    sys.exit(main())

"""Several processes of torchrun on this machine, over gloo."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
from processes import gone

from mobiledet.config import Config, apply_overrides, load_config
from mobiledet.errors import ConfigError
from mobiledet.training.distributed import ProcessGroup
from mobiledet.training.start import resume_run, start_run
from mobiledet.utils.files import read_csv
from mobiledet.weights.checkpoint import load_checkpoint

RECIPE = """
from mobiledet.config import *
config = Config(
    name="tiny",
    model=ModelConfig(backbone=BackboneConfig(alpha=0.25), input_size=(64, 80)),
    data=DataConfig(augment=AugmentConfig.light(), workers=1),
    optimizer=OptimizerConfig(name="sgd", lr=0.02),
    schedule=ScheduleConfig(epochs=2, batch_size=4, warmup_steps=2),
    train=TrainConfig(precision="float32", device="cpu", threads=1, ema_decay=0.9),
)
"""

# Gradients of a batch, half of it in each process; the second half has no objects.
GRADIENTS = """
import sys
import torch
from mobiledet.config import Config, apply_overrides
from mobiledet.models.build import build_detector
from mobiledet.models.distributed import synchronise_norms
from mobiledet.training.distributed import ProcessGroup

def gradients(processes, head, out):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    words = ["model.backbone.alpha=0.25", "model.input_size=[64,80]", "model.num_classes=2", *head.split()]
    model = build_detector(apply_overrides(Config(), words).model).train()
    synchronise_norms(model, torch.device("cpu"))
    images = (torch.rand(4, 3, 64, 80) * 255).byte()
    boxes = torch.tensor([[5.0, 6, 40, 50], [20, 10, 70, 60]])
    targets = [{"boxes": boxes[:count], "labels": torch.tensor([1, 2])[:count]} for count in (2, 1, 0, 0)]
    mine = range(processes.rank * 2, processes.rank * 2 + 2) if processes.size > 1 else range(4)
    call = processes.parallel(model, torch.device("cpu"))
    losses = call(images[list(mine)], [targets[index] for index in mine])
    sum(losses.values()).backward()
    means = processes.mean({name: float(value.detach()) for name, value in losses.items()})
    if processes.is_first:
        torch.save((means, {name: p.grad for name, p in model.named_parameters()}, dict(model.named_buffers())), out)

if __name__ == "__main__":
    processes = ProcessGroup()
    with processes.connected():
        gradients(processes, sys.argv[1], sys.argv[2])
"""

# The real program, in which one process of the first attempt kills itself in its fifth step.
KILLED = """
import os, signal, sys
from pathlib import Path
import mobiledet.training.run as run
from mobiledet.cli.main import main
step, flag = run.train_one_epoch.__globals__["train_step"], Path(sys.argv.pop(1))
def killed(trainer, group):
    killed.steps += 1
    if os.environ["RANK"] == "1" and not flag.exists() and killed.steps == 5:
        flag.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return step(trainer, group)
killed.steps = 0
run.train_one_epoch.__globals__["train_step"] = killed
main()
"""

# A training in which something of the program's own fails in the second process, after its second step.
FAILING = """
import os, sys
import mobiledet
from mobiledet import errors
from mobiledet.cli.common import run_and_exit

def on_step(values):
    if os.environ["RANK"] == "1" and values["step"] == 2:
        raise getattr(errors, sys.argv[1])("the disk is full")

_, _, recipe, root, output = sys.argv[1:]
run_and_exit(lambda: mobiledet.train(recipe, dict([root.split("="), output.split("=")]), on_step=on_step) and 0)
"""


@pytest.fixture(scope="module", autouse=True)
def _one_thread_each():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


def torchrun(*words, restarts=0):
    """The command that starts two processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return [*command, "--max-restarts", str(restarts), *map(str, words)]


def finished(command, after_epoch=None):
    """Status and messages of a command; ``after_epoch`` is called with its process after the first epoch."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        watch = threading.Timer(240, process.kill)
        watch.start()
        messages = ""
        for line in process.stderr:
            messages += line
            if after_epoch is not None and line.startswith("epoch 1/2"):
                after_epoch(process)
        watch.cancel()
    return process.returncode, messages


@pytest.fixture(scope="module")
def words(tiny_shapes, tmp_path_factory):
    recipe = tmp_path_factory.mktemp("recipe") / "tiny.py"
    recipe.write_text(RECIPE)
    return lambda output: ["train", str(recipe), f"data.root={tiny_shapes}", f"train.output={output}"]


@pytest.fixture(scope="module")
def undisturbed(words, tmp_path_factory):
    """The run folder of two processes that nobody disturbed, and their messages."""
    output = tmp_path_factory.mktemp("undisturbed")
    status, messages = finished(torchrun("-m", "mobiledet", *words(output)))
    assert status == 0, messages
    return output / "tiny" / "1", messages


def content(folder):
    """What two runs must have in common."""
    last = load_checkpoint(folder / "last.pt")
    tensors = {f"{part}.{name}": value for part in ("model", "ema") for name, value in last[part].items()}
    return tensors, last["optimizer"]["state"], (folder / "results.csv").read_text()


def assert_same(folder, expected):
    for found, wanted in zip(content(folder), content(expected), strict=True):
        torch.testing.assert_close(found, wanted, rtol=0, atol=0) if isinstance(found, dict) else None
        assert isinstance(found, dict) or found == wanted


@pytest.mark.parametrize("head", ["model.head.kind=ssd", "model.head.kind=faster_rcnn"])
def test_losses_and_gradients_are_those_of_the_whole_batch(tmp_path, head):
    program, alone, shared = tmp_path / "program.py", tmp_path / "alone.pt", tmp_path / "shared.pt"
    program.write_text(GRADIENTS)
    scope: dict = {"__name__": "gradients"}
    exec(GRADIENTS, scope)
    scope["gradients"](ProcessGroup(), head, alone)
    status, messages = finished(torchrun(program, head, shared))
    assert status == 0, messages
    assert "UserWarning" not in messages
    if "ssd" not in head:  # its proposals are sampled at random
        losses, gradients, _ = torch.load(shared)
        assert losses.keys() == torch.load(alone)[0].keys()
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        return
    for found, wanted in zip(torch.load(shared), torch.load(alone), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_two_processes_train_and_one_speaks(undisturbed):
    folder, messages = undisturbed
    assert messages.count("epoch 2/2") == 1
    assert [(row["epoch"], row["rank"]) for row in read_csv(folder / "timing.csv")] == [
        *(("1", "0"), ("1", "1")),
        *(("2", "0"), ("2", "1")),
    ]
    best = load_checkpoint(folder / "best.pt")
    assert best["config"]["schedule"]["batch_size"] == 4


def test_a_killed_process_is_started_again_and_nothing_is_lost(undisturbed, words, tmp_path):
    program, flag = tmp_path / "killed.py", tmp_path / "flag"
    program.write_text(KILLED)
    status, messages = finished(torchrun(program, flag, *words(tmp_path / "runs"), restarts=1))
    assert flag.exists()
    assert status == 0, messages
    assert [path.name for path in (tmp_path / "runs" / "tiny").iterdir()] == ["1"]
    assert_same(tmp_path / "runs" / "tiny" / "1", undisturbed[0])


def test_a_training_that_ends_in_int8_is_that_of_one_process(words, tmp_path):
    settings = ["train.quantize=true", "train.sync_norm=true"]
    status, messages = finished(torchrun("-m", "mobiledet", *words(tmp_path / "two"), *settings))
    assert status == 0, messages
    _, recipe, *overrides = words(tmp_path / "one")
    start_run(apply_overrides(load_config(recipe), [*overrides, *settings]))
    one, two = (tmp_path / output / "tiny" / "1" for output in ("one", "two"))
    for key in ("loss/classification", "loss/box", "val_loss/box"):
        values = [[float(row[key]) for row in read_csv(folder / "results.csv")] for folder in (one, two)]
        assert values[0] == pytest.approx(values[1], rel=0.005)
    ranges = [load_checkpoint(folder / "best.pt")["ranges"] for folder in (one, two)]
    assert ranges[0].keys() == ranges[1].keys()
    for name, bounds in ranges[0].items():
        assert bounds == pytest.approx(ranges[1][name], rel=0.02, abs=0.02)


@pytest.mark.parametrize("error", ["DataError", "WorkerError", "TrainingError"])
def test_an_error_in_another_process_saves_what_one_process_would_save(words, tmp_path, error):
    program = tmp_path / "failing.py"
    program.write_text(FAILING)
    status, messages = finished(torchrun(program, error, *words(tmp_path / "runs")))
    assert (status, messages.count("error: ")) == (1, 1), messages
    assert "process 1: error: the disk is full" in messages
    last = tmp_path / "runs" / "tiny" / "1" / "last.pt"
    assert last.exists() == (error != "TrainingError")
    if last.exists():
        assert load_checkpoint(last)["training"]["progress"]["step"] == 2


@pytest.mark.slow
def test_a_run_of_two_goes_on_in_one(undisturbed, words, tmp_path, caplog):
    """From the same sample; what may differ is said."""
    _, log = finished(torchrun("-m", "mobiledet", *words(tmp_path)), lambda process: process.send_signal(signal.SIGINT))
    folder = tmp_path / "tiny" / "1"
    before = load_checkpoint(folder / "last.pt")["training"]["progress"]
    assert (before["finished"], before["epoch"]) == (False, 1), log
    assert resume_run(folder) == 0
    assert "2 processes" in caplog.text
    one, two = (read_csv(path / "results.csv") for path in (folder, undisturbed[0]))
    assert one[0] == two[0]
    assert float(one[1]["loss/box"]) == pytest.approx(float(two[1]["loss/box"]), rel=0.1)


@pytest.mark.slow
def test_an_image_that_vanishes_stops_all_and_costs_nothing(undisturbed, words, tiny_shapes, tmp_path):
    import shutil

    root = shutil.copytree(tiny_shapes, tmp_path / "shapes")
    recipe = words(tmp_path / "runs")
    recipe[2] = f"data.root={root}"
    images = sorted((root / "train").iterdir())

    def remove(_process):
        for image in images:
            image.rename(image.with_suffix(".away"))

    status, messages = finished(torchrun("-m", "mobiledet", *recipe), remove)
    assert status == 1
    assert messages.count("error: ") == 1
    for image in images:
        image.with_suffix(".away").rename(image)
    folder = tmp_path / "runs" / "tiny" / "1"
    status, messages = finished(torchrun("-m", "mobiledet", "train", "--resume", folder))
    assert status == 0, messages
    assert_same(folder, undisturbed[0])


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_command_stops_all_processes(undisturbed, words, tmp_path, number):
    command = [sys.executable, "-m", "mobiledet", *words(tmp_path), "train.devices=2"]
    children = []

    def stop(process):
        children.extend(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split())
        os.kill(process.pid, number)

    status, _ = finished(command, stop)
    assert status == 128 + number
    time.sleep(0.5)
    assert len(children) >= 2
    assert all(map(gone, children))
    folder = tmp_path / "tiny" / "1"
    status, messages = finished(torchrun("-m", "mobiledet", "train", "--resume", folder))
    assert status == 0, messages
    assert_same(folder, undisturbed[0])


def test_a_batch_that_cannot_be_split_is_refused_with_the_nearest(monkeypatch):
    for name, value in {"RANK": "0", "WORLD_SIZE": "3", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"batch_size=16 .* 3 processes; the nearest is 15"):
        ProcessGroup().check(apply_overrides(Config(), ["schedule.batch_size=16"]))


def test_several_devices_are_the_commands_affair(tiny_shapes, tiny_config, tmp_path):
    with pytest.raises(ConfigError, match=r"train.devices=2"):
        start_run(tiny_config(tiny_shapes, f"train.output={tmp_path / 'runs'}", "train.devices=2"))
    assert not (tmp_path / "runs").exists()

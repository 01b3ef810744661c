"""The real program gets real signals, as a terminal, a shell or a service manager sends them."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mobiledet.weights.checkpoint import load_checkpoint

SETTINGS = [
    "model.backbone.alpha=0.25",
    "model.input_size=(64, 80)",
    "schedule.batch_size=2",
    "schedule.epochs=10",
    "schedule.val_every=10",
    "data.workers=2",
    "train.device=cpu",
    "train.precision=float32",
    "train.threads=1",
]


def processes():
    """Every process: id -> (parent's id, state)."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text()
        except OSError:  # ended meanwhile
            continue
        fields = text.rpartition(")")[2].split()
        found[int(path.parent.name)] = (int(fields[1]), fields[0])
    return found


def children(pid):
    return {child for child, (parent, _) in processes().items() if parent == pid}


def alive(pids):
    return {pid for pid, (_, state) in processes().items() if pid in pids and state != "Z"}


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError(f"not within {seconds} s")


class Training:
    """``tools/train.py`` in a process group of its own, its messages in a file."""

    def __init__(self, checkout, output, *arguments):
        self.messages = output / f"messages-{time.monotonic_ns()}.txt"
        with self.messages.open("w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "tools/train.py", *(str(word) for word in arguments)],
                cwd=checkout,
                stderr=file,
                stdout=file,
                start_new_session=True,
            )

    def text(self):
        return self.messages.read_text()

    def send(self, number, *, group):
        (os.killpg if group else os.kill)(self.process.pid, number)

    def wait(self):
        return self.process.wait(timeout=60)


@pytest.fixture
def start(tiny_shapes, tmp_path, checkout):
    started = []

    def begin(*arguments):
        where = (f"data.root={tiny_shapes}", f"train.output={tmp_path}")
        words = arguments or ("configs/quickstart.py", *where, *SETTINGS)
        training = Training(checkout, tmp_path, *words)
        started.append(training)
        return training

    yield begin
    for training in started:
        if training.process.poll() is None:
            os.killpg(training.process.pid, signal.SIGKILL)
            training.process.wait()


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "quickstart" / "1"


def in_the_midst(training, folder):
    """Wait until it trains; return its workers."""

    def training_has_begun():
        assert training.process.poll() is None, training.text()
        return (folder / "train_batch.jpg").exists() and children(training.process.pid)

    return wait_for(training_has_begun)


@pytest.mark.parametrize(
    ("number", "group", "status"),
    [
        (signal.SIGINT, True, 130),  # Ctrl-C in a terminal
        (signal.SIGTERM, False, 143),  # kill
        (signal.SIGTERM, True, 143),  # service managers and batch systems ask every process
    ],
    ids=["ctrl-c", "kill", "kill-group"],
)
def test_one_signal_saves_and_stops(start, folder, number, group, status):
    training = start()
    workers = in_the_midst(training, folder)
    training.send(number, group=group)
    assert training.wait() == status
    text = training.text()
    assert "Traceback" not in text
    assert text.count("saving, then exiting") == 1
    assert f"--resume {folder}" in text
    progress = load_checkpoint(folder / "last.pt")["training"]["progress"]
    assert (progress["finished"], progress["step"] > 0) == (False, True)
    wait_for(lambda: not alive(workers), 10)
    assert not [path for path in folder.iterdir() if path.name.endswith(".tmp")]

    if number == signal.SIGINT:
        resumed = start("--resume", folder)
        assert resumed.wait() == 0, resumed.text()
        after = load_checkpoint(folder / "last.pt")["training"]["progress"]
        assert (after["finished"], after["step"]) == (True, 60)


def test_two_signals_exit_at_once(start, folder):
    training = start()
    workers = in_the_midst(training, folder)
    training.send(signal.SIGINT, group=True)
    wait_for(lambda: "saving, then exiting" in training.text(), 20)
    training.send(signal.SIGTERM, group=False)
    begun = time.monotonic()
    assert training.wait() == 143  # the second one's; after saving it would be the first one's, 130
    assert time.monotonic() - begun < 2
    assert "stopped and saved" not in training.text()
    wait_for(lambda: not alive(workers), 15)  # they notice within some seconds that their parent is gone


def test_a_killed_run_leaves_no_process(start, folder):
    training = start()
    workers = in_the_midst(training, folder)
    training.send(signal.SIGKILL, group=False)
    assert training.wait() == -signal.SIGKILL
    wait_for(lambda: not alive(workers), 15)


# Takes a second to save, and ends at once when it is asked twice.
SLOW_TOOL = """
import os, signal, sys, time
from pathlib import Path
asked = []
def handle(number, frame):
    if asked:
        os._exit(99)
    asked.append(number)
signal.signal(signal.SIGINT, handle)
signal.signal(signal.SIGTERM, handle)
Path(sys.argv[1], "begun").touch()
while not asked:
    time.sleep(0.01)
time.sleep(1)
Path(sys.argv[1], "saved").touch()
sys.exit(128 + asked[0])
"""

QUICKSTART = """
import sys
from mobiledet.cli.commands.quickstart import run_step
sys.exit(run_step(sys.executable, *sys.argv[1:]))
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_the_quickstart_lets_its_training_save(tmp_path, number, status):
    (tmp_path / "slow.py").write_text(SLOW_TOOL)
    command = [sys.executable, "-c", QUICKSTART, str(tmp_path / "slow.py"), str(tmp_path)]
    with subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL) as process:
        wait_for((tmp_path / "begun").exists)
        os.killpg(process.pid, number)
        assert process.wait(30) == status
    assert (tmp_path / "saved").exists()

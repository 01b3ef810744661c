"""Nothing leaves the machine unasked, by no library that a command loads, and nothing is left in the home folder."""

import os
import sys

import pytest
from network import run_watched
from programs import process_state_kept

from mobiledet.cli.main import COMMANDS
from mobiledet.config import apply_overrides, load_config
from mobiledet.data.shapes import generate_shapes
from mobiledet.exporters.base import ExportOptions
from mobiledet.exporters.exporting import export_model
from mobiledet.training.start import start_run

RECIPE = """
from mobiledet.config import *
config = Config(
    model=ModelConfig(backbone=BackboneConfig(alpha=0.25), input_size=(64, 80)),
    data=DataConfig(root="data", workers=1),
    schedule=ScheduleConfig(epochs=1, batch_size=2),
    train=TrainConfig(threads=1, device="cpu", precision="float32", loggers=["tensorboard"]),
)
"""

LEFT = {".cache/mobiledet", ".cache/matplotlib"}
"""What may be found in the home folder afterwards: caches that docs/command-line.md names."""

CASES = [
    ["train tiny.py", "eval runs/tiny/1"],
    [
        "check data --model run",
        "convert data -o coco",
        "convert data -o crops --crops",
        "make-shapes shapes --train 2 --val 2",
    ],
    ["export run -o int8.onnx --int8 --calibration data/val --force"],
    ["export run -o ov --format openvino --int8 --calibration data/val --force", "predict ov data/val -o out"],
    ["export run -o ncnn --format ncnn", "predict ncnn data/val -o out"],
    ["predict run data/val -o out", "predict model.onnx data/val -o out2 --save-crops", "configs", "weights list"],
    ["benchmark run model.onnx --peers all --rounds 1 --calls 1 --starts 1 --html bench.html"],
    [
        "webcam --model model.onnx --source data/val --no-window --serve 0 --save out.mp4 --report card.json",
        "fps-card card.json -o card.html",
        "cost tiny.py --chart cost.png",
    ],
]

CALLED_FOR = {"download-coco": "it fetches, as asked", "quickstart": "it runs the other commands"}


def test_every_command_is_watched():
    watched = {line.split()[0] for lines in CASES for line in lines}
    assert {command.name for command in COMMANDS} == watched | set(CALLED_FOR)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("private")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        generate_shapes(folder / "data", train=4, val=4, size=(64, 80), seed=5)
        (folder / "tiny.py").write_text(RECIPE)
        with process_state_kept():
            run, status = start_run(apply_overrides(load_config("tiny.py"), ["train.output=made", "data.workers=0"]))
        assert status == 0
        run.rename(folder / "run")
        export_model("run", folder / "model.onnx", ExportOptions(threads=1))
    return folder


def watch(*command, **options):
    try:
        return run_watched([sys.executable, *command], **options)
    except OSError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("lines", CASES, ids=lambda lines: lines[0].split()[0])
def test_nothing_leaves(folder, tmp_path, monkeypatch, lines):
    for name in ("data", "run", "tiny.py", "model.onnx"):
        (tmp_path / name).symlink_to(folder / name)
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    (home / "tmp").mkdir(parents=True)
    # Libraries stay silent where they notice continuous integration; a user's machine is meant.
    silent = ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS")
    own = ("MOBILEDET_", "XDG_", "ORT_", "NO_ALBUMENTATIONS_")
    env = {name: value for name, value in os.environ.items() if name not in silent and not name.startswith(own)}
    env |= {"HOME": str(home), "TMPDIR": str(home / "tmp")}
    for line in lines:
        done, tried = watch("-m", "mobiledet", *line.split(), env=env)
        assert done.returncode in (0, 3), f"{line}: {done.stderr}"
        assert tried == [], line
        left = {"/".join(path.relative_to(home).parts[:2]) for path in home.rglob("*") if path.is_file()}
        assert left <= LEFT, line


@pytest.mark.parametrize(
    ("code", "address"),
    [
        ("socket.create_connection(('192.0.2.1', 80))", "192.0.2.1:80 "),
        ("socket.getaddrinfo('example.com', 80)", ":53 "),
        ("os.fork() or os.fork() or socket.socket(socket.AF_INET, 2).sendto(b'', ('192.0.2.1', 7))", "192.0.2.1:7 "),
        ("socket.socket(socket.AF_INET6, 2).sendmsg([b''], [], 0, ('2001:db8::1', 7))", "2001:db8::1:7 "),
        ("socket.create_connection(socket.create_server(('127.0.0.1', 0)).getsockname())", None),
    ],
)
def test_the_watch_sees(code, address):
    _, tried = watch("-c", f"import os, socket; {code}")
    assert (tried == []) if address is None else all(address in line for line in tried) and tried

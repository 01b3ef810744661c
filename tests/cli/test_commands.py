"""What all commands have in common: one module and one program each, and help without loading what is heavy."""

import json
import os
import pkgutil
import re
import subprocess
import sys

import pytest
from PIL import Image
from programs import mobiledet_in_process, process_state_kept

from mobiledet.cli import commands
from mobiledet.cli.common import run_and_exit
from mobiledet.cli.main import COMMANDS
from mobiledet.errors import DataError

NAMES = [command.name for command in COMMANDS]
HEAVY = {"torch", "cv2", "numpy", "pydantic"}

# The process's own answer, and what it has loaded to give it.
PROGRAM = """
import sys
from mobiledet.cli.main import main
try:
    main(sys.argv[1:])
finally:
    print(sorted({"torch", "cv2", "numpy", "pydantic"} & set(sys.modules)), file=sys.stderr)
"""


def answer(*words):
    """Exit status, output and messages of a command that must answer without loading what is heavy."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], capture_output=True, text=True, check=False)
    messages, _, loaded = done.stderr.rstrip("\n").rpartition("\n")
    assert loaded == "[]", messages
    return done.returncode, done.stdout, messages


@pytest.mark.parametrize("name", NAMES)
def test_help_is_quick_and_has_examples(name):
    status, out, err = answer(name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith(f"usage: mobiledet {name}")
    assert len(re.findall(rf"^    mobiledet {name}\b", out, re.MULTILINE)) >= 2


def test_half_of_what_torchrun_sets_stops_training_and_nothing_else(monkeypatch):
    monkeypatch.setenv("RANK", "x")
    status, _, err = answer("train", "quickstart")
    assert (status, "RANK=x" in err) == (1, True)
    status, out, err = answer("configs")
    assert (status, err) == (0, "")
    assert "quickstart" in out


def test_every_module_is_a_command_and_the_overview_lists_it():
    modules = {module.name.replace("_", "-") for module in pkgutil.iter_modules(commands.__path__)}
    assert modules == set(NAMES)
    status, out, err = answer("--help")
    assert (status, err) == (0, "")
    assert all(f"  {command.name} " in out and command.summary in out for command in COMMANDS)


def test_every_program_runs_a_command(checkout):
    programs = [*(checkout / "tools").glob("*.py"), checkout / "demo" / "webcam.py"]
    called = re.findall(r'run_command\("([\w-]+)"', "".join(path.read_text(encoding="utf-8") for path in programs))
    assert set(called) == set(NAMES) - {"configs"}
    assert len(called) == len(programs)


@pytest.mark.parametrize(
    ("words", "status", "expected"),
    [
        ("trian x", 2, "no command 'trian'; did you mean 'train'?"),
        ("train finetune_sd", 1, "neither a file nor a recipe: did you mean 'finetune_ssd'?"),
        ("train configs/finetune_sd.py", 1, "did you mean 'configs/finetune_ssd.py'?"),
        ("train nowhere/finetune_ssd.py", 1, "did you mean 'finetune_ssd'?"),
        ("train --resume runs/nothing", 1, "runs/nothing doesn't exist"),
        ("eval ssd_mobilenet_v1_75_coco", 1, "did you mean 'ssd_mobilenet_v1_075_coco'?"),
        ("eval README.mb", 1, "no model 'README.mb': did you mean 'README.md'?"),
        ("eval README.md --data tets", 1, "tets doesn't exist: did you mean 'tests'?"),
        (
            "predict README.md a.jpg --thresold 0.3",
            2,
            "unrecognized arguments: --thresold 0.3; did you mean '--threshold'?",
        ),
        ("predict README.md a.jpg --threshold 3", 2, "'3' is not a fraction between 0 and 1"),
        ("webcam --modle x", 2, "did you mean '--model'?"),
        ("cost ssd_mobilenet_a2", 1, "did you mean 'ssd_mobilenet_a"),
        ("benchmark --data nowhere", 1, "nowhere doesn't exist"),
    ],
)
def test_a_typo_is_answered_before_anything_heavy_is_loaded(checkout, monkeypatch, words, status, expected):
    monkeypatch.chdir(checkout)
    done = answer(*words.split())
    assert done[0] == status
    assert expected in done[2]


@pytest.mark.parametrize(
    ("answers", "width"), [([], None), (["rows=maybe"], None), (["rows=box"], 27), (["rows=polygon", "strict=1"], 4.2)]
)
def test_questions_about_labels_are_answered_on_the_command_line(tmp_path, answers, width):
    data, out = tmp_path / "data", tmp_path / "out"
    data.mkdir()
    for name in "ab":
        Image.new("RGB", (60, 40)).save(data / f"{name}.png")
        # A polygon, or a box and two points.
        (data / f"{name}.txt").write_text("0 0.4 0.4 0.45 0.4 0.47 0.45 0.4 0.45\n")
    words = [word for answer in answers for word in ("--reading", answer)]
    done = mobiledet_in_process("convert", data, "-o", out, "--val-share", 0.5, *words)
    assert done.status == (0 if width else 1), done.stderr
    if width:
        content = json.loads(next((out / "annotations").iterdir()).read_text())
        assert content["annotations"][0]["bbox"][2] == pytest.approx(width)
    else:
        assert all(answer in done.stderr for answer in ("rows", "box", "polygon"))


def test_recipes_are_listed_and_printed(checkout):
    _, out, _ = answer("configs")
    assert "finetune_ssd " in out
    assert len(out.splitlines()) == len(list((checkout / "configs").glob("*.py")))
    _, out, _ = answer("configs", "finetune_ssd")
    assert out == (checkout / "configs" / "finetune_ssd.py").read_text(encoding="utf-8")


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("main", "status", "words"),
    [
        (lambda: None, 0, ""),
        (lambda: 3, 3, ""),
        (lambda: fail(DataError("a.json is empty; name another")), 1, "error: a.json is empty; name another"),
        (lambda: fail(KeyboardInterrupt()), 130, "stopped"),
        (lambda: fail(ModuleNotFoundError(name="onnx.helper")), 1, "'onnx'"),
        (lambda: fail(ImportError("libGL.so.1: cannot open shared object file")), 1, "libgl1"),
    ],
)
def test_how_a_command_ended_becomes_the_exit_status(capsys, main, status, words):
    with process_state_kept(), pytest.raises(SystemExit) as ended:
        run_and_exit(main)
    assert ended.value.code == status
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_that_the_console_cannot_show_cost_nothing(encoding):
    code = r"from mobiledet.cli.common import run_and_exit; run_and_exit(lambda: print('\u732b \udcff') or 3)"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONIOENCODING": encoding}, capture_output=True, check=False
    )
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout.decode(encoding).strip() == (r"猫 \udcff" if encoding == "utf-8" else r"\u732b \udcff")


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["webcam", "--help"], ["configs"]])
def test_a_reader_that_goes_away_is_not_an_error(words):
    command = [sys.executable, "-m", "mobiledet", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 0


def test_a_bug_shows_its_traceback():
    with process_state_kept(), pytest.raises(ZeroDivisionError):
        run_and_exit(lambda: 1 // 0)

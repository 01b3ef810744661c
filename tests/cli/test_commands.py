"""What all commands have in common: one module and one program each, and help without loading what is heavy."""

import pkgutil
import re
import subprocess
import sys

import pytest
from programs import TOOLS, process_state_kept

from mobiledet import cli
from mobiledet.cli.common import run_tool
from mobiledet.errors import DataError

COMMANDS = {module.name for module in pkgutil.iter_modules(cli.__path__)} - {"common"}

HELP = """
import contextlib, importlib, io, sys
sys.argv = ["tool", "--help"]
with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
    importlib.import_module("mobiledet.cli." + "{}").main()
assert out.getvalue().startswith("usage: tool")
print(*({{"torch", "cv2", "numpy", "pydantic"}} & set(sys.modules)))
"""


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_loads_nothing_heavy(command):
    done = subprocess.run([sys.executable, "-c", HELP.format(command)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("\n", "")


def test_every_command_has_one_program():
    programs = [*TOOLS.glob("*.py"), TOOLS.parent / "demo" / "webcam.py"]
    called = re.findall(r"run_tool\((\w+)\.main", "".join(path.read_text(encoding="utf-8") for path in programs))
    assert sorted(called) == sorted(COMMANDS)


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
        run_tool(main)
    assert ended.value.code == status
    assert words in capsys.readouterr().err


def test_a_bug_shows_its_traceback():
    with process_state_kept(), pytest.raises(ZeroDivisionError):
        run_tool(lambda: 1 // 0)

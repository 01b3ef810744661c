"""The wheel holds what the commands need, and they run from it in any folder."""

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest


@pytest.fixture(scope="module")
def wheel(checkout, tmp_path_factory):
    """Built from a copy, for setuptools leaves files beside what it builds; without the network."""
    source, folder = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("mobiledet", "configs", "setup.py", "pyproject.toml", "README.md", "LICENSE"):
        (source / name).symlink_to(checkout / name)
    code = "import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])"
    build = [sys.executable, "-c", code, str(folder)]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = folder.glob("*.whl")
    return file


def in_the_tree(checkout, *patterns):
    return {path.relative_to(checkout).as_posix() for pattern in patterns for path in checkout.glob(pattern)}


def test_it_holds_what_the_commands_need(checkout, wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
        (entries,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "mobiledet = mobiledet.cli.main:main" in archive.read(entries).decode()
    modules = in_the_tree(checkout, "mobiledet/**/*.py")
    recipes = {f"mobiledet/{name}" for name in in_the_tree(checkout, "configs/*.py")}
    page = in_the_tree(checkout, "mobiledet/apps/live/web/page/*")
    assert recipes
    assert page
    assert held == modules | recipes | page | {"mobiledet/py.typed"}


@pytest.fixture(scope="module")
def program(wheel, tmp_path_factory):
    """Runs the installed ``mobiledet``; its environment has the wheel, and this one's other packages."""
    folder = tmp_path_factory.mktemp("mein Ördner ü")
    venv.create(folder / "venv", with_pip=False)
    python = folder / "venv" / "bin" / "python"
    ask = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--no-index", "-q", str(wheel)]
    subprocess.run(pip, check=True)
    # A plain .pth: those that it in turn names, an editable install of the checkout among them, are not followed.
    others = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("-packages"))]
    (packages / "others.pth").write_text("\n".join(dict.fromkeys(others)), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*words):
        command = [str(folder / "venv" / "bin" / "mobiledet"), *map(str, words)]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    where = [str(python), "-c", "import mobiledet; print(mobiledet.__file__)"]
    done = subprocess.run(where, cwd=folder, env=environment, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()).is_relative_to(packages)
    run.folder = folder
    return run


@pytest.mark.slow
def test_its_commands_run_in_any_folder(program):
    folder = program.folder
    assert "finetune_ssd" in program("configs")
    program("make-shapes", "shäpes", "--train", 8, "--val", 4, "--size", "72x96")
    small = (
        "data.root=shäpes",
        "data.workers=0",
        "schedule.batch_size=4",
        "schedule.epochs=1",
        "model.input_size=64,80",
    )
    program("train", "quickstart", *small)
    run = Path("runs") / "quickstart" / "1"
    assert json.loads((folder / run / "metrics.json").read_text(encoding="utf-8"))["AP"] is not None
    assert "AP" in program("eval", run, "--json", "metrics.json")
    program("predict", run, "shäpes/val", "-o", "drawn")
    assert (folder / "drawn" / "detections.json").exists()
    model = run / "best.pt"
    if find_spec("onnx") is not None and find_spec("onnxscript") is not None:
        program("export", run, "-o", "mödel.onnx", "--force")
        model = Path("mödel.onnx")
    assert write_video(folder / "clip ü.avi")
    said = program(
        "webcam", "--model", model, "--source", "clip ü.avi", "--no-window", "--max-frames", 3, "--report", "card.json"
    )
    assert "3 frames processed" in said
    program("fps-card", "card.json", "-o", "fps.html")


def write_video(path):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 72))
    for value in range(6):
        writer.write(np.full((72, 96, 3), 40 * value, np.uint8))
    writer.release()
    return path.exists()

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from mobiledet.apps.benchmark.measured import MATRIX_SIDE, About, DetectorModel, MatrixProduct
from mobiledet.apps.benchmark.measuring import Settings
from mobiledet.apps.benchmark.run import run_benchmark
from mobiledet.errors import MobiledetError

QUICK = ("--rounds", "1", "--calls", "2", "--starts", "1", "--sizes", "48x80,own")

PARENT = """
import sys
from mobiledet.apps.benchmark.measuring import Settings
from mobiledet.apps.benchmark.run import run_benchmark
from mobiledet.cli.common import run_tool
settings = Settings(rounds=9999, starts=1, command=(sys.executable, sys.argv[1]))
run_tool(lambda: run_benchmark(["steady:" + sys.argv[2], "steady"], settings) and 0)
"""


def tool(checkout, *arguments, cwd=None):
    command = [sys.executable, str(checkout / "tools" / "benchmark.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=cwd, check=False)


def children(pid):
    found = []
    for place in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = place.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(place.parent.name))
    return found


def gone(pids):
    """Whether processes have ended, within a while."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if not any(Path(f"/proc/{pid}").exists() for pid in pids):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_its_parent(tmp_path, number):
    log = tmp_path / "log"
    fake = Path(__file__).with_name("fake_worker.py")
    command = [sys.executable, "-c", PARENT, str(fake), str(log)]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as parent:
        deadline = time.monotonic() + 20
        while not log.exists() or len(log.read_text().splitlines()) < 10:
            assert time.monotonic() < deadline
            assert parent.poll() is None, parent.stderr.read()
            time.sleep(0.02)
        workers = children(parent.pid)
        assert len(workers) == 3, "two models and the matrix product"
        parent.send_signal(number)
        parent.wait(timeout=10)
        told = parent.stderr.read()
    assert gone(workers)
    if number == signal.SIGINT:
        assert (parent.returncode, told) == (130, "stopped\n")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["log"], "left behind"


def test_a_real_model(tmp_path, tiny_onnx, checkout):
    arguments = (tiny_onnx, tiny_onnx, *QUICK, "--json", tmp_path / "a.json", "--html", tmp_path / "a.html")
    done = tool(checkout, *arguments)
    assert done.returncode == 0, done.stderr
    assert "tiny.onnx (2)" in done.stdout
    plain = json.loads((tmp_path / "a.json").read_text())
    row = plain["models"][0]
    assert row["about"]["runtime"].startswith("onnxruntime")
    assert row["about"]["input_size"] == [64, 96]
    assert row["about"]["names"] == ["circle", "square", "triangle"]
    assert set(row["times"]) == {"48x80", "own"}
    assert 0 < row["stages"]["network"] < row["times"]["48x80"]["median"]
    assert row["stages"]["decode+nms"] > 0
    assert row["file_bytes"] == tiny_onnx.stat().st_size
    assert row["certificate"]["state"] == "none"
    assert row["cores"] < 1.3
    assert "<svg" in (tmp_path / "a.html").read_text()


def test_scored_with_its_own_code(tmp_path, tiny_onnx, tiny_shapes):
    settings = Settings(rounds=1, calls=1, stage_rounds=1, starts=1, sizes=((48, 80),))
    report = run_benchmark([str(tiny_onnx)], settings, data=tiny_shapes, limit=3)
    assert report.rows[0].problem is None
    assert 0 <= report.rows[0].ap < 50
    assert report.data == f"3 images of {tiny_shapes} (val)"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("", ["nothing to measure"]),
        ("a.onnx --threads 0", ["--threads is 0"]),
        ("a.onnx --rounds 0", ["--rounds is 0"]),
        ("a.onnx --calls -2", ["--calls is -2"]),
        ("a.onnx --starts 0", ["--starts is 0"]),
        ("a.onnx --timeout 0", ["--timeout is 0"]),
        ("a.onnx --timeout nan", ["--timeout is nan"]),
        ("a.onnx --sizes 640", ["'640'", "480x640"]),
        ("a.onnx --peers yolo", ["'yolo'", "ultralytics"]),
        ("a.onnx --limit 4", ["--data ROOT"]),
        ("a.onnx --pictures none", ["none doesn't exist"]),
        ("a.onnx --data none", ["none"]),
        ("a.onnx --json a.onnx", ["a.onnx exists already", "nothing is overwritten"]),
        ("a.onnx --html no/a.html", ["no/a.html", "no folder 'no'"]),
        ("a.onnx --json b --html ./b", ["both name b"]),
    ],
)
def test_mistakes_are_told_in_one_line(tmp_path, monkeypatch, capsys, checkout, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.onnx").write_text("hello")
    monkeypatch.setattr("sys.argv", ["benchmark.py", *arguments.split()])
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("subprocess.Popen", None)  # nothing may be started
    import runpy

    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(checkout / "tools" / "benchmark.py"), run_name="__main__")
    told = capsys.readouterr()
    assert ended.value.code == 1
    assert told.err.count("\n") == 1
    assert told.err.startswith("error: ")
    assert all(word in told.err for word in words), told.err
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]


@pytest.mark.parametrize(("name", "words"), [("a.onnx", "not an ONNX file"), ("b.onnx", "no model")])
def test_a_model_that_is_none(tmp_path, name, words):
    (tmp_path / "a.onnx").write_text("hello")
    with pytest.raises(MobiledetError, match=words):
        run_benchmark([str(tmp_path / name)], Settings(starts=1))


def test_stages_of_a_real_model(tiny_onnx):
    stages = DetectorModel(str(tiny_onnx), 1).stages(np.zeros((40, 60, 3), np.uint8), 2)
    assert set(stages) == {"whole", "resize", "network", "decode+nms"}
    assert all(value > 0 for value in stages.values())


def test_a_batch_is_told_by_the_image():
    class Pretended:
        def __init__(self):
            self.backend, self.given = self, []

        def __call__(self, images):
            self.given.append(len(images))
            time.sleep(0.02)

        def fit(self, image):
            return image, None

        def stages(self, images, rounds):
            assert images.shape == (4, 9, 12, 3)
            return {"network": 8.0, "decode+nms": 4.0}

    model = DetectorModel.__new__(DetectorModel)
    model.about, model.detector = About("a", batch=4), Pretended()
    stages = model.stages(np.zeros((9, 12, 3), np.uint8), 2)
    assert (stages["network"], stages["decode+nms"]) == (2.0, 1.0)
    assert 5 <= stages["whole"] < 15
    assert set(model.detector.given) == {4}


def test_the_matrix_product_counts_what_it_does():
    product = MatrixProduct()
    assert product.call(None).shape == (MATRIX_SIDE, MATRIX_SIDE)
    assert product.about.gmacs == pytest.approx(MATRIX_SIDE**3 / 1e9)


def test_importing_it_needs_no_torch():
    code = "import sys, mobiledet.apps.benchmark.run, mobiledet.apps.benchmark.tables, mobiledet.apps.benchmark.worker;"
    code += "print([name for name in ('torch', 'onnxruntime', 'pydantic') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "[]\n"

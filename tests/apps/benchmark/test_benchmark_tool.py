import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from foreign_tflite import write_foreign
from programs import mobiledet, mobiledet_in_process
from tiny_detectors import tiny_detector

from mobiledet.apps.benchmark.measured import MATRIX_SIDE, DetectorModel, MatrixProduct
from mobiledet.apps.benchmark.measuring import Settings
from mobiledet.apps.benchmark.run import run_benchmark
from mobiledet.errors import MobiledetError
from mobiledet.exporters.base import ExportOptions
from mobiledet.exporters.litert import LITERT_EXPORTER
from mobiledet.runtime.card import ModelCard
from mobiledet.structures import ResizeRule

QUICK = ("--rounds", "1", "--calls", "2", "--starts", "1", "--sizes", "48x80,own")

PARENT = """
import sys
from mobiledet.apps.benchmark.measuring import Settings
from mobiledet.apps.benchmark.run import run_benchmark
from mobiledet.cli.common import run_and_exit
settings = Settings(rounds=9999, starts=1, command=(sys.executable, sys.argv[1]))
run_and_exit(lambda: run_benchmark(["steady:" + sys.argv[2], "steady"], settings) and 0)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
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
        workers = psutil.Process(parent.pid).children()
        assert len(workers) == 3, "two models and the matrix product"
        parent.send_signal(number)
        parent.wait(timeout=10)
        stderr = parent.stderr.read()
    assert psutil.wait_procs(workers, timeout=5)[1] == []
    if number == signal.SIGINT:
        assert (parent.returncode, stderr) == (130, "stopped\n")
        assert sorted(path.name for path in tmp_path.iterdir()) == ["log"], "left behind"


def test_a_real_model(tmp_path, tiny_onnx):
    arguments = (tiny_onnx, tiny_onnx, *QUICK, "--json", tmp_path / "a.json", "--html", tmp_path / "a.html")
    done = mobiledet("benchmark", *arguments)
    assert done.status == 0, done.stderr
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
        ("a.onnx --html a.onnx/a.html", ["a.onnx/a.html", "it is a file"]),
        ("a.onnx --json b --html ./b", ["both name b"]),
    ],
)
def test_mistakes_end_before_the_measuring(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.onnx").write_text("hello")
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("subprocess.Popen", None)  # nothing may be started
    done = mobiledet_in_process("benchmark", *arguments.split())
    assert done.status == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr
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


def test_other_peoples_tflite_files_are_models_too(tmp_path):
    """Named by a file where they have no names; one of ours beside them keeps its own."""
    (tmp_path / "labels.txt").write_text("cat\ndog\n")
    labels, image = str(tmp_path / "labels.txt"), np.zeros((40, 60, 3), np.uint8)
    foreign = DetectorModel(str(write_foreign(tmp_path / "foreign.tflite")), 1, labels)
    assert foreign.about.names == ("cat", "dog")
    assert "4 detections at most" in foreign.about.note
    stages = foreign.stages(image, 200)  # medians of fewer depend on what else the machine does
    assert stages["decode+nms"] is None
    assert stages["whole"] > stages["network"] > 0
    model, card = tiny_detector("sigmoid")
    LITERT_EXPORTER.write(model, card, tmp_path / "own.tflite", ExportOptions("litert"), ())
    own = DetectorModel(str(tmp_path / "own.tflite"), 1, labels)
    assert own.about.names == card.names
    assert own.stages(image, 2)["decode+nms"] > 0


def test_a_batch_is_timed_by_the_image(monkeypatch):
    class Batched:
        """A detector that takes four images at once."""

        card = ModelCard(names=("a",), category_ids=(1,), resize=ResizeRule((9, 12)), batch=4)

        def __init__(self, target, **options):
            self.backend, self.runtime, self.given = self, "batched 1", []

        def __call__(self, images):
            self.given.append(len(images))
            time.sleep(0.02)

        def fit(self, image):
            return image, None

        def stages(self, images, rounds):
            assert images.shape == (4, 9, 12, 3)
            return {"network": 8.0, "decode+nms": 4.0}

    monkeypatch.setattr("mobiledet.runtime.detector.Detector", Batched)
    model = DetectorModel("a.onnx", 1)
    stages = model.stages(np.zeros((9, 12, 3), np.uint8), 2)
    assert (stages["network"], stages["decode+nms"]) == (2.0, 1.0)
    assert 5 <= stages["whole"] < 15
    assert set(model.detector.given) == {4}
    assert "4 images at once" in model.about.note


def test_the_matrix_product_counts_what_it_does():
    product = MatrixProduct()
    assert product.call(None).shape == (MATRIX_SIDE, MATRIX_SIDE)
    assert product.about.gmacs == pytest.approx(MATRIX_SIDE**3 / 1e9)

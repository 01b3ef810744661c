"""With the base install only: what works, and that everything else ends at once with the extra to install."""

import os
import subprocess
import sys

import pytest
from foreign_tflite import write_foreign
from programs import mobiledet_in_process

import mobiledet
from mobiledet.cli.main import COMMANDS
from mobiledet.data.shapes import generate_shapes
from mobiledet.errors import NEEDED, MissingDependencyError, install_extra, need_extra
from mobiledet.weights.catalogue import find_source

EXTRAS = (
    *("torch", "torchvision", "pydantic", "albumentations", "pycocotools", "faster_coco_eval", "yaml", "requests"),
    *("safetensors", "tflite", "onnx", "onnxscript", "openvino", "ncnn", "nncf", "pnnx", "aiohttp"),
    *("ai_edge_litert", "tflite_runtime", "tensorflow"),
)

OF_LITERT = ("ai_edge_litert", "requests")
"""What the extra ``litert`` brings of these."""

NAME = "ssd_mobilenet_v1_075_coco"

PROGRAM = f"""
import sys
sys.modules.update(dict.fromkeys({EXTRAS!r}))
from mobiledet.cli.main import main
main(sys.argv[1:])
"""


@pytest.fixture
def base_install(monkeypatch, tmp_path):
    """A folder with files of every kind that commands take, and none of the extras."""
    for package in EXTRAS:
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.chdir(tmp_path)
    for name in ("best.pt", "model.onnx", "coco.tflite"):
        (tmp_path / name).touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "model_openvino").mkdir()
    (tmp_path / "model_openvino" / "model.xml").touch()


@pytest.mark.parametrize(
    ("words", "extra"),
    [
        ("train finetune_ssd data.root=nowhere", "train"),
        ("train --resume data", "train"),
        ("check data", "train"),
        ("quickstart", "train"),
        ("cost ssd_mobilenet_a1", "train"),
        ("eval best.pt --data data", "train"),
        ("eval model.onnx --data data", "score"),
        ("export best.pt -o new.onnx --data data", "export"),
        ("weights fetch mobilenetv1_100", "train"),
        (f"weights fetch {NAME}", "litert"),
        ("weights import coco.tflite -o coco.pt", "train"),
        (f"predict {NAME} nowhere.jpg", "litert"),
        (f"predict {NAME} nowhere.jpg --device cuda", "train"),
        ("predict coco.tflite nowhere.jpg", "litert"),
        ("predict mobilenetv1_100 nowhere.jpg", "train"),
        ("predict best.pt nowhere.jpg", "train"),
        ("predict model_openvino nowhere.jpg", "openvino"),
        ("benchmark model.onnx --data data", "score"),
        ("webcam --source camera:9", "litert"),
        ("webcam --source camera:9 --device cuda", "train"),
        ("webcam --source camera:9 --model best.pt", "train"),
        ("webcam --source camera:9 --model model.onnx --serve", "serve"),
        ("webcam --source camera:9 --model model_openvino", "openvino"),
    ],
)
def test_the_extra_is_named_before_anything_else_is_tried(base_install, words, extra):
    done = mobiledet_in_process(*words.split())
    assert done.status == 1
    message = done.stderr.splitlines()[-1]
    assert message.startswith("error: ")
    assert install_extra(extra) in message


@pytest.mark.parametrize(
    "words", ["configs", "weights list", "make-shapes shapes --train 2 --val 1", "predict model.onnx shapes/val"]
)
def test_the_base_install_is_enough(tmp_path, words):
    command = [sys.executable, "-c", PROGRAM, *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    if words.startswith("predict"):  # as far as a model that isn't there allows
        assert "no model 'model.onnx'" in done.stderr
    else:
        assert (done.returncode, done.stdout != "") == (0, True), done.stderr


def test_the_base_install_and_litert_run_a_pretrained_detector_by_name(tmp_path):
    """Its file is found in a folder here; tests/runtime/test_choose.py fetches it."""
    generate_shapes(tmp_path / "shapes", train=2, val=2, size=(72, 96), seed=3)
    (tmp_path / "weights").mkdir()
    write_foreign(tmp_path / "weights" / find_source(NAME).file_name)
    program = PROGRAM.replace(repr(EXTRAS), repr(tuple(name for name in EXTRAS if name not in OF_LITERT)))
    environment = {**os.environ, "MOBILEDET_WEIGHTS": str(tmp_path / "weights"), "MOBILEDET_OFFLINE": "1"}
    for words, last in (
        (f"weights fetch {NAME}", f"{NAME}: {tmp_path / 'weights' / find_source(NAME).file_name}"),
        (f"predict {NAME} shapes/val --threshold 0.1 -o out", "detections (score >= 0.1) in 2 images"),
        ("webcam --source shapes/val --no-window --threshold 0.1 --detections found.jsonl", "2 frames processed"),
    ):
        command = [sys.executable, "-c", program, *words.split()]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (done.returncode, last in done.stdout) == (0, True), (done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("call", "extra"),
    [
        (lambda: mobiledet.train("finetune_ssd"), "train"),
        (lambda: mobiledet.evaluate("best.pt", "data"), "train"),
        (lambda: mobiledet.evaluate("model.onnx", "data"), "score"),
        (lambda: mobiledet.export("best.pt", "new.onnx"), "export"),
        (lambda: mobiledet.Detector("best.pt"), "train"),
    ],
)
def test_functions_name_it_too(base_install, call, extra):
    with pytest.raises(MissingDependencyError) as error:
        call()
    assert install_extra(extra) in str(error.value)


def test_what_is_installed_is_not_asked_for():
    assert {command.extra for command in COMMANDS} - {None} <= set(NEEDED)
    for extra in NEEDED:
        need_extra(extra)

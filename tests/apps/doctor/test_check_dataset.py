"""The whole examination, and the program."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from programs import mobiledet_in_process

from mobiledet.apps.doctor.checkup import examine, free_folder
from mobiledet.apps.doctor.recipe import JudgedRecipe
from mobiledet.apps.doctor.report import Code, Level
from mobiledet.config import Config, ModelConfig, ReadingConfig, apply_overrides, load_config
from mobiledet.data.coco import load_coco
from mobiledet.data.faults import Fault, ImportLog
from mobiledet.data.formats.choose import read_dataset
from mobiledet.data.formats.write import write_coco
from mobiledet.data.opening import open_data
from mobiledet.detections import Detections
from mobiledet.errors import MobiledetError
from mobiledet.training.complete import complete_model

FILES = {"report.txt", "report.json", "samples.jpg", "boxes.png"}


def usual(found):
    return JudgedRecipe(Config(), found.splits, "ssd")


@pytest.fixture
def check(monkeypatch, tmp_path):
    """Run the program in a folder of its own: status, output, errors."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return partial(mobiledet_in_process, "check")


def test_generated_shapes_are_ready(check, tiny_shapes, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in tiny_shapes.rglob("*")}
    status, out, _ = check(tiny_shapes, "--json", tmp_path / "figures.json")
    folder = tmp_path / "work" / f"check_{tiny_shapes.name}"
    assert status == 0
    assert {path.name for path in folder.iterdir()} >= FILES
    assert out.splitlines()[-1].startswith("verdict: READY to train, with ")
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "figures.json").read_text(encoding="utf-8")) == report
    assert report["figures"]["Pictures and boxes"]["train"]["pictures"] == 12
    assert (folder / "report.txt").read_text(encoding="utf-8").splitlines()[-1] == out.splitlines()[-1]
    for name in ("samples.jpg", "boxes.png"):
        assert cv2.imread(str(folder / name)) is not None
    assert {path: path.stat().st_mtime_ns for path in tiny_shapes.rglob("*")} == before
    assert check(tiny_shapes)[0] == 0
    assert {path.name for path in folder.with_name(f"{folder.name}_2").iterdir()} >= FILES


@pytest.mark.parametrize("words", [[], ["model.input_size=96,64"], ["--config", "faster_rcnn_mobilenet_a1_light"]])
def test_the_next_command_trains_what_was_judged(check, tiny_shapes, tmp_path, words):
    status, out, _ = check(tiny_shapes, *words, "-o", tmp_path / "out")
    assert status == 0
    (following,) = (line.removeprefix("next: ") for line in out.splitlines() if line.startswith("next: "))
    program, command, recipe, *overrides = shlex.split(following)
    assert (program, command) == ("mobiledet", "train")
    assert recipe == (words[-1] if "--config" in words else "finetune_ssd")
    config = apply_overrides(load_config(recipe), overrides)
    assert config.data.root == str(tiny_shapes)
    data = open_data(config.data)
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    judged = report["figures"]["Boxes and anchors"]["input_size"]
    assert judged == list(complete_model(config.model, data.train).network_size)
    assert report["next"] == following


def test_ready_with_advice_is_status_0(make, check, tmp_path):
    splits = {"train": range(30), "val": range(100, 125)}
    boxes = [[(1, i % 9, 2, 40 + i % 20, 30)] for i in range(125)]
    images = {s: [(f"{i}.png", make.image(60, 90, i), boxes[i]) for i in rows] for s, rows in splits.items()}
    make(images, names=["cat"])
    status, out, _ = check(make.root, "-o", tmp_path / "out")
    assert status == 0
    assert out.splitlines()[-1].startswith("verdict: READY to train")
    status, out, _ = check(make.root, "-o", tmp_path / "first", "--limit", "3")
    report = json.loads((tmp_path / "first" / "report.json").read_text(encoding="utf-8"))
    assert report["figures"]["Reading it"]["limit"] == 3
    assert report["figures"]["Pictures and boxes"]["val"]["pictures"] == 3
    assert "small-val" in [finding["code"] for finding in report["findings"]]


def test_what_was_dropped_while_reading_is_a_fault(make, tmp_path):
    make({"train": [("a.png", make.image(60, 90, 1), [(1, 2, 2, 30, 20)])]})
    splits = {"train": load_coco(make.root, "train")}
    log = ImportLog()
    log.add(Fault.CLASS_EMPTY, "cow")
    for place in ("a.xml", "b.xml"):
        log.add(Fault.BOX_POINT, place)
    found = Detections(np.array([[40, 30, 80, 55]], np.float32), np.array([0.8], np.float32), np.array([1]), ("cat",))
    detector = {"detect": lambda image: found, "detected_names": ("cat",)}
    recipe = JudgedRecipe(Config(model=ModelConfig(input_size=(64, 96))), splits, "tiny")
    report = examine(splits, tmp_path / "out", title="data", recipe=recipe, log=log, **detector)
    [dropped] = [finding for finding in report.findings(Level.FAULT) if finding.kind is Code.DROPPED]
    assert dropped.text.endswith("2 boxes of a single point or line")
    assert dropped.places == ("a.xml", "b.xml")
    assert report.exit_status == 3
    assert "note: 1 classes without a box (cow)" in report.to_text()
    assert (tmp_path / "out" / "suspects.jpg").exists()
    assert {finding.code for finding in report.findings(Level.ADVICE)} >= {"unlabelled"}
    with pytest.raises(MobiledetError, match="is not empty"):
        examine(splits, tmp_path / "out", title="data", recipe=recipe)


def test_the_default_folder_is_new(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    root = tmp_path / "x"
    assert str(free_folder(root)) == "check_x"
    Path("check_x").mkdir()
    Path("check_x_2").touch()
    assert str(free_folder(root)) == "check_x_3"


@pytest.mark.parametrize(
    ("inside", "named"), [(".", "."), ("train", "."), ("train", ".."), ("annotations", "../train")]
)
def test_inside_the_data_the_report_goes_beside_it(check, tiny_shapes, tmp_path, monkeypatch, inside, named):
    root = shutil.copytree(tiny_shapes, tmp_path / "mine")
    before = set(root.rglob("*"))
    monkeypatch.chdir(root / inside)
    done = check(named)
    assert done.status == 0, done.stderr
    assert {path.name for path in (tmp_path / "check_mine").iterdir()} >= FILES
    assert f"written to {tmp_path / 'check_mine'}/" in done.stdout
    assert set(root.rglob("*")) == before


def test_where_nothing_can_be_written_beside_the_data(check, tiny_shapes, tmp_path, monkeypatch):
    root = shutil.copytree(tiny_shapes, tmp_path / "mine")
    monkeypatch.chdir(root)
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)
    done = check(".")
    assert (done.status, "-o FOLDER" in done.stderr) == (1, True)
    assert check(".", "-o", tmp_path / "work/out").status == 0


def test_real_data(real_data, check, tmp_path):
    status, _, _ = check(real_data / "chess-yolo", "-o", tmp_path / "chess")
    assert status == 0
    report = json.loads((tmp_path / "chess" / "report.json").read_text(encoding="utf-8"))
    findings = {finding["code"]: finding for finding in report["findings"]}
    assert findings["class-rare"]["places"] == ["bishop (3) [a typo for black-bishop or white-bishop?]"]
    assert len(findings["without-boxes-test"]["places"]) == 1
    assert not any(code.startswith("same-content") or code.startswith("same-near") for code in findings)


@pytest.mark.parametrize("size", [(40, 40), (40, 60)])
@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_a_doubtful_rotation_is_shown_both_ways(make, tmp_path, size, orientation):
    make({"train": [("a.jpg", make.image(*size, 1), [(1, 2, 3, 20, 10)]), ("b.jpg", make.image(50, 30, 2), [])]})
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(make.image(*size, 1)).save(make.root / "train" / "a.jpg", exif=exif)
    found = read_dataset(make.root)
    report = examine(found.splits, tmp_path / "out", title="data", recipe=usual(found), log=found.log)
    assert (tmp_path / "out" / "orientation.jpg").is_file()
    assert "data.reading.orientation" in report.to_text()
    assert found.splits["train"][0].apply_orientation
    decided = read_dataset(make.root, reading=ReadingConfig(orientation="stored"))
    examine(decided.splits, tmp_path / "again", title="data", recipe=usual(decided), log=decided.log)
    assert not (tmp_path / "again" / "orientation.jpg").exists()
    write_coco(decided, tmp_path / "coco", val_share=0)
    written = load_coco(tmp_path / "coco", "train")
    np.testing.assert_array_equal(written.read(0), decided.splits["train"].read(0))

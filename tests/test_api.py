"""Training, scoring and exporting by one call each, as a program or a notebook uses them."""

import json
import multiprocessing
import os
import subprocess
import sys
from typing import ClassVar

import albumentations as A
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import mobiledet
from mobiledet.config import apply_overrides
from mobiledet.data.torch_dataset import from_torch
from mobiledet.errors import ConfigError, DataError, MissingDependencyError


class Squares(Dataset):
    """Images of torchvision's kind: one bright square each, of two classes."""

    classes: ClassVar = ["light", "dark"]

    def __init__(self, count=8):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        image, label = torch.full((3, 64, 80), 128, dtype=torch.uint8), 1 + index % 2
        x = 8 + 4 * (index % 5)
        image[:, 20:44, x : x + 24] = 250 if label == 1 else 5
        return image, {"boxes": torch.tensor([[x, 20.0, x + 24, 44]]), "labels": torch.tensor([label])}


@pytest.fixture
def recipe(tiny_config, tiny_shapes, tmp_path):
    return tiny_config(tiny_shapes, f"train.output={tmp_path}", "schedule.epochs=2")


def test_the_functions_are_offered_whatever_was_imported_before():
    code = "import mobiledet.cli.main, mobiledet.api, mobiledet as m; print(callable(m.train), callable(m.export))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True True\n"
    assert callable(mobiledet.train)
    assert callable(mobiledet.evaluate)
    assert callable(mobiledet.export)
    assert {"train", "evaluate", "export", "Detector"} <= set(dir(mobiledet))


def test_train_evaluate_export_detect(recipe, tiny_shapes, tmp_path):
    steps, epochs = [], []
    run = mobiledet.train(recipe, {"schedule.epochs": 1}, on_step=steps.append, on_epoch=epochs.append)
    assert (run.finished, run.folder.parent) == (True, tmp_path / recipe.name)
    assert [row["epoch"] for row in epochs] == [1]
    assert [row["step"] for row in steps] == list(range(1, len(steps) + 1))
    assert any(name.startswith("loss/") for name in steps[0])
    metrics = mobiledet.evaluate(run.best, tiny_shapes, split="val", workers=0)
    assert pytest.approx(run.metrics["AP"]) == metrics.AP
    assert mobiledet.evaluate(run.folder, limit=2, workers=0).images == 2
    pytest.importorskip("onnxscript")
    report = mobiledet.export(run.best, tmp_path / "new" / "mine.onnx", force=True)
    assert report.agreement.images > 0
    found = mobiledet.Detector(tmp_path / "new" / "mine.onnx")(tiny_shapes / "val" / "000001.jpg")
    assert found.boxes.shape[1] == 4


@pytest.mark.parametrize("where", ["on_step", "on_epoch"])
def test_a_callback_stops_and_the_run_resumes_exactly(recipe, where):
    whole = mobiledet.train(recipe)
    stopped = mobiledet.train(recipe, **{where: lambda row: False})
    assert (stopped.finished, stopped.last.exists()) == (False, True)
    resumed = mobiledet.train(resume=stopped.folder)
    assert resumed.finished
    ours, theirs = ((run.folder / "results.csv").read_bytes() for run in (whole, resumed))
    assert ours == theirs


def test_ones_own_data_are_trained_on_and_scored(recipe, caplog):
    caplog.set_level("INFO", "mobiledet")
    run = mobiledet.train(recipe, {"data.workers": 2}, train_data=Squares(), val_data=Squares(4))
    assert "train: 8 images, 8 boxes, 2 classes (train_data)" in caplog.text
    assert run.metrics["images"] == 4
    assert [row["name"] for row in run.metrics["per_class"]] == ["light", "dark"]
    assert mobiledet.evaluate(run.best, Squares(6), workers=0).images == 6
    held = mobiledet.train(recipe, {"data.hold_out": 0.25}, train_data=Squares(16))
    assert held.metrics["images"] == 4
    stopped = mobiledet.train(recipe, train_data=Squares(), on_step=lambda row: False)
    assert mobiledet.train(resume=stopped.folder, train_data=Squares()).finished


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (5, "train_data.0. is not an image and a target"),
        ((np.zeros((5, 5)), {"boxes": [], "labels": []}), "shape .5, 5."),
        ((np.zeros((5, 5, 3), np.uint8), {"boxes": [[0, 0, 2, 2]], "labels": []}), "1 boxes and 0 labels"),
        ((np.zeros((5, 5, 3), np.uint8), {"boxes": [[0, 0, 2, 2]], "labels": [0]}), "0 is background"),
        ((np.zeros((5, 5, 3), np.uint8), {"boxes": [[2, 0, 1, 2]], "labels": [1]}), "x1 < x2"),
        ((np.zeros((5, 5, 3), np.uint8), {"boxes": [[9, 0, 12, 2]], "labels": [1]}), "outside of its image of 5x5"),
        ((np.zeros((5, 5, 3), np.uint8), {"boxes": [[0, 0, 2, 2]], "labels": [3]}), None),
    ],
)
def test_what_ones_own_data_may_hold(item, message):
    if message is None:
        assert from_torch([item]).names == ("class 1", "class 2", "class 3")
        with pytest.raises(DataError, match="label 3, but names only 1"):
            from_torch([item], names=["a"])
        return
    with pytest.raises(DataError, match=message):
        from_torch([item])


def test_crowds_in_ones_own_data_are_not_trained_on():
    target = {"boxes": [[0, 0, 9, 9], [1, 1, 8, 5]], "labels": [1, 2], "iscrowd": [0, 1]}
    dataset = from_torch([(np.zeros((20, 30, 3), np.uint8), target)])
    assert (dataset[0].target.iscrowd.tolist(), dataset.objects().tolist()) == ([False, True], [1])


def seen(recipe, **options):
    """The first batch that a step gets."""
    run = mobiledet.train(recipe, on_step=lambda row: False, **options)
    return (run.folder / "train_batch.jpg").read_bytes()


def test_ones_own_augmentation(recipe):
    def blacken(image, boxes, labels, rng):
        assert isinstance(rng, np.random.Generator)
        return np.zeros_like(image), boxes, labels

    plain, black = seen(recipe), seen(recipe, augment=blacken)
    inverted = seen(recipe, augment=[A.InvertImg(p=1)])
    assert len({plain, black, inverted}) == 3
    assert seen(recipe, augment=A.Compose([A.InvertImg(p=1)])) == inverted


def test_ones_own_optimiser_and_schedule(recipe):
    rates = []
    made = []

    def optimizer(groups, lr):
        made.append(torch.optim.Adam(groups, lr=lr))
        return made[0]

    def schedule(step, steps):
        rates.append((step, steps))
        return 0.5

    assert mobiledet.train(recipe, optimizer=optimizer, schedule=schedule).finished
    assert {group["lr"] for group in made[0].param_groups} <= {recipe.optimizer.lr * 0.5}
    assert rates[0] == (0, rates[-1][0] + 1) or rates[0][0] == 0


def test_ones_own_head(recipe, documented):
    settings = documented("cell_head.py")["CellConfig"]
    from mobiledet.models import model_config

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model_config, "HEADS", model_config.HEADS)  # put back at the end
        run = mobiledet.train(recipe, head=settings(box_weight=2))
        assert json.loads((run.folder / "config.json").read_text())["model"]["head"]["kind"] == "cells"
        assert mobiledet.evaluate(run.best, workers=0).images > 0


def test_overrides_are_checked_like_words(recipe):
    with pytest.raises(ConfigError, match=r"did you mean 'schedule\.epochs'"):
        mobiledet.train(recipe, {"schedule.epoch": 2})
    assert apply_overrides(recipe, {"model.input_size": (64, 96), "data.root": "(odd)"}).data.root == "(odd)"


def test_nothing_ends_the_process_outside_of_the_main_thread(recipe):
    import threading

    results = []
    thread = threading.Thread(target=lambda: results.append(mobiledet.train(recipe, {"schedule.epochs": 1})))
    thread.start()
    thread.join(120)
    assert results[0].finished


# --- loggers ----------------------------------------------------------------------------------------------------

FAKE = """
import json, sys, os
class SummaryWriter: pass
def init(**options):
    print("offline" if os.environ["WANDB_MODE"] == "offline" else "online", file=sys.stderr)
    return Run()
class Run:
    def log(self, figures, step):
        with open("logged.json", "a") as file:
            file.write(json.dumps([step, figures]) + "\\n")
        if step > 6:
            raise RuntimeError("no space")
    def finish(self): pass
"""


def test_a_logger_gets_the_figures_and_never_ends_a_run(recipe, tmp_path, monkeypatch, caplog):
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake" / "wandb.py").write_text(FAKE)
    monkeypatch.syspath_prepend(str(tmp_path / "fake"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    run = mobiledet.train(recipe, {"train.loggers": ["wandb"], "schedule.epochs": 3})
    assert run.finished
    assert os.environ["WANDB_MODE"] == "offline"
    lines = [json.loads(line) for line in (tmp_path / "logged.json").read_text().splitlines()]
    assert 1 < len(lines) < 4
    assert {"lr", "val/AP"} <= set(lines[0][1])
    assert "wandb failed and is left out from now on: RuntimeError: no space" in caplog.text


def test_a_logger_that_is_not_installed_fails_at_the_start(recipe, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MissingDependencyError, match="pip install mlflow"):
        mobiledet.train(recipe, {"train.loggers": ["mlflow"]})
    with pytest.raises(ConfigError, match=r"train\.loggers"):
        mobiledet.train(recipe, {"train.loggers": ["tensorbord"]})


def test_tensorboard(recipe):
    pytest.importorskip("tensorboard")
    run = mobiledet.train(recipe, {"train.loggers": ["tensorboard"], "schedule.epochs": 1})
    assert list((run.folder / "tensorboard").iterdir())


@pytest.mark.parametrize("call", ["train('finetune_ssd')", "evaluate('none.pt')"])
def test_how_threads_wait_is_settled_before_torch_is_loaded(call, tmp_path):
    (tmp_path / "torch.py").write_text("import os; print(os.environ.get('GOMP_SPINCOUNT'), flush=True); os._exit(0)")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import mobiledet; mobiledet.{call}"
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GOMP", "OMP"))}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.stdout == "2000\n"


def test_reading_processes_end_with_the_run_however_it_ends(recipe, tiny_shapes):
    workers = {"data.workers": 2, "schedule.epochs": 1}
    run = mobiledet.train(recipe, workers)
    assert multiprocessing.active_children() == []
    mobiledet.evaluate(run.best, tiny_shapes, workers=2)
    assert multiprocessing.active_children() == []

    def fail(_):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as held:
        mobiledet.train(recipe, workers, on_step=fail)
    assert multiprocessing.active_children() == []
    assert held.traceback  # which holds the run's variables


def test_a_limit_counts_for_ones_own_data(recipe, caplog):
    caplog.set_level("INFO")
    mobiledet.train(recipe, {"data.limit": 4, "schedule.epochs": 1}, train_data=Squares(), val_data=Squares(6))
    assert "train: 4 of 8 images" in caplog.text

"""Whole runs: stopped anywhere and resumed they end as if never stopped; what they leave behind is consistent."""

import csv
import io
import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
import torch
from PIL import Image

import mobiledet.training.run as fit_module
import mobiledet.training.start as launch
from mobiledet.config import config_from_plain, config_hash
from mobiledet.data.loader import DetectionImages, collate, in_order
from mobiledet.data.opening import open_data
from mobiledet.errors import CheckpointError, ConfigError, DataError, TrainingError
from mobiledet.runtime.pytorch import open_checkpoint
from mobiledet.training.start import resume_run, start_run
from mobiledet.utils.files import create_run_folder, file_digest, lock_run_folder
from mobiledet.weights.checkpoint import _digest, load_checkpoint, previous_path


class StopAfter:
    """Stands in for the signal handler: asks to stop when it is looked at for the ``count``-th time."""

    signal = 2
    exit_status = 130

    def __init__(self, count=None):
        self.count = count
        self.looks = 0

    def __bool__(self):
        self.looks += 1
        return self.count is not None and self.looks >= self.count

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    monkeypatch.setattr("mobiledet.training.reporting.plot_history", lambda *arguments: None)


@pytest.fixture
def stop_after(monkeypatch):
    def arrange(count):
        stop = StopAfter(count)
        monkeypatch.setattr(launch, "StopRequest", lambda: stop)
        return stop

    return arrange


def outcome(folder):
    """Everything that must not depend on interruptions, part by part."""
    parts = {}
    for name in ("last.pt", "best.pt"):
        content = load_checkpoint(folder / name)
        training = content.pop("training", {})
        for key, value in {**content, **training}.items():
            parts[f"{name} {key}"] = _digest(value)
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["model"].pop("file")
    # The same content may be stored in other bytes: pickle writes equal texts once or twice.
    assert metrics["model"].pop("sha256") == file_digest(folder / "best.pt")
    parts["metrics.json"] = metrics
    parts["results.csv"] = (folder / "results.csv").read_text()
    return parts


def rows(folder):
    with (folder / "results.csv").open() as file:
        return list(csv.DictReader(file))


RECIPES = {
    "plain": ["optimizer.name=adamw", "optimizer.lr=0.002"],
    "accumulated": ["schedule.accumulate=2", "optimizer.name=rmsprop", "optimizer.lr=0.001", "schedule.val_every=2"],
    "quantized": ["train.quantize=1", "model.head.kind=ssdlite", "optimizer.name=adamw", "optimizer.lr=0.002"],
    "two stages": [
        "model.head.kind=faster_rcnn",
        "model.head.proposals=20",
        "model.head.crop_size=4",
        "model.resize=shorter_side",
        "model.longest_side=100",
        "optimizer.name=adamw",
        "optimizer.lr=0.002",
    ],
}


@pytest.fixture(scope="module")
def whole_runs(tiny_shapes, tiny_config, tmp_path_factory):
    """One uninterrupted run of each recipe, and how often it looked whether to stop."""
    found = {}
    for name, overrides in RECIPES.items():
        output = tmp_path_factory.mktemp("whole")
        config = tiny_config(tiny_shapes, f"train.output={output}", *overrides)
        stop = StopAfter()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(launch, "StopRequest", lambda stop=stop: stop)
            folder, status = start_run(config)
        assert status == 0
        found[name] = (config, outcome(folder), stop.looks)
    return found


@pytest.mark.parametrize("recipe", ["plain", "two stages"])
def test_runs_repeat_exactly(whole_runs, recipe):
    config, expected, _ = whole_runs[recipe]
    folder, _ = start_run(config)
    assert outcome(folder) == expected


@pytest.mark.parametrize("moment", range(1, 17))
def test_stopped_once_anywhere(whole_runs, stop_after, moment):
    config, expected, looks = whole_runs["plain"]
    assert looks == 16  # so that the moments cover the run: 2 epochs of 3 steps, before, in and after scoring
    stop_after(moment)
    folder, status = start_run(config)
    assert status == (130 if moment < looks else 0)
    assert load_checkpoint(folder / "last.pt")["training"]["progress"]["finished"] == (moment == looks)
    stop_after(None)
    assert resume_run(folder) == 0
    assert outcome(folder) == expected


def test_the_command_to_continue_with_can_be_pasted(tiny_config, tiny_shapes, tmp_path, stop_after, caplog):
    stop_after(2)
    with caplog.at_level("INFO", "mobiledet"):
        folder, status = start_run(tiny_config(tiny_shapes, f"train.output={tmp_path / 'my runs'}"))
    assert status == 130
    assert shlex.split(caplog.messages[-1])[-4:] == ["mobiledet", "train", "--resume", str(folder)]


@pytest.mark.parametrize(("recipe", "looks"), [("accumulated", 5), ("quantized", 5), ("two stages", 8)])
def test_stopped_again_and_again(whole_runs, stop_after, recipe, looks):
    config, expected, _ = whole_runs[recipe]
    stop_after(1)
    folder, status = start_run(config)
    resumes = 0
    while status:
        stop_after(looks)  # fewer would be spent on one scoring, which always starts over
        status = resume_run(folder)
        resumes += 1
        assert resumes < 12
    assert resumes >= 2
    assert outcome(folder) == expected


def test_an_older_checkpoint_resumes_to_the_same_end(whole_runs, stop_after):
    config, expected, _ = whole_runs["plain"]
    folder, _ = start_run(config)
    last = folder / "last.pt"
    last.write_bytes(last.read_bytes()[:5000])
    assert load_checkpoint(previous_path(last))["training"]["progress"]["epoch"] == 1
    assert resume_run(folder) == 0
    assert outcome(folder) == expected


def test_resuming_before_the_first_checkpoint_starts_over(whole_runs):
    config, expected, _ = whole_runs["plain"]
    folder, _ = start_run(config)
    for path in folder.glob("*.pt"):
        path.unlink()
    assert resume_run(folder) == 0
    assert outcome(folder) == expected


def test_resuming_a_finished_run_does_nothing(whole_runs, caplog):
    config, _, _ = whole_runs["plain"]
    folder, _ = start_run(config)
    before = {path: file_digest(path) for path in folder.iterdir()}
    caplog.set_level("INFO")
    assert resume_run(folder) == 0
    assert {path: file_digest(path) for path in folder.iterdir() if path.name != ".lock"} == {
        path: digest for path, digest in before.items() if path.name != ".lock"
    }
    assert "is finished" in caplog.text


def test_random_numbers_drawn_by_others_are_resumed(whole_runs, stop_after, monkeypatch):
    """Nothing draws from the global generators today; whatever will (dropout) must not break resuming."""
    config, _, _ = whole_runs["plain"]
    step = fit_module.train_one_epoch.__globals__["train_step"]

    def noisy_step(trainer, group):
        losses = step(trainer, group)
        with torch.no_grad():
            trainer.parameters[0].add_(1e-3 * torch.randn(trainer.parameters[0].shape))
        return losses

    monkeypatch.setitem(fit_module.train_one_epoch.__globals__, "train_step", noisy_step)
    stop_after(None)
    whole, _ = start_run(config)
    stop_after(2)
    stopped, _ = start_run(config)
    torch.manual_seed(999)
    stop_after(None)
    assert resume_run(stopped) == 0
    assert outcome(stopped) == outcome(whole)


def test_what_a_run_leaves_behind(tiny_shapes, tiny_config, tmp_path):
    folder, status = start_run(tiny_config(tiny_shapes, f"train.output={tmp_path}", "schedule.epochs=3"))
    assert (folder, status) == (tmp_path / "tiny" / "1", 0)
    names = {path.name for path in folder.iterdir()}
    assert names >= {
        "config.json",
        "results.csv",
        "timing.csv",
        "last.pt",
        "last.previous.pt",
        "best.pt",
        "metrics.json",
        "train_batch.jpg",
        "val_predictions.jpg",
    }
    assert not [name for name in names if "tmp" in name]

    found = rows(folder)
    assert [row["epoch"] for row in found] == ["1", "2", "3"]
    assert [row["step"] for row in found] == ["3", "6", "9"]
    assert list(found[0])[:6] == ["epoch", "step", "lr", "loss/classification", "loss/box", "skipped_steps"]
    assert all(float(row["loss/box"]) > 0 and row["skipped_steps"] == "0" for row in found)
    assert float(found[-1]["lr"]) < float(found[0]["lr"])

    recorded = config_from_plain(json.loads((folder / "config.json").read_text()))
    assert recorded.model.num_classes == 8
    best = load_checkpoint(folder / "best.pt")
    assert config_from_plain(best["config"]) == recorded
    assert [category["id"] for category in best["categories"]] == [1, 2, 4, 7, 8, 11, 13, 17]

    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["model"] == {
        "file": str(folder / "best.pt"),
        "sha256": file_digest(folder / "best.pt"),
        "config_hash": config_hash(recorded),
    }
    scored = [row for row in found if row["val/AP"]]
    assert metrics["AP"] == pytest.approx(max(float(row["val/AP"]) for row in scored))
    assert metrics["images"] == 4
    assert len(metrics["per_class"]) == 8


@pytest.mark.parametrize("recipe", ["plain", "quantized"])
def test_validation_losses_are_those_of_the_weights_that_are_scored(tiny_shapes, tiny_config, tmp_path, recipe):
    config = tiny_config(tiny_shapes, f"train.output={tmp_path}", "schedule.val_every=2", *RECIPES[recipe])
    folder, _ = start_run(config)
    first, last = rows(folder)
    assert first["val_loss/box"] == ""
    model, val = open_checkpoint(folder / "best.pt").model, open_data(config.data).val
    images = DetectionImages(val, resize=model.resize)
    (keys,) = in_order(len(val), 4)
    batch = collate([images[key] for key in keys])
    with torch.no_grad():
        expected = model.losses(batch.images, batch.target_tensors())
    for name, value in expected.items():
        assert float(last[f"val_loss/{name}"]) == pytest.approx(value.item(), rel=1e-4)


@pytest.mark.parametrize("ema_decay", [0, 0.999])
def test_best_is_the_average_if_there_is_one(tiny_shapes, tiny_config, tmp_path, ema_decay):
    overrides = [f"train.output={tmp_path}", "data.val_split=none", f"train.ema_decay={ema_decay}"]
    folder, status = start_run(tiny_config(tiny_shapes, *overrides))
    best, last = load_checkpoint(folder / "best.pt"), load_checkpoint(folder / "last.pt")
    if ema_decay:
        assert _digest(best["model"]) == _digest(last["ema"]) != _digest(last["model"])
    else:
        assert last["ema"] is None
        assert _digest(best["model"]) == _digest(last["model"])
    assert (best["ema"], best["epoch"], status) == (None, 2, 0)
    # Without validation there are no scores.
    assert not [name for name in rows(folder)[0] if name.startswith("val/")]
    assert not (folder / "metrics.json").exists()


def test_the_best_ap_is_what_the_eval_tool_finds(tiny_shapes, tiny_config, tmp_path, checkout):
    overrides = [f"train.output={tmp_path}", "schedule.epochs=12", "schedule.val_every=4", "optimizer.name=adamw"]
    folder, _ = start_run(tiny_config(tiny_shapes, *overrides, "optimizer.lr=0.004", "data.augment=none"))
    command = [sys.executable, "tools/eval.py", folder, "--json", tmp_path / "found.json", "--workers", "0"]
    subprocess.run([str(word) for word in command], cwd=checkout, check=True, capture_output=True, timeout=120)
    found = json.loads((tmp_path / "found.json").read_text())
    expected = json.loads((folder / "metrics.json").read_text())
    assert found.pop("model") == expected.pop("model")
    assert found == expected
    assert expected["AP50"] > 0  # or the comparison would say little


def test_epochs_without_scoring_have_empty_cells(tiny_shapes, tiny_config, tmp_path):
    overrides = [f"train.output={tmp_path}", "schedule.epochs=5", "schedule.val_every=2"]
    folder, _ = start_run(tiny_config(tiny_shapes, *overrides))
    assert [row["val/AP"] != "" for row in rows(folder)] == [False, True, False, True, True]  # the last one always


def test_early_stopping(tiny_shapes, tiny_config, tmp_path, monkeypatch):
    aps = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    score = fit_module.score_detections

    def scripted(*arguments, **options):
        metrics = score(*arguments, **options)
        object.__setattr__(metrics, "AP", next(aps))
        return metrics

    monkeypatch.setattr(fit_module, "score_detections", scripted)
    overrides = [f"train.output={tmp_path}", "schedule.epochs=6", "schedule.patience=3"]
    folder, status = start_run(tiny_config(tiny_shapes, *overrides))
    assert status == 0
    assert [row["val/AP"] for row in rows(folder)] == ["0.1", "0.3", "0.2", "0.3", "0.25"]
    progress = load_checkpoint(folder / "last.pt")["training"]["progress"]
    assert (progress["best_ap"], progress["best_epoch"], progress["finished"]) == (0.3, 2, True)
    assert load_checkpoint(folder / "best.pt")["epoch"] == 2


def test_nothing_to_score_is_not_an_error(tiny_shapes, tiny_config, tmp_path):
    root = tmp_path / "shapes"
    shutil.copytree(tiny_shapes, root)
    file = root / "annotations" / "instances_val.json"
    content = json.loads(file.read_text())
    content["annotations"] = []
    file.write_text(json.dumps(content))
    folder, status = start_run(tiny_config(root, f"train.output={tmp_path}"))
    assert status == 0
    assert [row["val/AP"] for row in rows(folder)] == ["", ""]
    assert load_checkpoint(folder / "best.pt")["epoch"] == 2


def test_run_folders_are_numbered_and_never_used_twice(tmp_path):
    assert [create_run_folder(tmp_path, "a").name for _ in range(3)] == ["1", "2", "3"]
    shutil.rmtree(tmp_path / "a" / "2")
    (tmp_path / "a" / "notes").mkdir()
    assert create_run_folder(tmp_path, "a").name == "4"
    assert create_run_folder(tmp_path, "b").name == "1"
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="can't make a run folder"):
        create_run_folder(tmp_path / "file", "a")


def test_a_folder_in_use_refuses_a_second_process(tiny_shapes, tiny_config, tmp_path, checkout):
    config = tiny_config(tiny_shapes, f"train.output={tmp_path}", "schedule.epochs=1", "data.val_split=none")
    folder, _ = start_run(config)
    code = f"""
from pathlib import Path
from mobiledet.training.start import resume_run
try:
    resume_run(Path({str(folder)!r}))
except Exception as error:
    print(type(error).__name__, error)
"""
    with lock_run_folder(folder):
        done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, timeout=120)
        assert done.stdout.startswith("TrainingError")
        assert f"process {os.getpid()} is training into it" in done.stdout
    with lock_run_folder(folder):
        pass  # free again


def test_resuming_with_other_data_is_refused(tiny_shapes, tiny_config, tmp_path, stop_after):
    root = tmp_path / "shapes"
    shutil.copytree(tiny_shapes, root)
    stop_after(2)
    folder, _ = start_run(tiny_config(root, f"train.output={tmp_path}"))
    file = root / "annotations" / "instances_train.json"
    content = json.loads(file.read_text())
    content["annotations"][0]["bbox"][2] -= 2
    file.write_text(json.dumps(content))
    before = file_digest(folder / "last.pt")
    with pytest.raises(CheckpointError, match=r"instances_train\.json is not what this run was trained on"):
        resume_run(folder)
    assert file_digest(folder / "last.pt") == before
    stop_after(None)
    assert resume_run(folder, [f"data.root={tiny_shapes}"]) == 0  # the same data elsewhere is the same data


def test_resuming_with_what_was_changed_behind_its_back_is_refused(tiny_shapes, tiny_config, tmp_path, stop_after):
    root = tmp_path / "shapes"
    shutil.copytree(tiny_shapes, root)
    stop_after(2)
    folder, _ = start_run(tiny_config(root, f"train.output={tmp_path}"))
    val = root / "annotations" / "instances_val.json"
    content = json.loads(val.read_text())
    content["annotations"][0]["bbox"][2] -= 2
    config = json.loads((folder / "config.json").read_text())
    config["optimizer"]["lr"] *= 2
    image, turned = sorted((root / "train").iterdir())[0], io.BytesIO()
    Image.open(image).rotate(180).save(turned, "JPEG")
    changes = [
        (folder / "config.json", json.dumps(config).encode(), r"optimizer\.lr was .* and is "),
        (val, json.dumps(content).encode(), r"instances_val\.json is not what this run was scored on"),
        (image, turned.getvalue(), "images below .* are not those that this run was trained on"),
    ]
    for path, other, message in changes:
        before = path.read_bytes()
        path.write_bytes(other)
        with pytest.raises(CheckpointError, match=message):
            resume_run(folder)
        path.write_bytes(before)
    stop_after(None)
    assert resume_run(folder) == 0


@pytest.mark.parametrize("override", ["optimizer.lr=0.1", "schedule.epochs=9", "seed=3", "model.rho=0.5"])
def test_resuming_with_other_settings_is_refused(tiny_shapes, tiny_config, tmp_path, stop_after, override):
    stop_after(1)
    folder, _ = start_run(tiny_config(tiny_shapes, f"train.output={tmp_path}"))
    with pytest.raises(ConfigError, match="would change a run that has begun"):
        resume_run(folder, [override])


def test_resuming_what_is_no_run(tmp_path, tiny_shapes, tiny_config):
    with pytest.raises(CheckpointError, match="is not a run folder"):
        resume_run(tmp_path)
    config = tiny_config(tiny_shapes, f"train.output={tmp_path}", "schedule.epochs=1", "data.val_split=none")
    folder, _ = start_run(config)
    with pytest.raises(CheckpointError, match=str(folder)):
        resume_run(folder.parent)  # names the runs below
    with pytest.raises(CheckpointError, match=f"try --resume {str(folder)!r}"):
        resume_run(folder / "last.pt")


def test_a_picture_that_vanishes_ends_the_run_with_its_name(tiny_shapes, tiny_config, tmp_path, monkeypatch):
    root = tmp_path / "shapes"
    shutil.copytree(tiny_shapes, root)
    start_epoch = fit_module.Reporter.start_epoch

    def lose_a_picture(self, progress):
        (root / "train" / "000003.jpg").unlink(missing_ok=progress.epoch == 0)
        start_epoch(self, progress)

    monkeypatch.setattr(fit_module.Reporter, "start_epoch", lose_a_picture)
    with pytest.raises(DataError, match=r"000003\.jpg"):
        start_run(tiny_config(root, f"train.output={tmp_path}"))


def test_long_epochs_are_saved_in_their_middle(tiny_shapes, tiny_config, tmp_path, monkeypatch):
    monkeypatch.setattr(fit_module, "SAVE_SECONDS", -1)
    saved = []
    save = fit_module.Run.save_last
    monkeypatch.setattr(
        fit_module.Run, "save_last", lambda run: saved.append((run.progress.epoch, run.progress.batch)) or save(run)
    )
    start_run(tiny_config(tiny_shapes, f"train.output={tmp_path}", "data.val_split=none"))
    assert saved == [(0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 0)]


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "2", "RANK": "2"}, {"RANK": "x"}])
def test_half_of_what_torchrun_sets_is_refused_before_a_folder_is_made(
    tiny_shapes, tiny_config, tmp_path, monkeypatch, variables
):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="WORLD_SIZE="):
        start_run(tiny_config(tiny_shapes, f"train.output={tmp_path / 'runs'}"))
    assert not (tmp_path / "runs").exists()


def test_a_limit_takes_the_first_pictures_of_both_splits(tiny_shapes, tiny_config, tmp_path):
    config = tiny_config(tiny_shapes, f"train.output={tmp_path}", "data.limit=3", "schedule.epochs=1")
    folder, status = start_run(config)
    assert status == 0
    assert json.loads((folder / "metrics.json").read_text())["images"] == 3


def test_times_of_before_a_resume_are_kept(tiny_shapes, tiny_config, tmp_path, stop_after):
    def epochs():
        with (folder / "timing.csv").open() as file:
            return [row["epoch"] for row in csv.DictReader(file)]

    stop_after(8)  # asked six times in an epoch: three steps, its end, one batch of scoring, the end of that
    folder, _ = start_run(tiny_config(tiny_shapes, f"train.output={tmp_path}"))
    assert epochs() == ["1"]
    stop_after(None)
    assert resume_run(folder) == 0
    assert epochs() == ["1", "2"]


@pytest.mark.skipif(os.name != "posix", reason="sockets with paths")
def test_no_short_folder_for_the_sockets_of_workers_is_reported_before_a_run_folder_is_made(
    tiny_config, tiny_shapes, tmp_path, monkeypatch
):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="TMPDIR"):
        start_run(tiny_config(tiny_shapes, f"train.output={tmp_path / 'runs'}", "data.workers=1"))
    assert not (tmp_path / "runs").exists()

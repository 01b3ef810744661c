"""Runs that start from other weights than fresh ones."""

import io
import json
import re
import shutil
import sys

import numpy as np
import pytest
import torch

import mobiledet.training.run as run_module
import mobiledet.training.start as launch
from mobiledet.config import (
    AugmentConfig,
    Config,
    DataConfig,
    ModelConfig,
    ScheduleConfig,
    SSDConfig,
    TrainConfig,
    apply_overrides,
    load_config,
)
from mobiledet.errors import ConfigError
from mobiledet.models.build import build_detector
from mobiledet.models.layers import ConvNormAct
from mobiledet.models.quantization import trained_ranges
from mobiledet.runtime.detector import Detector
from mobiledet.structures import Target
from mobiledet.training.complete import complete
from mobiledet.training.start import resume_run, start_run
from mobiledet.weights.checkpoint import load_checkpoint, save_checkpoint
from mobiledet.weights.tflite.mobilenet import FoldedConv, folded_state


@pytest.fixture(autouse=True)
def _no_curves(monkeypatch):
    monkeypatch.setattr("mobiledet.training.reporting.plot_history", lambda *arguments: None)


@pytest.fixture
def folded(tiny_config, tmp_path):
    """A checkpoint as an import makes it: norms folded, classes of its own, one of them also in the shapes."""
    config = tiny_config(tmp_path, "model.num_classes=2", "model.mean=(128, 128, 128)", "model.std=(128, 128, 128)")
    torch.manual_seed(1)
    model = build_detector(config.model)
    for name, module in model.named_modules():
        if isinstance(module, ConvNormAct):
            layer = FoldedConv(module.conv.weight.detach().clone(), torch.rand(module.conv.out_channels), 0)
            model.load_state_dict(folded_state(name, layer, module.norm.eps), strict=False)
    categories = [{"id": 1, "name": "Circle"}, {"id": 2, "name": "teapot"}]
    content = {"config": config.plain(), "categories": categories, "model": model.state_dict(), "ema": None}
    save_checkpoint(tmp_path / "old.pt", {"mobiledet": "0", **content, "folded": True})
    return tmp_path / "old.pt"


def recipe(tiny_config, tiny_shapes, tmp_path, *overrides):
    return tiny_config(tiny_shapes, f"train.output={tmp_path / 'runs'}", *overrides)


def test_a_run_starts_from_the_weights_and_says_what_became_of_them(tiny_config, tiny_shapes, tmp_path, folded, caplog):
    caplog.set_level("INFO", "mobiledet")
    config = recipe(tiny_config, tiny_shapes, tmp_path, f"model.init={folded}", "schedule.epochs=1")
    folder, status = start_run(config)
    assert status == 0
    resolved = json.loads((folder / "config.json").read_text())["model"]
    assert resolved["mean"] == [128, 128, 128]
    assert "rebuilt for 8 classes: 7 from the mean of all" in caplog.text
    assert "1 carried over (circle)" in caplog.text
    assert "35 batch-norm layers restored and re-estimated on 12 images" in caplog.text
    assert load_checkpoint(folder / "best.pt")["config"]["model"]["init"] == str(folded)


def test_a_bar_shows_that_norms_are_measured(tiny_config, tiny_shapes, tmp_path, folded, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(launch.Run, "fit", lambda run: True)
    start_run(recipe(tiny_config, tiny_shapes, tmp_path, f"model.init={folded}"))
    assert re.search(r"norms.*\b0/1 ", terminal.getvalue())


def test_without_a_step_the_model_still_computes_what_it_did(tiny_config, tiny_shapes, tmp_path, folded, monkeypatch):
    """Restored or folded: in evaluation mode the norms make no difference."""
    run = None

    def keep(**arguments):
        nonlocal run
        run = original(**arguments)
        monkeypatch.setattr(run, "fit", lambda: True)
        return run

    original = launch.Run
    monkeypatch.setattr(launch, "Run", keep)
    start_run(recipe(tiny_config, tiny_shapes, tmp_path, f"model.init={folded}"))
    old = load_checkpoint(folded)
    before = build_detector(run.config.model.model_copy(update={"num_classes": 2, "init": None}))
    before.load_state_dict(old["model"])
    after, x = run.model.eval(), torch.randint(0, 255, (2, 3, 64, 80), dtype=torch.uint8)
    a, b = before.eval().features(x)["conv13"], after.features(x)["conv13"]
    assert torch.allclose(a, b, atol=3e-5)
    averaged = run.average.state_dict(run.model)
    assert all(torch.equal(averaged[name], value) for name, value in run.model.state_dict().items())


def test_it_resumes_exactly_and_without_the_weights(tiny_config, tiny_shapes, tmp_path, folded, monkeypatch):
    straight, _ = start_run(recipe(tiny_config, tiny_shapes, tmp_path, f"model.init={folded}", "name=straight"))

    class StopOnce:
        signal, exit_status, looks = 2, 130, 0

        def __bool__(self):
            self.looks += 1
            return self.looks >= 4

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    with monkeypatch.context() as patch:
        patch.setattr(launch, "StopRequest", StopOnce)
        stopped, status = start_run(recipe(tiny_config, tiny_shapes, tmp_path, f"model.init={folded}", "name=stopped"))
    assert status == 130
    folded.unlink()
    assert resume_run(stopped) == 0
    a, b = (load_checkpoint(folder / "last.pt") for folder in (straight, stopped))
    for part in ("model", "ema"):
        assert all(torch.equal(a[part][name], b[part][name]) for name in a[part])


class Images(list):
    """As much of a data set as completing a config looks at."""

    num_classes, annotation_file, names = 2, "train.json", ("left arrow", "right arrow")


class Image:
    def __init__(self, height, width):
        self.height, self.width = height, width


@pytest.mark.parametrize(("count", "epochs"), [(1, 100), (205, 59), (606, 20), (118_000, 8)])
def test_epochs_follow_from_the_number_of_images(count, epochs):
    data = Images([None] * count)
    chosen = Config(schedule=ScheduleConfig(epochs=None, pictures=12_000))
    assert complete(chosen, data).schedule.num_epochs == epochs
    assert complete(Config(schedule=ScheduleConfig(epochs=3)), data).schedule.num_epochs == 3
    with pytest.raises(ValueError, match="isn't chosen"):
        _ = chosen.schedule.num_epochs


@pytest.mark.parametrize(("count", "wanted"), [(20, 600), (205, None), (118_000, 1), (3_000, 4)])
def test_epochs_beyond_the_limits_are_reported(caplog, count, wanted):
    caplog.set_level("INFO", "mobiledet")
    complete(Config(schedule=ScheduleConfig(epochs=None, pictures=12_000)), Images([None] * count))
    assert (f"schedule.epochs={wanted} " in caplog.text) is (wanted is not None)
    caplog.clear()
    complete(Config(schedule=ScheduleConfig(epochs=500)), Images([None] * count))
    assert "schedule" not in caplog.text


def test_classes_that_are_each_other_in_a_mirror_are_not_mirrored_unless_asked_for(caplog):
    caplog.set_level("INFO", "mobiledet")
    data = Images([None])
    for augment in (AugmentConfig(crop=0.9), AugmentConfig.light()):
        config = Config(data=DataConfig(augment=augment))
        assert complete(config, data).data.augment == augment.model_copy(update={"flip": 0.0})
    assert "'left arrow' is 'right arrow' in a mirror" in caplog.text
    asked = apply_overrides(config, ["data.augment.flip=0.5"])
    assert complete(asked, data).data.augment.flip == 0.5
    data.names = ("arrow", "right")
    assert complete(config, data).data.augment.flip == 0.5


def test_the_chosen_epochs_are_recorded(tiny_config, tiny_shapes, tmp_path):
    config = recipe(tiny_config, tiny_shapes, tmp_path, "schedule.epochs=none", "schedule.pictures=96")
    folder, _ = start_run(config)
    assert json.loads((folder / "config.json").read_text())["schedule"]["epochs"] == 8
    assert len((folder / "results.csv").read_text().splitlines()) == 9


@pytest.mark.parametrize(
    ("shape", "expected"), [((480, 640), (256, 352)), ((64, 640), (208, 432)), ((90, 90), (304, 304))]
)
def test_the_input_takes_the_shape_of_the_images(shape, expected):
    train = Images([Image(*shape), Image(*shape), Image(640, 100)])
    model = complete(Config(model=ModelConfig(match_aspect=True)), train).model
    assert (model.input_size, model.match_aspect) == (expected, False)
    assert complete(Config(), train).model.input_size == Config().model.input_size


@pytest.mark.parametrize(
    ("sides", "labels", "wanted"),
    [
        ([80] * 9 + [40], [1] * 10, True),  # 600 pixels become 300, where half of the smallest anchor's area is 21 x 21
        ([80] * 9 + [44], [1] * 10, False),
        ([80] * 10 + [40], [1] * 11, False),
        ([80] * 8 + [40], [1] * 8 + [2], True),  # all of one class
        ([], [], False),
    ],
)
def test_a_fine_map_is_added_where_a_tenth_of_the_objects_is_small(caplog, sides, labels, wanted):
    caplog.set_level("INFO", "mobiledet")
    boxes = np.array([(10, 10, 10 + side, 10 + side) for side in [*sides, 10]], np.float32)
    crowd = np.arange(len(boxes)) == len(sides)  # a small one that doesn't count
    image = Image(600, 600)
    image.target = Target(boxes, np.array([*labels, 1], np.int64), crowd)
    for asked, given in (("auto", wanted), (True, True), (False, False)):
        config = Config(model=ModelConfig(head=SSDConfig(fine_map=asked)))
        assert complete(config, Images([image])).model.head.fine_map is given
    assert ("fine_map added" in caplog.text) == wanted


def test_a_model_of_another_width_is_refused_before_anything_is_made(tiny_config, tiny_shapes, tmp_path, folded):
    config = recipe(tiny_config, tiny_shapes, tmp_path, f"model.init={folded}", "model.backbone.alpha=0.5")
    with pytest.raises(ConfigError, match=r"alpha is 0\.5"):
        start_run(config)
    assert not (tmp_path / "runs").exists()


def test_the_recipe_for_ones_own_pictures_runs(checkout, tiny_shapes, tmp_path, folded):
    """As it stands but for its length, from a checkpoint of alpha 0.25, on data without a validation split."""
    root = shutil.copytree(tiny_shapes, tmp_path / "data")
    (root / "annotations/instances_val.json").unlink()
    config = load_config(checkout / "configs/finetune_ssd.py")
    assert isinstance(config, Config)
    words = [f"data.root={root}", f"model.init={folded}", "schedule.epochs=1", "data.workers=0", "train.threads=1"]
    folder, status = start_run(apply_overrides(config, [*words, f"train.output={tmp_path / 'runs'}"]))
    assert status == 0
    assert (folder / "best.pt").exists()
    assert (folder / "metrics.json").exists()


def test_faster_rcnn_starts_from_an_ssd(tiny_config, tiny_shapes, tmp_path, folded, caplog):
    caplog.set_level("INFO", "mobiledet")
    words = ["model.head.kind=faster_rcnn", "model.head.crop_size=4", "model.head.proposals=20", "schedule.epochs=1"]
    folder, status = start_run(recipe(tiny_config, tiny_shapes, tmp_path, f"model.init={folded}", *words))
    assert status == 0
    assert "second stage      loaded" in caplog.text
    assert "proposal network  fresh" in caplog.text
    assert "27 batch-norm layers restored and re-estimated on 12 images" in caplog.text
    detector = Detector(folder, threads=1)
    assert detector.card.head == "faster_rcnn"
    assert detector(np.full((72, 96, 3), 90, np.uint8)).boxes.shape[1] == 4

    caplog.clear()
    again = f"model.init={folder}"
    assert start_run(recipe(tiny_config, tiny_shapes, tmp_path, again, *words[:1], words[3], "name=again"))[1] == 0
    assert "proposal network  loaded" in caplog.text
    assert "class predictor   loaded: all 8 classes are known by name" in caplog.text
    assert "box predictor     loaded" in caplog.text
    assert json.loads((folder.parents[1] / "again/1/config.json").read_text())["model"]["head"]["crop_size"] == 4


@pytest.mark.parametrize(
    ("quantize", "epochs", "in_float"),
    [(False, 10, 10), (True, 10, 8), (True, 2, 1), (True, 1, 0), (3, 10, 7), (20, 10, 0)],
)
def test_how_many_epochs_round_as_int8_does(quantize, epochs, in_float):
    config = Config(schedule=ScheduleConfig(epochs=epochs), train=TrainConfig(quantize=quantize))
    assert config.float_epochs == in_float


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.head.kind=faster_rcnn"], "not of mobilenet_v1 with faster_rcnn"),
        (["model.mean=(124, 116, 104)"], "one mean and one deviation"),
        (["schedule.patience=1", "schedule.epochs=5"], "schedule.patience=1 could end training before"),
    ],
)
def test_rounding_that_cannot_be_is_refused_before_the_run(tiny_config, tiny_shapes, tmp_path, overrides, words):
    with pytest.raises(ConfigError, match=words):
        start_run(recipe(tiny_config, tiny_shapes, tmp_path, "train.quantize=true", *overrides))
    assert not (tmp_path / "runs").exists()


def test_the_best_is_chosen_among_the_epochs_that_round(tiny_config, tiny_shapes, tmp_path, monkeypatch):
    aps, score = iter([0.9, 0.8, 0.1, 0.3, 0.2]), run_module.score_detections

    def scripted(*arguments, **options):
        metrics = score(*arguments, **options)
        object.__setattr__(metrics, "AP", next(aps))
        return metrics

    monkeypatch.setattr(run_module, "score_detections", scripted)
    folder, _ = start_run(recipe(tiny_config, tiny_shapes, tmp_path, "schedule.epochs=5", "train.quantize=3"))
    best = load_checkpoint(folder / "best.pt")
    assert best["epoch"] == 4
    assert trained_ranges(Detector(folder / "best.pt").backend.model) == {
        name: tuple(bounds) for name, bounds in best["ranges"].items()
    }
    assert json.loads((folder / "metrics.json").read_text())["AP"] == 0.3


@pytest.mark.parametrize("head", ["ssd", "ssdlite", "fpn"])
def test_a_finished_run_is_trained_on_for_int8(tiny_config, tiny_shapes, tmp_path, head):
    overrides = [f"model.head.kind={head}", "optimizer.name=adamw", "optimizer.lr=0.002"]
    if head == "fpn":  # else no object is as small as its finest anchors
        overrides.append("model.head.scale_min=0.3")
    first, _ = start_run(recipe(tiny_config, tiny_shapes, tmp_path, *overrides))
    more = ["train.quantize=2", "train.precision=bfloat16", "train.freeze_stages=14", "train.freeze_norm=true"]
    second, status = start_run(
        recipe(tiny_config, tiny_shapes, tmp_path, *overrides, *more, f"model.init={first / 'best.pt'}")
    )
    assert status == 0
    old, new = (load_checkpoint(folder / "best.pt") for folder in (first, second))
    assert (old["ranges"], len(new["ranges"]) > 40) == (None, True)
    for name, tensor in new["model"].items():
        stands_still = name.startswith("backbone.") or name.endswith(("running_mean", "running_var", "tracked"))
        assert torch.equal(tensor, old["model"][name]) == stands_still, name

"""Classification end to end: a teacher, a student that sees unlabelled images, top-1, an exported file."""

import shutil

import numpy as np
import pytest
from programs import mobiledet_in_process

from mobiledet.config import apply_overrides, load_config
from mobiledet.data.opening import open_split
from mobiledet.draw.boxes import write_image
from mobiledet.errors import ConfigError
from mobiledet.evaluation.scoring import top_one
from mobiledet.runtime.detector import Detector
from mobiledet.training.start import start_run
from mobiledet.utils.settings import ReadingConfig
from mobiledet.weights.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def colours(tmp_path_factory):
    """Images of noise that is mostly red, green or blue: 8 of each to train on, 4 to score on."""
    root = tmp_path_factory.mktemp("classify") / "colours"
    rng = np.random.default_rng(0)
    for channel, name in enumerate(("red", "green", "blue")):
        for number in range(12):
            image = rng.integers(0, 120, (30, 40, 3), np.uint8)
            image[..., channel] += 100
            write_image(root / ("val" if number < 4 else "train") / name / f"{number}.png", image)
    return root


def recipe(checkout, root, output, *overrides):
    small = [
        f"data.root={root}",
        f"train.output={output}",
        "data.workers=0",
        "model.init=none",
        "model.backbone.alpha=0.25",
        "model.input_size=32",
        "optimizer.backbone_lr_scale=1",
        "schedule.batch_size=8",
        "schedule.warmup_steps=2",
        "optimizer.lr=0.01",
        "train.ema_decay=0.8",
        "model.backbone.norm_momentum=0.2",
        "schedule.val_every=100",
        "train.threads=1",
        "train.precision=float32",
    ]
    return apply_overrides(load_config(checkout / "configs/classify.py"), [*small, *overrides])


@pytest.fixture(scope="module")
def teacher(checkout, colours):
    config = recipe(checkout, colours, colours.parent / "runs", "schedule.epochs=15")
    folder, status = start_run(config)
    assert status == 0
    return folder


def test_it_learns_and_is_scored(teacher, colours):
    recorded = mobiledet_in_process("eval", teacher, "--workers", 0).stdout
    top = float(recorded.rsplit("class: ", 1)[1])
    assert top > 0.6
    assert recorded == mobiledet_in_process("eval", teacher, "--workers", 0, "--data", colours).stdout


def test_a_student_learns_from_images_without_labels(checkout, teacher, colours, tmp_path):
    taught = [f"train.teacher={teacher}", f"data.unlabelled={colours / 'val'}", "schedule.epochs=1"]
    folder, status = start_run(recipe(checkout, colours, tmp_path, *taught))
    assert status == 0
    count = sum(1 for _ in colours.rglob("*.png"))
    assert load_checkpoint(folder / "last.pt")["training"]["progress"]["step"] == -(-count // 8)


def test_a_teacher_of_other_classes_is_refused(checkout, teacher, colours, tmp_path):
    shutil.copytree(colours, tmp_path / "set")
    for split in ("train", "val"):
        (tmp_path / "set" / split / "red").rename(tmp_path / "set" / split / "unheard of")
    taught = [f"train.teacher={teacher}", f"data.unlabelled={colours / 'val'}"]
    with pytest.raises(ConfigError, match="unheard of"):
        start_run(recipe(checkout, tmp_path / "set", tmp_path / "runs", *taught))
    assert not (tmp_path / "runs").exists()


def test_it_is_exported(teacher, colours, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from mobiledet.exporters.base import ExportOptions
    from mobiledet.exporters.exporting import export_model

    export_model(teacher, tmp_path / "classifier.onnx", ExportOptions(threads=1))
    image = next(colours.rglob("*.png"))
    one, other = Detector(teacher)(image), Detector(tmp_path / "classifier.onnx")(image)
    assert one.labels.tolist() == other.labels.tolist()
    assert other.scores == pytest.approx(one.scores, abs=1e-3)


def test_top_one_is_the_share_of_images_whose_best_class_is_theirs(tiny_shapes, colours):
    dataset = open_split(colours, "val", reading=ReadingConfig(classes_of="images"))

    def found(index, right, score):
        own = dataset.labels(index)[0] - 1
        category = dataset.categories[own if right else (own + 1) % dataset.num_classes].id
        return {"image_id": dataset.image_id(index), "category_id": category, "score": score}

    results = [found(0, False, 0.2), found(0, True, 0.3), found(1, True, 0.2), found(1, False, 0.3)]
    assert top_one(results, dataset) == pytest.approx(1 / len(dataset))  # in the others nothing is found
    several = open_split(tiny_shapes, "val")
    several = several.subset([i for i in range(len(several)) if len(set(several.labels(i).tolist())) > 1])
    assert len(several)
    assert top_one([], several) is None

"""Distillation: what a teacher finds becomes targets, of labelled images and of others, and stays what it was."""

import json
import shutil

import numpy as np
import pytest
import torch

from mobiledet.data.opening import open_data
from mobiledet.detections import Detections
from mobiledet.errors import CheckpointError, ConfigError, DataError, ImageError
from mobiledet.structures import Target
from mobiledet.training.hooks import Hooks
from mobiledet.training.start import resume_run, start_run
from mobiledet.training.teacher import LEAST_SCORE, TEACHER_FILE, merge, taught_images, teach
from mobiledet.weights.checkpoint import load_checkpoint
from tests.tiny_detectors import HEADS, make_images, tiny_detector

LEFT, RIGHT, AWAY = (0, 0, 20, 40), (50, 0, 70, 40), (0, 60, 10, 90)


def found(*objects):
    """Detections of ``(box, label, score)``, best first."""
    boxes, labels, scores = zip(*objects, strict=True) if objects else ((), (), ())
    return Detections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32), np.array(labels, int))


def labelled(*objects):
    boxes, labels = zip(*objects, strict=True)
    return Target(np.array(boxes, np.float32), np.array(labels, np.int64), np.zeros(len(boxes), bool))


def test_classes_on_one_object_become_one_box_with_several_scores():
    boxes, scores = merge([found((LEFT, 3, 0.8), ((1, 0, 20, 40), 1, 0.5), (RIGHT, 1, 0.3))], [[0, 1, 2]], 3)
    np.testing.assert_allclose(boxes, [LEFT, RIGHT])
    np.testing.assert_allclose(scores, [[0.5, 0, 0.8], [0.3, 0, 0]])


def test_teachers_are_averaged_and_know_classes_by_their_own_numbers():
    one, other = found((LEFT, 1, 0.9)), found(((0, 0, 24, 40), 2, 0.3), (RIGHT, 1, 0.15))
    boxes, scores = merge([one, other], [[1], [-1, 1]], 2)
    np.testing.assert_allclose(boxes, [(0, 0, 21, 40)])  # weighted 3 to 1; the other's class 1 is none of ours
    np.testing.assert_allclose(scores, [[0, 0.6]], rtol=1e-6)


def test_what_few_teachers_hardly_see_is_left_out():
    boxes, scores = merge([found((LEFT, 1, LEAST_SCORE * 1.9)), found()], [[0], [0]], 1)
    assert boxes.shape == (0, 4)
    assert scores.shape == (0, 1)


def test_labels_keep_their_boxes_and_share_their_scores_with_the_teacher():
    boxes = np.array([(1, 0, 20, 40), AWAY], np.float32)
    scores = np.array([[0.6, 0.2], [0, 0.8]], np.float32)
    target = teach(labelled((LEFT, 1), (RIGHT, 2)), boxes, scores, 0.5)
    np.testing.assert_allclose(target.boxes, [LEFT, RIGHT, AWAY])
    np.testing.assert_allclose(target.scores, [[0.8, 0.1], [0, 1], [0, 0.4]], rtol=1e-6)
    assert target.labels.tolist() == [1, 2, 2]


def test_a_teacher_without_weight_changes_nothing():
    boxes, scores = np.array([LEFT, AWAY], np.float32), np.array([[0, 0.9], [0.9, 0]], np.float32)
    target = teach(labelled((LEFT, 1)), boxes, scores, 0.0)
    assert target.boxes.tolist() == [list(LEFT)]
    assert target.scores.tolist() == [[1, 0]]


@pytest.mark.parametrize("head", HEADS)
def test_scores_of_labels_are_the_loss_of_labels_and_lower_ones_are_mixed_with_background(head):
    model, _ = tiny_detector(head)
    images = torch.from_numpy(make_images(2)).permute(0, 3, 1, 2)
    plain = [
        {"boxes": torch.tensor([[5.0, 5, 40, 50], [50, 10, 90, 60]]), "labels": torch.tensor([1, 3])},
        {"boxes": torch.tensor([[10.0, 20, 60, 60]]), "labels": torch.tensor([2])},
    ]

    def losses(score):
        targets = plain
        if score is not None:
            one_hot = (torch.nn.functional.one_hot(target["labels"] - 1, 3) for target in plain)
            targets = [{**target, "scores": score * row} for target, row in zip(plain, one_hot, strict=True)]
        torch.manual_seed(0)  # of the samples
        return {name: loss.item() for name, loss in model.losses(images, targets).items()}

    assert losses(1.0) == pytest.approx(losses(None), rel=1e-5)
    # Cross-entropy is linear in what it is to give; in SSD it is divided by the sum of the objects' scores.
    whole, most, half = (
        losses(score)["classification"] * (1 if head == "faster_rcnn" else score) for score in (1.0, 0.75, 0.5)
    )
    assert whole - most == pytest.approx(most - half, rel=1e-3)
    assert abs(whole - most) > 1e-3


@pytest.fixture(scope="module")
def teacher(tiny_shapes, tiny_config, tmp_path_factory):
    """A run of a few epochs, and a folder of its val images as unlabelled ones, a broken one among them."""
    folder = tmp_path_factory.mktemp("teacher")
    config = tiny_config(tiny_shapes, f"train.output={folder}", "schedule.epochs=20", "train.ema_decay=0.5")
    run, _ = start_run(config)
    others = folder / "others"
    others.mkdir()
    for image in sorted((tiny_shapes / "val").iterdir()):
        (others / image.name).write_bytes(image.read_bytes())
    (others / "broken.jpg").write_bytes(b"\xff\xd8 nothing")
    return run, others


def student(tiny_config, root, teacher, output, *overrides):
    run, others = teacher
    return tiny_config(
        root, f"train.output={output}", f"train.teacher={run / 'best.pt'}", f"data.unlabelled={others}", *overrides
    )


def test_a_student_sees_labelled_and_unlabelled_images(tiny_shapes, tiny_config, teacher, tmp_path, caplog):
    config = student(tiny_config, tiny_shapes, teacher, tmp_path, "model.head.kind=ssdlite", "data.workers=1")
    folder, status = start_run(config)
    assert status == 0
    train = open_data(config.data).train
    images = taught_images(train, folder / TEACHER_FILE)
    assert len(images) == 12 + 4  # the broken one is left out, and named
    assert "broken.jpg" in caplog.text
    assert [images[index].image_id for index in (12, 15)] == [-1, -4]
    assert images.read(12).shape == (images[12].height, images[12].width, 3)
    for index in range(12):
        labels, taught = train[index].target, images[index].target
        np.testing.assert_array_equal(taught.boxes[: len(labels)], labels.boxes)
        np.testing.assert_array_equal(taught.labels[: len(labels)], labels.labels)
        assert taught.scores.shape == (len(taught), train.num_classes)
    assert load_checkpoint(folder / "last.pt")["training"]["progress"]["step"] == 2 * (12 + 4) / 4


def test_a_resumed_student_ends_as_if_never_stopped(tiny_shapes, tiny_config, teacher, tmp_path):
    whole, _ = start_run(student(tiny_config, tiny_shapes, teacher, tmp_path / "whole"))
    stop_at_3 = Hooks(on_step=lambda row: row["step"] != 3)
    folder, _ = start_run(student(tiny_config, tiny_shapes, teacher, tmp_path / "stopped"), hooks=stop_at_3)
    kept = (folder / TEACHER_FILE).stat().st_mtime_ns
    resume_run(folder)
    assert (folder / TEACHER_FILE).stat().st_mtime_ns == kept  # the teacher isn't asked again
    ends = [load_checkpoint(run / "last.pt")["model"] for run in (whole, folder)]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_other_images_are_noticed_on_resume(tiny_shapes, tiny_config, teacher, tmp_path):
    run, others = teacher
    copies = tmp_path / "others"
    copies.mkdir()
    for image in others.iterdir():
        (copies / image.name).write_bytes(image.read_bytes())
    config = student(tiny_config, tiny_shapes, (run, copies), tmp_path / "runs")
    folder, _ = start_run(config, hooks=Hooks(on_step=lambda row: False))
    first = sorted(copies.iterdir())[0]
    first.write_bytes(first.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match=first.name):
        resume_run(folder)


@pytest.mark.parametrize(
    ("overrides", "error", "names"),
    [
        (["train.teacher=none"], ConfigError, "train.teacher"),
        (["data.unlabelled=no/such/folder"], ImageError, "no/such/folder"),
        (["train.teacher=no_such.pt"], Exception, "no_such.pt"),
    ],
)
def test_wrong_settings_are_refused(tiny_shapes, tiny_config, teacher, tmp_path, overrides, error, names):
    with pytest.raises(error, match=names):
        start_run(student(tiny_config, tiny_shapes, teacher, tmp_path / "runs", *overrides))
    assert not (tmp_path / "runs").exists()


def test_a_teacher_must_know_the_classes(tiny_shapes, tiny_config, teacher, tmp_path):
    root = tmp_path / "renamed"
    shutil.copytree(tiny_shapes, root)

    def rename(*names):
        for split in ("train", "val"):
            file = root / "annotations" / f"instances_{split}.json"
            content = json.loads(file.read_text())
            for category, name in zip(content["categories"], names, strict=False):
                category["name"] = name
            file.write_text(json.dumps(content))
        return len(content["categories"])

    rename("unheard of")
    with pytest.raises(ConfigError, match="unheard of"):  # unlabelled images would teach that there are none
        start_run(student(tiny_config, root, teacher, tmp_path))
    config = student(tiny_config, root, teacher, tmp_path, "data.unlabelled=none")
    assert start_run(config)[1] == 0
    rename(*(f"new {number}" for number in range(10)))
    with pytest.raises(DataError, match="new 0"):
        start_run(config)


def test_an_own_function_cannot_carry_scores(tiny_shapes, tiny_config, teacher, tmp_path):
    hooks = Hooks(augment=lambda image, boxes, labels, rng: (image, boxes, labels))
    with pytest.raises(ConfigError, match="augmentation"):
        start_run(student(tiny_config, tiny_shapes, teacher, tmp_path), hooks=hooks)

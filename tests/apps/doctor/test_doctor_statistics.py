from __future__ import annotations

import numpy as np
import pytest

from mobiledet.apps.doctor.collection import collect
from mobiledet.apps.doctor.report import Level
from mobiledet.apps.doctor.statistics import describe_classes, describe_sizes, describe_splits, is_near_spelling
from mobiledet.config import ModelConfig
from mobiledet.data.coco import load_coco
from mobiledet.errors import DataError


def test_counts_of_every_split(make):
    train = [
        ("a.jpg", make.image(40, 60, 1), [(1, 0, 0, 20, 10), (2, 20, 5, 30, 30)]),
        ("b.jpg", make.image(50, 30, 2), []),
    ]
    make({"train": train, "val": [("c.jpg", make.image(40, 60, 3), [(2, 1, 1, 20, 10)])]}, crowds=[1])
    collection = make.collect("val", "train")
    assert collection.splits == ("train", "val")
    assert collection.counts.tolist() == [1, 0, 1]  # crowds left aside
    assert collection.class_counts().tolist() == [[1, 0], [0, 1]]
    assert collection.sizes.tolist() == [[40, 60], [50, 30], [40, 60]]
    assert collection.place(2) == "val/c.jpg"
    np.testing.assert_array_equal(collection.boxes[1], [20, 5, 50, 35])
    data = describe_splits(collection).data
    assert data["train"]["background_pictures"] == 1
    assert data["train"]["crowd_or_ignored_boxes"] == 1
    assert data["train"]["boxes_per_picture"] == {"mean": 0.5, "median": 0.5, "max": 1}


def test_splits_with_other_classes_are_refused(make):
    train = make({"train": [("a.jpg", make.image(40, 60, 1), [(1, 0, 0, 20, 10)])]})
    val = make({"val": [("a.jpg", make.image(40, 60, 1), [])]}, names=["cat", "cow"])
    with pytest.raises(DataError, match="'val' has other classes than 'train'"):
        collect({"train": load_coco(train, "train"), "val": load_coco(val, "val")})


def test_a_val_split_without_boxes_is_a_fault_and_a_missing_one_only_advice(make):
    one = [("a.jpg", make.image(40, 60, 1), [(1, 0, 0, 20, 10)])]
    make({"train": one, "val": [("b.jpg", make.image(40, 60, 2), [])], "test": one})
    codes = make.findings(describe_splits(make.collect("train", "val", "test")))
    assert codes["no-boxes-val"].kind.level is Level.FAULT
    assert "no-boxes-train" not in codes
    codes = make.findings(describe_splits(make.collect("train", "test")))
    assert codes["no-val"].text == "there is no split 'val', only train, test"
    assert codes["no-val"].kind.level is Level.ADVICE
    assert make.findings(describe_splits(make.collect("val", "test")))["no-train"].kind.level is Level.FAULT


def test_classes_that_splits_lack(make):
    many = [(1, 2 * i, 0, 10, 20) for i in range(12)]
    train = [("a.jpg", make.image(40, 60, 1), [*many, (3, 0, 0, 9, 30)])]
    val = [("b.jpg", make.image(40, 60, 2), [(1, 0, 0, 20, 10), (2, 20, 5, 30, 30)])]
    make({"train": train, "val": val, "test": val}, names=["black-bishop", "pawn", "bishop", "king"])
    codes = make.findings(describe_classes(make.collect("train", "val", "test")))
    assert codes["class-unused"].places == ("king",)
    assert codes["class-not-in-train-val"].kind.level is Level.FAULT
    assert codes["class-not-in-train-val"].places == ("pawn (1)",)
    assert codes["class-not-in-train-test"].kind.level is Level.ADVICE
    assert codes["class-not-in-val"].places == ("bishop (1)",)
    assert codes["class-rare"].places == ("bishop (1) [a typo for black-bishop?]",)
    assert "class-names-alike" not in codes


def test_names_of_the_two_sides_are_reported(make):
    one = {"train": [("a.jpg", make.image(40, 60, 1), [(1, 0, 0, 20, 10)])]}
    make(one, names=["left arrow", "right arrow"])
    assert any("in a mirror" in line for line in describe_classes(make.collect("train")).parts)


def test_names_that_differ_by_case_or_by_a_typo(make):
    names = ["Hard Hat", "hard_hat", "helmet", "helmt", "猫", "собака"]
    make({"train": [("a.jpg", make.image(40, 60, 1), [(1, 0, 0, 20, 10)])]}, names=names)
    codes = make.findings(describe_classes(make.collect("train")))
    assert codes["class-names-same"].kind.level is Level.FAULT
    assert codes["class-names-same"].places == ("'Hard Hat' (1) and 'hard_hat' (0)",)
    assert codes["class-names-alike"].places == ("'helmet' (0) and 'helmt' (0)",)


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("helmet", "helment", True),
        ("bottle", "bottel", True),
        ("person", "persons", True),
        ("bishop", "black-bishop", False),
        ("zone 1", "zone 2", False),
        ("RBC", "WBC", False),
        ("horse", "morse", False),
        ("white-pawn", "black-pawn", False),
        ("fork", "forks", False),
    ],
)
def test_near_spelling(one, other, near):
    assert is_near_spelling(one, other) is near
    assert is_near_spelling(other, one) is near


def test_wide_images_squeezed_to_a_square_get_an_input_of_their_own(make):
    make({"train": [(f"{i}.jpg", make.image(60, 180, i), [(1, 0, 0, 20, 10)]) for i in range(3)]})
    section = describe_sizes(make.collect("train"), ModelConfig(input_size=(96, 96)))
    assert section.data["width / height"] == {"min": 3.0, "median": 3.0, "max": 3.0}
    assert section.data["squeezed"] == 1.0
    advice = make.findings(section)["squeezed"]
    assert "mostly wide ones into 96 x 96" in advice.text
    assert advice.remedy.startswith("model.match_aspect=true ")
    assert make.findings(describe_sizes(make.collect("train"), ModelConfig(input_size=(60, 180)))) == {}


def test_more_objects_than_a_detector_gives_are_reported(make):
    boxes = [(1, i % 60, i // 60, 20, 10) for i in range(12)]
    make({"train": [("a.jpg", make.image(40, 90, 1), boxes), ("b.jpg", make.image(40, 60, 2), boxes[:3])]})
    collection = make.collect("train")
    found = make.findings(describe_splits(collection, 11))["many-objects"]
    assert (found.places, found.kind.level) == (("train/a.jpg",), Level.ADVICE)
    assert "model.postprocess.max_detections=" in found.remedy
    assert "many-objects" not in make.findings(describe_splits(collection, 12))

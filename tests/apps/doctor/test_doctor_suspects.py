from __future__ import annotations

import numpy as np
import pytest

from mobiledet.apps.doctor.duplicates import Duplicates, Pair
from mobiledet.apps.doctor.report import Level
from mobiledet.apps.doctor.suspects import find_suspects, find_unlabelled
from mobiledet.detections import Detections
from mobiledet.errors import DataError


def suspects_of(collection, pairs=()):
    found = find_suspects(collection, Duplicates(list(pairs), [], np.zeros(len(collection), np.bool_)))
    return found, {finding.code: finding for finding in found.section.findings}


def test_a_image_without_boxes_is_suspect_only_where_nearly_all_have_some(make):
    images = [(f"{i:02}.png", make.image(40, 60, i), [(1, i, 2, 20, 10)] if i else []) for i in range(25)]
    make({"train": images})
    found, codes = suspects_of(make.collect("train"))
    assert codes["without-boxes-train"].places == ("train/00.png",)
    assert [suspect.row for suspect in found.images] == [0]
    make({"train": images[:5]})
    assert "without-boxes-train" not in suspects_of(make.collect("train"))[1]


def test_copies_labelled_differently(make):
    two = [(1, 0, 0, 20, 10), (2, 20, 5, 30, 30)]
    make({"train": [("a.png", make.image(40, 60, 1), two), ("b.png", make.image(40, 60, 1), two[:1])]})
    _, codes = suspects_of(make.collect("train"), [Pair(0, 1, False, 0.0)])
    assert codes["copy-with-more"].places == ("train/b.png (1, its copy train/a.png 2)",)


def test_one_object_labelled_twice(make):
    train = [
        ("two.png", make.image(40, 60, 1), [(1, 5, 5, 30, 20), (2, 5, 5, 30, 20.5)]),
        ("same.png", make.image(40, 60, 2), [(1, 5, 5, 30, 20), (1, 5.5, 5, 30, 20)]),
        ("beside.png", make.image(40, 60, 3), [(1, 5, 5, 30, 20), (1, 15, 5, 30, 20)]),
    ]
    make({"train": train})
    found, codes = suspects_of(make.collect("train"))
    assert codes["two-classes"].places == ("train/two.png (cat and dog)",)
    assert codes["labelled-twice"].places == ("train/same.png (cat)",)
    assert [len(suspect.marked) for suspect in found.images] == [2, 2]


def test_boxes_over_the_whole_image(make):
    whole, parts = (1, 0, 0, 60, 40), [(2, 5, 5, 20, 10), (2, 30, 5, 20, 12)]
    make({"train": [("a.png", make.image(40, 60, 1), [whole]), ("b.png", make.image(40, 60, 2), parts)]})
    found, codes = suspects_of(make.collect("train"))
    assert codes["whole-picture"].kind.level is Level.NOTE
    assert [suspect.row for suspect in found.images] == [0]
    np.testing.assert_array_equal(found.images[0].marked, [[0, 0, 60, 40]])
    make({"train": [(f"{i}.png", make.image(40, 60, i), [whole]) for i in range(3)]})
    codes = suspects_of(make.collect("train"))[1]
    assert "classification" in codes["whole-picture"].remedy


def test_placeholder_boxes(make):
    points = [(1, 3 * i, i, 12, 8) for i in range(12)]
    real = [(2, 3 * i, i, 12, 8 + i % 2) for i in range(12)]
    make({"train": [("a.png", make.image(40, 60, 1), points + real)]})
    assert suspects_of(make.collect("train"))[1]["placeholders"].places == ("cat (12 of 12 x 8)",)


def detections(*rows, names=("dog", "CAT", "cow")):
    boxes = np.array([row[:4] for row in rows], np.float32).reshape(-1, 4)
    scores, labels = (np.array([row[i] for row in rows]) for i in (4, 5))
    return Detections(boxes, scores.astype(np.float32), labels.astype(np.int64), names)


def test_a_model_finds_what_no_label_covers(make):
    make({"train": [("a.png", make.image(40, 60, 1), [(1, 0, 0, 20, 20), (2, 40, 0, 20, 40)])]}, crowds=[1])
    seen = detections(
        (0, 1, 20, 20, 0.9, 1),  # labelled, if under another class
        (22, 20, 38, 38, 0.8, 2),  # unlabelled, of a class that only upper and lower case distinguish
        (22, 2, 30, 12, 0.4, 1),  # not sure
        (22, 2, 32, 14, 0.9, 3),  # a class the data doesn't have
        (42, 5, 58, 15, 0.9, 1),  # in a crowd
    )
    found = find_unlabelled(make.collect("train"), lambda image: seen, ("dog", "CAT", "cow"))
    assert found.section.data["by_class"] == {"CAT": 1}
    [suspect] = found.images
    np.testing.assert_array_equal(suspect.detections.boxes, [[22, 20, 38, 38]])
    [finding] = found.section.findings
    assert (finding.kind.level, finding.places) == (Level.ADVICE, ("train/a.png",))


def test_a_model_with_other_classes_is_refused(make):
    make({"train": [("a.png", make.image(40, 60, 1), [(1, 0, 0, 20, 20)])]})
    with pytest.raises(DataError, match="no class in common; name a model"):
        find_unlabelled(make.collect("train"), lambda image: detections(), ("cow", "sheep"))

from __future__ import annotations

import cv2
import numpy as np
import pytest

from mobiledet.apps.doctor.duplicates import Pair
from mobiledet.apps.doctor.report import Code
from mobiledet.apps.doctor.sheets import (
    CELL,
    MOST_COLORS,
    LabelStyle,
    choose_samples,
    duplicate_sheet,
    sample_sheet,
    scale_to_cell,
    suspect_sheet,
)
from mobiledet.apps.doctor.suspects import Suspect
from mobiledet.detections import Detections
from mobiledet.structures import Target


def test_samples_show_every_class_and_the_extremes(make):
    common = [(f"{i}.png", make.image(60, 90, i), [(1, 5, 5, 20 + i, 20)]) for i in range(12)]
    rare = [
        ("rare.png", make.image(60, 90, 20), [(2, 5, 5, 20, 20)]),
        ("tiny.png", make.image(60, 90, 21), [(1, 5, 5, 3, 3)]),
    ]
    make({"train": common, "val": [*rare, ("large.png", make.image(60, 90, 22), [(1, 0, 0, 90, 60)])]})
    chosen = choose_samples(make.collect("train", "val"), 4)
    assert len(set(chosen)) == 4
    assert {12, 13, 14} <= set(chosen)


def test_samples_of_ninety_classes_cover_them_with_few_images(make):
    names = [f"class {i}" for i in range(90)]
    boxes = [(k + 1, 3 * k % 60, 2 * (k // 2) % 40, 8, 12) for k in range(90)]
    train = [(f"{i:02}.png", make.image(60, 90, i), boxes[i * 5 : i * 5 + 5]) for i in range(18)]
    make({"train": train}, names=names)
    assert sorted(choose_samples(make.collect("train")))[:18] == list(range(18))
    assert sample_sheet(make.collect("train")).shape[1] == 4 * CELL[1]


@pytest.mark.parametrize("size", [(4000, 6000), (3, 5), (20, 900), (90, 140)])
def test_boxes_keep_their_place_whatever_the_images_size(size):
    height, width = size
    target = Target(np.array([[0, 0, width / 2, height]], np.float32), np.array([1]), np.array([False]))
    small, scaled, factors = scale_to_cell(np.zeros((*size, 3), np.uint8), target)
    assert small.shape[0] <= CELL[0]
    assert small.shape[1] <= CELL[1]
    np.testing.assert_allclose(scaled.boxes, [[0, 0, small.shape[1] / 2, small.shape[0]]], atol=1e-3)
    np.testing.assert_allclose(target.boxes * factors, scaled.boxes)


def test_few_classes_have_colours_of_their_own_and_many_have_names():
    names = [f"class {i}" for i in range(40)]
    few = LabelStyle(names, [1] * MOST_COLORS + [0] * 24, crowds=False)
    entries = few.legend()
    assert len({color for color, _ in entries}) == len(entries) == MOST_COLORS
    assert entries[0][1] == "class 0 (1)"
    many = LabelStyle(names, [1] * 40, crowds=True)
    assert not many.by_color
    assert len(many.legend()) == 2
    image = np.zeros((200, 300, 3), np.uint8)
    boxes = np.array([[20, 30, 200, 150], [210, 30, 290, 150]], np.float32)
    target = Target(boxes, np.array([1, 2]), np.array([False, True]))
    colored = few.draw(image, target)
    assert (colored[90, 18:22] == few.legend()[0][0]).all(axis=1).any()
    assert not image.any()
    assert (many.draw(image, target)[90, 18:22] == 255).all(axis=1).any()


def test_sheets_show_what_is_in_question(make):
    make({"train": [("a.png", make.image(60, 90, 1), [(1, 5, 5, 20, 20)]), ("b.png", make.image(90, 60, 1), [])]})
    collection = make.collect("train")
    marked = np.array([[5, 5, 25, 25]], np.float32)
    found = Detections(marked + 20, np.array([0.9], np.float32), np.array([2]), ("cow", "dog"))
    suspects = [Suspect(0, Code.LABELLED_TWICE, "twice", marked), Suspect(1, Code.WITHOUT_BOXES, "no boxes")]
    with_marks = suspect_sheet(collection, suspects)
    assert with_marks.shape[1] == 2 * CELL[1]
    assert (with_marks == (255, 96, 0)).all(axis=2).sum() > 1000
    unlabelled = Suspect(0, Code.UNLABELLED, "1 unlabelled?", detections=found)
    assert suspect_sheet(collection, [unlabelled]).shape[1] == CELL[1]
    assert duplicate_sheet(collection, [Pair(0, 1, False, 0.1)]).shape[1] == 2 * CELL[1]
    assert suspect_sheet(collection, []) is None
    assert duplicate_sheet(collection, []) is None


def test_a_sheet_leaves_out_what_has_gone(make):
    make({"train": [("a.png", make.image(60, 90, 1), [(1, 5, 5, 20, 20)]), ("b.png", make.image(60, 90, 2), [])]})
    collection = make.collect("train")
    (make.root / "train" / "a.png").unlink()
    assert sample_sheet(collection).shape[1] == CELL[1]
    assert duplicate_sheet(collection, [Pair(0, 1, False, 0.1)]) is not None
    (make.root / "train" / "b.png").unlink()
    assert sample_sheet(collection) is None


def test_a_cell_is_drawn_at_its_own_scale(make):
    """A box 1 % of a large image thick is still a clear line on the sheet."""
    make({"train": [("a.jpg", make.image(2000, 3000, 1) // 4, [(1, 300, 300, 1500, 900)])]})
    page = sample_sheet(make.collect("train"))
    red = (np.abs(page[: CELL[0]].astype(int) - (255, 13, 13)).max(axis=2) < 20).sum()
    assert red > 1000
    assert cv2.imencode(".jpg", page)[0]

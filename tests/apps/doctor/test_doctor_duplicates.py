from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest

from mobiledet.apps.doctor.duplicates import (
    MAX_DIFFERENCE,
    Pair,
    describe_duplicates,
    find_duplicates,
    groups_of,
    thumb_difference,
)
from mobiledet.apps.doctor.image_facts import describe_images, read_facts
from mobiledet.apps.doctor.report import Level

BOX = [(1, 5, 5, 40, 20)]


def search(make, *splits):
    collection = make.collect(*splits)
    facts = read_facts(collection)
    return collection, facts, find_duplicates(collection, facts)


def scene(piece=None, height=240, width=320):
    """A board on a table from a tripod, with a light piece on the field ``piece`` (row, column)."""
    image = np.full((height, width, 3), (200, 195, 190), np.uint8)
    for row in range(8):
        for column in range(8):
            shade = (60, 100, 80) if (row + column) % 2 else (220, 215, 180)
            image[20 + 25 * row : 45 + 25 * row, 60 + 25 * column : 85 + 25 * column] = shade
    if piece is not None:
        y, x = 20 + 25 * piece[0], 60 + 25 * piece[1]
        cv2.ellipse(image, (x + 12, y + 10), (5, 14), 0, 0, 360, (245, 245, 240), cv2.FILLED)
    noise = np.random.default_rng(7).normal(0, 2, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


def changed(image, how):
    height, width = image.shape[:2]
    if how == "jpeg":
        return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 30])[1], cv2.IMREAD_COLOR)
    if how == "smaller":
        return cv2.resize(image, (width // 2, height // 2), interpolation=cv2.INTER_AREA)
    if how == "squeezed":
        return cv2.resize(image, (150, 150), interpolation=cv2.INTER_AREA)
    factor = {"brighter": 1.15, "darker": 0.8}[how]
    return np.clip(image * factor, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("how", ["jpeg", "smaller", "squeezed", "brighter", "darker"])
def test_a_changed_copy_is_found(make, how):
    photo = make.image(120, 180, 2) // 2 + 60  # no glaring colours, which clip one by one when made brighter
    originals = [("a.png", make.image(120, 180, 1), BOX), ("b.png", photo, BOX), ("s.png", scene((3, 3)), BOX)]
    copies = [("c.png", changed(photo, how), BOX), ("t.png", changed(scene((3, 3)), how), BOX)]
    make({"train": originals, "val": copies})
    collection, _, duplicates = search(make, "train", "val")
    assert [(pair.first, pair.second, pair.same_file) for pair in duplicates.pairs] == [(1, 3, False), (2, 4, False)]
    section = describe_duplicates(collection, duplicates)
    assert make.findings(section)["same-near-across"].kind.level is Level.FAULT
    assert make.findings(section)["same-near-across"].places == ("train/b.png = val/c.png", "train/s.png = val/t.png")
    assert len(section.data["groups"]) == 2


def test_a_piece_moved_is_another_image_of_the_same_view(make):
    other = [("a.png", scene((2, 5)), BOX), ("x.png", make.image(240, 320, 1), BOX)]
    make({"train": [("b.png", scene((2, 6)), BOX), ("c.png", scene(), BOX)], "val": other})
    collection, facts, duplicates = search(make, "train", "val")
    assert duplicates.pairs == []
    assert duplicates.seen_in_train.tolist() == [False, False, True, False]
    assert make.findings(describe_duplicates(collection, duplicates))["same-view-val"].kind.level is Level.NOTE
    difference = thumb_difference(facts.thumbs[0], facts.thumbs[2])
    assert difference > MAX_DIFFERENCE
    assert difference == pytest.approx(thumb_difference(facts.thumbs[2], facts.thumbs[0]), rel=0.2)


def test_the_same_file_within_and_between_splits(make):
    train = [("a.jpg", make.image(60, 90, 1), BOX), ("b.jpg", make.image(60, 90, 2), BOX)]
    make({"train": train, "val": [("c.jpg", make.image(60, 90, 3), BOX)]})
    for copy in ("train/b.jpg", "val/c.jpg"):
        shutil.copy(make.root / "train" / "a.jpg", make.root / copy)
    collection, _, duplicates = search(make, "train", "val")
    assert [(pair.first, pair.second) for pair in duplicates.pairs if pair.same_file] == [(0, 1), (0, 2)]
    codes = make.findings(describe_duplicates(collection, duplicates))
    assert codes["same-content-across"].kind.level is Level.FAULT
    assert codes["same-content-within"].kind.level is Level.ADVICE
    assert groups_of(duplicates.pairs) == [[0, 1, 2]]


def test_plain_images_are_the_same_only_at_the_same_brightness(make):
    plain = [(f"{v}.png", np.full((60, 90, 3), v, np.uint8), BOX) for v in (0, 30, 31, 128, 255)]
    make({"train": plain[:3], "val": plain[3:]})
    collection, facts, duplicates = search(make, "train", "val")
    assert [(pair.first, pair.second) for pair in duplicates.pairs] == [(1, 2)]
    assert not duplicates.seen_in_train.any()
    assert len(make.findings(describe_images(collection, facts))["picture-plain"].places) == 5


def test_augmented_copies_of_one_photograph_must_not_cross(make):
    names = ("board_jpg.rf.1a.jpg", "board_jpg.rf.2b.jpg", "other_jpg.rf.3c.jpg")
    train = [(name, make.image(60, 90, i), BOX) for i, name in enumerate(names)]
    make({"train": train, "val": [("board_jpg.rf.9z.jpg", make.image(60, 90, 9), BOX)]})
    collection, _, duplicates = search(make, "train", "val")
    assert duplicates.augmented == [[0, 1, 3]]
    assert duplicates.pairs == []
    assert make.findings(describe_duplicates(collection, duplicates))["augmented-across"].kind.level is Level.FAULT
    collection, _, duplicates = search(make, "train")
    codes = make.findings(describe_duplicates(collection, duplicates))
    assert codes["augmented"].text.startswith("2 images are augmented copies of 1 photograph")
    assert "augmented-across" not in codes


def test_groups_join_what_hangs_together():
    pairs = [Pair(a, b, False, 0.1) for a, b in ((4, 5), (1, 2), (2, 4), (7, 9))]
    assert groups_of(pairs) == [[1, 2, 4, 5], [7, 9]]


def test_odd_images_are_read_and_broken_ones_reported(make):
    noise = np.random.default_rng(0).integers(0, 256, (4, 300, 400, 3)).astype(np.uint8)
    blurred, huge = make.image(300, 400, 5), make.image(2100, 3000, 6)
    grey = np.repeat(make.image(60, 90, 8)[..., :1], 3, axis=2)
    smooth = [("blurred.png", blurred, BOX), ("grey.png", grey, BOX), ("huge.jpg", huge, BOX)]
    make({"train": [*((f"{i}.png", sharp, BOX) for i, sharp in enumerate(noise)), *smooth]})
    collection = make.collect("train")
    (make.root / "train" / "0.png").write_bytes(b"no image")
    facts = read_facts(collection)
    assert facts.readable.tolist() == [False] + [True] * 6
    codes = make.findings(describe_images(collection, facts))
    assert codes["unreadable"].kind.level is Level.FAULT
    assert "0.png is not a JPEG" in codes["unreadable"].places[0]
    assert codes["picture-blurred"].places == ("train/blurred.png", "train/grey.png", "train/huge.jpg")
    assert find_duplicates(collection, facts).pairs == []

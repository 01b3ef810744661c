from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest

from mobiledet.config import ReadingConfig
from mobiledet.data.checks import read_json
from mobiledet.data.faults import Fault, Severity
from mobiledet.data.formats.choose import read_dataset
from mobiledet.data.images import read_image, verify_images
from mobiledet.errors import DataError, ImageError

ROW = "0 0.5 0.5 0.5 0.25"
BOX = [15, 15, 30, 10]  # of ROW in an image of 40 x 60 (height x width)
YAML = "names: [cat, dog]\ntrain: train/images\nval: valid/images\n"


def kinds(imported) -> dict[str, int]:
    return dict(imported.log.counts)


def test_shares_become_pixels_of_the_image(folder, boxes_of) -> None:
    folder.write("data.yaml", "names: [cat, dog]\ntrain: images\n")
    folder.yolo("a", f"{ROW}\n1 0.25 0.5 0.1 0.2\n")
    imported = folder.read()
    assert (imported.format, list(imported.splits)) == ("yolo", ["train"])
    train = imported.splits["train"]
    assert (train.names, [c.id for c in train.categories]) == (("cat", "dog"), [1, 2])
    assert boxes_of(train) == {"a.jpg": [("cat", BOX), ("dog", [12, 16, 6, 8])]}
    assert (train[0].path, train.image_dir) == (folder.root / "images/a.jpg", folder.root)
    assert (train[0].height, train[0].width) == (40, 60)
    assert imported.log.lines() == []
    assert "repaired" not in train.report.summary()


@pytest.mark.parametrize(
    ("images", "texts", "train", "val"),
    [
        ("{}/images", "{}/labels", "train/images", "valid/images"),
        ("{}/images", "{}/labels", "../train/images", "../valid/images"),  # Roboflow
        ("images/{}", "labels/{}", "images/train", "images/valid"),
        ("images/{}", "labels/{}", "/content/drive/set/images/train", "D:\\set\\images\\valid"),
        ("images/{}", "labels/{}", "[images/train]", "[images/valid, images/gone]"),
        ("{}", "{}", "train", "valid"),
        ("{}", "{}/labels", "train/", "./valid/"),
        ("{}", "labels/{}", "train", "valid"),
        ("images/{}", "labels/{}", "train.txt", "lists/val.txt"),
        ("a/{}/images/x/y", "a/{}/labels/x/y", "a/train", "a/valid"),
    ],
)
@pytest.mark.parametrize("path", ["", "path: .\n", "path: /content/set\n", "path: ../datasets/set\n"])
def test_layouts(folder, boxes_of, images: str, texts: str, train: str, val: str, path: str) -> None:
    for split in ("train", "valid"):
        folder.yolo(split, ROW, images.format(split), texts.format(split))
    folder.write("train.txt", "./images/train/train.jpg\n\n")
    folder.write("lists/val.txt", "C:\\set\\images\\valid\\valid.jpg\r\n/data/images/gone.jpg\r\n")
    folder.write("data.yaml", f"{path}names:\n  0: cat\ntrain: {train}\nval: {val}\ntest:\n")
    splits = folder.read().splits
    assert {name: boxes_of(data) for name, data in splits.items()} == {
        "train": {"train.jpg": [("cat", BOX)]},
        "val": {"valid.jpg": [("cat", BOX)]},
    }


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("images/one", "images/two"),
        ("[images/one]", "[images/two, images/gone]"),
        ("/content/set/images/one", "E:\\set\\images\\two"),
        ("one.txt", "[two.txt]"),
        ("../../images/one", "./images/two/"),
    ],
)
def test_folders_whose_names_tell_nothing(folder, train: str, val: str) -> None:
    for part in ("one", "two", "three"):
        folder.yolo(part, ROW, f"images/{part}", f"labels/{part}")
        folder.write(f"{part}.txt", f"images/{part}/{part}.jpg")
    folder.write("data.yaml", f"names: [cat]\ntrain: {train}\nval: {val}\n")
    splits = folder.read().splits
    assert {n: [p.path.stem for p in data] for n, data in splits.items()} == {"train": ["one"], "val": ["two"]}


@pytest.mark.parametrize("images", ["{}/images", "images/{}", "{}", "images/{}2017"])
@pytest.mark.parametrize("beside", ["", "train: /nowhere\nval: /nowhere/else\n"])
def test_layouts_without_a_yaml_that_helps(folder, images: str, beside: str) -> None:
    for split in ("train", "valid"):
        place = images.format(split)
        folder.yolo(split, ROW, place, place.replace("images", "labels"))
    folder.image("docs/shown.jpg")
    folder.write("data.yaml", f"names: [cat]\n{beside}")
    imported = folder.read()
    assert {name: [p.path.stem for p in data] for name, data in imported.splits.items()} == {
        "train": ["train"],
        "val": ["valid"],
    }
    assert kinds(imported)[Fault.NO_SPLIT_FOLDER] == 1


def test_a_folder_without_splits_is_for_training(folder) -> None:
    folder.yolo("a", ROW, ".", ".")
    folder.write("classes.txt", "cat\r\ndog \r\n")
    imported = folder.read()
    assert {name: len(data) for name, data in imported.splits.items()} == {"train": 1}
    assert imported.splits["train"].names == ("cat", "dog")


def test_darknet(folder) -> None:
    folder.yolo("a", ROW, "obj_train_data", "obj_train_data")
    folder.yolo("b", ROW, "obj_train_data", "obj_train_data")
    folder.write("obj.names", "cat\n")
    folder.write("train.txt", "data/obj_train_data/a.jpg\n")
    folder.write("test.txt", "data/obj_train_data/b.jpg\n")
    imported = folder.read()
    assert {n: [p.path.stem for p in data] for n, data in imported.splits.items()} == {"train": ["a"], "test": ["b"]}
    assert imported.splits["train"].names == ("cat",)


def test_pictures_outside_of_the_folder(folder, tmp_path: Path, boxes_of) -> None:
    folder.yolo("a", ROW)
    (folder.root / "images").rename(tmp_path / "images")
    (folder.root / "labels").rename(tmp_path / "labels")
    folder.write("data.yaml", f"names: [cat]\ntrain: {tmp_path / 'images'}\n")
    with pytest.raises(DataError, match="leads out of"):
        folder.read()
    imported = folder.read(reading=ReadingConfig(outside=True))
    assert boxes_of(imported.splits["train"]) == {"a.jpg": [("cat", BOX)]}
    assert imported.splits["train"][0].path.resolve() == tmp_path / "images/a.jpg"
    assert kinds(imported) == {Fault.IMAGE_OUTSIDE: 1}


def test_links_to_pictures_are_followed(folder, tmp_path: Path) -> None:
    folder.yolo("a", ROW)
    (folder.root / "images/a.jpg").rename(tmp_path / "store.jpg")
    (folder.root / "images/a.jpg").symlink_to(tmp_path / "store.jpg")
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    (folder.root / "loop").symlink_to(folder.root)
    (record,) = folder.read().splits["train"]
    assert record.path.resolve() == tmp_path / "store.jpg"


def test_links_to_one_file_are_one_image(folder, tmp_path: Path) -> None:
    for name, labels in {"a": ROW, "b": ROW, "c": "0 0.2 0.2 0.1 0.1"}.items():
        folder.yolo(name, labels)
    for name in ("b.jpg", "c.jpg"):
        (folder.root / "images" / name).unlink()
    (folder.root / "images/b.jpg").symlink_to(folder.root / "images/a.jpg")
    (folder.root / "images/c.jpg").symlink_to("b.jpg")
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    imported = folder.read()
    (record,) = imported.splits["train"]
    assert len(record.target.boxes) == 2
    assert imported.log.counts[Fault.LISTED_TWICE] == 2


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("[cat, dog]", ("cat", "dog")),
        ("{0: cat, 1: dog}", ("cat", "dog")),
        ('{"1": dog, "0": cat}', ("cat", "dog")),
        ("\n  0: cat\n  7: dog", ("cat", "dog")),
        ("\n- no\n- 1e3", ("no", "1e3")),
        ("[12, 007]", ("12", "007")),
        ("[' black  cat', dog]", ("black cat", "dog")),
        ("['', dog]", ("class_0", "dog")),
        ("[cat, cat]", ("cat",)),
        ("[Größe, 猫]", ("Größe", "猫")),
        ('["cat\\e[31m\\e]0;x\\a", "d\\u202eog"]', ("cat[31m]0;x", "dog")),
    ],
)
def test_names(folder, names: str, expected: tuple[str, ...]) -> None:
    folder.write("data.yaml", f"names: {names}\ntrain: images\n")
    folder.yolo("a", ROW)
    assert folder.read().splits["train"].names == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("names: cat dog", ["data.yaml", "names is the text 'cat dog'", "[cat, dog]"]),
        ("names: {cat: 0}", ["the key 'cat'", "the other way round"]),
        ("names: {a: b}", ["the key 'a'"]),
        ("names: [cat, [dog]]", ["name of class 1 is a list"]),
        ("names: [cat", ["is not YAML"]),
    ],
)
def test_names_that_can_not_be_meant(folder, text: str, words: list[str]) -> None:
    folder.write("data.yaml", f"{text}\ntrain: images\n")
    folder.yolo("a", ROW)
    with pytest.raises(DataError) as caught:
        folder.read()
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_tags_in_a_yaml_run_nothing(folder, tmp_path: Path) -> None:
    folder.write("data.yaml", f"names: !!python/object/apply:os.system ['touch {tmp_path}/x']\ntrain: images\n")
    folder.yolo("a", ROW)
    assert folder.read().splits["train"].names == (f"touch {tmp_path}/x",)
    assert not (tmp_path / "x").exists()


def test_a_yaml_that_multiplies_itself_is_harmless(folder) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    folder.write("data.yaml", "\n".join([*lines, "names: *a11", "train: images"]))
    folder.yolo("a", ROW)
    with pytest.raises(DataError, match="the name of class 0 is a list"):
        folder.read()


def test_no_names_at_all(folder) -> None:
    folder.yolo("a", "3 0.5 0.5 0.5 0.5\n0 0.5 0.5 0.2 0.2\n")
    imported = folder.read()
    assert imported.splits["train"].names == ("class_0", "class_3")
    assert kinds(imported) == {Fault.NAME_INVENTED: 1}


@pytest.mark.parametrize("entry", ["x" * 3000, "~nobody/images", "/".join("x" * 2000), '"images\\0"'])
def test_paths_that_no_system_takes(folder, entry: str) -> None:
    folder.write("data.yaml", f"path: {entry}\nnames: [cat]\ntrain: images\nval: {entry}\ntest: list.txt\n")
    folder.write("list.txt", f"{'y' * 3000}.jpg\nz\0.jpg\nimages/a.jpg\n")
    folder.yolo("a", ROW)
    imported = folder.read()
    assert list(imported.splits) == ["train", "test"]
    assert kinds(imported)[Fault.SPLIT_ABSENT] == 2
    assert kinds(imported)[Fault.ENTRY_LONE] == 2


def test_several_yaml_files(folder) -> None:
    folder.yolo("a", ROW)
    for name in ("one.yaml", "two.yaml"):
        folder.write(name, f"names: [{name[:3]}]\ntrain: images\n")
    folder.write("hyp.yaml", "lr0: 0.01\n")
    with pytest.raises(DataError, match=r"several yaml files with class names: one\.yaml, two\.yaml"):
        folder.read()
    assert read_dataset(folder.root / "two.yaml").splits["train"].names == ("two",)
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    assert folder.read().splits["train"].names == ("cat",)


@pytest.mark.parametrize(
    ("row", "box", "kind"),
    [
        (ROW, BOX, None),
        ("0.0 0.5 0.5 0.5 0.25", BOX, Fault.CLASS_FRACTION),
        ("0 .5 5e-1 0.5 +0.25", BOX, None),
        ("0\t0.5  0.5 0.5 0.25 ", BOX, None),
        (f"{ROW} 0.87", BOX, Fault.CONFIDENCE),
        ("0 0.25 0.375 0.75 0.375 0.75 0.625", BOX, Fault.POLYGON),
        ("0 0.25 0.375 0.75 0.375 0.75 0.625 0.25 0.5", BOX, Fault.POLYGON),  # turned boxes
        ("0 0.5 0.5 1.1 0.25", [0, 15, 60, 10], Fault.BOX_CLIPPED),
        ("0 0.5 0.5 1.000001 0.25", [-0.0, 15, 60, 10], None),
        ("0 1.2 0.5 0.2 0.25", None, Fault.BOX_OUTSIDE),
        ("0 0.5 0.5 0 0.25", None, Fault.BOX_FLAT),
        ("0 0.5 0.5 -0.1 0.25", None, Fault.BOX_FLAT),
        ("0 0.5 0.5 0.001 0.25", None, Fault.BOX_SMALL),
        ("0 30 20 30 10", BOX, Fault.BOX_FROM_PIXELS),
        ("0 15 15 45 25", BOX, Fault.BOX_FROM_PIXELS),  # corners: as a centre it would stick out
        ("0 15 15 45 10", None, Fault.BOX_IN_PIXELS),
        ("1 0.5 0.5 0.5 0.5", None, Fault.ROW_NAMELESS),
        ("-1 0.5 0.5 0.5 0.5", None, Fault.ROW_NAMELESS),
        ("0.5 0.5 0.5 0.5 0.5", None, Fault.ROW_NO_BOX),
        ("cat 0.5 0.5 0.5 0.5", None, Fault.ROW_NO_BOX),
        ("0 0.5 0.5 0.5", None, Fault.ROW_NO_BOX),
        ("0 0.5 0.5 nan 0.5", None, Fault.ROW_NO_BOX),
        ("0,0.5,0.5,0.5,0.5", None, Fault.ROW_NO_BOX),
        ("0 0.5 0.5 0.5 0.5 0.1 0.1 0.1", None, Fault.ROW_NO_BOX),
        ("<html>", None, Fault.ROW_NO_BOX),
    ],
)
def test_rows(folder, boxes_of, row: str, box: list[float] | None, kind: Fault | None) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    folder.yolo("ok", "0 0.5 0.5 1 1")
    folder.yolo("a", f"\n{row}\n")
    imported = folder.read()
    found = boxes_of(imported.splits["train"])
    assert found["ok.jpg"] == [("cat", [0, 0, 60, 40])]
    assert found.get("a.jpg") == ([("cat", box)] if box else None)
    assert kinds(imported) == ({kind: 1} if kind else {}) | ({} if box else {Fault.IMAGE_EMPTIED: 1})
    if kind:
        assert imported.log.records[kind][0].place == "labels/a.txt, line 2"
        assert imported.log.severity(kind) is not Severity.NOTE or kind in (Fault.CONFIDENCE, Fault.KEYPOINTS)


def test_keypoints_are_told_from_polygons_by_the_yaml(folder, boxes_of) -> None:
    row = f"{ROW} 0.1 0.1 2 0.9 0.9 1"  # box and two points of three numbers: also 5 corners of a polygon
    folder.yolo("a", f"{row}\n{ROW.replace('0.25', '0.5')}\n{ROW} 0.5 0.5\n")
    folder.write("data.yaml", "names: [cat]\ntrain: images\nkpt_shape: [2, 3]\n")
    imported = folder.read()
    assert boxes_of(imported.splits["train"])["a.jpg"] == [("cat", BOX), ("cat", [15, 10, 30, 20])]
    assert kinds(imported) == {Fault.KEYPOINTS: 1, Fault.ROW_NO_BOX: 1}


FACE = "0 0.5 0.5 0.5 0.25 {} 0.4 0.45 0.6 0.45 0.5 0.5 -1 -1 0.6 0.58"
TRACK = "0 0.5 0.5 0.5 0.25 0.87 {}"
SEEN = "0 0.5 0.5 0.5 0.25 0.4 0.45 {} 0.6 0.45 0"
INSIDE = "0 0.75 0.75 0.25 0.25 0.7 0.7 0.8 0.7 0.75 0.8"
SMALL = "0 0.4 0.4 0.45 0.4 0.47 0.45 0.4 0.45"  # four points, or a box and two points in it
CORNERS = "0 0.25 0.375 0.75 0.625"
TOP_LEFT = "0 0 0.375 0.5 0.25"
TURNED = "0 0.5 0.5 0.5 0.25 {}"


@pytest.mark.parametrize(
    ("row", "kind", "box"),
    [
        (FACE.format(""), Fault.KEYPOINTS, BOX),
        (FACE.format("0.9"), Fault.KEYPOINTS, BOX),
        (TRACK.format(17), Fault.KEYPOINTS, BOX),
        (TRACK.format(1), Fault.KEYPOINTS, BOX),
        (SEEN.format(2), Fault.KEYPOINTS, BOX),
        (SEEN.format(1), Fault.KEYPOINTS, BOX),
        (INSIDE, Fault.KEYPOINTS, [37.5, 25, 15, 10]),
        ("0 0.45 0.45 0.55 0.45 0.55 0.55 0.45 0.55", Fault.POLYGON, [27, 18, 6, 4]),
        ("0 0.25 0.375 0.75 0.375 0.75 0.625 0.3 0.6 0.25 0.5", Fault.POLYGON, BOX),
    ],
)
def test_what_more_numbers_than_four_mean(folder, boxes_of, row: str, kind: Fault, box: list[float]) -> None:
    folder.write("classes.txt", "cat")
    for name in "abc":
        folder.yolo(name, f"{row}\n0 0.1 0.1 0.2 0.2\n")
    imported = folder.read()
    assert boxes_of(imported.splits["train"])["a.jpg"] == [("cat", pytest.approx(box)), ("cat", [0, 0, 12, 8])]
    assert kinds(imported) == {kind: 3}


@pytest.mark.parametrize(
    ("row", "answers"),
    [
        (SMALL, {"polygon": [24, 16, 4.2, 2], "box": [10.5, 8, 27, 16]}),
        (CORNERS, {"corners": BOX, "box": [0, 2.5, 37.5, 25]}),
        (TOP_LEFT, {"top_left": [0, 15, 30, 10], "box": [0, 10, 15, 10]}),
        (TURNED.format(90), {"box": BOX}),
        (TURNED.format(-0.5), {"box": BOX}),
    ],
)
def test_rows_that_nobody_can_tell_are_asked_about(folder, boxes_of, row: str, answers: dict[str, list[float]]) -> None:
    folder.write("classes.txt", "cat")
    for name in "abc":
        folder.yolo(name, row)
    with pytest.raises(DataError) as caught:
        folder.read()
    assert "labels/a.txt, line 1" in str(caught.value)
    for answer, box in answers.items():
        assert f"rows={answer}" in str(caught.value)
        assert boxes_of(folder.read(reading=ReadingConfig(rows=answer)).splits["train"])["a.jpg"] == [("cat", box)]


PIXELS = "0 20 18 30 28"


@pytest.mark.parametrize(
    ("row", "few", "answers"),
    [
        (SMALL, 1, {"polygon": [24, 16, 4.2, 2], "box": [10.5, 8, 27, 16]}),
        (TURNED.format(90), 1, {"box": BOX}),
        (PIXELS, 1, {"box": [5, 4, 30, 28], "corners": [20, 18, 10, 10]}),
        (SMALL, 2, {}),
        (PIXELS, 2, {}),
    ],
)
def test_a_few_rows_that_nobody_can_tell_stop_nothing(
    folder, boxes_of, row: str, few: int, answers: dict[str, list[float]]
) -> None:
    folder.write("classes.txt", "cat")
    folder.yolo("a", f"{ROW}\n{row}\n0 0.1 0.1 0.2 0.2\n")
    for number in range(1, few):
        folder.yolo(f"b{number}", f"{row}\n" + 18 * few * "0 0.1 0.1 0.2 0.2\n")
    imported = folder.read()
    assert boxes_of(imported.splits["train"])["a.jpg"] == [("cat", BOX), ("cat", [0, 0, 12, 8])]
    assert imported.log.counts[Fault.ROW_UNCLEAR] == few
    record = imported.log.records[Fault.ROW_UNCLEAR][0]
    assert record.place == "labels/a.txt, line 2"
    for answer, box in answers.items():
        assert f"rows={answer}" in record.value
        answered = folder.read(reading=ReadingConfig(rows=answer))
        assert ("cat", box) in boxes_of(answered.splits["train"])["a.jpg"]
        assert answered.log.counts[Fault.ROW_UNCLEAR] == 0


@pytest.mark.parametrize("points", [3, 4, 12])
def test_polygons_of_any_place_and_size_are_polygons(folder, boxes_of, points: int) -> None:
    random = np.random.default_rng(points)
    folder.write("classes.txt", "cat")
    for number in range(20):
        turn = np.linspace(0, 6.28, points + number % 3, endpoint=False)[:, None] + [0, 1.57]
        shares = random.uniform(0.2, 0.8, 2) + random.uniform(0.03, 0.2, 2) * np.sin(turn)
        folder.yolo(f"{number}", "0 " + " ".join(f"{value:.5f}" for value in shares.ravel()))
        low, high = shares.min(0) * (60, 40), shares.max(0) * (60, 40)
        expected = [("cat", pytest.approx([*low, *(high - low)], abs=0.01))]
    assert boxes_of(folder.read().splits["train"])["19.jpg"] == expected


def test_each_folder_may_number_the_classes_its_own_way(folder, boxes_of) -> None:
    for split, names in (("train", "cat\ndog\n"), ("val", "dog\ncow\ncat")):
        folder.yolo(split, ROW, f"{split}/images", f"{split}/labels")
        folder.write(f"{split}/labels/classes.txt", names)
    imported = folder.read()
    assert [boxes_of(imported.splits[split])[f"{split}.jpg"][0][0] for split in ("train", "val")] == ["cat", "dog"]
    assert imported.splits["val"].names == ("cat", "dog", "cow")
    assert kinds(imported)[Fault.CATEGORY_UNIFIED] == 2
    folder.write("data.yaml", "names: [Cat, Dog]\n")
    with pytest.raises(DataError, match=r"class 0 of .*val.* is 'Cat' in .*data\.yaml, and 'dog' in .*classes\.txt"):
        folder.read()


def test_lists_of_names_elsewhere_must_agree(folder) -> None:
    folder.yolo("a", ROW)
    folder.write("one/obj.names", "cat\n")
    folder.write("two/classes.txt", "cat\ndog\n")
    assert folder.read().splits["train"].names == ("cat",)
    folder.write("two/classes.txt", "dog\ncat\n")
    with pytest.raises(DataError, match="class 0 of"):
        folder.read()


@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("gbk", ("安全帽", "反光衣", "人")),
        ("cp950", ("貓", "安全帽", "機車")),
        ("cp932", ("猫", "りんご", "トラック")),
        ("cp949", ("고양이", "소화기", "자동차", "사과")),
        ("cp1251", ("кошка", "собака", "машина")),
        ("latin-1", ("Größe", "café", "señal")),
    ],
)
def test_names_in_the_encodings_of_windows(folder, encoding: str, names: tuple[str, ...]) -> None:
    folder.yolo("a", "\n".join(ROW.replace("0", str(n), 1) for n in range(len(names))))
    folder.write("classes.txt", "\r\n".join(names).encode(encoding))
    imported = folder.read()
    assert imported.splits["train"].names == names
    assert kinds(imported) == {Fault.NAMES_DECODED: 1}
    folder.write("data.yaml", f"train: images\nnames: [{', '.join(names)}]\n".encode(encoding))
    assert folder.read().splits["train"].names == names


@pytest.mark.parametrize(
    ("image", "label", "kind"),
    [
        ("a", "a.TXT", None),
        ("my image", "my%20image.txt", Fault.LABELS_RENAMED),
        ("%E7%8C%AB", "猫.txt", Fault.LABELS_RENAMED),
        ("caf\u00e9", "cafe\u0301.txt", Fault.LABELS_RENAMED),
        ("cafe\u0301", "caf\u00e9.txt", Fault.LABELS_RENAMED),
        ("IMG_1", "img_1.txt", Fault.LABELS_RENAMED),
        ("a", "0f9e8d7c-a.txt", Fault.LABELS_RENAMED),  # Label Studio
        ("a", "a.jpg.txt", Fault.LABELS_RENAMED),
    ],
)
def test_names_of_labels_that_are_spelled_differently(folder, boxes_of, image: str, label: str, kind) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: list.txt\n")
    folder.yolo("ok", ROW)
    folder.image(f"images/{image}.jpg")
    folder.write(f"labels/{label}", ROW)
    folder.write("list.txt", f"images/ok.jpg\nimages/{label.partition('.')[0].removeprefix('0f9e8d7c-')}.jpg\n")
    imported = folder.read()
    assert boxes_of(imported.splits["train"]) == {"ok.jpg": [("cat", BOX)], f"{image}.jpg": [("cat", BOX)]}
    assert kinds(imported) == ({kind: 1} if kind else {})


def test_names_that_do_not_meet_are_no_background(folder) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    folder.yolo("ok", ROW)
    for number in range(3):
        folder.yolo(f"{number}", None)
        folder.write(f"labels/frame_{number}.txt", ROW)
    imported = folder.read()
    assert len(imported.splits["train"]) == 1
    assert kinds(imported) == {Fault.LABELS_LONE: 3, Fault.IMAGE_UNLABELLED: 3}
    assert len(folder.read(reading=ReadingConfig(doubtful="background")).splits["train"]) == 4


def test_a_yaml_that_names_some_of_the_images(folder) -> None:
    for number in range(8):
        folder.yolo(f"{number}", ROW, f"images/{number % 3}", f"labels/{number % 3}")
    folder.image("docs/shown.jpg")
    folder.yolo("frame", ROW, "more/frames", "more/labels")
    folder.write("elsewhere/lone.txt", ROW)
    folder.write("data.yaml", "names: [cat]\ntrain: images/0\n")
    imported = folder.read()
    assert len(imported.splits["train"]) == 3
    assert kinds(imported) == {Fault.NOT_LISTED: 6, Fault.LEFT_ASIDE: 1, Fault.LABELS_LONE: 1}


@pytest.mark.parametrize("listed", ["train: ../", "train: ..", "path: ..\ntrain: x/set", "train: other.txt"])
def test_a_data_file_does_not_lead_out_of_its_folder(folder, tmp_path: Path, monkeypatch, listed: str) -> None:
    folder.yolo("a", ROW)
    other = folder.__class__(tmp_path / "x" / "set")
    other.yolo("b", ROW)
    folder.write("other.txt", "../x/set/images/b.jpg\n")
    folder.write("data.yaml", f"names: [cat]\n{listed}\n")
    monkeypatch.chdir(tmp_path / "x")
    if "txt" in listed:
        imported = folder.read()
        assert kinds(imported)[Fault.PATH_OUTSIDE] == 1
        assert [record.path.name for record in imported.splits["train"]] == ["a.jpg"]
    else:
        with pytest.raises(DataError, match=r"leads out of .*outside=true"):
            folder.read()
    names = {record.path.name for record in folder.read(reading=ReadingConfig(outside=True)).splits["train"]}
    assert "b.jpg" in names


def test_labels_outside_of_the_folder_are_not_taken(folder) -> None:
    folder.yolo("ok", ROW, ".", ".")
    folder.image("b.jpg")
    (folder.root.parent / "labels").mkdir()
    (folder.root.parent / "labels" / "b.txt").write_text(ROW)
    assert kinds(folder.read())[Fault.BACKGROUND_NO_FILE] == 1


def test_names_by_the_thousand_take_no_time(folder) -> None:
    folder.yolo("a", ROW)
    folder.write("data.yaml", "names: []\nnc: 99999\ntrain: images\n")
    assert folder.read().splits["train"].names == ("class_0",)
    folder.write("data.yaml", f"names: {[f'c{n}' for n in range(20_000)]}\ntrain: images\n")
    started = time.process_time()
    names = folder.read().splits["train"].names
    assert len(names) == 20_000
    assert time.process_time() - started < 10


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_pipes_and_devices_are_not_opened(folder, boxes_of) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: images\nval: x.txt\n")
    folder.yolo("a", ROW)
    folder.yolo("b", None)
    for name in ("images/pipe.jpg", "labels/b.txt", "classes.txt", "x.txt"):
        os.mkfifo(folder.root / name)
    (folder.root / "images" / "zero.png").symlink_to("/dev/zero")
    imported = folder.read()
    assert boxes_of(imported.splits["train"]) == {"a.jpg": [("cat", BOX)], "b.jpg": []}
    assert kinds(imported)[Fault.LEFT_ASIDE] == 5
    (info,) = verify_images([folder.root / "images" / "pipe.jpg"], folder.root)
    assert isinstance(info, ImageError)
    with pytest.raises(DataError, match="is not a file"):
        read_json(folder.root / "x.txt")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_text_files_of_any_system(folder, boxes_of, encoding: str, end: str) -> None:
    folder.write("data.yaml", "\ufeffnames: [cat]\r\ntrain: images\r\n")
    folder.yolo("a", None)
    folder.write("labels/a.txt", f"{ROW}{end}0 0.5 0.5 1 1{end}".encode(encoding))
    imported = folder.read()
    assert [box for _, box in boxes_of(imported.splits["train"])["a.jpg"]] == [BOX, [0, 0, 60, 40]]
    assert kinds(imported) == {}


def test_missing_empty_and_lone_label_files(folder, boxes_of) -> None:
    folder.write("data.yaml", "names: [cat, dog]\ntrain: images\n")
    folder.yolo("a", f"{ROW}\n{ROW}\n")
    folder.yolo("empty", "")
    folder.yolo("none", None)
    folder.write("labels/lone.txt", ROW)
    folder.write("labels/classes.txt", "cat\ndog\n")
    folder.write("labels.cache", b"\0\1\2")
    folder.write("images/notes.csv", "a,b\n")
    folder.write("images/.hidden.jpg", "x")
    imported = folder.read()
    assert boxes_of(imported.splits["train"]) == {"a.jpg": [("cat", BOX)], "empty.jpg": [], "none.jpg": []}
    assert kinds(imported) == {
        Fault.BOX_DUPLICATE: 1,
        Fault.BACKGROUND_NO_FILE: 1,
        Fault.LABELS_LONE: 1,
        Fault.CLASS_EMPTY: 1,
    }
    assert imported.log.records[Fault.CLASS_EMPTY][0].place == "'dog'"
    assert imported.log.records[Fault.BOX_DUPLICATE][0].place == "labels/a.txt, line 2"


def test_a_split_without_any_label_is_no_background(folder) -> None:
    for split in ("train", "valid"):
        folder.yolo(split, ROW if split == "train" else None, f"{split}/images", f"{split}/labels")
    folder.write("data.yaml", YAML)
    imported = folder.read()
    assert list(imported.splits) == ["train"]
    assert kinds(imported)[Fault.SPLIT_UNLABELLED] == 1
    (folder.root / "train/labels/train.txt").rename(folder.root / "elsewhere.txt")
    with pytest.raises(DataError, match="none of the 2 images has a label file"):
        folder.read()


def test_two_endings_and_one_label_file(folder) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    folder.yolo("ok", ROW)
    folder.yolo("a", ROW)
    folder.image("images/a.JPG")
    folder.image("images/b.jpg")
    folder.image("images/b.JPG")  # both background
    imported = folder.read()
    assert [p.path.name for p in imported.splits["train"]] == ["b.JPG", "b.jpg", "ok.jpg"]
    shared = imported.log.records[Fault.LABELS_SHARED]
    assert [finding.place for finding in shared] == ["images/a.JPG", "images/a.jpg"]
    assert shared[0].value == "labels/a.txt may belong to a.JPG and a.jpg"


def test_a_data_set_in_pixels_is_refused(folder) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    folder.yolo("a", "0 30 20 10 10\n0 5 5 4 4\n")
    with pytest.raises(DataError, match=r"all 2 boxes are in pixels \(labels/a\.txt, line 1: 30 20 10 10\)"):
        folder.read()


def test_the_same_pictures_in_two_splits(folder) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: images\nval: images\n")
    folder.yolo("a", ROW)
    imported = folder.read()
    assert list(imported.splits) == ["train", "val"]
    assert kinds(imported) == {Fault.IMAGE_IN_SPLITS: 1}


@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 9])
def test_shares_count_on_the_upright_image(folder, boxes_of, orientation: int) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    folder.image("images/a.jpg", orientation=orientation)
    folder.write("labels/a.txt", ROW)
    train = folder.read().splits["train"]
    height, width = (60, 40) if orientation in (6, 8) else (40, 60)
    assert train[0].apply_orientation
    assert read_image(train[0].path).shape == (height, width, 3)
    assert (train[0].height, train[0].width) == (height, width)
    assert boxes_of(train)["a.jpg"] == [("cat", [width / 4, height * 3 / 8, width / 2, height / 4])]


def test_broken_pictures_are_dropped(folder) -> None:
    folder.write("data.yaml", "names: [cat]\ntrain: images\n")
    folder.yolo("a", ROW)
    folder.yolo("cut", f"{ROW}\n0 0.5 0.5 0.25 0.25\n")
    whole = (folder.root / "images/cut.jpg").read_bytes()
    folder.write("images/cut.jpg", whole[:-100])
    imported = folder.read()
    assert [p.path.name for p in imported.splits["train"]] == ["a.jpg"]
    assert kinds(imported) == {Fault.IMAGE_UNREADABLE: 1}
    assert imported.splits["train"].report.boxes == 1


def test_the_real_one(real_data, boxes_of) -> None:
    imported = read_dataset(real_data / "chess-yolo")
    assert {split: len(data) for split, data in imported.splits.items()} == {"train": 606, "val": 58, "test": 29}
    assert imported.splits["train"].num_classes == 13
    assert (
        imported.splits["train"].categories == imported.splits["val"].categories == imported.splits["test"].categories
    )
    assert sum(not found for found in boxes_of(imported.splits["test"]).values()) == 1


def test_darknets_list_of_names_may_be_called_anything(folder) -> None:
    folder.yolo("a", "0 0.5 0.5 0.5 0.25")
    folder.write("cfg/birds.names", "owl\n")
    assert folder.read().splits["train"].names == ("owl",)


@pytest.mark.parametrize(("rows", "box"), [("auto", None), ("box", [5, 4, 30, 28]), ("corners", [20, 18, 10, 10])])
def test_pixels_that_may_be_two_things_are_asked(folder, boxes_of, rows: str, box: list[float] | None) -> None:
    folder.write("classes.txt", "cat")
    folder.yolo("ok", "0 0.25 0.25 0.75 0.75" if rows == "corners" else "0 0.5 0.5 0.5 0.5")
    folder.yolo("a", PIXELS)
    if box is None:
        with pytest.raises(DataError, match="rows=box or rows=corners"):
            folder.read()
    else:
        found = boxes_of(folder.read(reading=ReadingConfig(rows=rows)).splits["train"])
        assert found["a.jpg"] == [("cat", box)]

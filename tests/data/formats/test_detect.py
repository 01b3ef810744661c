from __future__ import annotations

from pathlib import Path

import pytest

from mobiledet.data.formats.base import DROPPED, NOTES, REPAIRED, Account
from mobiledet.data.formats.choose import detect_format
from mobiledet.data.formats.tree import Tree, path_parts, split_name, split_of
from mobiledet.errors import DataError

ROW = "0 0.5 0.5 0.5 0.25"


@pytest.mark.parametrize(
    ("text", "strict", "loose"),
    [
        ("train", "train", "train"),
        ("Training", "train", "train"),
        ("train2017", "train", "train"),
        ("valid", "val", "val"),
        ("Validation Set", "val", "val"),
        ("val_images", "val", "val"),
        ("instances_test2014", "test", "test"),
        ("trainval", "trainval", "trainval"),
        ("blood_cells_train", None, "train"),
        ("trains", None, None),
        ("test tubes", None, "test"),
        ("train_val", None, None),
        ("images", None, None),
        ("", None, None),
    ],
)
def test_names_of_splits(text: str, strict: str | None, loose: str | None) -> None:
    assert (split_name(text), split_name(text, loose=True)) == (strict, loose)


def test_the_innermost_folder_decides() -> None:
    assert split_of("train/valid/images/a.jpg") == "val"
    assert split_of("trains/x/train.jpg") is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("C:\\a\\b.jpg", ["a", "b.jpg"]),
        ("/a//b.jpg", ["a", "b.jpg"]),
        ("./a/./b.jpg", ["a", "b.jpg"]),
        ("../x/../a.jpg", ["a.jpg"]),
        ("..", []),
        ("", []),
    ],
)
def test_foreign_paths(name: str, parts: list[str]) -> None:
    assert path_parts(name) == parts


def test_a_tree_leaves_hidden_files_out(folder) -> None:
    for name in ("a.JPG", "b/c.png", "b/._c.png", ".git/d.jpg", "__MACOSX/e.jpg", "f.txt", ".g.jpg"):
        folder.write(name)
    (folder.root / "b" / "loop").symlink_to(folder.root)
    tree = Tree(folder.root)
    assert tree.files == ["a.JPG", "b/c.png", "f.txt"]
    assert tree.pictures == ["a.JPG", "b/c.png"]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"a.xml": '<?xml version="1.0"?>\n<annotation/>', "classes.txt": "cat"}, "voc"),
        ({"a/b/c.xml": b"\xff\xfe" + "<annotation/>".encode("utf-16-le")}, "voc"),
        ({"boxes.csv": "filename,xmin,ymin,xmax,ymax,class\n"}, "voc"),
        ({"boxes.csv": "\ufeffImage;X1;Y1;X2;Y2;Label\n"}, "voc"),
        ({"a.jpg": "", "a.txt": ROW}, "yolo"),
        ({"images/a.jpg": "", "labels/a.txt": "\n" + ROW}, "yolo"),
        ({"data.yaml": "names: [a]\n"}, "yolo"),
        ({"x.yml": "train: a\nnc: 3\n"}, "yolo"),
        ({"x.json": '{"images":[],"annotations":[],"categories":[]}', "data.yaml": "names: [a]"}, "coco"),
        ({"x.json": '{"images":[],"annotations":[],"categories":[]}', "x.csv": "id,xmin,ymin,xmax,ymax"}, "coco"),
        ({"a.xml": "<annotation/>", "ImageSets/Main/a.txt": "000001 1 1 1 1"}, "voc"),
    ],
)
def test_formats(folder, files: dict[str, str | bytes], expected: str) -> None:
    for name, text in files.items():
        folder.write(name, text)
    assert detect_format(folder.root) == expected


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["there is nothing"]),
        ({"a.jpg": "", "b.jpg": "", "readme": ""}, ["2 .jpg, 1 (no ending)", "looked for xml", "yaml with names"]),
        ({"a.jpg": "", "a.txt": "a caption of five words"}, ["is no data set"]),
        ({"a.xml": "<project/>"}, ["1 .xml"]),
        ({"a.json": '{"shapes": [], "imagePath": "a.jpg"}'}, ["LabelMe", "export them as COCO"]),
        (
            {"a.xml": "<annotation/>", "a.jpg": "", "a.txt": ROW},
            ["as voc and as yolo", "a.xml", "a.txt", "--format"],
        ),
    ],
)
def test_what_can_not_be_told(folder, files: dict[str, str], words: list[str]) -> None:
    for name, text in files.items():
        folder.write(name, text)
    with pytest.raises(DataError) as caught:
        detect_format(folder.root)
    for word in [str(folder.root), *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="doesn't exist"):
        detect_format(tmp_path / "gone")


def test_every_kind_of_finding_is_dropped_repaired_or_a_note() -> None:
    assert not set(DROPPED) & set(REPAIRED)
    assert not set(NOTES) & set(DROPPED + REPAIRED)
    account = Account()
    with pytest.raises(KeyError):
        account.add("a misspelt kind", "here")
    assert account.lines() == []
    for n in range(5):
        account.add("unreadable pictures", f"p{n}", "cut")
    account.add("classes without a box", "'dog'")
    assert account.lines() == [
        "dropped: 5 unreadable pictures (p0: cut; p1: cut; p2: cut; and 2 more)",
        "note: 1 classes without a box ('dog')",
    ]
    assert account.counts["unreadable pictures"] == 5
    assert len(account.examples["unreadable pictures"]) == 3
    assert len(account.to_json()["dropped"]["unreadable pictures"]) == 5


def test_findings_are_one_line_whatever_files_are_called() -> None:
    account = Account()
    account.add("unreadable pictures", "a\nb\udcff.jpg", "Größe")
    assert account.lines() == ["dropped: 1 unreadable pictures (a\\nb\\udcff.jpg: Größe)"]

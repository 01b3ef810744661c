from __future__ import annotations

from pathlib import Path

import pytest

from mobiledet.data.faults import Fault
from mobiledet.data.formats.base import ImportLog
from mobiledet.data.formats.choose import recognise
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
    assert tree.images == ["a.JPG", "b/c.png"]


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
    assert recognise(folder.root).format.name == expected


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, ["there is nothing"]),
        ({"a.jpg": "", "b.jpg": "", "readme": ""}, ["2 .jpg, 1 (no ending)", "looked for xml", "yaml with names"]),
        ({"a.jpg": "", "a.txt": "a caption of five words"}, ["is not a data set"]),
        ({"a.xml": "<project/>"}, ["1 .xml"]),
        ({"a.json": '{"objects": [{"classTitle": "cat"}]}'}, ["Supervisely", "export COCO"]),
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
        recognise(folder.root)
    for word in [str(folder.root), *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="doesn't exist"):
        recognise(tmp_path / "gone")


def test_what_is_found_is_listed_by_severity() -> None:
    log = ImportLog()
    assert log.lines() == []
    for n in range(5):
        log.add(Fault.IMAGE_UNREADABLE, f"p{n}", "cut")
    log.add(Fault.CLASS_EMPTY, "'dog'")
    assert log.lines() == [
        "dropped: 5 unreadable images (p0: cut; p1: cut; p2: cut and 2 more)",
        "note: 1 classes without a box ('dog')",
    ]
    assert log.counts[Fault.IMAGE_UNREADABLE] == 5
    assert len(log.to_json()["dropped"]["unreadable images"]) == 5


def test_findings_are_one_line_whatever_files_are_called() -> None:
    log = ImportLog()
    log.add(Fault.IMAGE_UNREADABLE, "a\nb\udcff.jpg", "Größe")
    assert log.lines() == ["dropped: 1 unreadable images (a\\nb\\udcff.jpg: Größe)"]

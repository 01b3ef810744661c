"""A part of a data set is named, and the whole of it is found."""

import shutil

import pytest

from mobiledet.config import DataConfig
from mobiledet.data.formats.choose import read_dataset
from mobiledet.data.formats.root import find_root
from mobiledet.data.opening import open_data, open_split
from mobiledet.errors import DataError

ROW = "1 0.5 0.5 0.2 0.2\n"
YAML = "names: [cup, plate]\ntrain: ../train/images\nval: ../valid/images\ntest: ../test/images\n"


def roboflow(folder):
    for split in ("train", "valid", "test"):
        for name in ("a", "b"):
            folder.yolo(split + name, ROW, images=f"{split}/images", texts=f"{split}/labels")
    folder.write("data.yaml", YAML)


def ultralytics(folder):
    for split in ("train", "val"):
        for name in ("a", "b"):
            folder.yolo(split + name, ROW, images=f"images/{split}", texts=f"labels/{split}")
    folder.write("classes.txt", "cup\nplate\n")


def voc(folder, make):
    for split in ("train", "val"):
        folder.voc(split, make(), make("dog"))
        folder.write(f"ImageSets/Main/{split}.txt", f"{split}\n")


def test_yolo_as_roboflow_exports_it(folder, caplog):
    caplog.set_level("INFO", "mobiledet")
    roboflow(folder)
    parts = ["train", "train/images", "train/labels", "valid", "train/images/traina.jpg"]
    for part in [*parts, "data.yaml", "."]:
        caplog.clear()
        train, val = open_data(DataConfig(root=str(folder.root / part)))
        assert (train.names, len(train), len(val)) == (("cup", "plate"), 2, 2), part
        assert ("is a part of the data set" in caplog.text) is (part in parts)
    whole = read_dataset(folder.root / "train/images")
    assert (whole.root, sorted(whole.splits)) == (folder.root, ["test", "train", "val"])


def test_yolo_with_the_splits_inside(folder):
    ultralytics(folder)
    for part in ("images", "images/train", "labels/val", "images/val/vala.jpg"):
        train, val = open_data(DataConfig(root=str(folder.root / part)))
        assert (train.names, len(train), len(val)) == (("cup", "plate"), 2, 2), part


def test_voc(folder, make):
    voc(folder, make)
    for part in ("JPEGImages", "Annotations", "ImageSets", "ImageSets/Main", "ImageSets/Main/train.txt"):
        train, val = open_data(DataConfig(root=str(folder.root / part)))
        assert (train.names, len(train), len(val)) == (("cat", "dog"), 1, 1), part


def test_coco(tiny_shapes):
    for part in ("annotations", "train", "val", "annotations/instances_train.json", "annotations/instances_val.json"):
        train, val = open_data(DataConfig(root=str(tiny_shapes / part)))
        assert (train.annotation_file.name, len(train), len(val)) == ("instances_train.json", 12, 4), part
    assert len(open_split(tiny_shapes / "val", "val")) == 4
    alone = read_dataset(tiny_shapes / "annotations/instances_val.json")
    assert list(alone.splits) == ["val"], "a file that was named alone is read alone"


def test_a_coco_json_that_is_in_no_layout_is_read_as_it_is(tiny_shapes, tmp_path):
    shutil.copy(tiny_shapes / "annotations/instances_train.json", tmp_path / "labels.json")
    shutil.copytree(tiny_shapes / "train", tmp_path / "photos")
    train, val = open_data(DataConfig(root=str(tmp_path / "labels.json"), hold_out=0.25))
    assert (len(train), len(val)) == (9, 3)


def test_another_split_than_those_wanted_is_refused(folder):
    roboflow(folder)
    for part in ("test", "test/images"):
        with pytest.raises(DataError, match=r"is the split 'test' of the data set .* train and val is asked for"):
            open_data(DataConfig(root=str(folder.root / part)))
    with pytest.raises(DataError, match="is the split 'test'"):
        open_split(folder.root / "test", "val")
    assert len(open_split(folder.root / "test", "test")) == 2
    assert len(open_split(folder.root / "valid", "val")) == 2


def test_what_is_no_part_stays(folder, tiny_shapes, monkeypatch):
    roboflow(folder)
    beside = folder.root.parent
    assert find_root(beside / "no such") == beside / "no such"
    assert find_root(folder.root) == folder.root
    assert find_root(tiny_shapes) == tiny_shapes
    alone = folder.write("elsewhere/photos/a.txt", ROW).parent
    assert find_root(alone) == alone, "nothing above it belongs to a data set"
    inner = folder.root / "train/valid"
    inner.mkdir()
    (inner / "data.yaml").write_text(YAML)
    assert find_root(inner) == inner, "a data set of its own"
    monkeypatch.chdir(folder.root / "train")
    assert find_root(folder.root.__class__(".")) == folder.root

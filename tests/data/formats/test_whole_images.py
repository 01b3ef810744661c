"""Classes of whole images: folders and tables, and crops of detection data."""

import numpy as np
import pytest

from mobiledet.data.crops import write_crops
from mobiledet.data.faults import Fault
from mobiledet.data.formats.choose import read_dataset
from mobiledet.data.opening import open_split
from mobiledet.errors import DataError
from mobiledet.utils.settings import ReadingConfig

IMAGES = ReadingConfig(classes_of="images")


def classes(dataset):
    """File name -> names of the classes it shows."""
    return {
        dataset.file_name(index): sorted(dataset.names[label - 1] for label in dataset.labels(index))
        for index in range(len(dataset))
    }


def test_a_folder_for_each_class(folder):
    for name in ("train/cat/1.png", "train/dog/1.png", "train/dog/old/2.png", "valid/cat/3.png", "train/stray.png"):
        folder.image(name)
    imported = read_dataset(folder.root, reading=IMAGES)
    assert classes(imported.splits["train"]) == {
        "train/cat/1.png": ["cat"],
        "train/dog/1.png": ["dog"],
        "train/dog/old/2.png": ["dog"],
    }
    assert classes(imported.splits["val"]) == {"valid/cat/3.png": ["cat"]}
    assert imported.splits["train"][0].target.boxes.tolist() == [[0, 0, 60, 40]]
    assert imported.log.counts == {Fault.IMAGE_UNLABELLED: 1}
    assert len(open_split(folder.root, "val", reading=IMAGES)) == 1


def test_a_class_may_be_called_like_a_split(folder):
    folder.image("train/1.png")
    folder.image("bus/1.png")
    (split,) = read_dataset(folder.root, reading=IMAGES).splits.values()
    assert split.names == ("bus", "train")


@pytest.mark.parametrize(
    "table",
    [
        "filename,smiling,hat\na.png,1,1\nb.png,0,1\nc.png,0,0\n",
        "image,classes\na.png,smiling;hat\nb.png,hat\nc.png,\n",
        "path,what\na.png,hat | smiling\nb.png,hat\nc.png,\n",
    ],
)
def test_a_table_of_attributes(folder, table):
    for name in "abc":
        folder.image(f"images/{name}.png")
    file = folder.write("attributes.csv", table)
    for source in (folder.root, file):
        (split,) = read_dataset(source, reading=IMAGES).splits.values()
        assert [*classes(split).values()] == [["hat", "smiling"], ["hat"], []]


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({}, "holds no image"),
        ({"cat/1.png": None}, "1 folder of a class"),
        ({"1.png": None}, "0 folders of a class"),
        ({"cat/1.png": None, "dog/1.png": None, "cow/note.txt": "later"}, "cow"),
        ({"a.png": None, "table.csv": "filename,hat\na.png,1,0\n"}, "table.csv, line 2"),
    ],
)
def test_what_cannot_be_read_is_named(folder, files, named):
    for name, content in files.items():
        if content is None:
            folder.image(name)
        else:
            folder.write(name, content)
    with pytest.raises(DataError, match=named):
        read_dataset(folder.root, reading=IMAGES)


def test_a_broken_image_is_dropped_and_named(folder):
    for name in ("cat/1.png", "dog/1.png"):
        folder.image(name)
    folder.write("dog/broken.jpg", b"\xff\xd8 nothing")
    imported = read_dataset(folder.root, reading=IMAGES)
    assert len(imported.splits["train"]) == 2
    assert "broken.jpg" in "\n".join(imported.log.lines())


def test_crops_are_a_data_set(tiny_shapes, tmp_path):
    output = tmp_path / "crops"
    counts = write_crops(read_dataset(tiny_shapes), output)
    whole, crops = open_split(tiny_shapes, "val"), open_split(output, "val", reading=IMAGES)
    assert counts["val"] == len(crops) == len(whole.labels())
    assert sorted(crops.names[label - 1] for label in crops.labels()) == sorted(
        whole.names[label - 1] for label in whole.labels()
    )
    first = whole[0].target.boxes[0]
    name = next(name for name in classes(crops) if name.endswith("000000_0.jpg"))
    crop = crops[list(classes(crops)).index(name)]
    width, height = first[2:] - first[:2]
    assert np.all(np.array([crop.width, crop.height]) >= [width - 1, height - 1])
    assert np.all(np.array([crop.width, crop.height]) <= [1.2 * width + 1, 1.2 * height + 1])
    with pytest.raises(DataError, match="not empty"):
        write_crops(read_dataset(tiny_shapes), output)


def test_crops_that_fail_leave_nothing(tiny_shapes, tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mobiledet.data.crops.write_image", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_crops(read_dataset(tiny_shapes), tmp_path / "new" / "crops")
    assert [*(tmp_path / "new").iterdir()] == []

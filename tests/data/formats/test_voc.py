from __future__ import annotations

import math

import numpy as np
import pytest
from PIL import Image

from mobiledet.config import DataConfig, ReadingConfig
from mobiledet.data.faults import Fault, ImportLog, Severity
from mobiledet.data.formats.voc import box_of_corners
from mobiledet.data.formats.write import write_coco
from mobiledet.data.images import read_image
from mobiledet.data.opening import open_data, open_split
from mobiledet.errors import DataError

UNLABELLED = Fault.IMAGE_UNLABELLED


def test_corners_count_from_1_and_are_inclusive(folder, make, boxes_of) -> None:
    folder.voc("a", make("dog", 1, 1, 60, 40), make("cat", 11, 6, 30, 25), make("cat", 11.5, 6, 30.25, 26))
    imported = folder.read()
    assert (imported.format, imported.root, list(imported.splits)) == ("voc", folder.root, ["train"])
    train = imported.splits["train"]
    assert train.names == ("cat", "dog")
    assert [c.id for c in train.categories] == [1, 2]
    expected = [("dog", [0, 0, 60, 40]), ("cat", [10, 5, 20, 20]), ("cat", [10.5, 5, 19.75, 21])]
    assert boxes_of(train)["a.jpg"] == expected
    assert train[0].target.boxes.tolist()[1] == [10, 5, 30, 25]
    assert (train[0].path, train.image_dir) == (folder.root / "JPEGImages" / "a.jpg", folder.root)
    assert read_image(train[0].path).shape == (40, 60, 3)
    assert imported.log.lines() == []
    assert train.report.summary().count("repaired") == 0


@pytest.mark.parametrize(
    ("corners", "box", "kind"),
    [
        ([11, 6, 30, 25], [10, 5, 20, 20], None),
        ([30, 25, 11, 6], [10, 5, 20, 20], Fault.CORNERS_SWAPPED),
        ([30, 6, 11, 25], [10, 5, 20, 20], Fault.CORNERS_SWAPPED),
        ([11, 6, 11, 6], None, Fault.BOX_POINT),
        ([11, 6, 11, 25], None, Fault.BOX_POINT),
        ([0, 6, 30, 25], [-1, 5, 31, 20], Fault.CORNER_ZERO),
    ],
)
def test_corners_as_tools_write_them(corners: list[float], box: list[float] | None, kind: Fault | None) -> None:
    log = ImportLog()
    assert box_of_corners(corners, "here", log) == box
    assert dict(log.counts) == ({kind: 1} if kind else {})


@pytest.mark.parametrize("size", [(0, 0), (0, 60), (41, 99)])
def test_sizes_that_are_missing_or_wrong_come_from_the_image(folder, make, boxes_of, size: tuple[int, int]) -> None:
    folder.voc("a", make("cat", 31, 21, 60, 40), size=size)
    imported = folder.read()
    record = imported.splits["train"][0]
    assert (record.height, record.width) == (40, 60)
    assert boxes_of(imported.splits["train"])["a.jpg"] == [("cat", [30, 20, 30, 20])]
    (kind,) = imported.log.counts
    assert kind == (Fault.SIZE_WRONG if all(size) else Fault.SIZE_FROM_FILE)
    assert imported.log.severity(kind) is Severity.REPAIRED


def test_a_picture_scaled_after_labelling_is_left_out(folder, make) -> None:
    folder.voc("ok", make())
    folder.voc("grown", make("cat", 5, 5, 28, 18), size=(20, 30))  # fits in the quarter that the xml speaks of
    folder.voc("shrunk", make("cat", 50, 50, 110, 78), size=(80, 120))
    folder.voc("squeezed", make("cat", 50, 5, 110, 28), size=(30, 120))
    imported = folder.read()
    assert [p.path.stem for p in imported.splits["train"]] == ["ok"]
    assert imported.log.counts[Fault.SCALED] == 3
    value = imported.log.records[Fault.SCALED][0].value
    assert value == "30 x 20 (width x height), grown.jpg has 60 x 40"


def test_splits_by_lists(folder, make) -> None:
    for name in ("a", "b", "c", "d", "e"):
        folder.voc(name, make())
    folder.write("ImageSets/Main/train.txt", "a\r\nb\r\n")
    folder.write("ImageSets/Main/val.txt", "\ufeffc.jpg\n\ngone\n")
    folder.write("ImageSets/Main/test.txt", "d\n")
    folder.write("ImageSets/Main/trainval.txt", "a\nb\nc\n")
    folder.write("ImageSets/Main/cat_train.txt", "a 1\nd 1\n")
    folder.write("ImageSets/Segmentation/train.txt", "e\n")
    imported = folder.read()
    found = {split: [p.path.stem for p in data] for split, data in imported.splits.items()}
    assert found == {"train": ["a", "b"], "val": ["c"], "test": ["d"]}
    assert dict(imported.log.counts) == {
        Fault.LISTED_UNLABELLED: 1,
        Fault.NOT_LISTED: 1,
        Fault.LEFT_ASIDE: 1,
    }


@pytest.mark.parametrize(
    ("lists", "expected"),
    [
        ({"trainval": "a\nb\n", "test": "c\n"}, {"train": ["a", "b"], "test": ["c"]}),
        ({"trainval": "a\nb\n", "val": "b\n"}, {"train": ["a"], "val": ["b"]}),
        ({"trainval": "a\nb\n", "train": "a\n"}, {"train": ["a"], "val": ["b"]}),
        ({"train2012": "a -1\nb 1\n", "validation": "c"}, {"train": ["a", "b"], "val": ["c"]}),
    ],
)
def test_trainval_is_what_the_other_lists_leave(folder, make, lists, expected) -> None:
    for name in ("a", "b", "c"):
        folder.voc(name, make())
    for name, text in lists.items():
        folder.write(f"ImageSets/Main/{name}.txt", text)
    assert {split: [p.path.stem for p in data] for split, data in folder.read().splits.items()} == expected


@pytest.mark.parametrize(
    "files",
    [
        {"splits.csv": "image,subset\na.jpg,train\nJPEGImages/b.jpg,validation\nc,test\n"},
        {"splits.csv": "Filename;Split\r\na.jpg;Train\r\nb.jpg;Valid\r\nc.jpg;Test\r\n"},
        {"all.csv": "id,set\na,train\nb,val\nc,test\n", "train.csv": "name\na\nb\nc\n"},
        {"train.csv": "name\na\n", "val.csv": "name\nb\n", "test.csv": "name\nc\n"},
        {
            "cells_train.csv": "image,cell\na.jpg,RBC\n",
            "cells_valid.csv": "image\nb.jpg",
            "cells_test.csv": "image\nc.jpg",
        },
    ],
)
def test_splits_by_csv_files(folder, make, files: dict[str, str]) -> None:
    for name in ("a", "b", "c"):
        folder.voc(name, make())
    for name, text in files.items():
        folder.write(name, text)
    found = {split: [p.path.stem for p in data] for split, data in folder.read().splits.items()}
    assert found == {"train": ["a"], "val": ["b"], "test": ["c"]}


def test_lists_about_something_else_decide_nothing(folder, make) -> None:
    folder.voc("a", make())
    folder.write("train.txt", "lines of\nanother kind\n")
    imported = folder.read()
    assert [p.path.stem for p in imported.splits["train"]] == ["a"]
    assert dict(imported.log.counts) == {Fault.LEFT_ASIDE: 1}


@pytest.mark.parametrize(
    ("images", "xmls"),
    [
        ("{}/", "{}/"),  # Roboflow
        ("{}/images/", "{}/annotations/"),
        ("images/{}/", "Annotations/{}/"),
        ("{}2007/JPEGImages/", "{}2007/Annotations/"),
    ],
)
def test_splits_by_folders(folder, make, images: str, xmls: str) -> None:
    for split in ("train", "valid"):
        folder.image(images.format(split) + "same.jpg", 40 if split == "train" else 30)
        folder.xml(xmls.format(split) + "same.xml", make(), size=(40 if split == "train" else 30, 60))
    imported = folder.read()
    assert {split: [p.height for p in data] for split, data in imported.splits.items()} == {"train": [40], "val": [30]}
    assert imported.log.lines() == []


def test_boxes_in_csv_files_alone(folder, boxes_of) -> None:
    for name in ("images/a.jpg", "images/b.png", "images/c.jpg", "images/lone.jpg"):
        folder.image(name)
    head = "filename,width,height,class,xmin,ymin,xmax,ymax\n"
    rows = "a.jpg,60,40, red  cell ,11,6,30,25\na.jpg,60,40,1,1,1,60,40\ngone.jpg,60,40,1,1,1,60,40\nc.jpg,,,,,,,\n"
    folder.write("data/train_labels.csv", head + rows + "a.jpg,60,40,1,x,1,60,40\n")
    folder.write("data/test_labels.csv", head + "b.png,0,0,1,1,1,60,40\n")
    imported = folder.read()
    assert imported.format == "voc"
    expected = {"a.jpg": [("red cell", [10, 5, 20, 20]), ("1", [0, 0, 60, 40])], "c.jpg": []}
    assert boxes_of(imported.splits["train"]) == expected
    assert boxes_of(imported.splits["test"]) == {"b.png": [("1", [0, 0, 60, 40])]}
    assert dict(imported.log.counts) == {
        Fault.ENTRY_LONE: 1,
        Fault.NAME_SPACES: 1,
        Fault.OBJECT_BOXLESS: 1,
        UNLABELLED: 1,
        Fault.SIZE_FROM_FILE: 2,
    }
    assert imported.log.records[Fault.OBJECT_BOXLESS][0].place == "data/train_labels.csv, line 6"


@pytest.mark.parametrize(
    ("image", "kind", "filename"),
    [
        ("a.JPG", "", "a.jpg"),
        ("a.JPG", "", "a"),
        ("a.jpeg", "", "a.jpg"),
        ("a.jpg", "PNG", "a.jpg"),  # a PNG under a JPEG's name
        ("a.png", "", "a.png"),
        ("a.bmp", "", ""),
        ("a.webp", "", "C:\\data\\a.webp"),
        ("other.jpg", "", "other.jpg"),
        ("a.jpg", "", "image of someone else.jpg"),
        ("a.b.jpg", "", "a.b.jpg"),
        ("Größe 1.jpg", "", "Größe 1.jpg"),
    ],
)
def test_the_picture_is_found(folder, make, image: str, kind: Fault, filename: str) -> None:
    folder.image(f"JPEGImages/{image}", kind=kind)
    folder.xml("Annotations/a.xml", make(), filename=filename)
    (record,) = folder.read().splits["train"]
    assert record.path.name == image
    assert read_image(record.path).shape == (40, 60, 3)


def test_pictures_beside_their_xml(folder, make) -> None:
    folder.image("deep/er/a.jpg")
    folder.xml("deep/er/a.xml", make())
    assert folder.read().splits["train"][0].path == folder.root / "deep/er/a.jpg"


def test_two_endings_and_one_label_file(folder, make) -> None:
    folder.voc("ok", make())
    folder.image("JPEGImages/a.jpg")
    folder.image("JPEGImages/a.JPG")
    folder.xml("Annotations/a.xml", make(), filename="a")  # no telling which
    folder.image("JPEGImages/b.jpg")
    folder.image("JPEGImages/b.JPG")
    folder.xml("Annotations/b.xml", make(), filename="b.JPG")
    imported = folder.read()
    assert sorted(p.path.name for p in imported.splits["train"]) == ["b.JPG", "ok.jpg"]
    (shared,) = imported.log.records[Fault.LABELS_SHARED]
    assert shared.place == "Annotations/a.xml"
    assert "JPEGImages/a.JPG and JPEGImages/a.jpg" in shared.value
    assert imported.log.counts[UNLABELLED] == 3


def test_an_xml_that_was_copied_still_names_the_old_image(folder, make, boxes_of) -> None:
    folder.voc("a", make("cat"))
    folder.voc("b", make("dog"), filename="a.jpg")
    imported = folder.read()
    found = {name: [label for label, _ in inside] for name, inside in boxes_of(imported.splits["train"]).items()}
    assert found == {"a.jpg": ["cat"], "b.jpg": ["dog"]}
    assert list(imported.log.counts) == [Fault.OTHER_NAME]


def test_what_can_not_be_used_is_dropped_and_told(folder, make, boxes_of) -> None:
    no_box = "<object><name>cat</name></object>"
    corners = ("x", 1, 2, 3), (100, 1, 120, 5), ("nan", 1, 2, 3)
    text, outside, not_finite = (make("cat", *values) for values in corners)
    folder.voc("a", make("cat", 1, 1, 1, 1), make("dog"), make("  "), text, no_box, outside, not_finite)
    folder.voc("cut", make())
    folder.voc("text", make())
    folder.voc("empty")
    whole = (folder.root / "JPEGImages/cut.jpg").read_bytes()
    folder.write("JPEGImages/cut.jpg", whole[: len(whole) // 2])
    folder.write("JPEGImages/text.jpg", "hello")
    folder.image("JPEGImages/unlabelled.jpg")
    folder.image("JPEGImages/broken.jpg")
    folder.write("Annotations/broken.xml", "<annotation><object>")
    folder.write("Annotations/other.xml", "<project/>")
    folder.xml("Annotations/lone.xml", make())
    imported = folder.read()
    assert boxes_of(imported.splits["train"]) == {"a.jpg": [("dog", [10, 5, 20, 20])], "empty.jpg": []}
    log = imported.log
    assert dict(log.counts) == {
        Fault.BOX_POINT: 1,
        Fault.OBJECT_NAMELESS: 1,
        Fault.OBJECT_BOXLESS: 2,
        Fault.BOX_OUTSIDE: 1,
        Fault.BOX_NOT_FINITE: 1,
        Fault.IMAGE_UNREADABLE: 2,
        UNLABELLED: 2,
        Fault.LABELS_UNREADABLE: 1,
        Fault.LABELS_LONE: 1,
        Fault.LEFT_ASIDE: 1,
        Fault.CLASS_EMPTY: 1,
    }
    assert log.records[Fault.BOX_OUTSIDE][0].place == "Annotations/a.xml, object 6"
    assert "truncated" in log.records[Fault.IMAGE_UNREADABLE][0].value
    assert [line.split(":")[0] for line in log.lines()] == ["dropped"] * 9 + ["note"] * 2
    found = log.to_json()["dropped"][Fault.IMAGE_UNREADABLE.text]
    assert [entry["place"] for entry in found] == ["Annotations/cut.xml (cut.jpg)", "Annotations/text.xml (text.jpg)"]


@pytest.mark.parametrize(
    ("encoding", "declaration", "name"),
    [
        ("gbk", '<?xml version="1.0" encoding="GBK"?>', "\u732b\u548c\u72d7\u7684\u56fe\u7247"),
        ("shift_jis", '<?xml version="1.0" encoding="Shift_JIS"?>', "\u3053\u306e\u732b\u305f\u3061"),
        ("utf-8", "", "salt & pepper"),
        ("utf-8", "", "a &amp; b"),
    ],
)
def test_encodings_and_bare_ampersands(folder, make, encoding, declaration, name) -> None:
    folder.voc("a")
    path = folder.root / "Annotations" / "a.xml"
    text = path.read_text().replace("</annotation>", make(name) + "</annotation>")
    path.write_bytes((declaration + text).encode(encoding))
    assert folder.read().splits["train"].names == (name.replace("&amp;", "&"),)


def test_a_namespace_is_left_out(folder, make) -> None:
    folder.voc("a", make("cat"))
    path = folder.root / "Annotations" / "a.xml"
    path.write_text(path.read_text().replace("<annotation>", '<annotation xmlns="http://example.org/voc">'))
    assert folder.read().splits["train"].names == ("cat",)


def test_difficult_objects_are_neither_object_nor_background(folder, make) -> None:
    folder.voc(
        "a", make("cat", extra="<difficult>1</difficult>"), make("dog", 1, 1, 60, 40, extra="<difficult>0</difficult>")
    )
    imported = folder.read()
    train = imported.splits["train"]
    assert train[0].target.iscrowd.tolist() == [True, False]
    assert [a["ignore"] for a in train.coco_json()["annotations"]] == [1, 0]
    assert dict(imported.log.counts) == {Fault.DIFFICULT: 1, Fault.CLASS_EMPTY: 1}


def test_class_names_as_people_write_them(folder, make) -> None:
    folder.voc(
        "a",
        make("7"),
        make("red\u00a0 cell\n"),
        make("red cell", 1, 1, 5, 5),
        make("Größe", 2, 2, 9, 9),
        make("Red Cell"),
    )
    imported = folder.read()
    assert imported.splits["train"].names == ("7", "Größe", "Red Cell", "red cell")
    assert dict(imported.log.counts) == {Fault.NAME_SPACES: 1, Fault.NAMES_ALIKE: 1}
    (alike,) = imported.log.records[Fault.NAMES_ALIKE]
    assert alike.place == "'Red Cell' and 'red cell'"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_entities_are_refused(folder, make, encoding: str) -> None:
    folder.voc("ok", make())
    folder.image("JPEGImages/bad.jpg")
    secret = folder.write("secret.txt", "root:x")
    lines = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 30))
    for name, declared in (("bomb", f'<!ENTITY a0 "ha">{lines}'), ("xxe", f'<!ENTITY a29 SYSTEM "file://{secret}">')):
        thing = "<filename>bad.jpg</filename><object><name>&a29;</name></object>"
        text = f"<!DOCTYPE x [{declared}]><annotation>{thing}</annotation>"
        folder.write(f"Annotations/{name}.xml", f'<?xml version="1.0" encoding="{encoding}"?>{text}'.encode(encoding))
    imported = folder.read()
    assert len(imported.splits["train"]) == 1
    bad = imported.log.records[Fault.LABELS_UNREADABLE]
    assert [finding.place for finding in bad] == ["Annotations/bomb.xml", "Annotations/xxe.xml"]
    assert all("DOCTYPE" in finding.value for finding in bad)


@pytest.mark.parametrize(
    ("orientation", "size", "upright"),
    [(6, (40, 60), False), (6, (60, 40), True), (6, (0, 0), True), (3, (0, 0), True)],
)
def test_exif_rotation_is_applied_if_the_size_says_so(folder, make, orientation: int, size, upright: bool) -> None:
    folder.image("JPEGImages/a.jpg", orientation=orientation)
    folder.xml("Annotations/a.xml", make(), size=size)
    record = folder.read().splits["train"][0]
    assert record.apply_orientation is upright
    assert read_image(record.path, apply_orientation=upright).shape == (record.height, record.width, 3)


def test_nothing_usable_is_an_error(folder, make) -> None:
    folder.voc("a", make("cat", 3, 3, 3, 3))
    with pytest.raises(
        DataError, match=r"no usable box to train on: 1 boxes of a single point.*a\.xml, object 1: 3 3 3 3"
    ):
        folder.read()
    folder.xml("Annotations/a.xml")
    with pytest.raises(DataError, match=r"no object with a class; check"):
        folder.read()
    folder.xml("Annotations/a.xml", make())
    folder.write("JPEGImages/a.jpg", "x")
    with pytest.raises(DataError, match=r"no usable image: .*1 unreadable images"):
        folder.read()


def test_the_real_one_agrees_with_its_conversion(real_data, boxes_of) -> None:
    from mobiledet.data.coco import load_coco
    from mobiledet.data.formats.choose import read_dataset

    imported = read_dataset(real_data / "bccd-voc")
    for split, count in (("train", 205), ("val", 87), ("test", 72)):
        theirs = boxes_of(load_coco(real_data / "bccd", split))
        ours = boxes_of(imported.splits[split])
        assert len(ours) == count
        assert {n: sorted(b) for n, b in ours.items()} == {n: sorted(b) for n, b in theirs.items()}
    assert imported.log.counts[Fault.BOX_POINT] == 2
    assert math.isclose(sum(len(d.labels()) for d in imported.splits.values()), 2804 + 1137 + 945)


@pytest.mark.parametrize("orientation", range(2, 9))
def test_a_square_image_with_a_rotation_is_noted_by_every_reader(folder, make, tmp_path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    folder.voc("a", make("cat", 11, 6, 30, 25), size=(40, 40))
    pixels = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    Image.fromarray(pixels).save(folder.root / "JPEGImages" / "a.jpg", exif=exif)
    imported = folder.read()
    assert dict(imported.log.counts) == {Fault.ROTATION_UNCLEAR: 1}
    assert imported.splits["train"][0].apply_orientation
    stored = folder.read(reading=ReadingConfig(orientation="stored"))
    assert not stored.splits["train"][0].apply_orientation
    assert not stored.log.lines()
    assert "EXIF" in imported.log.lines()[0]
    write_coco(imported, tmp_path / "coco", val_share=0)
    config = DataConfig(root=str(folder.root), val_split=None)
    assert len(open_data(config).train) == len(open_split(tmp_path / "coco", "train")) == 1

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mobiledet.data.coco import Category, load_coco
from mobiledet.data.faults import Fault, Severity
from mobiledet.data.formats.choose import read_dataset
from mobiledet.errors import DataError

UNLABELLED = Fault.IMAGE_UNLABELLED
FOUND = Fault.PATH_OTHER


def content(*names: str, **changes: Any) -> dict[str, Any]:
    """One image of 40 x 60 for each name, with a dog (7) in it; the first has a cat (3) too."""
    images = [{"id": 10 + n, "file_name": name, "height": 40, "width": 60} for n, name in enumerate(names)]
    boxes = [
        {"id": n + 1, "image_id": 10 + n, "category_id": 7, "bbox": [1, 2, 30, 20], "area": 500.0, "iscrowd": 0}
        for n in range(len(names))
    ]
    cat = {"id": 99, "image_id": 10, "category_id": 3, "bbox": [5, 6, 7, 8], "area": 56, "iscrowd": 0}
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    return {"images": images, "annotations": [*boxes, cat], "categories": categories} | changes


def kinds(imported) -> dict[str, int]:
    return dict(imported.log.counts)


@pytest.mark.parametrize(
    ("files", "images", "splits"),
    [
        (["anything.json"], "", ["train"]),
        (["result.json"], "images/", ["train"]),  # Label Studio
        (["annotations/instances_default.json"], "images/default/", ["train"]),  # CVAT
        (["train.json", "val.json"], "images/", ["train", "val"]),
        (["cells_train.json", "cells_validation.json"], "images/", ["train", "val"]),
        (["annotations/instances_train2017.json", "annotations/instances_val2017.json"], "images/", ["train", "val"]),
        (["train/_annotations.coco.json", "valid/_annotations.coco.json"], "{}/", ["train", "val"]),  # Roboflow
        (["labels/test.json", "labels/train.json"], "data/{}/x/", ["train", "test"]),
    ],
)
def test_names_of_files(folder, boxes_of, files: list[str], images: str, splits: list[str]) -> None:
    for file in files:
        folder.write(file, content("a.jpg"))
    for place in {images.format(split) for split in ("train", "valid", "test")}:
        folder.image(f"{place}a.jpg")
    imported = folder.read()
    assert (imported.format, list(imported.splits)) == ("coco", splits)
    for data in imported.splits.values():
        assert data.categories == (Category(3, "cat"), Category(7, "dog"))
        assert boxes_of(data) == {"a.jpg": [("dog", [1, 2, 30, 20]), ("cat", [5, 6, 7, 8])]}
        assert data[0].image_id == 10
        assert data[0].path.is_file()
    assert imported.log.counts[FOUND] == 0


@pytest.mark.parametrize(
    ("written", "there"),
    [
        ("images/a.jpg", "images/a.jpg"),
        ("train2017/a.jpg", "a.jpg"),
        ("/data/upload/1/0123abcd-a.jpg", "images/0123abcd-a.jpg"),
        ("/data/upload/1/0123abcd-a.jpg", "originals/a.jpg"),
        ("images\\0123abcd-a%20b.jpg", "images/0123abcd-a b.jpg"),
        ("C:\\Users\\me\\set\\a.jpg", "x/y/a.jpg"),
        ("../../a.jpg", "images/a.jpg"),
        ("./a.jpg", "images/a.jpg"),
        ("a.jpg", "a.JPG"),
        ("file:///tmp/a.jpg", "a.jpg"),
    ],
)
def test_pictures_named_on_another_computer(folder, written: str, there: str) -> None:
    folder.image(there)
    folder.write("labels.json", content(written))
    imported = folder.read()
    assert imported.splits["train"][0].path == folder.root / there
    assert kinds(imported) == ({} if there.endswith(written) else {FOUND: 1})


def test_of_pictures_with_the_same_name_the_right_one(folder) -> None:
    for n, place in enumerate(("one/left", "one/right", "two/left")):
        folder.image(f"{place}/a.jpg", 30 + n)
    folder.image("ok.jpg")
    images = [
        {"id": n, "file_name": name}
        for n, name in enumerate(("/x/two/left/a.jpg", "/y/right/a.jpg", "a.jpg", "ok.jpg"))
    ]
    annotations = [{"image_id": n, "category_id": 3, "bbox": [1, 1, 5, 5]} for n in range(4)]
    folder.write("labels.json", content(images=images, annotations=annotations))
    imported = folder.read()
    assert [p.height for p in imported.splits["train"]] == [32, 31, 40]
    (unclear,) = imported.log.records[Fault.ENTRY_AMBIGUOUS]
    assert unclear.place == "labels.json, images[2]"


def test_a_picture_of_another_split_is_another_image(folder) -> None:
    folder.image("train/1.jpg")
    folder.image("val/2.jpg")
    folder.write("annotations/instances_train.json", content("1.jpg"))
    folder.write("annotations/instances_val.json", content("2.jpg", "1.jpg", "val/1.jpg"))
    imported = folder.read()
    assert [p.path.name for p in imported.splits["val"]] == ["2.jpg"]
    assert kinds(imported)[Fault.IMAGE_MISSING] == 2
    (folder.root / "val/2.jpg").rename(folder.root / "train/2.jpg")  # now all splits share one folder
    assert [p.path.name for p in folder.read().splits["val"]] == ["2.jpg", "1.jpg"]


def test_missing_pictures_are_dropped_with_their_boxes(folder, boxes_of) -> None:
    folder.image("a.jpg")
    folder.image("other.jpg")
    folder.write("labels.json", content("gone.jpg", "a.jpg"))
    imported = folder.read()
    assert boxes_of(imported.splits["train"]) == {"a.jpg": [("dog", [1, 2, 30, 20])]}
    assert kinds(imported) == {Fault.IMAGE_MISSING: 1, UNLABELLED: 1, Fault.CLASS_EMPTY: 1}
    folder.write("labels.json", content("gone.jpg"))
    with pytest.raises(DataError, match=r"no usable image: 1 missing images.*'gone\.jpg'.*correct file_name"):
        folder.read()


def uuids(data: dict[str, Any]) -> None:
    for entry in (*data["images"], *data["categories"]):
        entry["id"] = f"{entry['id']:08x}-70c8"
    for entry in data["annotations"]:
        entry |= {key: f"{entry[key]:08x}-70c8" for key in ("image_id", "category_id")}


def large_ids(data: dict[str, Any]) -> None:
    for entry, key in (
        (e, k) for k, es in (("id", "images"), ("image_id", "annotations")) for e in data[es] for k in [k]
    ):
        entry[key] += 2**63 - 11  # the first still fits into 64 bits, the second doesn't


def renamed(key: str, form: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for image in data["images"]:
            image[key] = form.format(image.pop("file_name").removesuffix(".jpg"))

    return change


@pytest.mark.parametrize(
    "change",
    [
        uuids,
        large_ids,
        renamed("fileName", "{}.jpg"),
        renamed("file_name", "https://store.example/set/{}.jpg?X-Amz-Signature=0f%2Fa.png&x=1"),
        renamed("file_name", "{}"),
        renamed("file_name", "up/{}.png"),
    ],
)
def test_images_are_found_whatever_their_ids_and_names(folder, boxes_of, change) -> None:
    for name in ("a.jpg", "b.jpg"):
        folder.image(f"images/{name}")
    folder.write("labels.json", data := content("a.jpg", "b.jpg"))
    expected = boxes_of(folder.read().splits["train"])
    change(data)
    folder.write("labels.json", data)
    assert boxes_of(folder.read().splits["train"]) == expected


def test_the_true_reason_is_given_where_no_image_is_found(folder) -> None:
    for place in ("left", "right"):
        folder.image(f"{place}/a.jpg")
    folder.write("labels.json", content("a.jpg"))
    with pytest.raises(
        DataError, match=r"1 entries that several images match.*left/a.jpg or right/a.jpg.*name the folder"
    ):
        folder.read()


def two_files(folder, first: list[dict[str, Any]], second: list[dict[str, Any]]):
    for split, categories, ids in (("train", first, (7, 3)), ("val", second, (1, 0))):
        folder.image(f"{split}/{split}.jpg")
        data = content(f"{split}.jpg", categories=categories)
        for box, id_ in zip(data["annotations"], ids, strict=True):
            box["category_id"] = id_
        folder.write(f"{split}.json", data)
    return folder.read()


def test_the_same_names_under_other_ids(folder, boxes_of) -> None:
    imported = two_files(
        folder,
        [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        [{"id": 0, "name": "cat"}, {"id": 1, "name": " dog"}, {"id": 3, "name": "cow"}],
    )
    train, val = imported.splits["train"], imported.splits["val"]
    assert train.categories == val.categories == (Category(1, "cat"), Category(2, "dog"), Category(3, "cow"))
    assert boxes_of(train)["train.jpg"] == boxes_of(val)["val.jpg"] == [("dog", [1, 2, 30, 20]), ("cat", [5, 6, 7, 8])]
    assert kinds(imported) == {
        Fault.NAME_SPACES: 1,
        Fault.CATEGORY_UNIFIED: 2,
        Fault.CATEGORY_RENUMBERED: 1,
        Fault.CLASS_EMPTY: 1,
    }


def test_ids_that_agree_are_kept(folder) -> None:
    imported = two_files(
        folder,
        [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}],
        [{"id": 7, "name": "dog"}, {"id": 1, "name": "cow"}, {"id": 0, "name": "ant"}],
    )
    expected = (Category(0, "ant"), Category(1, "cow"), Category(3, "cat"), Category(7, "dog"))
    assert imported.splits["train"].categories == imported.splits["val"].categories == expected


def test_a_head_without_boxes_is_left_out(folder) -> None:
    folder.image("a.jpg")
    categories = [
        {"id": 0, "name": "pets", "supercategory": "none"},
        {"id": 3, "name": "cat", "supercategory": "pets"},
        {"id": 7, "name": "dog", "supercategory": "pets"},
        {"id": 8, "name": "cow", "supercategory": "cow"},
    ]
    data = content("a.jpg", categories=categories)
    folder.write("labels.json", data)
    imported = folder.read()
    assert imported.splits["train"].names == ("cat", "dog", "cow")
    assert kinds(imported) == {Fault.CATEGORY_HEAD: 1, Fault.CLASS_EMPTY: 1}
    data["annotations"][1]["category_id"] = 0
    folder.write("labels.json", data)
    assert folder.read().splits["train"].names == ("pets", "cat", "dog", "cow")


Change = Callable[[dict[str, Any]], object]


def box(**values: object) -> Change:
    return lambda data: data["annotations"][0].update(values)


def image(**values: object) -> Change:
    return lambda data: data["images"][0].update(values)


SQUARE = [[10, 5, 20, 5, 20, 35], [4, 6, 8, 6, 8, 7]]
CODED = {"size": [40, 60], "counts": "[66R100000eo1"}  # rows 3 to 8, columns 5 to 8
IMAGE_IDS, CATEGORY_IDS = Fault.IMAGE_ID, Fault.CATEGORY_ID
RUNS = {"size": [40, 60], "counts": [2 * 40 + 3, 5, 35, 5, 40 * 60 - 128]}


@pytest.mark.parametrize(
    ("change", "first", "kind"),
    [
        (box(bbox=[1, 2, 90, 20]), [1, 2, 59, 20], Fault.BOX_CLIPPED),
        (box(bbox=[61, 2, 9, 20]), None, Fault.BOX_OUTSIDE),
        (box(bbox=[1, 2, 3]), None, Fault.BOX_NOT_NUMBERS),
        (box(bbox=[1, 2, "3", 4]), None, Fault.BOX_NOT_FINITE),
        (box(bbox=[1, 2, 0, 4]), None, Fault.BOX_FLAT),
        (box(bbox=None, segmentation=SQUARE), [4, 5, 16, 30], Fault.BOX_FROM_MASK),
        (box(bbox=[], segmentation=SQUARE[0]), [10, 5, 10, 30], Fault.BOX_FROM_MASK),
        (box(bbox=None, segmentation=RUNS), [2, 3, 2, 5], Fault.BOX_FROM_MASK),
        (box(bbox=None, segmentation=CODED), [5, 3, 4, 6], Fault.BOX_FROM_MASK),
        (box(bbox=None, segmentation={"size": [0, 60], "counts": "x"}), None, Fault.BOX_NOT_NUMBERS),
        (box(bbox=None, segmentation=[[10**400] * 6]), None, Fault.BOX_NOT_FINITE),
        (box(bbox=None, segmentation={"size": [4]}), None, Fault.BOX_NOT_NUMBERS),
        (box(bbox=None, segmentation=[["x"] * 6]), None, Fault.BOX_NOT_NUMBERS),
        (box(bbox=None), None, Fault.BOX_NOT_NUMBERS),
        (box(iscrowd=3), None, Fault.CROWD_FLAG),
        (box(image_id=4), None, Fault.UNKNOWN_IMAGE),
        (box(category_id=4), None, Fault.UNKNOWN_CATEGORY),
        (box(category_id="7"), [1, 2, 30, 20], Fault.ID_CONVERTED),
        (image(height=0), [1, 2, 30, 20], Fault.SIZE_FROM_FILE),
        (image(height="x"), [1, 2, 30, 20], Fault.SIZE_FROM_FILE),
        (image(height=80, width=120), "gone", Fault.IMAGE_OTHER_SIZE),
        (image(file_name=7), "gone", Fault.FILE_NAME),
        (image(id="x"), "gone", IMAGE_IDS),
        (lambda d: d["images"].append({"id": 10, "file_name": "c.jpg"}), "gone", IMAGE_IDS),
        (lambda d: d["images"].append(dict(d["images"][0])), [1, 2, 30, 20], Fault.LISTED_TWICE),
        (lambda d: d["categories"][0].update(name=7), [1, 2, 30, 20], Fault.NAME_CONVERTED),
        (lambda d: d["categories"][0].update(name="cat"), [1, 2, 30, 20], Fault.CLASSES_MERGED),
        (lambda d: d["categories"].append({"name": "x"}), [1, 2, 30, 20], CATEGORY_IDS),
    ],
)  # fmt: skip
def test_faults_are_dropped_or_repaired_one_by_one(folder, boxes_of, change: Change, first: Any, kind: Fault) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        folder.image(name)
    data = content("a.jpg", "b.jpg")
    change(data)
    folder.write("labels.json", data)
    imported = folder.read()
    found = boxes_of(imported.splits["train"])
    assert [bbox for _, bbox in found["b.jpg"]] == [[1, 2, 30, 20]]
    if first == "gone":
        assert "a.jpg" not in found
    else:
        assert [bbox for _, bbox in found["a.jpg"]] == ([first] if first else []) + [[5, 6, 7, 8]]
    assert imported.log.counts[kind] == (2 if kind is Fault.IMAGE_ID and len(data["images"]) == 3 else 1)
    place = imported.log.records[kind][0].place
    assert place.startswith("labels.json") or kind is Fault.LISTED_TWICE
    assert imported.log.severity(kind) is (
        Severity.DROPPED if first in ("gone", None) or kind is Fault.CATEGORY_ID else Severity.REPAIRED
    )


def test_boxes_in_another_form_are_refused_with_the_remedy(folder) -> None:
    folder.image("a.jpg")
    folder.write("labels.json", content("a.jpg"))
    assert len(folder.read().splits["train"].labels()) == 2
    data = content("a.jpg")
    for entry, bbox in zip(data["annotations"], ([20, 10, 50, 38], [15, 20, 58, 30]), strict=True):
        entry["bbox"] = bbox
    folder.write("labels.json", data)
    with pytest.raises(DataError, match=r"2 bboxes .* all fit as \[x1, y1, x2, y2\]; .*x2 - x1"):
        folder.read()


def test_one_entry_for_each_box_of_a_image(folder, boxes_of) -> None:
    folder.image("a.jpg")
    data = content("a.jpg", "a.jpg")
    data["annotations"][1]["bbox"] = [20, 20, 5, 5]
    folder.write("labels.json", data)
    imported = folder.read()
    assert len(imported.splits["train"]) == 1
    assert len(boxes_of(imported.splits["train"])["a.jpg"]) == 3
    assert kinds(imported)[Fault.LISTED_TWICE] == 1


def test_doubled_category_ids_are_refused(folder) -> None:
    folder.image("a.jpg")
    folder.write("labels.json", content("a.jpg", categories=[{"id": 7, "name": "dog"}, {"id": 7, "name": "cat"}]))
    with pytest.raises(DataError, match=r"categories\[1\]: id 7 is both 'dog' and 'cat'"):
        folder.read()


def test_files_for_other_tasks_are_left_aside(folder) -> None:
    folder.image("train2017/a.jpg")
    folder.write("annotations/instances_train2017.json", content("a.jpg"))
    folder.write("annotations/person_keypoints_train2017.json", content("a.jpg"))
    imported = folder.read()
    assert len(imported.splits["train"]) == 1
    assert kinds(imported) == {Fault.LEFT_ASIDE: 1}
    only = read_dataset(folder.root / "annotations" / "instances_train2017.json")
    assert len(only.splits["train"]) == 1
    assert only.log.lines() == []


@pytest.mark.parametrize("real", [False, True])
def test_a_clean_folder_is_read_as_load_coco_does(request, tiny_shapes, real: bool) -> None:
    root = request.getfixturevalue("real_data") / "coco-mini" if real else tiny_shapes
    imported = read_dataset(root)
    assert imported.log.lines() == []
    for split in ("train", "val"):
        plain, ours = load_coco(root, split), imported.splits[split]
        assert ours.categories == plain.categories
        assert ours.coco_json()["annotations"] == plain.coco_json()["annotations"]
        assert [p.path for p in ours] == [p.path for p in plain]

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobiledet.config import DataConfig, ReadingConfig
from mobiledet.data.checks import check_coco
from mobiledet.data.faults import CheckReport, Fault, Severity
from mobiledet.data.opening import open_data
from mobiledet.errors import DataError

Change = Callable[[dict[str, Any]], object]


def image(**values: object) -> Change:
    return lambda data: data["images"][0].update(values)


def annotation(**values: object) -> Change:
    """Changes annotations[2]: of a.jpg (40 high, 60 wide), a dog at [45.5, 2, 10, 20.25]."""
    return lambda data: data["annotations"][2].update(values)


def without(section: str, index: int, key: str) -> Change:
    return lambda data: data[section][index].pop(key)


def as_forms(form: Callable[[float, float, float, float], list[float]]) -> Change:
    """Nine boxes of a.jpg, 40 high and 60 wide, in another form than COCO's; two fit as they are as well."""
    boxes = [(x, y, 12, 9) for x in (6, 21, 45) for y in (1, 16, 30)]

    def change(data: dict[str, Any]) -> None:
        entry = {**data["annotations"][2], "iscrowd": 0}
        data["annotations"] = [{**entry, "id": n, "bbox": form(*box)} for n, box in enumerate(boxes, 1)]

    return change


PLACE = "annotations[2] (image 10, 'a.jpg')"

REFUSED: list[tuple[str, Change, list[str]]] = [
    (Fault.NO_IMAGES, lambda d: d.update(images=[], annotations=[]), ["list of images is empty"]),
    (Fault.NO_CATEGORIES, lambda d: d.update(categories=[], annotations=[]), ["at least one class"]),
    (Fault.NO_BOXES, lambda d: d.update(annotations=[]), ["0 annotations"]),
    (Fault.NO_BOXES, lambda d: [a.update(bbox=[1, 1, 0, 5]) for a in d["annotations"]], ["4 annotations, none"]),
    (Fault.IMAGE_ID, image(id=20), ["images[1] ('b.jpg')", "id is 20"]),
    (Fault.IMAGE_ID, image(id="x7"), ["images[0] ('a.jpg')", "'x7'"]),
    (Fault.IMAGE_ID, image(id=1.5), ["id is 1.5"]),
    (Fault.IMAGE_ID, image(id=True), ["id is True"]),
    (Fault.IMAGE_ID, without("images", 0, "id"), ["id is None"]),
    (Fault.IMAGE_ID, image(id=10**30), ["images[0]"]),
    (Fault.IMAGE_SIZE, image(height=-40), ["images[0] (id 10, 'a.jpg')", "height -40"]),
    (Fault.IMAGE_SIZE, image(width="wide"), ["width 'wide'"]),
    (Fault.IMAGE_SIZE, image(width=float("nan")), ["width nan"]),
    (
        Fault.CATEGORY_ID,
        lambda d: d["categories"][0].update(id=3),
        ["categories[1] ('cat')", "id is 3"],
    ),
    (Fault.CATEGORY_ID, without("categories", 0, "id"), ["('dog')", "None"]),
    (
        Fault.CATEGORY_NAME,
        lambda d: d["categories"][1].update(name="dog"),
        ["categories[1] (id 3)", "name is 'dog'"],
    ),
    (Fault.CATEGORY_NAME, without("categories", 1, "name"), ["name is None"]),
    (Fault.CATEGORY_NAME, lambda d: d["categories"][0].update(name=" "), ["name is ' '"]),
    (Fault.FILE_NAME, without("images", 0, "file_name"), ["images[0] (id 10)", "None"]),
    (Fault.FILE_NAME, image(file_name=7), ["file_name is 7"]),
    (Fault.FILE_NAME, image(file_name="a\0.jpg"), ["images[0]"]),
    (Fault.FILE_OUTSIDE, image(file_name="/etc/passwd"), ["'/etc/passwd'"]),
    (Fault.FILE_OUTSIDE, image(file_name="sub/../../a.jpg"), ["sub/../../a.jpg"]),
    (Fault.FILE_OUTSIDE, image(file_name="..\\a.jpg"), ["relative"]),
    (Fault.FILE_OUTSIDE, image(file_name="C:\\a.jpg"), ["images[0] (id 10)"]),
    (Fault.IMAGE_MISSING, image(file_name="gone.jpg"), ["images[0] (id 10, 'gone.jpg')", "not in", "train2017"]),
    (Fault.IMAGE_MISSING, image(file_name="train2017/a.jpg"), ["but there is", "train2017/a.jpg"]),
    (Fault.IMAGE_UNREADABLE, image(file_name="short.jpg"), ["short.jpg is truncated"]),
    (Fault.IMAGE_UNREADABLE, image(file_name="text.jpg"), ["starts with b'hello'"]),
    (Fault.IMAGE_OTHER_SIZE, image(height=41), ["height 41, width 60", "40 x 60"]),
    (Fault.IMAGE_OTHER_SIZE, image(height=60, width=40), ["height 60, width 40"]),
    (Fault.UNKNOWN_IMAGE, annotation(image_id=11), ["annotations[2] (image 11)", "image_id is 11"]),
    (Fault.UNKNOWN_IMAGE, without("annotations", 2, "image_id"), ["image_id is None"]),
    (Fault.UNKNOWN_CATEGORY, annotation(category_id=4), [PLACE, "category_id is 4"]),
    (Fault.UNKNOWN_CATEGORY, without("annotations", 2, "category_id"), [PLACE, "None"]),
    (Fault.BOX_NOT_NUMBERS, annotation(bbox=[1, 2, 3]), [PLACE, "bbox is [1, 2, 3]"]),
    (Fault.BOX_NOT_NUMBERS, annotation(bbox="1 2 3 4"), [PLACE, "'1 2 3 4'"]),
    (Fault.BOX_NOT_NUMBERS, without("annotations", 2, "bbox"), [PLACE, "bbox is None"]),
    (Fault.BOX_NOT_FINITE, annotation(bbox=[1, 2, float("nan"), 4]), [PLACE, "nan"]),
    (Fault.BOX_NOT_FINITE, annotation(bbox=[1, 2, float("inf"), 4]), ["inf"]),
    (Fault.BOX_NOT_FINITE, annotation(bbox=[1, 2, 10**400, 4]), [PLACE]),
    (Fault.BOX_NOT_FINITE, annotation(bbox=["1", "2", "3", "4"]), ["['1', '2',"]),
    (Fault.BOX_NOT_FINITE, annotation(bbox=[1, 2, None, 4]), ["None"]),
    (Fault.BOX_NOT_FINITE, annotation(bbox=[1, 2, True, 4]), ["True"]),
    (Fault.BOX_OUTSIDE, annotation(bbox=[60, 2, 5, 5]), [PLACE, "[60, 2, 5, 5] in 60 x 40"]),
    (Fault.BOX_OUTSIDE, annotation(bbox=[2, 45, 5, 5]), [PLACE, "[2, 45, 5, 5]"]),
    (Fault.BOX_OUTSIDE, annotation(bbox=[-9, 2, 5, 5]), [PLACE]),
    (Fault.BOX_FORM, as_forms(lambda x, y, w, h: [x, y, x + w, y + h]), ["as [x1, y1, x2, y2]", "60 x 40"]),
    (Fault.BOX_FORM, as_forms(lambda x, y, w, h: [y, x, y + h, x + w]), ["as [y1, x1, y2, x2]"]),
    (Fault.BOX_FORM, as_forms(lambda x, y, w, h: [x + w / 2, y + h / 2, w, h]), ["centre"]),
    (Fault.BOX_FORM, as_forms(lambda x, y, w, h: [x / 60, y / 40, w / 60, h / 40]), ["shares of the image"]),
    (Fault.CROWD_FLAG, annotation(iscrowd=2), [PLACE, "iscrowd is 2"]),
    (Fault.CROWD_FLAG, annotation(iscrowd="yes"), [PLACE, "iscrowd is 'yes'"]),
]


def test_boxes_that_look_like_corners_are_taken_as_they_are_where_the_user_says_so(tmp_coco) -> None:
    as_forms(lambda x, y, w, h: [x, y, x + w, y + h])(tmp_coco.data)
    report = tmp_coco.load(reading=ReadingConfig(boxes="xywh")).report
    assert (report.boxes, report.counts[Fault.BOX_CLIPPED], report.counts[Fault.BOX_FORM]) == (9, 5, 0)
    config = {"root": str(tmp_coco.root), "hold_out": None, "val_split": None}
    with pytest.raises(DataError, match="boxes=xywh"):
        open_data(DataConfig(**config))
    answered = DataConfig(**config, reading=ReadingConfig(boxes="xywh"))
    assert open_data(answered).train.report.boxes == 9


@pytest.mark.parametrize(("kind", "change", "words"), REFUSED)
def test_refuses(tmp_coco, kind: Fault, change: Change, words: list[str]) -> None:
    whole = (tmp_coco.images / "a.jpg").read_bytes()
    (tmp_coco.images / "short.jpg").write_bytes(whole[:-50])
    (tmp_coco.images / "text.jpg").write_bytes(b"hello")
    change(tmp_coco.data)
    with pytest.raises(DataError) as caught:
        tmp_coco.load(require_boxes=True)
    (line,) = [line for line in str(caught.value).splitlines() if f" {kind.text}: " in line]
    for word in [*words, kind.remedy]:
        assert word in line


def test_a_jpeg_without_its_end_marker_is_used_and_reported(tmp_coco) -> None:
    file = tmp_coco.images / "a.jpg"
    file.write_bytes(file.read_bytes()[:-2])
    assert tmp_coco.load().report.counts == {Fault.IMAGE_MENDED: 1}


NO_CHANGE = [45.5, 2, 10, 20.25]
REPAIRED: list[tuple[str, Change, int, list[float] | None]] = [
    (Fault.ANNOTATION_ID, annotation(id=0), 1, NO_CHANGE),
    (Fault.ANNOTATION_ID, annotation(id=4), 1, NO_CHANGE),
    (Fault.ANNOTATION_ID, annotation(id=-3), 1, NO_CHANGE),
    (
        Fault.ANNOTATION_ID,
        lambda d: [a.pop("id") for a in d["annotations"]],
        4,
        NO_CHANGE,
    ),
    (Fault.ID_CONVERTED, annotation(image_id="10", category_id="7", id=" 3 "), 3, NO_CHANGE),
    (Fault.ID_CONVERTED, annotation(image_id=10.0), 1, NO_CHANGE),
    (Fault.ID_CONVERTED, image(id="10"), 1, NO_CHANGE),
    (Fault.NAME_CONVERTED, lambda d: d["categories"][0].update(name=7), 1, NO_CHANGE),
    (Fault.SIZE_FROM_FILE, without("images", 0, "height"), 1, NO_CHANGE),
    (Fault.SIZE_FROM_FILE, image(height=0, width=0), 1, NO_CHANGE),
    (Fault.CROWD_ABSENT, without("annotations", 2, "iscrowd"), 1, NO_CHANGE),
    (Fault.AREA_COMPUTED, without("annotations", 2, "area"), 1, NO_CHANGE),
    (Fault.AREA_COMPUTED, annotation(area=float("nan")), 1, NO_CHANGE),
    (Fault.AREA_COMPUTED, annotation(area=0), 1, NO_CHANGE),
    (Fault.AREA_COMPUTED, annotation(area="202"), 1, NO_CHANGE),
    (Fault.BOX_FLAT, annotation(bbox=[5, 5, 0, 7]), 1, None),
    (Fault.BOX_FLAT, annotation(bbox=[5, 5, 7, -2]), 1, None),
    (Fault.BOX_FLAT, annotation(bbox=[90, 90, 0, 0]), 1, None),
    (Fault.BOX_CLIPPED, annotation(bbox=[-5, -6, 20, 20]), 1, [0, 0, 15, 14]),
    (Fault.BOX_CLIPPED, annotation(bbox=[45, 25, 20, 20]), 1, [45, 25, 15, 15]),
    (Fault.BOX_CLIPPED, annotation(bbox=[2, 39, 5, 2.5]), 1, [2, 39, 5, 1]),
    (Fault.BOX_SMALL, annotation(bbox=[5, 5, 0.9, 7]), 1, None),
    (Fault.BOX_SMALL, annotation(bbox=[59.5, 5, 7, 7]), 1, None),
    (
        Fault.BOX_DUPLICATE,
        lambda d: d["annotations"].append({**d["annotations"][2], "id": 9}),
        1,
        NO_CHANGE,
    ),
]


@pytest.mark.parametrize(("kind", "change", "count", "kept"), REPAIRED)
def test_repairs(tmp_coco, kind: Fault, change: Change, count: int, kept: list[float] | None) -> None:
    change(tmp_coco.data)
    dataset = tmp_coco.load()
    assert dict(dataset.report.counts) == {kind: count}
    assert f"repaired: {count} {kind.text} (first: " in dataset.report.summary()
    boxes = dataset.coco_json()["annotations"]
    assert len({a["id"] for a in boxes if a["id"] >= 1}) == len(boxes)
    dogs = [a["bbox"] for a in boxes if a["image_id"] == 10 and a["category_id"] == 7]
    assert dogs == ([] if kept is None else [kept])
    assert dataset[0].target.boxes.shape == (2 + (kept is not None), 4)
    assert (dataset[0].height, dataset[0].width) == (40, 60)


def test_every_rule_has_a_case() -> None:
    assert {kind for kind, *_ in REFUSED} == {
        fault for fault in Fault if fault.severity is Severity.REFUSED and fault is not Fault.ENTRY_AMBIGUOUS
    }
    assert len({kind for kind, *_ in REPAIRED}) == 10


KEPT: list[tuple[str, Change, list[float]]] = [
    ("sticks out by rounding", annotation(bbox=[45.5, 39, 10, 2]), [45.5, 39, 55.5, 40]),
    ("starts outside by rounding", annotation(bbox=[-0.5, -1, 10, 3]), [0, 0, 9.5, 2]),
    ("just large enough", annotation(bbox=[59, 0, 1, 1]), [59, 0, 60, 1]),
    ("iscrowd as a truth value", annotation(iscrowd=False), [45.5, 2, 55.5, 22.25]),
]


@pytest.mark.parametrize(("_why", "change", "box"), KEPT)
def test_keeps_without_a_word(tmp_coco, _why: str, change: Change, box: list[float]) -> None:
    change(tmp_coco.data)
    dataset = tmp_coco.load()
    assert not dataset.report.counts
    assert dataset[0].target.boxes[1].tolist() == box
    original = tmp_coco.data["annotations"][2]["bbox"]
    assert original in [a["bbox"] for a in dataset.coco_json()["annotations"]]


def test_boxes_that_differ_in_anything_are_no_duplicates(tmp_coco) -> None:
    first = tmp_coco.data["annotations"][2]
    for n, other in enumerate([{"category_id": 3}, {"bbox": [45.5, 2, 10, 20.5]}, {"iscrowd": 1}], start=10):
        tmp_coco.data["annotations"].append({**first, **other, "id": n})
    tmp_coco.data["annotations"].append({**first, "image_id": 20, "bbox": [5, 2, 10, 20.25], "id": 20})
    dataset = tmp_coco.load()
    assert not dataset.report.counts
    assert sum(len(dataset[i].target) for i in range(2)) == 8


def test_of_duplicates_the_first_is_kept(tmp_coco) -> None:
    tmp_coco.data["annotations"].append({**tmp_coco.data["annotations"][2], "id": 9, "area": 1.0})
    dataset = tmp_coco.load()
    assert sorted(a["id"] for a in dataset.coco_json()["annotations"]) == [1, 2, 3, 4]
    assert [record.place for record in dataset.report.examples[Fault.BOX_DUPLICATE]] == [
        "annotations[4] (image 10, 'a.jpg')"
    ]


def test_a_missing_reference_is_not_one_to_id_zero(tmp_coco) -> None:
    data = tmp_coco.data
    data["images"][1]["id"] = data["annotations"][0]["image_id"] = 0
    assert tmp_coco.load()[1].image_id == 0
    del data["annotations"][0]["image_id"]
    with pytest.raises(DataError, match=r"1 annotations of an unknown image: annotations\[0\] \(image None\)"):
        tmp_coco.load()


def test_all_faults_are_told_at_once_with_counts_and_few_examples(tmp_coco) -> None:
    data = tmp_coco.data
    data["annotations"] += [{"id": 100 + n, "image_id": 10, "category_id": 99, "bbox": [1, 1, 2, 2]} for n in range(7)]
    data["annotations"][0]["bbox"] = [1, 2]
    data["images"][1]["file_name"] = "gone.jpg"
    with pytest.raises(DataError) as caught:
        tmp_coco.load()
    head, *lines = str(caught.value).splitlines()
    assert head == "instances_train2017.json can't be used:"
    assert [line.split(":")[0] for line in lines] == [
        "- 1 missing images",
        "- 7 annotations of an unknown category",
        "- 1 bboxes that are not four numbers",
    ]
    assert lines[1].count("category_id is 99") == 5
    assert "annotations[4] (image 10, 'a.jpg')" in lines[1]
    assert "; and 2 more. Remedy: " in lines[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["is not JSON", "download it again"]),
        ("[" * 100_000, ["is not JSON"]),
        ("[]", ["list of 0 entries", "predictions"]),
        ('[{"image_id": 1, "score": 0.5}]', ["list of 1 entries", "it holds scores"]),
        ("3", ["is a int"]),
        ('{"foo": 1, "annotations": []}', ["no key 'images' but 'foo', 'annotations'"]),
        ('{"images": [], "categories": []}', ["no key 'annotations'"]),
        ('{"images": {}, "annotations": [], "categories": []}', ["'images' is a dict"]),
        ('{"images": [], "annotations": null, "categories": []}', ["'annotations' is a NoneType"]),
        ('{"images": [3], "annotations": [], "categories": []}', ["images[0] is 3"]),
        ('{"images": [], "annotations": [], "categories": ["cat"]}', ["categories[0] is 'cat'"]),
    ],
)
def test_says_what_a_foreign_file_is(tmp_coco, text: str, words: list[str]) -> None:
    from mobiledet.data.coco import load_coco

    tmp_coco.save(text)
    with pytest.raises(DataError) as caught:
        load_coco(tmp_coco.root, "train")
    for word in ["instances_train2017.json", *words]:
        assert word in str(caught.value)


def test_bytes_that_are_no_text_and_a_byte_order_mark(tmp_coco) -> None:
    from mobiledet.data.coco import load_coco

    file = tmp_coco.save()
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(tmp_coco.data).encode())
    assert len(load_coco(tmp_coco.root, "train")) == 2
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not JSON"):
        load_coco(tmp_coco.root, "train")


def test_links_may_replace_folders_but_not_images(tmp_coco, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    tmp_coco.images.rename(elsewhere)
    tmp_coco.images.symlink_to(elsewhere)
    assert len(tmp_coco.load()) == 2
    outside = tmp_path / "secret.jpg"
    (elsewhere / "a.jpg").rename(outside)
    (elsewhere / "a.jpg").symlink_to(outside)
    with pytest.raises(DataError, match=r"file names leading out.*images\[0\] \(id 10\): file_name is 'a\.jpg'"):
        tmp_coco.load()
    (elsewhere / "a.jpg").unlink()
    outside.rename(elsewhere / "real.jpg")
    (elsewhere / "a.jpg").symlink_to("real.jpg")
    assert len(tmp_coco.load()) == 2
    (elsewhere / "sub").symlink_to(tmp_path)
    tmp_coco.data["images"][0]["file_name"] = "sub/elsewhere/real.jpg"
    assert len(tmp_coco.load()) == 2  # out and in again
    tmp_coco.data["images"][0]["file_name"] = "sub/coco/a.jpg"
    with pytest.raises(DataError, match="leading out"):
        tmp_coco.load()


@pytest.mark.parametrize(
    ("orientation", "size", "apply"),
    [
        (1, (40, 60), False),
        (6, (40, 60), False),  # labelled as stored
        (6, (60, 40), True),  # labelled upright
        (8, (60, 40), True),
        (3, (40, 60), True),  # can't be known, nothing to go by
        (6, None, True),
        (3, None, True),
        (9, None, True),
    ],
)
def test_exif_rotation_is_applied_if_the_size_says_so(
    tmp_coco, orientation: int, size: tuple[int, int] | None, apply: bool
) -> None:
    tmp_coco.add_image("a.jpg", 40, 60, orientation)
    first = tmp_coco.data["images"][0]
    del tmp_coco.data["annotations"][1]  # it fills the image as it lies
    tmp_coco.data["annotations"][1]["bbox"] = [2, 2, 30, 30]
    first["height"], first["width"] = size or (None, None)
    record = tmp_coco.load()[0]
    assert record.apply_orientation is apply
    assert (record.height, record.width) == (size or ((60, 40) if orientation == 6 else (40, 60)))


@pytest.mark.parametrize(
    ("labelled", "expected", "noted"), [((60, 40), True, 0), ((40, 60), False, 0), (None, True, 1)]
)
def test_pictures_that_can_be_told_decide_for_those_that_can_not(
    tmp_coco, labelled: tuple[int, int] | None, expected: bool, noted: int
) -> None:
    tmp_coco.add_image("b.jpg", 50, 30, 3)
    if labelled:
        tmp_coco.add_image("c.jpg", 40, 60, 6)
        tmp_coco.data["images"].append({"id": 30, "file_name": "c.jpg", "height": labelled[0], "width": labelled[1]})
    dataset = tmp_coco.load()
    assert dataset[1].apply_orientation is expected
    assert dataset.report.counts[Fault.ROTATION_UNCLEAR] == noted
    assert ("can't confirm" in dataset.report.summary()) is bool(noted)


def test_notes_what_is_legal_and_odd(tmp_coco) -> None:
    for n in range(2):
        tmp_coco.add_image(f"empty{n}.jpg", 40, 60)
        tmp_coco.data["images"].append({"id": 30 + n, "file_name": f"empty{n}.jpg", "height": 40, "width": 60})
    tmp_coco.data["categories"].append({"id": 1, "name": "nothing"})
    dataset = tmp_coco.load()
    assert dataset.describe("mine").startswith("mine: 4 images, 4 boxes, 3 classes (")
    assert dataset.first(1).describe("mine").startswith("mine: 1 of 4 images, ")
    summary = dataset.report.summary()
    assert "note: 2 images without boxes (background)" in summary
    assert "note: 1 classes without a box" in summary
    assert "repaired" not in summary


def test_area_of_a_clipped_box_is_no_larger_than_the_box(tmp_coco) -> None:
    tmp_coco.data["annotations"][2].update(bbox=[45, 25, 20, 20], area=400.0)
    tmp_coco.data["annotations"][0].update(bbox=[-10, 10, 30, 30], area=77.0)
    areas = {a["id"]: a["area"] for a in tmp_coco.load().coco_json()["annotations"]}
    assert areas == {1: 77.0, 2: 2400.0, 3: 225.0, 4: 12.0}


def test_checks_are_functions_of_the_parsed_json(tmp_coco) -> None:
    before = json.dumps(tmp_coco.data)
    tmp_coco.data["annotations"][2]["bbox"] = [-5, -6, 20, 20]
    changed = json.dumps(tmp_coco.data)
    report = CheckReport("x.json")
    columns = check_coco(tmp_coco.data, tmp_coco.images, report)
    assert json.dumps(tmp_coco.data) == changed != before  # what was given is left as it was
    assert columns.offsets.tolist() == [0, 3, 4]
    assert columns.labels.tolist() == [1, 2, 1, 2]
    assert columns.annotation_ids.tolist() == [2, 3, 4, 1]
    assert columns.iscrowd.dtype == np.bool_
    report.raise_if_errors()

"""Formats whose files name their images: each reads the same two objects from what its tool writes."""

from __future__ import annotations

import csv
import io
import json

import pytest

from mobiledet.data.faults import Fault
from mobiledet.data.formats.choose import read_dataset
from mobiledet.errors import DataError

# a.jpg, 60 x 40: a cat at x 6, y 8, 12 wide, 16 high; a dog at 30, 10, 15, 20, a polygon where the tool has them.
POLYGON = [[30, 10], [45, 12], [40, 30]]
PERCENT = {"x": 10, "y": 20, "width": 20, "height": 40}
OUTLINE = [[50, 25], [75, 30], [66, 75]]
CVAT_BOX = '<box label="cat" xtl="6" ytl="8" xbr="18" ybr="24"/>'


def labelme(*shapes: object) -> dict[str, object]:
    return {"version": "5", "shapes": list(shapes), "imagePath": "..\\a.jpg", "imageHeight": 40, "imageWidth": 60}


def via(*regions: object) -> dict[str, object]:
    return {"filename": "a.jpg", "size": 5, "regions": list(regions), "file_attributes": {}}


def region(label: object, **shape: object) -> dict[str, object]:
    return {"shape_attributes": shape, "region_attributes": label if isinstance(label, dict) else {"class": label}}


def via_csv() -> str:
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["filename", "file_size", "file_attributes", "region_count", "region_id", *VIA_COLUMNS])
    for number, shape in enumerate(VIA_REGIONS):
        rows.writerow(["a.jpg", 5, "{}", 2, number, *map(json.dumps, shape.values())])
    rows.writerow(["b.jpg", 5, "{}", 0, 0, "{}", "{}"])
    return text.getvalue()


VIA_COLUMNS = ["region_shape_attributes", "region_attributes"]
VIA_REGIONS = (
    region("cat", name="rect", x=6, y=8, width=12, height=16),
    region("dog", name="polygon", all_points_x=[30, 45, 40], all_points_y=[10, 12, 30]),
)


def result(kind: str, **value: object) -> dict[str, object]:
    return {"type": kind, "original_width": 60, "original_height": 40, "value": value}


def task(*results: object) -> list[dict[str, object]]:
    cancelled = {"was_cancelled": True, "result": []}
    image = "/data/upload/1/0123abcd-a.jpg?x=1"
    return [{"data": {"image": image}, "annotations": [cancelled, {"result": list(results)}]}]


def cvat(content: str, rest: str = "") -> str:
    head = '<?xml version="1.0"?><annotations><version>1.1</version><image id="0" name="a.jpg" width="60" height="40">'
    return f"{head}{content}</image>{rest}</annotations>"


CAT = result("rectanglelabels", **PERCENT, rectanglelabels=["cat"])
RESULTS = (
    CAT,
    result("polygonlabels", points=OUTLINE, polygonlabels=["dog"]),
    {"type": "choices", "value": {"choices": ["sunny"]}},
)
EMPTY_TASKS = [
    {"data": {"image": "b.jpg"}, "annotations": [{"result": []}]},
    {"data": {"image": "c.jpg"}, "annotations": []},  # nobody has looked at it
]
MIN_TASKS = [
    {"image": "https://host/a%2Ejpg?sig=1", "label": [{**PERCENT, "original_width": 60, "rectanglelabels": ["cat"]}]},
    {"image": "/data/local-files/?d=x/b.jpg", "id": 2},
]
CREATEML = [
    {"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 12, "y": 16, "width": 12, "height": 16}}]},
    {"imagefilename": "b.jpg", "annotation": []},
]
OPEN_IMAGES = """ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf
a,xclick,/m/1,1,0.1,0.3,0.2,0.6,0,0,0
a,xclick,/m/2,1,0.5,0.75,0.25,0.75,0,0,1
b,xclick,/m/1,1,0,1,0,1,0,0,0
gone,xclick,/m/1,1,0,1,0,1,0,0,0
"""
BACKGROUND = via() | {"filename": "b.jpg"}

FILES = {
    "labelme": {
        "json/a.json": labelme(
            {"label": "cat", "points": [[18, 24], [6, 8]], "shape_type": "rectangle"},
            {"label": "dog", "points": POLYGON, "shape_type": "polygon"},
        ),
        "json/b.json": labelme() | {"imagePath": "renamed.png"},
    },
    "createml": {"_annotations.createml.json": CREATEML},
    "via": {"p.json": {"_via_settings": {}, "_via_img_metadata": {"a.jpg5": via(*VIA_REGIONS), "b": BACKGROUND}}},
    "via json": {"p.json": {"a.jpg5": via() | {"regions": dict(enumerate(VIA_REGIONS))}, "b": BACKGROUND}},
    "via csv": {"p.csv": via_csv()},
    "label_studio": {"project-1.json": task(*RESULTS) + EMPTY_TASKS},
    "label_studio min": {"project-1.json": MIN_TASKS},
    "cvat": {
        "annotations.xml": cvat(
            f'{CVAT_BOX}<polygon label="dog" points="30,10;45,12;40,30"/><tag label="sunny"/>',
            '<image id="1" name="b.jpg" width="60" height="40"/>',
        )
    },
    "retinanet": {"train.csv": "/data/a.jpg,6,8,18,24,cat\na.jpg,30,10,45,30,dog\nb.jpg,,,,,\n"},
    "openimages": {
        "train-annotations-bbox.csv": OPEN_IMAGES,
        "class-descriptions-boxable.csv": "/m/1,cat\n/m/2,dog\n",
    },
}


@pytest.mark.parametrize("case", FILES)
@pytest.mark.parametrize("named", ["folder", "file"])
def test_every_tools_files_are_read(folder, boxes_of, case: str, named: str) -> None:
    for image in ("a.jpg", "b.jpg"):
        folder.image(image)
    files = [folder.write(name, content) for name, content in FILES[case].items()]
    if named == "file" and case == "labelme":
        pytest.skip("a file is one image")
    imported = read_dataset(folder.root if named == "folder" else files[0])
    assert imported.format == case.split()[0]
    found = boxes_of(imported.splits["train"])
    cat, dog = ("cat", [6, 8, 12, 16]), ("dog", [30, 10, 15, 20])
    assert found["a.jpg"] == ([cat] if case in ("createml", "label_studio min") else [cat, dog])
    assert found["b.jpg"] == ([("cat", [0, 0, 60, 40])] if case == "openimages" else [])
    counts = imported.log.counts
    assert counts[Fault.POLYGON] == (case in ("labelme", "via", "via json", "via csv", "label_studio", "cvat"))
    assert counts[Fault.ENTRY_LONE] == (case == "openimages")
    if case == "openimages":
        assert imported.splits["train"].coco_json()["annotations"][1]["iscrowd"] == 1


CIRCLE = {"name": "circle", "cx": 30, "cy": 20, "r": 5}
ELLIPSE = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20}
TURNED = {"x": 50, "y": 50, "width": 10, "height": 30, "rotation": 90}


@pytest.mark.parametrize(
    ("name", "content", "box"),
    [
        ("a.json", labelme({"label": "x", "points": [[30, 20], [30, 28]], "shape_type": "circle"}), [22, 12, 16, 16]),
        ("a.json", {"k": via(region("x", name="ellipse", cx=30, cy=20, rx=10, ry=5))}, [20, 15, 20, 10]),
        ("a.json", {"k": via(region({"x": "x"}, **CIRCLE))}, [25, 15, 10, 10]),
        ("a.json", {"k": via(region({"z": 1, "type": {"x": True, "y": False}}, **CIRCLE))}, [25, 15, 10, 10]),
        ("a.json", task(result("rectanglelabels", **TURNED, rectanglelabels=["x"])), [18, 20, 12, 6]),
        ("a.json", task(result("ellipselabels", **ELLIPSE, ellipselabels=["x"])), [24, 12, 12, 16]),
        ("a.xml", cvat('<box label="x" xtl="20" ytl="10" xbr="30" ybr="26" rotation="90"/>'), [17, 13, 16, 10]),
        ("a.xml", cvat('<mask label="x" left="3" top="4" width="5" height="6" rle="1"/>'), [3, 4, 5, 6]),
        ("a.xml", cvat('<ellipse label="x" cx="30" cy="20" rx="5" ry="6"/>'), [25, 14, 10, 12]),
    ],
)
def test_shapes_become_the_boxes_around_them(folder, boxes_of, name: str, content: object, box: list[float]) -> None:
    folder.image("a.jpg")
    folder.write(name, content)
    assert boxes_of(folder.read().splits["train"])["a.jpg"] == [("x", box)]


def test_what_has_no_box_no_class_or_no_image_is_counted(folder) -> None:
    folder.image("a.jpg")
    good, point = (
        {"label": "x", "points": [[1, 2], [9, 9]], "shape_type": "rectangle"},
        {"label": "p", "points": [[3, 3]]},
    )
    bad = [point | {"shape_type": "point"}, {"label": "", "points": [[1, 1], [2, 2]]}, {"points": 5}, 7, point]
    folder.write("a.json", labelme(good, *bad))
    folder.write("gone.json", labelme(good) | {"imagePath": "gone.jpg"})
    folder.write("half.json", '{"shapes": [], "imagePath"')
    folder.image("new.jpg")
    folder.image("emptied.jpg")
    folder.write("emptied.json", labelme(bad[0]) | {"imagePath": "emptied.jpg"})
    imported = folder.read()
    log = imported.log
    assert len(imported.splits["train"]) == 1
    expected = {Fault.OBJECT_BOXLESS: 4, Fault.OBJECT_NAMELESS: 1, Fault.BOX_POINT: 1, Fault.ENTRY_LONE: 1}
    expected |= {Fault.IMAGE_EMPTIED: 1}
    expected |= {Fault.LABELS_UNREADABLE: 1, Fault.IMAGE_UNLABELLED: 1}
    assert {fault: count for fault, count in log.counts.items() if fault in expected} == expected
    (emptied,) = log.records[Fault.IMAGE_EMPTIED]
    assert emptied.value == "1 in all"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", labelme() | {"shapes": 7}),
        ("a.json", [CREATEML[0] | {"annotations": 0.5}]),
        ("a.json", {"k": via() | {"regions": None}}),
        ("a.csv", via_csv().replace(",", "\r", 7)),
    ],
)
def test_damaged_files_end_in_one_line(folder, name: str, content: object) -> None:
    folder.image("a.jpg")
    folder.write(name, content)
    with pytest.raises(DataError):
        folder.read()


def test_which_attribute_is_the_class_is_asked(folder) -> None:
    folder.image("a.jpg")
    folder.write(
        "a.json", {"k": via(region({"size": "big", "color": "red"}, name="rect", x=1, y=1, width=5, height=5))}
    )
    with pytest.raises(DataError, match="size, color"):
        folder.read()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.xml", '<annotations><track id="0"/></annotations>', "CVAT for images"),
        ("a.json", '{"tags": [], "objects": [{"classTitle": "cat"}]}', "Supervisely"),
        ("x.tfrecord", b"\0", "TFRecord"),
        ("a.json", labelme() | {"imagePath": "gone.jpg"}, "none of their images"),
    ],
)
def test_what_is_not_read_is_named(folder, name: str, content: object, words: str) -> None:
    folder.image("b.jpg")
    folder.write(name, content)
    with pytest.raises(DataError, match=words):
        folder.read()

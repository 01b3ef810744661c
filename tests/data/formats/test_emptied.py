"""An image whose labels are all unusable is no background: it is left out in every format, and counted."""

import pytest

from mobiledet.config import DataConfig, ReadingConfig
from mobiledet.data.coco import load_coco
from mobiledet.data.faults import Fault
from mobiledet.data.opening import open_data
from mobiledet.errors import DataError

ROW = "0 0.5 0.5 0.5 0.25"


def yolo(folder, make, bad):
    folder.write("classes.txt", "cat")
    for name, rows in (("a", ROW), ("b", bad), ("c", "")):
        folder.yolo(name, rows)


def voc(folder, make, bad):
    for name, objects in (("a", [make()]), ("b", [bad]), ("c", [])):
        folder.voc(name, *objects)


def csv(folder, make, bad):
    for name in "abc":
        folder.image(f"{name}.jpg")
    folder.write("boxes.csv", f"filename,xmin,ymin,xmax,ymax,class\na.jpg,1,1,20,20,cat\nb.jpg,{bad}\nc.jpg,,,,,\n")


def labelme(folder, make, bad):
    for name, shapes in (("a", [{"label": "cat", "points": [[1, 1], [20, 20]]}]), ("b", [bad]), ("c", [])):
        folder.image(f"{name}.jpg")
        shapes = [{"shape_type": "rectangle", **shape} for shape in shapes]
        folder.write(f"{name}.json", {"shapes": shapes, "imagePath": f"{name}.jpg", "shape_type": 0})


def retinanet(folder, make, bad):
    for name in "abc":
        folder.image(f"{name}.jpg")
    folder.write("boxes.csv", f"a.jpg,1,1,20,20,cat\nb.jpg,{bad}\nc.jpg,,,,,\n")


def coco(folder, make, bad):
    images = [{"id": n, "file_name": f"{name}.jpg", "height": 40, "width": 60} for n, name in enumerate("abc")]
    for image in images:
        folder.image(f"train/{image['file_name']}")
    good = {"id": 1, "image_id": 0, "category_id": 1, "bbox": [5, 5, 20, 20]}
    categories = [{"id": 1, "name": "cat"}]
    annotations = [good, {**good, "id": 2, "image_id": 1, **bad}]
    content = {"images": images, "annotations": annotations, "categories": categories}
    folder.write("annotations/instances_train.json", content)


THING = "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>5</ymin><xmax>9</xmax><ymax>9</ymax></bndbox></object>"
CASES = [
    (yolo, "cat 0.5 0.5 0.1 0.1"),
    (yolo, "7 0.5 0.5 0.1 0.1"),
    (yolo, f"{ROW} 0.1 0.1 0.1\n0 1.9 0.5 0.1 0.1"),
    (yolo, "0 0.5 0.5 0 0\n0 0.5 0.5 0.001 0.001"),
    (voc, THING.format("", 5)),
    (voc, THING.format("cat", 9)),
    (voc, THING.format("cat", "x")),
    (voc, "<object><name>cat</name></object>"),
    (csv, "x,1,20,20,cat"),
    (csv, "1,1,20,20,"),
    (csv, "5,5,5,9,cat"),
    (labelme, {"label": "cat", "points": [[1, 1], [1, 20]]}),
    (labelme, {"label": "", "points": [[1, 1], [20, 20]]}),
    (labelme, {"label": "cat", "points": [[1]]}),
    (retinanet, "1,1,x,20,cat"),
    (coco, {"bbox": [5, 5, 0, 20]}),
    (coco, {"category_id": 9}),
    (coco, {"bbox": [500, 5, 20, 20]}),
    (coco, {"bbox": None}),
]


@pytest.mark.parametrize(("layout", "bad"), CASES)
def test_an_image_without_a_usable_label_is_left_out(folder, make, layout, bad) -> None:
    layout(folder, make, bad)
    imported = folder.read()
    assert [record.path.name for record in imported.splits["train"]] == ["a.jpg", "c.jpg"]
    assert imported.log.counts[Fault.IMAGE_EMPTIED] == 1
    assert Fault.IMAGE_EMPTIED in imported.log.dropped()
    assert imported.splits["train"].report.images == 2
    assert len(folder.read(reading=ReadingConfig(doubtful="background")).splits["train"]) == 3


def test_coco_read_strictly(folder, make) -> None:
    coco(folder, make, {"bbox": [5, 5, 0.2, 20]})
    data = load_coco(folder.root, "train")
    assert ([record.path.name for record in data], data.report.counts[Fault.IMAGE_EMPTIED]) == (["a.jpg", "c.jpg"], 1)
    config = {"root": str(folder.root), "val_split": None}
    assert len(open_data(DataConfig(**config)).train) == 2
    assert len(open_data(DataConfig(**config, reading=ReadingConfig(doubtful="background"))).train) == 3
    content = {"images": [{"id": 1, "file_name": "b.jpg", "height": 40, "width": 60}]}
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 0, 20]}]
    folder.write("annotations/instances_train.json", {**content, "categories": [{"id": 1, "name": "cat"}]})
    with pytest.raises(DataError, match="no image is left"):
        load_coco(folder.root, "train")


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "x/" * 3000 + "a.jpg"])
def test_names_that_no_file_system_takes_are_missing_images(folder, make, name: str) -> None:
    coco(folder, make, {})
    file = folder.root / "annotations/instances_train.json"
    file.write_text(file.read_text().replace("b.jpg", name))
    with pytest.raises(DataError, match="1 missing images"):
        load_coco(folder.root, "train")
    assert len(folder.read().splits["train"]) == 2

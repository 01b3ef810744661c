from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from mobiledet.data.coco import Category, CocoDataset, load_coco, locate_split
from mobiledet.data.faults import Fault
from mobiledet.data.images import read_image
from mobiledet.data.shapes import generate_shapes
from mobiledet.errors import DataError


def average_precision(truth: dict[str, Any], found: list[dict[str, Any]]) -> float:
    coco = COCO()
    coco.dataset = truth
    coco.createIndex()
    evaluation = COCOeval(coco, coco.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def perfect_detections(dataset: CocoDataset) -> list[dict[str, Any]]:
    """What a detector that is always right would report, by way of targets and labels."""
    found = []
    for index in range(len(dataset)):
        record = dataset[index]
        objects = ~record.target.iscrowd
        for (x1, y1, x2, y2), label in zip(
            record.target.boxes[objects].tolist(), record.target.labels[objects], strict=True
        ):
            category = dataset.categories[label - 1].id
            box = [x1, y1, x2 - x1, y2 - y1]
            found.append({"image_id": record.image_id, "category_id": category, "bbox": box, "score": 0.9})
    return found


def test_records_carry_contiguous_labels_and_xyxy_boxes(tmp_coco) -> None:
    dataset = tmp_coco.load()
    assert dataset.categories == (Category(3, "cat"), Category(7, "dog"))
    assert (dataset.names, dataset.num_classes, len(dataset)) == (("cat", "dog"), 2, 2)
    first, second = dataset[0], dataset[1]
    assert (first.image_id, first.path, first.height, first.width) == (10, tmp_coco.images / "a.jpg", 40, 60)
    assert first.target.boxes.tolist() == [[0, 0, 60, 40], [45.5, 2, 55.5, 22.25], [1, 2, 4, 6]]
    assert first.target.boxes.dtype == np.float32
    assert first.target.labels.tolist() == [1, 2, 1]
    assert first.target.iscrowd.tolist() == [False, False, True]
    assert second.target.boxes.tolist() == [[5, 10, 25, 40]]
    assert (dataset.image_id(1), dataset[-1].image_id) == (20, 20)
    assert read_image(first.path).shape == (first.height, first.width, 3)
    assert dataset.annotation_file == tmp_coco.root / "annotations" / "instances_train2017.json"
    assert dataset.image_dir == tmp_coco.images
    with pytest.raises(IndexError):
        dataset[2]


def test_records_do_not_share_memory_with_the_data_set(tmp_coco) -> None:
    dataset = tmp_coco.load()
    before = dataset.fingerprint()
    target = dataset[0].target
    target.boxes[:] = 0
    target.labels[:] = 0
    target.iscrowd[:] = True
    assert dataset.fingerprint() == before
    assert dataset[0].target.labels.tolist() == [1, 2, 1]


@pytest.mark.parametrize("flag", [{"ignore": 1}, {"ignore": True}, {"ignore": "1"}, {"difficult": "true"}])
def test_ignored_boxes_are_neither_object_nor_background(tmp_coco, flag) -> None:
    tmp_coco.data["annotations"][2] |= flag
    dataset = tmp_coco.load()
    assert (len(dataset.objects()), dataset.report.counts) == (2, {Fault.DIFFICULT: 1})
    assert dataset[0].target.iscrowd.tolist() == [False, True, True]
    truth = {a["id"]: (a["iscrowd"], a["ignore"]) for a in dataset.coco_json()["annotations"]}
    assert truth == {1: (0, 0), 2: (0, 0), 3: (0, 1), 4: (1, 0)}


def test_ignored_boxes_alone_are_nothing_to_train_on(tmp_coco) -> None:
    for entry in tmp_coco.data["annotations"]:
        entry["ignore"] = 1
    with pytest.raises(DataError, match="none of them usable"):
        tmp_coco.load(require_boxes=True)
    for entry in tmp_coco.data["annotations"]:
        entry["ignore"] = "0"
    assert len(tmp_coco.load(require_boxes=True).objects()) == 3


def test_coco_json_gives_back_a_clean_file(tmp_coco) -> None:
    truth = json.loads(json.dumps(tmp_coco.load().coco_json()))
    assert truth["images"] == tmp_coco.data["images"]
    assert truth["categories"] == sorted(tmp_coco.data["categories"], key=lambda c: c["id"])
    expected = [{**a, "ignore": 0} for a in tmp_coco.data["annotations"]]
    assert sorted(truth["annotations"], key=lambda a: a["id"]) == expected


@pytest.mark.parametrize("first_category", [0, 3])
@pytest.mark.parametrize("first_annotation", [0, 1])
def test_a_perfect_detector_scores_one_whatever_the_ids(tmp_coco, first_category: int, first_annotation: int) -> None:
    for a in tmp_coco.data["annotations"]:
        a["category_id"] += first_category - 3
        a["id"] += first_annotation - 1
    for c in tmp_coco.data["categories"]:
        c["id"] += first_category - 3
    dataset = tmp_coco.load()
    assert average_precision(dataset.coco_json(), perfect_detections(dataset)) == pytest.approx(1.0)
    # What the repair is for: as it was, the file costs the perfect detector its score.
    unrepaired = average_precision(tmp_coco.data, perfect_detections(dataset))
    assert (unrepaired < 0.9) == (first_annotation == 0)


def test_fingerprint_changes_with_the_data_and_only_with_it(tmp_coco, tmp_path: Path) -> None:
    seen = {tmp_coco.load().fingerprint()}
    shutil.copytree(tmp_coco.root, tmp_path / "moved")
    assert load_coco(tmp_path / "moved", "train").fingerprint() in seen
    assert pickle.loads(pickle.dumps(tmp_coco.load())).fingerprint() in seen
    shutil.copy(tmp_coco.images / "a.jpg", tmp_coco.images / "c.jpg")
    changes = [
        ("images", 0, "id", 11),
        ("images", 0, "file_name", "c.jpg"),
        ("annotations", 2, "bbox", [45.5, 2, 10, 20.26]),
        ("annotations", 2, "category_id", 3),
        ("annotations", 2, "iscrowd", 1),
        ("annotations", 2, "ignore", 1),
        ("categories", 0, "name", "hound"),
        ("categories", 0, "id", 8),
    ]
    for section, index, key, value in changes:
        data = json.loads(json.dumps(tmp_coco.data))
        data[section][index][key] = value
        for a in data["annotations"]:
            a["image_id"] = {10: data["images"][0]["id"]}.get(a["image_id"], a["image_id"])
            a["category_id"] = {7: data["categories"][0]["id"]}.get(a["category_id"], a["category_id"])
        other = tmp_path / f"{section}-{key}.json"
        other.write_text(json.dumps(data))
        seen.add(load_coco(None, "", annotations=other, images=tmp_coco.images).fingerprint())
    assert len(seen) == 1 + len(changes)


@pytest.mark.parametrize(
    ("annotation", "folder", "split"),
    [
        ("annotations/instances_train2017.json", "train2017", "train"),
        ("annotations/instances_train2017.json", "train2017", "train2017"),
        ("annotations/instances_train2014.json", "train2014", "train"),
        ("annotations/instances_train.json", "train", "train"),
        ("annotations/instances_train.json", "images", "train"),
        ("annotations/instances_train.json", "images/train", "train"),
        ("annotations/instances_train2017.json", "images/train2017", "train"),
        ("annotations/train.json", "train", "train"),
        ("annotations/train2017.json", "train2017", "train"),
        ("train/_annotations.coco.json", "train", "train"),
        ("valid/_annotations.coco.json", "valid", "valid"),
        ("valid/_annotations.coco.json", "valid", "val"),
    ],
)
def test_locates_the_usual_layouts(tmp_path: Path, annotation: str, folder: str, split: str) -> None:
    for name in (annotation, "annotations/captions_train2017.json", "annotations/instances_other2017.json"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    (tmp_path / "images").mkdir(exist_ok=True)
    assert locate_split(tmp_path, split) == (tmp_path / annotation, tmp_path / folder)


def test_prefers_2017_then_the_latest_year(tmp_path: Path) -> None:
    (tmp_path / "annotations").mkdir()
    for year in ("2014", "2015"):
        (tmp_path / f"train{year}").mkdir()
        (tmp_path / "annotations" / f"instances_train{year}.json").write_text("{}")
    assert locate_split(tmp_path, "train")[1].name == "train2015"
    (tmp_path / "train2017").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text("{}")
    assert locate_split(tmp_path, "train")[1].name == "train2017"
    assert locate_split(tmp_path, "train2014")[1].name == "train2014"


def test_says_what_was_looked_for_and_what_is_there(tmp_coco, tmp_path: Path) -> None:
    tmp_coco.save()
    with pytest.raises(DataError) as caught:
        locate_split(tmp_coco.root, "trian")
    for words in ("'trian'", "annotations/instances_trian2017.json", "there is 'train'", "did you mean 'train'?"):
        assert words in str(caught.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="the folder is empty"):
        locate_split(tmp_path / "empty", "train")
    with pytest.raises(DataError, match="gone is not a folder"):
        locate_split(tmp_path / "gone", "train")
    tmp_coco.images.rename(tmp_coco.root / "pics")
    with pytest.raises(DataError, match=r"looked for train2017/, .*images/; there is annotations/, pics/"):
        locate_split(tmp_coco.root, "train")


def test_explicit_paths(tmp_coco, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tmp_coco.save().rename(tmp_coco.root / "labels.json")
    tmp_coco.images.rename(tmp_coco.root / "pics")
    below = load_coco(tmp_coco.root, "any", annotations=Path("labels.json"), images=Path("pics"))
    assert below.image_dir == tmp_coco.root / "pics"
    monkeypatch.chdir(tmp_path)
    beside = load_coco(None, "any", annotations=Path("coco/labels.json"), images=Path("coco/pics"))
    assert beside.fingerprint() == below.fingerprint()
    fallback = load_coco(tmp_coco.root, "any", annotations=Path("coco/labels.json"), images=Path("pics"))
    assert fallback.annotation_file == Path("coco/labels.json")
    (tmp_coco.root / "pics").rename(tmp_coco.root / "val")
    assert load_coco(tmp_coco.root, "val", annotations=Path("labels.json")).image_dir == tmp_coco.root / "val"
    with pytest.raises(DataError, match=r"annotation file gone\.json doesn't exist; looked for .*coco/gone\.json and"):
        load_coco(tmp_coco.root, "train", annotations=Path("gone.json"))
    with pytest.raises(DataError, match="no data set named"):
        load_coco(None, "train", annotations=Path("coco/labels.json"))
    with pytest.raises(DataError, match="is not a folder"):
        load_coco(tmp_coco.root, "val", annotations=Path("labels.json"), images=Path("labels.json"))


def test_pictures_beside_a_roboflow_file_named_explicitly(tmp_coco) -> None:
    tmp_coco.save().rename(tmp_coco.images / "_annotations.coco.json")
    (tmp_coco.root / "images").mkdir()
    tmp_coco.images.rename(tmp_coco.root / "part1")
    dataset = load_coco(tmp_coco.root, "train", annotations=Path("part1/_annotations.coco.json"))
    assert (dataset.image_dir, len(dataset)) == (tmp_coco.root / "part1", 2)


@pytest.mark.parametrize(("split", "count", "boxes", "crowds"), [("train", 166, 1580, None), ("val", 188, 1692, 20)])
def test_real_coco_passes_untouched(real_data: Path, split: str, count: int, boxes: int, crowds: int | None) -> None:
    dataset = load_coco(real_data / "coco-mini", split, require_boxes=True)
    assert (len(dataset), dataset.num_classes, dataset.report.boxes) == (count, 80, boxes)
    assert not dataset.report.counts
    truth = dataset.coco_json()
    original = json.loads(dataset.annotation_file.read_text())
    kept = {a["id"]: (a["bbox"], a["area"], a["category_id"], a["iscrowd"]) for a in truth["annotations"]}
    given = {a["id"]: (a["bbox"], a["area"], a["category_id"], a["iscrowd"]) for a in original["annotations"]}
    assert kept == given
    if crowds is not None:
        assert sum(a["iscrowd"] for a in truth["annotations"]) == crowds
    if split == "val":
        assert average_precision(truth, perfect_detections(dataset)) == pytest.approx(1.0)


@pytest.mark.parametrize(("split", "count", "boxes"), [("train", 205, 2804), ("val", 87, 1137), ("test", 72, 945)])
def test_real_blood_cells_pass(real_data: Path, split: str, count: int, boxes: int) -> None:
    dataset = load_coco(real_data / "bccd", split, require_boxes=True)
    assert (len(dataset), dataset.names) == (count, ("RBC", "WBC", "Platelets"))
    assert dataset.report.boxes + dataset.report.counts[Fault.BOX_DUPLICATE] == boxes
    assert set(dataset.report.counts) <= {Fault.BOX_DUPLICATE, Fault.BOX_CLIPPED}


def test_the_first_pictures_alone(tmp_path):
    root = generate_shapes(tmp_path / "shapes", train=5, val=2, size=(64, 96))
    whole = load_coco(root, "train")
    part = whole.first(3)
    assert (len(part), part.names) == (3, whole.names)
    for index in range(3):
        np.testing.assert_array_equal(part[index].target.boxes, whole[index].target.boxes)
    annotations = part.coco_json()["annotations"]
    assert len(annotations) == sum(len(whole[i].target) for i in range(3))
    assert {row["image_id"] for row in annotations} <= {whole.image_id(i) for i in range(3)}
    assert part.fingerprint() != whole.fingerprint()
    assert len(whole.first(99)) == 5

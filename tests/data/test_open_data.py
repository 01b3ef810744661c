import json
import logging
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from mobiledet.config import Config, DataConfig, ReadingConfig
from mobiledet.data.coco import load_coco
from mobiledet.data.formats.choose import read_dataset
from mobiledet.data.opening import open_data, open_recorded_split, open_split
from mobiledet.errors import DataError


@pytest.fixture
def shapes(tiny_shapes, tmp_path):
    return shutil.copytree(tiny_shapes, tmp_path / "shapes")


def without_val(root):
    (root / "annotations/instances_val.json").unlink()
    shutil.rmtree(root / "val")
    return root


def yolo(root, splits=("train", "valid")):
    """A YOLO folder of grey images, 40 high and 60 wide, each with one box in its middle."""
    for split in splits:
        for kind in ("images", "labels"):
            (root / split / kind).mkdir(parents=True)
        for index in range(6):
            Image.fromarray(np.full((40, 60, 3), 20 * index, np.uint8)).save(root / split / f"images/{index}.png")
            (root / split / f"labels/{index}.txt").write_text(f"{index % 2} 0.5 0.5 0.25 0.5\n")
    lines = ["nc: 2", "names: [cup, plate]", *(f"{s.replace('valid', 'val')}: ../{s}/images" for s in splits)]
    (root / "data.yaml").write_text("\n".join(lines) + "\n")
    return root


def test_a_coco_folder_is_opened_as_it_is(shapes):
    train, val = open_data(DataConfig(root=str(shapes), hold_out=0.5))
    assert (len(train), len(val)) == (12, 4)


def test_pictures_are_held_out_where_there_is_no_validation_split(shapes):
    config = DataConfig(root=str(without_val(shapes)), hold_out=0.25)
    train, val = open_data(config, seed=1)
    again, other = open_data(config, seed=1), open_data(config, seed=2)
    ids = [train.image_id(i) for i in range(len(train))], [val.image_id(i) for i in range(len(val))]
    assert len(val) == 3
    assert sorted(ids[0] + ids[1]) == list(range(1, 13))
    assert again.val.fingerprint() == val.fingerprint()
    assert other.val.fingerprint() != val.fingerprint()


def counts_of(caplog):
    """How many images, and of how many, is logged of each split."""
    lines = re.findall(r"^(\w+): (?:(\d+) of )?(\d+) images, (\d+) box", caplog.text, re.MULTILINE)
    return {name: tuple(int(n or whole) for n in (some, whole, boxes)) for name, some, whole, boxes in lines}


def test_every_count_is_of_what_is_trained_on(shapes, caplog):
    caplog.set_level("INFO", "mobiledet")
    caplog.handler.setFormatter(logging.Formatter("%(message)s"))
    train, val = open_data(DataConfig(root=str(shapes), limit=3))
    assert counts_of(caplog) == {"train": (3, 12, len(train.labels())), "val": (3, 4, len(val.labels()))}
    caplog.clear()
    train, val = open_data(DataConfig(root=str(without_val(shapes)), hold_out=0.25, limit=2))
    assert counts_of(caplog) == {"train": (2, 12, len(train.labels())), "val": (2, 12, len(val.labels()))}


def test_without_leave_to_hold_out_a_missing_split_is_an_error(shapes):
    with pytest.raises(DataError, match="split 'val'"):
        open_data(DataConfig(root=str(without_val(shapes))))
    with pytest.raises(DataError, match=r"data\.hold_out=0\.15"):
        open_data(DataConfig(root=str(yolo(shapes.parent / "y", ("train",)))))


def test_where_nothing_can_be_spared_all_is_trained_on(shapes, caplog):
    path = without_val(shapes) / "annotations/instances_train.json"
    content = json.loads(path.read_text())
    content["images"] = content["images"][:1]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == content["images"][0]["id"]]
    path.write_text(json.dumps(content))
    train, val = open_data(DataConfig(root=str(shapes), hold_out=0.2))
    assert (len(train), val) == (1, None)
    assert "none of its 1 images can be spared" in caplog.text


def test_yolo_is_read_where_it_lies(tmp_path, caplog):
    caplog.set_level("INFO", "mobiledet")
    root = yolo(tmp_path / "yolo")
    (root / "train/images/5.png").write_bytes(b"broken")
    with (root / "train/labels/0.txt").open("a") as labels:
        labels.write("0 0.5 0.5 0.25 0.5\n")
    train, val = open_data(DataConfig(root=str(root)))
    assert caplog.text.count("exact duplicate boxes") == 1
    assert (len(train), len(val), train.names) == (5, 6, ("cup", "plate"))
    assert train[0].target.boxes.tolist() == [[22.5, 10, 37.5, 30]]
    assert "5.png" in caplog.text


def test_a_misspelt_split_is_answered_with_those_there_are(shapes, tmp_path):
    with pytest.raises(DataError, match="did you mean 'train'"):
        open_data(DataConfig(root=str(shapes), train_split="trian"))
    with pytest.raises(DataError, match="has no split 'trian'; it has train, val"):
        open_data(DataConfig(root=str(yolo(tmp_path / "y")), train_split="trian"))


def test_the_same_classes_under_other_ids_are_joined_by_name(shapes):
    path = shapes / "annotations/instances_val.json"
    content = json.loads(path.read_text())
    before = [(a["category_id"], a["bbox"]) for a in content["annotations"]]
    for entry in content["categories"]:
        entry["id"] += 100
    for entry in content["annotations"]:
        entry["category_id"] += 100
    path.write_text(json.dumps(content))
    train, val = open_data(DataConfig(root=str(shapes)))
    assert train.names == val.names
    assert [c.id for c in train.categories] == [c.id for c in val.categories]
    names = {c["id"] - 100: c["name"] for c in content["categories"]}
    found = [(val.categories[label - 1].name) for label in val.labels()]
    assert sorted(found) == sorted(names[category] for category, _ in before)


def with_head(content):
    for entry in content["categories"]:
        entry["supercategory"] = "things"
    content["categories"].append({"id": 0, "name": "things", "supercategory": "none"})


def with_an_entry_for_each_box(content):
    for number, box in enumerate(content["annotations"], 1000):
        image = next(image for image in content["images"] if image["id"] == box["image_id"])
        content["images"].append({**image, "id": number})
        box["image_id"] = number


def with_spaces_in_names(content):
    for entry in content["categories"]:
        entry["name"] += " "


@pytest.mark.parametrize("change", [with_head, with_an_entry_for_each_box, with_spaces_in_names])
def test_training_scoring_and_check_read_the_same(shapes, change):
    clean = open_data(DataConfig(root=str(shapes)))
    for split in ("train", "val"):
        path = shapes / f"annotations/instances_{split}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
    checked = read_dataset(shapes).splits
    trained = open_data(DataConfig(root=str(shapes)))
    for split, dataset in trained._asdict().items():
        read = [dataset, checked[split], open_split(shapes, split), load_coco(shapes, split)]
        assert {data.names for data in read} == {clean.train.names}
        assert {(len(data), len(data.labels())) for data in read} == {
            (len(c := getattr(clean, split)), len(c.labels()))
        }
        assert len({data.fingerprint() for data in read[:3]}) == 1
        for ours, theirs in zip(dataset, getattr(clean, split), strict=True):
            assert sorted(ours.target.labels.tolist()) == sorted(theirs.target.labels.tolist())


@pytest.mark.parametrize("strict", [None, True, False])
def test_what_cannot_be_used_is_refused_or_left_out(shapes, strict):
    (shapes / "train/000001.jpg").unlink()
    config = DataConfig(root=str(shapes), reading=ReadingConfig(strict=strict))
    if strict is False:
        assert len(open_data(config).train) == 11
    else:
        with pytest.raises(DataError, match=r"1 missing images: .*000001.jpg"):
            open_data(config)
    if strict:
        with pytest.raises(DataError, match="1 missing images"):
            read_dataset(shapes, reading=config.reading)
    else:
        assert len(read_dataset(shapes, reading=config.reading).splits["train"]) == 11


def test_a_split_to_score_is_found_in_any_format(shapes, tmp_path):
    assert len(open_split(shapes, "val")) == 4
    root = yolo(tmp_path / "y")
    assert len(open_split(root, "val")) == 6
    with pytest.raises(DataError, match="no split 'test'"):
        open_split(root, "test")


def test_what_a_run_held_out_can_be_scored_again(shapes):
    config = Config(seed=4, data=DataConfig(root=str(without_val(shapes)), hold_out=0.25))
    held = open_data(config.data, seed=4).val
    assert open_recorded_split(config.plain(), "val").fingerprint() == held.fingerprint()
    assert len(open_recorded_split(config.plain(), "train")) == 12

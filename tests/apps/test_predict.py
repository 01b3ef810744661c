"""Detections on disk, whole or as far as they came."""

import json

import numpy as np
import pytest

from mobiledet.apps.predict import write_predictions
from mobiledet.draw.boxes import write_image
from mobiledet.errors import MobiledetError
from mobiledet.structures import Detections


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        write_image(path, np.full((20, 30, 3), 40 * number, np.uint8))
    return paths


def finder(stop_at=None, error=None):
    def predict(image):
        if stop_at is not None and image[0, 0, 0] == 40 * stop_at:
            raise error
        box = np.array([[1.0, 2.0, 11.0, 9.0]], np.float32)
        return Detections(box, np.array([0.75], np.float32), np.array([2]), ("cat", "dog"))

    return predict


def write(predict, images, output):
    return write_predictions(predict, images, output, category_ids=(7, 18), threshold=0.5)


def test_a_record_of_every_image(images, tmp_path):
    summary = write(finder(), images, tmp_path / "out")
    assert (summary.images, summary.detections, summary.problems) == (5, 5, [])
    records = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [record["file"] for record in records] == [str(path) for path in images]
    assert (records[0]["height"], records[0]["width"]) == (20, 30)
    wanted = {"name": "dog", "category_id": 18, "score": 0.75, "box_xyxy": [1.0, 2.0, 11.0, 9.0]}
    assert records[4]["detections"] == [wanted]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MobiledetError("the disk is full")])
def test_what_was_found_until_it_ended_is_kept(images, tmp_path, error, caplog):
    with pytest.raises(type(error)):
        write(finder(3, error), images, tmp_path / "out")
    records = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert [record["file"] for record in records] == [str(path) for path in images[:3]]
    assert "3 of 5 images are in" in caplog.text


def test_ended_before_the_first_there_is_nothing(images, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(finder(0, KeyboardInterrupt()), images, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []

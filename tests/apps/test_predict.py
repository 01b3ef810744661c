"""Detections on disk, whole or as far as they came."""

import json

import cv2
import numpy as np
import pytest
from loopback import Answer, Loopback
from PIL import Image
from pycocotools.coco import COCO

from mobiledet.apps.predict import PredictOptions, find_inputs, write_predictions
from mobiledet.data.images import read_image
from mobiledet.data.videos import read_video
from mobiledet.detections import Detections
from mobiledet.draw.boxes import write_image
from mobiledet.errors import ImageError, MobiledetError


@pytest.fixture
def images(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        write_image(path, np.full((20, 30, 3), 40 * number, np.uint8))
    return paths


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clips" / "clip.avi"
    path.parent.mkdir()
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(3):
        writer.write(np.full((48, 64, 3), 80 * number, np.uint8))
    writer.release()
    return path


def finder(stop_at=None, error=None):
    def predict(image):
        if stop_at is not None and image[0, 0, 0] == 40 * stop_at:
            raise error
        boxes = np.array([[1.0, 2.0, 11.0, 9.0], [0, 0, 30, 20], [5, 5, 9, 9]], np.float32)
        scores, labels = np.array([0.75, 0.6, 0.2], np.float32), np.array([2, 1, 1])
        return Detections(boxes, scores, labels, ("cat", "dog"), (7, 18))

    return predict


def write(predict, words, output, **options):
    inputs = find_inputs([str(word) for word in words])
    return write_predictions(predict, inputs, output, PredictOptions(**{"threshold": 0.5, **options}))


def records(output):
    return json.loads((output / "detections.json").read_text())


def test_a_record_of_every_image(images, tmp_path):
    summary = write(finder(), images, tmp_path / "new" / "out")
    assert (summary.images, summary.detections, summary.problems) == (5, 10, [])
    found = records(tmp_path / "new" / "out")
    assert [record["file"] for record in found] == [str(path) for path in images]
    assert (found[0]["height"], found[0]["width"]) == (20, 30)
    wanted = {"name": "dog", "category_id": 18, "label": 2, "score": 0.75, "box": [1.0, 2.0, 11.0, 9.0]}
    assert found[4]["detections"][0] == wanted
    assert read_image(tmp_path / "new" / "out" / "4.png").shape == (20, 30, 3)


def test_results_go_back_into_coco(images, tmp_path):
    """Image ids are the numbers in the names, as COCO has them."""
    write(finder(), images, tmp_path / "out", results=tmp_path / "new" / "results.json")
    truth = COCO()
    truth.dataset = {"images": [{"id": number} for number in range(5)], "categories": [{"id": 7}, {"id": 18}]}
    truth.createIndex()
    loaded = truth.loadRes(str(tmp_path / "new" / "results.json"))
    assert len(loaded.anns) == 10
    assert loaded.anns[1] == loaded.anns[1] | {"image_id": 0, "category_id": 18, "bbox": [1.0, 2.0, 10.0, 7.0]}
    assert [record["image_id"] for record in records(tmp_path / "out")] == [0, 1, 2, 3, 4]


def test_crops_rows_and_chosen_classes(images, tmp_path):
    options = {"classes": ("dog",), "crops": True, "txt": True, "draw": False}
    summary = write(finder(), images[1:2], tmp_path / "out", **options)
    assert summary.detections == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"crops", "labels", "detections.json"}
    assert read_image(tmp_path / "out/crops/dog/1_1.jpg").shape == (7, 10, 3)
    assert (tmp_path / "out/labels/1.txt").read_text() == "1 0.200000 0.275000 0.333333 0.350000\n"


def test_a_video_is_drawn_and_its_frames_are_recorded(clip, tmp_path):
    summary = write(finder(), [clip], tmp_path / "out", txt=True)
    assert summary.images == 3
    assert [record["frame"] for record in records(tmp_path / "out")] == [0, 1, 2]
    assert len({record["image_id"] for record in records(tmp_path / "out")}) == 3
    assert [frame.shape for _, frame in read_video(tmp_path / "out" / "clip.mp4")] == [(48, 64, 3)] * 3
    assert len(list((tmp_path / "out" / "labels").iterdir())) == 3


def test_image_ids_are_the_numbers_in_names_and_never_twice(images, clip, tmp_path):
    (tmp_path / "cat.png").write_bytes(images[0].read_bytes())
    write(finder(), [images[3], clip, tmp_path / "cat.png", images[1]], tmp_path / "out")
    ids = [record["image_id"] for record in records(tmp_path / "out")]
    assert ids == [3, 1_000_000, 1_000_001, 1_000_002, 4, 1]


def test_every_kind_of_input(images, clip, tmp_path):
    (tmp_path / "[1].jpg").write_bytes(images[1].read_bytes())
    Image.new("RGB", (30, 20)).save(tmp_path / "clips" / "animated.gif")
    found = find_inputs([str(tmp_path / "?.png"), str(tmp_path / "[1].jpg"), str(clip.parent), "rtsp://u:p@cam/1"])
    assert [item.text for item in found[:5]] == [str(path) for path in images]
    assert [item.name for item in found[5:]] == ["_1_", "animated", "clip", "1"]
    assert [item.is_video for item in found] == [False] * 7 + [True, True]
    assert "u:p" not in found[-1].text
    assert write(finder(), [clip.parent / "animated.gif"], tmp_path / "out").problems == []
    assert (tmp_path / "out" / "animated.png").exists()


def test_an_image_from_a_server(images, tmp_path, monkeypatch):
    with Loopback() as server:
        url = server.serve("/a.png", Answer(images[2].read_bytes()))
        summary = write(finder(), [f"{url}?token=secret"], tmp_path / "out")
        assert (summary.images, records(tmp_path / "out")[0]["file"]) == (1, f"{url}?token=secret")
        (problem,) = write(finder(), [f"{server.url}/none.png?token=secret"], tmp_path / "other").problems
        assert "the server answers 404" in problem
        assert "secret" not in problem
        monkeypatch.setenv("MOBILEDET_OFFLINE", "1")
        (problem,) = write(finder(), [url], tmp_path / "offline").problems
        assert "MOBILEDET_OFFLINE" in problem


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("3.pgn", "did you mean .*3.png"),
        ("*.tiff", "no file fits"),
        ("empty", "holds no image"),
        ("a/b.jpg", "no folder"),
    ],
)
def test_what_is_not_there(images, tmp_path, word, message):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match=message):
        find_inputs([str(tmp_path / word)])


def test_what_cant_be_read_is_named_and_the_others_are_done(images, tmp_path):
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    (tmp_path / "b.mp4").write_bytes(b"\0\0\0\x18ftypmp42" + bytes(20))
    summary = write(finder(), [tmp_path / "a.heic", tmp_path / "b.mp4", images[0]], tmp_path / "out")
    assert summary.images == 1
    assert "a.heic" in summary.problems[0]
    assert "b.mp4 can't be opened as a video" in summary.problems[1]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), MobiledetError("the disk is full")])
def test_what_was_found_until_it_ended_is_kept(images, tmp_path, error, caplog):
    with pytest.raises(type(error)):
        write(finder(3, error), images, tmp_path / "out", results=tmp_path / "results.json")
    assert [record["file"] for record in records(tmp_path / "out")] == [str(path) for path in images[:3]]
    assert len(json.loads((tmp_path / "results.json").read_text())) == 6
    assert "3 images" in caplog.text


def test_ended_before_the_first_there_is_nothing(images, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        write(finder(0, KeyboardInterrupt()), images, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


def test_nothing_is_overwritten(images, tmp_path):
    write(finder(), images, tmp_path / "out")
    with pytest.raises(MobiledetError, match="exists already"):
        write(finder(), images, tmp_path / "out")

"""TensorFlow Lite detectors of other people: what goes in, what comes out, what their classes are called."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from foreign_tflite import HEIGHT, RESULTS, WIDTH, corners, write_foreign

from mobiledet import Detector
from mobiledet.errors import MobiledetError, ModelFileError

IMAGE = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
IMAGE[0, 1] = 10, 200, 30
IMAGE[1, 2] = 20, 40, 240
IMAGE[1, 0] = 250, 0, 100

WITH_BACKGROUND = [(5, 2, 240), (1, 1, 200), (3, 2, 100)]
"""Anchor, class and grey level of the best detections."""

WITHOUT = [(3, 1, 250), (5, 3, 240), (1, 2, 200)]


def assert_found(detections, wanted):
    anchors, labels, levels = (np.array(column) for column in zip(*wanted, strict=True))
    assert detections.labels.tolist() == labels.tolist()
    np.testing.assert_allclose(detections.scores, levels / 255, atol=3e-3)
    np.testing.assert_allclose(detections.boxes, corners()[anchors], atol=0.02)


@pytest.mark.parametrize("background", [True, False])
@pytest.mark.parametrize("taken", ["FLOAT32", "UINT8", "INT8"])
def test_images_of_every_type_with_and_without_background(tmp_path, taken, background):
    detector = Detector(write_foreign(tmp_path / "m.tflite", taken=taken, background=background))
    assert list(detector.names) == [f"class_{k}" for k in range(1, 3 if background else 4)]
    assert_found(detector(IMAGE), WITH_BACKGROUND if background else WITHOUT)


@pytest.mark.parametrize("order", [RESULTS, ("scores", "boxes", "number", "classes")])
@pytest.mark.parametrize("stored", ["FLOAT32", "UINT8", "INT8"])
def test_results_of_every_type_in_any_order(tmp_path, stored, order):
    detector = Detector(write_foreign(tmp_path / "m.tflite", stored=stored, order=order))
    assert detector.card.max_detections == 4
    assert_found(detector(IMAGE), WITH_BACKGROUND)


def test_results_beyond_their_number_are_what_an_earlier_image_left(tmp_path):
    detector = Detector(write_foreign(tmp_path / "m.tflite"))
    assert len(detector(np.full_like(IMAGE, 200))) == 4
    dark = np.zeros_like(IMAGE)
    dark[1, 1, 2] = 100
    assert_found(detector(dark), [(4, 2, 100)])


def test_without_metadata_images_are_minus_one_to_one(tmp_path):
    found = Detector(write_foreign(tmp_path / "m.tflite", mean_std=None))(IMAGE)
    np.testing.assert_allclose(found.scores, [240 / 127.5 - 1, 200 / 127.5 - 1], atol=1e-6)


def test_pixels_come_back_in_the_image_as_it_was_given(tmp_path):
    large = IMAGE.repeat(50, axis=0).repeat(20, axis=1)
    best = Detector(write_foreign(tmp_path / "m.tflite", taken="UINT8"))(large)
    np.testing.assert_allclose(best.boxes[0], [40, 50, 60, 100], atol=0.1)


@pytest.mark.parametrize(
    ("faults", "words"),
    [
        ({"ending": False}, ["1x6x4 and 1x6x3", "TFLite_Detection_PostProcess"]),
        ({"after": "ABS"}, ["operations follow"]),
        ({"order": ("boxes", "classes", "scores")}, ["boxes, classes, scores, number"]),
        ({"inputs": 2}, ["1x2x3x3 float32 and more", "one RGB image"]),
        ({"taken": "INT16"}, ["1x2x3x3 int16"]),
    ],
)
def test_what_cant_be_read_is_refused(tmp_path, faults, words):
    path = write_foreign(tmp_path / "m.tflite", **faults)
    with pytest.raises(ModelFileError) as error:
        Detector(path)
    assert all(word in str(error.value) for word in (str(path), *words))


def test_a_file_for_an_edge_tpu_says_so(tmp_path):
    path = write_foreign(tmp_path / "m_edgetpu.tflite")
    path.write_bytes(path.read_bytes() + b"edgetpu-custom-op")  # the name of an operation
    with pytest.raises(ModelFileError, match="compiled for an Edge TPU"):
        Detector(path)


LISTS = {
    "plain.txt": "cat\ndog\n",
    "background.txt": "???\ncat\ndog\n",
    "numbered.txt": "0  cat\n1  dog\n",
    "coco.txt": "1: cat\n2: dog\n",
    "map.pbtxt": "item { id: 1 name: 'cat' }\nitem { id: 2 name: 'dog' }",
}


@pytest.mark.parametrize("name", LISTS)
def test_classes_are_named_by_a_file(tmp_path, name):
    (tmp_path / name).write_text(LISTS[name])
    found = Detector(write_foreign(tmp_path / "m.tflite"), labels=tmp_path / name)(IMAGE)
    assert found.class_names == ["dog", "cat", "dog"]


def test_classes_are_named_by_a_list_and_an_output_without_a_class_gives_nothing(tmp_path):
    path = write_foreign(tmp_path / "m.tflite")
    assert Detector(path, labels=["cat", "dog"])(IMAGE).class_names == ["dog", "cat", "dog"]
    unused = Detector(path, labels=["???", "dog"])
    assert (unused.names, unused.card.category_ids) == (("dog",), (2,))
    assert unused(IMAGE).class_names == ["dog", "dog"]


def test_names_given_win_over_those_packed(tmp_path):
    path = write_foreign(tmp_path / "m.tflite", label_files={"labels.txt": ("", ["cat", "dog"])})
    assert list(Detector(path).names) == ["cat", "dog"]
    assert list(Detector(path, labels=["Katze", "Hund"]).names) == ["Katze", "Hund"]


@pytest.mark.parametrize("labels", [["cat"], ["a", "b", "c", "d"], ["cat", "cat"], [], "labels.txt"])
def test_names_that_dont_fit_are_refused(tmp_path, labels):
    path = write_foreign(tmp_path / "m.tflite")
    with pytest.raises(ModelFileError, match=r"m\.tflite"):
        Detector(path, labels=labels)


def test_a_higher_score_can_be_asked_for_but_not_another_overlap(tmp_path):
    path = write_foreign(tmp_path / "m.tflite")
    assert len(Detector(path, score_threshold=0.7)(IMAGE)) == 2
    assert Detector(path).iou_threshold == 0.5
    assert len(Detector(path, iou_threshold=0.5)(IMAGE)) == 3
    with pytest.raises(ValueError, match="iou_threshold"):
        Detector(path, iou_threshold=0.3)(IMAGE)


def test_its_suppression_is_timed_with_the_network(tmp_path):
    detector = Detector(write_foreign(tmp_path / "m.tflite"))
    assert set(detector.backend.stages(IMAGE[None], 2)) == {"network"}


def test_many_threads_find_what_one_does(tmp_path):
    detector = Detector(write_foreign(tmp_path / "m.tflite"), threads=1)
    images = list(np.random.default_rng(0).integers(0, 256, (200, HEIGHT, WIDTH, 3), np.uint8))
    wanted = detector(images)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(detector, images))
    for one, other in zip(wanted, found, strict=True):
        np.testing.assert_array_equal(one.scores, other.scores)
        np.testing.assert_array_equal(one.boxes, other.boxes)
        assert one.class_names == other.class_names


def test_a_damaged_file_is_one_line(tmp_path):
    content = write_foreign(tmp_path / "m.tflite").read_bytes()
    (tmp_path / "m.tflite").write_bytes(content[: len(content) // 2])
    with pytest.raises(MobiledetError, match=r"^\S+m\.tflite: [^\n]+$"):
        Detector(tmp_path / "m.tflite")

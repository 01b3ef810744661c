"""What was found, in the forms it is handed on in."""

import io
import json

import numpy as np
import pytest
from PIL import Image
from tiny_detectors import make_images

from mobiledet import Detections
from mobiledet.data.images import load_image
from mobiledet.errors import ImageError, MissingDependencyError


@pytest.fixture
def found():
    boxes = np.array([[10, 20, 40.12349, 80], [0, 0, 5, 9]], np.float32)
    return Detections(boxes, np.array([0.87654321, 0.5], np.float32), np.array([2, 1]), ("a", "b"), (3, 90))


def test_some_of_them(found):
    assert found.above(0.6).labels.tolist() == found.of_classes(["b", "x"]).labels.tolist() == [2]
    assert found.above(0.6).category_ids == (3, 90)
    assert Detections(found.boxes, found.scores, np.array([1, 9]), ("a",)).name(1) == "class 9"


def test_class_ids_count_from_0_and_names_are_not_looked_up_by_number(found):
    assert (found.class_id.tolist(), found.class_names) == ([1, 0], ["b", "a"])
    assert [list(found.names)[number] for number in found.class_id] == found.class_names
    assert found.names == ("a", "b")
    for number in (found.labels[0], found.class_id[0], 0, -1):
        with pytest.raises(TypeError, match="class_names"):
            found.names[number]
    assert Detections(found.boxes, found.scores, np.array([0, 3]), ("a", "b")).class_names == ["class 0", "class 3"]


def test_coco_results_have_the_datas_ids(found):
    rows = found.to_coco(139)
    assert rows == [
        {"image_id": 139, "category_id": 90, "bbox": [10.0, 20.0, 30.123, 60.0], "score": 0.876543},
        {"image_id": 139, "category_id": 3, "bbox": [0.0, 0.0, 5.0, 9.0], "score": 0.5},
    ]
    json.dumps(rows)


def test_json_is_plain_and_finite(found):
    found.boxes[1, 2] = np.inf
    (row,) = found.to_json()
    assert row == {"name": "b", "category_id": 90, "label": 2, "score": 0.876543, "box": [10.0, 20.0, 40.12, 80.0]}
    assert Detections(found.boxes, found.scores, found.labels).to_json()[0]["category_id"] is None


def test_they_are_drawn(found, tmp_path):
    image = np.zeros((90, 120, 3), np.uint8)
    drawn = found.plot(image, line_width=3)
    assert (drawn.size, image.max()) == ((120, 90), 0)
    assert np.asarray(drawn)[79].max() > 0
    drawn.save(tmp_path / "out.png")
    plain = found.plot(tmp_path / "out.png", labels=False)
    assert np.asarray(plain).shape == (90, 120, 3)


def test_supervision_is_asked_for(found, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(MissingDependencyError, match="pip install supervision"):
        found.to_supervision()


def test_supervision_takes_them(found):
    pytest.importorskip("supervision")
    taken = found.to_supervision()
    assert taken.class_id.tolist() == [1, 0]
    assert taken.data["class_name"].tolist() == ["b", "a"]


# --- images in every form ---------------------------------------------------------------------------------------


@pytest.fixture
def png(tmp_path):
    path = tmp_path / "a.jfif"  # the content decides
    Image.fromarray(make_images(1)[0]).save(path, "PNG")
    return path


def test_an_image_in_every_form_is_the_same(png):
    wanted = load_image(png)
    for form in (str(png), png.read_bytes(), Image.open(png), wanted):
        assert (load_image(form) == wanted).all()
    gif = io.BytesIO()
    Image.fromarray(wanted).save(gif, "GIF")
    assert load_image(gif.getvalue()).shape == wanted.shape
    grey = Image.fromarray(wanted[..., 0])
    assert load_image(grey).shape == wanted.shape


@pytest.mark.parametrize("form", ["absent.jpg", b"", b"hello", b"\0\0\0\x18ftypheic"])
def test_what_is_not_an_image(form):
    with pytest.raises(ImageError):
        load_image(form)

"""The loop over a data set, whichever way its images are read."""

import numpy as np
import pytest
from tiny_detectors import tiny_detector

from mobiledet.data.coco import Category, load_coco
from mobiledet.errors import DataError
from mobiledet.evaluation.predictions import match_categories, predict_dataset
from mobiledet.runtime.detector import Detector
from mobiledet.runtime.pytorch import PyTorchBackend


@pytest.fixture(scope="module")
def detector():
    model, card = tiny_detector("sigmoid")
    return Detector(PyTorchBackend(model, card))


@pytest.fixture
def dataset(tiny_shapes):
    return load_coco(tiny_shapes, "val")


def test_results_are_the_same_however_images_are_read(detector, dataset):
    names = dataset.names[:3]  # its own classes aren't the data's
    plain = predict_dataset(detector, names, dataset)
    assert {row["image_id"] for row in plain} == {record.image_id for record in dataset}
    assert {row["category_id"] for row in plain} <= {category.id for category in dataset.categories[:3]}
    assert predict_dataset(detector, names, dataset, batch_size=3) == plain
    for workers in (0, 2):
        together = predict_dataset(detector, names, dataset, batch_size=3, workers=workers)
        assert [row["category_id"] for row in together] == [row["category_id"] for row in plain]
        for key in ("score", "bbox"):
            np.testing.assert_allclose([row[key] for row in together], [row[key] for row in plain], atol=1e-3)


def test_classes_that_the_data_lacks_are_dropped(detector, dataset):
    every = predict_dataset(detector, dataset.names[:3], dataset)
    some = predict_dataset(detector, (dataset.names[0], "unicorn", "griffin"), dataset)
    assert some == [row for row in every if row["category_id"] == dataset.categories[0].id]


@pytest.mark.parametrize("workers", [None, 0])
def test_it_stops_where_it_is_asked_to(detector, dataset, workers):
    counts = []

    def on_batch(count):
        counts.append(count)
        return len(counts) < 2

    predict_dataset(detector, dataset.names[:3], dataset, workers=workers, on_batch=on_batch)
    assert counts == [1, 1]


def test_names_written_otherwise_are_matched_and_unknown_ones_named(caplog):
    categories = [
        Category(7, "Chair"),
        Category(3, "dining_table"),
        Category(4, "Cat"),
        Category(5, "CAT"),
        Category(6, "cow"),
    ]
    assert match_categories(("chair", "dining table", "cat", "dog"), categories) == [7, 3, None, None]
    assert "'chair' for 'Chair', 'dining table' for 'dining_table'" in caplog.text
    assert "doesn't know 3 classes of the data: 'Cat', 'CAT', 'cow'" in caplog.text
    caplog.clear()
    assert match_categories(("Cat", "cat", "CAT"), categories[2:4]) == [4, None, 5]
    assert match_categories(("Chair", "bird"), categories[:1]) == [7, None]
    assert caplog.text == ""


def test_categories_are_matched_by_name():
    categories = [Category(7, "dog"), Category(3, "cat")]
    assert match_categories(("cat", "bird", "dog"), categories) == [3, None, 7]
    with pytest.raises(DataError, match="no name in common"):
        match_categories(("bird",), categories)

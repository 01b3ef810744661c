"""Models side by side: paired differences, where they disagree, and what a benchmark measured."""

import json

import numpy as np
import pytest
from made_up_scores import made_up_score, random_data, results_of, truth_of
from pages import Page

from mobiledet.apps.report.analysis import analyse
from mobiledet.apps.report.comparison import check_benchmark, comparison_page, difference, disagreements, timing_of
from mobiledet.apps.report.images import PageImages
from mobiledet.errors import DataError

BOX, FAR = (10, 20, 40, 60), (150, 30, 90, 50)
IMAGES = 100


def model(hits, name="made-up", wrong=0):
    """A model that finds the one object of those images, and is wrong in the first ``wrong`` images."""
    truth = truth_of([(image, 1, BOX) for image in range(1, IMAGES + 1)], IMAGES, names=("cat",))
    found = [(int(image), 1, BOX, 0.9) for image in np.flatnonzero(hits) + 1]
    found += [(image, 1, FAR, 0.95) for image in range(1, wrong + 1)]
    return analyse(made_up_score(truth, results_of(found), threshold=0.5), name, resamples=300)


HARD = np.random.default_rng(2).random(IMAGES) < 0.5


def test_a_difference_is_surer_than_the_figures_it_is_made_of():
    """The second model finds all that the first does, and 10 of 50 more: known spread, half the width of one's own."""
    better = HARD.copy()
    better[np.flatnonzero(~HARD)[:10]] = True
    first, second = model(HARD), model(better)
    found = difference(first, second)
    assert found.value == pytest.approx(0.1, abs=0.02)
    assert found.sure.half == pytest.approx(1.96 * np.sqrt(0.1 * 0.9 / IMAGES), rel=0.15)
    assert found.sure.half < 0.7 * first.intervals["AP"].half
    assert found.kind == "good"
    assert difference(second, first).kind == "bad"
    assert difference(second, first).value == -found.value


def test_equal_scores_on_other_images_are_no_difference():
    found = difference(model(HARD), model(~HARD))
    assert found.kind == ""
    assert found.sure.low < 0 < found.sure.high
    same = difference(model(HARD), model(HARD))
    assert (same.value, same.sure.low, same.sure.high, same.kind) == (0, 0, 0, "")


def test_a_class_has_its_own_difference():
    truth, _ = random_data(4, images=20, flags=False)
    perfect = [{**row, "score": 0.9} for row in truth["annotations"]]
    without = [row for row in perfect if row["category_id"] != 2]
    first, second = (analyse(made_up_score(truth, results), "x", resamples=60) for results in (without, perfect))
    assert [difference(first, second, class_row=row).value for row in range(3)] == pytest.approx([0, 1, 0], abs=1e-9)
    assert difference(first, second, "AR1").value > 0
    assert difference(first, second, class_row=1).sure is not None
    few = truth_of([(1, 1, BOX), (1, 2, FAR), (2, 1, BOX)], images=30)
    worse, better = (
        analyse(made_up_score(few, results_of(found)), "x", resamples=60) for found in ([], [(1, 1, BOX, 0.9)])
    )
    in_two_images = difference(worse, better, class_row=0)
    assert (in_two_images.value, in_two_images.sure, in_two_images.kind) == (pytest.approx(0.5, abs=0.01), None, "")


def test_images_where_one_finds_what_the_other_misses():
    hits, others = np.zeros(IMAGES, bool), np.zeros(IMAGES, bool)
    hits[[3, 5]], others[[5, 8]] = True, True
    first, second = model(hits), model(others)
    assert disagreements(first, second) == [(3, 1)]
    assert disagreements(second, first) == [(8, 1)]


REPORT = {
    "format": "mobiledet benchmark",
    "models": [
        {"label": "b", "target": "b.onnx", "about": {"file": "b.onnx"}, "first_size": "480x640", "file_bytes": 1572864,
         "peak_mib": 123.4, "times": {"480x640": {"median": 17.53, "p95": 21.2}}},
        {"label": "c", "target": "other.onnx", "about": None, "first_size": "480x640", "times": {}},
    ],
}  # fmt: skip


def test_the_page_compares_and_has_the_times_of_a_benchmark():
    first, second = model(HARD, "a.onnx", wrong=9), model(~HARD, "b.onnx")
    page = Page(comparison_page([first, second], PageImages(first.score.dataset), [REPORT]))
    page.check_alone()
    assert "17.5" in page.text
    assert " 1.5 " in page.text
    assert f"{second.score.metrics.AP - first.score.metrics.AP:+.3f}" in page.text
    assert page.count("img") == 2 * 2 * 6  # six images each way, both models' detections


def test_three_models_and_nothing_found():
    nothing = model(np.zeros(IMAGES, bool), "c.onnx")
    page = Page(comparison_page([nothing, nothing, model(HARD)], PageImages(nothing.score.dataset)))
    page.check_alone()
    assert "nan" not in page.text.lower().split()


def test_times_belong_to_the_same_file(tmp_path):
    assert timing_of(model(HARD, "b.onnx"), [REPORT])["peak_mib"] == 123.4
    assert timing_of(model(HARD, "a.onnx"), [REPORT]) == {}
    assert check_benchmark(json.loads(json.dumps(REPORT)), tmp_path) == REPORT
    for other in ([], {"format": "x", "models": []}, None):
        with pytest.raises(DataError, match="mobiledet benchmark"):
            check_benchmark(other, tmp_path)


def test_models_scored_on_other_data_are_not_compared():
    first, other = model(HARD), analyse(made_up_score(truth_of([(1, 1, BOX)]), []), "other")
    with pytest.raises(DataError, match="--data"):
        comparison_page([first, other], PageImages(first.score.dataset))

"""The report: a page that needs nothing but itself, with the figures that eval prints, whatever the data."""

import json

import pytest
from made_up_scores import made_up_score, random_data, results_of, truth_of
from pages import Page
from programs import mobiledet_in_process
from tiny_detectors import tiny_detector

from mobiledet.apps.report.analysis import analyse, what_went_wrong, worst_images
from mobiledet.apps.report.images import PageImages
from mobiledet.apps.report.page import report_page
from mobiledet.apps.report.suspects import SuspectKind, find_suspects, write_suspects
from mobiledet.config import Config
from mobiledet.data.coco import load_coco
from mobiledet.data.formats.labelling_tools import LabelStudio
from mobiledet.weights.checkpoint import save_checkpoint

A, B, FAR = (10, 20, 40, 60), (150, 30, 90, 50), (240, 180, 30, 20)


def page_of(truth, results, **options):
    score = made_up_score(truth, results, **options)
    analysis = analyse(score, "made-up", resamples=60)
    return Page(report_page(analysis, PageImages(score.dataset), find_suspects(analysis))), analysis


def analysed(annotations, detections, images=1):
    return analyse(
        made_up_score(truth_of(annotations, images), results_of(detections), threshold=0.5), "made-up", resamples=60
    )


def test_the_page_stands_alone_and_has_the_figures():
    page, analysis = page_of(*random_data(1, images=8))
    page.check_alone()
    for name in ("AP", "AP50", "APm", "AR100"):
        assert f"{getattr(analysis.score.metrics, name):.3f}" in page.text
    assert f"{analysis.intervals['AP'].low:.3f} to {analysis.intervals['AP'].high:.3f}" in page.text
    assert page.count("svg") == 5  # precision over recall, over the threshold, confusion, errors, calibration
    assert page.count("img") >= 2 * len(worst_images(analysis))


def test_a_class_in_few_images_has_no_interval():
    """Cats are in six images, dogs in four, whatever their number."""
    cats, dogs = [(image, 1, A) for image in range(1, 7)], [(image, 2, B) for image in (1, 1, 1, 2, 3, 4)]
    analysis = analysed([*cats, *dogs], [(1, 1, A, 0.9), (2, 1, A, 0.8), (1, 2, B, 0.9)], images=6)
    assert [sure is not None for sure in analysis.class_intervals] == [True, False, False]


EMPTY = truth_of([], images=2)
NAME = '<b>"cat" & $x$</b>'


@pytest.mark.parametrize(
    ("truth", "results"),
    [
        (EMPTY, []),
        (EMPTY, results_of([(1, 1, A, 0.9)])),
        (truth_of([(1, 1, A)]), []),
        (truth_of([(1, 1, A)], names=(NAME,)), results_of([(1, 1, A, 0.9), (1, 1, B, 0.8)])),
        (truth_of([(1, 1, A, {"ignore": 1})]), results_of([(1, 1, A, 0.9)])),
        ({**truth_of([(1, 1, A)]), "images": [{"id": 1, "file_name": "a.jpg", "height": 90, "width": 90}]}, []),
    ],
    ids=["empty", "no objects", "no detections", "one class", "ignored only", "one image"],
)
def test_odd_data_gives_a_page_too(truth, results):
    page, _ = page_of(truth, results)
    page.check_alone()
    assert "nan" not in page.text.lower().split()


def test_an_image_is_the_worse_the_more_is_wrong_in_it():
    analysis = analysed(
        [(1, 1, A), (2, 1, A), (2, 2, B), (3, 1, A), (3, 1, B, {"iscrowd": 1})],
        [(1, 2, FAR, 0.9), (1, 1, A, 0.8), (2, 1, FAR, 0.7), (3, 1, A, 0.9), (3, 1, B, 0.9)],
        images=3,
    )
    assert worst_images(analysis) == [1, 0]
    assert what_went_wrong(analysis, 1) == "missed: 1 cat, 1 dog; background: cat 0.70"
    assert what_went_wrong(analysis, 2) == ""


def suspects_of(annotations, detections):
    analysis = analysed(annotations, detections)
    return find_suspects(analysis), analysis


def test_suspects_of_each_kind():
    found, _ = suspects_of(
        [(1, 1, A), (1, 2, B), (1, 3, (60, 150, 70, 60)), (1, 3, (280, 10, 20, 20), {"ignore": 1})],
        [(1, 1, A, 0.95), (1, 3, B, 0.9), (1, 2, FAR, 0.85), (1, 3, (280, 10, 20, 20), 0.9)],
    )
    other, unlabelled, never = (
        found[kind] for kind in (SuspectKind.OTHER_CLASS, SuspectKind.UNLABELLED, SuspectKind.NEVER_FOUND)
    )
    assert [(s.class_row, s.labelled_row, s.annotation_id) for s in other] == [(2, 1, 2)]
    assert [(s.class_row, s.score) for s in unlabelled] == [(1, 0.85)]
    assert [s.annotation_id for s in never] == [3]


def test_right_labels_are_not_suspected():
    found, _ = suspects_of([(1, 1, A), (1, 2, B)], [(1, 1, A, 0.9), (1, 2, B, 0.8), (1, 1, B, 0.7)])
    assert sum(map(len, found.values())) == 0


def test_labelling_tools_read_the_files_back(tmp_path):
    found, analysis = suspects_of([(1, 1, A), (1, 2, B)], [(1, 1, A, 0.95), (1, 3, B, 0.9), (1, 2, FAR, 0.85)])
    every = [one for rows in found.values() for one in rows]
    write_suspects(tmp_path / "new", analysis, every, "{}.jpg".format)
    results = json.loads((tmp_path / "new/coco_results.json").read_text())
    assert results == [
        {"image_id": 1, "category_id": 2, "bbox": list(FAR), "score": 0.85},
        {"image_id": 1, "category_id": 3, "bbox": list(B), "score": 0.9},
    ]
    [task] = json.loads((tmp_path / "new/label_studio.json").read_text())
    assert task["data"] == {"image": "1.jpg"}
    shapes = [LabelStudio().shape(region) for region in task["predictions"][0]["result"]]
    assert [shape.label for shape in shapes] == ["dog", "owl"]
    xs, ys = zip(*shapes[0].points, strict=True)
    corners = (min(xs) * 320, min(ys) * 240, max(xs) * 320, max(ys) * 240)
    assert corners == pytest.approx((240, 180, 270, 200))
    assert (tmp_path / "new/suspects.csv").read_text().count("\n") == 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_shapes):
    """A detector with random weights that has the classes of the shapes."""
    dataset = load_coco(tiny_shapes, "val")
    model, card = tiny_detector("sigmoid", num_classes=dataset.num_classes)
    config = Config(model=card.config["model"]).plain()
    categories = [{"id": category.id, "name": category.name} for category in dataset.categories]
    path = tmp_path_factory.mktemp("checkpoint") / "tiny.pt"
    weights = model.state_dict()
    save_checkpoint(path, {"config": config, "model": weights, "ema": None, "categories": categories})
    return path


def run_eval(model, data, *words):
    return mobiledet_in_process("eval", model, "--data", data, "--workers", 0, "--threads", 1, *words)


def test_eval_writes_the_page_and_the_suspects(checkpoint, tiny_shapes, tmp_path):
    finished = run_eval(
        checkpoint,
        tiny_shapes,
        "--report",
        tmp_path / "a/report.html",
        "--suspects",
        tmp_path / "new",
        "--json",
        tmp_path / "m",
    )
    assert finished.status == 0, finished.stderr
    page = Page((tmp_path / "a/report.html").read_text())
    page.check_alone()
    assert f"{json.loads((tmp_path / 'm').read_text())['AP']:.3f}" in page.text
    assert "4 images" in page.text
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "suspects.csv",
        "coco_results.json",
        "label_studio.json",
    }


@pytest.mark.parametrize("option", ["--report", "--suspects"])
def test_nothing_is_overwritten_and_that_is_seen_before_detection(checkpoint, tiny_shapes, tmp_path, option):
    mine = tmp_path / "mine.html"
    mine.write_text("mine")
    for path in (mine, mine / "below.html"):
        finished = run_eval(checkpoint, tiny_shapes, option, path)
        assert finished.status == 1
        assert "scored on" not in finished.stderr
        assert str(mine) in finished.stderr
    assert mine.read_text() == "mine"


def test_eval_compares_models(checkpoint, tiny_shapes, tmp_path):
    finished = run_eval(checkpoint, tiny_shapes, checkpoint, "--report", tmp_path / "compare.html")
    assert finished.status == 0, finished.stderr
    page = Page((tmp_path / "compare.html").read_text())
    page.check_alone()
    assert "+0.000" in page.text
    assert finished.stdout.count("average precision") == 2


@pytest.mark.parametrize(
    "words",
    [
        ("--json", "a.json"),
        ("--suspects", "new"),
        ("--benchmark", __file__),
        ("--benchmark", __file__, "--report", "b"),
    ],
)
def test_what_belongs_to_one_model_or_to_a_comparison_is_said(checkpoint, tiny_shapes, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    finished = run_eval(checkpoint, tiny_shapes, checkpoint, *words)
    assert finished.status == (1 if "--report" in words else 2)
    assert words[0] in finished.stderr or __file__ in finished.stderr
    assert list(tmp_path.iterdir()) == []

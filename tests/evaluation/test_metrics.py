"""COCO metrics: cases worked out by hand, both backends, and real annotations fed back."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mobiledet.errors import DataError, MissingDependencyError
from mobiledet.evaluation.metrics import Metrics, format_metrics, score_detections

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
MODULES = {"faster-coco-eval": "faster_coco_eval", "pycocotools": "pycocotools"}
DATA = Path(os.environ.get("MOBILEDET_TEST_DATA", Path(__file__).parents[3] / "shared")) / "data" / "coco-mini"


@pytest.fixture(params=list(MODULES))
def backend(request: pytest.FixtureRequest) -> str:
    if importlib.util.find_spec(MODULES[request.param]) is None:
        pytest.skip(f"{request.param} is not installed")
    return str(request.param)


def gt_box(number: int, image: int, category: int, box: list[float], **more: Any) -> dict[str, Any]:
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, "iscrowd": 0, **more}


def result(image: int, category: int, box: list[float], score: float = 0.9) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "bbox": box, "score": score}


def truth(*annotations: dict[str, Any], images: tuple[int, ...] = (7, 3), categories: tuple[int, ...] = (5, 0)) -> Any:
    """Unsorted ids, a gap, a category 0; image 3 or 7 may stay without boxes."""
    return {
        "images": [{"id": image, "height": 300, "width": 400, "file_name": f"{image}.jpg"} for image in images],
        "annotations": list(annotations),
        "categories": [{"id": category, "name": f"class-{category}"} for category in categories],
    }


def near(value: float | None, expected: float, abs: float = 1e-9) -> bool:
    return value == pytest.approx(expected, abs=abs)


FOUR = [[0, 0, 50, 60], [100, 0, 50, 60], [200, 0, 50, 60], [300, 0, 50, 60]]


def test_perfect_detections_score_one(backend: str) -> None:
    ground = truth(gt_box(9, 7, 0, FOUR[0]), gt_box(2, 3, 5, FOUR[1]))
    metrics = score_detections(ground, [result(7, 0, FOUR[0]), result(3, 5, FOUR[1], 0.1)], backend=backend)
    assert (metrics.AP, metrics.AP50, metrics.AP75, metrics.AR1, metrics.AR100) == (1, 1, 1, 1, 1)
    # 50 x 60 lies between 32 x 32 and 96 x 96.
    assert (metrics.APs, metrics.APm, metrics.APl) == (None, 1, None)
    assert (metrics.ARs, metrics.ARm, metrics.ARl) == (None, 1, None)
    assert metrics.images == 2
    assert metrics.per_class == [
        {"id": 0, "name": "class-0", "AP": 1.0, "AP50": 1.0, "boxes": 1, "detections": 1},
        {"id": 5, "name": "class-5", "AP": 1.0, "AP50": 1.0, "boxes": 1, "detections": 1},
    ]


def test_half_of_the_boxes_found(backend: str) -> None:
    # Precision is 1 up to recall 0.5 and 0 beyond: of the 101 recall points 0.00 .. 0.50 are 51.
    ground = truth(*(gt_box(number, 7, 5, box) for number, box in enumerate(FOUR, start=1)))
    metrics = score_detections(ground, [result(7, 5, FOUR[0], 0.9), result(7, 5, FOUR[2], 0.8)], backend=backend)
    assert near(metrics.AP, 51 / 101)
    assert near(metrics.AP50, 51 / 101)
    # One detection per image finds a quarter, ten find half.
    assert (metrics.AR1, metrics.AR10, metrics.AR100) == (0.25, 0.5, 0.5)
    assert metrics.per_class[0]["AP"] is None  # class 0 has no boxes and stays out of the mean


def test_a_false_positive_above_a_hit_halves_precision(backend: str) -> None:
    ground = truth(gt_box(1, 7, 5, FOUR[0]))
    metrics = score_detections(ground, [result(7, 5, FOUR[3], 0.9), result(7, 5, FOUR[0], 0.8)], backend=backend)
    assert near(metrics.AP, 0.5)
    assert (metrics.AR1, metrics.AR10) == (0.0, 1.0)


def test_overlap_decides_the_thresholds(backend: str) -> None:
    # 60 of 100 columns: IoU 0.6 passes 0.50 and 0.55; whether 0.60 passes is rounding, so take 0.62.
    ground = truth(gt_box(1, 7, 5, [10, 10, 100, 40]))
    metrics = score_detections(ground, [result(7, 5, [10, 10, 62, 40])], backend=backend)
    assert (metrics.AP50, metrics.AP75) == (1, 0)
    assert near(metrics.AP, 0.3)


def test_wrong_category_scores_zero(backend: str) -> None:
    metrics = score_detections(truth(gt_box(1, 7, 5, FOUR[0])), [result(7, 0, FOUR[0])], backend=backend)
    assert (metrics.AP, metrics.AR100) == (0, 0)
    assert [(row["boxes"], row["detections"]) for row in metrics.per_class] == [(0, 1), (1, 0)]


def test_detections_on_a_crowd_are_not_false(backend: str) -> None:
    crowd = gt_box(1, 7, 5, [100, 100, 200, 150]) | {"iscrowd": 1}
    ground = truth(crowd, gt_box(2, 7, 5, FOUR[0]))
    on_crowd = [result(7, 5, [120, 110, 30, 40], 0.99), result(7, 5, [160, 110, 30, 40], 0.98)]
    metrics = score_detections(ground, [*on_crowd, result(7, 5, FOUR[0], 0.5)], backend=backend)
    assert metrics.AP == 1
    assert metrics.per_class[1]["boxes"] == 1
    # The same two beside the crowd are false, and come first: precision 1/3.
    beside = [{**row, "bbox": [row["bbox"][0], 20, 20, 30]} for row in on_crowd]
    metrics = score_detections(ground, [*beside, result(7, 5, FOUR[0], 0.5)], backend=backend)
    assert near(metrics.AP, 1 / 3)


@pytest.mark.parametrize("flag", [{"ignore": 1}, {"ignore": "1"}, {"difficult": True}, {}])
def test_detections_on_ignored_objects_are_neither_right_nor_false(backend: str, flag: dict[str, Any]) -> None:
    ground = truth(*(gt_box(number, 7, 5, box, **flag) for number, box in enumerate(FOUR[:1])))
    ground["annotations"] += [gt_box(8, 7, 5, FOUR[1]), gt_box(9, 7, 5, FOUR[2])]
    twice = [result(7, 5, [1, 0, 50, 60], 0.95), result(7, 5, FOUR[0], 0.9)]
    found = [result(7, 5, FOUR[1], 0.8), result(7, 5, FOUR[3], 0.7), result(7, 5, FOUR[2], 0.6)]
    metrics = score_detections(ground, [*twice, *found], backend=backend)
    # Two to find: right, false, right. Precision is 1 up to recall 0.5 (51 of 101 points) and 2/3 up to 1.
    # As an object like the others: right, false (the second on it), right, false, right: 1 (34), 2/3 (33), 3/5 (34).
    ap = (51 + 50 * 2 / 3) / 101 if flag else (34 + 33 * 2 / 3 + 34 * 3 / 5) / 101
    assert near(metrics.AP50, ap)
    assert near(metrics.AP, ap if flag else (34 + 33 * 2 / 3 + 34 * 3 / 5) / 101, abs=1e-9)
    assert metrics.per_class[1]["boxes"] == (2 if flag else 3)
    # A small detection inside of it isn't on it: that holds for crowds alone.
    inside = score_detections(ground, [result(7, 5, [5, 5, 20, 20], 0.9), result(7, 5, FOUR[1], 0.8)], backend=backend)
    assert (inside.AP or 0) < 0.5


def random_set(rng: np.random.Generator, ignored: bool) -> tuple[Any, Any, Any, Any]:
    """Ground truth and detections, with ties, crowds and odd areas; and both without the ignored objects."""
    images, categories = (rng.choice(50, rng.integers(1, size), replace=False).tolist() for size in (6, 5))
    rows, found, on_ignored = [], [], []
    for _ in range(rng.integers(0, 40)):
        place = {"image_id": int(rng.choice(images)), "category_id": int(rng.choice(categories))}
        box = [*rng.uniform(0, 300, 2).tolist(), *rng.choice([8, 30, 70, 150], 2).tolist()]
        area = box[2] * box[3] * rng.uniform(0.5, 1)
        row = {**place, "bbox": box, "area": area, "iscrowd": int(rng.random() < 0.1), "id": len(rows) + 1}
        score = [round(float(score), 1) for score in rng.random(3)]
        if ignored and rng.random() < 0.3:
            # Out of all the others' reach, and hit exactly or not at all, so that no threshold matters.
            row |= {"bbox": [1000.0 * len(rows) + 5000, *box[1:]], "iscrowd": 0, "ignore": 1}
            on_ignored += [{**place, "bbox": row["bbox"], "score": one} for one in score[: rng.integers(0, 3)]]
        else:
            moved = (np.array(box) + rng.normal(0, 0.1, 4) * [*box[2:], *box[2:]]).tolist()
            wrong = {**place, "category_id": int(rng.choice(categories))}
            both = [
                {**where, "bbox": moved, "score": one} for where, one in zip((place, wrong), score[:2], strict=True)
            ]
            found += both[: rng.integers(0, 3)]
        rows.append(row)
    ground = {
        "images": [{"id": key} for key in images],
        "categories": [{"id": key, "name": str(key)} for key in categories],
        "annotations": rows,
    }
    without = {**ground, "annotations": [row for row in rows if not row.get("ignore")]}
    return ground, found + on_ignored, without, found


def plain_pycocotools(ground: Any, found: Any) -> list[float]:
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    truth, results = coco.COCO(), coco.COCO()
    truth.dataset = copy.deepcopy(ground)
    results.dataset = {**copy.deepcopy(ground), "annotations": [
        {**row, "id": number, "area": row["bbox"][2] * row["bbox"][3], "iscrowd": 0}
        for number, row in enumerate(copy.deepcopy(found), 1)
    ]}  # fmt: skip
    truth.createIndex()
    results.createIndex()
    evaluator = cocoeval.COCOeval(truth, results, "bbox")
    evaluator.evaluate()
    evaluator.accumulate()
    evaluator.summarize()
    return [float(value) for value in evaluator.stats]


@pytest.mark.parametrize("ignored", [False, True])
def test_random_sets_score_as_pycocotools_has_it(backend: str, ignored: bool) -> None:
    for seed in range(int(os.environ.get("MOBILEDET_TEST_SETS", "20"))):
        ground, found, without, found_without = random_set(np.random.default_rng(seed), ignored)
        metrics = score_detections(ground, found, backend=backend)
        ours = [-1.0 if (value := getattr(metrics, name)) is None else value for name in FIGURES]
        expected = plain_pycocotools(without, found_without)
        if ignored:
            ours[6:8] = expected[6:8] = []  # one on an ignored object is still one of the best 1 or 10
        assert ours == pytest.approx(expected, abs=1e-9), seed


def test_area_ranges_go_by_the_annotations_area(backend: str) -> None:
    small, medium, large = [0, 0, 20, 30], [50, 0, 60, 70], [150, 0, 200, 100]
    ground = truth(
        gt_box(1, 7, 5, small, area=600), gt_box(2, 7, 5, medium, area=4200), gt_box(3, 7, 5, large, area=20000)
    )
    metrics = score_detections(ground, [result(7, 5, small), result(7, 5, large)], backend=backend)
    assert (metrics.APs, metrics.APm, metrics.APl) == (1, 0, 1)
    assert (metrics.ARs, metrics.ARm, metrics.ARl) == (1, 0, 1)
    # An outline may cover far less than its box: the medium box becomes a small object.
    ground["annotations"][1]["area"] = 500
    metrics = score_detections(ground, [result(7, 5, small), result(7, 5, medium)], backend=backend)
    assert (metrics.APs, metrics.APm, metrics.APl) == (1, None, 0)


def test_annotation_id_zero_counts_as_any_other(backend: str) -> None:
    assert score_detections(truth(gt_box(0, 7, 5, FOUR[0])), [result(7, 5, FOUR[0])], backend=backend).AP == 1


def test_nothing_found_and_nothing_to_find(backend: str) -> None:
    nothing_found = score_detections(truth(gt_box(1, 7, 5, FOUR[0])), [], backend=backend)
    assert (nothing_found.AP, nothing_found.APm, nothing_found.AR1, nothing_found.APs) == (0, 0, 0, None)
    for results in ([], [result(3, 0, FOUR[0])]):
        metrics = score_detections(truth(), results, backend=backend)
        assert all(getattr(metrics, name) is None for name in FIGURES)
        assert "null" in json.dumps(metrics.to_json_dict(), allow_nan=False)


def test_only_the_best_hundred_count(backend: str) -> None:
    ground = truth(gt_box(1, 7, 5, FOUR[0]))
    wrong = [result(7, 5, [200, 100, 10 + number, 20], 0.9) for number in range(100)]
    assert score_detections(ground, [*wrong, result(7, 5, FOUR[0], 0.1)], backend=backend).AP == 0
    metrics = score_detections(ground, [*wrong[1:], result(7, 5, FOUR[0], 0.1)], backend=backend)
    assert near(metrics.AP, 0.01)


def test_more_than_a_hundred_objects_count_where_asked(backend: str) -> None:
    boxes = [[12.0 * (number % 30), 12.0 * (number // 30), 9, 7] for number in range(300)]
    ground = truth(*(gt_box(number, 7, 5, box) for number, box in enumerate(boxes, 1)))
    found = [result(7, 5, box) for box in boxes]
    assert (score_detections(ground, found, backend=backend).AP or 0) < 0.35
    metrics = score_detections(ground, found, backend=backend, max_detections=300)
    assert (metrics.AP, metrics.AR100, metrics.max_detections) == (1, 1, 300)
    assert "AR300 300 detections" in format_metrics(metrics)
    assert Metrics.from_json_dict(metrics.to_json_dict()) == metrics


def test_quiet_and_inputs_left_alone(backend: str, capfd: pytest.CaptureFixture[str]) -> None:
    ground, results = truth(gt_box(1, 7, 5, FOUR[0])), [result(7, 5, FOUR[0])]
    before = copy.deepcopy((ground, results))
    score_detections(ground, results, backend=backend)
    assert (ground, results) == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (result(4, 5, FOUR[0]), r"results\[1\] \(image 4\): no such image"),
        (result(7, 6, FOUR[0]), r"results\[1\] \(image 7\): no category 6"),
        (result(7, 5, [0, 0, float("nan"), 1]), r"results\[1\].*not finite"),
        (result(7, 5, [0, 0, 1]), r"results\[1\] can't be scored"),
        ({"image_id": 7, "category_id": 5, "bbox": FOUR[0]}, r"results\[1\] can't be scored.*score"),
    ],
)
def test_unusable_results_are_named(row: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        score_detections(truth(), [result(7, 5, FOUR[0]), row])


def test_ground_truth_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="0 images and 2 classes"):
        score_detections(truth(images=()), [])


def test_missing_backend_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr("mobiledet.evaluation.metrics.importlib.import_module", missing)
    with pytest.raises(MissingDependencyError, match=r'pip install "mobiledet\[score\]"'):
        score_detections(truth(), [])


def many_classes(count: int, scored: int) -> Metrics:
    rows: Any = [
        {
            "id": number,
            "name": "苹果 " * 12 if number == 1 else f"class {number}",
            "AP": number / 200 if number <= scored else None,
            "AP50": number / 100 if number <= scored else None,
            "boxes": number,
            "detections": 0,
        }
        for number in range(1, count + 1)
    ]
    return Metrics(*[0.5] * 11, None, per_class=rows, images=1)


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line)


@pytest.mark.parametrize(("count", "scored"), [(1, 0), (3, 2), (25, 25), (80, 70), (80, 12), (80, 0)])
def test_table_fits_the_screen(count: int, scored: int) -> None:
    lines = format_metrics(many_classes(count, scored)).splitlines()
    assert max(map(columns, lines)) <= 100
    assert lines[0].startswith("1 image, ")
    table = lines[10:]
    if count == 80:
        assert f"{80 - scored} classes without a box" in table[-1]
        assert len(table) == 1 + (10 if scored == 70 else scored) + 1
    else:
        assert len(table) == 1 + count
    assert len({columns(line) for line in table if "without" not in line}) == 1


def test_table_sets_best_beside_worst() -> None:
    table = format_metrics(many_classes(80, 70)).splitlines()[11:]
    assert table[0].startswith("class 70                0.350  0.700     70    苹果")
    assert table[9].split("  ")[0] == "class 61"


@pytest.fixture(scope="module")
def coco_mini() -> Any:
    path = DATA / "annotations" / "instances_val2017.json"
    if not path.is_file():
        pytest.skip(f"no {path}; set MOBILEDET_TEST_DATA to the folder that has data/coco-mini")
    return json.loads(path.read_text())


def test_real_ground_truth_fed_back_is_perfect(coco_mini: Any, backend: str) -> None:
    # Crowds are not fed back: a detection of a whole crowd region may match a person inside it instead.
    results = [
        result(row["image_id"], row["category_id"], row["bbox"], 1.0)
        for row in coco_mini["annotations"]
        if not row["iscrowd"]
    ]
    metrics = score_detections(coco_mini, results, backend=backend)
    assert near(metrics.AP, 1, abs=1e-3)
    assert near(metrics.AR100, 1, abs=1e-3)
    assert sum(row["boxes"] for row in metrics.per_class) == len(results)


def test_backends_agree_on_real_ground_truth_and_rough_detections(coco_mini: Any) -> None:
    pytest.importorskip("faster_coco_eval")
    pytest.importorskip("pycocotools")
    rng = np.random.default_rng(4)
    categories = [row["id"] for row in coco_mini["categories"]]
    results = []
    for row in coco_mini["annotations"]:
        for _ in range(rng.integers(0, 4)):
            sides = np.array(row["bbox"])[[2, 3, 2, 3]]
            box = (np.array(row["bbox"]) + rng.normal(0, 0.08, 4) * sides).tolist()
            category = int(rng.choice(categories)) if rng.random() < 0.2 else row["category_id"]
            # Two digits, so that many scores tie.
            results.append(result(row["image_id"], category, box, round(float(rng.random()), 2)))
    one = score_detections(coco_mini, results, backend="faster-coco-eval")
    other = score_detections(coco_mini, results, backend="pycocotools")
    assert one == other
    assert 0.1 < (one.AP or 0) < 0.5

from __future__ import annotations

import numpy as np
import pytest
import torch

from mobiledet.apps.doctor.anchors import (
    Boxes,
    anchor_grids,
    best_overlaps,
    best_shape_overlaps,
    better_anchors,
    boxes_in_network,
    describe_inputs,
    fit_boxes,
)
from mobiledet.apps.doctor.recipe import JudgedRecipe
from mobiledet.apps.doctor.report import Level, percent
from mobiledet.config import Config, ModelConfig, apply_overrides, load_config
from mobiledet.data.opening import open_data
from mobiledet.models.build import build_detector
from mobiledet.ops.boxes import pairwise_iou
from mobiledet.training.complete import complete, initial_weights

SSD = ModelConfig().head


def random_boxes(count, size, seed=0):
    rng = np.random.default_rng(seed)
    limit = np.array([size[1], size[0]])
    corner = rng.random((count, 2)) * limit * 0.9
    sides = np.exp(rng.uniform(0, np.log(max(size)), (count, 2)))
    return np.concatenate([corner, np.minimum(corner + sides, limit)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("model.head.reduce_lowest=false", "model.head.scale_min=0.07", "model.head.aspect_ratios=1,0.2,4"),
        ("model.head.kind=fpn", "model.head.scale_min=0.1", "model.head.aspect_ratios=1,0.2,4"),
        ("model.head.kind=faster_rcnn", "model.head.anchor_scales=0.1,0.3", "model.head.aspect_ratios=1,0.2,4"),
    ],
)
@pytest.mark.parametrize("size", [(300, 300), (150, 233), (96, 64)])
def test_overlaps_are_those_with_the_detectors_own_anchors(size, words):
    model = apply_overrides(Config(model=ModelConfig(num_classes=2, input_size=size)), words).model
    detector = build_detector(model).eval()
    maps = list(detector.features(torch.zeros(1, 3, *size)).values())
    if one_stage := model.head.kind != "faster_rcnn":
        maps = detector.head.extra_layers(maps)
    sizes = [(x.shape[2], x.shape[3]) for x in maps]
    anchors = detector.head.anchors(sizes, size) if one_stage else detector.head.anchors(*sizes)
    boxes = random_boxes(400, size)
    iou = pairwise_iou(torch.from_numpy(boxes), anchors)
    best = best_overlaps(boxes, anchor_grids(model.head, size))
    np.testing.assert_allclose(best, iou.max(dim=1).values.numpy(), atol=2e-5)


def test_a_grid_point_in_the_middle_is_the_best_that_can_be():
    size = (150, 233)
    boxes, grids = random_boxes(300, size), anchor_grids(SSD, size)
    limit, real = best_shape_overlaps(boxes, grids), best_overlaps(boxes, grids)
    assert (limit >= real - 1e-6).all()
    assert (limit > real + 0.1).any()


def test_boxes_reach_the_network_squeezed_as_the_images_are(make):
    make({"train": [("a.jpg", make.image(40, 80, 1), [(1, 8, 10, 40, 20), (2, 0, 0, 9, 9)])]}, crowds=[1])
    boxes = boxes_in_network(make.collect("train"), ModelConfig(input_size=(80, 40)))
    np.testing.assert_allclose(boxes.xyxy, [[4, 20, 24, 60]])
    assert (boxes.extent, boxes.pixels) == ((80, 40), 3200)


def test_boxes_of_images_that_keep_their_shape(make):
    images = [(f"{n}.jpg", make.image(*size, n), [(1, 10, 20, 8, 6)]) for n, size in enumerate([(40, 80), (80, 40)])]
    make({"train": images})
    words = ["model.head.kind=faster_rcnn", "model.input_size=120,120", "model.resize=shorter_side"]
    model = apply_overrides(Config(), words).model
    boxes = boxes_in_network(make.collect("train"), model)
    np.testing.assert_allclose(boxes.xyxy, [[30, 60, 54, 78]] * 2)
    assert (boxes.extent, boxes.pixels) == ((240, 240), 120 * 240)
    assert len(anchor_grids(model.head, model.network_size, boxes.extent)[0].centre_x) == 15  # a stride of 16


def boxes_of(xyxy, size):
    return Boxes(np.asarray(xyxy, np.float32), np.ones(len(xyxy), np.float32), size, size[0] * size[1])


def fit(xyxy, side, *words):
    model = apply_overrides(Config(), [f"model.input_size={side},{side}", *words]).model
    return fit_boxes(boxes_of(xyxy, model.network_size), model)


def test_what_helps_small_boxes_and_what_helps_long_ones():
    rng = np.random.default_rng(0)
    centre = rng.uniform(60, 240, (500, 2))
    # As large as the smallest anchor (a tenth of the input): only the grid of 16 pixels is too coarse.
    small = np.concatenate([centre - 15, centre + 15], axis=1) * 0.6
    coarse, fine = fit(small, 180), fit(small * 2, 360)
    assert coarse.misshapen == fine.misshapen == 0
    assert coarse.unmatched > 0.3 > 0.1 > fine.unmatched
    half = np.array([90, 15])
    # Six times as long as wide: no anchor, at no input.
    long = np.concatenate([centre - half, centre + half], axis=1)
    before = fit(long, 300)
    assert before.misshapen == before.unmatched == 1
    words = better_anchors(boxes_of(long, (300, 300)), ModelConfig())
    assert fit(long, 300, *words.split()).unmatched < 0.2


def test_each_class_counts_the_same(make):
    make({"train": [("a.jpg", make.image(300, 300, 1), [(1, 30, 40, 180, 175)] * 90 + [(2, 10, 20, 200, 9)] * 10)]})
    model = ModelConfig()
    assert fit_boxes(boxes_in_network(make.collect("train"), model), model).unmatched == pytest.approx(0.5)


def test_the_model_that_is_judged_is_the_one_that_training_makes(real_data, make, monkeypatch):
    """With the weights on this machine and without them, held-out images and all."""
    sizes = [(40, 90)] * 6 + [(90, 40)] * 5
    make({"train": [(f"{n}.jpg", make.image(*size, n), [(1, 3, 4, 20, 20)]) for n, size in enumerate(sizes)]})
    config = load_config("finetune_ssd")
    splits = {"train": make.collect("train").datasets["train"]}
    recipe = JudgedRecipe(config, splits, "finetune_ssd")
    trained = open_data(apply_overrides(config, [f"data.root={make.root}"]).data, seed=config.seed)
    assert len(trained.train) < 11
    without = recipe.model()
    monkeypatch.setenv("MOBILEDET_WEIGHTS", str(real_data.parent / "weights"))
    completed = complete(config, trained.train, initial_weights(config.model)).model
    judged = JudgedRecipe(config, splits, "finetune_ssd").model()
    assert judged == completed
    assert (without.head, without.input_size) == (completed.head, completed.input_size)


def describe(make, boxes, *words, size=(300, 300), name="ssd"):
    make({"train": [("a.jpg", make.image(*size, 1), boxes)]})
    collection = make.collect("train")
    config = apply_overrides(Config(), ["model.input_size=300,300", *words])
    section = describe_inputs(collection, JudgedRecipe(config, collection.datasets, name))
    return section, make.findings(section)


def test_an_input_that_suits_is_not_to_be_changed(make):
    section, codes = describe(make, [(1, 30, 40, 180, 175), (2, 100, 90, 150, 160)])
    assert section.data["recommended_input"] == [300, 300]
    assert [tuple(row["size"]) for row in section.data["inputs"]] == [(300, 300), (368, 368), (448, 448), (608, 608)]
    assert codes["input-size"].kind.level is Level.NOTE
    assert codes["input-size"].remedy == ""
    assert "anchors" not in codes


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (24, ["model.match_aspect=true"]),
        (24, ["model.input_size=240,480"]),
        (45, ["model.head.kind=faster_rcnn", "model.resize=shorter_side", "model.longest_side=400"]),
    ],
)
def test_advice_is_a_larger_input_with_what_it_brings(make, side, words):
    """What is advised, given to the check, is what it is judged as then."""
    boxes = [(1 + n % 2, 14 * n, 12 * n, side, side) for n in range(20)]
    section, codes = describe(make, boxes, *words, size=(300, 600))
    advice = codes["input-size"]
    assert advice.kind.level is Level.ADVICE
    options, _, gain = advice.remedy.partition(": ")
    again = describe(make, boxes, *words, *options.split(), size=(300, 600))[0]
    assert again.data["input_size"] == section.data["recommended_input"]
    assert again.data["unmatched"] <= section.data["unmatched"] - 0.03
    now, before = (percent(1 - each.data["unmatched"]) for each in (again, section))
    assert gain.startswith(f"{now} instead of {before} get an anchor")
    assert all(a >= b for a, b in zip(section.data["recommended_input"], section.data["input_size"], strict=True))


@pytest.mark.parametrize("head", ["ssd", "fpn", "faster_rcnn"])
def test_long_boxes_blame_the_anchors(make, head):
    boxes = [(1, 10, 20 + 40 * i, 200, 30) for i in range(6)] + [(2, 10, 20, 150, 150)] * 10
    section, codes = describe(make, boxes, f"model.head.kind={head}")
    assert section.data["by_class"]["cat"]["unmatched"] == 1
    assert section.data["by_class"]["dog"]["unmatched"] == 0
    assert "the anchors are the problem rather than the pixels" in codes["anchors"].text
    options, _, gain = codes["anchors"].remedy.partition(": ")
    better, _ = describe(make, boxes, f"model.head.kind={head}", *options.split())
    assert better.data["unmatched"] == section.data["anchors"]["unmatched"] < 0.05
    assert gain.startswith(f"{percent(1 - better.data['unmatched'])} instead of ")
    assert gain.endswith("get an anchor")  # nothing is lost: it starts from no weights


def test_anchors_of_another_number_cost_the_pretrained_head(make):
    thin = [(1, 10, 20 + 40 * i, 260, 26) for i in range(6)]
    remedy = describe(make, thin, "model.init=ssd_mobilenet_v1_075_coco")[1]["anchors"].remedy
    assert "model.head.aspect_ratios=" in remedy
    assert remedy.endswith("; the pretrained head is not used then")
    long = [(1, 10, 20 + 40 * i, 200, 30) for i in range(6)]
    codes = describe(make, long, "model.init=ssd_mobilenet_v1_075_coco")[1]
    assert codes["anchors"].remedy.endswith("; the pretrained head is not used then on 1 of 6 maps")


def test_a_trained_head_keeps_its_anchors_unless_others_match_many_more(make):
    """On other anchors it has to learn anew what it knows."""
    boxes = [(1, 30 + i / 4, 40, 180, 175) for i in range(36)] + [(1, 10, 20 + 40 * i, 200, 30) for i in range(6)]
    fresh, codes = describe(make, boxes)
    assert fresh.data["unmatched"] - fresh.data["anchors"]["unmatched"] == pytest.approx(6 / 42)
    assert codes["anchors"].remedy.startswith("model.head.")
    trained, codes = describe(make, boxes, "model.init=ssd_mobilenet_v1_075_coco")
    assert (trained.data["unmatched"], trained.data["anchors"]) == (fresh.data["unmatched"], None)
    assert "anchors" not in codes


def test_one_pixel_boxes_and_no_boxes(make):
    section, codes = describe(make, [(1, 10, 20, 1, 1), (1, 50, 60, 1, 2)])
    assert section.data["tiny"] == section.data["unmatched"] == 1
    assert "no larger input or other anchors tried do much better" in codes["input-size"].text
    assert describe(make, [])[1] == {}

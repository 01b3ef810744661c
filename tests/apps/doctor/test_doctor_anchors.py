from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from mobiledet.apps.doctor.anchors import (
    anchor_grids,
    best_overlaps,
    best_shape_overlaps,
    better_anchors,
    boxes_in_network,
    candidate_sizes,
    describe_inputs,
    fit_boxes,
    overrides,
    setting_of,
)
from mobiledet.apps.doctor.report import Level
from mobiledet.config import Config, ModelConfig, apply_overrides
from mobiledet.models.build import build_detector
from mobiledet.ops.boxes import pairwise_iou

SETTING = setting_of(ModelConfig())


def random_boxes(count, size, seed=0):
    rng = np.random.default_rng(seed)
    limit = np.array([size[1], size[0]])
    corner = rng.random((count, 2)) * limit * 0.9
    sides = np.exp(rng.uniform(0, np.log(max(size)), (count, 2)))
    return np.concatenate([corner, np.minimum(corner + sides, limit)], axis=1).astype(np.float32)


@pytest.mark.parametrize(
    "words", [(), ("model.head.reduce_lowest=false", "model.head.scale_min=0.07", "model.head.aspect_ratios=1,0.2,4")]
)
@pytest.mark.parametrize("size", [(300, 300), (150, 233), (96, 64)])
def test_overlaps_are_those_with_the_detectors_own_anchors(size, words):
    model = apply_overrides(Config(model=ModelConfig(num_classes=2, input_size=size)), words).model
    detector = build_detector(model).eval()
    maps = list(detector.features(torch.zeros(1, 3, *size)).values())
    maps += detector.head.extra_layers(maps[-1])
    sizes = [(x.shape[2], x.shape[3]) for x in maps]
    setting = setting_of(model)
    assert setting.map_sizes(size) == sizes
    boxes = random_boxes(400, size)
    iou = pairwise_iou(torch.from_numpy(boxes), detector.head.anchors(sizes, size))
    best = best_overlaps(boxes, anchor_grids(setting, size))
    np.testing.assert_allclose(best, iou.max(dim=1).values.numpy(), atol=2e-5)


def test_a_grid_point_in_the_middle_is_the_best_that_can_be():
    size = (150, 233)
    boxes, grids = random_boxes(300, size), anchor_grids(SETTING, size)
    limit, real = best_shape_overlaps(boxes, grids), best_overlaps(boxes, grids)
    assert (limit >= real - 1e-6).all()
    assert (limit > real + 0.1).any()


def test_boxes_reach_the_network_squeezed_as_the_images_are(make):
    make({"train": [("a.jpg", make.image(40, 80, 1), [(1, 8, 10, 40, 20), (2, 0, 0, 9, 9)])]}, crowds=[1])
    boxes = boxes_in_network(make.collect("train"), (80, 40))
    np.testing.assert_allclose(boxes, [[4, 20, 24, 60]])


def test_what_helps_small_boxes_and_what_helps_long_ones():
    rng = np.random.default_rng(0)
    centre = rng.uniform(60, 240, (500, 2))
    # As large as the smallest anchor (a tenth of the input): only the grid of 16 pixels is too coarse.
    small = np.concatenate([centre - 15, centre + 15], axis=1).astype(np.float32) * np.float32(0.6)
    coarse = fit_boxes(small, (180, 180), SETTING, reference=(300, 300))
    fine = fit_boxes(small * np.float32(2), (360, 360), SETTING, reference=(300, 300))
    assert coarse.misshapen == fine.misshapen == 0
    assert coarse.unmatched > 0.3 > 0.1 > fine.unmatched
    assert (coarse.cost, fine.cost) == (0.36, 1.44)
    half = np.array([90, 15])
    # Six times as long as wide: no anchor, at no input.
    long = np.concatenate([centre - half, np.add(centre, half)], axis=1).astype(np.float32)
    before = fit_boxes(long, (300, 300), SETTING, reference=(300, 300))
    assert before.misshapen == before.unmatched == 1
    better = better_anchors(long, (300, 300), SETTING)
    after = fit_boxes(long, (300, 300), better, reference=(300, 300))
    assert after.unmatched < 0.2
    assert overrides(better, SETTING)


def test_overrides_say_what_was_tried():
    better = replace(SETTING, aspect_ratios=(*SETTING.aspect_ratios, 5.0), scale_min=0.1, reduce_lowest=False)
    words = overrides(better, SETTING)
    again = setting_of(apply_overrides(Config(), words.split()).model)
    np.testing.assert_allclose(again.aspect_ratios, better.aspect_ratios, atol=1e-3)
    assert replace(again, aspect_ratios=()) == replace(better, aspect_ratios=())
    assert overrides(SETTING, SETTING) == ""


def test_inputs_of_the_images_proportions_are_tried():
    wide = candidate_sizes([(480, 640)] * 3, (300, 300))
    assert (336, 448) in wide
    assert (300, 300) in wide
    assert (512, 512) in wide
    tall = candidate_sizes([(640, 480)] * 3, (300, 300))
    assert (448, 336) in tall
    assert {height == width for height, width in candidate_sizes([(500, 510)], (300, 300))} == {True}


def describe(make, boxes, size=(300, 300)):
    make({"train": [("a.jpg", make.image(300, 300, 1), boxes)]})
    section = describe_inputs(make.collect("train"), SETTING, size)
    return section, make.findings(section)


def test_the_smallest_input_that_will_do_is_named(make):
    section, codes = describe(make, [(1, 30, 40, 180, 175), (2, 100, 90, 150, 160)])
    assert section.data["recommended_input"] == [160, 160]
    assert codes["input-size"].kind.level is Level.NOTE
    assert codes["input-size"].remedy.startswith("model.input_size=160,160")
    assert "anchors" not in codes


def test_long_boxes_blame_the_anchors(make):
    boxes = [(1, 10, 20 + 40 * i, 200, 30) for i in range(6)] + [(2, 10, 20, 150, 150)]
    section, codes = describe(make, boxes)
    assert section.data["by_class"]["cat"]["unmatched"] == 1
    assert section.data["by_class"]["dog"]["unmatched"] == 0
    assert "the anchors are the problem rather than the pixels: 86 %" in codes["anchors"].text
    words = "model.head.scale_min=0.25 model.head.reduce_lowest=false"
    price = "; the pretrained head is not used then on 1 of 6 maps"
    assert codes["anchors"].remedy == f"{words} would leave 0 % unmatched{price}"


def test_anchors_of_another_number_cost_the_pretrained_head(make):
    thin = [(1, 10, 20 + 40 * i, 260, 26) for i in range(6)]
    remedy = describe(make, thin)[1]["anchors"].remedy
    assert "model.head.aspect_ratios=" in remedy
    assert remedy.endswith("; the pretrained head is not used then")


def test_one_pixel_boxes_and_no_boxes(make):
    section, codes = describe(make, [(1, 10, 20, 1, 1), (1, 50, 60, 1, 2)])
    assert section.data["tiny"] == section.data["unmatched"] == 1
    assert "none does much better" in codes["input-size"].text
    assert describe(make, [])[1] == {}

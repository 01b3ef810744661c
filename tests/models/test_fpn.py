"""The feature pyramid and SSD's fine map: their maps, anchors and cost, and what they take from other weights."""

import math

import pytest
import torch
from torch.nn import functional

from mobiledet.config import BackboneConfig, Config, FPNConfig, ModelConfig, SSDConfig, SSDLiteConfig, apply_overrides
from mobiledet.errors import ConfigError
from mobiledet.models.build import build_detector
from mobiledet.models.cost import detector_cost
from mobiledet.models.layers import DEFAULT_STYLE, UpsampleAdd
from mobiledet.models.maps import Pyramid
from mobiledet.ops.boxes import pairwise_iou
from mobiledet.weights.transfer import InitialWeights, load_into


def build(size=(97, 150), *, num_classes=3, alpha=0.25, head=None):
    torch.manual_seed(0)
    config = ModelConfig(
        num_classes=num_classes, backbone=BackboneConfig(alpha=alpha), input_size=size, head=head or FPNConfig()
    )
    return build_detector(config)


@pytest.mark.parametrize("size", [(97, 150), (64, 96), (200, 249), (33, 41)])
def test_every_map_halves_the_one_before_and_has_its_anchors(size):
    model = build(size).eval()
    with torch.no_grad():
        features = model.features(torch.zeros(2, 3, *size))
        maps = model.head.extra_layers(list(features.values()))
    wanted = [tuple(math.ceil(side / stride) for side in size) for stride in (8, 16, 32)]
    wanted += [tuple(math.ceil(side / 2) for side in wanted[-1])]
    wanted += [tuple(math.ceil(side / 2) for side in wanted[-1])]
    assert [tuple(x.shape) for x in maps] == [(2, 32, *sides) for sides in wanted]
    anchors = FPNConfig().anchor_maps(size, size)
    assert [tuple(each.shape) for each in anchors] == [(*sides, 3, 4) for sides in wanted]
    candidates = model.candidates(torch.zeros(2, 3, *size))
    assert candidates.boxes.shape == (2, sum(3 * rows * columns for rows, columns in wanted), 4)


@pytest.mark.parametrize("size", [(97, 150), (64, 96)])
@pytest.mark.parametrize("head", [SSDConfig, SSDLiteConfig])
def test_the_fine_map_comes_behind_ssds_own_with_smaller_anchors(head, size):
    plain, fine = head(), head(fine_map=True)
    before, after = plain.anchor_maps(size, size), fine.anchor_maps(size, size)
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=False))
    rows, columns, count, _ = after[-1].shape
    assert (len(after), rows, columns) == (len(before) + 1, math.ceil(size[0] / 8), math.ceil(size[1] / 8))
    areas = [(a[..., 2:] - a[..., :2]).prod(dim=-1) for a in (before[0][0, 0], after[-1][0, 0])]
    torch.testing.assert_close(areas[1], areas[0].min() * torch.tensor([0.5, 0.25, 0.125]))
    with torch.no_grad():
        candidates = build(size, head=fine).eval().candidates(torch.zeros(2, 3, *size))
    total = sum(a.shape[:3].numel() for a in after)
    assert candidates.boxes.shape == (2, total, 4)
    assert candidates.scores.shape == (2, total, 3)
    assert total == sum(a.shape[:3].numel() for a in before) + rows * columns * count


def test_a_fine_map_starts_fresh_beside_what_an_ssd_knows():
    ssd, model = build(head=SSDConfig()), build(head=SSDConfig(fine_map=True))
    old = InitialWeights("ssd", ModelConfig(head=SSDConfig()), ssd.state_dict(), ("a", "b", "c"), folded=False)
    fresh = {key for key in model.state_dict() if key not in load_into(model, old, ["a", "b", "c"]).loaded}
    assert fresh
    assert all(key.startswith(("head.extra_layers.fine.", "head.cls_predictors.6.", "head.bbox_predictors.6."))
               for key in fresh)  # fmt: skip
    with torch.no_grad():
        images = torch.rand(1, 3, 97, 150) * 255
        theirs, ours = ssd.eval().candidates(images), model.eval().candidates(images)
    count = theirs.boxes.shape[1]
    torch.testing.assert_close(ours.boxes[:, :count], theirs.boxes)
    torch.testing.assert_close(ours.scores[:, :count], theirs.scores)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (5, 6), (4, 7), (37, 19), (1, 1)])
def test_a_coarse_map_is_doubled_and_cut_to_the_fine_ones_size(height, width):
    fine, coarse = torch.randn(2, 3, height, width), torch.randn(2, 3, math.ceil(height / 2), math.ceil(width / 2))
    doubled = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)[:, :, :height, :width]
    assert torch.equal(UpsampleAdd()(fine, coarse), fine + doubled)


def test_the_finest_map_knows_what_the_coarsest_sees():
    torch.manual_seed(0)
    pyramid = Pyramid(in_channels=(8, 8, 8), channels=8, num_maps=4, style=DEFAULT_STYLE).eval()
    maps = [torch.rand(1, 8, side, side) for side in (16, 8, 4)]
    before = pyramid(maps)
    maps[2] = maps[2].clone()
    maps[2][..., 3, 3] += 5
    moved = [(new - old).abs().amax(dim=(0, 1)) for new, old in zip(pyramid(maps), before, strict=True)]
    assert all(difference.max() > 0 for difference in moved)
    assert moved[0][:8].max() == 0, "far from it nothing changes"


def test_anchors_grow_from_map_to_map_by_one_factor():
    shapes = FPNConfig(num_maps=4, scale_min=0.1, scale_max=0.8, aspect_ratios=(1.0, 0.5)).anchor_shapes()
    assert [shape for each in shapes for shape in each] == [
        (pytest.approx(scale), ratio) for scale in (0.1, 0.2, 0.4, 0.8) for ratio in (1.0, 0.5)
    ]


def test_it_costs_at_most_what_it_may():
    cost = detector_cost(build((320, 320), num_classes=80, alpha=1.0))
    assert cost.gmacs == pytest.approx(1.268, abs=0.001)
    ssd = detector_cost(build((320, 320), num_classes=80, alpha=1.0, head=SSDConfig()))
    assert cost.gmacs < 1.3 < ssd.gmacs
    thin = {layer.name: layer for layer in detector_cost(build((320, 320))).layers}
    assert thin["head.extra_layers.laterals.0.conv"].output == (32, 40, 40)


def test_objects_too_small_for_ssd_are_learned():
    """Squares of 8 pixels in 96x128, two of them nearer to each other than SSD's finest cells are wide."""
    boxes = torch.tensor([[20.0, 30, 28, 38], [32, 30, 40, 38], [90, 60, 98, 68]])
    labels = torch.tensor([1, 2, 2])
    colors = {1: [250.0, 20, 20], 2: [20.0, 20, 250]}
    images = torch.randint(0, 256, (4, 3, 96, 128), generator=torch.Generator().manual_seed(1)).float()
    images = functional.avg_pool2d(images, 5, 1, 2).to(torch.uint8)
    targets = []
    for index, image in enumerate(images):
        moved = boxes + torch.tensor([5.0, 3, 5, 3]) * index
        for (x1, y1, x2, y2), label in zip(moved.int().tolist(), labels.tolist(), strict=True):
            image[:, y1:y2, x1:x2] = torch.tensor(colors[label], dtype=torch.uint8)[:, None, None]
        targets.append({"boxes": moved, "labels": labels})
    model = build((96, 128), num_classes=2)
    for norm in (layer for layer in model.modules() if isinstance(layer, torch.nn.BatchNorm2d)):
        norm.momentum = 0.5
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=160)
    for _ in range(160):
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        found = model.eval()(images)
    for detections, target in zip(found, targets, strict=True):
        best, index = pairwise_iou(target["boxes"], detections["boxes"][:3]).max(dim=1)
        assert best.min() > 0.5
        assert torch.equal(detections["labels"][index], target["labels"])


def test_it_starts_from_an_ssds_backbone_and_from_its_own_classes():
    ssd, model = build(head=SSDConfig()), build()
    old = InitialWeights("ssd", ModelConfig(head=SSDConfig()), ssd.state_dict(), ("a", "b", "c"), folded=False)
    rows = dict(load_into(model, old, ["a", "b", "c"]).rows)
    assert rows["backbone"].startswith("loaded (")
    assert rows["extra layers"] == rows["box predictors"] == rows["class predictors"] == "fresh"
    own = InitialWeights("own", ModelConfig(head=FPNConfig()), model.state_dict(), ("a", "b", "c"), folded=False)
    other = build(num_classes=2)
    transfer = load_into(other, own, ["new", "b"])
    assert (transfer.carried, transfer.averaged) == (("b",), ("new",))
    for index in range(5):
        was, now = (m.head.cls_predictors[index][-1].weight.unflatten(0, (3, -1)) for m in (model, other))
        assert torch.equal(now[:, 1], was[:, 1])
    assert torch.equal(other.head.extra_layers.merges[0].smooth.depthwise.conv.weight,
                       model.head.extra_layers.merges[0].smooth.depthwise.conv.weight)  # fmt: skip


@pytest.mark.parametrize(
    "changes", ["scale_min=0.9", "aspect_ratios=()", "num_maps=2", "channels=0", "tower=-1", "match_iou=1"]
)
def test_settings_that_cannot_be_are_refused(changes):
    with pytest.raises(ConfigError, match=r"model\.head"):
        apply_overrides(Config(), ["model.head.kind=fpn", f"model.head.{changes}"])

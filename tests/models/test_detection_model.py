"""Contracts of every head: a row per head, the same tests for all."""

import math

import pytest
import torch

from mobiledet.config import (
    BackboneConfig,
    FasterRCNNConfig,
    FPNConfig,
    ModelConfig,
    PostprocessConfig,
    SSDConfig,
    SSDLiteConfig,
)
from mobiledet.errors import ConfigError
from mobiledet.models.build import build_detector
from mobiledet.ops.boxes import pairwise_iou
from mobiledet.structures import ImageGeometry

HEADS = {
    "ssd-sigmoid": SSDConfig(),
    "ssd-softmax": SSDConfig(scores="softmax"),
    "ssdlite": SSDLiteConfig(),
    "fpn": FPNConfig(),
    "faster_rcnn": FasterRCNNConfig(crop_size=4, proposals=40, anchor_scales=(0.3, 0.6)),
    "faster_rcnn-depthwise": FasterRCNNConfig(crop_size=4, proposals=40, anchor_scales=(0.3, 0.6), rpn="depthwise"),
}


@pytest.fixture(params=HEADS, ids=list(HEADS))
def head(request):
    return HEADS[request.param]


def build(head, *, num_classes=3, size=(96, 128), **extra):
    torch.manual_seed(0)
    return build_detector(
        ModelConfig(head=head, num_classes=num_classes, input_size=size, backbone=BackboneConfig(alpha=0.25, **extra))
    )


def target(boxes, labels, **extra):
    return {
        "boxes": torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        "labels": torch.tensor(labels, dtype=torch.int64),
        **extra,
    }


def pixels(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("num_classes", [1, 90])
@pytest.mark.parametrize("size", [(200, 249), (300, 300), (33, 97)])
@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
def test_losses_and_candidates_at_odd_sizes(head, num_classes, size, padding):
    model = build(head, num_classes=num_classes, size=size, padding=padding)
    images = pixels(2, 3, *size)
    targets = [target([[2, 3, 30, 20]], [num_classes]), target([], [])]
    losses = model(images, targets)
    assert set(losses) >= {"classification", "box"}
    assert all(loss.dim() == 0 and torch.isfinite(loss) for loss in losses.values())
    candidates = model.eval().candidates(images)
    count = candidates.scores.shape[1]
    assert candidates.scores.shape == (2, count, num_classes)
    assert candidates.boxes.shape in [(2, count, 4), (2, count, num_classes, 4)]
    assert ((candidates.scores >= 0) & (candidates.scores <= 1)).all()
    height, width = size
    assert (candidates.boxes[..., 0::2] <= width).all()
    assert (candidates.boxes[..., 1::2] <= height).all()


def test_a_batch_of_empty_pictures_teaches_background(head):
    model = build(head)
    losses = model(pixels(2, 3, 96, 128), [target([], []), target([], [])])
    assert all((loss.item() == 0) == ("box" in name) for name, loss in losses.items())
    sum(losses.values()).backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_every_parameter_gets_a_gradient(head):
    model = build(head)
    targets = [target([[10, 10, 60, 90], [0, 0, 128, 96], [90, 5, 100, 14]], [1, 2, 3])] * 2
    sum(model(pixels(2, 3, 96, 128), targets).values()).backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None]
    assert missing == []


def test_a_batch_of_one_is_trained_on(head):
    model = build(head, size=(97, 64))  # ends in a map of 1x1
    images, targets = pixels(1, 3, 97, 64), [target([[10, 10, 50, 90]], [1])]
    model(images, targets)
    sum(model(images, targets).values()).backward()
    assert all(torch.isfinite(value).all() for value in model.state_dict().values())
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


def test_a_few_images_are_overfitted(head):
    model = build(head, norm_momentum=0.5)
    boxes = [[30, 20, 100, 70], [10, 50, 40, 90], [70, 10, 120, 90], [5, 5, 65, 50]]
    labels, colors = [1, 3, 1, 3], {1: [250, 20, 20], 3: [20, 20, 250]}
    images = pixels(4, 3, 96, 128)
    for image, (x1, y1, x2, y2), label in zip(images, boxes, labels, strict=True):
        image[:, y1:y2, x1:x2] = torch.tensor(colors[label], dtype=torch.uint8)[:, None, None]
    targets = [target([box], [label]) for box, label in zip(boxes, labels, strict=True)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=160)
    for _ in range(160):
        optimizer.zero_grad()
        sum(model(images, targets).values()).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        found = model.eval()(images)
    for detection, wanted in zip(found, targets, strict=True):
        assert detection["labels"][0] == wanted["labels"][0]
        assert pairwise_iou(detection["boxes"][:1], wanted["boxes"]).item() > 0.7  # 0.85 and more over ten seeds


def test_called_as_torchvision_detectors_are(head):
    model = build(head).eval()
    images = [torch.rand(3, 200, 249), torch.rand(3, 50, 40)]
    with torch.no_grad():
        found = model(images)
    assert len(found) == 2
    for detection, image in zip(found, images, strict=True):
        count = len(detection["scores"])
        assert detection["boxes"].shape == (count, 4)
        assert detection["labels"].dtype == torch.int64
        assert (detection["boxes"][:, 2] <= image.shape[2] + 1e-3).all()
        assert (detection["boxes"][:, 3] <= image.shape[1] + 1e-3).all()
        assert (detection["scores"].diff() <= 0).all()
    targets = [target([[10, 20, 100, 120]], [2]), target([], [])]
    with torch.no_grad():
        assert torch.equal(model(images, targets)[0]["boxes"], found[0]["boxes"]), "targets don't matter here"
    losses = model.train()(images, targets)
    assert all(torch.isfinite(loss) for loss in losses.values())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match="targets"):
        model(images)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_train_and_detect(head, dtype):
    model = build(head).to(dtype)
    images = [torch.rand(3, 96, 128, dtype=dtype), pixels(3, 50, 60)]
    targets = [
        {"boxes": torch.tensor([[10, 20, 100, 90]], dtype=dtype), "labels": torch.tensor([2], dtype=torch.int32)}
    ]
    losses = model(images, [*targets, target([], [])])
    sum(losses.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    with torch.no_grad():
        assert model.eval()(images)[0]["boxes"].shape[1] == 4


def test_targets_are_scaled_with_their_picture():
    model = build(SSDConfig())
    geometry = ImageGeometry((192, 64), (96, 128))
    fitted = model._fit_targets([target([[10, 20, 100, 50]], [1])], [geometry])
    assert fitted[0]["boxes"].tolist() == [[20, 10, 200, 25]]


def test_crowd_regions_are_neither_object_nor_background():
    model = build(SSDConfig())
    images = pixels(1, 3, 96, 128)
    plain = model(images, [target([[10, 10, 60, 90]], [1])])
    crowded = model(
        images,
        [target([[10, 10, 60, 90], [0, 0, 128, 96]], [1, 2], iscrowd=torch.tensor([False, True]))],
    )
    assert crowded["box"] == plain["box"]
    assert crowded["classification"] < plain["classification"], "its anchors are left out of the negatives"


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ([target([[0, 0, 9, 9]], [4])], "1..3"),
        ([target([[0, 0, 9, 9]], [0])], "0 is background"),
        ([target([[0, 0, 9, 9]], [1, 2])], r"\(N, 4\)"),
        ([], "1 images but 0 targets"),
        ([target([[9, 2, 3, 8]], [1])], "x1 < x2"),
        ([target([[0, 0, 9, 9], [2, 5, 9, 5]], [1, 1])], r"\[2.0, 5.0, 9.0, 5.0\]"),
        ([target([[0, 0, math.nan, 9]], [1])], "nan"),
        ([target([[0.1, 0.1, 0.9, 1.0]], [1])], "multiply"),
        ([target([[0, 0, 9, 9]], [1]) | {"labels": torch.tensor([1.0])}], "whole numbers"),
        ([{"boxes": [[0, 0, 9, 9]], "labels": [1]}], "tensors"),
    ],
)
def test_wrong_targets_are_named(targets, message):
    with pytest.raises(ValueError, match=message):
        build(SSDConfig())(pixels(1, 3, 96, 128), targets)


def test_the_target_at_fault_is_named():
    targets = [target([[0, 0, 9, 9]] * 2, [1, 2]), target([], []), target([[0, 0, 9, 9]], [7])]
    with pytest.raises(ValueError, match=r"targets\[2\]: label 7"):
        build(SSDConfig())(pixels(3, 3, 96, 128), targets)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "empty"),
        ([torch.zeros(1, 9, 9)], "shape"),
        ([torch.zeros(3, 0, 9)], "shape"),
        (torch.zeros(2, 1, 9, 9), "shape"),
        ([torch.rand(3, 9, 9), torch.rand(3, 9, 9) * 255], r"images\[1\].*divide by 255"),
        (torch.rand(1, 3, 96, 128) * 2 - 1, "0..1"),
        ([torch.full((3, 9, 9), math.nan)], "0..1"),
        ([torch.zeros(3, 9, 9, dtype=torch.int64)], "int64"),
        ([[0, 0, 0]], "tensor"),
    ],
)
def test_wrong_pictures_are_refused(images, message):
    with pytest.raises(ValueError, match=message):
        build(SSDConfig()).eval()(images)


def test_untrained_sigmoid_scores_start_at_the_prior():
    model = build(SSDConfig()).eval()
    with torch.no_grad():
        scores = model.candidates(pixels(1, 3, 96, 128)).scores
    assert scores.mean().item() == pytest.approx(0.01, abs=0.005)


def test_classification_loss_equals_plain_cross_entropy():
    head = build(SSDConfig()).head
    logits, labels = torch.randn(2, 5, 3), torch.tensor([[0, 1, 2, 3, 0], [3, 0, 0, 1, 1]])
    own, background = head._classification_losses(logits, labels)
    one_hot = torch.nn.functional.one_hot(labels, 4)[..., 1:].float()
    bce = torch.nn.functional.binary_cross_entropy_with_logits
    torch.testing.assert_close(torch.where(labels > 0, own, background), bce(logits, one_hot, reduction="none").sum(-1))
    torch.testing.assert_close(background, bce(logits, torch.zeros_like(one_hot), reduction="none").sum(-1))


def test_rho_scales_the_input():
    assert ModelConfig(input_size=(300, 200), rho=0.5).network_size == (150, 100)


def test_num_classes_must_be_known():
    with pytest.raises(ConfigError, match="num_classes"):
        build_detector(ModelConfig())


def test_weights_to_start_from_are_not_ignored():
    config = ModelConfig(num_classes=2, init="weights.pt")
    with pytest.raises(ConfigError, match=r"weights\.pt"):
        build_detector(config)
    build_detector(config, weights_follow=True)


def test_postprocess_settings_reach_the_detector():
    model = build_detector(ModelConfig(num_classes=2, postprocess=PostprocessConfig(max_detections=7)))
    assert model.postprocess.max_detections == 7
    assert math.isclose(model.postprocess.iou_threshold, 0.6)

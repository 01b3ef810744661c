"""Faster R-CNN's own parts: proposals, second stage, sampling, images of many sizes."""

import pytest
import torch
from torchvision.ops import box_iou

from mobiledet.config import BackboneConfig, FasterRCNNConfig, ModelConfig, SSDConfig
from mobiledet.errors import ConfigError
from mobiledet.models import faster_rcnn
from mobiledet.models.build import build_detector
from mobiledet.structures import ResizeRule

HEAD = FasterRCNNConfig(crop_size=4, proposals=25, anchor_scales=(0.25, 0.5))


def build(head=HEAD, *, size=(96, 128), num_classes=3, seed=0, **model):
    torch.manual_seed(seed)
    config = ModelConfig(
        head=head, num_classes=num_classes, input_size=size, backbone=BackboneConfig(alpha=0.25), **model
    )
    return build_detector(config)


def target(boxes, labels, **extra):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": boxes, "labels": torch.tensor(labels, dtype=torch.int64), **extra}


def pixels(*shape, seed=1):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def propose(head, objectness, boxes, sizes):
    """Proposals of hand-made anchors with offsets of zero."""
    anchors = torch.tensor(boxes, dtype=torch.float32)
    scores = torch.tensor(objectness, dtype=torch.float32)
    return head._propose(scores, torch.zeros(*scores.shape, 4), anchors, sizes)


def test_the_second_stage_is_the_rest_of_the_backbone():
    model = build()
    assert list(model.backbone.layers) == [f"conv{i}" for i in range(12)]
    assert list(model.head.second_stage.layers) == ["conv12", "conv13"]
    ssd = build(SSDConfig())
    for name, layer in model.head.second_stage.layers.items():
        other = ssd.backbone.layers[name].state_dict()
        assert {key: value.shape for key, value in layer.state_dict().items()} == {k: v.shape for k, v in other.items()}
    assert model.backbone_parts() == [model.backbone, model.head.second_stage]


def test_proposals_are_the_best_ones_that_do_not_overlap_much():
    head = build().head
    boxes = [[0, 0, 40, 40], [2, 0, 42, 40], [60, 50, 100, 90], [0, 50, 40, 90]]
    proposals, found = propose(head, [[1.0, 2.0, -1.0, 0.0]], boxes, [(96, 128)])
    assert proposals.shape == (1, 25, 4)
    assert proposals[0, :3].tolist() == [boxes[1], boxes[3], boxes[2]]
    assert found[0, :3].tolist() == pytest.approx(torch.sigmoid(torch.tensor([2.0, 0.0, -1.0])).tolist())
    assert not proposals[0, 3:].any()
    assert not found[0, 3:].any()


def test_proposals_are_clipped_to_their_own_picture_and_empty_ones_dropped():
    head = build().head
    boxes = [[-10, -10, 50, 50], [90, 10, 120, 40], [10, 80, 60, 140]]
    proposals, found = propose(head, [[1.0, 2.0, 3.0]] * 2, boxes, [(96, 128), (60, 80)])
    assert proposals[0, :3].tolist() == [[10, 80, 60, 96], [90, 10, 120, 40], [0, 0, 50, 50]]
    assert proposals[1, :1].tolist() == [[0, 0, 50, 50]]
    assert (found > 0).sum(dim=1).tolist() == [3, 1]


def test_unlikely_proposals_are_still_proposals():
    _, found = propose(build().head, [[-200.0, -300.0]], [[0, 0, 40, 40], [60, 50, 100, 90]], [(96, 128)])
    assert (found > 0).sum() == 2


def test_a_missing_proposal_scores_nothing():
    model = build(HEAD.model_copy(update={"proposals": 400, "proposal_iou": 0.1})).eval()
    with torch.no_grad():
        found = model.candidates(pixels(1, 3, 96, 128))
    assert found.scores.shape == (1, 400, 3)
    real = found.scores[0].sum(dim=1) > 0
    assert 3 < int(real.sum()) < 100
    assert not real[int(real.sum()) :].any()


def test_crops_come_from_the_right_place():
    head = build().head
    # Columns of the map hold their own number; a crop's mean is its centre in cells of 16 pixels.
    feature_map = torch.arange(8.0).expand(1, head.feature.channels, 6, 8).clone()
    seen = []
    head.second_stage.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    head.eval()._second_stage(feature_map, [torch.tensor([[32.0, 16, 96, 80], [16, 16, 48, 48]])])
    assert seen[0].shape == (2, head.feature.channels, 4, 4)
    assert seen[0][0].mean().item() == pytest.approx(64 / 16 - 0.5)
    assert seen[0][1].mean().item() == pytest.approx(32 / 16 - 0.5)
    assert (seen[0][0].diff(dim=-1) > 0).all()
    assert seen[0][0].diff(dim=-2).abs().max() < 1e-6, "rows and columns aren't swapped"


def test_every_class_has_its_own_box():
    model = build().eval()
    with torch.no_grad():
        model.head.bbox_predictor.bias.view(3, 4)[1] = torch.tensor([1.0, 0, 0, 0])  # a tenth of the width, for class 2
        model.head.bbox_predictor.weight.zero_()
        boxes = model.candidates(pixels(1, 3, 96, 128)).boxes[0]
    inside = (boxes[:, 1, 2] < 127) & (boxes[:, 0, 2] > boxes[:, 0, 0])
    width = boxes[:, 0, 2] - boxes[:, 0, 0]
    moved = boxes[:, 1, 2] - boxes[:, 0, 2]
    torch.testing.assert_close(moved[inside], 0.1 * width[inside], atol=1e-3, rtol=0)
    torch.testing.assert_close(boxes[:, 0], boxes[:, 2])


def test_a_batch_finds_what_single_pictures_find():
    model = build().eval()
    images = pixels(3, 3, 96, 128)
    with torch.no_grad():
        together = model.candidates(images)
        for index in range(3):
            alone = model.candidates(images[index : index + 1])
            torch.testing.assert_close(together.scores[index], alone.scores[0], atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(together.boxes[index], alone.boxes[0], atol=1e-2, rtol=1e-4)


def anchor_labels(model, targets, monkeypatch):
    """What the proposal network learns about each anchor: 1 object, 0 background, 0.5 nothing, by its gradient."""
    monkeypatch.setattr(faster_rcnn, "RPN_SAMPLES", 10_000)
    seen = []
    model.head.rpn.cls_logits.register_forward_hook(lambda module, inputs, output: seen.append(output))
    losses = model(pixels(len(targets), 3, 96, 128), targets)
    (gradient,) = torch.autograd.grad(losses["objectness"], seen[0])
    return -gradient.permute(0, 2, 3, 1).reshape(len(targets), -1).sign() / 2 + 0.5, model.head.anchors((6, 8))


def region_labels(model, targets):
    """Labels of the regions that the second stage learns from: the class whose logit is to rise."""
    seen = []
    model.head.cls_predictor.register_forward_hook(lambda module, inputs, output: seen.append(output))
    losses = model(pixels(len(targets), 3, 96, 128), targets)
    (gradient,) = torch.autograd.grad(losses["classification"], seen[0])
    return gradient.argmin(dim=1)


def test_anchors_on_an_object_are_positive_and_far_ones_negative(monkeypatch):
    box = [16.0, 16.0, 64.0, 64.0]  # 48 pixels: half of the shorter side, an anchor's size
    labels, anchors = anchor_labels(build(), [target([box], [2])], monkeypatch)
    overlap = box_iou(anchors, torch.tensor([box]))[:, 0]
    assert (labels[0][overlap < 0.3] == 0).all()
    assert (labels[0][overlap >= 0.7] == 1).all()
    assert labels[0][overlap.argmax()] == 1
    between = (overlap >= 0.3) & (overlap < 0.7) & (overlap < overlap.max())
    assert (labels[0][between] == 0.5).all()
    assert between.any()


def test_anchors_in_a_crowd_are_neither(monkeypatch):
    crowd = target([[0, 0, 64, 96], [90, 20, 115, 45]], [1, 1], iscrowd=torch.tensor([True, False]))
    labels, anchors = anchor_labels(build(), [crowd], monkeypatch)
    inside = (anchors[:, 2] <= 64) & (anchors[:, 0] >= 0) & (anchors[:, 1] >= 0) & (anchors[:, 3] <= 96)
    assert inside.sum() > 3
    assert (labels[0][inside] == 0.5).all()
    assert (labels[0] == 0).any()


def test_a_picture_that_is_all_crowd_teaches_nothing_and_breaks_nothing():
    everything = target([[-500, -500, 900, 900]], [1], iscrowd=torch.tensor([True]))
    losses = build()(pixels(1, 3, 96, 128), [everything])
    assert all(loss.item() == 0 for loss in losses.values())
    sum(losses.values()).backward()


def test_sampled_regions_keep_their_number_and_share():
    model = build(HEAD.model_copy(update={"rois_per_image": 8, "proposals": 60}))
    objects = target([[10, 10, 60, 90], [70, 20, 120, 80], [0, 0, 30, 30]], [1, 2, 3])
    labels = region_labels(model, [objects, target([], [])])
    assert len(labels) == 16
    assert 1 <= (labels[:8] > 0).sum() <= 2
    assert (labels[8:] == 0).all()


def test_regions_in_a_crowd_are_not_background():
    model = build(HEAD.model_copy(update={"rois_per_image": 60, "proposals": 60}))
    crowd = target([[0, 0, 128, 96], [90, 20, 115, 45]], [1, 2], iscrowd=torch.tensor([True, False]))
    labels = region_labels(model, [crowd])
    assert len(labels) >= 1
    assert (labels == 2).all()


@pytest.mark.parametrize(
    "box",
    [[20, 20, 20.001, 60], [20, 20, 60, 20.001], [50, 50, 50.001, 50.001], [127.5, 95.5, 128, 96], [0, 0, 128, 96]],
)
def test_thin_objects_give_finite_losses(box):
    model = build()
    losses = model(pixels(1, 3, 96, 128), [target([box, [10, 10, 60, 60]], [1, 2])])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_losses_are_weighed():
    images, targets = pixels(1, 3, 96, 128), [target([[10, 10, 60, 60]], [2])]
    plain, weighed = (
        build(HEAD.model_copy(update={"rpn_loss_weight": rpn, "box_loss_weight": box})) for rpn, box in ((1, 1), (3, 5))
    )
    torch.manual_seed(5)
    before = plain(images, targets)
    torch.manual_seed(5)
    after = weighed(images, targets)
    factors = {"objectness": 3, "proposal_box": 3, "classification": 1, "box": 5}
    assert {name: (after[name] / before[name]).item() for name in after} == pytest.approx(factors)


def test_freezing_reaches_the_second_stage():
    model = build()
    model.freeze(stages=13)
    free = {name.split(".")[3] for name, p in model.head.second_stage.named_parameters(prefix="x.y") if p.requires_grad}
    assert free == {"conv13"}
    assert not any(p.requires_grad for p in model.backbone.parameters())
    assert all(p.requires_grad for p in model.head.rpn.parameters())
    norms = build()
    norms.freeze(norm=True)
    norms.train()
    assert not norms.head.second_stage.layers["conv13"].pointwise.norm.training
    assert norms.head.second_stage.layers["conv13"].training


class TestManySizes:
    """Images that keep their shape."""

    def model(self):
        return build(resize="shorter_side", longest_side=200)

    @pytest.mark.parametrize(
        ("original", "expected"),
        [
            ((480, 640), (96, 128)),
            ((640, 480), (128, 96)),
            ((50, 50), (96, 96)),
            ((100, 400), (50, 200)),
            ((1, 4000), (1, 200)),
        ],
    )
    def test_the_rule(self, original, expected):
        rule = ResizeRule((96, 128), 200)
        assert rule(original) == expected
        assert rule(rule(original)) == expected, "an image that was resized already is left alone"
        assert not rule.fixed
        assert ResizeRule((96, 128))(original) == (96, 128)

    def test_boxes_come_back_in_pixels_of_each_picture(self):
        model = self.model().eval()
        images = [pixels(3, 50, 60), pixels(3, 300, 200), pixels(3, 96, 128)]
        with torch.no_grad():
            found = model(images)
        for detection, image in zip(found, images, strict=True):
            assert len(detection["boxes"])
            limit = torch.tensor([image.shape[2], image.shape[1]] * 2)
            assert (detection["boxes"] <= limit + 1e-3).all()
            assert (detection["boxes"] >= 0).all()

    def test_losses_of_mixed_pictures(self):
        targets = [target([[5, 5, 30, 40]], [1]), target([[50, 100, 150, 250]], [3]), target([], [])]
        losses = self.model()([pixels(3, 50, 60), pixels(3, 300, 200), pixels(3, 40, 200)], targets)
        assert all(torch.isfinite(loss) for loss in losses.values())

    def test_smaller_pictures_are_filled_up_with_nothing(self):
        model = self.model()
        batch, geometries = model._batch([pixels(3, 96, 120), pixels(3, 110, 96)])
        assert batch.shape == (2, 3, 110, 120)
        assert [geometry.network_size for geometry in geometries] == [(96, 120), (110, 96)]
        normalised = (batch.float() - model.mean) * model.inverse_std
        assert normalised[0, :, 96:].abs().max() < 0.01
        assert normalised[1, :, :, 96:].abs().max() < 0.01
        assert torch.equal(batch[0, :, :96, :].to(torch.uint8), pixels(3, 96, 120))

    def test_no_proposal_reaches_into_the_filling(self):
        model = self.model().eval()
        with torch.no_grad():
            found = model([pixels(3, 96, 200), pixels(3, 200, 96)])
        assert (found[0]["boxes"][:, 3] <= 96).all()
        assert (found[1]["boxes"][:, 2] <= 96).all()

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"head": SSDConfig()}, "ssd can't take"),
            ({"match_aspect": True}, "match_aspect"),
            ({"longest_side": 90}, "longest_side 90 is below"),
        ],
    )
    def test_contradictions_are_refused(self, settings, words):
        with pytest.raises(ValueError, match=words):
            ModelConfig(**{"head": HEAD, "resize": "shorter_side", "input_size": (96, 128), **settings})

    def test_rho_scales_both_limits(self):
        config = ModelConfig(head=HEAD, resize="shorter_side", input_size=(600, 600), longest_side=1000, rho=0.5)
        assert config.resize_rule == ResizeRule((300, 300), 500)


def test_classes_must_be_known():
    with pytest.raises(ConfigError, match="num_classes"):
        build_detector(ModelConfig(head=HEAD))

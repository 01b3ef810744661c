"""The rounding of INT8, imitated: what it computes, and what its gradients are."""

import math

import numpy as np
import pytest
import torch
from tiny_detectors import expected, make_images, tiny_detector

from mobiledet.models.layers import ConvNormAct
from mobiledet.models.quantization import Int8ConvNormAct, imitate_int8, measure_ranges, range_steps, trained_ranges

IMAGES = make_images(4)
BATCH = torch.from_numpy(IMAGES).permute(0, 3, 1, 2)


def rounded(head):
    model, _ = tiny_detector(head)
    imitate_int8(model, measure_ranges(model, [BATCH[:2], BATCH[2:]]))
    return model


@pytest.mark.parametrize(
    ("low", "high", "zero"), [(0.0, 6.0, -128), (-2.55, 0.0, 127), (-1.0, 1.55, -28), (0.0, 0.0, -128)]
)
def test_zero_is_one_of_the_steps_and_the_ends_are_within_half_a_one(low, high, zero):
    scale, found = range_steps((low, high))
    assert found == zero
    assert scale * (-128 - found) == pytest.approx(low, abs=scale / 2 + 1e-6)
    assert scale * (127 - found) == pytest.approx(high, abs=scale / 2 + 1e-6)


@pytest.mark.parametrize("head", ["sigmoid", "softmax", "ssdlite", "fine", "fpn"])
def test_results_lie_on_the_steps_of_their_layer(head):
    model, seen = rounded(head), {}
    for name, module in model.named_modules():
        if isinstance(module, Int8ConvNormAct):
            module.register_forward_hook(lambda _m, _i, result, name=name: seen.update({name: result}))
    model.candidates(BATCH)
    ranges = trained_ranges(model)
    assert len(seen) > 30
    for name, result in seen.items():
        scale, _ = range_steps(ranges[f"{name}.conv"])
        steps = (result.detach() / scale).numpy()
        np.testing.assert_allclose(steps, np.rint(steps), atol=1e-3)
        assert (steps >= 0).all()
        assert (steps <= 255.001).all()


@pytest.mark.parametrize("head", ["sigmoid", "softmax", "ssdlite", "fpn"])
def test_it_is_near_the_float_model_and_can_be_ended(head):
    float_model, model = tiny_detector(head)[0], rounded(head)
    wanted, found = expected(float_model, IMAGES), expected(model, IMAGES)
    assert not np.array_equal(found[1], wanted[1])
    np.testing.assert_allclose(found[1][:, :5], wanted[1][:, :5], atol=0.1)
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in float_model.named_parameters()]
    imitate_int8(model, None)
    assert trained_ranges(model) is None
    for ended, exact in zip(expected(model, IMAGES), wanted, strict=True):
        np.testing.assert_array_equal(ended, exact)


def test_weights_have_127_steps_each_way_in_every_channel():
    layer = ConvNormAct(4, 3, kernel_size=1)
    with torch.no_grad():
        layer.conv.weight[:, :, 0, 0] = torch.tensor([[1.0, -0.5, 0.01, 0], [127, 63.4, -63.6, 1.4], [0, 0, 0, 0]])
        layer.norm.running_var.fill_(1 - layer.norm.eps)
    model = torch.nn.ModuleDict({"a": layer.eval()})
    imitate_int8(model, {"a.conv": (0.0, 6.0)})
    layer.norm.bias.data.fill_(0)
    columns = [layer(torch.eye(4)[i].view(1, 4, 1, 1) * 0.04)[0, :, 0, 0] for i in range(4)]
    # A step of the results is 6 / 255: half of one is cut off, the rest is whole.
    assert columns[0][0].item() == pytest.approx(round(0.04 * 255 / 6) * 6 / 255)
    assert columns[1][1].item() == pytest.approx(round(63 * 0.04 * 255 / 6) * 6 / 255)
    assert [column[2].item() for column in columns] == [0] * 4


def test_gradients_pass_rounding_but_not_the_ends_of_the_range():
    layer = ConvNormAct(2, 2, kernel_size=1)
    imitate_int8(torch.nn.ModuleDict({"a": layer}), {"a.conv": (0.0, 1.0)})
    with torch.no_grad():
        layer.conv.weight.copy_(torch.eye(2)[:, :, None, None])
        layer.norm.bias.copy_(torch.tensor([0.3, 3.0]))
    layer(torch.zeros(1, 2, 1, 1) + 0.1).sum().backward()
    assert layer.norm.bias.grad.tolist() == [1.0, 0.0]
    assert layer.conv.weight.grad[0, 0].item() == pytest.approx(0.1, rel=0.01)


def test_norms_stand_still_and_everything_learns():
    model = rounded("ssdlite").train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    targets = [{"boxes": torch.tensor([[5.0, 5, 60, 50]]), "labels": torch.tensor([1])}] * 4
    sum(model(BATCH, targets).values()).backward()
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers())
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert sum(float(p.grad.abs().sum()) > 0 for p in model.parameters()) > 100


def test_short_formats_stay_out_of_it():
    model = rounded("sigmoid")
    with torch.autocast("cpu", torch.bfloat16):
        found = model.candidates(BATCH)
    np.testing.assert_array_equal(found.scores.detach(), model.candidates(BATCH).scores.detach())


def test_logits_of_rare_scores_are_left_out_of_the_range():
    model, _ = tiny_detector("sigmoid")
    with torch.no_grad():
        model.head.cls_predictors[0].bias.fill_(-40.0)
        model.head.cls_predictors[0].bias[0] = 2.0
        model.head.bbox_predictors[0].bias[0] = -40.0
    ranges = measure_ranges(model, [BATCH])
    assert ranges["head.cls_predictors.0"][0] == -7.0
    assert ranges["head.bbox_predictors.0"][0] < -30


@pytest.mark.parametrize(
    "change",
    [
        lambda ranges: ranges.popitem(),
        lambda ranges: ranges.update(more=(0.0, 1.0)),
        lambda ranges: ranges.update({"backbone.layers.conv0.conv": (0.5, 1.0)}),
        lambda ranges: ranges.update({"backbone.layers.conv0.conv": (0.0, math.inf)}),
        lambda ranges: ranges.update({"backbone.layers.conv0.conv": (math.nan, 1.0)}),
        lambda ranges: ranges.update({"backbone.layers.conv0.conv": (0.0, 1.0, 2.0)}),
    ],
)
def test_ranges_that_cannot_be_are_refused(change):
    model, _ = tiny_detector("sigmoid")
    ranges = measure_ranges(model, [BATCH])
    change(ranges)
    with pytest.raises(ValueError, match=r"range|unpack"):
        imitate_int8(model, ranges)

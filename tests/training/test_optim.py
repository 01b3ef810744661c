"""Which weights decay, how fast each learns, and averages worked out by hand."""

import math

import pytest
import torch
from torch import nn

from mobiledet.config import (
    BackboneConfig,
    FasterRCNNConfig,
    FPNConfig,
    ModelConfig,
    OptimizerConfig,
    ScheduleConfig,
    SSDLiteConfig,
)
from mobiledet.models.build import build_detector
from mobiledet.training.optim import NormGuard, WeightAverage, build_optimizer, lr_factor, parameter_groups, set_lr


def build(**changes):
    torch.manual_seed(0)
    return build_detector(
        ModelConfig(backbone=BackboneConfig(alpha=0.25), num_classes=3, input_size=(64, 80)).model_copy(update=changes)
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"head": SSDLiteConfig()}, {"head": FPNConfig()}, {"head": FasterRCNNConfig()}],
    ids=["ssd", "ssdlite", "fpn", "faster_rcnn"],
)
def test_only_full_convolutions_decay(changes):
    model = build(**changes)
    groups = parameter_groups(model, OptimizerConfig(weight_decay=0.3))
    decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
    assert sum(len(group["params"]) for group in groups) == len(decay) == len(list(model.parameters()))
    kinds = {"full": 0, "depthwise": 0, "norm": 0, "bias": 0}
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            kinds["norm"] += 1
            assert decay[id(module.weight)] == decay[id(module.bias)] == 0
        elif isinstance(module, nn.Conv2d | nn.Linear):
            depthwise = isinstance(module, nn.Conv2d) and module.groups > 1
            kinds["depthwise" if depthwise else "full"] += 1
            assert decay[id(module.weight)] == (0 if depthwise else 0.3)
            if module.bias is not None:
                kinds["bias"] += 1
                assert decay[id(module.bias)] == 0
    assert kinds["depthwise"] >= 13
    assert min(kinds.values()) > 0


@pytest.mark.parametrize("changes", [{}, {"head": FasterRCNNConfig()}], ids=["ssd", "faster_rcnn"])
def test_the_backbone_has_its_own_rate(changes):
    model = build(**changes)
    config = OptimizerConfig(lr=0.5, backbone_lr_scale=0.1)
    groups = parameter_groups(model, config)
    assert [group["name"] for group in groups] == ["backbone", "backbone/no_decay", "head", "head/no_decay"]
    backbone = {id(p) for p in model.backbone.parameters()}
    for group in groups:
        inside = group["name"].startswith("backbone")
        assert group["lr_scale"] == (0.1 if inside else 1.0)
        assert all((id(p) in backbone) == inside for p in group["params"])
    optimizer = build_optimizer(model, config)
    set_lr(optimizer, 0.2)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.02, 0.02, 0.2, 0.2])


def test_frozen_parameters_are_left_out():
    model = build()
    model.backbone.freeze(stages=14)
    groups = parameter_groups(model, OptimizerConfig())
    assert [group["name"] for group in groups] == ["head", "head/no_decay"]
    model = build()
    model.backbone.freeze(norm=True)
    chosen = {id(p) for group in parameter_groups(model, OptimizerConfig()) for p in group["params"]}
    for module in model.backbone.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert id(module.weight) not in chosen
        elif isinstance(module, nn.Conv2d):
            assert id(module.weight) in chosen


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW), ("rmsprop", torch.optim.RMSprop)]
)
def test_optimisers_take_the_settings(name, kind):
    optimizer = build_optimizer(build(), OptimizerConfig(name=name, lr=0.03, momentum=0.8))
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert (group["betas"][0] if name == "adamw" else group["momentum"]) == 0.8


def factors(count, *, steps_per_epoch=10, **settings):
    config = ScheduleConfig(**{"epochs": 10, "warmup_steps": 0, **settings})
    return [lr_factor(step, steps_per_epoch=steps_per_epoch, config=config) for step in range(count)]


def test_cosine_by_hand():
    rates = factors(101, policy="cosine", final_lr=0.1)
    assert rates[0] == pytest.approx(1.0)
    assert rates[50] == pytest.approx(0.55)  # half way between 1 and 0.1
    assert rates[25] == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rates[100] == pytest.approx(0.1)
    assert rates == sorted(rates, reverse=True)


def test_steps_by_hand():
    rates = factors(100, policy="step", step_epochs=(3, 8), step_factor=0.2)
    assert rates[:30] == [1.0] * 30
    assert rates[30:80] == pytest.approx([0.2] * 50)
    assert rates[80:] == pytest.approx([0.04] * 20)


def test_constant():
    assert factors(100, policy="constant") == [1.0] * 100


@pytest.mark.parametrize("policy", ["cosine", "step", "constant"])
def test_warm_up_is_linear_and_ends_at_the_peak(policy):
    rates = factors(100, policy=policy, warmup_steps=4, step_epochs=(5,))
    assert rates[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert rates[5] <= 1.0


def test_warm_up_is_at_most_a_tenth_of_the_run():
    assert factors(11, warmup_steps=500, policy="constant") == pytest.approx([k / 11 for k in range(1, 11)] + [1.0])
    assert factors(3, warmup_steps=500, epochs=1, steps_per_epoch=3, policy="constant") == pytest.approx([0.5, 1, 1])


def test_a_run_of_one_step_learns():
    assert factors(1, epochs=1, steps_per_epoch=1, policy="cosine", warmup_steps=0) == [1.0]


def test_averages_by_hand():
    model = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average = WeightAverage(model, 0.25)
    expected = 0.0
    for update, value in enumerate([1.0, -2.0, 5.0, 3.0], start=1):
        with torch.no_grad():
            model.weight.fill_(value)
        average.update()
        # (1 + n) / (10 + n) is 2/11, 3/12, 4/13, 5/14: above 0.25 from the third on, where 0.25 counts.
        decay = [2 / 11, 0.25, 0.25, 0.25][update - 1]
        expected = decay * expected + (1 - decay) * value
        assert average.updates == update
        assert average.state_dict(model)["weight"].item() == pytest.approx(expected, rel=1e-6)
    assert model.weight.item() == 3.0


def test_averages_cover_statistics_and_copy_counters():
    model = nn.BatchNorm2d(2)
    average = WeightAverage(model, 0.5)
    model.train()(torch.randn(4, 2, 3, 5) + 7)
    average.update()
    state = average.state_dict(model)
    assert list(state) == list(model.state_dict())
    assert state["num_batches_tracked"].item() == 1
    assert ((state["running_mean"] > 0) & (state["running_mean"] != model.running_mean)).all()


def test_averages_are_resumed():
    torch.manual_seed(1)
    model = nn.Linear(3, 2)
    first, second = WeightAverage(model, 0.9), WeightAverage(model, 0.9)
    for step in range(6):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 3))
        first.update()
        if step < 3:
            second.update()
        elif step == 3:
            saved, updates = second.state_dict(model), second.updates
            saved = {name: tensor.clone() for name, tensor in saved.items()}
            second = WeightAverage(nn.Linear(3, 2), 0.9)
            second._live = list(model.state_dict().values())
            second.load(saved, updates)
            second.update()
        else:
            second.update()
    assert torch.equal(first.state_dict(model)["weight"], second.state_dict(model)["weight"])


def test_the_guard_puts_statistics_back():
    model = build().train()
    guard = NormGuard(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    guard.remember()
    model.features(torch.full((2, 3, 64, 80), float("nan")))
    assert any(not torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    guard.restore()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())

"""A new backbone is one class of settings with its module, and one name in `BACKBONES`: a made-up one, end to end."""

import pytest
import torch

from mobiledet.config import Config, FasterRCNNConfig, ModelConfig, apply_overrides, config_from_plain
from mobiledet.errors import ConfigError
from mobiledet.models import model_config
from mobiledet.models.build import build_detector
from mobiledet.models.cost import detector_cost
from mobiledet.training.complete import follow_weights
from mobiledet.weights.transfer import InitialWeights, load_into


@pytest.fixture(autouse=True)
def plain(monkeypatch, documented):
    """The settings of the example in docs/architecture.md."""
    settings = documented("plain_backbone.py")["PlainConfig"]
    monkeypatch.setattr(model_config, "BACKBONES", (*model_config.BACKBONES, settings))
    return settings


def build(width=16, **head):
    torch.manual_seed(0)
    backbone = {"kind": "plain", "width": width}
    return build_detector(ModelConfig(backbone=backbone, num_classes=2, input_size=(64, 96), **head))


def test_it_is_chosen_by_its_kind_and_its_settings_are_checked(plain):
    config = apply_overrides(Config(), ["model.backbone.kind=plain", "model.backbone.width=24"])
    assert config.model.backbone == plain(width=24)
    assert config_from_plain(config.plain()) == config
    with pytest.raises(ConfigError, match="'mobilenet_v1', 'plain', not 'plane'"):
        apply_overrides(Config(), ["model.backbone.kind=plane"])
    with pytest.raises(ConfigError, match="alpha"):
        apply_overrides(config, ["model.backbone.alpha=0.5"])
    assert "kind" not in Config().plain()["model"]["backbone"]
    assert apply_overrides(Config(), ["model.backbone.kind=mobilenet_v1"]) == Config()


def test_it_trains_and_detects():
    model = build()
    targets = [{"boxes": torch.tensor([[10.0, 5, 60, 50]]), "labels": torch.tensor([2])}]
    losses = model([torch.rand(3, 64, 96)] * 2, targets * 2)
    sum(losses.values()).backward()
    assert all(parameter.grad is not None for parameter in model.backbone.parameters())
    assert model.eval()([torch.rand(3, 50, 70)])[0]["boxes"].shape[1] == 4


def test_its_layers_are_counted_and_can_be_frozen():
    model = build()
    assert sum(layer.name.startswith("backbone.") for layer in detector_cost(model).layers) == 5
    model.freeze(stages=2)
    assert [layer.weight.requires_grad for layer in model.backbone.layers] == [False, False, True, True, True]


def test_what_can_not_be_frozen_says_so():
    class Foreign(torch.nn.Conv2d):
        feature_info = build().backbone.feature_info

    model = build()
    model.backbone = Foreign(3, 16, 3)
    for what in ({"stages": 1}, {"norm": True}):
        with pytest.raises(ConfigError, match="Foreign has no"):
            model.freeze(**what)
    model.freeze()


def test_its_weights_start_another_and_dictate_what_it_says(plain):
    model = build(width=24)
    config = ModelConfig(backbone=plain(width=24), num_classes=2)
    old = InitialWeights("old", config, model.state_dict(), ("cat", "dog"), folded=False)
    assert follow_weights(ModelConfig(backbone=plain()), old).backbone.width == 24
    with pytest.raises(ConfigError, match=r"model\.backbone\.width is 16, but old has 24"):
        follow_weights(ModelConfig(backbone=plain(width=16)), old)
    with pytest.raises(ConfigError, match="another backbone"):
        follow_weights(ModelConfig(), old)
    new = build(width=24)
    assert ("backbone", "loaded (10 tensors)") in load_into(new, old, ["cat", "cow"]).rows


def test_a_head_that_wants_what_it_lacks_is_refused():
    with pytest.raises(ConfigError, match="no layers behind"):
        build(head=FasterRCNNConfig())

import pytest
import torch

from mobiledet.config import BackboneConfig, ModelConfig
from mobiledet.models.build import build_detector
from mobiledet.models.layers import ConvNormAct
from mobiledet.weights.folded_norms import reinsert_norms
from mobiledet.weights.tflite.mobilenet import FoldedConv, folded_state

SIZE = (64, 96)


@pytest.fixture
def folded():
    """A detector whose every norm stands still at mean 0, variance 1, as after an import."""
    torch.manual_seed(3)
    model = build_detector(ModelConfig(backbone=BackboneConfig(alpha=0.25), input_size=SIZE, num_classes=2)).eval()
    for name, module in model.named_modules():
        if isinstance(module, ConvNormAct):
            bias = torch.rand(module.conv.out_channels) + 0.5
            layer = FoldedConv(module.conv.weight.detach().clone(), bias, 0)
            model.load_state_dict(folded_state(name, layer, module.norm.eps), strict=False)
    return model


def images(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 8, 12, generator=generator) * 255
    return torch.nn.functional.interpolate(coarse, SIZE, mode="bilinear").to(torch.uint8)


def everything(model):
    return {name for name in model.state_dict() if "norm" in name}


def test_a_folded_layer_computes_convolution_plus_bias(folded):
    layer = folded.backbone.layers["conv3"].pointwise
    x = torch.rand(2, layer.conv.in_channels, 5, 7)
    bias = layer.norm.bias
    expected = torch.nn.functional.conv2d(x, layer.conv.weight, bias).clamp(0, 6)
    assert torch.allclose(layer(x), expected, atol=1e-6)


def test_evaluation_stays_as_it_was(folded):
    x = images(4)
    before = folded.candidates(x)
    assert reinsert_norms(folded, [images(3, seed=1), images(2, seed=2)], everything(folded)) == 35
    after = folded.candidates(x)
    assert torch.allclose(before.scores, after.scores, atol=3e-5)
    assert torch.allclose(before.boxes, after.boxes, atol=1e-2)


def test_training_mode_now_starts_from_nearly_the_same(folded):
    x = images(16)
    expected = folded.features(x)["conv13"]
    folded.train()
    without = folded.features(x)["conv13"]
    folded.eval()
    for module in folded.modules():  # undo what the pass above did to the statistics
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.zero_()
            module.running_var.fill_(1)
    reinsert_norms(folded, [x], everything(folded))
    folded.train()
    assert torch.allclose(folded.features(x)["conv13"], expected, atol=2e-2)
    assert (without - expected).abs().mean() > 0.1


def test_statistics_are_those_of_all_batches_together(folded):
    batches = [images(1, seed=4), images(5, seed=5)]
    conv = folded.backbone.layers["conv0"].conv
    values = conv((torch.cat(batches).float() - folded.mean) * folded.inverse_std).detach().transpose(0, 1).flatten(1)
    reinsert_norms(folded, batches, everything(folded))
    norm = folded.backbone.layers["conv0"].norm
    assert torch.allclose(norm.running_mean, values.mean(dim=1), rtol=1e-4, atol=1e-4)
    assert torch.allclose(norm.running_var, values.var(dim=1, unbiased=False), rtol=1e-3)


def test_layers_that_were_not_loaded_keep_their_norms(folded):
    loaded = {name for name in everything(folded) if name.startswith("backbone.")}
    before = folded.head.extra_layers.pairs[0][0].norm.weight.clone()
    assert reinsert_norms(folded, [images(2)], loaded) == 27
    assert torch.equal(folded.head.extra_layers.pairs[0][0].norm.weight, before)


def test_without_pictures_nothing_changes(folded):
    before = {name: value.clone() for name, value in folded.state_dict().items()}
    assert reinsert_norms(folded, [], everything(folded)) == 0
    assert all(torch.equal(value, before[name]) for name, value in folded.state_dict().items())
    assert not folded.training

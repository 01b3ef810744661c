import pytest
import torch

from mobiledet.models.layers import LayerStyle, PaddedConv2d
from mobiledet.models.mobilenet_v1 import TABLE_1, MobileNetV1, MobileNetV1Classifier, scale_channels


def test_table_1_has_28_layers_with_the_classifier():
    assert sum(1 if kind == "conv" else 2 for kind, _, _ in TABLE_1) + 1 == 28


@pytest.mark.parametrize(
    ("channels", "alpha", "expected"), [(512, 0.75, 384), (32, 0.1, 8), (1024, 1.25, 1280), (64, 0.33, 21)]
)
def test_channels_are_rounded_down_with_a_floor(channels, alpha, expected):
    assert scale_channels(channels, alpha) == expected


@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
@pytest.mark.parametrize("size", [(200, 249), (300, 300), (33, 97), (32, 32)])
def test_maps_have_the_channels_and_strides_they_announce(padding, size):
    names = [f"conv{i}" for i in range(14)]
    backbone = MobileNetV1(alpha=0.25, outputs=names, style=LayerStyle(padding=padding)).eval()
    features = backbone(torch.zeros(1, 3, *size))
    assert list(features) == names
    for info in backbone.feature_info:
        height, width = size
        stride = info.stride
        assert features[info.name].shape == (1, info.channels, -(-height // stride), -(-width // stride))


def test_outputs_are_checked():
    with pytest.raises(ValueError, match="conv14"):
        MobileNetV1(outputs=("conv14",))
    with pytest.raises(ValueError, match="alpha"):
        MobileNetV1(alpha=0)


@pytest.mark.parametrize(
    ("size", "first_pixel_counts"),
    [
        ((6, 6), 9),  # even: nothing before, so the first output sees a whole 3x3 window of the image
        ((7, 7), 4),  # odd: one pixel of padding before, so it sees 2x2
    ],
)
def test_tensorflow_padding_is_asymmetric_on_even_sizes(size, first_pixel_counts):
    conv = PaddedConv2d(1, 1, 3, stride=2, groups=1, same=True)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, *size))
    assert out.shape[2:] == (-(-size[0] // 2), -(-size[1] // 2))
    assert out[0, 0, 0, 0].item() == first_pixel_counts


def test_tensorflow_padding_pads_rows_by_height():
    conv = PaddedConv2d(1, 1, 3, stride=2, groups=1, same=True)
    torch.nn.init.ones_(conv.weight)
    out = conv(torch.ones(1, 1, 6, 7))  # height even: 0 above; width odd: 1 left
    assert out[0, 0, 0, 0].item() == 3 * 2


def test_activation_is_relu6():
    backbone = MobileNetV1(alpha=0.25, outputs=("conv0",)).eval()
    assert backbone(torch.full((1, 3, 40, 48), 1e4))["conv0"].max() <= 6


def test_freezing_keeps_stages_and_statistics():
    backbone = MobileNetV1(alpha=0.25)
    backbone.freeze(stages=3)
    backbone.train()
    before = {k: v.clone() for k, v in backbone.state_dict().items()}
    sum(f.mean() for f in backbone(torch.randn(2, 3, 64, 80)).values()).backward()
    frozen = [k for k in before if k.startswith(("layers.conv0.", "layers.conv1.", "layers.conv2."))]
    assert all(torch.equal(backbone.state_dict()[k], before[k]) for k in frozen)
    assert all(p.grad is None for n, p in backbone.named_parameters() if n in frozen)
    assert not torch.equal(
        backbone.state_dict()["layers.conv3.depthwise.norm.running_mean"],
        before["layers.conv3.depthwise.norm.running_mean"],
    )


def test_frozen_norms_stay_in_evaluation_mode():
    backbone = MobileNetV1(alpha=0.25)
    backbone.freeze(norm=True)
    backbone.train()
    norms = [m for m in backbone.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    assert norms
    assert not any(m.training or m.weight.requires_grad for m in norms)
    assert all(m.weight.requires_grad for m in backbone.modules() if isinstance(m, torch.nn.Conv2d))


def test_classifier_gives_logits():
    model = MobileNetV1Classifier(backbone=MobileNetV1(alpha=0.25, outputs=("conv13",)), num_classes=7).eval()
    assert model(torch.zeros(2, 3, 96, 128)).shape == (2, 7)


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 4), (5, 7), (6, 6)])
@pytest.mark.parametrize("stride", [1, 2])
def test_even_padding_equals_plain_convolution(size, stride):
    conv = PaddedConv2d(4, 8, 3, stride=stride, groups=1, same=False)
    images = torch.randn(2, 4, *size)
    expected = torch.nn.functional.conv2d(images, conv.weight, None, stride, 1)
    torch.testing.assert_close(conv(images), expected)


def test_bfloat16_gradient_on_a_map_of_one_pixel_is_not_random_memory():
    conv = PaddedConv2d(64, 128, 3, stride=2, groups=1, same=False)
    images = torch.randn(32, 64, 1, 1).to(memory_format=torch.channels_last)
    for _ in range(20):
        junk = torch.full((1_000_000,), float("nan"))  # leaves NaN in the memory that the next tensor gets
        del junk
        conv.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            out = conv(images)
        out.sum().backward()
        untouched = conv.weight.grad.clone()
        untouched[:, :, 1, 1] = 0
        assert (untouched == 0).all()
        assert torch.isfinite(conv.weight.grad).all()

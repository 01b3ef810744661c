import pytest
import torch
from timm_file import write_timm

from mobiledet.errors import CheckpointError
from mobiledet.weights.imagenet import ImageNetBackbone, import_timm


@pytest.mark.parametrize("alpha", [0.25, 1.25])
def test_it_computes_what_timm_does(tmp_path, alpha):
    theirs = write_timm(tmp_path / "m.safetensors", alpha=alpha)
    found = import_timm(tmp_path / "m.safetensors")
    assert (found.config.alpha, found.config.padding, found.folded) == (alpha, "symmetric", False)
    x = torch.randn(2, 3, 65, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.allclose(found.build_classifier()(x), theirs(x), atol=1e-5)


def test_timm_itself_agrees(tmp_path):
    timm = pytest.importorskip("timm", reason="timm isn't installed")
    from safetensors.torch import save_file

    model = timm.create_model("mobilenetv1_100", pretrained=False).eval()
    save_file(dict(model.state_dict()), tmp_path / "m.safetensors")
    x = torch.randn(1, 3, 96, 65)
    with torch.no_grad():
        assert torch.allclose(import_timm(tmp_path / "m.safetensors").build_classifier()(x), model(x), atol=1e-5)


def test_it_survives_a_checkpoint(tmp_path):
    write_timm(tmp_path / "m.safetensors")
    found = import_timm(tmp_path / "m.safetensors")
    again = ImageNetBackbone.from_payload(found.payload())
    assert (again.config, again.mean, again.std, again.input_size) == (
        found.config,
        (127.5,) * 3,
        (127.5,) * 3,
        (224, 224),
    )
    assert all(torch.equal(again.state[name], value) for name, value in found.state.items())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"blocks__2__1__conv_pw__weight": None}, "not timm's MobileNetV1"),
        ({"blocks__2__1__conv_pw__weight": torch.zeros(64, 32, 1, 1)}, "size mismatch"),
        ({"blocks__2__1__se__weight": torch.zeros(4)}, "blocks.2.1.se.weight"),
        ({"blocks__1__2__conv_pw__weight": torch.zeros(4)}, "blocks.1.2.conv_pw.weight"),
        ({"conv_stem__weight": None}, "no stem"),
        ({"conv_stem__weight": torch.zeros(9, 3, 3, 3)}, "9 and 256 channels"),
    ],
)
def test_another_network_is_refused(tmp_path, changes, words):
    write_timm(tmp_path / "m.safetensors", **changes)
    with pytest.raises(CheckpointError, match=words):
        import_timm(tmp_path / "m.safetensors")


def test_without_a_classifier_there_are_features(tmp_path):
    write_timm(tmp_path / "m.safetensors", classifier__weight=None, classifier__bias=None)
    found = import_timm(tmp_path / "m.safetensors")
    assert found.classifier is None
    assert found.build()(torch.rand(1, 3, 64, 96))["conv13"].shape == (1, 256, 2, 3)
    with pytest.raises(CheckpointError, match="no classifier"):
        found.build_classifier()

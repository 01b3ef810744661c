"""TensorFlow's frozen graphs: exactly the weights they hold, at any width, and damage in one line."""

import random

import numpy as np
import pytest
import torch
from frozen_file import frozen_graph, make_classifier, node, write_frozen

from mobiledet.data.images import find_images, read_image
from mobiledet.errors import CheckpointError
from mobiledet.preprocess import fit_image
from mobiledet.structures import ResizeRule
from mobiledet.weights.frozen_graph import read_frozen_graph
from mobiledet.weights.imagenet import ImageNetBackbone, import_frozen
from mobiledet.weights.importing import describe_weights, import_weights
from mobiledet.weights.transfer import read_initial_weights

REAL = "mobilenet_v1_1.0_224_float.pb"


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("alpha", [0.25, 0.6])
def test_it_computes_what_was_frozen(tmp_path, fused, alpha):
    model = make_classifier(alpha)
    (tmp_path / "m.pb").write_bytes(frozen_graph(model, fused=fused))
    content = import_weights(tmp_path / "m.pb")
    assert describe_weights(content) == f"MobileNetV1 alpha {alpha:g}, 64x96 pixels, classifier of 5 classes"
    found = ImageNetBackbone.from_payload(content)
    assert (found.config.padding, found.config.norm_epsilon, found.folded) == ("tensorflow", 1e-3, False)
    assert (found.mean, found.std, found.input_size) == ((127.5,) * 3, (127.5,) * 3, (64, 96))
    assert all(torch.equal(found.state[name], value) for name, value in model.backbone.state_dict().items())
    x = torch.randn(2, 3, 65, 96)
    with torch.no_grad():
        assert torch.equal(found.build_classifier()(x), model(x))


def test_folded_it_is_the_same_network_and_so_it_starts_a_training(tmp_path):
    """Where the norms are re-estimated; a folded one is left as it is."""
    write_frozen(tmp_path / "m.pb")
    found = import_frozen(tmp_path / "m.pb")
    folded = found.fold()
    assert folded.state["layers.conv7.pointwise.norm.running_mean"].count_nonzero() == 0
    x = torch.randn(2, 3, 65, 96)
    with torch.no_grad():
        assert torch.allclose(folded.build_classifier()(x), found.build_classifier()(x), atol=1e-5)
    assert folded.fold() is folded
    start = read_initial_weights(found.payload(), "m")
    assert start.folded
    assert torch.equal(
        start.state["backbone.layers.conv3.depthwise.conv.weight"], folded.state["layers.conv3.depthwise.conv.weight"]
    )


def test_features_epsilon_and_unknown_size(tmp_path):
    write_frozen(tmp_path / "m.pb", features=True, epsilon=0.01, size=(-1, -1))
    found = import_frozen(tmp_path / "m.pb")
    assert (found.classifier, found.config.norm_epsilon, found.input_size) == (None, 0.01, (224, 224))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: b"", "no operations"),
        (lambda content: b"<html>please log in</html>", "not a frozen TensorFlow graph, or damaged"),
        (lambda content: content[:-9], "it ends early"),
        (lambda content: node("a", "Const"), "none of its 1 operations is called Conv2d_0/weights"),
        (lambda content: content.replace(b"7_pointwise/BatchNorm/gamma", b"7_pointwise/BatchNorm/gamme"), "is nothing"),
        (lambda content: content.replace(b"SAME", b"same"), "isn't a SAME convolution of stride 2"),
        (lambda content: content.replace(b"3_pointwise/Relu6", b"3_pointwise/Relu9"), "Conv2d_3_pointwise/Relu6"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, change, words):
    path = tmp_path / "m.pb"
    path.write_bytes(change(frozen_graph(make_classifier())))
    with pytest.raises(CheckpointError, match=words) as caught:
        import_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"strides": (2,) + (1,) * 13}, "Conv2d_2_depthwise/convolution isn't a SAME convolution of stride 2"),
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
    ],
)
def test_other_networks_are_refused(tmp_path, options, words):
    write_frozen(tmp_path / "m.pb", **options)
    with pytest.raises(CheckpointError, match=words):
        import_frozen(tmp_path / "m.pb")


def test_undefined_weights_are_refused(tmp_path):
    model = make_classifier()
    model.backbone.layers["conv0"].norm.running_var[1] = float("nan")
    (tmp_path / "m.pb").write_bytes(frozen_graph(model))
    with pytest.raises(CheckpointError, match=r"layers\.conv0\.norm\.running_var"):
        import_frozen(tmp_path / "m.pb")


def test_damage_anywhere_is_one_error(tmp_path):
    """Cut short, and with other bytes where names, lengths and shapes are."""
    whole, path, rng, outcomes = frozen_graph(make_classifier()), tmp_path / "m.pb", random.Random(0), set()
    heads = [at for at in range(len(whole)) if whole.startswith(b"MobilenetV1", at)]
    for number in range(120):
        damaged = bytearray(whole[: rng.randrange(len(whole))] if number % 4 == 0 else whole)
        for _ in range(rng.choice((1, 2, 8))):
            at = min(rng.choice(heads) + rng.randrange(-40, 90), len(damaged) - 1)
            damaged[at] = rng.choice((0, 1, 8, 127, 128, 255, rng.randrange(256)))
        path.write_bytes(damaged)
        try:
            import_weights(path)
            outcomes.add("read")
        except CheckpointError as error:
            outcomes.add("refused" if "\n" not in str(error) else "two lines")
    assert outcomes == {"read", "refused"}


def test_a_length_that_the_file_does_not_have_takes_no_memory(tmp_path):
    """A number where bytes belong, and a constant of a huge shape."""
    (tmp_path / "m.pb").write_bytes(b"\x0a\x0a\x08" + b"\xff" * 8 + b"\x7f")
    with pytest.raises(CheckpointError, match="damaged"):
        read_frozen_graph(tmp_path / "m.pb")
    whole = frozen_graph(make_classifier())
    at = whole.index(b"\x12\x02\x08\x08", whole.index(b"MobilenetV1/Conv2d_0/weights"))
    (tmp_path / "m.pb").write_bytes(whole[: at + 3] + b"\x7f" + whole[at + 4 :])
    with pytest.raises(CheckpointError, match="bytes of float32 for a constant"):
        import_frozen(tmp_path / "m.pb")


def test_googles_file_classifies_photos(real_weights, real_data):
    """Classes of ImageNet with background as 0: a refrigerator, a toilet seat, a ball player, a toilet seat."""
    if not (real_weights / REAL).is_file():
        pytest.skip(f"no {REAL}")
    network = import_frozen(real_weights / REAL).build_classifier()
    seen = {}
    for path in find_images([real_data / "coco-mini/val2017"])[:10]:
        image, _ = fit_image(read_image(path), ResizeRule((224, 224)))
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        with torch.no_grad():
            seen[path.stem.lstrip("0")] = network(pixels / 127.5 - 1)[0].topk(3).indices.tolist()
    assert {761, 652} <= set(seen["802"])  # refrigerator, microwave
    assert 862 in seen["6818"]  # toilet seat
    assert seen["10764"][0] == 982  # ballplayer


def test_opencv_agrees_about_googles_file(real_weights):
    if not (real_weights / REAL).is_file():
        pytest.skip(f"no {REAL}")
    cv2 = pytest.importorskip("cv2")
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, 224, 224)).astype(np.float32)
    net = cv2.dnn.readNetFromTensorflow(str(real_weights / REAL))
    net.setInput(x)
    theirs = net.forward("MobilenetV1/Logits/SpatialSqueeze").ravel()
    with torch.no_grad():
        ours = import_frozen(real_weights / REAL).build_classifier()(torch.from_numpy(x))[0].numpy()
    assert np.abs(ours - theirs).max() < 1e-3

"""TensorFlow's MobileNetV1 classifiers as our backbones: generated files, held against TensorFlow Lite."""

import numpy as np
import pytest
import torch
from tflite_builder import GraphBuilder
from tflite_networks import make_images
from tflite_writer import LiteRT, at_least, write_classifier

from mobiledet.errors import CheckpointError
from mobiledet.weights.imagenet import ImageNetBackbone
from mobiledet.weights.importing import describe_weights, import_weights
from mobiledet.weights.tflite.graph import read_tflite
from mobiledet.weights.tflite.mobilenet import find_classifier

KINDS = ("float32", "float16", "uint8", "int8")


def prepared(backbone, images):
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (backbone.mean, backbone.std))
    return (pixels - mean) / std


def features(backbone, images):
    with torch.no_grad():
        return backbone.build()(prepared(backbone, images))["conv13"].mean(dim=(2, 3)).numpy()


@pytest.mark.parametrize(
    ("kind", "mean", "std"),
    [("float32", 127.5, 127.5), ("float16", 127.5, 127.5), ("uint8", 128, 128), ("int8", 127, 127.5)],
)
def test_everything_is_derived(tmp_path, kind, mean, std):
    content = import_weights(write_classifier(tmp_path / "m.tflite", kind=kind).path)
    found = ImageNetBackbone.from_payload(content)
    config = found.config
    assert (config.alpha, config.min_channels, config.padding, found.input_size) == (0.25, 8, "tensorflow", (64, 96))
    assert (found.mean, found.std, found.folded) == ((mean,) * 3, pytest.approx((std,) * 3), True)
    assert (found.classifier["weight"].shape, found.classifier["bias"].shape) == ((11, 256), (11,))
    assert describe_weights(content) == "MobileNetV1 alpha 0.25, 64x96 pixels, classifier of 11 classes"
    assert content["kind"] == "backbone"


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_exactly_those_stored(tmp_path, kind):
    written = write_classifier(tmp_path / "m.tflite", kind=kind)
    found = ImageNetBackbone.from_payload(import_weights(written.path))
    for name, layer in written.layers.items():
        if name == "pool":
            continue
        order = (3, 0, 1, 2) if layer.kind == "depthwise" else (0, 3, 1, 2)
        weight, bias = layer.weight.transpose(order), layer.bias
        if name == "classifier":
            assert np.array_equal(found.classifier["weight"].numpy(), weight[:, :, 0, 0])
            assert np.array_equal(found.classifier["bias"].numpy(), bias)
        else:
            place = "layers." + name.replace("_", ".")
            assert np.array_equal(found.state[f"{place}.conv.weight"].numpy(), weight), name
            assert np.array_equal(found.state[f"{place}.norm.bias"].numpy(), bias), name


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
@pytest.mark.parametrize("size", [(64, 96), (97, 131)])
@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_tensorflow_lite_does(tmp_path, kind, size):
    """8-bit logits are off by 0.1 to 0.2 of their spread on average, rounded as they are in 28 layers."""
    written = write_classifier(tmp_path / "m.tflite", kind=kind, input_size=size)
    found = ImageNetBackbone.from_payload(import_weights(written.path))
    images = make_images(4, size, seed=5)
    litert, logits, scores = LiteRT(written.path), [], []
    for fed in written.feed(images):
        litert.run(fed)
        logits.append(litert.real("MobilenetV1/Logits/SpatialSqueeze")[0])
        scores.append(litert.outputs()[0][0])
    with torch.no_grad():
        ours = found.build_classifier()(prepared(found, images))
    if kind in ("float32", "float16"):
        assert np.abs(ours.numpy() - logits).max() < 1e-3
        assert np.abs(ours.softmax(1).numpy() - scores).max() < 1e-4
    else:
        assert np.abs(ours.numpy() - logits).mean() < 0.25 * np.std(logits)
        assert np.corrcoef(ours.numpy().ravel(), np.ravel(logits))[0, 1] > 0.97


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
@pytest.mark.parametrize("kind", KINDS)
def test_features_without_a_classifier(tmp_path, kind):
    written = write_classifier(tmp_path / "m.tflite", kind=kind, num_classes=None)
    content = import_weights(written.path)
    found = ImageNetBackbone.from_payload(content)
    assert found.classifier is None
    assert "features without a classifier" in describe_weights(content)
    with pytest.raises(CheckpointError, match="no classifier, only features"):
        found.build_classifier()
    images = make_images(1, (64, 96), seed=5)
    litert = LiteRT(written.path)
    litert.run(written.feed(images)[0])
    ours, theirs = features(found, images)[0], litert.outputs()[0].ravel()
    if kind in ("float32", "float16"):
        assert np.abs(ours - theirs).max() < 1e-3
    else:
        assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.99


@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_quantised_networks_with_float_images(tmp_path, kind):
    """QUANTIZE after the image only concerns storage; the image itself is -1..1."""
    written = write_classifier(tmp_path / "m.tflite", kind=kind, input_type="float32")
    found = ImageNetBackbone.from_payload(import_weights(written.path))
    assert (found.mean, found.std) == ((127.5,) * 3, (127.5,) * 3)
    plain = ImageNetBackbone.from_payload(import_weights(write_classifier(tmp_path / "p.tflite", kind=kind).path))
    assert all(torch.equal(tensor, plain.state[name]) for name, tensor in found.state.items())


def test_int8_networks_with_uint8_images(tmp_path):
    path = write_classifier(tmp_path / "m.tflite", kind="int8", input_type="uint8").path
    found = ImageNetBackbone.from_payload(import_weights(path))
    assert (found.mean, found.std) == ((127.0,) * 3, pytest.approx((127.5,) * 3))


def test_at_least_16_channels(tmp_path):
    layers = write_classifier(tmp_path / "m.tflite", change=at_least(16)).layers
    found = ImageNetBackbone.from_payload(import_weights(tmp_path / "m.tflite"))
    assert (found.config.alpha, found.config.min_channels) == (0.25, 16)
    assert found.state["layers.conv0.conv.weight"].shape == (16, 3, 3, 3)
    assert np.array_equal(found.state["layers.conv0.norm.bias"].numpy(), layers["conv0"].bias)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.75, 1.25])
def test_width(tmp_path, alpha):
    content = import_weights(write_classifier(tmp_path / "m.tflite", alpha=alpha, input_size=(33, 50)).path)
    assert ImageNetBackbone.from_payload(content).config.alpha == alpha


def test_a_backbone_cut_short(tmp_path):
    """Other backbones are refused as those of detectors are."""
    path = write_classifier(tmp_path / "m.tflite", change=lambda plan: plan[:-2]).path
    with pytest.raises(CheckpointError, match=r"at layers\.conv13\.depthwise .*but has AVERAGE_POOL_2D") as caught:
        import_weights(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def linear_graph(path, *, pooled=(1, 1, 1, 4), bias="stored", after="FULLY_CONNECTED"):
    """What follows a backbone: pooling, then a linear layer as Keras' converter writes it."""
    graph = GraphBuilder("MLIR Converted.")
    source = graph.tensor("features", (1, 2, 3, 4), "FLOAT32")
    mean = graph.tensor("mean", pooled, "FLOAT32")
    graph.op("MEAN", [source], [mean])
    weight = graph.tensor("weight", (2, 4), "FLOAT32", data=np.arange(8, dtype=np.float32).reshape(2, 4))
    inputs = [mean, weight]
    if bias == "stored":
        inputs.append(graph.tensor("bias", (2,), "FLOAT32", data=np.array([5, 7], np.float32)))
    elif bias == "too long":
        inputs.append(graph.tensor("bias", (3,), "FLOAT32", data=np.zeros(3, np.float32)))
    elif bias == "left out":
        inputs.append(-1)
    out = graph.tensor("logits", (1, 2), "FLOAT32")
    graph.op(after, inputs, [out])
    graph.tensor("last", (2,), "FLOAT32", data=np.array([8, 9], np.float32))
    path.write_bytes(graph.finish([source], [out]))
    return read_tflite(path)


@pytest.mark.parametrize(("bias", "wanted"), [("stored", [5, 7]), ("left out", [0, 0]), ("none", [0, 0])])
def test_a_fully_connected_classifier(tmp_path, bias, wanted):
    """Keras leaves out a bias of zeros; index -1 must not be read as the last tensor."""
    found = find_classifier(linear_graph(tmp_path / "m.tflite", bias=bias, pooled=(1, 4)), 0)
    assert found["weight"].tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert found["bias"].tolist() == wanted


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"pooled": (1, 1, 3, 4)}, "pooling leaves 1x3 places, not one"),
        ({"bias": "too long"}, "classifier's weights and biases don't fit"),
        ({"after": "TANH"}, "pooling is followed by TANH"),
    ],
)
def test_other_ends(tmp_path, changes, reason):
    with pytest.raises(CheckpointError, match=reason):
        find_classifier(linear_graph(tmp_path / "m.tflite", **changes), 0)


def test_the_end_is_not_pooling(tmp_path):
    graph = linear_graph(tmp_path / "m.tflite")
    with pytest.raises(CheckpointError, match="Conv13 isn't followed by pooling"):
        find_classifier(graph, graph.ops[1].inputs[0])

"""TensorFlow's SSD files as our detectors: generated files, held against their own numbers and TensorFlow Lite."""

from functools import cache

import numpy as np
import pytest
import torch
from tflite_networks import make_images
from tflite_writer import LiteRT, at_least, write_ssd

from mobiledet.config import config_from_plain
from mobiledet.models.build import build_detector
from mobiledet.weights.class_lists import coco_categories
from mobiledet.weights.importing import describe_weights, import_weights

KINDS = ("float32", "float16", "uint8", "int8")
RATIOS = pytest.approx((1, 2, 1 / 2, 3, 1 / 3))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """``detector(kind, size)``: the file as written, and what the importer makes of it; each made once."""
    folder = tmp_path_factory.mktemp("ssd")

    @cache
    def make(kind="float32", size=(96, 128)):
        written = write_ssd(folder / f"{kind}_{size[0]}x{size[1]}.tflite", kind=kind, input_size=size)
        return written, import_weights(written.path)

    return make


def model_of(content):
    return config_from_plain(content["config"]).model


def network(content):
    model = build_detector(model_of(content)).eval()
    model.load_state_dict(content["model"])
    return model


def predict(content, images):
    """Our logits ``(B, A, K)`` and offsets ``(B, A, 4)``."""
    model = network(content)
    with torch.no_grad():
        features = model.features(torch.from_numpy(images).permute(0, 3, 1, 2))
        logits, deltas, _ = model.head._predict(features, [model.network_size] * len(images))
    return logits.numpy(), deltas.numpy()


def our_anchors(content):
    """As a file stores them: centre y, centre x, height, width as fractions of the image."""
    model = network(content)
    height, width = model.network_size
    with torch.no_grad():
        _, _, boxes = model.head._predict(model.features(torch.zeros(1, 3, height, width)), [(height, width)])
    x1, y1, x2, y2 = boxes.double().numpy().T
    return np.stack([(y1 + y2) / 2 / height, (x1 + x2) / 2 / width, (y2 - y1) / height, (x2 - x1) / width], axis=1)


@pytest.mark.parametrize(
    ("kind", "mean", "std"),
    [("float32", 127.5, 127.5), ("float16", 127.5, 127.5), ("uint8", 128, 128), ("int8", 127, 127.5)],
)
def test_everything_is_derived(detector, kind, mean, std):
    _, content = detector(kind)
    model = model_of(content)
    backbone, head = model.backbone, model.head
    assert (backbone.alpha, backbone.min_channels, backbone.padding) == (0.25, 8, "tensorflow")
    assert (model.input_size, model.mean, model.std) == ((96, 128), (mean,) * 3, pytest.approx((std,) * 3))
    assert (head.kind, head.scores, head.scale_min, head.scale_max, head.reduce_lowest, head.aspect_ratios) == (
        "ssd",
        "sigmoid",
        0.2,
        0.95,
        True,
        RATIOS,
    )
    assert head.extra_channels == ((256, 512), (128, 256), (128, 256), (64, 128))
    assert content["categories"] == [{"id": k, "name": f"class_{k}"} for k in (1, 2, 3)]
    assert (model.num_classes, content["folded"], content["source"]["file"]) == (3, True, f"{kind}_96x128.tflite")
    assert describe_weights(content) == "SSD on MobileNetV1 alpha 0.25, 96x128 pixels, 3 classes"


def our_name(name):
    """``conv1_depthwise`` -> ``backbone.layers.conv1.depthwise``, ``extra0_1x1`` -> ``head.extra_layers.pairs.0.0``."""
    if name.startswith("conv"):
        return "backbone.layers." + name.replace("_", ".")
    number, part = name.removeprefix("extra").split("_")
    return f"head.extra_layers.pairs.{number}.{('1x1', '3x3').index(part)}"


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_exactly_those_stored(detector, kind):
    """Scales per tensor and per channel are undone without a rounding of our own."""
    written, content = detector(kind)
    state = content["model"]
    for name, layer in written.layers.items():
        order = (3, 0, 1, 2) if layer.kind == "depthwise" else (0, 3, 1, 2)
        weight, bias = layer.weight.transpose(order), layer.bias
        if "predictor" in name:
            part, index = ("bbox", name[-1]) if name.startswith("box") else ("cls", name[-1])
            # (dy, dx, dh, dw) becomes (dx, dy, dw, dh); the background's scores are left out.
            rows = [1, 0, 3, 2] if part == "bbox" else [1, 2, 3]
            keep = [anchor + row for anchor in range(0, len(bias), 4) for row in rows]
            prefix = f"head.{part}_predictors.{index}"
            assert np.array_equal(state[f"{prefix}.weight"].numpy(), weight[keep]), name
            assert np.array_equal(state[f"{prefix}.bias"].numpy(), bias[keep]), name
        else:
            assert np.array_equal(state[f"{our_name(name)}.conv.weight"].numpy(), weight), name
            assert np.array_equal(state[f"{our_name(name)}.norm.bias"].numpy(), bias), name


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
@pytest.mark.parametrize("size", [(96, 128), (97, 131), (131, 66)])
@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_it_computes_what_tensorflow_lite_does(detector, kind, size):
    written, content = detector(kind, size)
    images = make_images(1, size, seed=5)
    litert = LiteRT(written.path)
    litert.run(written.feed(images)[0])
    logits, deltas = predict(content, images)
    assert np.abs(logits - litert.real("concat_1")[..., 1:]).max() < 1e-3
    assert np.abs(deltas - litert.real("Squeeze")[..., [1, 0, 3, 2]]).max() < 1e-3


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
@pytest.mark.parametrize("size", [(96, 128), (97, 131)])
@pytest.mark.parametrize("kind", ["uint8", "int8"])
def test_it_is_near_what_tensorflow_lite_rounds(detector, kind, size):
    """We compute in float what TensorFlow Lite computes in 8 bits: off by 0.14 and 0.10 on average, of 1.9 and 1.0."""
    written, content = detector(kind, size)
    images = make_images(1, size, seed=5)
    litert = LiteRT(written.path)
    litert.run(written.feed(images)[0])
    logits, deltas = predict(content, images)
    pairs = [(logits, litert.real("concat_1")[..., 1:]), (deltas, litert.real("Squeeze")[..., [1, 0, 3, 2]])]
    for ours, theirs in pairs:
        assert np.abs(ours - theirs).mean() < 0.13 * theirs.std()
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.985


@pytest.mark.parametrize("kind", KINDS)
def test_it_computes_what_was_written(detector, kind):
    """The same without TensorFlow Lite: against torch on the stored numbers."""
    written, content = detector(kind, (97, 131))
    images = make_images(2, (97, 131), seed=5)
    boxes, scores = written.raw_outputs(images)
    logits, deltas = predict(content, images)
    # uint8 backbones end at 5.99976, where ours end at 6.
    limit = 0.03 if kind == "uint8" else 1e-3
    assert np.abs(logits - scores[..., 1:]).max() < limit
    assert np.abs(deltas - boxes[..., [1, 0, 3, 2]]).max() < limit


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
def test_its_detections_are_among_ours(detector):
    """TensorFlow Lite's own decoding: every box it gives is one of our candidates, in our classes and pixels."""
    written, content = detector("float32", (97, 131))
    image = make_images(1, (97, 131), seed=5)
    litert = LiteRT(written.path)
    litert.run(written.feed(image)[0])
    boxes, labels, scores, count = litert.outputs()
    with torch.no_grad():
        ours = network(content).candidates(torch.from_numpy(image).permute(0, 3, 1, 2))
    height, width = 97, 131
    assert int(count[0]) == 10
    for box, label, score in zip(boxes[0], labels[0], scores[0], strict=True):
        y1, x1, y2, x2 = np.clip(box, 0, 1)
        wanted = np.array([x1 * width, y1 * height, x2 * width, y2 * height])
        same = np.abs(ours.boxes[0].numpy() - wanted).max(axis=1) < 0.05
        assert same.any()
        assert np.abs(ours.scores[0, same, int(label)].numpy() - score).min() < 1e-4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(96, 128), (97, 131), (64, 64), (64, 256), (80, 160), (300, 200)])
def test_anchors_are_those_stored(detector, kind, size):
    """On 64x64 and 80x160 pixels their number would divide over the maps in another way, too."""
    written, content = detector(kind, size)
    step = {"uint8": written.anchors.max() / 255, "float16": 2**-9}.get(kind, 2e-6)
    assert np.abs(our_anchors(content) - written.anchors).max() <= 0.51 * step


@pytest.mark.parametrize("scale_max", [0.9, 0.875])
@pytest.mark.parametrize("kind", KINDS)
def test_other_scales(tmp_path, kind, scale_max):
    written = write_ssd(tmp_path / "m.tflite", kind=kind, anchor_scales=(0.2, scale_max))
    head = model_of(import_weights(written.path)).head
    # Three digits can't always be recovered from steps of 0.006.
    near = 0.006 if kind == "uint8" and scale_max == 0.875 else 1e-9
    assert (head.scale_min, head.scale_max) == pytest.approx((0.2, scale_max), abs=near)


def test_anchors_cut_off_at_the_largest_storable_number(tmp_path):
    """The longest anchors are 0.95 * sqrt(3) = 1.645 of a side; TensorFlow's own file cuts them off, too."""
    path = tmp_path / "m.tflite"
    write_ssd(path, kind="uint8", anchors_end=1.5)
    head = model_of(import_weights(path)).head
    assert (head.scale_min, head.scale_max, head.aspect_ratios) == (0.2, 0.95, RATIOS)


@pytest.mark.parametrize("kind", KINDS)
def test_smallest_anchors_that_do_not_follow_scale_min(tmp_path, kind):
    """The API's smallest anchor is 0.1 whatever ``scale_min`` is."""
    written = write_ssd(tmp_path / "m.tflite", kind=kind, anchor_scales=(0.3, 0.9))
    content = import_weights(written.path)
    head = model_of(content).head
    assert (head.scale_min, head.scale_max, head.reduce_lowest, head.lowest_scale) == (0.3, 0.9, True, 0.1)
    step = {"uint8": written.anchors.max() / 255, "float16": 2**-9}.get(kind, 2e-6)
    assert np.abs(our_anchors(content) - written.anchors).max() <= 0.51 * step


def test_smallest_anchors_of_half_scale_min(tmp_path):
    path = tmp_path / "m.tflite"

    def halved(anchors):
        anchors[: 6 * 8 * 3 : 3, 2:] *= 1.5
        return anchors

    write_ssd(path, change_anchors=halved, anchor_scales=(0.3, 0.9))
    head = model_of(import_weights(path)).head
    assert (head.scale_min, head.scale_max, head.lowest_scale) == (0.3, 0.9, None)


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
def test_at_least_16_channels(tmp_path):
    layers = write_ssd(tmp_path / "m.tflite", change=at_least(16)).layers
    content = import_weights(tmp_path / "m.tflite")
    backbone = model_of(content).backbone
    assert (backbone.alpha, backbone.min_channels) == (0.25, 16)
    assert content["model"]["backbone.layers.conv0.conv.weight"].shape == (16, 3, 3, 3)
    assert layers["conv1_depthwise"].weight.shape == (1, 3, 3, 16)
    images = make_images(1, (96, 128), seed=5)
    litert = LiteRT(tmp_path / "m.tflite")
    litert.run(((images.astype(np.float32) - 127.5) / 127.5)[0])
    assert np.abs(predict(content, images)[0] - litert.real("concat_1")[..., 1:]).max() < 1e-3


@pytest.mark.parametrize("alpha", [0.1, 0.35, 0.5, 0.75])
def test_width(tmp_path, alpha):
    backbone = model_of(
        import_weights(write_ssd(tmp_path / "m.tflite", alpha=alpha, input_size=(64, 80)).path)
    ).backbone
    assert (backbone.alpha, backbone.min_channels) == (alpha, 8)


COCO = coco_categories()


def test_90_outputs_are_those_of_coco(tmp_path):
    written = write_ssd(tmp_path / "m.tflite", num_classes=90, input_size=(64, 80))
    content = import_weights(written.path)
    assert content["categories"] == COCO
    assert (len(COCO), COCO[11], COCO[-1]) == (80, {"id": 13, "name": "stop sign"}, {"id": 90, "name": "toothbrush"})
    last = written.layers["class_predictor5"].bias.reshape(6, 91)
    ours = content["model"]["head.cls_predictors.5.bias"].numpy().reshape(6, 80)
    assert np.array_equal(ours, last[:, [category["id"] for category in COCO]])


@pytest.mark.parametrize("first", [(), ("background",), ("???",)])
@pytest.mark.parametrize("packed", [True, False])
def test_labels_with_and_without_background(tmp_path, first, packed):
    names = ("red car", "Bus", "tram")
    if packed:
        content = import_weights(write_ssd(tmp_path / "m.tflite", labels=first + names).path)
    else:
        (tmp_path / "labels.txt").write_text("\n".join(first + names) + "\n\n", encoding="utf-8-sig")
        path = write_ssd(tmp_path / "m.tflite", labels=("a", "b", "c")).path
        content = import_weights(path, labels=tmp_path / "labels.txt")
    assert [(c["id"], c["name"]) for c in content["categories"]] == [(1, "red car"), (2, "Bus"), (3, "tram")]


def test_scores_without_background(tmp_path):
    """Four columns for four classes: the first is a class."""
    written = write_ssd(tmp_path / "m.tflite", num_classes=3, stated_classes=4)
    content = import_weights(written.path)
    assert [category["id"] for category in content["categories"]] == [1, 2, 3, 4]
    rows = written.layers["class_predictor1"].bias
    assert np.array_equal(content["model"]["head.cls_predictors.1.bias"].numpy(), rows)


def test_outputs_without_a_class_are_left_out(tmp_path):
    written = write_ssd(tmp_path / "m.tflite", labels=("car", "???", "tram"))
    content = import_weights(written.path)
    assert content["categories"] == [{"id": 1, "name": "car"}, {"id": 3, "name": "tram"}]
    rows = written.layers["class_predictor1"].bias.reshape(6, 4)[:, [1, 3]].ravel()
    assert np.array_equal(content["model"]["head.cls_predictors.1.bias"].numpy(), rows)
    assert predict(content, make_images(1, (96, 128)))[0].shape[2] == 2


@pytest.mark.parametrize("lines", [80, 90, 91])
def test_coco_label_files_of_every_length(tmp_path, lines):
    by_id = {category["id"]: category["name"].upper() for category in COCO}
    names = list(by_id.values()) if lines == 80 else [by_id.get(k, "???") for k in range(91 - lines, 91)]
    (tmp_path / "labels.txt").write_text("\n".join(names))
    path = write_ssd(tmp_path / "m.tflite", num_classes=90, input_size=(64, 80)).path
    found = import_weights(path, labels=tmp_path / "labels.txt")["categories"]
    assert {category["id"]: category["name"] for category in found} == by_id

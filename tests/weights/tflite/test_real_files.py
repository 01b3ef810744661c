"""Real TensorFlow Lite files, held against TensorFlow Lite itself where it is installed."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mobiledet.config import config_from_plain
from mobiledet.data.coco import load_coco
from mobiledet.data.images import find_images, read_image
from mobiledet.evaluation.metrics import score_detections
from mobiledet.evaluation.predictions import predict_dataset
from mobiledet.models.build import build_detector
from mobiledet.preprocess import fit_image
from mobiledet.runtime.detector import Detector
from mobiledet.structures import ResizeRule
from mobiledet.weights.imagenet import import_classifier
from mobiledet.weights.importing import import_weights
from mobiledet.weights.tflite.contents import POSTPROCESS
from mobiledet.weights.tflite.graph import read_tflite
from mobiledet.weights.tflite.ssd import stored_anchors

SSD = "ssd_mobilenet_v1_0.75_300_coco_quant.tflite"


def interpreter(path: Path, **options: object):
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="LiteRT isn't installed")
    made = litert.Interpreter(str(path), **options)
    made.allocate_tensors()
    return made


def images(folder: Path, count: int, size: tuple[int, int]):
    return [fit_image(read_image(path), ResizeRule(size))[0] for path in find_images([folder])[:count]]


def pixels(image):
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def real(litert, index):
    values = litert.get_tensor(index).astype(np.float64)
    scale, zero = litert._get_tensor_details(index, 0)["quantization"]
    return (values - zero) * scale


def test_everything_is_derived_from_the_detector(real_weights):
    content = import_weights(real_weights / SSD)
    model = config_from_plain(content["config"]).model
    assert (model.backbone.alpha, model.backbone.padding, model.input_size) == (0.75, "tensorflow", (300, 300))
    assert (model.head.scale_min, model.head.scale_max, model.head.reduce_lowest) == (0.2, 0.95, True)
    assert model.head.aspect_ratios == pytest.approx((1, 2, 1 / 2, 3, 1 / 3))
    assert (model.mean, model.std) == ((128.0,) * 3, (128.0,) * 3)
    ids = {category["id"]: category["name"] for category in content["categories"]}
    assert len(ids) == 80
    assert (ids[1], ids[13], ids[90]) == ("person", "stop sign", "toothbrush")
    assert 12 not in ids


def test_its_anchors_are_ours(real_weights):
    """Stored in steps of 0.0065, so compared to half a step."""
    graph = read_tflite(real_weights / SSD)
    stored = stored_anchors(graph)
    model = build_detector(config_from_plain(import_weights(real_weights / SSD)["config"]).model)
    ours = model.head.anchors([(side, side) for side in (19, 10, 5, 3, 2, 1)], (300, 300)).numpy() / 300
    centre, size = (ours[:, :2] + ours[:, 2:]) / 2, ours[:, 2:] - ours[:, :2]
    step = float(graph.tensors[next(op for op in graph.ops if op.kind == POSTPROCESS).inputs[2]].scale[0])
    assert stored.shape == (1917, 4)
    mine = np.concatenate([centre[:, ::-1], size[:, ::-1]], axis=1)
    # What is larger than the largest storable number, 255 steps, was cut off there.
    assert np.abs(np.minimum(mine, 255 * step) - stored).max() <= step / 2 + 1e-4


@pytest.mark.filterwarnings("ignore:.*experimental_preserve_all_tensors")
def test_the_detector_computes_what_tensorflow_lite_does(real_weights, real_data):
    litert = interpreter(real_weights / SSD, experimental_preserve_all_tensors=True)
    graph = read_tflite(real_weights / SSD)
    end = next(op for op in graph.ops if op.kind == POSTPROCESS)
    content = import_weights(real_weights / SSD)
    model = build_detector(config_from_plain(content["config"]).model).eval()
    model.load_state_dict(content["model"])
    columns = [category["id"] for category in content["categories"]]
    pairs = {"logits": ([], []), "deltas": ([], [])}
    for image in images(real_data / "coco-mini/val2017", 6, (300, 300)):
        litert.set_tensor(litert.get_input_details()[0]["index"], image[None])
        litert.invoke()
        with torch.no_grad():
            logits, deltas, _ = model.head._predict(model.features(pixels(image)), [(300, 300)])
        pairs["logits"][0].append(logits[0].numpy())
        pairs["logits"][1].append(real(litert, graph.producer(end.inputs[1]).inputs[0])[0][:, columns])
        pairs["deltas"][0].append(deltas[0].numpy())
        pairs["deltas"][1].append(real(litert, end.inputs[0])[0][:, [1, 0, 3, 2]])
    for name, (mean, p99) in {"logits": (0.05, 0.25), "deltas": (0.06, 0.4)}.items():
        ours, theirs = (np.concatenate(side).ravel() for side in pairs[name])
        away = np.abs(ours - theirs)
        assert away.mean() < mean
        assert np.quantile(away, 0.99) < p99
        assert np.corrcoef(ours, theirs)[0, 1] > 0.995


def test_the_detector_by_name_scores_what_it_should(real_weights, real_data, monkeypatch):
    """The first 60 images alone score 0.226; another padding, colour order or class order is far below."""
    monkeypatch.setenv("MOBILEDET_WEIGHTS", str(real_weights))
    detector = Detector("ssd_mobilenet_v1_075_coco")
    dataset = load_coco(real_data / "coco-mini", "val").first(60)
    metrics = score_detections(
        dataset.coco_json(), predict_dataset(detector, detector.names, dataset, batch_size=16, workers=0)
    )
    assert metrics.AP is not None
    assert metrics.AP > 0.2


def test_the_classifier_computes_what_tensorflow_lite_does(real_weights, real_data):
    """Top-1 may differ where TensorFlow Lite's rounding of activations to 8 bits decides between near equals."""
    path = real_weights / "mobilenet_v1_0.5_160_quant.tflite"
    litert, backbone = interpreter(path), import_classifier(read_tflite(path))
    assert (backbone.config.alpha, backbone.input_size) == (0.5, (160, 160))
    network = backbone.build_classifier()
    agreed = 0
    for image in images(real_data / "coco-mini/val2017", 25, (160, 160)):
        litert.set_tensor(litert.get_input_details()[0]["index"], image[None])
        litert.invoke()
        theirs = real(litert, litert.get_output_details()[0]["index"])[0]
        with torch.no_grad():
            ours = network((pixels(image).float() - backbone.mean[0]) / backbone.std[0]).softmax(1)[0].numpy()
        assert np.abs(ours - theirs).max() < 0.1
        first, second = np.sort(theirs)[::-1][:2]
        assert ours.argmax() == theirs.argmax() or first - second < 0.05
        agreed += int(ours.argmax() == theirs.argmax())
    assert agreed >= 20


def test_the_features_are_those_of_tensorflow_lite(real_weights, real_data):
    path = real_weights / "mobilenet_v1_1.0_224_quant_features.tflite"
    litert, backbone = interpreter(path), import_classifier(read_tflite(path))
    assert (backbone.config.alpha, backbone.classifier) == (1.0, None)
    network, cosines = backbone.build(), []
    for image in images(real_data / "coco-mini/val2017", 12, (224, 224)):
        litert.set_tensor(litert.get_input_details()[0]["index"], image[None])
        litert.invoke()
        theirs = real(litert, litert.get_output_details()[0]["index"]).ravel()
        with torch.no_grad():
            features = network((pixels(image).float() - backbone.mean[0]) / backbone.std[0])["conv13"]
        ours = features.mean(dim=(2, 3))[0].double().numpy()
        cosines.append(float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)))
    assert np.mean(cosines) >= 0.999
    assert min(cosines) >= 0.998

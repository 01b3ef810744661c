"""What LiteRT computes from generated files, held against the network they were written from."""

import numpy as np
import pytest
from tflite_forward import make_pictures
from tflite_readback import KINDS, QUANTIZED, File, agree, run
from tflite_writer import write_classifier, write_ssd


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


SIZES = [(96, 128), (101, 67)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", KINDS)
def test_litert_computes_the_detector_that_was_written(tmp_path, kind, size):
    written = write_ssd(tmp_path / "m.tflite", kind=kind, input_size=size, postprocess=False)
    picture = make_pictures(1, size, seed=5)
    boxes, scores = run(written, picture)
    our_boxes, logits = written.raw_outputs(picture)
    agree(boxes, our_boxes, kind)
    agree(scores, sigmoid(logits), kind)
    assert our_boxes.shape[1:] == written.anchors.shape
    assert logits.shape[2] == written.num_classes + 1
    # It sees its picture: on another one, the results are others.
    other, _ = written.raw_outputs(make_pictures(1, size, seed=6))
    assert np.corrcoef(other.ravel(), our_boxes.ravel())[0, 1] < 0.7


@pytest.mark.parametrize("size", [(64, 96), (65, 33)])
@pytest.mark.parametrize("classes", [11, None])
@pytest.mark.parametrize("kind", KINDS)
def test_litert_computes_the_classifier_that_was_written(tmp_path, kind, classes, size):
    written = write_classifier(tmp_path / "m.tflite", kind=kind, num_classes=classes, input_size=size)
    pictures = make_pictures(4, size, seed=5)
    found = np.concatenate([run(written, pictures[k : k + 1])[0] for k in range(4)])
    ours = written.raw_outputs(pictures)
    if classes is None:
        assert found.shape == (4, 1, 1, 256)
        agree(found.reshape(4, -1), ours, kind)
        return
    assert found.sum(axis=1) == pytest.approx(1, abs=0.03)
    probabilities = np.exp(ours) / np.exp(ours).sum(axis=1, keepdims=True)
    if kind in QUANTIZED:
        # The rounding of 28 layers, enlarged by the last: near, class by class, not equal.
        assert np.corrcoef(probabilities.ravel(), found.ravel())[0, 1] > 0.9
    else:
        assert np.abs(probabilities - found).max() < 1e-3


@pytest.mark.parametrize("scales", [(10, 10, 5, 5), (8, 10, 5, 4)])
@pytest.mark.parametrize("kind", KINDS)
def test_litert_decodes_the_best_box_from_our_anchors(tmp_path, kind, scales):
    raw = write_ssd(tmp_path / "raw.tflite", kind=kind, postprocess=False)
    whole = write_ssd(tmp_path / "whole.tflite", kind=kind, box_scales=scales)
    picture = make_pictures(1, raw.input_size, seed=5)
    (deltas,), (scores,) = run(raw, picture)
    boxes, labels, best, count = run(whole, picture)
    assert (boxes.shape, count) == ((1, 10, 4), 10)
    top = scores[:, 1:].max()
    assert best[0, 0] == pytest.approx(top, abs=1e-4)
    # Several may have the same best score where scores come in steps.
    places, columns = np.nonzero(scores[:, 1:] > top - 1e-6)
    anchors = whole.anchors[places].astype(np.float64)
    y, x, h, w = (deltas[places] / scales).T
    cy, cx = y * anchors[:, 2] + anchors[:, 0], x * anchors[:, 3] + anchors[:, 1]
    h, w = np.exp(h) * anchors[:, 2], np.exp(w) * anchors[:, 3]
    decoded = np.stack([cy - h / 2, cx - w / 2, cy + h / 2, cx + w / 2], axis=1)
    away = np.abs(decoded - boxes[0, 0]).max(axis=1)
    assert away.min() < 1e-3
    assert labels[0, 0] == columns[away.argmin()]


@pytest.mark.parametrize(("kind", "given"), [("uint8", "float32"), ("int8", "float32"), ("int8", "uint8")])
def test_quantised_files_can_take_other_pictures(tmp_path, kind, given):
    written = write_ssd(tmp_path / "m.tflite", kind=kind, input_type=given, postprocess=False)
    assert File(written.path).kinds[0] == "QUANTIZE"
    assert written.input_type == given.upper()
    picture = make_pictures(1, written.input_size, seed=5)
    agree(run(written, picture)[0], written.raw_outputs(picture)[0], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_activations_neither_die_nor_saturate(tmp_path, kind):
    for seed in (0, 1):
        written = write_ssd(tmp_path / f"{seed}.tflite", kind=kind, seed=seed)
        found = written.activations(make_pictures(3, written.input_size, seed=11))
        for name, values in found.items():
            if "predictor" in name:
                assert 0.5 < values.std() < 4, name
            else:
                assert 0.02 < (values == 0).mean() < 0.6, name
                assert (values > 5.999).mean() < 0.15, name
                assert (values.reshape(-1, values.shape[-1]).std(axis=0) > 0.01).mean() > 0.7, name
                # A ReLU without the 6 would be noticed.
                assert name.startswith("extra") or (values > 5.999).mean() > 0.0002, name


def test_the_same_seed_is_the_same_network_in_every_kind(tmp_path):
    one, *others = [write_ssd(tmp_path / f"{kind}.tflite", kind=kind) for kind in KINDS]
    again = write_ssd(tmp_path / "again.tflite")
    assert again.path.read_bytes() == one.path.read_bytes()
    assert write_ssd(tmp_path / "b.tflite", seed=1).path.read_bytes() != one.path.read_bytes()
    for other in others:
        for name, layer in one.layers.items():
            step = np.ptp(layer.weight) / 255
            assert np.abs(other.layers[name].weight - layer.weight).max() <= step, (other.kind, name)

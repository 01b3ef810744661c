import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_detectors import SIZE, make_images, tiny_detector

from mobiledet.errors import ModelFileError
from mobiledet.exporters.int8 import (
    PIXELS,
    constants,
    last_layers_as_products,
    layer_names,
    pixels_as_they_are,
    quantise,
)
from mobiledet.exporters.onnx import trace_onnx
from mobiledet.models.quantization import measure_ranges

BATCHES = [image[None] for image in make_images(12)]


@pytest.fixture(scope="module")
def graph():
    return trace_onnx(tiny_detector("sigmoid", vote_iou=0.5)[0], size=SIZE)


def run(model, image):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    thresholds = {"score_threshold": np.array(0.01, np.float32), "iou_threshold": np.array(0.6, np.float32)}
    return session.run(None, {"images": image, **thresholds})


def kinds(model):
    return [node.op_type for node in model.graph.node]


def test_last_layers_become_products_and_give_the_same(graph):
    changed = last_layers_as_products(graph)
    # Six of twelve: on maps of one cell nothing has to be turned.
    assert kinds(changed).count("MatMul") == 6
    assert kinds(changed).count("Conv") == kinds(graph).count("Conv") - 6
    for ours, theirs in zip(run(changed, BATCHES[0]), run(graph, BATCHES[0]), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_predictors_that_share_their_bias_have_it_once(graph):
    """Fresh ones do; ONNX Runtime warned of every further copy."""
    changed = last_layers_as_products(graph)
    shared = [node.input[1] for node in changed.graph.node if node.op_type == "Add" and ".4d" in node.input[1]]
    assert len(shared) > len(set(shared)), "the model at hand shares none"
    names = [constant.name for constant in changed.graph.initializer]
    assert len(names) == len(set(names))


def test_pixels_need_no_normalisation(graph):
    changed = pixels_as_they_are(graph)
    assert not {"Mul", "Sub"} & set(kinds(changed)[:4])
    # The default mean is 127.5: half a step goes into the bias, and only the outermost pixels notice.
    np.testing.assert_allclose(run(changed, BATCHES[0])[1], run(graph, BATCHES[0])[1], atol=0.02)


def test_a_whole_mean_is_exact():
    model, _ = tiny_detector("sigmoid")
    model.mean.fill_(128.0)
    model.inverse_std.fill_(1 / 128)
    graph = trace_onnx(model, size=SIZE)
    np.testing.assert_allclose(run(pixels_as_they_are(graph), BATCHES[0])[1], run(graph, BATCHES[0])[1], atol=1e-5)


def test_colours_with_means_of_their_own_are_left_alone():
    model, _ = tiny_detector("sigmoid")
    model.mean[0, 1] = 100.0
    graph = trace_onnx(model, size=SIZE)
    assert pixels_as_they_are(graph) is graph
    assert np.isfinite(run(quantise(graph, BATCHES), BATCHES[0])[1]).all()


@pytest.mark.parametrize("method", ["minmax", "percentile"])
def test_quantised_finds_almost_the_same(graph, method):
    quantised = quantise(graph, BATCHES, method=method)
    onnx.checker.check_model(quantised)
    assert len(quantised.SerializeToString()) < 0.5 * len(graph.SerializeToString())
    exact, rounded = run(graph, BATCHES[3])[1], run(quantised, BATCHES[3])[1]
    error = np.abs(exact - rounded).mean()
    assert 0 < error < 0.15 * exact.mean()


def test_every_layer_is_rounded_and_pixels_only_once(graph):
    quantised = quantise(graph, BATCHES)
    makers = {output: node for node in quantised.graph.node for output in node.output}
    layers = [node for node in quantised.graph.node if node.op_type in ("Conv", "MatMul")]
    assert len(layers) == len(layer_names(graph))
    assert all(makers[name].op_type == "DequantizeLinear" for node in layers for name in node.input[:2])
    assert all(node.input[0] != PIXELS for node in quantised.graph.node if node.op_type == "QuantizeLinear")
    first = next(node for node in layers if node.op_type == "Conv")
    assert first.input[0] == PIXELS
    # Products keep float results.
    assert not any(
        name.endswith("_product")
        for node in quantised.graph.node
        if node.op_type == "QuantizeLinear"
        for name in node.input
    )


def test_layers_can_be_kept_in_float(graph):
    layers = layer_names(graph)
    kept = quantise(graph, BATCHES, keep_float=layers[:2])
    makers = {output: node for node in kept.graph.node for output in node.output}
    convolutions = [node for node in kept.graph.node if node.op_type == "Conv"]
    assert [node.input[1] in makers for node in convolutions[:4]] == [False, False, True, True]
    everything = quantise(graph, BATCHES, keep_float=layers)
    np.testing.assert_allclose(run(everything, BATCHES[0])[1], run(graph, BATCHES[0])[1], atol=0.02)


def test_mistakes(graph):
    with pytest.raises(ModelFileError, match="needs images"):
        quantise(graph, [])
    with pytest.raises(ModelFileError, match=r"no layer 'conv99' to keep in float; there are backbone\.layers\.conv0"):
        quantise(graph, BATCHES, keep_float=["conv99"])


def test_faster_rcnn():
    graph = trace_onnx(tiny_detector("faster_rcnn")[0], size=SIZE)
    quantised = quantise(graph, BATCHES)
    scores = run(quantised, BATCHES[0])[1]
    assert np.isfinite(scores).all()
    assert (scores > 0).any()


@pytest.mark.parametrize("head", ["sigmoid", "fine", "fpn"])
def test_known_ranges_give_the_file_that_measuring_them_gives(head):
    model, _ = tiny_detector(head)
    graph = trace_onnx(model, size=SIZE)
    ranges = measure_ranges(model, [torch.from_numpy(b).permute(0, 3, 1, 2) for b in BATCHES])
    known, measured = quantise(graph, (), ranges=ranges), quantise(graph, BATCHES)
    assert kinds(known) == kinds(measured)
    steps = [step_sizes(model) for model in (known, measured)]
    assert steps[0].keys() == steps[1].keys()
    assert len(steps[0]) > 40
    sums = [name for node in graph.graph.node if node.op_type == "Resize" for name in readers(graph, node.output[0])]
    assert len(sums) == {"sigmoid": 0, "fine": 1, "fpn": 2}[head]
    assert all(name in steps[0] for name in sums)
    for name, (scale, zero) in steps[0].items():
        np.testing.assert_allclose(scale, steps[1][name][0], rtol=0.01)
        assert abs(int(zero) - int(steps[1][name][1])) <= 1


def test_decoding_is_not_rounded(graph):
    layers = {output for node in graph.graph.node if node.op_type == "Conv" for output in node.output}
    decoding = {n.output[0] for n in graph.graph.node if n.op_type == "Clip" and n.input[0] not in layers}
    assert decoding
    assert not decoding & step_sizes(quantise(graph, BATCHES)).keys()


def step_sizes(model):
    """Of every tensor that is made int8: scale and zero point."""
    values = constants(model)
    steps = [node.input for node in model.graph.node if node.op_type == "QuantizeLinear"]
    return {name: (values[scale], values[zero]) for name, scale, zero in steps}


def readers(model, name):
    """What the nodes that read a tensor give."""
    return [node.output[0] for node in model.graph.node if name in node.input]

"""The paper's figures come out of the graph (Howard et al. 2017, tables 6, 7, 8 and 13)."""

import pytest

from mobiledet.config import BackboneConfig, ModelConfig, SSDConfig
from mobiledet.cost import classifier_cost, detector_cost
from mobiledet.models.build import build_detector


@pytest.mark.parametrize(
    ("alpha", "size", "million_mult_adds"),
    [
        (1.0, 224, 569), (0.75, 224, 325), (0.5, 224, 149), (0.25, 224, 41),
        (1.0, 192, 418), (1.0, 160, 290), (1.0, 128, 186),
    ],
)  # fmt: skip
def test_classifier_mult_adds(alpha, size, million_mult_adds):
    assert classifier_cost(alpha, size).gmacs * 1e3 == pytest.approx(million_mult_adds, rel=0.01)


@pytest.mark.parametrize(("alpha", "million"), [(1.0, 4.2), (0.75, 2.6), (0.5, 1.3), (0.25, 0.5)])
def test_classifier_parameters_round_to_the_papers(alpha, million):
    assert round(classifier_cost(alpha, 224).params_m, 1) == million


@pytest.mark.parametrize("scores", ["sigmoid", "softmax"])
def test_ssd300_with_90_classes(scores):
    model = build_detector(ModelConfig(num_classes=90, head=SSDConfig(scores=scores)))
    cost = detector_cost(model)
    assert cost.gmacs == pytest.approx(1.237, rel=0.01)
    assert cost.params_m == pytest.approx(6.82, rel=0.01)
    assert cost.params_m * 1e6 == sum(p.numel() for p in model.parameters()), "every parameter belongs to a layer"


def test_depthwise_separable_costs_the_papers_share_of_a_standard_convolution():
    layers = {layer.name: layer for layer in classifier_cost(1.0, 224).layers}
    depthwise, pointwise = (
        layers["backbone.layers.conv7.depthwise.conv"],
        layers["backbone.layers.conv7.pointwise.conv"],
    )
    standard = 3 * 3 * 512 * 512 * 14 * 14
    assert (depthwise.mult_adds + pointwise.mult_adds) / standard == pytest.approx(1 / 512 + 1 / 9)


def test_non_square_input_costs_by_area():
    tall = detector_cost(
        build_detector(ModelConfig(num_classes=3, input_size=(320, 160), backbone=BackboneConfig(alpha=0.25)))
    )
    wide = detector_cost(
        build_detector(ModelConfig(num_classes=3, input_size=(160, 320), backbone=BackboneConfig(alpha=0.25)))
    )
    assert tall.gmacs == wide.gmacs
    assert tall.layers[0].output == (8, 160, 80)

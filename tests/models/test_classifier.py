"""The classifier: one box around the image, taught by the classes of all boxes in it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mobiledet.config import BackboneConfig, ClassifierConfig, ModelConfig
from mobiledet.models.build import build_detector
from mobiledet.models.cost import classifier_cost, detector_cost

SIZE = (64, 96)


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = ModelConfig(backbone=BackboneConfig(alpha=0.25), head=ClassifierConfig(), input_size=SIZE, num_classes=3)
    return build_detector(config).eval()


def test_it_finds_one_box_around_each_image(model):
    with torch.no_grad():
        (found,) = model([torch.randint(0, 256, (3, 30, 50), dtype=torch.uint8)])
    assert sorted(found["labels"].tolist()) == [1, 2, 3]
    np.testing.assert_allclose(found["boxes"], [[0, 0, 50, 30]] * 3, rtol=1e-6)
    assert found["scores"].tolist() == sorted(found["scores"].tolist(), reverse=True)


def test_an_image_shows_the_classes_of_its_boxes_as_far_as_they_score(model):
    images = torch.randint(0, 256, (3, 3, *SIZE), dtype=torch.uint8)
    boxes = torch.tensor([[0.0, 0, 96, 64]] * 3)
    scores = torch.tensor([[0.9, 0.2, 0.0], [0.1, 0.7, 0.0], [1.0, 1.0, 1.0]])
    crowd = torch.tensor([False, False, True])
    several = {"boxes": boxes, "labels": torch.tensor([1, 2, 3]), "iscrowd": crowd}
    none = {"boxes": boxes[:0], "labels": torch.zeros(0, dtype=torch.int64)}
    with torch.no_grad():
        found = model.candidates(images).scores[:, 0]

    def loss(first, empty):
        with torch.no_grad():
            return model.losses(images, [first, empty, empty])["classification"].item()

    def expected(first):
        return F.binary_cross_entropy(found, torch.tensor([first, [0, 0, 0], [0, 0, 0]]), reduction="sum").item() / 3

    assert loss(several, none) == pytest.approx(expected([1.0, 1, 0]), rel=1e-4)
    taught = loss({**several, "scores": scores}, {**none, "scores": scores[:0]})
    assert taught == pytest.approx(expected([0.9, 0.7, 0]), rel=1e-4)


def test_it_costs_what_the_paper_counts():
    config = ModelConfig(head=ClassifierConfig(), input_size=(224, 224), num_classes=1000)
    paper = classifier_cost(1.0, 224)
    assert detector_cost(build_detector(config)).gmacs == pytest.approx(paper.gmacs)

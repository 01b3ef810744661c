"""A new head is one class of settings with its module, and one name in `HEADS`: a made-up one, end to end."""

import numpy as np
import pytest
import torch
from torch import nn

from mobiledet.apps.doctor.anchors import anchor_grids
from mobiledet.config import Config, ModelConfig, apply_overrides, config_from_plain
from mobiledet.errors import ConfigError
from mobiledet.models import model_config
from mobiledet.models.build import build_detector
from mobiledet.models.cost import detector_cost
from mobiledet.training.complete import follow_weights
from mobiledet.weights.transfer import InitialWeights, load_into


@pytest.fixture
def cells(monkeypatch, documented):
    """The settings of the example in docs/architecture.md."""
    settings = documented("cell_head.py")["CellConfig"]
    monkeypatch.setattr(model_config, "HEADS", (*model_config.HEADS, settings))
    return settings


def build(**head):
    torch.manual_seed(0)
    return build_detector(ModelConfig(head={"kind": "cells", **head}, num_classes=2, input_size=(64, 96)))


def test_it_is_chosen_by_its_kind_and_its_settings_are_checked(cells):
    config = apply_overrides(Config(), ["model.head.kind=cells", "model.head.box_weight=3"])
    assert config.model.head == cells(box_weight=3)
    assert config_from_plain(config.plain()) == config
    with pytest.raises(ConfigError, match=r"did you mean 'model\.head\.box_weight'"):
        apply_overrides(config, ["model.head.box_wait=3"])
    with pytest.raises(ConfigError, match=r"'classifier', 'cells', not 'cell'; did you mean 'cells'"):
        apply_overrides(config, ["model.head.kind=cell"])


def test_it_trains_and_detects(cells):
    model = build()
    image = torch.zeros(3, 64, 96, dtype=torch.uint8)
    image[:, 16:48, 32:64] = 255
    targets = [{"boxes": torch.tensor([[32.0, 16, 64, 48]]), "labels": torch.tensor([2])}]
    optimizer = torch.optim.Adam(model.parameters(), 0.003)
    losses = []
    for _ in range(30):
        loss = sum(model.train()([image], targets).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    (found,) = model.eval()([image])
    assert found["labels"][0] == 2
    assert torch.isfinite(found["boxes"]).all()


def test_its_cost_is_counted_and_its_weights_start_another(cells):
    model = build()
    assert any(layer.name.startswith("head.") for layer in detector_cost(model).layers)
    config = ModelConfig(head=cells(), num_classes=2)
    old = InitialWeights("old", config, model.state_dict(), ("cat", "dog"), folded=False)
    assert follow_weights(ModelConfig(head=cells(box_weight=5)), old).head.box_weight == 5
    new = build()
    transfer = load_into(new, old, ["dog", "cow"])
    assert transfer.carried == ("dog",)
    assert torch.equal(new.head.scores.weight[0], model.head.scores.weight[1])
    assert "head" in dict(transfer.rows)


def test_what_it_cannot_do_is_refused(cells):
    assert anchor_grids(cells(), (64, 96)) == []
    with pytest.raises(ConfigError, match="shorter_side"):
        apply_overrides(Config(), ["model.head.kind=cells", "model.resize=shorter_side"])


def test_it_is_exported(cells, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    from mobiledet.data.shapes import CATEGORIES
    from mobiledet.exporters.base import ExportOptions
    from mobiledet.exporters.exporting import export_model
    from mobiledet.runtime.detector import Detector
    from mobiledet.weights.checkpoint import save_checkpoint

    model = build()
    nn.init.normal_(model.head.scores.weight, std=0.15)  # untrained scores are all alike, and come in any order
    nn.init.normal_(model.head.boxes.weight, std=0.01)  # else boxes lie outside, and clipped to nothing match nothing
    for norm in (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)):
        norm.momentum = 1.0  # norms that know their input let the image through
    with torch.no_grad():
        model.train().candidates(torch.randint(0, 256, (4, 3, 64, 96), dtype=torch.uint8))
    config = Config(model=ModelConfig(head=cells(), num_classes=2, input_size=(64, 96)))
    categories = [{"id": number, "name": name} for number, name in enumerate(list(CATEGORIES)[:2], 1)]
    content = {"config": config.plain(), "categories": categories, "model": model.state_dict(), "ema": None}
    save_checkpoint(tmp_path / "cells.pt", content)
    export_model(tmp_path / "cells.pt", tmp_path / "cells.onnx", ExportOptions())
    image = np.random.default_rng(0).integers(0, 256, (70, 90, 3), np.uint8)
    assert Detector(tmp_path / "cells.onnx")(image).boxes.shape[1] == 4

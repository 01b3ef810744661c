"""The paper's figures come out of the graph (Howard et al. 2017, arXiv 1704.04861)."""

import json

import pytest
from programs import mobiledet_in_process

from mobiledet.apps.cost.paper import PAPER_TABLES, paper_costs, paper_text
from mobiledet.apps.cost.tables import (
    layer_rows,
    layer_table,
    plot_costs,
    separable_ratios,
    shares_by_kind,
    stage_table,
    stages,
)
from mobiledet.config import BackboneConfig, FasterRCNNConfig, FPNConfig, ModelConfig, SSDConfig
from mobiledet.errors import ImageError
from mobiledet.models.build import build_detector
from mobiledet.models.cost import classifier_cost, detector_cost


@pytest.mark.parametrize(
    ("head", "gmacs", "params_m"),
    [(SSDConfig(), 1.237, 6.82), (SSDConfig(scores="softmax"), 1.237, 6.82), (FasterRCNNConfig(), 25.22, 6.07)],
)
def test_detectors_with_90_classes(head, gmacs, params_m):
    model = build_detector(ModelConfig(num_classes=90, head=head))
    cost = detector_cost(model)
    assert cost.gmacs == pytest.approx(gmacs, rel=0.001)
    assert cost.params_m == pytest.approx(params_m, rel=0.003)
    assert cost.params_m * 1e6 == sum(p.numel() for p in model.parameters()), "every parameter belongs to a layer"


def test_non_square_input_costs_by_area():
    small = ModelConfig(num_classes=3, backbone=BackboneConfig(alpha=0.25))
    tall, wide = (
        detector_cost(build_detector(small.model_copy(update={"input_size": size})))
        for size in ((320, 160), (160, 320))
    )
    assert tall.gmacs == wide.gmacs
    assert tall.layers[0].output == (8, 160, 80)


@pytest.mark.parametrize("head", [SSDConfig(), FPNConfig(), FasterRCNNConfig()])
def test_counting_computes_nothing_unless_a_network_looks_at_its_values(head):
    model = build_detector(ModelConfig(num_classes=2, backbone=BackboneConfig(alpha=0.25), head=head))
    devices = []
    model.backbone.register_forward_pre_hook(lambda _, given: devices.append(given[0].device.type))
    cost = detector_cost(model)
    assert devices == ["meta"]
    assert {parameter.device.type for parameter in model.parameters()} == {"cpu"}
    model.backbone.register_forward_pre_hook(lambda _, given: given[0].sum().item() and None)
    assert detector_cost(model) == cost
    assert devices[-1] == "cpu"


@pytest.fixture(scope="module")
def faster_rcnn():
    return detector_cost(build_detector(ModelConfig(num_classes=90, head=FasterRCNNConfig())))


def test_the_second_stage_runs_once_per_proposal(faster_rcnn):
    by_name = {layer.name: layer for layer in faster_rcnn.layers}
    pointwise = by_name["head.second_stage.layers.conv12.pointwise.conv"]
    assert (pointwise.runs, pointwise.output) == (300, (1024, 7, 7))
    assert pointwise.mult_adds == 300 * 49 * 512 * 1024
    assert by_name["backbone.layers.conv11.pointwise.conv"].runs == 1
    judged = [stage for stage in stages(faster_rcnn) if stage.runs == 300]
    assert [stage.name for stage in judged] == ["conv12", "conv13", "predictors"]


def test_every_cell_of_the_papers_tables():
    rows = {(row["table"].split(":")[0], row["name"]): row for row in paper_costs()}
    assert len(rows) == sum(map(len, PAPER_TABLES.values()))
    # Ours against the paper: what its own networks cost, to the digits it prints.
    loose = {
        ("Table 9", "Squeezenet"): (0.48, 0.988),  # counted twice by the paper
        ("Table 8", "GoogleNet"): (0.966, 0.974),
        ("Table 8", "VGG 16"): (1.011, 1.003),
        ("Table 9", "AlexNet"): (0.992, 1.018),
        ("Table 10", "Inception V3"): (1.142, 0.949),
        ("Table 13", "SSD 300 deeplab-VGG"): (0.999, 1.074),
        ("Table 13", "SSD 300 MobileNet"): (1.031, 1.003),  # 1.237, printed as 1.2
        ("Table 3", "rho 0.714"): (1.001, 1.009),
        ("Table 6", "0.25 MobileNet-224"): (1.0, 0.94),  # 0.47, printed as 0.5
    }
    for key, row in rows.items():
        if row["mult_adds_m"]["ours"] is None:
            assert row["note"]
            continue
        mult_adds, params = loose.get(key, (1.0, 1.0))
        assert row["mult_adds_m"]["ratio"] == pytest.approx(mult_adds, abs=0.011), key
        assert row["params_m"]["ratio"] == pytest.approx(params, abs=0.025), key


def test_rows_that_cannot_be_derived_say_why():
    missing = [row["name"] for row in paper_costs() if row["mult_adds_m"]["ours"] is None]
    assert sorted(name.split(" ")[0] for name in missing) == ["Faster-RCNN", "Faster-RCNN", "PlaNet", "PlaNet", "SSD"]
    assert "not derived: torchvision has no Inception V2" in paper_text()


def test_shares_of_table_2():
    shares = shares_by_kind(classifier_cost(1.0, 224))
    assert shares["conv 1x1"] == pytest.approx((0.9486, 0.7459), abs=0.002)
    assert shares["linear"][1] == pytest.approx(0.2433, abs=0.0015)
    assert sum(share for share, _ in shares.values()) == pytest.approx(1)


def test_every_separable_layer_costs_the_papers_share():
    cost = classifier_cost(0.5, 128)
    layers = {layer.name: layer for layer in cost.layers}
    ratios = separable_ratios(cost)
    assert len(ratios) == 13
    for name, ratio in ratios.items():
        assert ratio == pytest.approx(1 / layers[name].output[0] + 1 / 9)


def test_tables_add_up(faster_rcnn):
    cost = faster_rcnn
    assert sum(stage.mult_adds for stage in stages(cost)) == sum(layer.mult_adds for layer in cost.layers)
    assert sum(stage.params for stage in stages(cost)) == sum(layer.params for layer in cost.layers)
    rows = layer_rows({"a, b": cost})
    assert [row["network"] for row in rows] == ["a, b"] * len(cost.layers)
    assert sum(row["mult_adds"] for row in rows) == sum(layer.mult_adds for layer in cost.layers)
    assert len(layer_table(cost).splitlines()) == 1 + len(cost.layers)
    assert ["conv13", "300"] in [line.split()[:2] for line in stage_table(cost).splitlines()]


def test_the_chart_is_an_image(faster_rcnn, tmp_path):
    plot_costs({"costs $5": faster_rcnn, "small": classifier_cost(0.25, 128)}, tmp_path / "costs.png")
    assert (tmp_path / "costs.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ImageError, match=r"name it \.png"):
        plot_costs({"a": faster_rcnn}, tmp_path / "costs.xyz")


def test_the_tool(monkeypatch, checkout, tmp_path):
    monkeypatch.chdir(checkout)
    files = [tmp_path / name for name in ("c.json", "c.csv", "c.png")]
    config = "configs/ssd_mobilenet_a025.py"
    words = [config, "--classes", 90, "-v", "--json", files[0], "--csv", files[1], "--chart", files[2]]
    done = mobiledet_in_process("cost", *words)
    assert done.status == 0, done.stderr
    assert json.loads(files[0].read_text())[config]["gmacs"] > 0
    assert files[1].read_text().startswith("network,input,stage,layer,kind,output,runs,mult_adds,params")
    assert files[2].stat().st_size > 1000
    assert mobiledet_in_process("cost", "--csv", "x.csv", "--paper").status == 2
    assert mobiledet_in_process("cost", config, "--json", files[0]).status == 1, "nothing is overwritten"

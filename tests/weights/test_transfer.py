import pytest
import torch

from mobiledet.config import (
    BackboneConfig,
    Config,
    FasterRCNNConfig,
    ModelConfig,
    SSDConfig,
    SSDLiteConfig,
    apply_overrides,
)
from mobiledet.errors import CheckpointError, ConfigError, MobiledetError
from mobiledet.models.build import build_detector
from mobiledet.models.mobilenet_v1 import MobileNetV1
from mobiledet.runtime.pytorch import open_checkpoint
from mobiledet.training.complete import follow_weights
from mobiledet.weights.checkpoint import load_checkpoint, save_checkpoint
from mobiledet.weights.imagenet import ImageNetBackbone
from mobiledet.weights.transfer import InitialWeights, check_content, load_into, normalized, read_initial_weights

OLD = ModelConfig(
    backbone=BackboneConfig(alpha=0.25, padding="tensorflow", norm_epsilon=1e-5),
    head=SSDConfig(scale_min=0.15),
    input_size=(64, 96),
    mean=(128.0,) * 3,
    std=(64.0,) * 3,
    num_classes=3,
)


def weights(config=OLD, names=("person", "Hot Dog", "cat"), seed=1, **changes):
    torch.manual_seed(seed)
    state = {
        name: torch.randn_like(value) if value.is_floating_point() else value
        for name, value in build_detector(config).state_dict().items()
    }
    return InitialWeights(
        **{"name": "old", "config": config, "state": state, "names": names, "folded": False, **changes}
    )


def built(config):
    torch.manual_seed(2)
    return build_detector(config)


def rows(model, index, outputs):
    """Rows of a map's class predictor: (anchors, outputs, channels), and its biases."""
    layer = model.head.cls_predictors[index]
    return layer.weight.reshape(-1, outputs, layer.in_channels), layer.bias.reshape(-1, outputs)


def test_what_the_recipe_leaves_open_comes_from_the_weights():
    model = follow_weights(ModelConfig(), weights())
    assert model.backbone.alpha == 0.25
    assert model.backbone.padding == "tensorflow"
    assert model.backbone.norm_epsilon == 1e-5
    assert (model.mean, model.std, model.input_size, model.head.scale_min) == (OLD.mean, OLD.std, (64, 96), 0.15)


def test_what_any_weights_can_do_is_the_recipes_choice():
    recipe = Config(model=ModelConfig(input_size=(128, 160), head=SSDConfig(scale_min=0.1, match_iou=0.4)))
    model = follow_weights(recipe.model, weights())
    assert (model.input_size, model.head.scale_min, model.head.match_iou) == ((128, 160), 0.1, 0.4)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        (ModelConfig(backbone=BackboneConfig(alpha=0.5)), "model.backbone.alpha is 0.5, but old has 0.25"),
        (ModelConfig(std=(1.0,) * 3), r"model.std is \(1.0, 1.0, 1.0\), but old has \(64.0"),
        (ModelConfig(head=SSDConfig(scores="softmax")), "model.head.scores is softmax, but old has sigmoid"),
    ],
)
def test_a_contradiction_is_refused(model, words):
    with pytest.raises(ConfigError, match=words):
        follow_weights(model, weights())


@pytest.mark.parametrize("overrides", [["model.input_size=300,300"], ["model.head.scale_min=0.2"]])
def test_an_explicit_setting_counts_even_where_it_equals_its_default(overrides):
    model = apply_overrides(Config(), overrides).model
    followed = follow_weights(model, weights())
    assert (followed.input_size == (300, 300)) is ("input_size" in overrides[0])
    assert (followed.head.scale_min == 0.2) is ("scale_min" in overrides[0])


@pytest.mark.parametrize("override", ["model.backbone.alpha=1.0", "model.mean=127.5,127.5,127.5"])
def test_an_explicit_default_that_contradicts_the_weights_is_refused(override):
    with pytest.raises(ConfigError, match=override.partition("=")[0]):
        follow_weights(apply_overrides(Config(), [override]).model, weights())


def test_classes_keep_their_rows_by_name_and_the_others_start_from_the_mean_of_all():
    source = weights()
    config = follow_weights(ModelConfig(), source).model_copy(update={"num_classes": 4})
    fresh, model = built(config), built(config)
    transfer = load_into(model, source, ["lamp", "hot-dog", "PERSON", "tree"])
    assert transfer.carried == ("hot-dog", "PERSON")
    assert transfer.averaged == ("lamp", "tree")
    for index, anchors in enumerate((3, 6, 6, 6, 6, 6)):
        old = source.state[f"head.cls_predictors.{index}.weight"].reshape(anchors, 3, -1)
        old_bias = source.state[f"head.cls_predictors.{index}.bias"].reshape(anchors, 3)
        new, new_bias = rows(model, index, 4)
        start, _ = rows(fresh, index, 4)
        assert torch.equal(new[:, 1], old[:, 1])
        assert torch.equal(new[:, 2], old[:, 0])
        assert torch.equal(new_bias[:, [1, 2]], old_bias[:, [1, 0]])
        own = start - start.mean(dim=1, keepdim=True)
        torch.testing.assert_close(new[:, [0, 3]], old.mean(dim=1, keepdim=True) + own[:, [0, 3]])
        assert not torch.equal(new[:, 0], new[:, 3])
        torch.testing.assert_close(new_bias[:, [0, 3]], old_bias.mean(dim=1, keepdim=True).expand(-1, 2))
    for name, value in model.state_dict().items():
        if "cls_predictors" not in name:
            assert torch.equal(value, source.state[name]), name


def test_softmax_keeps_the_row_of_background():
    old = OLD.model_copy(update={"head": SSDConfig(scores="softmax")})
    source = weights(old)
    config = follow_weights(ModelConfig(), source).model_copy(update={"num_classes": 2})
    model = built(config)
    load_into(model, source, ["cat", "lamp"])
    before = source.state["head.cls_predictors.0.weight"].reshape(3, 4, -1)
    after, _ = rows(model, 0, 3)
    assert torch.equal(after[:, 0], before[:, 0])
    assert torch.equal(after[:, 1], before[:, 3])


def test_the_same_classes_are_loaded_whole():
    source = weights()
    model = built(OLD)
    transfer = load_into(model, source, source.names)
    assert all(torch.equal(value, source.state[name]) for name, value in model.state_dict().items())
    assert transfer.loaded == set(source.state)
    assert "class predictors  loaded: all 3 classes are known by name" in transfer.table()


def test_other_anchors_mean_other_predictors_and_the_rest_is_kept():
    source = weights()
    config = OLD.model_copy(update={"head": SSDConfig(aspect_ratios=(1.0, 2.0))})
    fresh, model = built(config), built(config)
    transfer = load_into(model, source, source.names)
    layer = "head.bbox_predictors.1.weight"
    assert torch.equal(model.state_dict()[layer], fresh.state_dict()[layer])
    assert torch.equal(
        model.state_dict()["head.bbox_predictors.0.weight"], source.state["head.bbox_predictors.0.weight"]
    )
    assert "box predictors    2 of 12 tensors loaded, the others fresh" in transfer.table()


def test_another_head_takes_the_backbone():
    source = weights()
    config = follow_weights(ModelConfig(head=SSDLiteConfig(), num_classes=3), source)
    assert config.head.scale_min == 0.2
    model = built(config)
    transfer = load_into(model, source, source.names)
    parts = dict(transfer.rows)
    assert parts["backbone"].startswith("loaded")
    assert parts["class predictors"] == "fresh"
    assert "no place for" in parts["left out"]


def imagenet():
    config = BackboneConfig(alpha=0.25, norm_epsilon=1e-5)
    state = MobileNetV1(alpha=0.25).state_dict()
    return ImageNetBackbone(config, (224, 224), (1.0, 2.0, 3.0), (4.0, 5.0, 6.0), state, None, folded=True)


def test_a_backbone_brings_its_picture_scale_and_nothing_of_a_head():
    source = read_initial_weights({"mobiledet": "0", **imagenet().payload()}, "imagenet")
    assert (source.is_detector, source.folded) == (False, True)
    config = follow_weights(ModelConfig(num_classes=2, input_size=(96, 128)), source)
    assert (config.mean, config.std, config.input_size) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (96, 128))
    model = built(config)
    transfer = load_into(model, source, ["a", "b"])
    assert dict(transfer.rows)["extra layers"] == "fresh"
    assert torch.equal(model.backbone.layers["conv0"].conv.weight, source.state["backbone.layers.conv0.conv.weight"])


def test_a_checkpoint_of_neither_is_refused():
    with pytest.raises(CheckpointError, match="neither a detector nor a backbone"):
        read_initial_weights({"mobiledet": "0"}, "odd.pt")


def test_averaged_weights_come_first():
    content = {"config": Config(name="a", model=OLD).plain(), "categories": [{"id": 5, "name": "x"}], "model": {"a": 1}}
    assert read_initial_weights({**content, "ema": {"b": 2}}, "n").state == {"b": 2}
    assert read_initial_weights({**content, "ema": None}, "n").state == {"a": 1}


@pytest.mark.parametrize("other", ["traffic light", "Traffic-Light", " traffic_light ", "TRAFFIC  LIGHT"])
def test_names_are_compared_as_people_write_them(other):
    assert normalized(other) == "traffic light"
    assert normalized("traffic lights") != "traffic light"


TWO_STAGE = FasterRCNNConfig(crop_size=4, proposals=10)


def two_stage(num_classes=3, **head):
    settings = OLD.model_dump() | {"num_classes": num_classes, "head": TWO_STAGE.model_copy(update=head)}
    return ModelConfig(**settings)


def test_faster_rcnn_takes_its_second_stage_from_an_ssds_backbone():
    source, model = weights(), built(two_stage())
    transfer = load_into(model, source, ["person", "tree", "lamp"])
    for name in ("conv12", "conv13"):
        key = f"layers.{name}.pointwise.conv.weight"
        assert torch.equal(model.head.second_stage.state_dict()[key], source.state[f"backbone.{key}"])
    rows = dict(transfer.rows)
    assert rows["second stage"].startswith("loaded")
    assert rows["proposal network"] == rows["class predictor"] == rows["box predictor"] == "fresh"
    assert "head.cls_predictors" in rows["left out"] or "head.bbox_predictors" in rows["left out"]


def test_an_ssd_takes_its_last_layers_from_a_second_stage():
    source = weights(two_stage())
    model = built(OLD)
    transfer = load_into(model, source, ["a", "b", "c"])
    key = "layers.conv13.depthwise.conv.weight"
    assert torch.equal(model.backbone.state_dict()[key], source.state[f"head.second_stage.{key}"])
    assert dict(transfer.rows)["backbone"].startswith("loaded (")


def test_a_backbone_fills_both_stages():
    state = {f"backbone.{k}": torch.randn_like(v) if v.is_floating_point() else v
             for k, v in MobileNetV1(alpha=0.25).state_dict().items()}  # fmt: skip
    model = built(two_stage())
    rows = dict(load_into(model, weights(state=state, names=()), ["a", "b", "c"]).rows)
    assert rows["backbone"].startswith("loaded (")
    assert rows["second stage"].startswith("loaded (")
    assert "left out" not in rows


def test_known_classes_keep_their_scores_and_boxes():
    source = weights(two_stage())
    fresh, model = built(two_stage(4)), built(two_stage(4))
    load_into(model, source, ["lamp", "hot-dog", "PERSON", "tree"])
    old_cls, old_box = source.state["head.cls_predictor.weight"], source.state["head.bbox_predictor.bias"].view(3, 4)
    new_cls, new_box = model.head.cls_predictor.weight, model.head.bbox_predictor.bias.view(4, 4)
    assert torch.equal(new_cls[0], old_cls[0]), "background"
    assert torch.equal(new_cls[2], old_cls[2])
    assert torch.equal(new_cls[3], old_cls[1])
    start = fresh.head.cls_predictor.weight[1:]
    torch.testing.assert_close(new_cls[1], old_cls[1:].mean(dim=0) + start[0] - start.mean(dim=0))
    assert torch.equal(new_box[1], old_box[1])
    assert torch.equal(new_box[2], old_box[0])
    torch.testing.assert_close(new_box[[0, 3]], old_box.mean(dim=0).expand(2, -1))


def test_the_proposal_networks_kind_is_dictated_by_its_weights():
    source = weights(two_stage(rpn="depthwise", anchor_scales=(0.2, 0.5)))
    config = Config(model=ModelConfig(head=FasterRCNNConfig(proposals=77, crop_size=7)))
    head = follow_weights(config.model, source).head
    assert (head.rpn, head.anchor_scales, head.proposals, head.crop_size) == ("depthwise", (0.2, 0.5), 77, 7)


def test_another_head_keeps_its_own_input_size():
    recipe = Config(model=ModelConfig(head=TWO_STAGE, input_size=(600, 600), resize="shorter_side"))
    model = follow_weights(recipe.model, weights())
    assert (model.input_size, model.resize, model.mean) == ((600, 600), "shorter_side", OLD.mean)


def without(key):
    return lambda content: content.pop(key)


@pytest.mark.parametrize(
    "change",
    [
        without("categories"),
        without("model"),
        lambda content: content.update(model=[1, 2]),
        lambda content: content["model"].update({"head.extra": torch.zeros(2)}),
        lambda content: content["model"].popitem(),
        lambda content: content.update(config=[1]),
        lambda content: content["config"]["model"].update(num_classes=10**9),
        lambda content: content["config"]["model"]["backbone"].update(min_channels=10**6),
        lambda content: content["config"]["model"].update(input_size=[10**6, 10**6]),
        lambda content: content["categories"].append({"id": 9, "name": "more"}),
        lambda content: content["categories"][0].update(name=5),
        lambda content: content["categories"][0].pop("id"),
        lambda content: content.update(threshold="high"),
        lambda content: content.update(ranges=[1, 2]),
        lambda content: content.update(ranges={}),
        lambda content: content.update(kind="backbone"),
    ],
)
def test_contents_that_do_not_belong_together_are_refused_in_one_line(tmp_path, change):
    config = Config(model=ModelConfig(num_classes=2, backbone=BackboneConfig(alpha=0.25), input_size=(64, 96)))
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    model = dict(build_detector(config.model).state_dict())
    content = {"config": config.plain(), "categories": categories, "model": model, "ema": None}
    save_checkpoint(tmp_path / "good.pt", content)
    open_checkpoint(tmp_path / "good.pt")
    change(content)
    save_checkpoint(tmp_path / "bad.pt", content)
    for use in (open_checkpoint, lambda path: check_content(load_checkpoint(path), "bad.pt")):
        with pytest.raises(MobiledetError) as caught:
            use(tmp_path / "bad.pt")
        assert "\n" not in str(caught.value)

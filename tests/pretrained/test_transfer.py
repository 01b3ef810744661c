import pytest
import torch

from mobiledet.config import (
    BackboneConfig,
    Config,
    ModelConfig,
    SSDConfig,
    SSDLiteConfig,
)
from mobiledet.errors import CheckpointError, ConfigError
from mobiledet.models.build import build_detector
from mobiledet.models.mobilenet_v1 import MobileNetV1
from mobiledet.pretrained.imagenet import ImageNetBackbone
from mobiledet.pretrained.transfer import InitialWeights, adopt, load_into, normalized, read_initial_weights

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
    model = adopt(Config(), weights()).model
    assert model.backbone.alpha == 0.25
    assert model.backbone.padding == "tensorflow"
    assert model.backbone.norm_epsilon == 1e-5
    assert (model.mean, model.std, model.input_size, model.head.scale_min) == (OLD.mean, OLD.std, (64, 96), 0.15)


def test_what_any_weights_can_do_is_the_recipes_choice():
    recipe = Config(model=ModelConfig(input_size=(128, 160), head=SSDConfig(scale_min=0.1, match_iou=0.4)))
    model = adopt(recipe, weights()).model
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
        adopt(Config(model=model), weights())


def test_classes_keep_their_rows_by_name_and_the_others_start_fresh():
    source = weights()
    config = adopt(Config(), source).model.model_copy(update={"num_classes": 4})
    fresh, model = built(config), built(config)
    transfer = load_into(model, source, ["lamp", "hot-dog", "PERSON", "tree"])
    assert transfer.carried == ("hot-dog", "PERSON")
    assert transfer.fresh == ("lamp", "tree")
    for index, anchors in enumerate((3, 6, 6, 6, 6, 6)):
        old = source.state[f"head.cls_predictors.{index}.weight"].reshape(anchors, 3, -1)
        old_bias = source.state[f"head.cls_predictors.{index}.bias"].reshape(anchors, 3)
        new, new_bias = rows(model, index, 4)
        start, start_bias = rows(fresh, index, 4)
        assert torch.equal(new[:, 1], old[:, 1])
        assert torch.equal(new[:, 2], old[:, 0])
        assert torch.equal(new_bias[:, [1, 2]], old_bias[:, [1, 0]])
        assert torch.equal(new[:, [0, 3]], start[:, [0, 3]])
        assert torch.equal(new_bias[:, [0, 3]], start_bias[:, [0, 3]])
    for name, value in model.state_dict().items():
        if "cls_predictors" not in name:
            assert torch.equal(value, source.state[name]), name


def test_softmax_keeps_the_row_of_background():
    old = OLD.model_copy(update={"head": SSDConfig(scores="softmax")})
    source = weights(old)
    config = adopt(Config(), source).model.model_copy(update={"num_classes": 2})
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
    config = adopt(Config(model=ModelConfig(head=SSDLiteConfig(), num_classes=3)), source).model
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
    config = adopt(Config(model=ModelConfig(num_classes=2, input_size=(96, 128))), source).model
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

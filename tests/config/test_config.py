"""Files, overrides and plain data all end in the same checks."""

import json

import pytest
from pydantic import ValidationError

from mobiledet.config import (
    AugmentConfig,
    Config,
    FasterRCNNConfig,
    ModelConfig,
    ScheduleConfig,
    SSDConfig,
    SSDLiteConfig,
    apply_overrides,
    config_from_plain,
    config_hash,
    load_config,
)
from mobiledet.errors import ConfigError

HEADER = "from mobiledet.config import *\n"


def write(folder, text, name="recipe.py"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def leaves(plain, prefix=""):
    """Every setting that isn't a group, as (key, value)."""
    for key, value in plain.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


# Another valid value of every setting, where one made from its type wouldn't do.
OTHER = {
    "name": "other",
    "model.backbone.padding": "tensorflow",
    "model.head.extra_channels": "((256, 512), (64, 128))",
    "model.head.lowest_scale": "0.1",
    "model.head.scores": "softmax",
    "model.head.kind": "ssdlite",
    "model.num_classes": "7",
    "model.postprocess.vote_iou": "0.5",
    "model.resize": "shorter_side",
    "data.val_split": "none",
    "data.reading.rows": "box",
    "data.reading.classes_of": "images",
    "data.reading.boxes": "xywh",
    "data.reading.doubtful": "background",
    "data.hold_out": "0.2",
    "data.limit": "5",
    "optimizer.name": "adamw",
    "schedule.policy": "constant",
    "schedule.step_epochs": "(3, 5)",
    "schedule.patience": "4",
    "train.precision": "float32",
    "train.loggers": "('wandb',)",
    "data.reading.orientation": "stored",
    "data.reading.strict": "false",
}


def another_value(key, value):
    if key in OTHER:
        return OTHER[key]
    if isinstance(value, bool):
        return str(not value)
    if isinstance(value, int):
        return str(value + 1)
    if isinstance(value, float):
        return str(value / 2 + 0.01)
    if isinstance(value, list):
        return str(tuple(item + 1 for item in value))
    return "another"  # text, or a path that is None


@pytest.mark.parametrize("key", [key for key, _ in leaves(Config().plain())])
def test_every_setting_can_be_overridden_and_changes_the_hash(key):
    before = Config(model=ModelConfig(head=FasterRCNNConfig())) if key == "model.resize" else Config()
    text = another_value(key, dict(leaves(before.plain()))[key])
    after = apply_overrides(before, [f"{key}={text}"])
    changed = {k for k, v in leaves(after.plain()) if v != dict(leaves(before.plain()))[k]}
    assert changed == {key}
    assert config_hash(after) != config_hash(before)
    assert config_hash(apply_overrides(before, [f"{key}={text}"])) == config_hash(after)


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("schedule.epochs=2", "schedule.epochs", 2),
        ("optimizer.lr=1e-3", "optimizer.lr", 0.001),
        ("data.cache=false", "data.cache", False),
        ("data.cache=True", "data.cache", True),
        ("model.input_size=(240, 320)", "model.input_size", [240, 320]),
        ("model.input_size=[240,320]", "model.input_size", [240, 320]),
        ("model.input_size=416", "model.input_size", [416, 416]),
        ("model.input_size=(416,)", "model.input_size", [416, 416]),
        ("model.input_size=416x320", "model.input_size", [416, 320]),
        ("schedule.step_epochs=7", "schedule.step_epochs", [7]),
        ("data.val_split=none", "data.val_split", None),
        ("optimizer.clip_norm=None", "optimizer.clip_norm", None),
        ("schedule.patience=null", "schedule.patience", None),
        ("data.root=some/where=else", "data.root", "some/where=else"),
        ("train.output=7", "train.output", "7"),
        ("model.head.kind=ssdlite", "model.head.kind", "ssdlite"),
    ],
)
def test_overrides_are_typed(override, key, value):
    found = dict(leaves(apply_overrides(Config(), [override]).plain()))[key]
    assert found == value
    assert type(found) is type(value)


def test_overrides_apply_in_order_and_leave_the_rest():
    start = Config(seed=5, schedule=ScheduleConfig(epochs=9))
    after = apply_overrides(start, ["schedule.epochs=3", "schedule.batch_size=2", "schedule.epochs=4"])
    assert (after.seed, after.schedule.epochs, after.schedule.batch_size) == (5, 4, 2)
    assert start.schedule.epochs == 9
    assert apply_overrides(start, []) == start


def test_augmentation_presets():
    assert apply_overrides(Config(), ["data.augment=none"]).data.augment == AugmentConfig.none()
    assert apply_overrides(Config(), ["data.augment=light"]).data.augment == AugmentConfig.light()
    silent = AugmentConfig.none()
    assert (silent.crop, silent.expand, silent.flip, silent.color) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("schedule.epoch=2", ["schedule.epoch", "'schedule.epochs'"]),
        ("epochs=2", ["'epochs'", "'schedule.epochs'"]),
        ("optimiser.lr=1", ["'optimizer.lr'"]),
        ("model.backbone.alfa=1", ["'model.backbone.alpha'"]),
        ("train.batch_size=4", ["'schedule.batch_size'"]),
        ("zzz.qqq=1", ["zzz"]),
        ("schedule.epochs.more=1", ["schedule.epochs.more"]),
        ("schedule.epochs", ["key=value", "schedule.epochs"]),
        ("=3", ["key=value"]),
        ("schedule=3", ["schedule.epochs"]),
        ("data=my photos", ["'data.root=my photos'"]),
        ("model=best.pt", ["model.init=best.pt"]),
        ("optimizer=adamw", ["optimizer.name=adamw"]),
        ("model.head=ssdlite", ["model.head.kind=ssdlite"]),
        ("schedule.epochs=two", ["schedule.epochs", "'two'"]),
        ("schedule.epochs=2.5", ["schedule.epochs", "2.5"]),
        ("schedule.epochs=0", ["schedule.epochs", "0"]),
        ("schedule.epochs=0", ["schedule.epochs"]),
        ("data.cache=perhaps", ["data.cache", "perhaps"]),
        ("optimizer.lr=nan", ["optimizer.lr", "finite"]),
        ("optimizer.lr=-1", ["optimizer.lr"]),
        ("optimizer.name=adam", ["optimizer.name", "sgd", "adamw"]),
        ("model.input_size=(240", ["model.input_size", "(240"]),
        ("model.input_size=(240, 0)", ["model.input_size"]),
        ("model.input_size=(240, 320, 3)", ["model.input_size"]),
        ("model.input_size=240x320x3", ["model.input_size", "240x320x3"]),
        ("model.input_size=0", ["model.input_size", "0"]),
        ("model.input_size=large", ["model.input_size", "large"]),
        ("schedule.step_epochs=40x50", ["schedule.step_epochs", "40x50"]),
        ("model.head.kind=yolo", ["model.head.kind", "yolo", "ssdlite"]),
        ("model.head.scale_min=0.99", ["scale_min", "0.95"]),
        ("schedule.policy=step", ["step_epochs"]),
        ("schedule.step_epochs=(5, 3)", ["step_epochs", "increase"]),
        ("data.augment=heavy", ["data.augment"]),
        ("name=../elsewhere", ["name"]),
        ("seed=-1", ["seed"]),
    ],
)
def test_wrong_overrides_are_refused_by_name(override, words):
    with pytest.raises(ConfigError) as caught:
        apply_overrides(Config(), [override])
    message = str(caught.value)
    assert "\n" not in message
    assert [word for word in words if word not in message] == []


def test_a_group_given_to_the_function_as_one_value():
    with pytest.raises(ConfigError, match=r"data\.root=photos"):
        apply_overrides(Config(), {"data": "photos"})
    assert apply_overrides(Config(), {"data.augment": "none"}).data.augment == AugmentConfig.none()


def test_a_size_in_a_file_is_one_number_too(tmp_path):
    text = HEADER + "config = Config(model=ModelConfig(input_size=416))"
    assert load_config(write(tmp_path, text)).model.input_size == (416, 416)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("photos", "data.root=photos"),
        ("my photos", "'data.root=my photos'"),
        ("data.yaml", "data.root=data.yaml"),
        ("best.pt", "model.init=best.pt"),
        ("notes.txt", "schedule.epochs=2"),
        ("not there", "schedule.epochs=2"),
    ],
)
def test_a_word_without_a_key_that_names_something_there(tmp_path, monkeypatch, name, meant):
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "my photos"):
        (tmp_path / folder).mkdir()
    for file in ("data.yaml", "best.pt", "notes.txt"):
        write(tmp_path, "", file)
    with pytest.raises(ConfigError) as caught:
        apply_overrides(Config(), [name])
    assert meant in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("config = Config(sead=1)", ["'sead'", "'seed'"]),
        ("config = Config(schedule=ScheduleConfig(epoch=3))", ["epoch", "'schedule.epochs'"]),
        ("config = Config(schedule={'epochs': 0})", ["schedule.epochs", "0"]),
        ("config = Config(schedule={'epochs': 'many'})", ["schedule.epochs", "many"]),
        ("config = Config(model={'head': {'kind': 'yolo'}})", ["model.head.kind", "yolo"]),
        ("config = Config(model={'head': {'kind': 'ssd', 'scoers': 'softmax'}})", ["'model.head.scores'"]),
        ("cfg = Config()", ["no variable `config`"]),
        ("config = {'seed': 1}", ["dict", "Config("]),
        ("\n\nconfig = 1 / 0", ["line 4", "ZeroDivisionError"]),
        ("config = Config(", ["line 2", "SyntaxError"]),
        ("import no_such_package_anywhere", ["line 2", "no_such_package_anywhere"]),
    ],
)
def test_faulty_files_are_told_by_file_and_place(tmp_path, text, words):
    path = write(tmp_path, HEADER + text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert [word for word in [str(path), *words] if word not in str(caught.value)] == []


def test_missing_files_name_the_nearest(tmp_path):
    write(tmp_path, HEADER + "config = Config()")
    with pytest.raises(ConfigError, match=r"did you mean .*recipe\.py"):
        load_config(tmp_path / "recipes.py")
    with pytest.raises(ConfigError, match="is a folder"):
        load_config(tmp_path)
    with pytest.raises(ConfigError, match="not Python"):
        load_config(write(tmp_path, "config: 1", "recipe.yaml"))


def test_the_file_names_the_recipe_unless_it_names_itself(tmp_path):
    assert load_config(write(tmp_path, HEADER + "config = Config()", "my_recipe.py")).name == "my_recipe"
    assert load_config(write(tmp_path, HEADER + "config = Config(name='mine')")).name == "mine"


def test_a_file_name_that_cannot_name_a_folder_is_refused(tmp_path):
    path = write(tmp_path, HEADER + "config = Config()", "my recipe.py")
    with pytest.raises(ConfigError, match="'my recipe' can't name a run folder"):
        load_config(path)
    path.write_text(HEADER + "config = Config(name='fine')", encoding="utf-8")
    assert load_config(path).name == "fine"


def test_heads_are_a_tagged_union():
    assert isinstance(ModelConfig().head, SSDConfig)
    plain = Config(model=ModelConfig(head=SSDLiteConfig(scores="softmax"))).plain()
    head = config_from_plain(plain).model.head
    assert isinstance(head, SSDLiteConfig)
    assert head.scores == "softmax"
    switched = apply_overrides(Config(), ["model.head.kind=ssdlite", "model.head.match_iou=0.4"]).model.head
    assert isinstance(switched, SSDLiteConfig)
    assert switched.match_iou == 0.4


def test_another_kind_of_head_begins_at_its_defaults():
    start = Config(model=ModelConfig(head=SSDConfig(scale_min=0.1)))
    kept = apply_overrides(start, ["model.head.kind=ssdlite"]).model.head
    assert kept == SSDLiteConfig(scale_min=0.1)
    switched = apply_overrides(start, ["model.head.kind=faster_rcnn", "model.head.proposals=50"]).model.head
    assert switched == FasterRCNNConfig(proposals=50)
    assert apply_overrides(start, ["model.head.kind=ssd"]) == start


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.resize=shorter_side"], "ssd can't take"),
        (["data.augment.mixup=1"], r"'data\.augment\.mixup' \(known here: crop, expand"),
        (["data.augment.flp=1"], r"did you mean 'data\.augment\.flip'"),
        (["model.head.kind=faster_rcnn", "model.head.proposal=5"], r"did you mean 'model\.head\.proposals'"),
        (["model.head.kind=faster_rcnn", "model.head.crop_size=1"], r"model\.head\.crop_size"),
        (["model.head.kind=faster_rcn"], r"one of 'ssd', 'ssdlite', 'fpn', 'faster_rcnn'"),
    ],
)
def test_wrong_settings_of_another_head(overrides, words):
    with pytest.raises(ConfigError, match=words):
        apply_overrides(Config(), overrides)


def test_configs_are_frozen():
    config = Config()
    with pytest.raises(ValidationError, match="frozen"):
        config.seed = 3
    with pytest.raises(ValidationError, match="frozen"):
        config.schedule.epochs = 3


def test_plain_data_round_trips_through_json():
    config = apply_overrides(
        Config(), ["model.head.kind=ssdlite", "schedule.step_epochs=(3, 4)", "data.val_split=none", "optimizer.lr=0.1"]
    )
    plain = json.loads(json.dumps(config.plain(), allow_nan=False))
    assert config_from_plain(plain) == config
    assert config_hash(config_from_plain(plain)) == config_hash(config)
    plain["schedule"]["epohcs"] = 3
    with pytest.raises(ConfigError, match=r"schedule\.epochs"):
        config_from_plain(plain)


@pytest.mark.parametrize(
    ("size", "rho", "expected"),
    [
        ((300, 300), 1.0, (300, 300)),
        ((240, 320), 0.5, (120, 160)),
        ((40, 200), 0.5, (32, 100)),
        ((64, 80), 2, (128, 160)),
    ],
)
def test_rho_scales_the_network_size(size, rho, expected):
    assert ModelConfig(input_size=size, rho=rho).network_size == expected


def test_every_recipe_loads_and_builds(checkout, monkeypatch):
    from mobiledet.models.build import build_detector

    paths = sorted((checkout / "configs").glob("*.py"))
    assert paths
    for path in paths:
        config = load_config(path)
        assert config.name == path.stem
        assert config_from_plain(json.loads(json.dumps(config.plain()))) == config
        build_detector(config.model.model_copy(update={"num_classes": 3}), weights_follow=True)

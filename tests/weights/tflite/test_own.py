"""Files that mobiledet export wrote, imported again."""

import json
from dataclasses import replace

import pytest
import torch
from foreign_tflite import with_packed
from tiny_detectors import NAMES, assert_same, expected, make_images, tiny_detector

from mobiledet import Detector
from mobiledet.errors import CheckpointError
from mobiledet.exporters.base import ExportOptions
from mobiledet.exporters.litert import write_litert
from mobiledet.weights.checkpoint import save_checkpoint
from mobiledet.weights.importing import describe_weights, import_weights
from mobiledet.weights.tflite.contents import CARD_FILE, read_contents

pytest.importorskip("ai_edge_litert", reason="the package ai-edge-litert isn't installed")


LABELS = {"ssdlite": "SSDLite", "fpn": "FPN"}


def exported(path, head, *, int8=False, pixels=False, **changes):
    model, card = tiny_detector(head, **changes)
    card = replace(card, shown_threshold=0.37, config={"name": "mine", **card.config})
    calibration = [image[None] for image in make_images(4)] if int8 else ()
    write_litert(model, card, path, ExportOptions("litert", int8=int8), calibration, pixels=pixels)
    return model


@pytest.mark.parametrize("padding", ["symmetric", "tensorflow"])
@pytest.mark.parametrize("head", ["sigmoid", "softmax", "ssdlite", "fine", "fpn"])
def test_a_float_file_gives_the_checkpoint_back(tmp_path, head, padding):
    model = exported(tmp_path / "m.tflite", head, padding=padding)
    content = import_weights(tmp_path / "m.tflite")
    assert [(c["id"], c["name"]) for c in content["categories"]] == list(zip((1, 5, 9), NAMES, strict=True))
    assert (content["threshold"], content["config"]["name"], content["folded"]) == (0.37, "mine", True)
    assert describe_weights(content).startswith(f"{LABELS.get(head, 'SSD')} on")
    save_checkpoint(tmp_path / "again.pt", content)
    again = Detector(tmp_path / "again.pt", threads=1)
    assert again.card.names == NAMES
    found = again.backend.run(make_images(1), 0.01, 0.6)
    assert_same(found, expected(model, make_images(1)))


def test_so_does_one_that_takes_pixels(tmp_path):
    model = exported(tmp_path / "m.tflite", "sigmoid", pixels=True)
    save_checkpoint(tmp_path / "again.pt", import_weights(tmp_path / "m.tflite"))
    found = Detector(tmp_path / "again.pt", threads=1).backend.run(make_images(1), 0.01, 0.6)
    assert_same(found, expected(model, make_images(1)))


def test_an_int8_file_gives_it_back_to_eight_bits(tmp_path):
    exported(tmp_path / "float.tflite", "sigmoid")
    exported(tmp_path / "int8.tflite", "sigmoid", int8=True)
    wanted, found = (import_weights(tmp_path / f"{name}.tflite") for name in ("float", "int8"))
    assert found["config"]["model"]["mean"] == [127.5] * 3
    for name, values in wanted["model"].items():
        if name.endswith("conv.weight") or ("predictors" in name and name.endswith("weight")):
            step = values.flatten(1).abs().amax(dim=1).clamp(min=1e-6) / 127
            assert ((found["model"][name] - values).abs().flatten(1).amax(dim=1) <= 0.51 * step).all(), name
        else:
            torch.testing.assert_close(found["model"][name], values, atol=2e-3, rtol=1e-3, msg=name)


def recarded(path, change):
    """The file with its card changed, and the checksum that is then wrong out of the way."""
    card = json.loads(read_contents(path.read_bytes()).card)
    change(card)
    content = path.read_bytes()
    start = content.index(b"PK\3\4")  # the archive behind the flatbuffer
    path.write_bytes(with_packed(content[:start], {CARD_FILE: json.dumps(card)}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda card: card.pop("config"), "card is damaged"),
        (lambda card: card["names"].append("more"), "card is damaged"),
        (lambda card: card["config"]["model"].update(banana=1), "card is damaged, or of another version"),
        (lambda card: card["config"]["model"]["backbone"].update(alpha=0.5), "another layer backbone"),
        (lambda card: card["config"]["model"]["head"].update(kind="ssdlite"), r"layer head\..*, which it lacks"),
    ],
)
def test_a_card_of_another_model_is_refused(tmp_path, change, reason):
    exported(tmp_path / "m.tflite", "sigmoid")
    recarded(tmp_path / "m.tflite", change)
    with pytest.raises(CheckpointError, match=rf"m\.tflite: .*{reason}"):
        import_weights(tmp_path / "m.tflite")


def test_its_names_are_its_own(tmp_path):
    exported(tmp_path / "m.tflite", "sigmoid")
    (tmp_path / "labels.txt").write_text("a\nb\nc\n")
    with pytest.raises(CheckpointError, match="leave labels"):
        import_weights(tmp_path / "m.tflite", labels=tmp_path / "labels.txt")


def test_without_its_card_and_names_it_is_read_as_other_peoples_files_are(tmp_path):
    """Its scores have no background, which files of the Object Detection API do have."""
    model = exported(tmp_path / "m.tflite", "sigmoid", padding="tensorflow")
    content = (tmp_path / "m.tflite").read_bytes()
    (tmp_path / "m.tflite").write_bytes(content[: content.index(b"PK\3\4")])
    content = import_weights(tmp_path / "m.tflite")
    assert [category["name"] for category in content["categories"]] == ["class_1", "class_2", "class_3"]
    save_checkpoint(tmp_path / "again.pt", content)
    found = Detector(tmp_path / "again.pt", threads=1).backend.run(make_images(1), 0.01, 0.6)
    assert_same(found, expected(model, make_images(1)), box=0.1)

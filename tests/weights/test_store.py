import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from frozen_file import write_frozen
from loopback import Answer, Loopback
from timm_file import write_timm

from mobiledet.config import ModelConfig
from mobiledet.errors import CheckpointError, DownloadError
from mobiledet.utils.files import cache_folder, file_digest
from mobiledet.weights import store
from mobiledet.weights.catalogue import SOURCES, find_source, suggest_name, with_known_width
from mobiledet.weights.checkpoint import load_checkpoint, save_checkpoint
from mobiledet.weights.store import fetch_weights, pretrained_checkpoint, resolve_weights

NAME = "mobilenetv1_100"


@pytest.fixture(autouse=True)
def _alone(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEDET_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("MOBILEDET_OFFLINE", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    write_timm(path)
    return path


@pytest.fixture
def serve(weights, monkeypatch):
    """Make the name's address one of this machine, with these answers."""

    def start(*answers, path="/model.safetensors", **changes):
        source = replace(find_source(NAME), url=server.serve(path, *answers), **changes)
        monkeypatch.setattr("mobiledet.weights.store.find_source", lambda name: source if name == NAME else None)
        return source

    with Loopback() as server:
        start.server = server
        yield start


def test_a_name_is_fetched_and_converted_once(serve, weights):
    serve(Answer(weights.read_bytes()))
    first = resolve_weights(NAME)
    content = load_checkpoint(first)
    assert content["kind"] == "backbone"
    assert content["source"]["sha256"] == file_digest(weights)
    assert (content["source"]["name"], content["source"]["licence"]) == (NAME, "Apache-2.0")
    assert resolve_weights(NAME) == first
    assert len(serve.server.asked) == 1


def test_a_cut_download_goes_on_and_a_login_page_is_no_weights(serve, weights):
    data = weights.read_bytes()
    serve(Answer(data, cut_after=1000), Answer(data))
    assert resolve_weights(NAME).exists()
    serve(Answer(b"<html>please log in</html>", headers={"Content-Type": "text/html"}), path="/other.safetensors")
    (cache_folder() / "weights" / find_source(NAME).file_name).unlink()
    with pytest.raises(DownloadError, match=f"{NAME} can't be fetched"):
        resolve_weights(NAME)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda data: data[:-1], "by its header"),
        (lambda data: data + b"x", "by its header"),
        (lambda data: b"not weights at all", "neither"),
        (lambda data: bytes(8), "neither"),
        (lambda data: b"\x1c\0\0\0TFL3" + bytes(100), "TensorFlow Lite"),
        (lambda data: data + bytes(40_000_000), "more than 34,000,000"),
    ],
)
@pytest.mark.parametrize("chunked", [False, True])
def test_another_file_than_weights_is_not_kept(serve, weights, change, why, chunked):
    serve(*[Answer(change(weights.read_bytes()), chunked=chunked)] * 2)
    with pytest.raises(DownloadError, match=why):
        resolve_weights(NAME)
    assert list((cache_folder() / "weights").iterdir()) == []


@pytest.mark.parametrize("damage", [lambda data: data[:-30], lambda data: data.replace(b"model.safe", b"mobel.safe")])
def test_an_archive_without_the_weights_is_not_kept(serve, weights, tmp_path, damage):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(weights, "inside/model.safetensors")
    content = damage((tmp_path / "a.zip").read_bytes())
    source = serve(*[Answer(content)] * 2, path="/a.zip", archive_member="model.safetensors")
    with pytest.raises(DownloadError, match="another file"):
        fetch_weights(source)
    assert list((cache_folder() / "weights").iterdir()) == []


def test_an_archive_is_unpacked_and_not_kept(serve, weights, tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(weights, "inside/model.safetensors")
    source = serve(Answer((tmp_path / "a.zip").read_bytes()), path="/a.zip", archive_member="model.safetensors")
    assert fetch_weights(source).read_bytes() == weights.read_bytes()
    assert sorted(p.name for p in (cache_folder() / "weights").iterdir() if p.suffix == ".zip") == []


def test_a_file_placed_by_hand_needs_no_network(weights, monkeypatch):
    monkeypatch.setenv("MOBILEDET_OFFLINE", "1")
    with pytest.raises(DownloadError) as caught:
        resolve_weights(NAME)
    place = next(word for word in str(caught.value).split() if word.endswith(".safetensors;") and "cache" in word)[:-1]
    Path(place).parent.mkdir(parents=True, exist_ok=True)
    Path(place).write_bytes(weights.read_bytes())
    assert load_checkpoint(resolve_weights(NAME))["kind"] == "backbone"


def test_a_named_folder_is_searched_by_name_and_by_content(weights, tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEDET_OFFLINE", "1")
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("MOBILEDET_WEIGHTS", f"{tmp_path}:{folder}")
    source = find_source(NAME)
    (folder / source.file_name).write_bytes(weights.read_bytes())
    assert store.local_file(source) == folder / source.file_name
    renamed = folder / "renamed.tflite"
    renamed.write_bytes(b"whatever")
    known = replace(source, file_name="a.tflite", sha256=file_digest(renamed))
    assert store.local_file(known) == renamed
    assert store.local_file(replace(known, sha256="0" * 64)) is None


def test_where_only_the_second_best_file_is_here_it_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("MOBILEDET_WEIGHTS", str(tmp_path))
    source = find_source("mobilenet_v1_0.25_224")
    assert store.local_file(source) is None
    write_frozen(tmp_path / "mobilenet_v1_0.25_224_frozen.pb")
    content = load_checkpoint(pretrained_checkpoint(source))
    assert (content["kind"], content["folded"]) == ("backbone", False)
    best = tmp_path / "mobilenet_v1_0.25_224.tflite"
    best.write_bytes(b"whatever")
    assert store.local_file(source) == best


def test_a_named_folder_that_does_not_exist_is_reported(monkeypatch, tmp_path):
    monkeypatch.setenv("MOBILEDET_WEIGHTS", str(tmp_path / "none"))
    with pytest.raises(DownloadError, match="MOBILEDET_WEIGHTS names"):
        resolve_weights(NAME)


def test_other_bytes_than_measured_are_used_with_a_warning(serve, weights, caplog):
    source = serve(Answer(weights.read_bytes()), sha256="1" * 64)
    with caplog.at_level("WARNING", "mobiledet"):
        pretrained_checkpoint(source)
    assert "is not, byte for byte, the file whose score is listed (sha256 111111111111...)" in caplog.text


def test_what_is_there_as_a_file_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_checkpoint(tmp_path / NAME, {"mine": 1})
    assert resolve_weights(NAME) == Path(NAME)
    (tmp_path / "run").mkdir()
    save_checkpoint(tmp_path / "run/best.pt", {"mine": 1})
    assert resolve_weights("run") == Path("run/best.pt")
    assert resolve_weights("nothing/best.pt") == Path("nothing/best.pt")


def test_a_name_misspelt_is_answered_and_a_foreign_file_sent_to_the_importer(tmp_path):
    with pytest.raises(CheckpointError, match="did you mean 'ssd_mobilenet_v1_075_coco'"):
        resolve_weights("ssd_mobilenet_v1_75_coco")
    (tmp_path / "a.tflite").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="mobiledet weights import"):
        resolve_weights(tmp_path / "a.tflite")


def test_the_width_of_named_weights_is_known_without_them():
    assert with_known_width(ModelConfig(init="ssd_mobilenet_v1_075_coco")).backbone.alpha == 0.75
    assert with_known_width(ModelConfig(init="mobilenetv1_125")).backbone.alpha == 1.25
    assert with_known_width(ModelConfig(init="mine.pt")) == ModelConfig(init="mine.pt")
    assert with_known_width(ModelConfig()) == ModelConfig()


def test_the_list_is_in_order():
    names = [source.name for source in SOURCES]
    assert len(set(names)) == len(names)
    assert {"ssd_mobilenet_v1_075_coco", "mobilenetv1_100", "mobilenetv1_125"} <= set(names)
    assert {source.alpha for source in SOURCES if source.name.endswith("_224")} == {0.25, 0.5, 0.75, 1.0}
    for source in SOURCES:
        assert source.url.startswith("http")
        assert source.licence
        assert (source.archive_member is not None) == source.url.endswith((".tgz", ".zip"))
        assert find_source(source.name) is source
    assert suggest_name("banana", "none") == "none"

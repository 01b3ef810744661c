"""Lines and zones as text, as a file, and in shares of a frame."""

import pytest

from mobiledet.apps.live.scene.shapes import Scene, parse_shape, read_scene, scene_from_plain, write_scene
from mobiledet.errors import ConfigError

SIZE = (480, 640)


def test_options_of_the_command_line():
    assert parse_shape("line", "gate:100,400,540,400") == ("gate", ((100, 400), (540, 400)))
    assert parse_shape("zone", "my porch: (0,200), (300,200),(300,480)") == (
        "my porch",
        ((0, 200), (300, 200), (300, 480)),
    )
    assert parse_shape("line", "a:.5,0,0.5,1.")[1] == ((0.5, 0), (0.5, 1))


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("line", "100,400,540,400"),
        ("line", "gate:100,400,540"),
        ("line", "gate:100,400,540,400,1,2"),
        ("line", "gate:5,5,5,5"),
        ("line", ":1,2,3,4"),
        ("line", "g/a:1,2,3,4"),
        ("line", "gate:1,2,3,x"),
        ("line", "gate:1,2,3,1e400"),
        ("zone", "porch:0,0,1,1"),
        ("zone", "porch:0,0,1,1,2,2"),
    ],
)
def test_what_is_neither(kind, text):
    with pytest.raises(ConfigError) as caught:
        parse_shape(kind, text)
    assert len(str(caught.value)) < 200


def test_pixels_and_shares_become_shares():
    scene = Scene({"gate": ((0, 240), (640, 240)), "half": ((0, 0.5), (1, 0.5))}, {"all": ((0, 0), (1, 0), (1, 1))})
    shares = scene.in_shares(SIZE)
    assert shares.lines == {"gate": ((0, 0.5), (1, 0.5)), "half": ((0, 0.5), (1, 0.5))}
    assert shares.zones == scene.zones
    assert shares.in_shares((10, 10)) == shares


def test_a_shape_outside_of_the_frame():
    with pytest.raises(ConfigError, match=r"'gate'.*640x480"):
        Scene({"gate": ((0, 900), (640, 900))}).in_shares(SIZE)


def test_a_file_and_back(tmp_path):
    scene = Scene({"gate": ((0.1, 0.5), (0.9, 0.5))}, {"Vorplatz ä": ((0, 0), (300, 0), (300.5, 480))})
    write_scene(tmp_path / "scene.yaml", scene)
    assert read_scene(tmp_path / "scene.yaml") == scene
    assert "Vorplatz ä" in (tmp_path / "scene.yaml").read_text(encoding="utf-8"), "for people to edit"


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]",
        "lines: [[0, 1]]",
        "lines: {gate: 5}",
        "lines: {gate: [[0, 1], [1]]}",
        "lines: {gate: [[0, 1], [1, true]]}",
        "lines: {gate: [[0, 1], [1, .nan]]}",
        "zones: {porch: [[0, 1], [1, 1]]}",
        "lnes: {gate: [[0, 0], [1, 1]]}",
        "lines: {gate: [[0, 0], [1, 1]",
        "\0",
    ],
)
def test_a_file_that_is_no_scene(tmp_path, text):
    path = tmp_path / "scene.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"scene\.yaml"):
        read_scene(path)


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match="nothere"):
        read_scene(tmp_path / "nothere.yaml")


def test_nothing_is_a_scene(tmp_path):
    (tmp_path / "scene.yaml").write_text("lines:\n")
    assert not read_scene(tmp_path / "scene.yaml")


def test_too_many():
    with pytest.raises(ConfigError):
        scene_from_plain({"lines": {f"l{number}": [[0, 0], [1, 1]] for number in range(51)}})

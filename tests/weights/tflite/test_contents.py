"""What files say about themselves, as metadata tools write it."""

import contextlib

import pytest
from foreign_tflite import with_packed, write_foreign
from tflite_builder import GraphBuilder

from mobiledet.errors import CheckpointError
from mobiledet.weights.tflite.contents import CARD_FILE, MAX_TEXT, Normalisation, read_contents


def plain():
    graph = GraphBuilder("")
    graph.tensor("x", (1,), "FLOAT32")
    return graph.finish([0], [0])


def test_a_file_that_says_nothing():
    assert read_contents(plain()) == (None, Normalisation((127.5,) * 3, (127.5,) * 3), None, {})


def test_normalisation_and_the_settings_of_the_last_operation(tmp_path):
    about = read_contents(write_foreign(tmp_path / "m.tflite", mean_std=(12.0, 34.0)).read_bytes())
    assert about.normalisation == ((12.0,) * 3, (34.0,) * 3)
    assert (about.postprocess["num_classes"], about.postprocess["x_scale"]) == (2, 10.0)


@pytest.mark.parametrize("std", [0.0, -1.0, float("nan")])
def test_normalisation_that_cant_be(tmp_path, std):
    with pytest.raises(CheckpointError, match="damaged"):
        read_contents(write_foreign(tmp_path / "m.tflite", mean_std=(0.0, std)).read_bytes())


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"de.txt": ("de", ["Hund"]), "labels.txt": ("", ["dog"]), "en.txt": ("en", ["doggy"])}, ("dog",)),
        ({"de.txt": ("de", ["Hund"]), "en.txt": ("en-US", ["dog"])}, ("dog",)),
        ({"fr.txt": ("fr", ["chien"]), "de.txt": ("de", ["Hund"])}, ("chien",)),
        ({"names": ("", ["0: cat", "1: dog"])}, {1: "cat", 2: "dog"}),
    ],
)
def test_the_file_of_names_among_several(tmp_path, files, names):
    content = write_foreign(tmp_path / "m.tflite", label_files=files).read_bytes()
    assert read_contents(with_packed(content, {"licence.txt": "Apache"})).labels == names


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"labelmap.txt": "cat\ndog\n"}, ("cat", "dog")),
        ({"labels.txt": "a\n", "licence.txt": "b\n"}, None),
        ({"labels.txt": "\n"}, None),
        ({"vocabulary.json": "[]"}, None),
    ],
)
def test_without_metadata_the_only_text(files, names):
    assert read_contents(with_packed(plain(), files)).labels == names


def test_our_card(tmp_path):
    assert read_contents(with_packed(plain(), {CARD_FILE: '{"a": 1}'})).card == '{"a": 1}'


def test_texts_that_unpack_to_more_than_names_are_refused(tmp_path):
    packed = with_packed(plain(), {"labels.txt": "x" * (MAX_TEXT + 1)})
    with pytest.raises(CheckpointError, match=f"more than {MAX_TEXT:,} bytes"):
        read_contents(packed)


def test_damage_anywhere_is_one_error(tmp_path):
    """Each byte of the part that is read, once with other bits, and the file cut anywhere."""
    files = {"labels.txt": ("", ["cat", "dog"])}
    content = write_foreign(tmp_path / "m.tflite", label_files=files).read_bytes()
    damaged = [content[:at] for at in range(8, len(content), 37)]
    damaged += [
        content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]
        for at in range(0, len(content), 3)
        for bits in (0x80, 0xFF)
    ]
    refused = []
    for data in damaged:
        with contextlib.suppress(CheckpointError):
            read_contents(data)
            continue
        refused.append(data)
    assert len(refused) > 100

"""Words and tables for people."""

import pytest

from mobiledet.utils.text import (
    count,
    did_you_mean,
    listing,
    mirrored_names,
    nearest,
    printable,
    readable_ms,
    safe_file_name,
    shorten,
    table,
    visible,
)


@pytest.mark.parametrize(("encoding", "name"), [("utf-8", "chat (é) 猫_1__"), ("ascii", "chat (_) __1__")])
def test_file_names_hold_what_the_system_can_write(monkeypatch, encoding, name):
    monkeypatch.setattr("sys.getfilesystemencoding", lambda: encoding)
    assert safe_file_name("chat (é) 猫/1?\udcff") == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Größe 猫", "Größe 猫"),
        ("a\x1b[31m\x07b", "a[31mb"),
        ("a\u202eb\udcff\u2066", "ab"),
        ("a\tb\nc", "a b c"),
        ("می\u200cخواهم", "می\u200cخواهم"),  # written with a mark of its script
    ],
)
def test_names_without_what_a_terminal_obeys(text, expected):
    assert visible(text) == expected


def test_counts():
    counts = [count(1, "box", "boxes"), count(0, "box", "boxes"), count(1234, "image")]
    assert counts == ["1 box", "0 boxes", "1,234 images"]


@pytest.mark.parametrize(
    ("items", "expected"),
    [([], ""), ("ab", "a, b"), ("abcde", "a, b, c, d, e"), ("abcdef", "a, b, c, d, e and 1 more")],
)
def test_listings(items, expected):
    assert listing(items) == expected


def test_what_was_meant():
    assert nearest("Trian", ["train", "val"]) == "train"
    assert nearest("banana", ["train", "val"]) is None
    assert did_you_mean("vall", ["train", "val"]) == "did you mean 'val'?"
    assert did_you_mean("banana", ["train"], otherwise="there is train") == "there is train"


def test_foreign_text_stays_on_one_line():
    assert printable("großer Hund") == "großer Hund"
    assert printable("a\nb\x1b[1m\ud800") == "a\\nb\\x1b[1m\\ud800"


def test_tables():
    lines = ["class     AP", "bus      0.5", "hot dog    1"]
    assert table([("class", "AP"), ("bus", "0.5"), ("hot dog", "1")]) == lines


@pytest.mark.parametrize(
    ("text", "short"),
    [("short.jpg", "short.jpg"), ("train/abcdefghijklmnop.jpg", "train/...p.jpg"), ("two\nlines\x00 ", "two lines")],
)
def test_names_are_cut_in_their_middle(text, short):
    assert shorten(text, 14) == short


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (8.256, "8.26"), (84.25, "84.2"), (1234.5, "1,234")])
def test_milliseconds_have_as_many_digits_as_mean_something(value, text):
    assert readable_ms(value) == text


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["left arrow", "stop", "Right-Arrow"], [("left arrow", "Right-Arrow")]),
        (["turnLeft", "turnRight"], [("turnLeft", "turnRight")]),
        (["shoe_l", "shoe_r", "hat"], [("shoe_l", "shoe_r")]),
        (["links", "rechts"], [("links", "rechts")]),
        (["L", "R"], [("L", "R")]),
        (["A", "L", "R"], []),
        (["bright", "light", "left"], []),
        (["model", "moder", "bell"], []),
        ([], []),
    ],
)
def test_names_of_the_two_sides(names, pairs):
    assert mirrored_names(names) == pairs

import pytest

from mobiledet.utils.text import readable_ms, shorten


@pytest.mark.parametrize(
    ("text", "short"),
    [("short.jpg", "short.jpg"), ("train/abcdefghijklmnop.jpg", "train/...p.jpg"), ("two\nlines\x00 ", "two lines")],
)
def test_names_are_cut_in_their_middle(text, short):
    assert shorten(text, 14) == short


@pytest.mark.parametrize(("value", "text"), [(None, "-"), (8.256, "8.26"), (84.25, "84.2"), (1234.5, "1,234")])
def test_milliseconds_have_as_many_digits_as_mean_something(value, text):
    assert readable_ms(value) == text

from __future__ import annotations

import pytest
from jinja2 import UndefinedError
from pages import Page

from mobiledet.draw.html import Cell, bullets, facts, page, render, section, table

ODD = "<script>alert(1)</script> \"'&"


def test_everything_is_escaped_and_nothing_else_is_needed() -> None:
    cells = [[Cell("a", tip=ODD), Cell(ODD, "text bad")]]
    blocks = [ODD, table([Cell("model"), Cell(ODD, "text")], cells), bullets([ODD]), facts({ODD: ODD, "Cores": 4}), ""]
    found = Page(page(ODD, ODD, [section(ODD, *blocks)]))
    found.check_alone()
    assert found.text.count(ODD) == 9
    assert ("td", {"class": "text bad"}) in found.tags
    assert ("td", {"title": ODD}) in found.tags
    assert found.count("p") == 1, "an empty block is skipped"


def test_templates_refuse_names_they_are_not_given() -> None:
    assert render("{{ a }}", a="<") == "&lt;"
    with pytest.raises(UndefinedError):
        render("{{ b }}", a="<")

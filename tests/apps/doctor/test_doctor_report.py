from __future__ import annotations

import json

import pytest

from mobiledet.apps.doctor.report import EXIT_FAULTS, Code, DoctorReport, Section, percent


def report(*kinds):
    section = Section("Chapter")
    section.say("A paragraph " + "of many words " * 20)
    section.show(("name", "boxes"), (("cat", "1"), ("leopard", "1,234")))
    for kind in kinds:
        section.find(kind, f"{kind.code} found", "mend it", [f"train/{i}.jpg" for i in range(7)])
    section.data = {"boxes": 3}
    return DoctorReport("Title", [section])


def test_the_verdict_is_the_last_line_and_decides_the_status():
    ready, advised = report(), report(Code.SQUEEZED, Code.PLAIN)
    faulty = report(Code.UNREADABLE, Code.DROPPED, Code.SQUEEZED)
    assert ready.to_text().splitlines()[-1] == "verdict: READY to train"
    assert advised.to_text().splitlines()[-1] == "verdict: READY to train, with 1 piece of advice"
    assert faulty.to_text().splitlines()[-1] == "verdict: NOT READY: 2 faults need a decision; 1 piece of advice"
    assert report(Code.UNREADABLE).verdict() == "verdict: NOT READY: 1 fault needs a decision"
    assert (ready.exit_status, advised.exit_status, faulty.exit_status) == (0, 0, EXIT_FAULTS) == (0, 0, 3)


def test_text_names_the_first_places_and_json_all():
    found = report(Code.UNREADABLE)
    assert "train/4.jpg and 2 more; mend it" in " ".join(found.to_text().split())
    assert "train/5.jpg" not in found.to_text()
    plain = json.loads(json.dumps(found.to_json()))
    assert len(plain["findings"][0]["places"]) == 7
    assert plain["figures"] == {"Chapter": {"boxes": 3}}
    assert plain["exit_status"] == 3


def test_tables_are_aligned_and_lines_bearable():
    lines = report(Code.UNREADABLE).to_text().splitlines()
    row = lines.index("name     boxes")
    assert lines[row + 1 : row + 3] == ["cat          1", "leopard  1,234"]
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0, "0 %"), (1, "100 %"), (0.05, "5 %"), (0.123, "12 %"),
        (0.0004, "under 0.1 %"), (0.9999, "99.9 %"), (0.0123, "1.2 %"),
    ],
)  # fmt: skip
def test_a_share_rounds_to_all_or_nothing_only_where_it_is(share, text):
    assert percent(share) == text

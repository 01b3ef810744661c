import copy
import json

import pytest
from pages import Page
from programs import mobiledet

from mobiledet.apps.live.card.fps_card import read_card, read_cards
from mobiledet.apps.live.card.fps_page import cards_page, caveats, stage_parts, timeline_chart
from mobiledet.errors import MobiledetError

FULL = {
    "kind": "mobiledet-fps-card",
    "version": 1,
    "mobiledet": "0.1.0",
    "made": "2026-03-01T15:00:00Z",
    "command": "mobiledet webcam --report <card>.json",
    "label": "Pi 4",
    "machine": {
        "processor": "Raspberry Pi 4 Model B",
        "cores": 4,
        "memory_gib": 3.7,
        "system": "Linux 6.12 aarch64",
        "python": "3.11.2",
        "packages": {"numpy": "2.4.6", "onnxruntime": "1.27.0"},
        "load_average": 0.3,
    },
    "model": {"name": "m.onnx", "runtime": "onnxruntime 1.27", "precision": "int8", "input_size": [240, 300]},
    "source": {"name": "camera 0", "live": True, "size": [480, 640], "fps": 30.0},
    "settings": {"threads": 2, "threshold": 0.4, "window": True, "serve": False, "save": None},
    "seconds": 300.0,
    "start_to_first_boxes_ms": 612.0,
    "frames": {"captured": 9000, "processed": 3600, "dropped": 5400, "lost_seconds": 0.0},
    "fps": {"overall": 12.1, "first_minute": 13.7, "last_minute": 11.6, "worst_second": 9.0},
    "age_ms": {"p50": 84.2, "p95": 99.1, "max": 180.4},
    "shown_age_ms": None,
    "stages_ms": {"grab": {"p50": 4.0, "p95": 6.0}, "network": {"p50": 70.0, "p95": 80.0}, "nms": {"p50": 5.5}},
    "cpu_percent": {"mean": 55.5, "max": 81.0},
    "memory_mib": {"first_minute": 210.0, "last_minute": 211.0, "peak": 230.0},
    "temperature_c": {"start": 45.0, "end": 71.0, "max": 72.0},
    "throttled": ["under-voltage"],
    "timeline": {
        "step_s": 1.0,
        "fps": [12.0, None, 13.5, 11.0],
        "age_ms": [80.0, None, 85.0, 90.0],
        "temperature_c": [45.0, 50.0, 60.0, 71.0],
        "memory_mib": [210.0, 210.0, 211.0, 211.0],
    },
    "unseen": ["Exposure isn't in the age."],
}


@pytest.fixture
def save(tmp_path):
    """``save("a.json", fps=None)``: a report with some parts changed; a value of ``...`` removes one."""

    def write(name="card.json", **changes):
        content = copy.deepcopy(FULL)
        for key, value in changes.items():
            content.pop(key) if value is ... else content.update({key: value})
        path = tmp_path / name
        path.write_text(json.dumps(content), encoding="utf-8")
        return path

    return write


def test_the_figures_are_on_the_page(save):
    page = Page(cards_page(read_cards([save()])))
    for words in (
        "Pi 4 in live detection",
        "11.6 FPS, last minute",
        "84.2 ms from frame to boxes, 95 % below 99.1",
        "300x240",
        "640x480",
        "first minute 210, last minute 211, max 230",
        "start 45, end 71, max 72",
        "slowed down in this run: under-voltage",
        "It became slower: 11.6 FPS in the last minute after 13.7",
        "Exposure isn't in the age.",
        "mobiledet webcam --report <card>.json",
        "onnxruntime 1.27.0",
        "84.2, 95 % below 99.1, max 180",
    ):
        assert words in page.text, words
    page.check_alone()
    assert page.count("svg") == 2 + 4


def test_nulls_are_shown_as_unknown(save):
    groups = ("fps", "age_ms", "stages_ms", "cpu_percent", "memory_mib", "temperature_c", "timeline", "model", "source")
    empty = dict.fromkeys((*groups, "settings", "machine", "frames", "throttled", "unseen", "label", "seconds"))
    page = Page(cards_page(read_cards([save("some board.json", **empty)])))
    assert "some board in live detection" in page.text
    assert "Not measured." in page.text
    assert "too short to distinguish sustained speed" in page.text
    assert "None" not in page.text


def test_a_bare_report_is_enough(tmp_path):
    path = tmp_path / "bare.json"
    path.write_text('{"kind": "mobiledet-fps-card", "version": 1}')
    assert "bare in live detection" in Page(cards_page(read_cards([path]))).text


def test_a_short_run_shows_the_whole(save):
    fps = {"overall": 12.1, "first_minute": None, "last_minute": None}
    card = read_card(save(fps=fps, seconds=20.0))
    assert card.sustained_fps == 12.1
    page = Page(cards_page([card]))
    assert "12.1 FPS, whole run" in page.text
    assert "A run of 20 s is too short" in page.text


def test_labels_are_escaped(save):
    evil = "<script>alert(1)</script>\n\"'&"
    cards = read_cards([save("a.json", label=evil), save("b.json", command=evil, unseen=[evil], throttled=[evil])])
    page = Page(cards_page(cards))
    assert "script" not in {tag for tag, _ in page.tags}
    assert "<script>alert(1)</script> \"'&" in page.text


def test_boards_of_one_name_are_distinguished(save):
    model = {**FULL["model"], "name": "other.onnx"}
    paths = [save("a.json"), save("b.json"), save("c.json", model=model), save("d.json", label="Pi 5")]
    assert [card.label for card in read_cards(paths)] == [
        "Pi 4, m.onnx (1)",
        "Pi 4, m.onnx (2)",
        "Pi 4, other.onnx",
        "Pi 5",
    ]
    assert [card.label for card in read_cards([paths[0], paths[0]])] == ["Pi 4 (1)", "Pi 4 (2)"]


def test_differences_are_reported(save):
    others = {
        "model": {"name": "other.onnx"},
        "settings": {"threads": 4},
        "source": {**FULL["source"], "size": [240, 320], "fps": 12.0},
    }
    cards = read_cards([save("a.json"), save("b.json", **others)])
    lines = " ".join(caveats(cards))
    assert "different models" in lines
    assert "different numbers of threads" in lines
    assert "differ in size" in lines
    assert "Pi 4, other.onnx: The source gives 12 frames per second; the board might manage more." not in lines
    assert "The source gives" not in lines, "11.6 of 12 is 0.967"


def test_a_source_that_gives_no_more_is_named(save):
    (card,) = read_cards([save(source={**FULL["source"], "fps": 11.8})])
    assert "The source gives 11.8 frames per second; the board might manage more." in caveats([card])


def test_nms_is_taken_out_of_the_network(save):
    parts = stage_parts(read_card(save()))
    assert parts == {"grab": 4.0, "network": 64.5, "nms": 5.5}


def test_long_timelines_are_thinned(save):
    values = [float(index % 7) for index in range(20_000)]
    chart = timeline_chart([read_card(save(timeline={"step_s": 0.5, "fps": values}))], "fps", "FPS")
    assert len(chart) < 40_000
    assert "means of 23.5 s" in chart


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ("[1]", "is not a report of a live run"),
        ('{"kind": "other"}', "is not a report of a live run"),
        ('{"kind": "mobiledet-fps-card"}', "version is None"),
        ('{"kind": "mobiledet-fps-card", "version": true}', "version is True"),
        ('{"kind": "mobiledet-fps-card", "version": 2}', "is of version 2, and this program reads up to 1; update"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "seconds": NaN}', "is not valid JSON"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "seconds": 1e999}', "seconds is inf"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "seconds": 1%s}' % ("0" * 400), "seconds is 1000"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "fps": 3}', "fps is 3, not an object"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "fps": {"overall": "x"}}', "fps.overall is 'x'"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "timeline": {"fps": [1, "x"]}}', "timeline.fps holds"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "timeline": {"step_s": -1}}', "timeline.step_s is -1"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "throttled": 5}', "throttled is 5, not a list"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "machine": {"packages": []}}', "machine.packages"),
        ("\ud800", "is not valid JSON"),
    ],
)
def test_what_is_not_a_report_is_refused(tmp_path, text, words):
    path = tmp_path / "odd.json"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(MobiledetError) as caught:
        read_card(path)
    assert words in str(caught.value)
    assert "odd.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_what_cannot_be_read_is_refused(tmp_path, name):
    with pytest.raises(MobiledetError, match="can't be read"):
        read_card(tmp_path / name)


def test_the_tool(save, tmp_path):
    page = tmp_path / "out.html"
    done = mobiledet("fps-card", save("a.json"), save("b.json", label="Laptop", fps=None), "-o", page)
    assert (done.status, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["Pi 4: 11.6 FPS", "Laptop: FPS unknown", str(page)]
    assert "2 boards in live detection" in Page(page.read_text(encoding="utf-8")).text
    before = page.read_bytes()
    done = mobiledet("fps-card", save(), "-o", page)
    assert done.status == 1
    assert "exists already" in done.stderr
    assert page.read_bytes() == before
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".json", ".json", ".json"]

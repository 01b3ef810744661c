import copy
import json
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from mobiledet.apps.live.card.fps_card import read_card, read_cards
from mobiledet.apps.live.card.fps_charts import stage_parts, timeline_chart
from mobiledet.apps.live.card.fps_page import cards_page, caveats
from mobiledet.errors import MobiledetError

FULL = {
    "kind": "mobiledet-fps-card",
    "version": 1,
    "mobiledet": "0.1.0",
    "made": "2026-03-01T15:00:00Z",
    "command": "python demo/webcam.py --report <card>.json",
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


class Page(HTMLParser):
    """What stands on a page, and whether its elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.text, self.tags, self.open = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def says(self, words):
        return words in " ".join("".join(self.text).split())


def test_the_figures_are_on_the_page(save):
    page = Page(cards_page(read_cards([save()])))
    for words in (
        "Pi 4 in live detection",
        "11.6 FPS, last minute",
        "84.2 ms from picture to boxes, 95 % below 99.1",
        "300x240",
        "640x480",
        "first 210, last 211, most 230",
        "start 45, end 71, most 72",
        "slowed down in this run: under-voltage",
        "It became slower: 11.6 FPS in the last minute after 13.7",
        "Exposure isn't in the age.",
        "python demo/webcam.py --report <card>.json",
        "onnxruntime 1.27.0",
        "84.2, 95 % below 99.1, most 180",
    ):
        assert page.says(words), words
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == 2 + 1 + 4


def test_the_page_needs_nothing_else(save):
    text = cards_page(read_cards([save()]))
    page = Page(text)
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in page.tags}
    assert not any(key in ("src", "href", "onload") for _, attributes in page.tags for key in attributes)
    assert "url(" not in text
    assert "@import" not in text


def test_nulls_are_told_as_unknown(save):
    groups = ("fps", "age_ms", "stages_ms", "cpu_percent", "memory_mib", "temperature_c", "timeline", "model", "source")
    empty = dict.fromkeys((*groups, "settings", "machine", "frames", "throttled", "unseen", "label", "seconds"))
    page = Page(cards_page(read_cards([save("some board.json", **empty)])))
    assert page.says("some board in live detection")
    assert page.says("Not measured.")
    assert page.says("too short to tell sustained speed")
    assert not page.says("None")


def test_a_bare_report_is_enough(tmp_path):
    path = tmp_path / "bare.json"
    path.write_text('{"kind": "mobiledet-fps-card", "version": 1}')
    assert Page(cards_page(read_cards([path]))).says("bare in live detection")


def test_a_short_run_shows_the_whole(save):
    fps = {"overall": 12.1, "first_minute": None, "last_minute": None}
    card = read_card(save(fps=fps, seconds=20.0))
    assert card.sustained_fps == 12.1
    page = Page(cards_page([card]))
    assert page.says("12.1 FPS, whole run")
    assert page.says("A run of 20 s is too short")


def test_labels_are_escaped(save):
    evil = "<script>alert(1)</script>\n\"'&"
    cards = read_cards([save("a.json", label=evil), save("b.json", command=evil, unseen=[evil], throttled=[evil])])
    page = Page(cards_page(cards))
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.says("<script>alert(1)</script> \"'&")


def test_boards_of_one_name_are_told_apart(save):
    model = {**FULL["model"], "name": "other.onnx"}
    paths = [save("a.json"), save("b.json"), save("c.json", model=model), save("d.json", label="Pi 5")]
    assert [card.label for card in read_cards(paths)] == [
        "Pi 4, m.onnx (1)",
        "Pi 4, m.onnx (2)",
        "Pi 4, other.onnx",
        "Pi 5",
    ]
    assert [card.label for card in read_cards([paths[0], paths[0]])] == ["Pi 4 (1)", "Pi 4 (2)"]


def test_differences_are_told(save):
    others = {
        "model": {"name": "other.onnx"},
        "settings": {"threads": 4},
        "source": {**FULL["source"], "size": [240, 320], "fps": 12.0},
    }
    cards = read_cards([save("a.json"), save("b.json", **others)])
    told = " ".join(caveats(cards))
    assert "different models" in told
    assert "different numbers of threads" in told
    assert "differ in size" in told
    assert "Pi 4, other.onnx: The source gives 12 pictures a second; the board might manage more." not in told
    assert "The source gives" not in told, "11.6 of 12 is 0.967"


def test_a_source_that_gives_no_more_is_named(save):
    (card,) = read_cards([save(source={**FULL["source"], "fps": 11.8})])
    assert "The source gives 11.8 pictures a second; the board might manage more." in caveats([card])


def test_suppression_is_taken_out_of_the_network(save):
    parts = stage_parts(read_card(save()))
    assert parts == {"grab": 4.0, "network": 64.5, "nms": 5.5}


def test_a_line_breaks_where_nothing_is_known(save):
    chart = timeline_chart([read_card(save())], "fps", "FPS")
    line = chart.partition('class="line b0" d="')[2].partition('"')[0]
    assert [point[0] for point in line.split()[::2]] == ["M", "M", "L"]


def test_long_timelines_are_thinned(save):
    values = [float(index % 7) for index in range(20_000)]
    chart = timeline_chart([read_card(save(timeline={"step_s": 0.5, "fps": values}))], "fps", "FPS")
    assert len(chart) < 20_000
    assert "means of" in chart


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[1]", "no report of a live run"),
        ('{"kind": "other"}', "no report of a live run"),
        ('{"kind": "mobiledet-fps-card"}', "version is None"),
        ('{"kind": "mobiledet-fps-card", "version": true}', "version is True"),
        ('{"kind": "mobiledet-fps-card", "version": 2}', "is of version 2, this program knows 1; update"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "seconds": NaN}', "is no JSON, or damaged"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "seconds": 1e999}', "seconds is inf"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "seconds": 1%s}' % ("0" * 400), "seconds is 1000"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "fps": 3}', "fps is 3, not an object"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "fps": {"overall": "x"}}', "fps.overall is 'x'"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "timeline": {"fps": [1, "x"]}}', "timeline.fps holds"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "timeline": {"step_s": -1}}', "timeline.step_s is -1"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "throttled": 5}', "throttled is 5, not a list"),
        ('{"kind": "mobiledet-fps-card", "version": 1, "machine": {"packages": []}}', "machine.packages"),
        ("\ud800", "is no JSON"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path, text, words):
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


def tool(checkout, *arguments):
    command = [sys.executable, str(checkout / "tools" / "fps_card.py"), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_the_tool(checkout, save, tmp_path):
    page = tmp_path / "out.html"
    done = tool(checkout, save("a.json"), save("b.json", label="Laptop", fps=None), "-o", page)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["Pi 4: 11.6 FPS", "Laptop: FPS unknown", str(page)]
    assert Page(page.read_text(encoding="utf-8")).says("2 boards in live detection")
    before = page.read_bytes()
    done = tool(checkout, save(), "-o", page)
    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert page.read_bytes() == before
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".html", ".json", ".json", ".json"]


def test_no_torch_is_needed():
    names = "('torch', 'onnxruntime')"
    code = f"import mobiledet.apps.live.card.fps_page, sys; print([n for n in {names} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"

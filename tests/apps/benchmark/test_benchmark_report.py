import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import pytest

from mobiledet.apps.benchmark.charts import accuracy_chart, axis_ticks, latency_chart
from mobiledet.apps.benchmark.contenders import CertificateSummary, Contender
from mobiledet.apps.benchmark.measuring import MATRIX, Outcome, Settings
from mobiledet.apps.benchmark.page import report_page
from mobiledet.apps.benchmark.report import make_report
from mobiledet.apps.benchmark.run import write_report
from mobiledet.apps.benchmark.subjects import About
from mobiledet.apps.benchmark.table import report_text
from mobiledet.errors import MobiledetError

MACHINE = {
    "processor": 'A <processor> & "more"',
    "cores": 4,
    "memory_gib": 7.7,
    "system": "Linux 6",
    "python": "3.12.1",
    "packages": {"numpy": "2.0"},
    "load_average": 0.05,
}
VOID = {"meta", "br", "img"}


def outcome(label, ms, *, kind="model", ap=None, share=0.8, **changes):
    about = About("onnxruntime 1.31.1", input_size=(300, 400), gmacs=0.5, names=("a",))
    times = {size: [[ms, ms * 1.1], [ms, ms * 1.2]] for size in ("480x640", "720x1280", "own")}
    stages = [{"whole": ms, "resize": 0.05 * ms, "network": share * ms, "decode+nms": 0.1 * ms}]
    usual = {"about": about, "times": times, "stages": stages, "starts": [900.0, 200.0, 210.0], "ap": ap}
    memory = {"before_mib": 50.0, "peak_mib": 170.0, "file_bytes": 4_000_000, "cores": [1.0]}
    return Outcome(Contender(label, kind, label), **{**usual, **memory, **changes})


def matrix(ms=20.0):
    return Outcome(MATRIX, About("numpy 2", gmacs=1.0), times={"480x640": [[ms], [ms * 1.1]]}, starts=[1.0])


def report(*outcomes, data=None, machine=MACHINE, **settings):
    return make_report([*outcomes, matrix()], Settings(**settings), machine, pictures="drawn pictures", data=data)


def odd_report():
    """Everything that can be odd at once."""
    random = About("torchvision 0.29.2+cu132", input_size=(320, 320), note="random weights: speed only")
    quant = About("LiteRT 2", "uint8", (300, 300), note="its own post-processing")
    merged = [{"whole": 14.0, "resize": 0.2, "network": 13.0, "decode+nms": None}]
    return report(
        outcome("best.pt", 36.0, ap=19.92, certificate=CertificateSummary("-")),
        outcome(
            "a\"b'<script>alert(1)</script>&amp;.onnx",
            16.0,
            ap=19.8,
            certificate=CertificateSummary(
                "forced",
                {"matched_share": 0.97, "largest_box_difference": 1.5, "ap": {"checkpoint": 20.0, "model": 9.0}},
            ),
        ),
        outcome("x" * 200, 6.5, ap=19.7, certificate=CertificateSummary("other model")),
        outcome("peer.tflite", 14.0, kind="litert", about=quant, stages=merged, ap=18.0),
        outcome("torchvision", 64.0, kind="torchvision", about=random, file_bytes=None),
        Outcome(Contender("broken.onnx", "model", "broken.onnx"), problem="broken.onnx: its <process> ended"),
        data="a <folder>",
        machine={**MACHINE, "load_average": 2.5},
    )


def test_the_figures():
    found = report(outcome("slow", 40.0), outcome("fast", 10.0))
    slow, fast = found.rows
    assert slow.latency.median == pytest.approx(42.0)
    assert slow.versus.median == 1.0
    assert fast.versus.median == pytest.approx(0.25)
    assert fast.stages["network"] == pytest.approx(0.8 * fast.latency.median, abs=1e-3)
    assert fast.gmacs_per_s == pytest.approx(0.5 / (fast.stages["network"] / 1e3), abs=1e-3)
    assert found.matrix["gmacs_per_s"] == pytest.approx(1e3 / 20.5 / 1.0, rel=1e-3) or found.matrix["gmacs_per_s"] > 0
    assert fast.matrix_share == pytest.approx(fast.gmacs_per_s / found.matrix["gmacs_per_s"], abs=1e-4)
    assert fast.start_ms == 205.0, "the first start fills the file cache and doesn't count"
    assert fast.grown_mib == 120.0
    assert not found.failed


def test_a_single_start_counts():
    assert report(outcome("a", 1.0, starts=[300.0])).rows[0].start_ms == 300.0


def test_what_was_not_measured_stays_empty():
    row = report(Outcome(Contender("a", "model", "a"), problem="a: gone")).rows[0]
    assert (row.latency, row.versus, row.stages, row.gmacs_per_s, row.start_ms) == (None, None, {}, None, None)


def test_the_table_fits_and_says_what_must_be_said():
    text = report_text(odd_report())
    assert max(map(len, text.splitlines())) <= 120
    for words in (
        "best.pt", "in net", "speed only", "forced", "other model", "failed, see below", "19.92", "0.44x",
        "broken.onnx: its <process> ended", "random weights", "INT8 models are compared with float32's",
        "load average 2.5", "varied by 10%",
    ):  # fmt: skip
        assert words in re.sub(r"\n  ", " ", text), words


def test_many_sizes_go_into_a_second_table():
    sizes = tuple((height, 1000 + height) for height in range(100, 108))
    times = {f"{h}x{w}": [[5.0 + h]] for h, w in sizes}
    lines = report_text(report(outcome("a", 1.0, times=times), sizes=sizes)).splitlines()
    assert max(map(len, lines)) <= 120
    assert all(f"{h}x{w}" in "\n".join(lines) for h, w in sizes[1:])
    assert sum(line.startswith("model ") for line in lines) > 3


def test_threads_taken_beyond_those_given_are_told():
    assert any("kept 1.9 cores busy" in line for line in report(outcome("a", 1.0, cores=[1.9, 1.9])).caveats())
    assert not any("cores busy" in line for line in report(outcome("a", 1.0)).caveats())


class Page(HTMLParser):
    """Collects a page's text and elements, and sees that every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_escaped_and_needs_nothing_else():
    text = report_page(odd_report())
    page = Page(text)
    shown = "".join(page.text)
    assert "script" not in {tag for tag, _ in page.elements}
    assert 'A <processor> & "more"' in shown
    assert "its <process> ended" in shown
    assert "a <folder>" in shown
    for _, attributes in page.elements:
        assert not attributes.keys() & {"src", "href", "onclick", "onload"}
    assert "url(" not in text
    assert "@import" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert [tag for tag, _ in page.elements].count("svg") == 2
    assert "prefers-color-scheme: dark" in text
    assert "97.0% of the checkpoint's detections found again" in shown


def test_without_ap_there_is_one_chart():
    page = Page(report_page(report(outcome("a", 5.0))))
    assert [tag for tag, _ in page.elements].count("svg") == 1


def bars(chart):
    """Widths of the coloured bars, by the row they stand in."""
    svg = ElementTree.fromstring(chart)
    found = {}
    for rect in svg.iter("{http://www.w3.org/2000/svg}rect"):
        if rect.get("height") == "18":
            found.setdefault(float(rect.get("y")), []).append(float(rect.get("width")))
    return [found[y] for y in sorted(found)]


def test_bars_are_as_long_as_the_medians_and_divided_as_the_stages():
    slow, fast = bars(latency_chart(report(outcome("slow", 40.0), outcome("fast", 10.0))))
    assert sum(slow) / sum(fast) == pytest.approx(4, rel=0.02)
    assert slow[1] / sum(slow) == pytest.approx(0.8, abs=0.01)


def test_accuracy_points_lie_where_they_should():
    chart = accuracy_chart(report(outcome("a", 10.0, ap=10.0), outcome("b", 20.0, ap=20.0), outcome("c", 5.0)))
    points = [
        (float(dot.get("cx")), float(dot.get("cy")))
        for dot in ElementTree.fromstring(chart).iter("{http://www.w3.org/2000/svg}circle")
    ]
    assert len(points) == 2
    (right, high), (left, low) = points  # the best first
    assert left < right
    assert high < low, "SVG counts downwards"
    assert (right - 60) / (left - 60) == pytest.approx(2, rel=0.01)


def test_charts_of_nothing():
    empty = report(Outcome(Contender("a", "model", "a"), problem="gone"))
    assert latency_chart(empty) == accuracy_chart(empty) == ""
    Page(report_page(empty))


@pytest.mark.parametrize("longest", [0.0, 1e-4, 0.3, 7.0, 99.0, 100.0, 12345.0, float("nan"), float("inf")])
def test_ticks_are_few_and_reach_the_end(longest):
    ticks = axis_ticks(longest)
    assert ticks[0] == 0
    assert 3 <= len(ticks) <= 8
    if longest == longest and longest not in (0.0, float("inf")):
        assert longest <= ticks[-1] < 2 * longest


def test_the_files(tmp_path):
    report_ = odd_report()
    write_report(report_, json=tmp_path / "a.json", html=tmp_path / "a.html")
    plain = json.loads((tmp_path / "a.json").read_text())
    assert plain["format"] == "mobiledet benchmark"
    assert plain["machine"]["processor"] == MACHINE["processor"]
    assert plain["models"][0]["times"]["480x640"]["round_medians"] == pytest.approx([37.8, 39.6])
    assert plain["models"][0]["stage_blocks"][0]["whole"] == 36.0
    assert plain["settings"]["sizes"] == ["480x640", "720x1280", "own"]
    assert plain["matrix_product"]["gmacs_per_s"] > 0
    assert plain["command"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.html", "a.json"]
    with pytest.raises(MobiledetError, match="exists already"):
        write_report(report_, html=tmp_path / "a.html")

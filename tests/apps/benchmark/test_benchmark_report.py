import json
import re

import pytest
from pages import Page

from mobiledet.apps.benchmark.candidates import Candidate, CertificateSummary
from mobiledet.apps.benchmark.measured import About
from mobiledet.apps.benchmark.measuring import MATRIX_BASELINE, Outcome, Settings
from mobiledet.apps.benchmark.page import accuracy_chart, latency_chart, report_page
from mobiledet.apps.benchmark.report import divide, make_report, ratio, spread
from mobiledet.apps.benchmark.run import write_report
from mobiledet.apps.benchmark.tables import report_text
from mobiledet.errors import MobiledetError

MACHINE = {
    "processor": 'A <processor> & "more"', "cores": 4, "memory_gib": 7.7, "system": "Linux 6", "python": "3.12.1",
    "packages": {"numpy": "2.0"}, "load_average": 0.05,
}  # fmt: skip


def outcome(label, ms, *, kind="model", ap=None, share=0.8, **changes):
    about = About("onnxruntime 1.31.1", input_size=(300, 400), gmacs=0.5, names=("a",))
    rounds = {size: [[ms, ms * 1.1], [ms, ms * 1.2]] for size in ("480x640", "720x1280", "own")}
    stages = [{"whole": ms, "resize": 0.05 * ms, "network": share * ms, "decode+nms": 0.1 * ms}]
    usual = {"about": about, "rounds": rounds, "stage_blocks": stages, "starts_ms": [900.0, 200.0, 210.0], "ap": ap}
    memory = {"before_mib": 50.0, "peak_mib": 170.0, "file_bytes": 4_000_000, "busy": [1.0]}
    return Outcome(Candidate(label, kind, label), **{**usual, **memory, **changes})


def matrix(ms=20.0):
    return Outcome(MATRIX_BASELINE, About("numpy 2", gmacs=1.0), rounds={"480x640": [[ms], [ms * 1.1]]})


def report(*outcomes, data=None, machine=MACHINE, **settings):
    return make_report([*outcomes, matrix()], Settings(**settings), machine, images="drawn images", data=data)


def odd_report():
    """Everything that can be odd at once."""
    random = About("torchvision 0.29.2+cu132", input_size=(320, 320), note="random weights: speed only")
    quant = About("LiteRT 2", "uint8", (300, 300), note="its own post-processing")
    agreement = {"matched_share": 0.97, "largest_box_difference": 1.5, "ap": {"checkpoint": 20.0, "model": 9.0}}
    forced = CertificateSummary("forced", agreement)
    merged = [{"whole": 14.0, "resize": 0.2, "network": 13.0, "decode+nms": None}]
    return report(
        outcome("best.pt", 36.0, ap=19.92, certificate=CertificateSummary("-")),
        outcome("a\"b'<script>alert(1)</script>&amp;.onnx", 16.0, ap=19.8, certificate=forced),
        outcome("x" * 200, 6.5, ap=19.7, certificate=CertificateSummary("other model")),
        outcome("peer.tflite", 14.0, about=quant, stage_blocks=merged, ap=18.0),
        outcome("torchvision", 64.0, kind="torchvision", about=random, file_bytes=None),
        Outcome(Candidate("broken.onnx", "model", "broken.onnx"), problem="broken.onnx: its <process> ended"),
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
    assert report(outcome("a", 1.0, starts_ms=[300.0])).rows[0].start_ms == 300.0, "the only one does"
    assert fast.grown_mib == 120.0
    assert not found.failed


def test_what_was_not_measured_stays_empty():
    row = report(Outcome(Candidate("a", "model", "a"), problem="a: gone")).rows[0]
    assert (row.latency, row.versus, row.stages, row.gmacs_per_s, row.start_ms) == (None, None, {}, None, None)


def test_the_table_fits_and_says_what_must_be_said():
    text = report_text(odd_report())
    assert max(map(len, text.splitlines())) <= 120
    for words in (
        "best.pt", "in net", "speed only", "forced", "other model", "failed, see below", "19.92", "0.44x",
        "broken.onnx: its <process> ended", "random weights", "INT8 models are compared with",
        "load average 2.5", "varied by 10%",
    ):  # fmt: skip
        assert words in re.sub(r"\n  ", " ", text), words


def test_many_sizes_go_into_a_second_table():
    sizes = tuple((height, 1000 + height) for height in range(100, 108))
    rounds = {f"{h}x{w}": [[5.0 + h]] for h, w in sizes}
    lines = report_text(report(outcome("a", 1.0, rounds=rounds), sizes=sizes)).splitlines()
    assert max(map(len, lines)) <= 120
    assert all(f"{h}x{w}" in "\n".join(lines) for h, w in sizes[1:])
    assert sum(line.startswith("model ") for line in lines) > 3


def test_threads_taken_beyond_those_given_are_reported():
    assert any("kept 1.9 cores busy" in line for line in report(outcome("a", 1.0, busy=[1.9, 1.9])).caveats())
    assert not any("cores busy" in line for line in report(outcome("a", 1.0)).caveats())


def test_the_page_is_escaped_and_needs_nothing_else():
    page = Page(report_page(odd_report()))
    page.check_alone()
    for words in (
        'A <processor> & "more"', "its <process> ended", "a <folder>", "a\"b'<script>alert(1)</script>&amp;.onnx",
        "97.0% of the checkpoint's detections matched", "AP 20.00 became 9.00", "80 % of rounds",
        "other model",
    ):  # fmt: skip
        assert words in page.text, words
    assert page.count("svg") == 2
    assert ("td", {"class": "text bad"}) in page.tags


def test_the_bars_have_the_stages_and_the_points_those_with_ap():
    chart = latency_chart(report(outcome("slow", 40.0, ap=10.0), outcome("fast", 10.0, stage_blocks=[])))
    assert "slow: network 33.6 ms (80%)" in chart
    assert "fast: whole call 10.5 ms (100%)" in chart
    assert "42.0, p95" in chart
    chart = accuracy_chart(report(outcome("slow", 40.0, ap=10.0), outcome("fast", 10.0)))
    assert "slow (10.0)" in chart
    assert "fast" not in chart


def test_charts_are_of_what_there_is():
    assert Page(report_page(report(outcome("a", 5.0)))).count("svg") == 1, "no AP"
    empty = report(Outcome(Candidate("a", "model", "a"), problem="gone"))
    assert latency_chart(empty) == accuracy_chart(empty) == ""
    Page(report_page(empty))


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


def test_spread_is_of_all_calls_and_keeps_each_rounds_median():
    found = spread([[1.0, 2.0, 9.0], [3.0, 4.0, 5.0, 6.0]])
    assert (found.median, found.calls, found.round_medians) == (4.0, 7, (2.0, 4.5))
    assert found.p90 == pytest.approx(6 + 0.4 * 3)
    assert found.p90 < found.p95 < 9


def test_nothing_measured_is_no_figure():
    assert spread([]) is None
    assert spread([[], []]) is None
    assert divide(5.0, []) == {}
    assert divide(5.0, [{"whole": 0.0, "network": 1.0}]) == {}


def test_ratio_forgives_slow_rounds_and_needs_the_same_ones():
    found = ratio([10.0, 20.0, 100.0], [5.0, 10.0, 50.0])
    assert (found.low, found.median, found.high) == (2.0, 2.0, 2.0)
    assert ratio([1.0], [1.0, 2.0]) is None
    assert ratio([], []) is None
    assert ratio([1.0], [0.0]) is None


def test_stages_are_shares_so_that_a_slow_moment_changes_nothing():
    block = {"whole": 10.0, "resize": 1.0, "network": 6.0, "decode+nms": 2.0}
    slow = {name: 3 * value for name, value in block.items()}
    assert divide(20.0, [block, slow, slow]) == {"resize": 2.0, "network": 12.0, "decode+nms": 4.0, "rest": 2.0}
    inseparable = [{"whole": 8.0, "network": 6.0, "decode+nms": None}]
    assert divide(8.0, inseparable) == {"network": 6.0, "decode+nms": None, "rest": 2.0}


def test_stages_never_exceed_the_whole():
    found = divide(10.0, [{"whole": 10.0, "resize": 4.0, "network": 8.0}])
    assert sum(found.values()) == pytest.approx(10.0, abs=1e-3)
    assert found["rest"] == pytest.approx(0, abs=1e-3)
    assert found["network"] == pytest.approx(2 * found["resize"], abs=1e-3)

from types import SimpleNamespace

import numpy as np
import pytest
from live_parts import result

from mobiledet.apps.live.measure import meter as meter_module
from mobiledet.apps.live.measure.meter import Meter, Percentiles, Timeline
from mobiledet.apps.live.sources.base import SourceState


def test_percentiles_are_right_to_a_percent():
    values = np.random.default_rng(0).gamma(2, 9, 5000)
    seen = Percentiles()
    for value in values:
        seen.add(float(value))
    for share in (0.05, 0.5, 0.95, 0.999):
        assert seen.at(share) == pytest.approx(np.quantile(values, share, method="inverted_cdf"), rel=0.011)
    assert seen.max == values.max()
    assert seen.at(1) <= seen.max


def test_percentiles_of_nothing_and_of_odd_values():
    seen = Percentiles()
    assert seen.at(0.5) is seen.summary() is None
    for value in (0.0, -3.0, 1e9):
        seen.add(value)
    assert seen.at(0.01) <= 0.0011
    assert seen.count == 3


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    moment = SimpleNamespace(now=100.0)
    monkeypatch.setattr(meter_module.time, "monotonic", lambda: moment.now)
    return moment


@pytest.fixture
def meter():
    return Meter(started=0)


def meter_of(source_state):
    """A meter, and where its source's state is set."""
    state = SimpleNamespace(now=source_state)
    return Meter(started=0, source=lambda: state.now), state


def run(meter, clock, *, seconds, fps, age=0.02, start=0):
    for index in range(round(seconds * fps)):
        clock.now += 1 / fps
        meter.record(result(start + index, grabbed=clock.now - age, ready=clock.now))


def pause(meter, clock, *, seconds):
    meter.pause(True)
    clock.now += seconds
    meter.pause(False)


def test_rates_ages_and_stages(clock):
    meter = Meter(started=99.5)
    run(meter, clock, seconds=4, fps=20)
    numbers = meter.numbers()
    assert numbers.fps == pytest.approx(20)
    assert numbers.age_ms == pytest.approx(20)
    assert numbers.stages_ms == {"grab": 1.0, "resize": 1.0, "network": 2.0, "read": 0.5}
    figures = meter.figures()
    assert figures["fps"]["overall"] == pytest.approx(20)
    assert figures["age_ms"]["p50"] == pytest.approx(20, rel=0.01)
    assert figures["age_ms"]["max"] == pytest.approx(20)
    assert figures["stages_ms"]["network"]["p95"] == pytest.approx(2, rel=0.01)
    assert figures["start_to_first_boxes_ms"] == pytest.approx(550)
    assert figures["fps"]["first_minute"] is figures["fps"]["last_minute"] is None, "too short a run to tell"


def test_the_rate_is_of_the_last_two_seconds(meter, clock):
    run(meter, clock, seconds=10, fps=50)
    run(meter, clock, seconds=3, fps=10)
    assert meter.numbers().fps == pytest.approx(10, rel=0.05)


def test_the_rate_falls_while_nothing_comes(meter, clock):
    run(meter, clock, seconds=4, fps=20)
    clock.now += 20
    assert meter.numbers().fps < 0.2


def test_a_slow_source_has_a_rate_too(meter, clock):
    run(meter, clock, seconds=30, fps=0.2)
    assert meter.numbers().fps == pytest.approx(0.2)


def test_pauses_are_not_counted(meter, clock):
    run(meter, clock, seconds=3, fps=20)
    meter.pause(True)
    clock.now += 1000
    meter.tick()
    assert meter.numbers().fps == pytest.approx(20)
    meter.pause(False)
    run(meter, clock, seconds=3, fps=20)
    figures = meter.figures()
    assert figures["fps"]["overall"] == pytest.approx(20, rel=0.01)
    assert figures["seconds"] == pytest.approx(5.95, abs=0.01)
    assert figures["fps"]["worst_second"] >= 19


def test_a_pause_before_the_first_frame_takes_nothing_from_the_run(meter, clock):
    pause(meter, clock, seconds=4)
    run(meter, clock, seconds=8, fps=10)
    figures = meter.figures()
    assert figures["seconds"] == pytest.approx(7.9)
    assert figures["fps"]["overall"] == pytest.approx(10)


def test_current_numbers_start_anew_after_a_pause(meter, clock):
    run(meter, clock, seconds=4, fps=20)
    pause(meter, clock, seconds=1)
    run(meter, clock, seconds=0.5, fps=20, age=0.2)
    assert meter.numbers().fps == pytest.approx(20), "the second's rest isn't a slow frame"
    assert meter.numbers().age_ms == pytest.approx(200)


@pytest.mark.parametrize("comes_back", [True, False])
def test_what_is_lost_during_a_pause_was_not_missed(clock, comes_back):
    meter, state = meter_of(SourceState(connected=True))
    run(meter, clock, seconds=2, fps=10)
    meter.pause(True)
    state.now = SourceState(connected=False, message="gone")
    for _ in range(300):
        clock.now += 0.2
        meter.tick()
    meter.pause(False)
    if comes_back:
        state.now = SourceState(connected=True)
        meter.tick()
        run(meter, clock, seconds=2, fps=10)
    assert meter.figures()["frames"]["lost_seconds"] == 0
    clock.now += 3
    meter.tick()
    assert meter.figures()["frames"]["lost_seconds"] == (0 if comes_back else 3)


def test_first_and_last_minute(meter, clock):
    run(meter, clock, seconds=61, fps=30)
    run(meter, clock, seconds=60, fps=15)
    run(meter, clock, seconds=61, fps=10)
    fps = meter.figures()["fps"]
    assert fps["first_minute"] == pytest.approx(30, rel=0.01)
    assert fps["last_minute"] == pytest.approx(10, rel=0.01)
    assert fps["worst_second"] in (9, 10)


def test_a_lost_source_is_counted(clock):
    meter, state = meter_of(SourceState(connected=True))
    run(meter, clock, seconds=2, fps=10)
    meter.tick()
    state.now = SourceState(connected=False, message="gone")
    meter.tick()
    clock.now += 7
    state.now = SourceState(connected=True, reconnects=1)
    meter.tick()
    assert meter.figures()["frames"]["lost_seconds"] == 7
    assert meter.figures()["fps"]["worst_second"] == 0
    assert meter.numbers().source.reconnects == 1


def test_opening_is_not_being_lost(clock):
    meter, state = meter_of(SourceState(connected=False, message="opening"))
    meter.tick()
    clock.now += 5
    state.now = SourceState(connected=True)
    run(meter, clock, seconds=2, fps=10)
    meter.tick()
    assert meter.figures()["frames"]["lost_seconds"] == 0


def test_what_the_machine_reads(clock):
    reading = SimpleNamespace(
        cpu_percent=20.0,
        memory_mib=100.0,
        peak_memory_mib=140.0,
        temperature_c=50.0,
        throttled=("hot",),
        throttled_since_start=("hot", "under-voltage"),
    )
    meter = Meter(started=0, board=lambda: reading)
    run(meter, clock, seconds=2, fps=10)
    meter.tick()
    reading.cpu_percent, reading.temperature_c = 40.0, 70.0
    meter.tick()
    figures = meter.figures()
    assert figures["cpu_percent"] == {"mean": 30, "max": 40}
    assert figures["temperature_c"] == {"start": 50, "end": 70, "max": 70}
    assert figures["throttled"] == ["hot", "under-voltage"]
    assert figures["memory_mib"]["peak"] == 140
    assert meter.numbers().throttled == ("hot",)


def test_a_pause_without_a_frame_after_it(meter, clock):
    """The camera is lost during the pause, and the user leaves."""
    run(meter, clock, seconds=3, fps=20)
    pause(meter, clock, seconds=6)
    clock.now += 10
    assert meter.figures()["fps"]["overall"] == pytest.approx(20, rel=0.01)


def test_what_comes_after_the_end_does_not_count(clock):
    meter, state = meter_of(SourceState(connected=True, captured=10))
    run(meter, clock, seconds=1, fps=10)
    meter.end()
    clock.now += 30  # a video is finished
    state.now = SourceState(connected=True, captured=900, dropped=890)
    meter.drawn(2.0)
    figures = meter.figures()
    assert (figures["frames"]["captured"], figures["frames"]["dropped"]) == (10, 0)
    assert figures["fps"]["overall"] == pytest.approx(10)
    assert "draw" in figures["stages_ms"]


def test_a_source_that_never_comes_back_counts(clock):
    meter, state = meter_of(SourceState(connected=True))
    run(meter, clock, seconds=2, fps=10)
    state.now = SourceState(connected=False, message="gone")
    meter.tick()
    clock.now += 18
    figures = meter.figures()
    assert figures["fps"]["overall"] == pytest.approx(1, rel=0.06)
    assert figures["frames"]["lost_seconds"] == 18


def test_a_frame_that_stood_through_a_pause_was_not_shown_late(meter, clock):
    run(meter, clock, seconds=1, fps=10)
    stood = result(9, grabbed=clock.now)
    pause(meter, clock, seconds=60)
    meter.shown(stood, clock.now)
    meter.shown(result(10, grabbed=clock.now), clock.now + 0.05)
    assert meter.figures()["shown_age_ms"]["max"] == pytest.approx(50)


def test_what_came_while_the_model_was_loaded_counts_apart(clock):
    meter, state = meter_of(SourceState(connected=True, captured=40, dropped=39))
    meter.begin()
    run(meter, clock, seconds=1, fps=10)
    state.now = SourceState(connected=True, captured=52, dropped=41)
    frames = meter.figures()["frames"]
    assert (frames["captured"], frames["dropped"], frames["before_start"]) == (13, 2, 39)
    assert (meter.numbers().source.captured, meter.numbers().source.dropped) == (13, 2)


def test_nothing_measured_is_nothing_reported(meter, clock):
    assert meter.numbers().fps is meter.numbers().age_ms is None
    figures = meter.figures()
    assert figures["fps"] == {"overall": None, "first_minute": None, "last_minute": None, "worst_second": None}
    assert figures["age_ms"] is figures["shown_age_ms"] is figures["cpu_percent"] is None
    assert figures["stages_ms"] == {}


def test_a_long_timeline_stays_short():
    timeline = Timeline()
    for second in range(5000):
        for frame in range(7):
            timeline.add(second + frame / 7, 20.0)
        timeline.note(100.0 + second, None)
    timeline.advance(5000)
    plain = timeline.plain()
    assert 300 <= len(plain["fps"]) <= 600
    assert len(plain["fps"]) == len(plain["age_ms"]) == len(plain["memory_mib"])
    assert plain["fps"] == [7.0] * len(plain["fps"])
    assert plain["age_ms"] == [20.0] * len(plain["fps"])
    assert plain["temperature_c"] is None
    assert plain["step_s"] * len(plain["fps"]) == pytest.approx(5000, abs=plain["step_s"])
    assert plain["memory_mib"][-1] == 5099

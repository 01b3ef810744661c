import threading
import time

import pytest
from live_parts import ListedSource, ScriptedDetector, TickingSource, wait_until

from mobiledet.apps.live.measure.meter import Meter
from mobiledet.apps.live.pipeline import Pipeline
from mobiledet.apps.live.view import ViewSettings
from mobiledet.errors import SourceError


def pipeline(source, detector=None, **more):
    settings = more.pop("settings", ViewSettings())
    meter = Meter(started=time.monotonic(), source=source.state)
    return Pipeline(source, detector or ScriptedDetector(), settings=settings, meter=meter, **more)


def wait_for_end(run):
    assert run.ended.wait(30)
    run.join()


def run_to_end(run):
    run.start()
    wait_for_end(run)


def test_every_frame_of_a_file_is_processed_in_order():
    kept = []
    run = pipeline(ListedSource(40), recorders=[kept.append])
    run_to_end(run)
    assert [result.frame.index for result in kept] == list(range(40))
    assert run.meter.processed == 40
    number, last = run.results.get()
    assert (number, last.frame.index) == (40, 39)
    assert run.error is None


def test_the_network_does_not_wait_for_readers():
    """Somebody who looks once in a while sees the newest, misses the others and holds nobody up."""
    source = ListedSource(200)
    run = pipeline(source)
    seen = []

    def look():
        number = 0
        while (item := run.results.get(number, 20)) is not None:
            number = item[0]
            seen.append(item[1].frame.index)
            time.sleep(0.2)

    reader = threading.Thread(target=look)
    reader.start()
    run_to_end(run)
    reader.join()
    assert run.meter.processed == 200
    assert seen == sorted(seen)
    assert len(seen) < 100, "the reader takes 40 s for all"
    assert seen[-1] == 199


def test_the_newest_wins_and_delay_does_not_grow():
    source = TickingSource(0.005)
    run = pipeline(source, ScriptedDetector(0.05), max_frames=20)
    source.start()
    run_to_end(run)
    state = source.state()
    source.close()
    assert state.dropped >= 40, "ten frames come while one is processed"
    # The age of the last is no more than that of the first: one interval, one look, and what a busy machine adds.
    assert run.results.get()[1].age_ms < 1000


def test_stops_after_a_number_of_frames():
    source = ListedSource(1000)
    run = pipeline(source, max_frames=7)
    run_to_end(run)
    assert run.meter.processed == 7
    assert source.given == 7, "takes no more than it needs"


def test_stops_after_seconds_also_without_frames():
    source = TickingSource(0.01)
    source.start()
    run = pipeline(source, max_seconds=0.2)
    run.start()
    wait_until(lambda: run.meter.processed)
    source.close()
    wait_for_end(run)


def test_stops_when_asked():
    source = TickingSource()
    source.start()
    run = pipeline(source)
    run.start()
    wait_until(lambda: run.meter.processed > 3)
    run.join(20)
    assert run.ended.is_set()
    assert run.results.closed
    source.close()


def test_a_source_that_breaks_is_reported():
    run = pipeline(ListedSource(3, SourceError("clip.mp4: broken")))
    run_to_end(run)
    assert str(run.error) == "clip.mp4: broken"
    assert run.meter.processed == 3


def test_a_bug_is_not_swallowed():
    run = pipeline(ListedSource(3), ScriptedDetector(error=RuntimeError("bug")))
    run_to_end(run)
    assert isinstance(run.error, RuntimeError)


def test_a_paused_file_waits():
    settings = ViewSettings()
    settings.paused = True
    source = ListedSource(5)
    run = pipeline(source, settings=settings)
    run.start()
    wait_until(lambda: source.pauses == [True])
    time.sleep(0.1)
    assert source.given == 0
    settings.paused = False
    wait_for_end(run)
    assert source.pauses == [True, False]
    assert run.meter.processed == 5


def test_a_paused_camera_goes_on_unseen():
    settings = ViewSettings()
    source = TickingSource()
    source.start()
    run = pipeline(source, settings=settings)
    run.start()
    wait_until(lambda: run.meter.processed > 2)
    settings.paused = True
    wait_until(lambda: run.meter.passed_over > 3)
    processed = run.meter.processed
    wait_until(lambda: run.meter.passed_over > 6)
    assert run.meter.processed == processed
    settings.paused = False
    wait_until(lambda: run.meter.processed > processed)
    run.join()
    source.close()


def test_no_thread_is_left():
    before = set(threading.enumerate())
    run = pipeline(ListedSource(3))
    run.start()
    run.ended.wait(20)
    run.join()
    assert set(threading.enumerate()) <= before


def test_the_first_call_is_made_before_the_first_frame():
    detector = ScriptedDetector()
    run = pipeline(ListedSource(0), detector)
    run_to_end(run)
    assert detector.seen == [0]
    assert run.meter.processed == 0


@pytest.mark.parametrize("wanted", [(0.3, 0.3), (-1, 0.05), (7, 1.0)])
def test_thresholds_stay_in_range(wanted):
    settings = ViewSettings()
    before = settings.revision
    settings.threshold = wanted[0]
    assert settings.threshold == wanted[1]
    assert settings.revision > before

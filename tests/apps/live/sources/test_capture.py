"""Capture in a process of its own: the newest frame, never a torn one, and it always reconnects."""

import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from live_parts import wait_until
from mjpeg_server import MjpegServer
from processes import gone

from mobiledet.apps.live.sources import capture
from mobiledet.apps.live.sources.base import EndOfSource, SourceOptions
from mobiledet.apps.live.sources.capture import CaptureSource
from mobiledet.apps.live.sources.capture_devices import CaptureJob
from mobiledet.apps.live.sources.opening import open_source
from mobiledet.errors import SourceError
from mobiledet.utils.addresses import parse_address
from mobiledet.utils.processes import child_variables

FAKE = Path(__file__).with_name("fake_capture.py")
LONG = 20.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    """``fake("3:die", "on")``: a started source; closed at the end, and nothing of it may be left."""
    monkeypatch.setattr(capture, "BACK_OFF_S", (0.05,))
    made = []

    def make(*programs, start=True, **settings):
        command = [sys.executable, str(FAKE), str(tmp_path / f"counter{len(made)}"), *programs]
        job = settings.pop("job", CaptureJob("camera", "0", open_s=LONG))
        source = CaptureSource(job, name="camera 0", command=command, **settings)
        made.append(source)
        if start:
            source.start()
        return source

    yield make
    for source in made:
        source.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("capture")]


def take(source):
    return wait_until(lambda: source.take(0.5))


def test_frames_arrive_whole_in_order_and_stamped(fake, monkeypatch):
    monkeypatch.setenv("FAKE_BGR", "1")
    source = fake("on")
    last = None
    for _ in range(20):
        frame = take(source)
        assert frame.image.shape == (48, 64, 3)
        assert frame.image.dtype == np.uint8
        value = frame.index % 251
        assert (frame.image == (value + 1, value, (value - 1) % 256)).all()  # the camera's BGR has become RGB
        assert 0 <= time.monotonic() - frame.grabbed < LONG
        assert frame.grab_ms >= 0
        if last is not None:
            assert frame.index > last.index
            assert frame.position - last.position == pytest.approx(frame.grabbed - last.grabbed)
        last = frame
    state = source.state()
    assert (state.size, state.fps, state.reconnects) == ((48, 64), 100.0, 0)


def test_the_newest_wins_and_the_others_are_counted(fake):
    source = fake("on")
    indices = []
    for _ in range(4):
        wanted = source.state().captured + 12  # far more than there are slots
        wait_until(lambda wanted=wanted: source.state().captured >= wanted)
        indices.append(take(source).index)
        assert indices[-1] >= wanted - 1
    wait_until(lambda: source.state().captured > indices[-1] + 1)
    state = source.state()
    assert state.dropped in (state.captured - len(indices), state.captured - len(indices) - 1)  # one may lie there
    assert state.dropped >= 40
    assert state.reconnects == 0


def test_no_frame_is_torn_at_full_speed(fake, monkeypatch):
    monkeypatch.setenv("FAKE_INTERVAL", "0")
    source = fake("5:grow")
    for _ in range(60):
        frame = take(source)
        value = frame.index % 251
        # Where no slot was free the number went on without being drawn, so any one number will do, but one only.
        assert (frame.image == frame.image[0, 0]).all()
        assert frame.image[0, 0, 1] == value
    assert source.state().reconnects == 0


@pytest.mark.parametrize(("program", "size"), [("3:grow", (480, 640)), ("3:shrink", (30, 40))])
def test_the_size_may_change(fake, program, size):
    source = fake(program)
    assert take(source).image.shape[:2] in ((48, 64), size)
    wait_until(lambda: take(source).image.shape[:2] == size)
    assert source.state().size == size
    assert (take(source).image.std(axis=(0, 1)) == 0).all()


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("5:die", "camera 0: the capture process was ended by SIGKILL; reconnecting (attempt 1)"),
        ("5:exit", "camera 0: the capture process ended with status 7: out of <luck>; reconnecting (attempt 1)"),
        ("5:lost", "camera 0: was unplugged; reconnecting (attempt 1)"),
        ("5:throw", "camera 0: ZeroDivisionError: a by nothing; reconnecting (attempt 1)"),
        ("5:hang", "camera 0: no frame for 0.6 s; reconnecting (attempt 1)"),
    ],
)
def test_it_reconnects(fake, monkeypatch, program, words):
    monkeypatch.setattr(capture, "BACK_OFF_S", (0.3,))
    source = fake(program, "on", stall_s=0.6)
    first = take(source)
    wait_until(lambda: "reconnecting" in source.state().message)
    state = source.state()
    assert (state.connected, state.message) == (False, words)
    wait_until(lambda: source.state().connected)
    assert source.state().reconnects == 1
    assert source.state().message == ""
    wait_until(lambda: take(source).index >= 10)  # the numbers go on
    assert take(source).position > first.position + 0.25


def test_it_reconnects_without_limit(fake):
    source = fake("2:die", "refuse", "refuse", "2:lost", "on")
    wait_until(lambda: "(attempt 2)" in source.state().message)
    assert source.state().message.startswith("camera 0: can't be opened; it is busy")
    wait_until(lambda: source.state().reconnects == 2)
    wait_until(lambda: source.state().connected)
    assert source.state().captured >= 4


def test_what_had_come_before_is_still_there(fake, monkeypatch):
    monkeypatch.setattr(capture, "BACK_OFF_S", (0.01, 0.02, 0.03))
    source = fake("2:die", "refuse")
    wait_until(lambda: "(attempt 5)" in source.state().message)
    assert source.take(0) is not None
    assert source.take(0) is None


def test_silence_is_reported_before_it_is_acted_on(fake):
    source = fake("5:hang", stall_s=60.0)
    take(source)
    wait_until(lambda: not source.state().connected)
    assert source.state().message.startswith("camera 0: no frame for 0.")
    assert source.pid is not None
    assert not gone(source.pid)


def test_a_slow_camera_is_not_a_lost_one(fake, monkeypatch):
    monkeypatch.setenv("FAKE_INTERVAL", "0.6")  # though it reports 100 a second
    source = fake("on")
    take(source)
    while source.state().captured < 3:
        assert source.state().message == ""
        time.sleep(0.01)


def test_the_usual_interval_is_remembered_after_reconnecting(fake, monkeypatch):
    monkeypatch.setattr(capture, "BACK_OFF_S", (0.1,))
    monkeypatch.setattr(capture, "UNKNOWN_LATE_S", 1000.0)
    source = fake("5:lost", "1:hang", stall_s=60.0)
    take(source)
    wait_until(lambda: source.state().reconnects == 1)
    wait_until(lambda: source.state().message.startswith("camera 0: no frame for 0."))


def test_a_stopped_child_is_replaced(fake):
    source = fake("on", stall_s=0.5)
    take(source)
    pid = source.pid
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: source.state().reconnects == 1)
    assert gone(pid)


@pytest.mark.parametrize(
    ("program", "words"),
    [
        ("refuse", "camera 0: can't be opened; it is busy"),
        ("0:die", "camera 0: the capture process was ended by SIGKILL"),
        ("0:exit", "camera 0: the capture process ended with status 7: out of <luck>"),
        ("0:lost", "camera 0: was unplugged"),
    ],
)
def test_a_source_that_never_gave_a_frame_is_an_error(fake, program, words):
    source = fake(program)
    with pytest.raises(SourceError) as caught:
        take(source)
    assert str(caught.value) == words
    assert source.state().message == words
    with pytest.raises(SourceError):
        source.take(0)


def test_opening_may_not_take_for_ever(fake):
    source = fake("hang-open", job=CaptureJob("camera", "0", open_s=-1.5))
    with pytest.raises(SourceError, match=r"no frame within 0\.5 s of opening it"):
        take(source)


def test_a_command_that_does_not_exist():
    source = CaptureSource(CaptureJob("camera", "0"), name="camera 0", command=["/nowhere/python"])
    source.start()
    with pytest.raises(SourceError, match="no process could be started"):
        take(source)
    source.close()


def test_a_failed_check_is_raised_by_start():
    def check():
        raise SourceError("there is none")

    source = CaptureSource(CaptureJob("camera", "0"), name="camera 0", check=check)
    with pytest.raises(SourceError, match="there is none"):
        source.start()
    source.close()


def test_damaged_frames_are_counted(fake):
    source = fake("2:break")
    wait_until(lambda: source.state().skipped == 3)
    assert take(source)


@pytest.mark.parametrize(("program", "stopped"), [("on", False), ("on", True), ("hang-open", False), ("5:hang", False)])
def test_closing_is_quick_and_leaves_nothing(fake, program, stopped):
    source = fake(program)
    pid = wait_until(lambda: source.pid)
    if program != "hang-open":
        take(source)
    if stopped:
        os.kill(pid, signal.SIGSTOP)
    start = time.monotonic()
    source.close()
    assert time.monotonic() - start < 5  # alone on the machine: 0.01 s
    assert gone(pid)
    assert source.pid is None
    with pytest.raises(EndOfSource):
        source.take(1)
    source.close()


def test_closing_what_was_not_started(fake):
    source = fake("on", start=False)
    assert not source.state().connected
    source.close()


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_neither_files_nor_memory_are_left_open(fake):
    def left():
        gc.collect()
        return len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/maps").read_text().count(
            "mobiledet-capture"
        )

    before = left()
    source = fake("2:die", "2:lost", "on")
    wait_until(lambda: source.state().reconnects == 2)
    kept = take(source)
    source.close()
    assert kept.image.shape == (48, 64, 3)
    assert left() == before


def test_the_child_ends_itself_when_the_line_is_closed(tmp_path):
    memory = tmp_path / "memory"
    memory.write_bytes(b"")
    command = [sys.executable, str(FAKE), str(tmp_path / "counter"), "1:hang"]  # even while its driver hangs
    job = {"kind": "camera", "target": "0", "memory": str(memory)}
    environment = {**os.environ, **child_variables(1)}
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        child.stdin.write(json.dumps(job).encode() + b"\n")
        child.stdin.flush()
        assert any(b'"index"' in line for line in iter(child.stdout.readline, b""))
        child.stdin.close()
        assert child.wait(LONG) == 0


def test_the_child_has_a_session_of_its_own(fake):
    source = fake("on")
    take(source)
    assert os.getsid(source.pid) == source.pid  # Ctrl-C in the terminal doesn't reach it


def parent_process(tmp_path, program, then, stall_s):
    """A program that captures, prints its child's process id, and goes on as ``then`` says."""
    code = f"""
import sys, time
from mobiledet.apps.live.sources import capture
from mobiledet.apps.live.sources.capture_devices import CaptureJob
capture.STOOD_STILL_S = 0.3
command = [sys.executable, {str(FAKE)!r}, {str(tmp_path / "counter")!r}, {program!r}]
source = capture.CaptureSource(CaptureJob("camera", "0"), name="camera 0", command=command, stall_s={stall_s})
source.start()
while source.take(1) is None: pass
pid = source.pid
print(pid, flush=True)
{then}"""
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_a_standstill_of_the_whole_program_is_not_a_silent_camera(tmp_path):
    then = """sys.stdin.readline()
while source.take(1) is None: pass
print(source.state().reconnects, source.pid == pid, flush=True)
source.close()
"""
    with parent_process(tmp_path, "on", then, 1.0) as parent:
        child = int(parent.stdout.readline())
        for pid in (child, parent.pid):
            os.kill(pid, signal.SIGSTOP)  # as when a laptop is closed
        time.sleep(2)
        os.kill(parent.pid, signal.SIGCONT)
        time.sleep(0.3)
        os.kill(child, signal.SIGCONT)
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "0 True\n"


@pytest.mark.parametrize("program", ["on", "3:hang"])
def test_the_child_ends_with_its_parent(tmp_path, program):
    with parent_process(tmp_path, program, "time.sleep(600)", 600) as parent:
        pid = int(parent.stdout.readline())
        assert not gone(pid)
        parent.kill()
    wait_until(lambda: gone(pid))


# The real capture process, on streams of this machine.


@pytest.fixture
def camera():
    with MjpegServer(fps=50) as server:
        yield server


@pytest.fixture
def stream(camera, monkeypatch):
    monkeypatch.setattr(capture, "BACK_OFF_S", (0.05, 0.1))
    source = open_source(camera.url.replace("://", "://me:secret@"), SourceOptions(stall_s=1.0))
    source.start()
    yield source
    source.close()


def test_a_stream_of_jpegs(stream, camera):
    frame = take(stream)
    assert frame.image.shape == (48, 64, 3)
    assert stream.name == camera.url
    assert stream.state().fps is None  # it has none; FFmpeg's 25 is made up
    colours = np.array([take(stream).image[20, 30] for _ in range(10)])
    assert len(set(colours[:, 0])) > 1
    assert colours[:, 0].max() > colours[:, 2].max() + 30  # red


def test_a_stream_that_is_cut_again_and_again(stream, camera):
    for count in range(1, 4):
        take(stream)
        camera.drop()
        wait_until(lambda count=count: stream.state().reconnects >= count)
    assert "ended" not in stream.state().message
    assert take(stream)


def test_a_stream_that_disappears_for_a_while(stream, camera):
    take(stream)
    camera.refuse()
    wait_until(lambda: "nothing answers at 127.0.0.1" in stream.state().message)
    assert "secret" not in stream.state().message
    camera.come_back()
    wait_until(lambda: stream.state().connected)


def test_a_stream_that_falls_silent(stream, camera):
    take(stream)
    camera.stalled = True
    wait_until(lambda: "no frame for 1 s; reconnecting" in stream.state().message)
    camera.stalled = False
    wait_until(lambda: stream.state().connected)


@pytest.mark.parametrize(
    ("status", "words"),
    [(404, "no such stream there"), (401, "user or password isn't accepted"), (500, "HTTP error 500")],
)
def test_a_stream_that_is_refused(stream, camera, status, words):
    stream.close()
    camera.status = status
    source = open_source(camera.url.replace("://", "://me:secret@"))
    source.start()
    with pytest.raises(SourceError, match=words) as caught:
        take(source)
    source.close()
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_cause_is_read_from_what_ffmpeg_writes(fake):
    address = parse_address("rtsp://cam/1")
    source = fake("blame", job=CaptureJob("stream", address.url), address=address)
    with pytest.raises(SourceError, match="a user and password are required: rtsp://USER:PASSWORD@cam/1"):
        take(source)

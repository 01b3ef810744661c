import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from live_parts import read_video, result, wait_until

from mobiledet.apps.live.frames import Frame, Result
from mobiledet.apps.live.save import json_lines, video_file
from mobiledet.apps.live.save.json_lines import JsonLines, detection_record
from mobiledet.apps.live.save.video_file import VideoFile, video_size
from mobiledet.apps.live.save.video_saver import VideoSaver
from mobiledet.apps.live.view import Painter, ViewSettings
from mobiledet.detections import Detections
from mobiledet.errors import MobiledetError

ENDINGS = (".mp4", ".webm", ".avi")


def nothing(index, **more):
    return result(index, items=(), **more)


def saver(path, *, live=False, fps=30.0, painter=None):
    return VideoSaver(path, painter=painter or Painter(ViewSettings()), fps=fps, live=live)


def saved(path, count=1, *, first=0, fps=30.0, **more):
    """The saver of a file's first frames, once it is closed."""
    video = saver(path, fps=fps)
    for index in range(first, first + count):
        assert video.put(nothing(index, **more))
    video.close()
    return video


def records(path):
    """All lines of a log."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def numbers(path):
    """The number that each frame of a video shows."""
    return [round(float(image.mean()) / 8) for image in read_video(path)[0]]


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_frame_of_a_file_is_saved_once(tmp_path, ending):
    path = tmp_path / f"out{ending}"
    video = saved(path, 30, fps=12.5)
    assert (video.saved, video.missed, video.error) == (30, 0, None)
    assert numbers(path) == list(range(30))
    assert read_video(path)[1] == pytest.approx(12.5, abs=0.01)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert str(path) in video.summary()
    assert "2.4 s at 12.5 frames/s" in video.summary()


def test_the_boxes_are_on_it_in_their_colours(tmp_path):
    video = saver(tmp_path / "out.avi")
    image = np.zeros((120, 160, 3), np.uint8)
    boxes = np.array([[20, 30, 140, 100]], np.float32)
    video.put(Result(Frame(image, 0, 0.0, 0.0), Detections(boxes, np.array([0.9]), np.array([1])), 0.1))
    video.close()
    (image,), _ = read_video(tmp_path / "out.avi")
    from mobiledet.draw.boxes import class_color

    assert np.abs(image[60, 20].astype(int) - class_color(1)).max() < 60
    assert image[60, 80].max() < 30


def test_it_has_its_name_only_when_complete(tmp_path):
    path = tmp_path / "out.mp4"
    video = saver(path)
    video.put(nothing(0))
    wait_until(lambda: video.saved == 1)
    (partial,) = tmp_path.iterdir()
    assert partial.name.startswith(".out.")
    assert partial.name.endswith(".partial.mp4")
    video.close()
    video.close()
    assert list(tmp_path.iterdir()) == [path]


def test_a_name_taken_meanwhile_is_left_alone(tmp_path):
    path = tmp_path / "out.avi"
    video = saver(path)
    video.put(nothing(0))
    path.write_text("precious")
    with pytest.raises(MobiledetError, match=r"\.partial\.avi"):
        video.close()
    assert path.read_text() == "precious"
    (partial,) = tmp_path.glob(".out*")
    assert len(read_video(partial)[0]) == 1


def test_without_hard_links_it_is_renamed(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(1, "no links on FAT")

    monkeypatch.setattr(os, "link", refuse)
    saved(tmp_path / "out.avi")
    assert [p.name for p in tmp_path.iterdir()] == ["out.avi"]


def test_no_frame_no_file(tmp_path):
    video = saved(tmp_path / "out.mp4", 0)
    assert list(tmp_path.iterdir()) == []
    assert str(tmp_path / "out.mp4") in video.summary()


@pytest.mark.parametrize("name", ["out.mov", "out", "out.mp4.txt", ".mp4"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(MobiledetError, match=r"\.mp4.*\.webm.*\.avi"):
        saver(tmp_path / name)


def test_what_cannot_be_written_is_refused_before_the_run(tmp_path, monkeypatch):
    taken = tmp_path / "a.mp4"
    taken.touch()
    with pytest.raises(MobiledetError, match="exists already"):
        saver(taken)
    with pytest.raises(MobiledetError, match="it is a file"):
        saver(taken / "a.mp4")
    monkeypatch.setitem(video_file.CODECS, ".mp4", (video_file.Codec("WHAT", "Nonsense", "nowhere"),))
    with pytest.raises(MobiledetError, match=r"Nonsense.*\.webm or \.avi"):
        saver(tmp_path / "b.mp4")
    monkeypatch.setattr(video_file, "free_bytes", lambda path: 5)
    with pytest.raises(MobiledetError, match="32 MiB"):
        saver(tmp_path / "b.avi")
    assert list(tmp_path.iterdir()) == [taken]


def test_the_next_codec_stands_in(tmp_path, monkeypatch):
    one, other = video_file.Codec("WHAT", "Nonsense", "nowhere"), video_file.CODECS[".mp4"][0]
    monkeypatch.setitem(video_file.CODECS, ".mp4", (one, other))
    assert "MPEG-4" in saved(tmp_path / "a.mp4").summary()


def test_opencv_says_nothing_strange(tmp_path, capfd):
    video = saver(tmp_path / "a.webm", live=True)
    os.write(2, b"mine\n")
    video.put(nothing(0))
    video.close()
    assert capfd.readouterr() == ("", "mine\n")


@pytest.mark.parametrize(
    ("fps", "name", "expected"),
    [
        (None, "", 30),
        (None, "a.jpg", 1),
        (0.0, "", 30),
        (float("nan"), "", 30),
        (90000.0, "", 30),
        (59.94, "", 59.94),
    ],
)
def test_rates_that_are_not_plausible(tmp_path, fps, name, expected):
    saved(tmp_path / "out.mp4", 2, fps=fps, name=name)
    assert read_video(tmp_path / "out.mp4")[1] == pytest.approx(expected, abs=0.01)


def test_frames_of_other_sizes_are_fitted_in(tmp_path):
    path = tmp_path / "out.avi"
    video = saver(path, fps=None)
    for size in ((60, 100), (200, 100), (30, 200)):
        image = np.full((*size, 3), 200, np.uint8)
        video.put(Result(Frame(image, 0, 0.0, 0.0, name="a.jpg"), nothing(0).detections, 0.0))
    video.close()
    images, _ = read_video(path)
    assert [image.shape for image in images] == [(60, 100, 3)] * 3
    bright = [image[..., 0] > 120 for image in images]
    assert bright[0].all()
    assert (bright[1].any(0).sum(), bright[1].any(1).sum()) == (30, 60), "200 x 100 becomes 60 x 30"
    assert (bright[2].any(0).sum(), bright[2].any(1).sum()) == (100, 15), "30 x 200 becomes 15 x 100"


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("size", [(47, 81), (1, 1), (3, 200)])
def test_odd_sizes(tmp_path, ending, size):
    path = tmp_path / f"out{ending}"
    assert saved(path, 3, first=10, size=size).error is None
    images, _ = read_video(path)
    assert [image.shape[:2] for image in images] == [video_size(size)] * 3
    if min(size) > 40:
        assert images[0].min() > 60, "no black edge"


def test_sizes_of_videos():
    assert video_size((480, 640)) == (480, 640)
    assert video_size((481, 639)) == (482, 640)
    assert video_size((1, 5)) == (16, 16)
    assert video_size((3000, 8192)) == (1500, 4096)


def feed(video, stamps):
    """Put frames at these moments, no faster than they are taken."""
    for index, stamp in enumerate(stamps):
        video.put(nothing(index, grabbed=1000 + stamp))
        wait_until(lambda index=index: video.saved + video.thinned > index)


@pytest.fixture
def encoding(monkeypatch):
    """``encoding(50.0)``: a frame takes so many milliseconds, as far as is known; a slow machine saves as many."""
    return lambda took=1.0: monkeypatch.setattr(VideoFile, "milliseconds", lambda *_: took)


def test_a_slow_detector_plays_in_real_time(tmp_path, encoding):
    encoding()
    video = saver(tmp_path / "out.avi", live=True)
    feed(video, [0.1 * index for index in range(11)])
    video.close()
    shown = numbers(tmp_path / "out.avi")
    assert len(shown) == 31
    assert [shown.count(index) for index in range(11)] == [pytest.approx(3, abs=1)] * 10 + [1]
    assert video.saved == 11
    assert video.cut_seconds == 0


def test_a_fast_camera_is_thinned(tmp_path, encoding):
    encoding()
    video = saver(tmp_path / "out.avi", live=True, fps=60.0)
    feed(video, [index / 60 for index in range(31)])
    video.close()
    shown = numbers(tmp_path / "out.avi")
    assert len(shown) in (15, 16, 17)
    assert shown == sorted(set(shown))
    assert (video.saved, video.thinned, video.missed) == (len(shown), 31 - len(shown), 0)


def test_jitter_neither_repeats_nor_drops(tmp_path, encoding):
    encoding()
    rng = np.random.default_rng(1)
    video = saver(tmp_path / "out.avi", live=True)
    # The first came late, so all others are near the middle between two frames of the video.
    feed(video, [0.0, *(index / 29.97 - 0.014 + rng.uniform(-0.008, 0.008) for index in range(1, 31))])
    video.close()
    assert numbers(tmp_path / "out.avi") == list(range(31))


class Gate(Painter):
    """Paints nothing until opened."""

    def __init__(self):
        super().__init__(ViewSettings())
        self.open, self.entered = threading.Event(), threading.Event()

    def paint(self, result):
        self.entered.set()
        assert self.open.wait(20)
        return super().paint(result)


def test_gaps_are_not_filled_by_one_who_is_behind(tmp_path, encoding):
    encoding()
    gate = Gate()
    video = saver(tmp_path / "out.avi", live=True, fps=10.0, painter=gate)
    for index in range(30):
        assert video.put(nothing(index, grabbed=1000.0 + index))  # ten frames of the video apart
    gate.open.set()
    video.close()
    assert video.saved == 30
    assert 8 < video.cut_seconds < 15, "while more than half of its room was full"


def test_a_stall_stands_still_but_not_for_ever(tmp_path, encoding):
    encoding()
    video = saver(tmp_path / "out.avi", live=True, fps=10.0)
    feed(video, [0.0, 0.1, 2.1, 300.0, 300.1])
    video.close()
    shown = numbers(tmp_path / "out.avi")
    assert [shown.count(index) for index in range(5)] == [1, 20, 51, 1, 1]
    assert video.cut_seconds == pytest.approx(292.8, abs=0.2)
    assert " 293 s " in video.summary()


def test_a_live_source_never_waits(tmp_path):
    gate = Gate()
    video = saver(tmp_path / "out.avi", live=True, painter=gate)
    taken = [video.put(nothing(index, grabbed=index / 30)) for index in range(100)]
    gate.open.set()
    video.close()
    assert 4 <= sum(taken) < 100
    assert video.missed == 100 - sum(taken)
    assert video.saved == sum(taken)
    assert f"{video.missed} frames not saved" in video.summary()


def test_large_frames_take_less_of_the_queue(tmp_path):
    gate = Gate()
    video = saver(tmp_path / "out.avi", live=True, painter=gate)
    taken = [video.put(nothing(0, size=(2000, 3000))) for _ in range(10)]
    gate.open.set()
    assert sum(taken) in (4, 5)
    video.close(drop_unsaved=lambda: True)


@pytest.fixture
def crowded(tmp_path):
    """A saver of a file's 50 frames whose gate is closed, and what a thread that waits for room has been answered."""
    gate, done = Gate(), []
    video = saver(tmp_path / "out.avi", painter=gate)
    thread = threading.Thread(target=lambda: done.extend(video.put(nothing(index % 30)) for index in range(50)))
    thread.start()
    assert gate.entered.wait(20)
    wait_until(lambda: len(done) >= 32)
    yield video, gate, done, thread
    thread.join(20)


def test_any_other_source_waits_for_room(crowded):
    video, gate, done, thread = crowded
    time.sleep(0.1)
    assert len(done) <= 34
    gate.open.set()
    thread.join(20)
    video.close()
    assert done == [True] * 50
    assert video.saved == 50


def test_whoever_waits_for_room_is_let_go_at_the_end(crowded):
    video, gate, done, thread = crowded
    gate.open.set()
    video.close(drop_unsaved=lambda: True)
    thread.join(20)
    assert len(done) == 50
    assert video.saved + video.missed == 50
    assert not video.put(nothing(0))
    assert len(read_video(video.path)[0]) == video.saved >= 1


def test_unsaved_frames_are_dropped_while_it_is_finished(tmp_path):
    """The second Ctrl-C, with many frames still to be encoded."""
    gate, asked = Gate(), []
    video = saver(tmp_path / "out.avi", painter=gate)
    for index in range(20):
        video.put(nothing(index))
    assert gate.entered.wait(20)

    def drop():
        asked.append(time.monotonic())
        if len(asked) == 4:
            gate.open.set()  # frames would now be encoded one by one
        return len(asked) >= 3

    video.close(drop_unsaved=drop)
    assert len(asked) >= 3
    assert video.missed >= 18
    assert len(read_video(tmp_path / "out.avi")[0]) == video.saved == 20 - video.missed


def test_an_error_ends_the_video_and_nothing_else(tmp_path, caplog):
    class Broken(Painter):
        def paint(self, result):
            if result.frame.index == 3:
                time.sleep(0.2)  # others wait meanwhile
                raise RuntimeError("out of\nink")
            return super().paint(result)

    video = saver(tmp_path / "out.webm", painter=Broken(ViewSettings()))
    for index in range(10):
        video.put(nothing(index))
    wait_until(lambda: video.error is not None)
    assert not video.put(nothing(10))
    with pytest.raises(MobiledetError, match=r"out of ink; .*out\.webm"):
        video.close()
    video.close()
    assert (video.saved, video.missed, video.thinned) == (3, 8, 0)
    assert numbers(tmp_path / "out.webm") == [0, 1, 2]
    assert caplog.text.count("out of ink") == 1


def test_it_ends_before_the_disk_is_full(tmp_path, monkeypatch):
    room = [2**40]
    monkeypatch.setattr(video_file, "free_bytes", lambda path: room[0])
    monkeypatch.setattr(video_file, "LOOK_EVERY", -1)
    video = saver(tmp_path / "out.mp4")
    for index in range(5):
        video.put(nothing(index))
    wait_until(lambda: video.saved == 5)
    room[0] = 2**20
    video.put(nothing(5))
    wait_until(lambda: video.error is not None)
    with pytest.raises(MobiledetError, match=r"after 0\.2 s"):
        video.close()
    assert numbers(tmp_path / "out.mp4") == list(range(5))


RUN = """
import resource, sys, time
import numpy as np
from pathlib import Path
from mobiledet.errors import MobiledetError
from mobiledet.detections import Detections
from mobiledet.apps.live.frames import Frame, Result
from mobiledet.apps.live.save.json_lines import JsonLines, detection_record
from mobiledet.apps.live.save.video_saver import VideoSaver
from mobiledet.apps.live.view import Painter, ViewSettings
if limit := int(sys.argv[2]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
settings, path, rng = ViewSettings(), Path(sys.argv[1]), np.random.default_rng(0)
nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
video = VideoSaver(path, painter=Painter(settings), fps=30.0, live=limit > 0)
log = JsonLines(path.with_suffix(".jsonl"))
index = 0
# OpenCV 4 doesn't say that a frame wasn't written; then it shows at the end.
while not limit or log.error is None or (video.error is None and video.saved < 150):
    image = rng.integers(0, 255, (120, 160, 3), np.uint8)
    result = Result(Frame(image, index, time.monotonic(), index / 30), nothing, time.monotonic())
    video.put(result)
    log.put(detection_record(result, settings))
    index += 1
    if limit:
        time.sleep(0.0005)
for close in (lambda: video.close(drop_unsaved=lambda: True), log.close):
    try:
        close()
    except MobiledetError as error:
        print(error)
"""


def run(path, limit=0):
    command = [sys.executable, "-c", RUN, str(path), str(limit)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def whole_lines(path):
    """Lines of a log, none of which is cut off or missing."""
    lines = records(path)
    assert [line["frame"] for line in lines] == list(range(len(lines)))
    return len(lines)


def test_after_a_kill_nothing_has_the_name(tmp_path):
    log = tmp_path / "out.jsonl"
    with run(tmp_path / "out.mp4") as process:
        wait_until(lambda: any(file.stat().st_size > 40_000 for file in tmp_path.glob(".*.partial.mp4")))
        wait_until(lambda: log.exists() and log.stat().st_size > 2000)
        process.kill()
        process.communicate(timeout=30)
    assert not (tmp_path / "out.mp4").exists()
    assert whole_lines(log)


@pytest.mark.skipif(sys.platform != "linux", reason="limits the size of files")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_full_disk_is_reported(tmp_path, ending):
    with run(tmp_path / f"out{ending}", limit=60_000) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    video, log = out.splitlines()
    assert video.startswith(str(tmp_path / f"out{ending}"))
    assert "is the disk or a quota full?" in video
    assert "can't be written after line" in log
    assert not (tmp_path / f"out{ending}").exists() or read_video(tmp_path / f"out{ending}")[0]
    assert whole_lines(tmp_path / "out.jsonl") > 100


def test_what_the_log_says(tmp_path):
    path = tmp_path / "out.jsonl"
    log = JsonLines(path)
    before = time.time()
    one = result(3, grabbed=time.monotonic() - 5, name="ä.jpg", items=((1, 0.87654321), (2, 0.75), (1, 0.3)))
    one = replace(one, detections=replace(one.detections, category_ids=(17,)))
    one.detections.boxes[0] = 10, 20, 30.26, 40.04
    log.put(detection_record(one, ViewSettings(threshold=0.5)))
    log.close()
    log.close()
    (line,) = path.read_text(encoding="utf-8").splitlines()
    assert "ä.jpg" in line
    record = json.loads(line)
    moment = datetime.strptime(record.pop("time"), "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    assert moment.timestamp() == pytest.approx(before - 5, abs=3)
    cat = {"name": "cat", "category_id": 17, "label": 1, "score": 0.876543, "box": [10.0, 20.0, 30.26, 40.04]}
    dog = {"name": "dog", "category_id": None, "label": 2, "score": 0.75, "box": [4.0, 2.0, 24.0, 12.0]}
    numbers = {"frame": 3, "position": 0.1, "age_ms": 10.0, "height": 48, "width": 64}
    assert record == {**numbers, "name": "ä.jpg", "detections": [cat, dog]}


def test_lines_are_there_at_once(tmp_path):
    path = tmp_path / "out.jsonl"
    log = JsonLines(path)
    for count in range(1, 4):
        log.put(detection_record(nothing(count), ViewSettings()))
        wait_until(lambda count=count: log.lines == count)
        assert [record["frame"] for record in records(path)] == list(range(1, count + 1))
    log.close()
    log.put({})
    assert log.missed == 1


def test_a_log_of_odd_things(tmp_path):
    path = tmp_path / "out.jsonl"
    log = JsonLines(path)
    one = result(0, name=os.fsdecode(b"\xff.jpg"), items=((1, 0.9),))
    one.detections.boxes[0, 2] = np.inf
    log.put(detection_record(one, ViewSettings()))
    log.close()
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["detections"] == []
    assert os.fsencode(record["name"]) == b"\xff.jpg"


def test_a_log_overwrites_nothing(tmp_path):
    path = tmp_path / "out.jsonl"
    path.write_text("precious")
    with pytest.raises(MobiledetError, match="exists already"):
        JsonLines(path)
    with pytest.raises(MobiledetError, match="it is a file"):
        JsonLines(path / "a.jsonl")
    assert path.read_text() == "precious"


def test_a_slow_encoder_lowers_the_rate(tmp_path, encoding):
    encoding(50.0)
    video = saver(tmp_path / "out.avi", live=True)
    feed(video, [0.0, 0.5, 1.0])
    video.close()
    images, fps = read_video(tmp_path / "out.avi")
    assert fps == pytest.approx(8), "0.4 of a core"
    assert len(images) == fps + 1


def test_encoding_is_really_timed(tmp_path):
    file = VideoFile(Path(tmp_path / "a.webm"))
    assert 0 < file.milliseconds(np.zeros((48, 64, 3), np.uint8)) < 1000
    assert list(tmp_path.iterdir()) == []


def test_options_meant_for_a_stream_do_not_spoil_the_check(tmp_path, monkeypatch):
    options = "video_codec;mjpeg|input_format;mpjpeg"
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", options)
    saved(tmp_path / "out.mp4", 5)
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == options
    monkeypatch.delenv("OPENCV_FFMPEG_CAPTURE_OPTIONS")
    assert numbers(tmp_path / "out.mp4") == list(range(5))


def test_what_cannot_be_checked_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(video_file, "count_frames", lambda path: -1)
    with pytest.raises(MobiledetError, match="partial") as caught:
        saved(tmp_path / "out.mp4")
    (kept,) = tmp_path.iterdir()
    assert numbers(kept) == [0]
    assert str(caught.value).count(str(kept)) == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are text elsewhere")
def test_a_name_that_opencv_crashes_at(tmp_path):
    with pytest.raises(MobiledetError, match=r"'v\\udcff\.avi'"):
        VideoFile(tmp_path / os.fsdecode(b"v\xff.avi"))


def test_a_long_name_in_large_letters(tmp_path):
    saved(tmp_path / ("\u732b" * 80 + ".mp4"), 2)
    assert numbers(next(tmp_path.iterdir())) == [0, 1]


def test_frames_missing_in_the_log_are_reported(tmp_path, monkeypatch):
    hold = threading.Event()
    write = JsonLines._write
    monkeypatch.setattr(json_lines, "WAITING", 5)
    monkeypatch.setattr(JsonLines, "_write", lambda self, line: hold.wait(20) and write(self, line))
    log = JsonLines(tmp_path / "out.jsonl")
    for _ in range(20):
        log.put({})
    hold.set()
    with pytest.raises(MobiledetError, match=rf"{log.missed} detections .* {20 - log.missed}$"):
        log.close()
    assert log.missed >= 13
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == log.lines == 20 - log.missed

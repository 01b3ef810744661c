"""Video files and folders of images: every frame once, or by a clock; damage is counted."""

import logging
import shutil
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from live_parts import write_video

from mobiledet.apps.live.sources import reading
from mobiledet.apps.live.sources.base import EndOfSource
from mobiledet.apps.live.sources.images import ImageSource
from mobiledet.apps.live.sources.reading import ReadResult, ReadSource
from mobiledet.apps.live.sources.video_files import VideoFileSource
from mobiledet.data.image_headers import MAX_PIXELS_VARIABLE
from mobiledet.data.videos import read_video
from mobiledet.errors import SourceError

LONG = 20.0


def bar(number, size=(48, 64)):
    """Frame n has a bar of red that grows with n, on blue."""
    image = np.zeros((*size, 3), np.uint8)
    image[...] = (0, 0, 200)
    image[:, : 4 * number + 4] = (200, 0, 0)
    return image


def number_of(image):
    return round(int((image[24, :, 0] > 100).sum()) / 4) - 1


@pytest.fixture
def video(tmp_path):
    """``video(10, fps=20)``: a file of that many frames."""
    return lambda count=10, fps=20.0: write_video(tmp_path / "clip.avi", [bar(n) for n in range(count)], fps)


@pytest.fixture
def run():
    """``run(source)``: started; closed at the end, and its thread gone."""
    made = []

    def begin(source):
        made.append(source)
        source.start()
        return source

    yield begin
    for source in made:
        source.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "reader"]


def everything(source, limit=1000):
    frames, deadline = [], time.monotonic() + LONG
    while len(frames) < limit:
        assert time.monotonic() < deadline
        try:
            if (frame := source.take(1)) is not None:
                frames.append(frame)
        except EndOfSource:
            break
    return frames


def test_every_frame_once_in_colour(video, run):
    source = run(VideoFileSource(video(10)))
    assert not source.live
    frames = everything(source)
    assert [number_of(frame.image) for frame in frames] == list(range(10))
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.position for frame in frames] == pytest.approx([n / 20 for n in range(10)])
    assert frames[0].image[5, 1].argmax() == 0  # red
    assert frames[0].image[5, 60].argmax() == 2  # blue
    state = source.state()
    assert (state.captured, state.dropped, state.skipped, state.frames) == (10, 0, 0, 10)
    assert (state.size, state.fps) == ((48, 64), pytest.approx(20))
    with pytest.raises(EndOfSource):
        source.take(0)


def test_it_waits_for_whoever_takes(video, run):
    source = run(VideoFileSource(video(12)))
    time.sleep(0.3)
    assert source.state().captured <= 5  # a few ahead
    frames = everything(source)
    assert len(frames) == 12
    assert all(frame.grabbed <= time.monotonic() for frame in frames)


def test_by_its_own_clock(video, run):
    source = run(VideoFileSource(video(10, fps=20), realtime=True))
    assert source.live
    frames = everything(source)
    state = source.state()
    assert len(frames) + state.dropped == state.captured == 10
    first = frames[0]
    late = [frame.grabbed - first.grabbed - (frame.position - first.position) for frame in frames]
    assert min(late) >= -1e-6
    assert min(late[1:]) < 1e-6  # stamped when it was due, however late it came
    assert all(frame.grabbed <= time.monotonic() for frame in frames)
    assert frames[-1].grabbed - first.grabbed >= 0.4


def test_by_a_clock_the_newest_wins(video, run):
    source = run(VideoFileSource(video(12, fps=50), realtime=True))
    first = source.take(LONG)
    deadline = time.monotonic() + LONG
    while source.state().captured < first.index + 9:
        assert time.monotonic() < deadline
        time.sleep(0.005)
    frame = source.take(1)
    assert frame.index >= first.index + 8
    assert number_of(frame.image) == frame.index
    assert source.state().dropped >= 7


def test_a_clock_starts_when_somebody_wants_a_frame(video, run):
    source = run(VideoFileSource(video(12, fps=2), realtime=True))
    time.sleep(0.7)  # a model is loaded meanwhile
    frame = source.take(LONG)
    assert frame.index == 0
    assert time.monotonic() - frame.grabbed < 0.65, "due when it was wanted"


def test_by_a_faster_clock(video, run):
    source = run(VideoFileSource(video(10, fps=1), realtime=True, fps=100))
    assert source.state().fps == 100
    start = time.monotonic()
    assert everything(source)[-1].position == pytest.approx(0.09)
    assert time.monotonic() - start < 8  # 9 s by its own


def test_pause_stops_the_clock(video, run):
    source = run(VideoFileSource(video(10, fps=20), realtime=True))
    first = source.take(LONG)
    source.pause(True)
    source.pause(True)
    while source.take(0.2) is not None:
        pass
    stood = source.state().captured
    assert source.take(0.5) is None
    assert source.state().captured == stood < 10
    source.pause(False)
    last = everything(source)[-1]
    assert last.index == 9
    assert last.grabbed - first.grabbed >= 0.45 + 0.5


def test_a_paused_file_can_be_closed(video, run):
    source = run(VideoFileSource(video(10), realtime=True))
    source.pause(True)
    source.close()
    source.close()
    everything(source)
    with pytest.raises(EndOfSource):
        source.take(0)


def test_again_and_again(video, run):
    source = run(VideoFileSource(video(4), loop=True))
    frames = everything(source, limit=10)
    assert [number_of(frame.image) for frame in frames] == [0, 1, 2, 3, 0, 1, 2, 3, 0, 1]
    assert [frame.index for frame in frames] == list(range(10))
    assert [frame.position for frame in frames] == pytest.approx([n / 20 for n in range(10)])
    assert source.state().frames is None


def test_closing_while_it_waits_for_room(video, run):
    source = run(VideoFileSource(video(30)))
    source.take(LONG)  # the fixture sees that its thread ends


def damage(path, numbers):
    """Make some frames of a Motion JPEG file undecodable."""
    data = bytearray(path.read_bytes())
    starts, at = [], 0
    while (at := data.find(b"\xff\xd8\xff", at)) >= 0:
        starts.append(at)
        at += 3
    for number in numbers:
        data[starts[number] : starts[number] + 300] = bytes(300)
    path.write_bytes(data)


def test_damaged_frames_are_skipped_and_counted(video, run):
    path = video(12)
    damage(path, [3, 7, 8])
    source = run(VideoFileSource(path))
    frames = everything(source)
    found = [number_of(frame.image) for frame in frames]
    # OpenCV loses a good frame with a damaged one, so that not all of the others arrive.
    assert found == sorted(set(found) - {3, 7, 8})
    assert found[:3] == [0, 1, 2]
    assert found[-1] == 11
    assert source.state().skipped >= 2
    assert source.state().captured == len(frames) >= 7
    assert frames[-1].position > 0.35  # time goes on where frames are missing


def test_a_file_without_one_good_frame(video, run):
    path = video(5)
    damage(path, range(5))
    source = VideoFileSource(path)
    with pytest.raises(SourceError, match=r"clip\.avi has no frame .*, MJPG,"):
        everything(run(source))


@pytest.mark.parametrize(
    ("ending", "written", "changes", "codec"),
    [
        ("mp4", "mp4v", {b"mp4v": b"dvh1", b"esds": b"dvcC"}, "dvh1"),
        ("mov", "MJPG", {b"jpeg": b"zzz "}, "zzz"),
        ("mp4", "mp4v", {b"mp4v": b"encv", b"esds": b"sinf"}, "DRM"),
        ("avi", "MJPG", {b"MJPG": b"zzzz"}, "zzzz"),
        ("avi", "MJPG", {b"MJPG": b"apch"}, "apch"),  # ProRes, which opens and doesn't decode
        ("mkv", "MJPG", {b"V_MJPEG": b"V_ZZ/ZZ"}, "V_ZZ/ZZ"),
        ("mkv", "HFYU", {b"HFYU": b"zzzz"}, "zzzz"),  # as AVI has it
        ("webm", "VP80", {b"V_VP8": b"V_AV9"}, "V_AV9"),
        ("wmv", "WMV2", {b"WMV2": b"WVP9"}, "WVP9"),
        ("flv", "FLV1", {b"\x12\x00\x00\x84": b"\x1e\x00\x00\x84"}, "number 14"),
        ("flv", "FLV1", {b"\x12\x00\x00\x84": b"\x90zzzz"}, "zzzz"),
        ("ts", "mp4v", {b"\x10\xe1\x00\xf0": b"\x33\xe1\x00\xf0", b"\0\0\1": b"\0\0\2"}, "H.266"),
    ],
)
def test_the_codec_that_is_missing(tmp_path, run, ending, written, changes, codec):
    path = tmp_path / f"a clip.{ending}"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*written), 10, (64, 48))
    for number in range(5):
        writer.write(bar(number))
    writer.release()
    data = path.read_bytes()
    for old, new in changes.items():
        assert old in data
        data = data.replace(old, new)
    if ending == "mov":  # long, and its header is at the end
        at, size = int.from_bytes(data[:4], "big"), 17 << 20
        data = data[:at] + size.to_bytes(4, "big") + b"free" + bytes(size - 8) + data[at:]
    path.write_bytes(data)
    command = f"ffmpeg -i '{path}' -c:v libx264 '{tmp_path / 'a clip_h264.mp4'}'"
    for read in (lambda: list(read_video(path)), lambda: everything(run(VideoFileSource(path)))):
        with pytest.raises(SourceError, match=codec) as caught:
            read()
        assert (command in str(caught.value)) is (codec != "DRM")


def test_a_file_that_was_cut_short(video, run, caplog):
    path = video(40)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING):
        frames = everything(run(VideoFileSource(path)))
    assert 5 < len(frames) < 30
    (message,) = [record.getMessage() for record in caplog.records]
    assert "of 40 frames; it seems to be cut short" in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"some words, no video\n", "is text"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (bytes(range(256)) * 20, "is not a video or an image"),
        (b"\0\0\0\x20ftypisom" + bytes(3000), "cut short, damaged"),
        (b"\0\0\0\x08wide" + bytes(3000), "cut short, damaged"),
    ],
)
def test_files_that_are_not_videos(tmp_path, content, words):
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    source = VideoFileSource(path)
    with pytest.raises(SourceError, match=words) as caught:
        source.start()
    assert "clip.mp4" in str(caught.value)
    source.close()


def test_an_implausible_frame_rate_is_ignored(video, run):
    source = run(VideoFileSource(video(4, fps=1000)))
    assert source.state().fps is None
    positions = [frame.position for frame in everything(source)]
    assert positions == sorted(set(positions))


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "images"
    path.mkdir()
    for number, size in enumerate([(48, 64), (90, 120), (48, 80)]):
        cv2.imwrite(str(path / f"{number}.png"), cv2.cvtColor(bar(number, size), cv2.COLOR_RGB2BGR))
    return path


def test_a_folder_of_images_of_any_size(folder, run):
    source = run(ImageSource(folder))
    frames = everything(source)
    assert [(frame.name, frame.image.shape[:2]) for frame in frames] == [
        ("0.png", (48, 64)),
        ("1.png", (90, 120)),
        ("2.png", (48, 80)),
    ]
    assert [frame.position for frame in frames] == [0, 1, 2]
    assert frames[0].image[5, 1].argmax() == 0
    assert (source.state().frames, source.state().fps) == (3, None)


def test_a_broken_image_between_good_ones(folder, run, caplog):
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:50])
    with caplog.at_level(logging.WARNING):
        source = run(ImageSource(folder, loop=True))
        frames = everything(source, limit=5)
    assert [frame.name for frame in frames] == ["0.png", "2.png", "0.png", "2.png", "0.png"]
    assert source.state().skipped == 1
    assert len(caplog.records) == 1
    assert "1.png" in caplog.text


def test_frames_of_more_pixels_than_allowed(folder, video, run, caplog, monkeypatch):
    clip = video()
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, str(48 * 64 - 1))
    with pytest.raises(SourceError, match="48 pixels"):
        VideoFileSource(clip).start()
    with pytest.raises(SourceError, match="48 pixels"):
        next(read_video(clip))
    monkeypatch.setenv(MAX_PIXELS_VARIABLE, str(48 * 64))
    assert len(everything(run(VideoFileSource(clip)))) == 10
    assert [frame.name for frame in everything(run(ImageSource(folder)))] == ["0.png"]
    assert "1.png has 120 x 90 pixels" in caplog.text


def test_only_broken_images(folder, run):
    for path in folder.iterdir():
        path.write_bytes(b"nothing")
    source = run(ImageSource(folder))
    with pytest.raises(SourceError, match=r"none of the 3 images can be read; the first: .*0\.png"):
        everything(source)
    assert not source.state().connected


def test_one_image(folder, run):
    assert len(everything(run(ImageSource(folder / "0.png")))) == 1
    assert len(everything(run(ImageSource(folder / "0.png", loop=True)), limit=4)) == 4


def test_images_by_a_clock(folder, run):
    source = run(ImageSource(folder, realtime=True, fps=20))
    assert source.state().fps == 20
    frames = everything(source)
    assert frames[-1].name == "2.png"
    assert frames[-1].position == pytest.approx(0.1)


def test_a_folder_without_images(tmp_path):
    with pytest.raises(SourceError):
        ImageSource(tmp_path).start()


def test_images_that_vanish(folder, run):
    source = ImageSource(folder)
    source.open()
    shutil.rmtree(folder)
    source.open = lambda: None
    with pytest.raises(SourceError, match="none of the 3"):
        everything(run(source))


def test_a_real_clip(real_data, run):
    source = run(VideoFileSource(min((real_data / "videos").glob("*.mp4"))))
    assert (len(everything(source, limit=60)), source.state().skipped) == (60, 0)


# By a clock, when reading takes longer than the file plays.


class Scripted(ReadSource):
    """Its frame ``n`` is due at ``n * interval`` and takes ``seconds[n]`` to be found."""

    def __init__(self, seconds, interval):
        super().__init__(Path("scripted"), realtime=True)
        self.seconds, self.interval = seconds, interval

    def open(self):
        pass

    def read(self):
        for number, seconds in enumerate(self.seconds):
            time.sleep(seconds)
            yield ReadResult(lambda: np.zeros((4, 6, 3), np.uint8), number * self.interval)


def test_what_is_always_late_is_shown_now_and_then(monkeypatch, run):
    monkeypatch.setattr(reading, "HOPELESS_S", 1000.0)
    source = run(Scripted([0.03] * 60, 0.01))
    shown = everything(source)
    assert 5 <= len(shown) <= 25, "one of six, and the first"
    assert source.state().captured == 60
    assert len(shown) + source.state().dropped == 60


def test_after_a_standstill_the_clock_is_set_back(monkeypatch, run):
    monkeypatch.setattr(reading, "HOPELESS_S", 0.5)
    start = time.monotonic()
    assert len(everything(run(Scripted([0, 0, 0, 1.2, *[0] * 9], 0.12)))) >= 11, "13 where nothing else is slow"
    assert time.monotonic() - start > 2.2


@pytest.mark.parametrize("seconds", [[], [0.0]])
def test_few_frames(seconds, run):
    assert [frame.index for frame in everything(run(Scripted(seconds, 0.01)))] == list(range(len(seconds)))

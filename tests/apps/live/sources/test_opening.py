"""From what a user writes to the source that is meant, or to an error that helps."""

import os
import sys

import cv2
import numpy as np
import pytest

from mobiledet.apps.live.sources.base import SourceOptions
from mobiledet.apps.live.sources.capture import CaptureSource
from mobiledet.apps.live.sources.images import ImageSource
from mobiledet.apps.live.sources.opening import open_source
from mobiledet.apps.live.sources.video_files import VideoFileSource
from mobiledet.errors import SourceError


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working folder with an image, files, folders and a pipe."""
    monkeypatch.chdir(tmp_path)
    cv2.imwrite("still.png", np.zeros((900, 700, 3), np.uint8))
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x20ftypisom" + bytes(99))
    (tmp_path / "empty.mp4").write_bytes(b"")
    (tmp_path / "folder").mkdir()
    (tmp_path / "0").mkdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo("pipe.mp4")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "name", "kind", "target"),
    [
        ("0", "camera 0", "camera", "0"),
        ("007", "camera 7", "camera", "7"),
        ("camera:1", "camera 1", "camera", "1"),
        ("camera", "camera 0", "camera", "0"),
        ("Webcam", "camera 0", "camera", "0"),
        ("camera:/dev/video3", "/dev/video3", "camera", "/dev/video3"),
        ("/dev/video2", "/dev/video2", "camera", "/dev/video2"),
        ("/dev/v4l/by-id/usb-x", "/dev/v4l/by-id/usb-x", "camera", "/dev/v4l/by-id/usb-x"),
        ("picamera2", "picamera2:0", "picamera2", "0"),
        ("picamera2:1", "picamera2:1", "picamera2", "1"),
        ("rtsp://me:se@cret@cam:554/1?pw=x", "rtsp://cam:554/1?...", "stream", "rtsp://me:se@cret@cam:554/1?pw=x"),
        (" http://[::1]:80/a ", "http://[::1]:80/a", "stream", "http://[::1]:80/a"),
        ("udp://@:1234", "udp://:1234", "stream", "udp://@:1234"),
    ],
)
def test_cameras_and_streams(here, text, name, kind, target):
    source = open_source(text, SourceOptions(stall_s=5.0))
    assert isinstance(source, CaptureSource)
    assert (source.name, source.live) == (name, True)
    assert (source.job.kind, source.job.target) == (kind, target)
    source.close()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("still.png", ImageSource),
        ("folder", ImageSource),
        ("./0", ImageSource),
        ("clip.mp4", VideoFileSource),
        ("file://HERE/clip.mp4", VideoFileSource),
        ("file://HERE/still.png", ImageSource),
    ],
)
def test_files(here, text, kind):
    source = open_source(text.replace("HERE", here.as_uri().removeprefix("file://")), SourceOptions(loop=True))
    assert type(source) is kind
    assert not source.live
    assert open_source(text.replace("HERE", here.as_uri().removeprefix("file://")), SourceOptions(realtime=True)).live


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no source is named"),
        ("  ", "no source is named"),
        ("-1", "'-1' is not a camera index; write camera:0"),
        ("camera:x", "write camera:0"),
        ("camera:-1", "write camera:0"),
        ("picamera2:x", "write picamera2"),
        ("picamera", "did you mean 'picamera2'?"),
        ("wbcam", "did you mean 'webcam'?"),
        ("clop.mp4", "did you mean 'clip.mp4'?"),
        ("nowhere/clip.mp4", "there is no folder 'nowhere'"),
        ("something else", "name one of: camera:0"),
        ("*.jpg", "name the folder"),
        ("empty.mp4", "is empty"),
        ("clip.mp4/x", "there is no folder 'clip.mp4'"),
        ("a\0b", "null character"),
        ("x" * 5000, "can't be read: File name too long"),
        ("rtps://cam/1", "did you mean rtsp://?"),
        ("rtsp:/cam/1", "two slashes"),
        ("rstp://cam/1", "did you mean rtsp://?"),
        ("htpp://cam/1", "did you mean http://?"),
        ("gopher://cam/1", "streams begin with rtsp"),
        ("rtsp://", "names no host"),
        ("rtsp://cam:port/1", "not an address"),
        ("http://[::1/", "not an address"),
        ("file://elsewhere/clip.mp4", "another machine"),
        ("file:///nowhere/clip.mp4", "there is no folder"),
    ],
)
def test_texts_that_name_nothing(here, text, words):
    with pytest.raises(SourceError) as caught:
        open_source(text)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes")
def test_a_pipe_is_not_waited_for(here):
    with pytest.raises(SourceError, match="is a pipe"):
        open_source("pipe.mp4")
    with pytest.raises(SourceError, match="not an ordinary file"):
        open_source("/dev/null")


@pytest.mark.parametrize(
    ("text", "options", "words"),
    [
        ("clip.mp4", {"mjpg": True}, "--mjpg is for USB cameras, not for video files; leave it out"),
        ("clip.mp4", {"width": 640, "height": 480}, "--width is for USB cameras and Picamera2 cameras, not"),
        ("clip.mp4", {"stall_s": 2.0}, "--stall is for USB cameras and Picamera2 cameras and streams, not"),
        ("folder", {"fps": 2.0}, "add --realtime"),
        ("0", {"realtime": True}, "--realtime is for images and video files, not for USB cameras"),
        ("rtsp://cam", {"loop": True}, "--loop is for images and video files, not for streams"),
        ("rtsp://me:secret@cam", {"fps": 5.0}, "not for streams"),
        ("picamera2", {"mjpg": True}, "--mjpg is for USB cameras"),
        ("0", {"width": 640}, "give both"),
        ("0", {"width": 0, "height": 0}, "--width 0 must be between"),
        ("0", {"width": 640, "height": -480}, "--height -480 must be between"),
        ("0", {"fps": float("nan")}, "--fps nan must be between"),
        ("0", {"fps": 0.0}, "--fps 0 must be between"),
        ("0", {"stall_s": 0.0}, "--stall 0 must be between"),
        ("0", {"stall_s": float("inf")}, "--stall inf must be between"),
    ],
)
def test_options_that_make_no_sense(here, text, options, words):
    with pytest.raises(SourceError) as caught:
        open_source(text, SourceOptions(**options))
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def test_options_reach_the_camera(here):
    source = open_source("0", SourceOptions(width=640, height=480, fps=15.0, mjpg=True, stall_s=4.0))
    job = source.job
    assert (job.width, job.height, job.fps, job.mjpg) == (640, 480, 15.0, True)


@pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux's")
def test_a_camera_that_is_not_there():
    source = open_source("camera:97")
    with pytest.raises(SourceError, match="/dev/video97"):
        source.start()
    source.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="names are text elsewhere")
def test_a_video_whose_name_opencv_crashes_at(tmp_path):
    path = tmp_path / os.fsdecode(b"c\xff.mp4")
    path.write_bytes(b"\0\0\0\x18ftypmp42")
    source = open_source(str(path))
    with pytest.raises(SourceError, match=r"'c\\udcff\.mp4' is not UTF-8"):
        source.start()

"""Which cameras there are, what is reported when one is missing, and how they are set."""

import os
import struct
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from mobiledet.apps.live.sources import cameras
from mobiledet.apps.live.sources.cameras import Camera, camera_problem, list_cameras, no_camera_message
from mobiledet.apps.live.sources.capture_devices import CaptureFailedError, CaptureJob
from mobiledet.apps.live.sources.capture_worker import open_device
from mobiledet.data.videos import usable_fps

linux = pytest.mark.skipif(sys.platform != "linux", reason="V4L2 is Linux's")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """``machine({"video0": ("Webcam", 0)})``: folders as Linux shows them; name and index of each device."""

    def make(devices, present=None):
        sysfs, dev = tmp_path / "sys", tmp_path / "dev"
        sysfs.mkdir()
        dev.mkdir()
        for device, (name, index) in devices.items():
            (sysfs / device).mkdir()
            (sysfs / device / "name").write_text(f"{name}\n")
            (sysfs / device / "index").write_text(f"{index}\n")
        for device in devices if present is None else present:
            (dev / device).write_text("")
        monkeypatch.setattr(cameras, "DEVICES", dev)
        return sysfs, dev

    return make


def test_cameras_are_listed_by_number_without_their_second_devices(machine):
    sysfs, dev = machine({"video10": ("B", 0), "video2": ("A", 0), "video3": ("A", 1), "v4l-subdev0": ("lens", 0)})
    found = list_cameras(sysfs, dev)
    assert [(camera.path, camera.name, camera.problem) for camera in found] == [
        (f"{dev}/video2", "A", ""),
        (f"{dev}/video10", "B", ""),
    ]
    assert [camera.source for camera in found] == ["camera:2", "camera:10"]


def test_no_cameras_and_no_folders(tmp_path):
    assert list_cameras(tmp_path / "a", tmp_path / "b") == []


def test_a_device_that_a_container_was_not_given(machine):
    (camera,) = list_cameras(*machine({"video0": ("Webcam", 0)}, present=[]))
    assert "container" in camera.problem


def test_no_permission(machine, monkeypatch):
    folders = machine({"video0": ("Webcam", 0)})
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (camera,) = list_cameras(*folders)
    assert "sudo usermod -aG video" in camera.problem
    message = no_camera_message(camera.path, [camera])
    assert "Webcam" in message
    assert "usermod" in message


def test_a_raspberry_pi_camera_needs_libcamera(machine):
    found = list_cameras(*machine({"video0": ("unicam-image", 0), "video1": ("bcm2835-isp-output0", 0)}))
    assert all("libcamera" in camera.problem for camera in found)
    message = no_camera_message("/dev/video7", found)
    assert "mobiledet webcam --source picamera2" in message
    assert "\n" not in message


@linux
@pytest.mark.parametrize(
    ("everything", "of_device", "listed"),
    [
        (0x84200001, 0x04200001, True),
        (0x84A00001, 0x04A00000, False),  # metadata of a camera
        (0x04200001, 0, True),  # before Linux 3.4 there were no device_caps
        (0x84201000, 0x04201000, True),  # multi-planar
        (0x80000002, 0x00000002, False),  # an output
    ],
)
def test_capabilities_decide(machine, monkeypatch, everything, of_device, listed):
    import fcntl

    def ioctl(device, request, answer):
        assert request == 0x80685600
        assert len(answer) == 104
        struct.pack_into("II", answer, 84, everything, of_device)
        return 0

    monkeypatch.setattr(fcntl, "ioctl", ioctl)
    assert bool(list_cameras(*machine({"video0": ("Webcam", 0)}))) is listed


def test_the_message_names_what_will_work():
    message = no_camera_message("/dev/video0", [Camera("/dev/video2", "USB Webcam")])
    assert message == ("/dev/video0 is not a camera; what will work: mobiledet webcam --source camera:2 (USB Webcam)")


def test_the_message_on_a_machine_without_cameras(machine):
    machine({})
    message = no_camera_message("/dev/video0", [])
    assert "has no camera" in message
    assert "mobiledet webcam --source clip.mp4" in message


@linux
def test_problems_of_odd_devices(tmp_path):
    (tmp_path / "file").write_text("")
    assert "is not a device" in camera_problem(str(tmp_path / "file"), [])
    assert "doesn't exist" in camera_problem(str(tmp_path / "none"), []) or "no camera" in camera_problem("x", [])
    assert "is not a camera" in camera_problem("/dev/null", [Camera("/dev/video2", "USB")])
    assert camera_problem("/dev/null", [Camera("/dev/null", "USB")]) == ""


# Cameras as the capture process opens them, with a made-up driver.


class Driver:
    """Stands for cv2.VideoCapture."""

    opened = True

    def __init__(self, *arguments):
        self.arguments, self.settings, self.stamp, self.gives = arguments, [], 0.0, [True]
        Driver.last = self

    def isOpened(self):  # noqa: N802 - OpenCV's name
        return self.opened

    def set(self, setting, value):
        self.settings.append((setting, value))

    def get(self, setting):
        import cv2

        return {cv2.CAP_PROP_FRAME_WIDTH: 640, cv2.CAP_PROP_FRAME_HEIGHT: 480, cv2.CAP_PROP_FPS: 30}.get(
            setting, self.stamp if setting == cv2.CAP_PROP_POS_MSEC else float(int.from_bytes(b"YUYV", "little"))
        )

    def getBackendName(self):  # noqa: N802
        return "V4L2"

    def grab(self):
        return self.gives.pop(0) if self.gives else True

    def retrieve(self, buffer):
        return True, np.zeros((480, 640, 3), np.uint8)


@pytest.fixture
def driver(monkeypatch):
    import cv2

    monkeypatch.setattr(cv2, "VideoCapture", Driver)
    monkeypatch.setattr(Driver, "opened", True)
    return Driver


JOB = CaptureJob("camera", "3")


@linux
def test_a_camera_is_set_before_it_is_used(driver):
    import cv2

    device = open_device(replace(JOB, width=1280, height=720, fps=60.0, mjpg=True))
    assert driver.last.arguments == (3, cv2.CAP_V4L2)
    assert driver.last.settings == [
        (cv2.CAP_PROP_FOURCC, cv2.VideoWriter.fourcc(*"MJPG")),
        (cv2.CAP_PROP_FRAME_WIDTH, 1280),
        (cv2.CAP_PROP_FRAME_HEIGHT, 720),
        (cv2.CAP_PROP_FPS, 60.0),
        (cv2.CAP_PROP_BUFFERSIZE, 1),
    ]
    assert device.about() == {"size": [480, 640], "fps": 30.0, "note": "V4L2 YUYV"}
    assert not open_device(replace(JOB, target="97")).present()  # there is no /dev/video97
    assert device.lost() == "was unplugged"


@linux
@pytest.mark.parametrize(("back", "used"), [(0.04, True), (5.0, False), (-1.0, False)])
def test_the_drivers_stamp_counts_where_it_is_plausible(driver, back, used):
    device = open_device(JOB)
    stamp = time.monotonic() - back
    driver.last.stamp = stamp * 1e3
    before = time.monotonic()
    grabbed = device.grab()
    assert (grabbed == pytest.approx(stamp)) if used else (grabbed >= before)


def test_a_camera_in_use(driver, monkeypatch):
    monkeypatch.setattr(Driver, "opened", False)
    with pytest.raises(CaptureFailedError, match="can't be opened"):
        open_device(JOB)


def test_picamera2_is_explained_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(CaptureFailedError, match=r"sudo apt install python3-picamera2.*--system-site-packages"):
        open_device(CaptureJob("picamera2", "0"))


class Board:
    """Stands for picamera2.Picamera2."""

    def __init__(self, number):
        self.number = number

    @staticmethod
    def global_camera_info():
        return [{"Model": "imx708"}]

    def create_video_configuration(self, **settings):
        return settings

    def configure(self, settings):
        self.settings = settings

    def start(self):
        pass

    def camera_configuration(self):
        return self.settings

    def capture_array(self, stream):
        return np.full((480, 640, 3), (1, 2, 3), np.uint8)


def test_picamera2_as_its_manual_has_it(monkeypatch):
    module = type(sys)("picamera2")
    module.Picamera2 = Board
    monkeypatch.setitem(sys.modules, "picamera2", module)
    device = open_device(CaptureJob("picamera2", "0", width=640, height=480, fps=30.0))
    assert device.about()["size"] == [480, 640]
    assert time.monotonic() - device.grab() < 5
    assert device.retrieve()[0, 0].tolist() == [1, 2, 3]
    assert not device.bgr
    with pytest.raises(CaptureFailedError, match=r"it has: picamera2:0 \(imx708\)"):
        open_device(CaptureJob("picamera2", "1"))


@pytest.mark.parametrize(
    ("reported", "least", "used"),
    [
        (30, 0.01, 30.0),
        (480.0, 0.01, 480.0),
        (0.05, 0.01, 0.05),
        (0.05, 0.1, None),
        *((value, 0.01, None) for value in (None, 0, -1, 1000, 90000, float("nan"), float("inf"))),
    ],
)
def test_implausible_frame_rates_are_ignored(reported, least, used):
    assert usable_fps(reported, least) == used

"""No window where none can be opened: reported in one line, and never by an abort of the program."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time

import cv2
import pytest

from mobiledet.apps.live.show import display_check
from mobiledet.apps.live.show.display_check import DisplayProbe, quiet_qt

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="asks for X11")

CHECK = "from mobiledet.apps.live.show.display_check import *; print(*DisplayProbe().result(), sep='\\n')"


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    for name in ("WAYLAND_DISPLAY", "QT_QPA_PLATFORM", "QT_LOGGING_RULES"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def opencv_with_windows():
    if not cv2.currentUIFramework():
        pytest.skip("this OpenCV opens no windows")


def one_line(problem):
    assert problem
    assert "\n" not in problem
    assert len(problem) < 350
    assert "--serve" in problem
    return problem


@linux
@pytest.mark.usefixtures("opencv_with_windows")
@pytest.mark.parametrize(
    ("display", "words"),
    [
        (None, "DISPLAY isn't set"),
        ("", "DISPLAY isn't set"),
        (":9731", "':9731'"),
        ("localhost:9731.0", "localhost:9731.0"),
        (":99999999999", ":99999999999"),
        ("here", "'here'"),
        ("here:", "'here:'"),
        ("nowhere.invalid:0", "nowhere.invalid:0"),
    ],
)
def test_without_a_server(monkeypatch, display, words):
    if display is None:
        monkeypatch.delenv("DISPLAY", raising=False)
    else:
        monkeypatch.setenv("DISPLAY", display)
    assert words in one_line(DisplayProbe().result()[0])


def test_an_opencv_without_windows(monkeypatch):
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    with x_server_stub() as number:
        monkeypatch.setenv("DISPLAY", f"localhost:{number}")
        problem = one_line(DisplayProbe().result()[0])
    assert problem.endswith(": pip install --force-reinstall --no-deps opencv-python"), "ready to be copied"


@linux
def test_a_missing_screen_is_reported_before_an_opencv_without_windows(monkeypatch):
    monkeypatch.setattr(cv2, "currentUIFramework", lambda: "")
    monkeypatch.delenv("DISPLAY", raising=False)
    assert "DISPLAY isn't set" in one_line(DisplayProbe().result()[0])


def test_an_opencv_that_does_not_load(tmp_path):
    (tmp_path / "cv2.py").write_text("raise ImportError('libGL.so.1: cannot open shared object file')")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    with x_server_stub() as number:
        done = run_check(PYTHONPATH=path, DISPLAY=f"localhost:{number}")
    assert "libGL.so.1" in done.stdout


def run_check(**environment):
    return subprocess.run(
        [sys.executable, "-c", CHECK],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), **environment},
        capture_output=True,
        text=True,
        timeout=30,
    )


@linux
@pytest.mark.usefixtures("opencv_with_windows")
def test_a_server_that_refuses_ends_the_probe_not_the_program(tmp_path):
    # Takes connections and closes them, as a server does that knows nothing of the user.
    with x_server_stub(close_at_once=True) as number:
        done = run_check(DISPLAY=f"localhost:{number}.0")
    assert done.returncode == 0
    assert done.stderr == ""
    problem = one_line(done.stdout.splitlines()[0])
    assert "could not connect" in problem


@linux
@pytest.mark.usefixtures("opencv_with_windows")
def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
    monkeypatch.setattr(display_check, "PROBE_LIMIT", 1.0)
    with x_server_stub() as number:
        monkeypatch.setenv("DISPLAY", f"127.0.0.1:{number}")
        start = time.monotonic()
        assert "within 1 s" in one_line(DisplayProbe().result()[0])
        assert time.monotonic() - start < 20


@contextlib.contextmanager
def x_server_stub(close_at_once=False):
    """The number of a screen whose server takes connections and never answers."""
    stop = threading.Event()
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        for number in range(3000, 3100):
            with contextlib.suppress(OSError):
                listener.bind(("127.0.0.1", 6000 + number))
                break
        listener.listen()
        listener.settimeout(0.05)

        def serve():
            while not stop.is_set():
                with contextlib.suppress(TimeoutError):
                    taken = stack.enter_context(listener.accept()[0])
                    if close_at_once:
                        taken.close()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield number
        finally:
            stop.set()
            thread.join()


@linux
@pytest.mark.usefixtures("opencv_with_windows")
def test_a_screen_that_is_there(x_screen):
    done = run_check(DISPLAY=x_screen)
    assert done.stderr == ""
    problem, screen = done.stdout.splitlines()
    assert problem == "None"
    assert screen in ("(600, 900)", "None")  # None without libX11 on the system


@linux
@pytest.mark.usefixtures("opencv_with_windows")
def test_a_platform_that_does_not_exist_is_named(x_screen):
    done = run_check(DISPLAY=x_screen, QT_QPA_PLATFORM="nonsense")
    if "Qt" not in cv2.currentUIFramework() and "QT" not in cv2.currentUIFramework():
        pytest.skip("not Qt")
    assert "unset QT_QPA_PLATFORM, which is 'nonsense'" in one_line(done.stdout.splitlines()[0])


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("QT_LOGGING_RULES", "*=true")
    quiet_qt()
    assert os.environ["QT_LOGGING_RULES"] == "*=true"
    monkeypatch.delenv("QT_LOGGING_RULES")
    quiet_qt()
    assert "info=false" in os.environ["QT_LOGGING_RULES"]
    monkeypatch.delenv("QT_LOGGING_RULES")

"""The window, with a real screen and real keys where there are such, and without one for its rules."""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import window_player
from live_parts import wait_until
from x_messages import ask_to_close

from mobiledet.apps.live.frames import Newest
from mobiledet.apps.live.measure.meter import LiveNumbers
from mobiledet.apps.live.show import window as show_window
from mobiledet.apps.live.show.window import StopReason, Window, key_name, save_snapshot
from mobiledet.apps.live.sources.base import SourceState
from mobiledet.apps.live.stopping import StopFlag
from mobiledet.apps.live.view import Painter, View, ViewSettings
from mobiledet.errors import ImageError

PLAYER = Path(window_player.__file__)
PATIENCE = 20.0


class Player:
    """The program beside this one, its window and what it reports."""

    def __init__(self, display, mode, folder):
        self.env = {
            **os.environ,
            "DISPLAY": display,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",
        }
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, str(PLAYER), mode, str(folder)],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.reported = []
        self._lines = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()
        self.stderr = ""

    def _read(self):
        for line in self.process.stdout:
            self._lines.put(json.loads(line))
        self._lines.put(None)

    def wait_for(self, wanted):
        """The first thing reported from now on that ``wanted`` holds for."""
        deadline = time.monotonic() + PATIENCE
        while True:
            line = self._lines.get(timeout=max(0.01, deadline - time.monotonic()))
            if line is None:
                raise AssertionError(f"the player ended: {self.process.wait()} {self.process.stderr.read()}")
            self.reported.append(line)
            if wanted(line):
                return line

    def settings(self, **wanted):
        return self.wait_for(lambda line: "settings" in line and wanted.items() <= line["settings"].items())

    def do(self, *command):
        return subprocess.run(["xdotool", *command], env=self.env, capture_output=True, text=True, timeout=PATIENCE)

    def focus(self):
        """Wait until keys reach the window, and the window manager has no more to say about it; the window."""
        deadline, calm = time.monotonic() + PATIENCE, 0
        while time.monotonic() < deadline:
            windows = self.do("search", "--onlyvisible", "--name", "player").stdout.split()
            if windows and self.do("getwindowfocus").stdout.strip() == windows[-1]:
                calm += 1
                if calm == 3:
                    return int(windows[-1])
            elif windows:
                calm = 0
                self.do("windowfocus", windows[-1])
            time.sleep(0.05)
        raise AssertionError("no window came up")

    def key(self, *names):
        for name in names:
            self.do("key", name)

    def end(self):
        """What the player reported last, after it ended by itself."""
        status = self.process.wait(PATIENCE)
        self._reader.join()
        with contextlib.suppress(queue.Empty):
            while (line := self._lines.get_nowait()) is not None:
                self.reported.append(line)
        self.stderr = self.process.stderr.read()
        assert status == 0, self.stderr
        return self.reported[-1]["why"]

    def close(self):
        self.process.kill()
        self.process.wait()
        self._reader.join()
        self.process.stdout.close()
        self.process.stderr.close()


@pytest.fixture
def play(x_screen, tmp_path):
    """``play(mode)`` opens a window on the screen."""
    if shutil.which("xdotool") is None or not cv2.currentUIFramework():
        pytest.skip("no xdotool, or an OpenCV without windows")
    players = []

    def start(mode):
        players.append(Player(x_screen, mode, tmp_path / "kept"))
        return players[-1]

    yield start
    for player in players:
        player.close()


def screenshot(display):
    """What is on the screen ``(H, W, 3)``, or a skip."""
    if shutil.which("import") is None:
        pytest.skip("no ImageMagick")
    data = subprocess.run(
        ["import", "-silent", "-window", "root", "png:-"],
        env={**os.environ, "DISPLAY": display},
        capture_output=True,
        timeout=PATIENCE,
        check=True,
    ).stdout
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


def test_every_key_acts(play, x_screen):
    player = play("run")
    player.wait_for(lambda line: line.get("shown", 0) >= 2)
    player.focus()
    threshold = 0.3
    for key, step in (("plus", 1), ("equal", 1), ("Up", 1), ("KP_Add", 1), ("minus", -1), ("underscore", -1)):
        player.key(key)
        threshold += 0.05 * step
        player.settings(threshold=round(threshold, 4))
    for key in ("Down", "KP_Subtract"):
        player.key(key)
        threshold -= 0.05
        player.settings(threshold=round(threshold, 4))
    player.key("l")
    player.settings(labels=False)
    player.key("shift+l")
    player.settings(labels=True)
    player.key("h", "p", "i", "question", "f")
    player.wait_for(lambda line: "shown" in line)
    player.key("f")
    for count in (1, 2):
        player.key("s")
        wait_until(lambda count=count: len(list(player.folder.glob("*.jpg"))) == count)
    player.key("q")
    assert player.end() == "key"
    kept = sorted(player.folder.iterdir())
    assert len(kept) == 2
    assert cv2.imread(str(kept[0])).shape == (200, 320, 3)
    assert player.stderr.splitlines() == [f"saved {path}" for path in kept]  # and nothing from Qt


def test_a_paused_frame_stays_but_obeys(play):
    player = play("run")
    player.wait_for(lambda line: line.get("shown", 0) >= 2)
    player.focus()
    player.key("space")
    player.settings(paused=True)
    before = len(player.reported)
    for threshold in (0.35, 0.4, 0.45):
        player.key("plus")
        player.settings(threshold=threshold)
    player.key("space")
    player.settings(paused=False)
    # The one on the screen may be reported only now.
    assert len([line for line in player.reported[before:] if "shown" in line]) <= 1
    player.wait_for(lambda line: "shown" in line)
    player.key("Escape")
    assert player.end() == "key"


def test_closing_the_window_ends_it(play, x_screen):
    player = play("run")
    player.wait_for(lambda line: line.get("shown", 0) >= 2)
    ask_to_close(x_screen, player.focus())
    assert player.end() == "closed"
    assert player.stderr == ""


def test_a_lost_source_dims_the_frame_and_leaves_the_window_alive(play, x_screen):
    player = play("frozen")
    player.wait_for(lambda line: line.get("shown") == 4)
    player.focus()
    wait_until(lambda: is_dim(x_screen))
    first = screenshot(x_screen)
    player.key("minus")
    player.settings(threshold=0.25)
    time.sleep(0.6)
    assert (screenshot(x_screen) != first).any()  # its seconds go on
    player.key("q")
    assert player.end() == "key"


def is_dim(display):
    """Whether much of the screen is as dark as the frame's grey of 90 dimmed."""
    image = screenshot(display)
    return ((image > 35) & (image < 48)).all(-1).sum() > 20000


def test_keys_act_before_the_first_frame(play):
    player = play("silent")
    player.focus()
    player.key("s", "plus")
    player.settings(threshold=0.35)
    player.key("q")
    assert player.end() == "key"
    assert not player.folder.exists()


def test_a_file_ends_with_its_last_frame_shown(play):
    player = play("file")
    assert player.end() == "end"
    assert [line for line in player.reported if "shown" in line][-1]["shown"] == 7


def test_a_still_frame_stays(play):
    player = play("still")
    player.wait_for(lambda line: line.get("shown") == 0)
    player.focus()
    time.sleep(0.3)
    player.key("q")
    assert player.end() == "key"


def test_it_can_be_stopped_from_outside(play):
    player = play("run")
    player.wait_for(lambda line: "shown" in line)
    player.process.send_signal(signal.SIGTERM)
    assert player.end() == "stopped"


# Without a screen.


class FakeGui:
    """Stands in for OpenCV's windows."""

    def __init__(self, monkeypatch):
        self.keys, self.frames, self.visible, self.turns, self.destroyed = [], [], 1.0, 0, False
        self.on_turn = lambda: None
        for name in ("namedWindow", "setWindowTitle", "resizeWindow", "setWindowProperty"):
            monkeypatch.setattr(cv2, name, lambda *_: None)
        monkeypatch.setattr(cv2, "imshow", lambda _, image: self.frames.append(image))
        monkeypatch.setattr(cv2, "waitKeyEx", self._turn)
        monkeypatch.setattr(cv2, "waitKey", lambda _: -1)
        monkeypatch.setattr(cv2, "getWindowProperty", lambda *_: self._visible())
        monkeypatch.setattr(cv2, "destroyAllWindows", lambda: setattr(self, "destroyed", True))

    def _visible(self):
        if isinstance(self.visible, Exception):
            raise self.visible
        return self.visible

    def _turn(self, _):
        self.turns += 1
        assert self.turns < 2000, "the window never ended"
        self.on_turn()
        return ord(self.keys.pop(0)) if self.keys else -1


@pytest.fixture
def gui(monkeypatch):
    return FakeGui(monkeypatch)


def window(results, tmp_path, **given):
    painter = given.pop("painter", None) or Painter(given.pop("settings", None) or ViewSettings())
    numbers = LiveNumbers(source=SourceState(connected=True))
    return Window(View(results, painter, lambda: numbers, "t"), **{"snapshots": tmp_path / "kept", **given})


def one_result(index=0, size=(200, 320)):
    results = Newest()
    results.put(window_player.result(index, size))
    return results


def test_it_insists_on_the_main_thread(tmp_path):
    failures = []

    def run():
        with pytest.raises(RuntimeError, match="main thread") as caught:
            window(Newest(), tmp_path).run(StopFlag(), lambda: True)
        failures.append(caught)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert len(failures) == 1


@pytest.mark.parametrize("gone", [0.0, -1.0, cv2.error("gone")])
def test_a_window_that_is_gone_ends_it(gui, tmp_path, gone):
    def close():
        if gui.turns == 5:
            gui.visible = gone

    gui.on_turn = close
    assert window(one_result(), tmp_path).run(StopFlag(), lambda: False) is StopReason.CLOSED
    assert gui.turns == 5
    assert gui.destroyed


def test_a_window_system_that_cannot_tell_whether_it_is_open(gui, tmp_path):
    gui.visible = -1.0
    stop = StopFlag()
    gui.on_turn = lambda: stop.set() if gui.turns == 20 else None
    assert window(one_result(), tmp_path).run(stop, lambda: False) is StopReason.STOPPED
    assert gui.turns == 20


def test_the_last_result_is_shown_though_it_came_late(gui, tmp_path):
    results, shown = Newest(), []

    def ended():
        if not results.closed:
            results.put(window_player.result(3))
            results.close()
        return True

    given = {"on_shown": lambda item, moment: shown.append((item.frame.index, moment))}
    start = time.monotonic()
    assert window(results, tmp_path, **given).run(StopFlag(), ended) is StopReason.END
    assert [index for index, _ in shown] == [3]
    assert start <= shown[0][1] <= time.monotonic()


def test_a_source_that_ends_without_a_frame(gui, tmp_path):
    results = Newest()
    results.close()
    assert window(results, tmp_path).run(StopFlag(), lambda: True) is StopReason.END


def test_an_ended_window_that_waits_does_not_spin(gui, tmp_path):
    results = one_result()
    results.close()
    stop = StopFlag()
    start = time.monotonic()
    gui.on_turn = lambda: stop.set() if time.monotonic() - start > 0.4 else None
    assert window(results, tmp_path, hold=True).run(stop, lambda: True) is StopReason.STOPPED
    assert gui.turns < 60


def test_nothing_is_drawn_twice(gui, tmp_path):
    stop = StopFlag()
    gui.on_turn = lambda: stop.set() if gui.turns == 15 else None
    window(one_result(), tmp_path).run(stop, lambda: False)
    assert len(gui.frames) <= 2


def test_text_stays_off_the_frame_that_others_share(gui, tmp_path):
    results, painter = one_result(size=(400, 640)), Painter(ViewSettings())
    before = painter.paint(results.get()[1]).copy()
    gui.keys = ["h", "p", "q"]
    assert window(results, tmp_path, painter=painter).run(StopFlag(), lambda: False) is StopReason.KEY
    np.testing.assert_array_equal(painter.paint(results.get()[1]), before)


def test_changes_from_elsewhere_are_drawn(gui, tmp_path):
    stop, settings = StopFlag(), ViewSettings()

    def act():
        if gui.turns == 5:
            settings.classes = ()
        if gui.turns == 10:
            stop.set()

    gui.on_turn = act
    window(one_result(size=(400, 640)), tmp_path, settings=settings).run(stop, lambda: False)
    assert (gui.frames[0] != gui.frames[-1])[100:300].any()


def test_a_folder_that_takes_no_snapshots_is_reported_and_does_no_harm(gui, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    gui.keys = ["s", "s", "q"]
    assert window(one_result(), tmp_path, snapshots=tmp_path / "file").run(StopFlag(), lambda: False) is StopReason.KEY
    assert str(tmp_path / "file") in caplog.text


@pytest.mark.parametrize("size", [(480, 640), (400, 1600), (640, 360)])
def test_a_full_screen_is_black_around_the_frame(gui, tmp_path, size):
    gui.keys = ["f", "l", "l", "q"]
    window(one_result(size=size), tmp_path, screen=(1080, 1920)).run(StopFlag(), lambda: False)
    height, width = gui.frames[-1].shape[:2]
    assert width / height == pytest.approx(16 / 9, rel=0.01)
    assert (gui.frames[-1] > 0).any(-1).sum() >= size[0] * size[1] * 0.99
    assert not gui.frames[-1][[0, 0, -1, -1], [0, -1, 0, -1]].any()


@pytest.mark.parametrize("size", [(60, 80), (800, 90), (2160, 3840)])
def test_frames_of_any_size(gui, tmp_path, size):
    gui.keys = [*"hhppspl ++f", "q"]
    assert window(one_result(size=size), tmp_path).run(StopFlag(), lambda: False) is StopReason.KEY
    height, width = gui.frames[-1].shape[:2]
    assert width / height == pytest.approx(size[1] / size[0], rel=0.02)


def test_frames_reach_opencv_in_its_order_of_colours(gui, tmp_path):
    result = window_player.result(0, (480, 640))
    result.frame.image[:] = 200, 100, 0
    results = Newest()
    results.put(result)
    gui.keys = ["q"]
    window(results, tmp_path).run(StopFlag(), lambda: False)
    assert tuple(gui.frames[-1][300, 600]) == (0, 100, 200)


def test_a_snapshot_that_cannot_be_encoded_leaves_nothing(tmp_path):
    with pytest.raises(ImageError):
        save_snapshot(tmp_path, np.zeros((20, 70_000, 3), np.uint8))  # a JPEG has 65,535 columns at most
    assert not list(tmp_path.iterdir())


def test_a_snapshot_on_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    def full(path, data):
        with path.open("wb") as file:
            file.write(data[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ImageError, match="No space left"):
        save_snapshot(tmp_path, np.zeros((20, 30, 3), np.uint8))
    assert not list(tmp_path.iterdir())


def test_snapshots_never_replace_each_other(tmp_path, monkeypatch):
    monkeypatch.setattr(show_window.time, "strftime", lambda _: "20250102-030405")
    image = np.zeros((20, 30, 3), np.uint8)
    image[..., 0] = 250
    paths = [save_snapshot(tmp_path / "new" / "Bilder é", image) for _ in range(3)]
    stem = "snapshot_20250102-030405"
    assert [path.name for path in paths] == [f"{stem}.jpg", f"{stem}_2.jpg", f"{stem}_3.jpg"]
    back = cv2.imdecode(np.frombuffer(paths[2].read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert back.shape == (20, 30, 3)
    assert back[10, 15, 2] > 200 > 60 > back[10, 15, 0]  # red, in OpenCV's order


@pytest.mark.parametrize(
    ("code", "name"),
    [
        (-1, ""),
        (ord("q"), "q"),
        (ord("Q"), "q"),
        (27, "q"),
        (ord(" "), " "),
        (0xFF52, "+"),
        (0x260000, "+"),
        (0x280000, "-"),
        (63233, "-"),
        (ord("="), "+"),
        (ord("_"), "-"),
        (0x10FFAB, "+"),  # GTK, keypad with NumLock
        (0x100000 | ord("l"), "l"),
        (ord("i"), "p"),
        (ord("?"), "h"),
        (0xFFE1, ""),  # Shift alone
        (0xE9, ""),  # é
    ],
)
def test_keys_of_all_window_systems(code, name):
    assert key_name(code) == name

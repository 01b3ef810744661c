"""demo/webcam.py as users run it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from live_parts import read_video, wait_until, write_video
from mjpeg_server import MjpegServer
from tiny_detectors import SIZE, tiny_detector

from mobiledet.exporters.onnx import trace_onnx, write_onnx

WEBCAM = Path(__file__).resolve().parents[3] / "demo" / "webcam.py"
FRAMES = 24

# Makes its input the terminal of its session, as a window of a terminal program is. These tests may run under nohup.
TERMINAL = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGHUP, signal.SIG_DFL)
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A detector that finds something in everything."""
    network, card = tiny_detector("sigmoid")
    path = tmp_path_factory.mktemp("live") / "model.onnx"
    write_onnx(trace_onnx(network, size=SIZE), card, path)
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """24 frames of 96x160."""
    images = [np.full((96, 160, 3), 70, np.uint8) for _ in range(FRAMES)]
    for number, image in enumerate(images):
        cv2.circle(image, (6 * number, 50), 20, (90, 200, 40), -1)
    return write_video(tmp_path_factory.mktemp("live") / "clip.avi", images, 12)


def command(*words):
    return [sys.executable, str(WEBCAM), *map(str, words)]


def environment(**more):
    kept = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "WAYLAND_DISPLAY")}
    return {**kept, **more}


def webcam(*words, folder=None, **variables):
    """Run it; status, standard output and standard error."""
    env = environment(**variables)
    done = subprocess.run(
        command(*words), capture_output=True, text=True, timeout=120, cwd=folder, env=env, check=False
    )
    return done.returncode, done.stdout, done.stderr


def frames_of(path):
    return len(read_video(path)[0])


@contextlib.contextmanager
def webcam_running(log, *words):
    """A running webcam program that has processed some frames, as its log says."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command(*words, "--no-window", "--detections", log), env=environment(), **streams) as process:
        wait_for_lines(process, log)
        yield process


def wait_for_lines(process, log):
    wait_until(lambda: process.poll() is not None or (log.exists() and log.read_text().count("\n") >= 6), 60)
    assert process.poll() is None, process.stderr and process.stderr.read()


def test_a_file_from_start_to_end(model, clip, tmp_path):
    video, log, report = tmp_path / "o.avi", tmp_path / "o.jsonl", tmp_path / "card.json"
    words = ("--save", video, "--detections", log, "--report", report, "--threads", 1, "--threshold", 0.05)
    status, out, err = webcam("--model", model, "--source", clip, "--no-window", *words)
    assert status == 0, err
    assert out.startswith(f"{FRAMES} frames processed")
    assert frames_of(video) == FRAMES
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert [line["frame"] for line in lines] == list(range(FRAMES))
    boxes = np.array([found["box"] for line in lines for found in line["detections"]])
    assert len(boxes) > FRAMES, "a model that finds nothing proves nothing"
    assert 100 < boxes[:, 0::2].max() <= 160
    assert boxes[:, 1::2].max() <= 96
    card = json.loads(report.read_text(encoding="utf-8"))
    assert card["frames"] | {"captured": FRAMES, "processed": FRAMES, "dropped": 0, "saved": FRAMES} == card["frames"]
    assert card["source"] | {"live": False, "size": [96, 160], "fps": 12.0} == card["source"]
    assert {"grab", "resize", "network", "nms", "draw"} <= card["stages_ms"].keys()
    assert card["stages_ms"]["nms"]["p50"] < card["stages_ms"]["network"]["p50"]
    assert card["fps"]["overall"] > 0
    assert card["model"]["input_size"] == list(SIZE)


def test_standard_output_holds_json_lines_only(model, clip):
    status, out, err = webcam("--model", model, "--source", clip, "--no-window", "--detections", "-")
    assert status == 0, err
    assert [json.loads(line)["frame"] for line in out.splitlines()] == list(range(FRAMES))
    assert "frames processed" in err


def test_whoever_reads_standard_output_may_go(model, clip):
    words = ("--model", model, "--source", clip, "--no-window", "--loop", "--detections", "-")
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command(*words), env=environment(), **streams) as process:
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(60) == 0
        assert b"Traceback" not in process.stderr.read()


def test_objects_are_tracked_and_counted(model, clip, tmp_path):
    log, scene, events = tmp_path / "o.jsonl", tmp_path / "scene.yaml", tmp_path / "events.jsonl"
    scene.write_text("zones:\n  all: [[0, 0], [1, 0], [1, 1], [0, 1]]\n")
    counted = ("--scene", scene, "--line", "middle:80,0,80,96", "--events", events, "--report", tmp_path / "card.json")
    words = ("--no-window", "--threshold", 0.05, "--detections", log, *counted)
    status, out, err = webcam("--model", model, "--source", clip, *words)
    assert status == 0, err
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    ids = {found["track_id"] for line in lines for found in line["detections"]} - {None}
    assert ids
    happened = [json.loads(line) for line in events.read_text(encoding="utf-8").splitlines()]
    assert {event["track_id"] for event in happened} <= ids
    assert {event["event"] for event in happened} <= {
        "appeared",
        "disappeared",
        "line_crossed",
        "zone_entered",
        "zone_left",
    }
    assert sum(event["event"] == "appeared" for event in happened) == max(ids)
    assert all(event["source"].endswith(clip.name) for event in happened)
    assert scene.read_text().startswith("zones:"), "only the page changes it"
    card = json.loads((tmp_path / "card.json").read_text())
    assert sum(card["objects"].values()) == max(ids)
    assert card["counts"]["zones"]["all"]["entered"] == sum(event["event"] == "zone_entered" for event in happened)
    assert "tracked: " in out
    assert "all: " in out


def test_several_sources_share_a_model(model, clip, tmp_path):
    report, log = tmp_path / "card.json", tmp_path / "o.jsonl"
    sources = ("--source", clip, "--source", clip)
    words = ("--no-window", "--report", report, "--detections", log, "--save", tmp_path / "o.avi")
    status, out, err = webcam("--model", model, *sources, *words)
    assert status == 0, err
    assert out.count(f"{FRAMES} frames processed") == 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["card_1.json", "card_2.json", "o_1.avi", "o_1.jsonl", "o_2.avi", "o_2.jsonl"]
    assert (tmp_path / "o_1.jsonl").read_text().count("\n") == FRAMES
    assert frames_of(tmp_path / "o_2.avi") == FRAMES


def test_a_file_at_its_own_speed(model, clip, tmp_path):
    report = tmp_path / "card.json"
    words = ("--no-window", "--realtime", "--loop", "--max-seconds", 2.5, "--report", report)
    status, _, err = webcam("--model", model, "--source", clip, *words)
    assert status == 0, err
    card = json.loads(report.read_text(encoding="utf-8"))
    assert card["source"]["live"]
    # 12 a second; a busy machine may drop some, but none come early.
    assert 5 < card["fps"]["overall"] < 13
    assert card["frames"]["captured"] <= 12 * 4


def test_no_more_frames_a_second_than_asked_for(model, clip, tmp_path):
    log, video, report = tmp_path / "o.jsonl", tmp_path / "o.avi", tmp_path / "card.json"
    words = ("--target-fps", 4, "--motion", "--detections", log, "--save", video, "--report", report)
    status, out, err = webcam("--model", model, "--source", clip, "--no-window", *words)
    assert status == 0, err
    assert [json.loads(line)["frame"] for line in log.read_text().splitlines()] == list(range(0, FRAMES, 3))
    assert read_video(video)[1] == pytest.approx(4), "it plays as fast as the clip"
    frames = json.loads(report.read_text())["frames"]
    assert (frames["processed"], frames["not_due"], frames["still"]) == (8, 16, 0)
    assert "16 not due" in out


def test_a_deadline_chooses_among_sizes(model, clip, tmp_path):
    network, card = tiny_detector("sigmoid", size=(32, 64))
    smaller, report = tmp_path / "smaller.onnx", tmp_path / "card.json"
    write_onnx(trace_onnx(network, size=(32, 64)), card, smaller)
    words = ("--model", smaller, model, "--deadline", 5000, "--report", report)
    status, out, err = webcam("--source", clip, "--no-window", *words)
    assert status == 0, err
    found = json.loads(report.read_text())["deadline"]
    assert found["in_time"] == 1
    assert found["sizes"] == [{"input_size": list(SIZE), "share": 1}, {"input_size": [32, 64], "share": 0}]
    assert "ready within 5000 ms" in out


def test_stops_after_so_many_frames(model, clip):
    status, out, _ = webcam("--model", model, "--source", clip, "--no-window", "--max-frames", 5)
    assert (status, out.split()[0]) == (0, "5")


def test_only_some_classes(model, clip, tmp_path):
    log = tmp_path / "o.jsonl"
    words = ("--classes", "CAT", "--threshold", 0.05, "--detections", log)
    status, _, err = webcam("--model", model, "--source", clip, "--no-window", *words)
    assert status == 0, err
    names = {found["name"] for line in log.read_text().splitlines() for found in json.loads(line)["detections"]}
    assert names == {"cat"}


def test_without_a_display_a_file_is_saved_instead(model, clip, tmp_path):
    status, _, err = webcam("--model", model, "--source", clip, folder=tmp_path)
    assert status == 0, err
    assert "no window: " in err
    saved = tmp_path / "runs" / "webcam" / "1" / "detections.mp4"
    assert str(saved.relative_to(tmp_path)) in err
    assert frames_of(saved) == FRAMES


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a screen of X11")
def test_with_an_opencv_without_windows_it_goes_on_without_one(model, clip, tmp_path, x_screen):
    (tmp_path / "sitecustomize.py").write_text("import cv2\ncv2.currentUIFramework = lambda: ''\n")
    path = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    words = ("--model", model, "--source", clip, "--save", "out.avi")
    status, _, err = webcam(*words, folder=tmp_path, DISPLAY=x_screen, PYTHONPATH=path)
    assert status == 0, err
    (line,) = [line for line in err.splitlines() if "no window" in line]
    assert line.endswith(": pip install --force-reinstall --no-deps opencv-python")
    assert frames_of(tmp_path / "out.avi") == FRAMES


def test_without_a_display_nothing_more_is_made_than_was_asked_for(model, clip, tmp_path):
    status, _, err = webcam("--model", model, "--source", clip, "--report", "card.json", folder=tmp_path)
    assert status == 0, err
    assert "no window: " in err
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["--source", "nowhere.mp4"], "nowhere.mp4"),
        (["--source", "camera:77"], "77"),
        (["--model", "nowhere.onnx"], "'nowhere.onnx'"),
        (["--model", "ssd_mobilnet_v1_075_coco"], "did you mean 'ssd_mobilenet_v1_075_coco'?"),
        (["--classes", "catt"], "did you mean 'cat'?"),
        (["--save", "o.mpeg7"], ".mp4"),
        (["--save", "there.json/o.mp4"], "it is a file"),
        (["--report", "there.json"], "there.json exists already"),
        (["--detections", "there.json"], "there.json exists already"),
        (["--save", "there.json"], "there.json exists already"),
        (["--mjpg"], "mjpg"),
        (["--serve", "0", "--token", "short"], "16 to 128 letters"),
        (["--serve", "0", "--allow-frame", "*"], "'*' is not an origin"),
        (["--serve", "0", "--allow-host", "a:1"], "'a:1' is not a name"),
        (["--line", "a:0,0,1,1", "--zone", "a:0,0,1,0,1,1"], "'a' is the name of a line and of a zone"),
        (["--line", "gate:1,2,3"], "gate:100,400,540,400"),
        (["--line", "gate:0,900,9,900"], "outside of the frame of 160x96 pixels"),
        (["--scene", "there.json"], "there.json"),
        (["--zone", "a:0,0,1,0,1,1", "--events", "there.json"], "there.json exists already"),
        (["--zone", "a:0,0,1,0,1,1", "--mqtt", "http://x"], "mqtt://HOST"),
        (["--zone", "a:0,0,1,0,1,1", "--webhook", "x"], "http://"),
        (["--zone", "a:0,0,1,0,1,1", "--on-event", "nothere 1"], "'nothere'"),
        (["--zone", "a:0,0,1,0,1,1", "--homeassistant", "--events", "e.jsonl"], "--mqtt"),
    ],
)
def test_mistakes_are_reported_in_a_line(model, clip, tmp_path, words, wanted):
    (tmp_path / "there.json").write_text("mine")
    given = ["--no-window"]
    given += [] if "--model" in words else ["--model", str(model)]
    given += [] if "--source" in words else ["--source", str(clip)]
    status, _, err = webcam(*given, *words, folder=tmp_path)
    assert status == 1
    assert err.splitlines()[-1].startswith("error: ") or "error: " in err
    assert wanted in err
    assert "Traceback" not in err
    assert len(err[err.index("error: ") :].splitlines()) <= 4
    assert [path.name for path in tmp_path.iterdir()] == ["there.json"]
    assert (tmp_path / "there.json").read_text() == "mine"


@pytest.mark.parametrize(
    "words",
    [
        ["--threshold", "1.5"],
        ["--threads", "-1"],
        ["--max-frames", "0"],
        ["--fps", "nan"],
        ["--serve", "70000"],
        ["--host", "0.0.0.0"],
        ["--token", "0123456789abcdef"],
        ["--allow-frame", "http://a.example"],
        ["--allow-host", "a.example"],
        ["--save", "a.mp4", "--report", "./a.mp4"],
        ["--treshold", "0.5"],
        ["--events", "e.jsonl"],
        ["--event-interval", "-1"],
        ["--target-fps", "0"],
        ["--target-fps", "nan"],
        ["--deadline", "-5"],
        ["--model", "ssd_mobilenet_v1_075_coco", "ssd_mobilenet_v1_075_coco"],
    ],
)
def test_wrong_arguments(words):
    status, _, err = webcam(*words)
    assert status == 2
    assert "error: " in err


def test_help_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(WEBCAM), "--help"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "--serve" in done.stdout
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"numpy", "cv2", "torch", "onnxruntime", "psutil", "aiohttp"}


def test_runs_without_torch(model, clip, tmp_path):
    (tmp_path / "torch.py").write_text("raise ImportError('torch is not here')")
    words = ("--no-window", "--max-frames", 3, "--report", tmp_path / "c.json")
    status, _, err = webcam("--model", model, "--source", clip, *words, PYTHONPATH=str(tmp_path))
    assert status == 0, err


def test_a_stream_and_its_password_that_nobody_reads(model, tmp_path):
    report, log = tmp_path / "card.json", tmp_path / "o.jsonl"
    with MjpegServer(fps=30) as server:
        address = server.url.replace("http://", "http://me:sesame@") + "?key=sesame"
        words = ("--max-frames", 5, "--report", report, "--detections", log)
        status, out, err = webcam("--model", model, "--source", address, "--no-window", *words)
    assert status == 0, err
    assert "5 of " in out
    assert json.loads(report.read_text())["source"]["live"]
    assert "sesame" not in report.read_text() + log.read_text() + out + err


def test_what_receivers_are_asked_with_is_shown_nowhere(model, clip, tmp_path):
    report = tmp_path / "card.json"
    secret = ("--mqtt", "mqtt://me:sesame@127.0.0.1:9", "--webhook", "http://127.0.0.1:9/sesame")
    words = ("--no-window", "--report", report, "--zone", "all:0,0,1,0,1,1,0,1", *secret)
    _, out, err = webcam("--model", model, "--source", clip, *words)
    assert json.loads(report.read_text())["frames"]["processed"] == FRAMES
    assert "sesame" not in report.read_text() + out + err


def test_a_stream_that_is_not_there_leaves_the_names_free(model, tmp_path):
    words = ("--no-window", "--report", "c.json", "--detections", "d.jsonl", "--save", "v.mp4")
    status, _, err = webcam("--model", model, "--source", "http://127.0.0.1:9/x", *words, folder=tmp_path)
    assert status == 1
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_in_the_middle_every_file_is_whole(model, clip, tmp_path, number, status):
    video, log, report = tmp_path / "o.mp4", tmp_path / "o.jsonl", tmp_path / "card.json"
    words = ("--loop", "--realtime", "--save", video, "--report", report)
    with webcam_running(log, "--model", model, "--source", clip, *words) as process:
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert "frames processed" in out
    assert frames_of(video) > 0
    lines = log.read_text(encoding="utf-8").splitlines()
    assert len(lines) >= 6
    assert all(json.loads(line)["detections"] is not None for line in lines)
    assert json.loads(report.read_text())["frames"]["processed"] == len(lines)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["card.json", "o.jsonl", "o.mp4"]


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_stopped_in_the_middle_no_process_is_left(model, tmp_path):
    log = tmp_path / "o.jsonl"
    source = ("--model", model, "--source")
    with MjpegServer() as camera, webcam_running(log, *source, camera.url) as process:
        (child,) = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert not child.is_running()


@pytest.mark.skipif(sys.platform == "win32", reason="needs a terminal")
def test_a_closed_terminal_ends_it_with_everything_whole(model, clip, tmp_path):
    import pty

    video, log, report = tmp_path / "o.mp4", tmp_path / "o.jsonl", tmp_path / "card.json"
    words = ("--loop", "--realtime", "--save", video, "--detections", log, "--report", report)
    mine, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", TERMINAL, *command("--model", model, "--source", clip, "--no-window", *words)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(),
        start_new_session=True,
    )
    os.close(theirs)
    wait_for_lines(process, log)
    os.close(mine)
    assert process.wait(60) == 128 + signal.SIGHUP
    assert frames_of(video) > 0
    lines = len(log.read_text(encoding="utf-8").splitlines())
    assert json.loads(report.read_text())["frames"]["processed"] == lines

import json
from types import SimpleNamespace

import pytest
from live_parts import ListedSource, ScriptedDetector, result

from mobiledet.apps.live.card.report import make_report, nms_share
from mobiledet.apps.live.measure.meter import Meter
from mobiledet.structures import ImageGeometry


def detector(stages):
    """A detector whose network says how long its stages take."""
    scripted = ScriptedDetector()
    scripted.fit = lambda image: (image[:32, :40], ImageGeometry((48, 64), (32, 40)))
    scripted.backend = SimpleNamespace(runtime="scripted 1", stages=stages)
    return scripted


def report(stages, *, command=("python", "webcam.py"), secrets=None):
    source = ListedSource(3)
    source.name = "clip.mp4"
    meter = Meter(started=0.0, source=source.state)
    meter.record(result())
    made = make_report(
        meter.figures(),
        detector=detector(stages),
        source=source,
        model_name="m",
        settings={},
        last=result(),
        label="",
        command=command,
        secrets=secrets or {},
        load=0.25,
    )
    return json.loads(json.dumps(made, allow_nan=False))


def test_the_share_of_suppression():
    made = report(lambda images, rounds: {"network": 3.0, "decode+nms": 1.0})
    stages = made["stages_ms"]
    assert stages["nms"]["p50"] == pytest.approx(stages["network"]["p50"] / 4, abs=0.002)
    assert any("share" in line for line in made["unseen"])


def test_a_profile_that_fails_loses_nothing_else():
    def broken(images, rounds):
        raise RuntimeError("the model file is gone")

    made = report(broken)
    assert "nms" not in made["stages_ms"]
    assert made["stages_ms"]["network"]["p50"] == pytest.approx(2, rel=0.02)
    assert nms_share(detector(broken), result()) is None


def test_the_command_without_secrets():
    words = ["webcam.py", "--source", "rtsp://me:it's 1@10.0.0.5/x", "--token=abc", "--max-frames", "500"]
    secrets = {words[2]: "rtsp://10.0.0.5/x", "abc": "TOKEN", "": "nothing"}
    made = report(lambda images, rounds: {}, command=words, secrets=secrets)
    assert made["command"] == "webcam.py --source rtsp://10.0.0.5/x --token=TOKEN --max-frames 500"

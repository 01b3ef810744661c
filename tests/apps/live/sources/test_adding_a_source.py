"""A new kind of live source is one `SourceKind` and its name in `SOURCES`."""

import subprocess
import sys
import time

import pytest
from live_parts import ScriptedDetector

from mobiledet.apps.live.measure.meter import Meter
from mobiledet.apps.live.pipeline import Pipeline
from mobiledet.apps.live.sources import opening
from mobiledet.apps.live.sources.base import SourceOptions
from mobiledet.apps.live.view import ViewSettings
from mobiledet.errors import SourceError


@pytest.fixture(autouse=True)
def _added(monkeypatch, documented):
    monkeypatch.setattr(opening, "SOURCES", (documented("noise_source.py")["NOISE"], *opening.SOURCES))


def test_it_is_opened_by_its_text_and_run_to_the_end():
    source = opening.open_source("noise:12")
    meter = Meter(started=time.monotonic(), source=source.state)
    run = Pipeline(source, ScriptedDetector(), settings=ViewSettings(), meter=meter)
    run.start()
    assert run.ended.wait(20)
    run.join()
    assert (run.error, meter.processed, source.name) == (None, 12, "noise of 12")


def test_it_takes_its_options_and_no_others():
    assert opening.open_source("noise:1", SourceOptions(fps=5.0)).fps == 5.0
    with pytest.raises(SourceError, match=r"--loop is for .*, not for noise sources"):
        opening.open_source("noise:1", SourceOptions(loop=True))
    with pytest.raises(SourceError, match=r"--fps is for noise sources and .*, not for streams"):
        opening.open_source("rtsp://cam", SourceOptions(fps=5.0))


def test_help_and_suggestions_name_it():
    assert opening.source_examples().startswith("noise:10, camera:0")
    with pytest.raises(SourceError, match="did you mean 'noise:10'"):
        opening.open_source("nois:10")
    with pytest.raises(SourceError, match="write noise:10"):
        opening.open_source("noise:loud")


def test_the_kinds_are_listed_without_loading_numpy():
    code = (
        "import sys, mobiledet.apps.live.sources.opening; print({'numpy', 'cv2', 'urllib.request'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"

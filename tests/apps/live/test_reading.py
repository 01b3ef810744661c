"""Files by their own clock, when reading them takes longer than they play."""

import time
from pathlib import Path

import numpy as np
import pytest

from mobiledet.apps.live.sources import reading
from mobiledet.apps.live.sources.base import EndOfSource
from mobiledet.apps.live.sources.reading import ReadResult, ReadSource


class Scripted(ReadSource):
    """Its picture ``n`` is due at ``n * interval`` and takes ``seconds[n]`` to be found."""

    def __init__(self, seconds, interval):
        super().__init__(Path("scripted"), realtime=True)
        self.seconds, self.interval = seconds, interval

    def open(self):
        pass

    def read(self):
        for number, seconds in enumerate(self.seconds):
            time.sleep(seconds)
            yield ReadResult(lambda: np.zeros((4, 6, 3), np.uint8), number * self.interval)


def all_of(source):
    source.start()
    found = []
    try:
        while True:
            if (frame := source.take(0.1)) is not None:
                found.append(frame.index)
    except EndOfSource:
        return found
    finally:
        source.close()


def test_what_is_always_late_is_shown_now_and_then(monkeypatch):
    monkeypatch.setattr(reading, "HOPELESS_S", 1000.0)
    source = Scripted([0.03] * 60, 0.01)
    shown = all_of(source)
    assert 5 <= len(shown) <= 25, "one of six, and the first"
    assert source.state().captured == 60
    assert len(shown) + source.state().dropped == 60


def test_after_a_standstill_nothing_is_rushed_through(monkeypatch):
    monkeypatch.setattr(reading, "HOPELESS_S", 0.5)
    source = Scripted([0, 0, 0, 1.2, *[0] * 9], 0.12)
    start = time.monotonic()
    assert len(all_of(source)) >= 11, "13 where nothing else is slow"
    assert time.monotonic() - start > 2.2


@pytest.mark.parametrize("seconds", [[], [0.0]])
def test_few_pictures(seconds):
    assert all_of(Scripted(seconds, 0.01)) == list(range(len(seconds)))

import subprocess
import sys
import threading
import time

import pytest

from mobiledet.apps.live.stopping import StopFlag

CRUEL = """
import os, signal, sys, threading, time
from mobiledet.apps.live.stopping import LiveStop
stop = LiveStop()
with stop:
    def send():
        for _ in range(3000):
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGHUP)
    thread = threading.Thread(target=send)
    thread.start()
    while thread.is_alive():
        stop.asked.is_set()
        stop.asked.wait(0.0001)
    thread.join()
print("done", stop.asked.is_set())
"""

# In a process of its own: a signal that goes astray must not end the one that runs the tests.
TWICE = """
import os, signal, time
from mobiledet.apps.live.stopping import LiveStop
before = signal.getsignal(signal.SIGINT)
with LiveStop() as stop:
    assert stop.exit_status == 0
    os.kill(os.getpid(), signal.SIGINT)
    assert stop.asked.wait(20)
    assert (stop.signal, stop.drop_unsaved, stop.exit_status) == (signal.SIGINT, False, 130)
    os.kill(os.getpid(), signal.SIGTERM)
    while not stop.drop_unsaved:
        time.sleep(0.001)
    assert stop.exit_status == 130
assert signal.getsignal(signal.SIGINT) is before
print("fine")
"""


def test_nobody_asked():
    asked = StopFlag()
    start = time.monotonic()
    assert not asked.wait(0.05)
    assert time.monotonic() - start >= 0.05
    assert not asked.is_set()


def test_somebody_asks():
    asked = StopFlag()
    timer = threading.Timer(0.05, asked.set)
    start = time.monotonic()
    timer.start()
    assert asked.wait(30)
    assert time.monotonic() - start < 15
    timer.join()


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_first_and_second_signal():
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "fine\n"
    assert len(done.stderr.split()) > 1
    assert len(done.stderr.strip().splitlines()) == 3  # one line each, and an empty one between them


@pytest.mark.skipif(sys.platform == "win32", reason="sends signals")
def test_a_storm_of_signals_is_no_deadlock():
    """A handler that takes a lock, which the code it interrupts holds, waits for ever."""
    done = subprocess.run([sys.executable, "-c", CRUEL], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "done True\n"

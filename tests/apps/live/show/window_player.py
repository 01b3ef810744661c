"""Opens a window on made-up frames and reports on stdout, in JSON lines, what happens to it: a program for tests.

``python window_player.py MODE FOLDER``: ``run`` goes on for ever, ``file`` ends after 8 frames, ``still`` stays at
its only one, ``frozen`` loses its source after 5, ``silent`` never gets a frame.
"""

import json
import logging
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np

from mobiledet.apps.live.frames import Frame, Newest, Result
from mobiledet.apps.live.measure.meter import LiveNumbers
from mobiledet.apps.live.show.window import Window
from mobiledet.apps.live.sources.base import SourceState
from mobiledet.apps.live.view import Painter, View, ViewSettings
from mobiledet.detections import Detections

COUNTS = {"run": 10**6, "file": 8, "still": 1, "frozen": 5, "silent": 0}


def report(**what):
    # One write: print's line and its end are two, and another thread's line comes between them.
    sys.stdout.write(f"{json.dumps(what)}\n")
    sys.stdout.flush()


def result(index, size=(200, 320)):
    image = np.full((*size, 3), 90, np.uint8)
    boxes = np.array([[20 + index % 100, 40, 120 + index % 100, 150], [150, 20, 300, 180]], np.float32)
    found = Detections(boxes, np.array([0.9, 0.4], np.float32), np.array([1, 2]), ("person", "crème brûlée"))
    now = time.monotonic()
    return Result(Frame(image, index, now, index / 25), found, now, {"network": 12.0})


def main():
    mode, folder = sys.argv[1], Path(sys.argv[2])
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    settings = ViewSettings(names=("person", "crème brûlée"), threshold=0.3)
    results, stop, over = Newest(), threading.Event(), threading.Event()
    put = {}

    def feed():
        for index in range(COUNTS[mode]):
            if stop.wait(0.04):
                return
            item = result(index)
            put[index] = time.monotonic()
            results.put(item)
        if mode in ("file", "still"):
            over.set()
            results.close()

    def watch():
        last = None
        while not stop.wait(0.005):
            now = {"threshold": settings.threshold, "labels": settings.labels, "paused": settings.paused}
            if now != last:
                report(settings=now)
            last = now

    began = time.monotonic()

    def numbers():
        lost = mode == "frozen" and len(put) == 5
        seconds = time.monotonic() - began
        state = SourceState(not lost, f"camera 0: no frame for {seconds:.1f} s; trying again (2)" if lost else "")
        return LiveNumbers(fps=25.0, age_ms=30.0, age_p95_ms=41.0, processed=len(put), source=state)

    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    window = Window(
        # The title is of a file whose name isn't UTF-8; OpenCV crashes at that.
        View(results, Painter(settings), numbers, "player – Fenster \udcff"),
        snapshots=folder,
        on_shown=lambda item, moment: report(shown=item.frame.index, late_ms=(moment - put[item.frame.index]) * 1e3),
        hold=mode == "still",
    )
    threads = [threading.Thread(target=job) for job in (feed, watch)]
    for thread in threads:
        thread.start()
    try:
        report(why=window.run(stop, over.is_set).value)
    finally:
        stop.set()
        for thread in threads:
            thread.join()


if __name__ == "__main__":
    main()

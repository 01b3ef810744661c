"""A capture process with a scripted camera: ``fake_capture.py COUNTER PROGRAM...``

Each start runs the next program (the last one is repeated); COUNTER is a file that counts the starts. A program is
``WORD``, or ``N:WORD``: N frames, then what the word means: die, exit, lost, hang, on (goes on for ever), shrink and
grow (on, in another size), break (damaged frames, then on), throw; or instead of opening: refuse, blame, hang-open.
Frame n is filled with ``n % 251``, red being one more and blue one less.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from mobiledet.apps.live.sources import capture_worker
from mobiledet.apps.live.sources.capture_devices import CaptureFailedError, Device

INTERVAL_S = float(os.environ.get("FAKE_INTERVAL", "0.01"))


class Fake(Device):
    bgr = "FAKE_BGR" in os.environ  # needs OpenCV, which takes its time to load

    def __init__(self, program):
        count, _, self.word = program.rpartition(":")
        self.count = int(count or 0)
        self.number = -1
        self.size = (48, 64)
        if self.word == "refuse":
            raise CaptureFailedError("can't be opened; it is\nbusy")
        if self.word == "blame":
            print("[rtsp @ 0x55] method DESCRIBE failed: 401 Unauthorized", file=sys.stderr, flush=True)
            raise CaptureFailedError("", explained=False)
        if self.word == "hang-open":
            time.sleep(600)

    def about(self):
        return {"size": [48, 64], "fps": 100.0, "note": "fake"}

    def grab(self):
        time.sleep(INTERVAL_S)
        self.number += 1
        if self.number >= self.count:
            if self.word == "die":
                os.kill(os.getpid(), signal.SIGKILL)
            if self.word == "exit":
                print("out of <luck>", file=sys.stderr, flush=True)
                os._exit(7)
            if self.word == "lost":
                return None
            if self.word == "hang":
                time.sleep(600)
            if self.word == "throw":
                raise ZeroDivisionError("a\nby nothing")
            if self.word == "shrink":
                self.size = (30, 40)
            if self.word == "grow":
                self.size = (480, 640)
        return time.monotonic()

    def retrieve(self):
        if self.word == "break" and self.count <= self.number < self.count + 3:
            return None
        value = self.number % 251
        image = np.full((*self.size, 3), value, np.uint8)
        red, blue = (2, 0) if self.bgr else (0, 2)
        image[..., red] = value + 1
        image[..., blue] = (value - 1) % 256
        return image

    def lost(self):
        return "was unplugged"


def main():
    counter, programs = Path(sys.argv[1]), sys.argv[2:]
    start = int(counter.read_text()) if counter.exists() else 0
    counter.write_text(str(start + 1))
    print("a library's output, not a message")
    capture_worker.serve(lambda _: Fake(programs[min(start, len(programs) - 1)]), lambda: None)


if __name__ == "__main__":
    main()

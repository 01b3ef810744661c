"""A worker whose models do as their target says, without any model: ``WORD`` or ``WORD:LOG``.

Every call is noted in LOG. Words: steady, crash, exit, hang, throw (each at its third call), refuse, missing.
"""

import os
import signal
import sys
import time
from pathlib import Path

from mobiledet.apps.benchmark import worker
from mobiledet.apps.benchmark.measured import About
from mobiledet.errors import MissingDependencyError, ModelFileError


class Fake:
    def __init__(self, kind, target):
        self.word, _, self.log = target.partition(":")
        self.name = kind if kind == "matrix" else Path(target).name
        self.calls = 0
        self.about = About("fake 1", input_size=(40, 60), gmacs=0.5, names=("circle", "square"))
        if self.word == "refuse":
            raise ModelFileError("refused: damaged; copy it again")
        if self.word == "missing":
            raise MissingDependencyError("refused: the package nothing is not installed; pip install nothing")

    def call(self, image):
        self.calls += 1
        if self.log:
            with Path(self.log).open("a") as log:
                log.write(f"{self.name} {image.shape[0]}x{image.shape[1]}\n")
        if self.calls == 3:
            if self.word == "crash":
                os.kill(os.getpid(), signal.SIGSEGV)
            if self.word == "exit":
                print("out of <luck>", file=sys.stderr, flush=True)
                os._exit(7)
            if self.word == "hang":
                time.sleep(600)
            if self.word == "throw":
                raise ZeroDivisionError("a <b>\nby nothing")
        print("chatter that is no answer")
        time.sleep(0.001)

    def stages(self, image, rounds):
        return {"whole": 4.0, "resize": 1.0, "network": 2.0, "decode+nms": None}

    def count(self):
        return None


if __name__ == "__main__":
    worker.serve(lambda kind, target, threads, labels: Fake(kind, target))

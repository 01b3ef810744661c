"""The process in which one subject is measured; it answers its parent's requests, one JSON line for each.

    python -m mobiledet.apps.benchmark.worker

Started by :mod:`mobiledet.apps.benchmark.process`, never by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mobiledet.errors import MissingDependencyError, MobiledetError
from mobiledet.utils.processes import end_with_parent

Opener = Callable[[str, str, int], Any]
"""Kind, target and threads to a subject."""


def serve(opener: Opener | None = None) -> None:
    """Answer requests until the parent closes the line.

    Args:
        opener: Loads the subject; None for :func:`mobiledet.apps.benchmark.subjects.open_subject`.
    """
    end_with_parent()
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, and it ends us
    # Libraries print what they like; only answers may come through the pipe.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    measured = _Measured(opener, lambda answer: _send(channel, answer))
    for line in sys.stdin:
        _send(channel, _answer(measured, json.loads(line)))


def _answer(measured: _Measured, request: dict[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = getattr(measured, request.pop("do"))(**request)
        return found
    except MissingDependencyError as error:
        return {"error": str(error), "missing": True}
    except MobiledetError as error:
        return {"error": str(error)}
    except Exception as error:  # whatever a runtime throws is told under the model's name, and the others go on
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


class _Measured:
    """What can be asked; the names of its methods are the requests."""

    def __init__(self, opener: Opener | None, tell: Callable[[dict[str, Any]], None]) -> None:
        self._opener = opener
        self._tell = tell
        self._subject: Any = None
        self._pictures: dict[str, Any] = {}

    def load(self, kind: str, target: str, threads: int, picture: str) -> dict[str, Any]:
        """Load, and detect once: what it says about itself, and the memory before and after."""
        from mobiledet.apps.benchmark import subjects
        from mobiledet.utils import machine

        with contextlib.suppress(ImportError):
            import cv2

            cv2.setNumThreads(threads)
        before = machine.memory_mib()
        self._subject = (self._opener or subjects.open_subject)(kind, target, threads)
        self._subject.call(self._picture(picture))
        return {"about": asdict(self._subject.about), "before_mib": before and before[0]}

    def time(self, pictures: list[str], calls: int) -> dict[str, Any]:
        """Milliseconds of some calls, after one that isn't counted; and the cores they kept busy."""
        loaded = [self._picture(path) for path in pictures]
        batch = self._subject.about.batch
        self._subject.call(loaded[0])
        times, busy, start = [], time.process_time(), time.perf_counter()
        for index in range(calls):
            begin = time.perf_counter()
            self._subject.call(loaded[index % len(loaded)])
            times.append(1e3 * (time.perf_counter() - begin) / batch)
        wall = time.perf_counter() - start
        return {"ms": times, "cores": (time.process_time() - busy) / wall}

    def stages(self, picture: str, rounds: int) -> dict[str, Any]:
        """Milliseconds by stage."""
        return {"ms": self._subject.stages(self._picture(picture), rounds)}

    def memory(self) -> dict[str, Any]:
        """The most memory held so far."""
        from mobiledet.utils.machine import memory_mib

        memory = memory_mib()
        return {"peak_mib": memory and memory[1]}

    def count(self) -> dict[str, Any]:
        """Multiply-adds."""
        return {"gmacs": self._subject.count()}

    def score(self, data: dict[str, Any], names: list[str], results: str) -> dict[str, Any]:
        """Detect in a whole data set; COCO results go to a file, progress to the parent."""
        from mobiledet.apps.benchmark.accuracy import open_data
        from mobiledet.evaluate.predictions import predict_dataset

        found = predict_dataset(
            self._subject.detect,
            names,
            open_data(Path(data["root"]), data["split"], data["limit"]),
            batch_size=self._subject.about.batch,
            on_batch=lambda count: self._tell({"progress": count}),
        )
        Path(results).write_text(json.dumps(found), encoding="utf-8")
        return {"detections": len(found)}

    def _picture(self, path: str) -> Any:
        from mobiledet.apps.benchmark.subjects import load_picture

        if path not in self._pictures:
            self._pictures[path] = load_picture(path)
        return self._pictures[path]


def _send(channel: Any, answer: dict[str, Any]) -> None:
    channel.write(json.dumps(answer) + "\n")
    channel.flush()


if __name__ == "__main__":
    serve()

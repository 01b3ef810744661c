"""The process in which one model is measured; it answers its parent's requests, one JSON line for each.

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
from typing import TYPE_CHECKING, Any

from mobiledet.errors import MobiledetError
from mobiledet.utils.processes import end_with_parent

if TYPE_CHECKING:
    from mobiledet.apps.benchmark.measured import MeasuredModel
    from mobiledet.structures import ImageArray

Opener = Callable[[str, str, int, "str | None"], "MeasuredModel"]
"""Kind and target, as in `mobiledet.apps.benchmark.candidates.Candidate`, threads and labels to a loaded model."""


def open_model(kind: str, target: str, threads: int, labels: str | None) -> MeasuredModel:
    """Load what is measured; a `MobiledetError` says why it can't be opened."""
    from mobiledet.apps.benchmark.measured import DetectorModel, MatrixProduct

    if kind == "model":
        return DetectorModel(target, threads, labels)
    if kind == "matrix":
        return MatrixProduct()
    from mobiledet.apps.benchmark.peers import open_peer

    return open_peer(kind, threads)


def serve(opener: Opener = open_model) -> None:
    """Answer requests until the parent closes the pipe."""
    end_with_parent()
    if hasattr(signal, "SIGINT"):
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, too, and it ends us
    # Libraries print to standard output; only answers may go through the pipe.
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def send(answer: dict[str, Any]) -> None:
        channel.write(json.dumps(answer) + "\n")
        channel.flush()

    requests = _Requests(opener, send)
    for line in sys.stdin:
        send(_answer(requests, json.loads(line)))


def _answer(requests: _Requests, request: dict[str, Any]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = getattr(requests, request.pop("do"))(**request)
        return found
    except MobiledetError as error:
        return {"error": str(error)}
    except Exception as error:  # whatever a runtime raises is reported under the model's name, and the others go on
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}


class _Requests:
    """What can be asked; the names of its methods are the requests."""

    _model: MeasuredModel

    def __init__(self, opener: Opener, send: Callable[[dict[str, Any]], None]) -> None:
        self._opener = opener
        self._send = send
        self._images: dict[str, ImageArray] = {}

    def load(self, kind: str, target: str, threads: int, labels: str | None, image: str) -> dict[str, Any]:
        """Load, and detect once: what it says about itself, and the memory before."""
        from mobiledet.utils.machine import memory_mib

        with contextlib.suppress(ImportError):
            import cv2

            cv2.setNumThreads(threads)
        before = memory_mib()
        self._model = self._opener(kind, target, threads, labels)
        self._model.call(self._image(image))
        return {"about": asdict(self._model.about), "before_mib": before and before[0]}

    def time(self, images: list[str], calls: int) -> dict[str, Any]:
        """Milliseconds of some calls, after one that isn't counted; and the cores they kept busy."""
        loaded = [self._image(path) for path in images]
        batch = self._model.about.batch
        self._model.call(loaded[0])
        times, busy, start = [], time.process_time(), time.perf_counter()
        for index in range(calls):
            begin = time.perf_counter()
            self._model.call(loaded[index % len(loaded)])
            times.append(1e3 * (time.perf_counter() - begin) / batch)
        wall = time.perf_counter() - start
        return {"ms": times, "cores": (time.process_time() - busy) / wall}

    def stages(self, image: str, rounds: int) -> dict[str, Any]:
        return {"ms": self._model.stages(self._image(image), rounds)}

    def memory(self) -> dict[str, Any]:
        from mobiledet.utils.machine import memory_mib

        memory = memory_mib()
        return {"peak_mib": memory and memory[1]}

    def count(self) -> dict[str, Any]:
        return {"gmacs": self._model.count()}

    def score(self, data: dict[str, Any], names: list[str], results: str) -> dict[str, Any]:
        """Detect in a whole data set; COCO results go to a file, progress to the parent."""
        from mobiledet.apps.benchmark.images import load_eval_split
        from mobiledet.evaluation.predictions import predict_dataset

        found = predict_dataset(
            self._model.detect,
            names,
            load_eval_split(Path(data["root"]), data["split"], data["limit"]),
            batch_size=self._model.about.batch,
            on_batch=lambda count: self._send({"progress": count}),
        )
        Path(results).write_text(json.dumps(found), encoding="utf-8")
        return {"detections": len(found)}

    def _image(self, path: str) -> ImageArray:
        import numpy as np

        if path not in self._images:
            self._images[path] = np.load(path, allow_pickle=False)
        return self._images[path]


if __name__ == "__main__":
    serve()

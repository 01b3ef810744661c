"""The parent's side of a worker: start it, ask it, stop it between requests, end it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from mobiledet.errors import MobiledetError
from mobiledet.utils.processes import child_variables

WORKER = (sys.executable, "-m", "mobiledet.apps.benchmark.worker")


class ModelRefusedError(MobiledetError):
    """A model can't be opened or used, for a reason the user can do something about."""


class WorkerFailedError(MobiledetError):
    """A worker crashed, or didn't answer in time; it has ended."""


class Worker:
    """One process that measures one model.

    Between two requests it is stopped (``SIGSTOP``, where the system has that): threads that a runtime leaves
    spinning while they wait for the next call would take time from the model that is measured meanwhile.

    Args:
        label: Name of the model, for messages.
        threads: Processor threads it may use.
        command: What is started.
        environment: Variables in addition to this process's own.

    ``started`` and ``answered``, when the last answer came, are on the clock of ``time.perf_counter``.
    """

    def __init__(
        self, label: str, *, threads: int, command: Sequence[str] = WORKER, environment: Mapping[str, str] | None = None
    ) -> None:
        self.label = label
        self.started = time.perf_counter()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - open as long as the worker lives
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **child_variables(threads), **(environment or {})},
            text=True,
            encoding="utf-8",
        )
        self._answers: queue.SimpleQueue[tuple[float, str | None]] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.pid = self._process.pid
        self.alive = True
        self.answered = 0.0

    def ask(self, request: Mapping[str, Any], *, timeout: float) -> dict[str, Any]:
        """Have a request, ``do`` and its arguments, answered, or progress reported, within so many seconds.

        Raises:
            ModelRefusedError: The worker can't do it, and says why.
            WorkerFailedError: It crashed or hangs; it has been ended.
        """
        try:
            self._signal("SIGCONT")
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):  # a dead worker is noticed below
                self._process.stdin.write(json.dumps(request) + "\n")
                self._process.stdin.flush()
            while "progress" in (answer := self._next_answer(timeout)):
                pass
        except BaseException:
            self.close()
            raise
        self._signal("SIGSTOP")
        if "failed" in answer:
            self.close()
            raise WorkerFailedError(f"{self.label}: {answer['failed']}")
        if "error" in answer:
            raise ModelRefusedError(str(answer["error"]))
        return answer

    def close(self) -> None:
        """End it, whatever it is doing; a second call does nothing."""
        if not self.alive:
            return
        self.alive = False
        self._process.kill()  # works on a stopped process, too
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()
        self._stderr.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stdout:
                self._answers.put((time.perf_counter(), line))
        self._answers.put((time.perf_counter(), None))

    def _next_answer(self, timeout: float) -> dict[str, Any]:
        try:
            self.answered, line = self._answers.get(timeout=timeout)
        except queue.Empty:
            raise WorkerFailedError(
                f"{self.label}: no answer within {timeout:g} s; raise --timeout, or remove this model"
            ) from None
        if line is None:
            raise WorkerFailedError(f"{self.label}: its process {self._exit_reason()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _exit_reason(self) -> str:
        status = self._process.wait()
        how = f"ended with status {status}"
        if status < 0:
            names = {number.value: number.name for number in signal.Signals}
            how = f"was ended by {names.get(-status, f'signal {-status}')}"
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"{how}: {last[:300]}" if last else how

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self._process.poll() is None:
            self._process.send_signal(getattr(signal, name))

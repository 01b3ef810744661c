"""Running ``mobiledet COMMAND`` as a user does."""

from __future__ import annotations

import contextlib
import io
import logging
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
import torch

from mobiledet.cli.main import main


class Finished(NamedTuple):
    """What a program left behind."""

    status: int
    stdout: str
    stderr: str


@contextlib.contextmanager
def process_state_kept() -> Iterator[None]:
    """Give a program the logging of a new process, and undo what it changes for the whole process."""
    root = logging.getLogger()
    handlers = root.handlers[:]
    levels = {name: logging.getLogger(name).level for name in ("", "PIL", "matplotlib", "mobiledet")}
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    arguments, threads = sys.argv[:], torch.get_num_threads()
    root.handlers[:] = []
    try:
        yield
    finally:
        root.handlers[:], sys.argv[:] = handlers, arguments
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
        torch.set_num_threads(threads)


def mobiledet_in_process(*words: object) -> Finished:
    """Run ``mobiledet`` as its own program would, without the seconds that importing torch takes."""
    stdout, stderr = io.StringIO(), io.StringIO()
    with process_state_kept(), contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        sys.argv[:] = ["mobiledet", *map(str, words)]
        with pytest.raises(SystemExit) as ended:
            main()
    return Finished(int(ended.value.code or 0), stdout.getvalue(), stderr.getvalue())


def mobiledet(*words: object) -> Finished:
    """Run ``mobiledet`` as a process of its own."""
    command = [sys.executable, "-m", "mobiledet", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)

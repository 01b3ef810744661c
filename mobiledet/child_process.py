"""Processes of our own beside this one: what they are given, and that they end with it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path

import mobiledet


def child_variables(threads: int) -> dict[str, str]:
    """Environment of a child: the usual libraries kept to ``threads``, and this very package found."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMEXPR", "BLIS")
    package = str(Path(mobiledet.__file__).resolve().parent.parent)
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    return {
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "VECLIB_MAXIMUM_THREADS": str(threads),
        "PYTHONPATH": path,
        "PYTHONSAFEPATH": "1",  # a torch.py in the working directory is not meant
    }


def end_with_parent() -> None:
    """Have Linux end this process with its parent, even while it is stopped and can't notice by itself."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it was too quick
        os._exit(1)

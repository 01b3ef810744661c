"""The machine that figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    "mobiledet", "numpy", "opencv-python", "opencv-python-headless", "onnxruntime", "openvino", "ncnn", "torch",
    "torchvision", "ai-edge-litert", "ultralytics",
)  # fmt: skip


def describe_machine() -> dict[str, Any]:
    """Processor, cores, memory, system, Python, packages, and current load; None where unknown."""
    return {
        "processor": processor_name(),
        "cores": usable_cores(),
        "memory_gib": _memory_gib(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := package_version(name))},
        "load_average": load_average(),
    }


def processor_name() -> str:
    """Processor and board, as the system names them."""
    board = read_text("/proc/device-tree/model").strip("\0\n ")
    for line in read_text("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Model", "Hardware") and value.strip():
            return f"{board}, {value.strip()}" if board and board != value.strip() else value.strip()
    return board or platform.processor() or platform.machine() or "unknown"


def instruction_set() -> str:
    """What this processor computes networks with, as far as results depend on it: ``"x86_64 AVX2 AVX512F"``."""
    from importlib import import_module

    import numpy as np

    core = "numpy.core" if np.__version__.startswith("1.") else "numpy._core"
    features = getattr(import_module(f"{core}._multiarray_umath"), "__cpu_features__", {})
    known = [name for name in ("AVX2", "AVX512F", "AVX512VNNI", "ASIMD", "ASIMDDP", "SVE") if features.get(name)]
    flags = set(read_text("/proc/cpuinfo").split())
    return " ".join([platform.machine(), *known, *(flag for flag in ("avx_vnni", "amx_int8", "i8mm") if flag in flags)])


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Processes that wanted to run, on average over the last minute."""
    try:
        return round(os.getloadavg()[0], 2)
    except (OSError, AttributeError):
        return None


def package_version(name: str) -> str:
    """Version of an installed package; empty for one that isn't there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def memory_mib() -> tuple[float, float] | None:
    """Memory this process holds now, and held at most so far, in MiB; None where the system doesn't report it."""
    status = read_text("/proc/self/status")
    if "VmHWM:" in status:
        now, peak = (int(status.split(f"{key}:")[1].split()[0]) / 1024 for key in ("VmRSS", "VmHWM"))
        return round(now, 1), round(peak, 1)
    try:
        import resource
    except ImportError:
        return None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if platform.system() == "Darwin" else 2**10)
    return round(most, 1), round(most, 1)


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def read_text(path: str | Path) -> str:
    """A file of the system, without the blanks around it; empty where it can't be read."""
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def share_cores() -> None:
    """Let the threads that compute together wait only briefly for each other before they give their cores away.

    As GCC's OpenMP comes, they spin for about a millisecond. Beside another busy program, which the scheduler gives
    half of a core, each then wastes what the other needs, and training takes three to five times as long. The value is
    one that costs nothing measurable on a quiet machine (benchmarks/threads.py, docs/training.md). It counts when torch
    is loaded; ``GOMP_SPINCOUNT`` or ``OMP_WAIT_POLICY`` in the environment win.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")

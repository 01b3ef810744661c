"""Measure how fast detectors are on this machine, side by side, whole and by stage.

See :mod:`mobiledet.cli.benchmark`.
"""

from mobiledet.cli import benchmark
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(benchmark.main)

"""Measure how fast detectors are on this machine, side by side, whole and by stage.

The same as ``mobiledet benchmark``, see :mod:`mobiledet.cli.commands.benchmark`.
"""

from mobiledet.cli.main import run_command

if __name__ == "__main__":
    run_command("benchmark")

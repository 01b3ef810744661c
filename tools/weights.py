"""Pretrained weights: see which there are, fetch them, or convert your own file.

See :mod:`mobiledet.cli.weights`.
"""

from mobiledet.cli import weights
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(weights.main)

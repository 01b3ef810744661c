"""Train a detector, or go on with an interrupted run.

See :mod:`mobiledet.cli.train`.
"""

from mobiledet.cli import train
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(train.main)

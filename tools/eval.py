"""Score a checkpoint or an exported model on a COCO-format data set: the twelve COCO figures and AP by class.

See :mod:`mobiledet.cli.eval`.
"""

from mobiledet.cli import eval
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(eval.main, extra="score")

"""Look at a data set before training on it: what there is, what fits the anchors, what is twice, what looks wrong.

See :mod:`mobiledet.cli.check`.
"""

from mobiledet.cli import check
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(check.main)

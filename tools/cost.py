"""What a model costs: multiply-adds (GMACs) of one image, and parameters.

See :mod:`mobiledet.cli.cost`.
"""

from mobiledet.cli import cost
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(cost.main)

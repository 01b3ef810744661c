"""Make a small detection data set of generated shapes, to try training without downloading anything.

See :mod:`mobiledet.cli.make_shapes`.
"""

from mobiledet.cli import make_shapes
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(make_shapes.main)

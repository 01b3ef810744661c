"""Write a detector as a file that runs without PyTorch, and prove that it finds the same.

See :mod:`mobiledet.cli.export`.
"""

from mobiledet.cli import export
from mobiledet.cli.common import run_tool

if __name__ == "__main__":
    run_tool(export.main, extra="export")
